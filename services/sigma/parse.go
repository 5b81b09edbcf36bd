package sigma

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Parse splits src into YAML documents and parses each into a rule. Documents
// with errors are left out and reported. file is the name that problems carry.
func Parse(src []byte, file string) ([]Document, []Problem) { return ParseAt(src, file, 1) }

// ParseAt is Parse for a document that was cut out of file at the given line.
func ParseAt(src []byte, file string, line int) ([]Document, []Problem) {
	line = max(line, 1)
	if len(src) > MaxSource {
		return nil, []Problem{{File: file, Line: line, Document: line, Message: fmt.Sprintf("%d bytes: at most %d are read, split the file", len(src), MaxSource)}}
	}
	var docs []Document
	var problems []Problem
	for _, c := range splitDocuments(src, line) {
		d, faults := parseDocument(c)
		rejected := false
		for _, f := range faults {
			severity := Error
			if f.warning {
				severity = Warning
			} else {
				rejected = true
			}
			at := f.line
			if at == 0 {
				at = c.line
			}
			problems = append(problems, Problem{File: file, Line: at, Field: f.field, Message: f.message, Severity: severity, Document: c.line})
		}
		if d != nil && !rejected {
			d.File, d.Line = file, c.line
			docs = append(docs, *d)
		}
	}
	return docs, problems
}

// chunk is the text of one document.
type chunk struct {
	raw  []byte
	line int
}

// splitDocuments cuts at lines that begin with "---" or "...", which YAML allows
// nowhere inside a document. Chunks that hold only comments are left out.
func splitDocuments(src []byte, line int) []chunk {
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	var out []chunk
	start, startLine := 0, line
	emit := func(end int) {
		if raw := src[start:end]; !blank(raw) {
			out = append(out, chunk{raw, startLine})
		}
	}
	for pos := 0; pos < len(src); line++ {
		end := len(src)
		if i := bytes.IndexByte(src[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		text := src[pos:end]
		if marker := bytes.HasPrefix(text, []byte("---")) || bytes.HasPrefix(text, []byte("...")); marker && (len(text) == 3 || strings.ContainsRune(" \t\r\n", rune(text[3]))) {
			emit(pos)
			if rest := text[3:]; text[0] == '-' && !blank(rest) {
				start, startLine = pos+3, line
			} else {
				start, startLine = end, line+1
			}
		}
		pos = end
	}
	emit(len(src))
	return out
}

// blank reports whether there is nothing but white space and comments.
func blank(raw []byte) bool {
	for l := range bytes.Lines(raw) {
		if l = bytes.TrimSpace(l); len(l) > 0 && l[0] != '#' {
			return false
		}
	}
	return true
}

func parseDocument(c chunk) (*Document, []*fault) {
	switch {
	case len(c.raw) > MaxDocument:
		return nil, []*fault{{line: c.line, message: fmt.Sprintf("a rule of %d bytes: at most %d", len(c.raw), MaxDocument)}}
	case !utf8.Valid(c.raw):
		return nil, []*fault{{line: c.line, message: "is not UTF-8: save it as UTF-8"}}
	}
	root, f := readYAML(c.raw, c.line)
	if f != nil {
		return nil, []*fault{f}
	}
	if root == nil {
		return nil, nil
	}
	if root.kind != yaml.MappingNode {
		return nil, []*fault{faultf(root, "", "a rule must be a mapping, not %s", root.what())}
	}
	p := &docParser{root: root, doc: &Document{Raw: bytes.Clone(c.raw)}}
	p.parse()
	return p.doc, p.faults
}

// meta is what does not decide but is shown.
type meta struct {
	description, status, author, level string
	tags, references, fields           []string
	risk                               int64 // its own score, or unrated
}

// docParser reads one document and gathers its faults.
type docParser struct {
	root   *node
	doc    *Document
	faults []*fault
}

func (p *docParser) fail(n *node, field, format string, args ...any) {
	p.faults = append(p.faults, faultf(n, field, format, args...))
}

func (p *docParser) warn(n *node, field, format string, args ...any) {
	f := faultf(n, field, format, args...)
	f.warning = true
	p.faults = append(p.faults, f)
}

func (p *docParser) parse() {
	if n := p.root.get("action"); n != nil {
		p.fail(n, "action", "rule collections with `action` are not supported: write whole rules")
		return
	}
	p.metadata()
	has := func(key string) bool { return p.root.get(key) != nil }
	switch {
	case has("detection") && has("correlation"):
		p.fail(p.root.get("correlation"), "correlation", "a document holds a detection or a correlation, not both: put --- between them")
	case has("filter") && (has("detection") || has("correlation")):
		p.fail(p.root.get("filter"), "filter", "a document holds a filter or a rule, not both: put --- between them")
	case has("filter"):
		p.doc.Kind = KindFilter
		p.filterRule()
	case has("detection"):
		p.doc.Kind = KindDetection
		p.detectionRule()
	case has("correlation"), has("stormbell"):
		p.doc.Kind = KindCorrelation
		p.correlationRule()
	default:
		p.fail(p.root, "", "is not a rule: it has neither detection nor correlation nor filter")
	}
}

func (p *docParser) metadata() {
	d := p.doc
	d.Title = p.str(p.root, "", "title", 256)
	d.Name = p.str(p.root, "", "name", 256)
	d.ID = p.str(p.root, "", "id", 256)
	if t := p.root.get("title"); t == nil || t.isNull() {
		p.fail(p.root, "title", "is missing: give the rule a title")
	}
	d.meta = meta{
		description: p.str(p.root, "", "description", 65_535),
		status:      p.str(p.root, "", "status", 64),
		author:      p.str(p.root, "", "author", 4096),
		level:       p.str(p.root, "", "level", 64),
		tags:        p.strs(p.root, "", "tags"),
		references:  p.strs(p.root, "", "references"),
		fields:      p.strs(p.root, "", "fields"),
		risk:        unrated,
	}
	if l := d.meta.level; l != "" && !slices.Contains(levels(), l) {
		p.fail(p.root.get("level"), "level", "%q is none of %s", l, strings.Join(levels(), ", "))
	}
	if s := d.meta.status; s != "" && !slices.Contains(statuses(), s) {
		p.fail(p.root.get("status"), "status", "%q is none of %s", s, strings.Join(statuses(), ", "))
	}
	p.described()
	if d.ID == "" {
		d.ID = d.Name
	}
	if d.ID == "" {
		d.ID = contentID(d.Raw)
	}
}

// levels are in rising order.
func levels() []string {
	return []string{"informational", "low", "medium", "high", "critical"}
}

func statuses() []string {
	return []string{"stable", "test", "experimental", "deprecated", "unsupported"}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// str reads an optional text of at most limit characters.
func (p *docParser) str(n *node, path, key string, limit int) string {
	v := n.get(key)
	switch {
	case v == nil || v.isNull():
		return ""
	case !v.isText():
		p.fail(v, join(path, key), "must be text, not %s", v.what())
		return ""
	case utf8.RuneCountInString(v.value) > limit:
		p.fail(v, join(path, key), "is longer than %d characters", limit)
		return ""
	default:
		return v.value
	}
}

// strs reads an optional list of texts; a single text is a list of one.
func (p *docParser) strs(n *node, path, key string) []string {
	v := n.get(key)
	if v == nil || v.isNull() {
		return nil
	}
	items := []*node{v}
	if v.kind == yaml.SequenceNode {
		items = v.items
	}
	var out []string
	for _, item := range items {
		if !item.isText() {
			p.fail(item, join(path, key), "must be text or a list of texts, not %s", item.what())
			return nil
		}
		out = append(out, item.value)
	}
	return out
}

// boolean reads an optional true or false.
func (p *docParser) boolean(n *node, path, key string) bool {
	v := n.get(key)
	if v == nil {
		return false
	}
	if v.kind != yaml.ScalarNode || v.tag != "!!bool" {
		p.fail(v, join(path, key), "must be true or false")
		return false
	}
	return strings.EqualFold(v.value, "true")
}

// logsource reads what a rule or filter applies to.
func (p *docParser) logsource() (LogSource, bool) {
	src := p.root.get("logsource")
	if src == nil || src.kind != yaml.MappingNode {
		p.fail(p.root, "logsource", "is missing: name product, service or category")
		return LogSource{}, false
	}
	p.str(src, "logsource", "definition", 65_535)
	l := p.dimensions(src, "logsource")
	if l == (LogSource{}) {
		p.fail(src, "logsource", "names no product, service or category: it would apply to nothing in particular")
		return LogSource{}, false
	}
	return l, true
}

func (p *docParser) dimensions(n *node, path string) LogSource {
	return LogSource{
		Product:  strings.ToLower(p.str(n, path, "product", 256)),
		Service:  strings.ToLower(p.str(n, path, "service", 256)),
		Category: strings.ToLower(p.str(n, path, "category", 256)),
	}
}

func (p *docParser) detectionRule() {
	if n := p.root.get("stormbell"); n != nil {
		if n.kind != yaml.MappingNode {
			p.fail(n, "stormbell", "must be a mapping, not %s", n.what())
			return
		}
		p.onlyKeys(n, "stormbell", keyNames([]extensionKey{shadowKey(), riskKey()}))
		p.doc.Shadow = p.boolean(n, "stormbell", shadowKey().name)
		p.rated(n)
	}
	d := &detection{node: p.root.get("detection")}
	var ok bool
	if d.logsource, ok = p.logsource(); !ok {
		return
	}
	b := &builder{root: "detection", lenient: true}
	e, f := b.build(d.node)
	if f != nil {
		p.faults = append(p.faults, f)
		return
	}
	p.faults = append(p.faults, b.warnings...)
	d.expr, d.placeholders = e, b.used
	if g := p.root.get("generate"); g != nil && g.tag == "!!bool" && strings.EqualFold(g.value, "false") {
		d.silent = g
	}
	p.doc.detection = d
}
