package sigma

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Filter is a compiled filter: a condition that every rule it applies to must
// satisfy besides its own. It is immutable.
type Filter struct {
	ID          string
	Name        string
	Title       string
	Description string
	LogSource   LogSource
	// Rules are the ids of the detection rules that it applies to, in the set's
	// order.
	Rules []string
	File  string
	Line  int
}

// filterDoc is a parsed filter.
type filterDoc struct {
	logsource    LogSource
	node         *node // the `filter` mapping without `rules`
	at           *node // `rules`
	rules        []string
	every        bool // all rules of a matching log source
	placeholders []string
}

// Filters are the filters in the order of their documents.
func (s *Set) Filters() []*Filter { return s.filters }

// filterRule reads a document with a `filter` section. Its condition is joined
// to a rule's by and, as written: who wants to suppress writes `not selection`.
func (p *docParser) filterRule() {
	n := p.root.get("filter")
	if n.kind != yaml.MappingNode {
		p.fail(n, "filter", "must be a mapping of rules, search identifiers and a condition, not %s", n.what())
		return
	}
	f := &filterDoc{node: without(n, "rules"), at: n.get("rules")}
	var ok bool
	if f.logsource, ok = p.logsource(); !ok {
		return
	}
	switch {
	case f.at == nil:
		p.fail(n, "filter.rules", "is missing: list rules by id or name, or write any for all of the log source")
	case f.at.isNull():
		p.fail(f.at, "filter.rules", "is empty: list rules by id or name, or write any for all of the log source")
	case f.at.kind == yaml.ScalarNode && strings.EqualFold(f.at.value, "any"),
		f.at.kind == yaml.SequenceNode && len(f.at.items) == 0:
		f.every = true
	default:
		f.rules = p.names(n, "filter", "rules")
	}
	b := &builder{root: "filter", lenient: true}
	if _, fault := b.build(f.node); fault != nil {
		p.faults = append(p.faults, fault)
		return
	}
	p.faults = append(p.faults, b.warnings...)
	f.placeholders = b.used
	if c := f.node.get("condition"); !negates(c) {
		p.warn(c, "filter.condition", "is required of an event as it stands: write `not …` to suppress what the selection finds")
	}
	p.doc.filter = f
}

// without is a mapping without one of its keys.
func without(n *node, key string) *node {
	out := &node{kind: n.kind, tag: n.tag, line: n.line}
	for i, k := range n.keys {
		if k.value != key {
			out.keys, out.items = append(out.keys, k), append(out.items, n.items[i])
		}
	}
	return out
}

// negates reports whether some condition has a not.
func negates(n *node) bool {
	if n.kind == yaml.SequenceNode {
		return slices.ContainsFunc(n.items, negates)
	}
	c, err := parseCondition(n.value)
	return err == nil && c.negates()
}

func (c *condNode) negates() bool {
	return c.op == exprNot || slices.ContainsFunc(c.kids, (*condNode).negates)
}

// contains reports whether every dimension that l names is equal in other.
func (l LogSource) contains(other LogSource) bool { return l.appliesTo(other, true) }

// filter finds the rules that a filter applies to.
func (c *compiler) filter(d *Document, docs []*Document) {
	f := d.filter
	var to []*Document
	for _, ref := range f.rules {
		other := c.names[ref]
		switch {
		case other == nil:
			c.fail(d, f.at, "filter.rules", "there is no rule with the id or name %q", ref)
		case other.Kind != KindDetection:
			c.fail(d, f.at, "filter.rules", "%q is no detection rule: filters apply to nothing else", ref)
		case !f.logsource.contains(other.detection.logsource):
			c.fail(d, f.at, "filter.rules", "%q (%s:%d) is for another log source than this filter", ref, other.File, other.Line)
		case slices.Contains(to, other):
			c.fail(d, f.at, "filter.rules", "%q names a rule that is listed already", ref)
		default:
			to = append(to, other)
		}
	}
	if c.state[d] == refused {
		return
	}
	if f.every {
		for _, other := range docs {
			if other.Kind == KindDetection && f.logsource.contains(other.detection.logsource) {
				to = append(to, other)
			}
		}
	}
	if len(to) == 0 {
		c.warn(d, f.at, "filter.rules", "no rule of this set has a log source that the filter applies to")
	}
	for _, other := range to {
		c.filtered[other] = append(c.filtered[other], d)
	}
	c.accept(d)
}

// filters tells which rules each filter applies to.
func (c *compiler) filters(docs []*Document) {
	for _, d := range docs {
		if d.Kind != KindFilter || c.state[d] != accepted {
			continue
		}
		f := &Filter{
			ID: d.ID, Name: d.Name, Title: d.Title, Description: d.meta.description, LogSource: d.filter.logsource, File: d.File, Line: d.Line,
		}
		for _, r := range docs {
			if c.state[r] == accepted && slices.Contains(c.filtered[r], d) {
				f.Rules = append(f.Rules, r.ID)
			}
		}
		c.set.filters = append(c.set.filters, f)
	}
}
