package sigma

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// detection is a parsed detection rule.
type detection struct {
	logsource    LogSource
	node         *node // the `detection` mapping, for revision and expand
	expr         *expr
	placeholders []string // names that expand uses
	silent       *node    // `generate: false`
}

// builder turns a `detection` mapping into an expression.
type builder struct {
	placeholders map[string][]string
	// lenient lets unresolved placeholders pass: parsing knows none.
	lenient bool
	// root is the key of the mapping that is built: detection or filter.
	root string
	// active are the transformations of pipelines that hold for the rule.
	active []*transformation
	// changes is what they changed, for the revision.
	changes []byte
	// labels keeps what each part was written as, for Explain.
	labels   bool
	prefix   string // of names, before those of a filter
	parts    []part
	used     []string
	warnings []*fault
}

func (b *builder) warn(n *node, field, format string, args ...any) {
	f := faultf(n, field, format, args...)
	f.warning = true
	b.warnings = append(b.warnings, f)
}

// maxIdentifiers bounds the search identifiers of a rule.
const maxIdentifiers = 500

// build reads the search identifiers and the condition over them.
func (b *builder) build(n *node) (*expr, *fault) {
	if n.kind != yaml.MappingNode {
		return nil, faultf(n, b.root, "must be a mapping of search identifiers and a condition, not %s", n.what())
	}
	var condition *node
	var names []string
	parts := map[string]*expr{}
	places := map[string]*node{}
	for i, k := range n.keys {
		v := n.items[i]
		switch {
		case k.value == "condition":
			condition = v
		case k.value == "timeframe":
			return nil, faultf(k, b.root+".timeframe", "is not supported: write a correlation rule with a timespan")
		case k.value == "" || reserved(k.value) || strings.ContainsAny(k.value, "*() \t\n"):
			return nil, faultf(k, b.root+"."+k.value, "a search identifier is one word other than and, or, not, of, them, without brackets or *")
		default:
			e, f := b.identifier(b.root+"."+k.value, v)
			if f != nil {
				return nil, f
			}
			if !validIdentifier(k.value) {
				b.warn(k, b.root+"."+k.value, "only a pattern can refer to a name like this: use letters, digits, _ and -")
			}
			names = append(names, k.value)
			parts[k.value], places[k.value] = b.note(k.value, e), k
		}
	}
	switch {
	case condition == nil:
		return nil, faultf(n, b.root, "needs a condition")
	case len(names) == 0:
		return nil, faultf(n, b.root, "needs a search identifier")
	case len(names) > maxIdentifiers:
		return nil, faultf(n, b.root, "has more than %d search identifiers", maxIdentifiers)
	}
	return b.conditions(condition, names, parts, places)
}

// conditions joins the condition, or a list of them, by or.
func (b *builder) conditions(n *node, names []string, parts map[string]*expr, places map[string]*node) (*expr, *fault) {
	list := []*node{n}
	if n.kind == yaml.SequenceNode {
		list = n.items
	}
	used := map[string]bool{}
	var kids []*expr
	for _, c := range list {
		if c.kind != yaml.ScalarNode || c.tag != "!!str" {
			return nil, faultf(c, b.root+".condition", "must be text, not %s", c.what())
		}
		cond, err := parseCondition(c.value)
		if err == nil {
			var e *expr
			if e, err = cond.resolve(names, parts, used); err == nil {
				kids = append(kids, e)
			}
		}
		if err != nil {
			return nil, faultf(c, b.root+".condition", "%v", err)
		}
	}
	if len(kids) == 0 {
		return nil, faultf(n, b.root+".condition", "is empty")
	}
	for _, name := range names {
		if !used[name] {
			b.warn(places[name], b.root+"."+name, "is not used by the condition")
		}
	}
	return joinExpr(exprOr, kids...), nil
}

// identifier builds a search identifier: a mapping (and), or a list of mappings
// and keywords (or), or one keyword.
func (b *builder) identifier(path string, n *node) (*expr, *fault) {
	switch n.kind {
	case yaml.MappingNode:
		return b.mapping(path, n)
	case yaml.SequenceNode:
		if len(n.items) == 0 {
			return nil, faultf(n, path, "is an empty list, which matches nothing")
		}
		var kids []*expr
		var keywords []*node
		for _, item := range n.items {
			if item.kind == yaml.ScalarNode {
				keywords = append(keywords, item)
				continue
			}
			e, f := b.identifier(path, item)
			if f != nil {
				return nil, f
			}
			kids = append(kids, e)
		}
		if len(keywords) > 0 {
			e, f := b.keywords(path, keywords)
			if f != nil {
				return nil, f
			}
			kids = append(kids, e)
		}
		return joinExpr(exprOr, kids...), nil
	default:
		return b.keywords(path, []*node{n})
	}
}

func (b *builder) keywords(path string, values []*node) (*expr, *fault) {
	for _, v := range values {
		if v.isNull() || v.value == "" {
			return nil, faultf(v, path, "a keyword must not be empty")
		}
	}
	e, f := b.item("", modifiers{}, values)
	if b.labels && e != nil {
		e = &expr{op: exprAnd, kids: []*expr{e}, label: &label{values: values}}
	}
	return e, within(f, path, values[0])
}

func (b *builder) mapping(path string, n *node) (*expr, *fault) {
	if len(n.keys) == 0 {
		return nil, faultf(n, path, "is an empty mapping, which means nothing")
	}
	var kids []*expr
	for i, k := range n.keys {
		e, f := b.field(path+"."+k.value, k, n.items[i])
		if f != nil {
			return nil, f
		}
		kids = append(kids, e)
	}
	return joinExpr(exprAnd, kids...), nil
}

// field builds `name|modifiers: value or list`.
func (b *builder) field(path string, key, value *node) (*expr, *fault) {
	name, chain, has := strings.Cut(key.value, "|")
	var m modifiers
	if has {
		var err error
		if m, err = parseModifiers(strings.Split(chain, "|")); err != nil {
			return nil, faultf(key, path, "%v", err)
		}
	}
	if name == "" && !has {
		return nil, faultf(key, path, "a field needs a name")
	}
	if strings.Count(name, ".") > maxDots {
		return nil, faultf(key, path, "a path has at most %d dots", maxDots)
	}
	values := []*node{value}
	if value.kind == yaml.SequenceNode {
		if values = value.items; len(values) == 0 {
			return nil, faultf(value, path, "is an empty list, which matches nothing")
		}
	}
	if value.kind == yaml.MappingNode {
		return nil, faultf(value, path, "a value must be text, a number, true, false, null or a list of these, not a mapping: write the path with dots")
	}
	if m.all && len(values) == 1 {
		b.warn(key, path, "all has no effect on a single value")
	}
	if value.kind == yaml.SequenceNode {
		for _, v := range values {
			if v.isNull() {
				return nil, faultf(v, path, "null can't be in a list: use a selection of its own and `1 of`")
			}
		}
	}
	e, f := b.transformed(path, name, m, values)
	if b.labels && e != nil {
		e = &expr{op: exprAnd, kids: []*expr{e}, label: &label{key: key.value, values: values}}
	}
	return e, within(f, path, value)
}

// within places a value's fault.
func within(f *fault, path string, n *node) *fault {
	if f == nil {
		return nil
	}
	if f.field == "" {
		f.field = path
	}
	if f.line == 0 {
		f.line = n.line
	}
	return f
}
