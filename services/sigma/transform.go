package sigma

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// transformation is one step of a pipeline.
type transformation struct {
	kind    string
	id      string
	file    string
	line    int
	rule    ruleConditions
	fields  []fieldCondition
	values  []valueCondition
	mapping []fieldMapping
	text    string         // prefix, suffix, replacement or message
	regex   *regexp.Regexp // of replace_string
	source  LogSource      // of change_logsource
	added   *node          // of add_condition
	value   *node          // of set_value
	negated bool
	vars    map[string][]string // of placeholders
	include []string
	exclude []string
}

// fieldMapping maps a name, or a prefix of names, to others.
type fieldMapping struct {
	from string
	to   []string
}

// ruleConditions say for which rules a transformation is.
type ruleConditions struct {
	all []func(*ruleState) bool
	any bool // one is enough
	not bool
}

// ruleState is a rule on its way through the pipelines.
type ruleState struct {
	logsource LogSource
	tags      []string
	applied   map[string]bool
}

func (r *ruleConditions) hold(s *ruleState) bool {
	if len(r.all) == 0 {
		return true
	}
	holds := !r.any
	for _, c := range r.all {
		if r.any {
			holds = holds || c(s)
		} else {
			holds = holds && c(s)
		}
	}
	return holds != r.not
}

// fieldCondition says for which fields a transformation is.
type fieldCondition struct {
	names   []string
	regexes []*regexp.Regexp
	exclude bool
}

func (c *fieldCondition) holds(name string) bool {
	found := slices.Contains(c.names, name) || slices.ContainsFunc(c.regexes, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	return found != c.exclude
}

// valueCondition says for which values a transformation is.
type valueCondition struct {
	regex *regexp.Regexp
	all   bool
	not   bool
}

func (c *valueCondition) holds(values []*node) bool {
	matches := func(v *node) bool { return v.kind == yaml.ScalarNode && !v.isNull() && c.regex.MatchString(v.value) }
	if c.all {
		return !slices.ContainsFunc(values, func(v *node) bool { return !matches(v) }) != c.not
	}
	return slices.ContainsFunc(values, matches) != c.not
}

// chain are the transformations that hold for a rule, and the log source that
// they leave it with.
func chain(pipelines []*Pipeline, d *Document) (active []*transformation, source LogSource, f *fault) {
	if len(pipelines) == 0 {
		return nil, d.detection.logsource, nil
	}
	s := &ruleState{logsource: d.detection.logsource, tags: d.meta.tags, applied: map[string]bool{}}
	for _, p := range byPriority(pipelines) {
		for _, t := range p.steps {
			if !t.rule.hold(s) {
				continue
			}
			if t.id != "" {
				s.applied[t.id] = true
			}
			switch t.kind {
			case "change_logsource":
				s.logsource = t.source
			case "rule_failure":
				return nil, s.logsource, &fault{line: d.Line, message: t.refusal()}
			default:
				active = append(active, t)
			}
		}
	}
	return active, s.logsource, nil
}

func (t *transformation) refusal() string {
	return "is refused by the pipeline in " + Problem{File: t.file, Line: t.line, Message: t.text}.String()
}

// resolved are the values of placeholders that transformations give, over those
// of the deployment, and whether the rest become wildcards.
func resolved(active []*transformation, own map[string][]string) (values map[string][]string, wild bool) {
	values = own
	cloned := false
	for _, t := range active {
		switch t.kind {
		case "value_placeholders", "wildcard_placeholders":
			if !cloned {
				values, cloned = map[string][]string{}, true
				maps.Copy(values, own)
			}
		}
		switch t.kind {
		case "value_placeholders":
			for name, v := range t.vars {
				if t.takes(name) {
					values[name] = v
				}
			}
		case "wildcard_placeholders":
			wild = wild || len(t.include) == 0
			for _, name := range t.include {
				if len(values[name]) == 0 {
					values[name] = []string{"*"}
				}
			}
		}
	}
	return values, wild
}

func (t *transformation) takes(name string) bool {
	return (len(t.include) == 0 || slices.Contains(t.include, name)) && !slices.Contains(t.exclude, name)
}

// fieldItem is a field with its values on its way through the transformations.
type fieldItem struct {
	names   []string
	m       modifiers
	values  []*node
	changed bool
}

// transformed builds a field's expression with the rule's transformations
// applied; nil if one drops it.
func (b *builder) transformed(path, name string, m modifiers, values []*node) (*expr, *fault) {
	if len(b.active) == 0 {
		return b.item(name, m, values)
	}
	it := &fieldItem{names: []string{name}, m: m, values: values}
	for _, t := range b.active {
		if !t.applies(it) {
			continue
		}
		switch t.kind {
		case "drop_detection_item":
			b.change("drop", path, nil, nil)
			return nil, nil
		case "detection_item_failure":
			return nil, &fault{message: t.refusal()}
		}
		t.apply(it)
	}
	if it.changed {
		b.change("item", path, it.names, it.values)
	}
	var kids []*expr
	for _, n := range it.names {
		e, f := b.item(n, it.m, it.values)
		if f != nil {
			return nil, f
		}
		kids = append(kids, e)
	}
	// A field that may be in several places is absent, null or unequal only if
	// it is so in all of them.
	if m.neq || (len(values) == 1 && (values[0].isNull() || (m.kind == "exists" && strings.EqualFold(values[0].value, "false")))) {
		return joinExpr(exprAnd, kids...), nil
	}
	return joinExpr(exprOr, kids...), nil
}

// change notes for the revision what a transformation did.
func (b *builder) change(what, path string, names []string, values []*node) {
	e := &encoder{b: b.changes}
	e.text(what).text(path).list(names).int(int64(len(values)))
	for _, v := range values {
		e.tree(v)
	}
	b.changes = e.b
}

func (t *transformation) applies(it *fieldItem) bool {
	for i := range t.fields { // renaming asks for each name, those in values too
		if !t.renames() && !slices.ContainsFunc(it.names, t.fields[i].holds) {
			return false
		}
	}
	for i := range t.values {
		if !t.values[i].holds(it.values) {
			return false
		}
	}
	return true
}

func (t *transformation) apply(it *fieldItem) {
	switch {
	case t.kind == "replace_string" && it.m.kind == "":
		it.replace(t.regex, t.text)
	case t.kind == "set_value":
		it.values, it.changed = []*node{t.value}, true
	case t.renames():
		var names []string
		for _, n := range it.names {
			names = append(names, t.rename(n)...)
		}
		if !slices.Equal(names, it.names) {
			it.names, it.changed = names, true
		}
		if it.m.kind == "fieldref" {
			it.renameValues(t)
		}
	}
}

func (t *transformation) renames() bool { return strings.HasPrefix(t.kind, "field_name_") }

// rename is what a field's name becomes. Keywords have none.
func (t *transformation) rename(name string) []string {
	if name == "" || slices.ContainsFunc(t.fields, func(c fieldCondition) bool { return !c.holds(name) }) {
		return []string{name}
	}
	switch t.kind {
	case "field_name_prefix":
		return []string{t.text + name}
	case "field_name_suffix":
		return []string{name + t.text}
	}
	for _, m := range t.mapping {
		if t.kind == "field_name_mapping" && m.from == name {
			return m.to
		}
		if rest, ok := strings.CutPrefix(name, m.from); ok && t.kind == "field_name_prefix_mapping" {
			var out []string
			for _, to := range m.to {
				out = append(out, to+rest)
			}
			return out
		}
	}
	return []string{name}
}

// renameValues renames the fields that fieldref names.
func (it *fieldItem) renameValues(t *transformation) {
	var out []*node
	changed := false
	for _, v := range it.values {
		for _, name := range t.rename(v.value) {
			changed = changed || name != v.value
			w := *v
			w.value = name
			out = append(out, &w)
		}
	}
	if changed {
		it.values, it.changed = out, true
	}
}

// replace changes the text of values, before modifiers and wildcards are read.
func (it *fieldItem) replace(re *regexp.Regexp, with string) {
	out := slices.Clone(it.values)
	for i, v := range out {
		if v.kind != yaml.ScalarNode || v.tag != "!!str" {
			continue
		}
		if s := re.ReplaceAllString(v.value, with); s != v.value {
			w := *v
			w.value = s
			out[i], it.changed = &w, true
		}
	}
	it.values = out
}

// add joins the conditions that transformations add to a rule's expression.
// Each is changed by the transformations behind it.
func (b *builder) add(e *expr) (*expr, *fault) {
	for i, t := range b.active {
		if t.kind != "add_condition" {
			continue
		}
		behind := *b
		behind.active = b.active[i+1:]
		added, f := behind.mapping("add_condition", t.added)
		if f != nil {
			return nil, &fault{message: "the pipeline in " + Problem{File: t.file, Line: f.line, Field: f.field, Message: f.message}.String()}
		}
		b.used, b.changes = behind.used, behind.changes
		b.change("add", map[bool]string{true: "not"}[t.negated], nil, []*node{t.added})
		if t.negated {
			added = notExpr(added)
		}
		b.prefix = ""
		e = joinExpr(exprAnd, e, b.note("pipeline "+t.file, added))
	}
	return e, nil
}

// renamed is what a field of an event that the rule matched is called.
func renamed(active []*transformation, name string) []string {
	names := []string{name}
	for _, t := range active {
		if len(t.values) > 0 || !t.renames() {
			continue
		}
		var next []string
		for _, n := range names {
			next = append(next, t.rename(n)...)
		}
		names = next
	}
	return names
}
