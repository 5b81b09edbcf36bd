package sigma

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Pipeline changes rules before they are compiled, so that rules written for
// one taxonomy match events of another. Its YAML is that of pySigma's
// processing pipelines, as far as it is read here; the rest is refused.
type Pipeline struct {
	Name string
	// Priority orders pipelines: lower ones come first, equal ones by name.
	Priority int
	File     string
	Line     int
	// Raw is the document's bytes without its "---" line.
	Raw []byte

	vars  map[string][]string
	steps []*transformation
}

// MaxTransformations is how many transformations a pipeline may have.
const MaxTransformations = 1000

// byPriority sorts pipelines so that the order in which they are given plays no
// part: equal sets of them change rules equally.
func byPriority(pipelines []*Pipeline) []*Pipeline {
	out := slices.Clone(pipelines)
	slices.SortStableFunc(out, func(a, b *Pipeline) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name), bytes.Compare(a.Raw, b.Raw))
	})
	return out
}

// IsPipeline says that a YAML document is a pipeline and no rule.
func IsPipeline(raw []byte) bool {
	if !bytes.Contains(raw, []byte("transformations")) {
		return false
	}
	root, f := readYAML(raw, 1)
	if f != nil || root == nil || root.kind != yaml.MappingNode || root.get("transformations") == nil {
		return false
	}
	return !slices.ContainsFunc([]string{"detection", "correlation", "filter", "stormbell"}, func(key string) bool { return root.get(key) != nil })
}

// ParsePipelines reads a pipeline from each YAML document of src. Those with
// errors are left out and reported. file is the name that problems carry.
func ParsePipelines(src []byte, file string) ([]*Pipeline, []Problem) {
	return ParsePipelinesAt(src, file, 1)
}

// ParsePipelinesAt is ParsePipelines for a source that begins on a line of its
// file.
func ParsePipelinesAt(src []byte, file string, line int) ([]*Pipeline, []Problem) {
	if len(src) > MaxSource {
		return nil, []Problem{{File: file, Line: line, Document: line, Message: fmt.Sprintf("%d bytes: at most %d are read, split the file", len(src), MaxSource)}}
	}
	var out []*Pipeline
	var problems []Problem
	for _, c := range splitDocuments(src, line) {
		p := &pipelineParser{docParser: docParser{doc: &Document{}}, pipeline: &Pipeline{File: file, Line: c.line, Raw: c.raw}}
		root, f := readYAML(c.raw, c.line)
		switch {
		case f != nil:
			p.faults = append(p.faults, f)
		case root == nil:
			continue
		default:
			p.root = root
			p.parse()
		}
		for _, f := range p.faults {
			problems = append(problems, Problem{File: file, Line: max(f.line, c.line), Field: f.field, Message: f.message, Document: c.line})
		}
		if len(p.faults) == 0 {
			out = append(out, p.pipeline)
		}
	}
	return out, problems
}

// pipelineParser reads one pipeline and gathers its faults.
type pipelineParser struct {
	docParser
	pipeline *Pipeline
	seen     map[string]bool // ids of transformations
}

// parameters are the keys of each transformation besides those that all have.
func parameters() map[string][]string {
	return map[string][]string{
		"field_name_mapping": {"mapping"}, "field_name_prefix_mapping": {"mapping"}, "field_name_prefix": {"prefix"}, "field_name_suffix": {"suffix"},
		"drop_detection_item": {}, "add_condition": {"conditions", "negated"}, "replace_string": {"regex", "replacement"},
		"change_logsource": {"product", "service", "category"}, "value_placeholders": {"include", "exclude"}, "wildcard_placeholders": {"include"},
		"set_value": {"value"}, "rule_failure": {"message"}, "detection_item_failure": {"message"},
	}
}

func (p *pipelineParser) parse() {
	if p.root.kind != yaml.MappingNode {
		p.fail(p.root, "", "a pipeline must be a mapping, not %s", p.root.what())
		return
	}
	p.onlyKeys(p.root, "", []string{"name", "priority", "vars", "transformations", "allowed_backends"})
	p.pipeline.Name = p.str(p.root, "", "name", 256)
	if n := p.root.get("priority"); n != nil {
		if _, err := fmt.Sscan(n.value, &p.pipeline.Priority); err != nil || n.tag != "!!int" {
			p.fail(n, "priority", "must be a whole number")
		}
	}
	p.pipeline.vars = p.vars()
	list := p.root.get("transformations")
	switch {
	case list == nil:
		p.fail(p.root, "transformations", "is missing")
		return
	case list.kind != yaml.SequenceNode:
		p.fail(list, "transformations", "must be a list, not %s", list.what())
		return
	case len(list.items) > MaxTransformations:
		p.fail(list, "transformations", "has more than %d items", MaxTransformations)
		return
	}
	p.seen = map[string]bool{}
	for i, n := range list.items {
		p.transformation(n, fmt.Sprintf("transformations.%d", i+1))
	}
}

func (p *pipelineParser) vars() map[string][]string {
	n := p.root.get("vars")
	if n == nil {
		return nil
	}
	if n.kind != yaml.MappingNode {
		p.fail(n, "vars", "must map names to values, not %s", n.what())
		return nil
	}
	out := map[string][]string{}
	for _, k := range n.keys {
		out[k.value] = p.strs(n, "vars", k.value)
	}
	return out
}

func (p *pipelineParser) transformation(n *node, path string) {
	if n.kind != yaml.MappingNode {
		p.fail(n, path, "must be a mapping, not %s", n.what())
		return
	}
	t := &transformation{kind: p.str(n, path, "type", 64), id: p.str(n, path, "id", 256), file: p.pipeline.File, line: n.line, vars: p.pipeline.vars}
	known := parameters()
	own, ok := known[t.kind]
	if !ok {
		at := n.get("type")
		if at == nil {
			at = n
		}
		p.fail(at, path+".type", "%q is none of %s", t.kind, strings.Join(sortedKeys(known), ", "))
		return
	}
	p.onlyKeys(n, path, slices.Concat([]string{
		"id", "type", "rule_conditions", "rule_cond_op", "rule_cond_not", "detection_item_conditions", "field_name_conditions",
	}, own))
	for _, key := range own {
		if n.get(key) == nil && slices.Contains([]string{"mapping", "prefix", "suffix", "conditions", "regex", "replacement", "message", "value"}, key) {
			p.fail(n, path+"."+key, "is missing")
			return
		}
	}
	p.conditions(n, path, t)
	p.parameters(n, path, t)
	if t.id != "" {
		p.seen[t.id] = true
	}
	p.pipeline.steps = append(p.pipeline.steps, t)
}

func (p *pipelineParser) parameters(n *node, path string, t *transformation) {
	switch t.kind {
	case "field_name_mapping", "field_name_prefix_mapping":
		p.mapping(n.get("mapping"), path+".mapping", t)
	case "field_name_prefix", "field_name_suffix":
		t.text = p.str(n, path, strings.TrimPrefix(t.kind, "field_name_"), 256)
	case "rule_failure", "detection_item_failure":
		t.text = p.str(n, path, "message", 4096)
	case "set_value":
		if t.value = n.get("value"); t.value.kind != yaml.ScalarNode || t.value.isNull() {
			p.fail(t.value, path+".value", "must be a text, a number, true or false")
		}
	case "change_logsource":
		if t.source = p.dimensions(n, path); t.source == (LogSource{}) {
			p.fail(n, path, "names no product, service or category")
		}
		if len(t.fields) > 0 || len(t.values) > 0 {
			p.fail(n, path, "changes whole rules: conditions on fields and values mean nothing")
		}
	case "value_placeholders", "wildcard_placeholders":
		t.include, t.exclude = p.strs(n, path, "include"), p.strs(n, path, "exclude")
	case "replace_string":
		t.regex = p.regex(n.get("regex"), path+".regex")
		t.text = goReplacement(p.str(n, path, "replacement", 4096))
	case "add_condition":
		t.added, t.negated = n.get("conditions"), p.boolean(n, path, "negated")
		if t.added.kind != yaml.MappingNode {
			p.fail(t.added, path+".conditions", "must map fields to values, not %s", t.added.what())
			return
		}
		b := &builder{root: "conditions", lenient: true}
		if _, f := b.mapping(path+".conditions", t.added); f != nil {
			p.faults = append(p.faults, f)
		}
	}
}

// goReplacement turns \1 into ${1} and what is special here into itself.
func goReplacement(s string) string {
	return regexp.MustCompile(`\\(\d)`).ReplaceAllString(strings.ReplaceAll(s, "$", "$$"), "$${$1}")
}

func (p *pipelineParser) regex(n *node, path string) *regexp.Regexp {
	if n.kind != yaml.ScalarNode || n.isNull() || len(n.value) > maxRegex {
		p.fail(n, path, "must be a regular expression of at most %d bytes", maxRegex)
		return nil
	}
	re, err := regexp.Compile(n.value)
	if err != nil {
		p.fail(n, path, "not a regular expression that can be run (RE2, so no lookaround or backreferences): %v", err)
	}
	return re
}

func (p *pipelineParser) mapping(n *node, path string, t *transformation) {
	if n.kind != yaml.MappingNode {
		p.fail(n, path, "must map names of fields, not %s", n.what())
		return
	}
	for _, k := range n.keys {
		to := p.strs(n, path, k.value)
		if k.value == "" || len(to) == 0 || slices.Contains(to, "") || slices.ContainsFunc(to, func(s string) bool { return strings.Count(s, ".") > maxDots }) {
			p.fail(k, join(path, k.value), "must be the name of a field or a list of such")
			continue
		}
		t.mapping = append(t.mapping, fieldMapping{k.value, to})
	}
}

// conditions reads for which rules, fields and values a transformation is.
func (p *pipelineParser) conditions(n *node, path string, t *transformation) {
	t.rule.not = p.boolean(n, path, "rule_cond_not")
	switch op := p.str(n, path, "rule_cond_op", 8); op {
	case "", "and":
	case "or":
		t.rule.any = true
	default:
		p.fail(n.get("rule_cond_op"), path+".rule_cond_op", "must be and or or")
	}
	p.each(n, path, "rule_conditions", func(c *node, at, typ string) {
		p.ruleCondition(c, at, typ, t)
	})
	p.each(n, path, "field_name_conditions", func(c *node, at, typ string) {
		if typ != "include_fields" && typ != "exclude_fields" {
			p.fail(c, at+".type", "%q is none of include_fields, exclude_fields", typ)
			return
		}
		p.onlyKeys(c, at, []string{"type", "fields", "mode"})
		cond := fieldCondition{exclude: typ == "exclude_fields", names: p.strs(c, at, "fields")}
		switch mode := p.str(c, at, "mode", 16); mode {
		case "", "plain":
		case "re":
			for _, s := range cond.names {
				re, err := regexp.Compile("^(?:" + s + ")")
				if err != nil {
					p.fail(c, at+".fields", "%q: %v", s, err)
				}
				cond.regexes = append(cond.regexes, re)
			}
			cond.names = nil
		default:
			p.fail(c.get("mode"), at+".mode", "must be plain or re")
		}
		t.fields = append(t.fields, cond)
	})
	p.each(n, path, "detection_item_conditions", func(c *node, at, typ string) {
		if typ != "match_string" || c.get("pattern") == nil {
			p.fail(c, at+".type", "%q is not match_string with a pattern", typ)
			return
		}
		p.onlyKeys(c, at, []string{"type", "cond", "pattern", "negate"})
		cond := valueCondition{regex: p.regex(c.get("pattern"), at+".pattern"), not: p.boolean(c, at, "negate")}
		switch how := p.str(c, at, "cond", 8); how {
		case "any", "":
		case "all":
			cond.all = true
		default:
			p.fail(c.get("cond"), at+".cond", "must be any or all")
		}
		t.values = append(t.values, cond)
	})
}

// each calls f for the conditions of a list.
func (p *pipelineParser) each(n *node, path, key string, f func(c *node, at, typ string)) {
	list := n.get(key)
	if list == nil {
		return
	}
	if list.kind != yaml.SequenceNode {
		p.fail(list, join(path, key), "must be a list, not %s", list.what())
		return
	}
	for i, c := range list.items {
		at := fmt.Sprintf("%s.%s.%d", path, key, i+1)
		if c.kind != yaml.MappingNode {
			p.fail(c, at, "must be a mapping, not %s", c.what())
			continue
		}
		f(c, at, p.str(c, at, "type", 64))
	}
}

func (p *pipelineParser) ruleCondition(c *node, at, typ string, t *transformation) {
	add := func(f func(*ruleState) bool) { t.rule.all = append(t.rule.all, f) }
	switch typ {
	case "logsource":
		p.onlyKeys(c, at, []string{"type", "product", "service", "category"})
		l := p.dimensions(c, at)
		if l == (LogSource{}) {
			p.fail(c, at, "names no product, service or category")
		}
		add(func(s *ruleState) bool { return l.contains(s.logsource) })
	case "tag":
		p.onlyKeys(c, at, []string{"type", "tag"})
		tag := p.str(c, at, "tag", 256)
		add(func(s *ruleState) bool { return slices.Contains(s.tags, tag) })
	case "processing_item_applied":
		p.onlyKeys(c, at, []string{"type", "processing_item_id"})
		id := p.str(c, at, "processing_item_id", 256)
		if !p.seen[id] {
			p.fail(c, at+".processing_item_id", "no transformation before this one has the id %q", id)
		}
		add(func(s *ruleState) bool { return s.applied[id] })
	default:
		p.fail(c, at+".type", "%q is none of logsource, tag, processing_item_applied", typ)
	}
}
