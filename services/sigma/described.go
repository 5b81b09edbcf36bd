package sigma

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// isDate reports whether a text is a date like 2025-12-31.
func isDate(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

// isTag reports whether a text is a namespace, a dot and a name.
func isTag(s string) bool {
	space, name, ok := strings.Cut(s, ".")
	allowed := func(c byte, dot bool) bool {
		return c == '_' || c == '-' || isDigit(c) || ('a' <= c && c <= 'z') || (dot && c == '.')
	}
	if !ok || space == "" || name == "" {
		return false
	}
	for i := range len(space) {
		if !allowed(space[i], false) {
			return false
		}
	}
	for i := range len(name) {
		if !allowed(name[i], true) {
			return false
		}
	}
	return true
}

// described checks attributes that only describe a rule. Of a wrong type they
// are errors, as the schemas of the specification have it; of a wrong form they
// are warnings, since the rule finds what it finds.
func (p *docParser) described() {
	p.str(p.root, "", "taxonomy", 256)
	p.str(p.root, "", "license", 65_535)
	p.strs(p.root, "", "falsepositives")
	p.strs(p.root, "", "scope")
	for _, key := range []string{"date", "modified"} {
		if s := p.str(p.root, "", key, 256); s != "" && !isDate(s) {
			p.warn(p.root.get(key), key, "%q is not a date like 2025-12-31", s)
		}
	}
	for _, tag := range p.doc.meta.tags {
		if !isTag(tag) {
			p.warn(p.root.get("tags"), "tags", "%q is not a namespace and a name in lower case, like attack.t1059", tag)
		}
	}
	for _, key := range []string{"tags", "references", "fields", "falsepositives"} {
		p.once(key)
	}
	p.related()
}

// once warns of what a list holds twice.
func (p *docParser) once(key string) {
	list := p.root.get(key)
	if list == nil || list.kind != yaml.SequenceNode {
		return
	}
	seen := map[string]bool{}
	for _, item := range list.items {
		if item.isText() && seen[item.value] {
			p.warn(item, key, "%q stands twice", item.value)
		}
		seen[item.value] = true
	}
}

func (p *docParser) related() {
	list := p.root.get("related")
	if list == nil || list.isNull() {
		return
	}
	if list.kind != yaml.SequenceNode {
		p.fail(list, "related", "must be a list of rules with id and type, not %s", list.what())
		return
	}
	for _, item := range list.items {
		if item.kind != yaml.MappingNode {
			p.fail(item, "related", "must be a mapping with id and type, not %s", item.what())
			continue
		}
		for _, key := range []string{"id", "type"} {
			if v := item.get(key); v == nil || !v.isText() {
				p.fail(item, "related."+key, "must be given, as text")
			}
		}
		known := []string{"derived", "obsolete", "merged", "renamed", "similar"}
		if t := item.get("type"); t != nil && t.isText() && !slices.Contains(known, t.value) {
			p.warn(t, "related.type", "%q is none of %s", t.value, strings.Join(known, ", "))
		}
	}
}
