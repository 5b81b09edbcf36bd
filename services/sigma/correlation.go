package sigma

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// correlationDoc is a parsed correlation; its references are not yet resolved.
type correlationDoc struct {
	node      *node
	typ       CorrelationType
	rules     []string
	groupBy   []string
	timespan  int64
	condition Condition
	expr      *condNode // of a temporal correlation's expression
	field     []string
	percent   string
	aliases   map[string]map[string]string // alias → reference → field
	generate  bool
	strict    bool
	updates   bool
	lateness  int64
	suppress  int64
	window    Window
	gap       int64
	root      string // "correlation" or "stormbell": where node stands
	extension Extension
}

// path names a key for messages.
func (c *correlationDoc) path(key string) string { return c.root + "." + key }

// reference is where the i-th rule is referred to, and under which key.
func (c *correlationDoc) reference(i int) (*node, string) {
	if c.typ == Absence {
		key := "missing"
		if len(c.rules) == 2 && i == 0 {
			key = "trigger"
		}
		return c.node.get(key), c.path(key)
	}
	return c.node.get("rules"), c.path("rules")
}

// supported are the types that `correlation: type` may name.
func supported() []CorrelationType {
	return []CorrelationType{EventCount, ValueCount, Temporal, TemporalOrdered, ValueSum, ValueAvg, ValuePercentile, ValueMedian}
}

// Bounds of a correlation.
const (
	// MaxReferred is how many rules a correlation may refer to.
	MaxReferred = 64
	// MaxGroupBy is how many fields may make up a group, or a value.
	MaxGroupBy = 16
	// MaxChain is how many correlations may follow each other, from one of
	// detection rules to the last that refers to another.
	MaxChain    = 16
	maxTimespan = 10 * 366 * 24 * 3600 * 1000
)

func (p *docParser) correlationRule() {
	n := p.root.get("correlation")
	if n == nil {
		p.extensionRule()
		return
	}
	if n.kind != yaml.MappingNode {
		p.fail(n, "correlation", "must be a mapping, not %s", n.what())
		return
	}
	p.onlyKeys(n, "correlation", []string{"type", "rules", "aliases", "group-by", "timespan", "condition", "generate"})
	c := &correlationDoc{node: n, root: "correlation", lateness: -1, typ: CorrelationType(p.str(n, "correlation", "type", 64))}
	switch {
	case n.get("type") == nil:
		p.fail(n, "correlation.type", "is missing")
	case !slices.Contains(supported(), c.typ):
		p.fail(n.get("type"), "correlation.type", "%q is none of event_count, value_count, value_sum, value_avg, value_percentile, value_median, temporal, temporal_ordered", c.typ)
	}
	p.references(n, c)
	c.groupBy = p.names(n, "correlation", "group-by")
	if len(c.groupBy) == 0 {
		p.warn(n, "correlation.group-by", "is missing: all events are one group")
	}
	if n.get("timespan") == nil {
		p.fail(n, "correlation.timespan", "is missing")
	} else {
		c.timespan = p.duration(n, "correlation", "timespan")
	}
	p.aliases(n, c)
	p.correlationCondition(n, c)
	c.generate = p.boolean(n, "correlation", "generate") || p.boolean(p.root, "", "generate")
	p.refinements(c)
	p.doc.correlation = c
}

func (p *docParser) onlyKeys(n *node, path string, known []string) {
	for _, k := range n.keys {
		if !slices.Contains(known, k.value) {
			p.fail(k, join(path, k.value), "is not known here: %s are", strings.Join(known, ", "))
		}
	}
}

// refinements are the keys of `stormbell:` beside `correlation:`.
func (p *docParser) refinements(c *correlationDoc) {
	n := p.root.get("stormbell")
	if n == nil {
		return
	}
	if n.kind != yaml.MappingNode {
		p.fail(n, "stormbell", "must be a mapping, not %s", n.what())
		return
	}
	p.onlyKeys(n, "stormbell", keyNames(refinementKeys()))
	p.lateness(n, c)
	p.doc.Shadow = p.boolean(n, "stormbell", shadowKey().name)
	p.rated(n)
	if s := n.get("suppress"); c.suppress != 0 && c.suppress < c.timespan {
		p.fail(s, "stormbell.suppress", "must not be shorter than the timespan")
	}
	if t := n.get("ties"); t != nil {
		switch {
		case t.value != "strict":
			p.fail(t, "stormbell.ties", "must be strict")
		case c.typ != TemporalOrdered:
			p.fail(t, "stormbell.ties", "only means something to temporal_ordered")
		default:
			c.strict = true
		}
	}
	p.windows(n, c)
	c.updates = p.boolean(n, "stormbell", "updates")
	if c.updates && !c.atOnce() {
		p.fail(n.get("updates"), "stormbell.updates", "only means something to rules that fire at once: this one waits for the end of its windows, and says all that there is")
	}
}

// atOnce reports whether a bucket fires with the event that completes it, as
// docs/sigma.md says of windows.
func (c *correlationDoc) atOnce() bool {
	counts := c.typ == EventCount || c.typ == ValueCount || c.typ == ValueSum || c.typ == Temporal || c.typ == TemporalOrdered
	if !counts || c.window == Session {
		return false
	}
	if c.expr != nil {
		return c.expr.expression(nil).Monotone()
	}
	_, ok := c.condition.AtOnce()
	return ok
}

// windows reads how event times are cut into windows.
func (p *docParser) windows(n *node, c *correlationDoc) {
	if w := n.get("window"); w != nil {
		switch c.window = Window(w.value); {
		case w.kind != yaml.ScalarNode || c.window != Sliding && c.window != Tumbling && c.window != Session:
			p.fail(w, "stormbell.window", "must be sliding, tumbling or session")
		case c.window == Sliding:
			c.window = ""
		}
	}
	gap := n.get("gap")
	if gap != nil {
		c.gap = p.duration(n, "stormbell", "gap")
	}
	switch {
	case gap == nil && c.window == Session:
		p.fail(n.get("window"), "stormbell.gap", "is missing: say how long a silence ends a session, for example gap: 5m")
	case gap != nil && c.window != Session:
		p.fail(gap, "stormbell.gap", "only means something to window: session")
	case c.timespan > 0 && c.gap > c.timespan:
		p.fail(gap, "stormbell.gap", "must not be longer than the timespan")
	}
}

// lateness reads the refinements that every rule over time may have.
func (p *docParser) lateness(n *node, c *correlationDoc) {
	if n.get("lateness") != nil {
		c.lateness = p.duration(n, "stormbell", "lateness")
	}
	if n.get("suppress") != nil {
		c.suppress = p.duration(n, "stormbell", "suppress")
	}
}

// names reads a list of distinct, non-empty names.
func (p *docParser) names(n *node, path, key string) []string {
	v := n.get(key)
	names := p.strs(n, path, key)
	for i, s := range names {
		switch {
		case s == "":
			p.fail(v, join(path, key), "a name must not be empty")
		case slices.Contains(names[:i], s):
			p.fail(v, join(path, key), "%q stands twice", s)
		case strings.Contains(s, "|"):
			p.fail(v, join(path, key), "%q: modifiers are not allowed here", s)
		case strings.Count(s, ".") > maxDots:
			p.fail(v, join(path, key), "%q: a path has at most %d dots", s, maxDots)
		}
	}
	if len(names) > MaxGroupBy && key != "rules" {
		p.fail(v, join(path, key), "has more than %d names", MaxGroupBy)
	}
	return names
}

func (p *docParser) references(n *node, c *correlationDoc) {
	c.rules = p.names(n, c.root, "rules")
	switch {
	case len(c.rules) == 0 && n.get("rules") == nil:
		p.fail(n, c.path("rules"), "is missing: refer to rules by id or name")
	case len(c.rules) == 0:
		p.fail(n.get("rules"), c.path("rules"), "is empty: refer to rules by id or name")
	case len(c.rules) > MaxReferred:
		p.fail(n.get("rules"), c.path("rules"), "refers to more than %d rules", MaxReferred)
	case len(c.rules) == 1 && (c.typ == Temporal || c.typ == TemporalOrdered):
		p.warn(n.get("rules"), c.path("rules"), "one rule alone makes no %s correlation", c.typ)
	}
}

// duration reads a whole number and one of s, m, h, d, w, as milliseconds.
func (p *docParser) duration(n *node, path, key string) int64 {
	v := n.get(key)
	units := map[byte]int64{'s': 1000, 'm': 60_000, 'h': 3_600_000, 'd': 86_400_000, 'w': 604_800_000}
	s := v.value
	if v.kind != yaml.ScalarNode || len(s) < 2 || units[s[len(s)-1]] == 0 || !isDigit(s[0]) {
		p.fail(v, join(path, key), "must be a number and s, m, h, d or w, for example 15m")
		return 0
	}
	count, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	unit := units[s[len(s)-1]]
	if err != nil || count < 1 || count > maxTimespan/unit {
		p.fail(v, join(path, key), "must be more than nothing and at most ten years")
		return 0
	}
	return count * unit
}

// aliases reads alias → rule → field. Whether they cover every rule is checked
// once references are resolved.
func (p *docParser) aliases(n *node, c *correlationDoc) {
	a := n.get("aliases")
	if a == nil {
		return
	}
	if a.kind != yaml.MappingNode {
		p.fail(a, c.path("aliases"), "must map an alias to a field of each rule, not %s", a.what())
		return
	}
	c.aliases = map[string]map[string]string{}
	for i, k := range a.keys {
		path := c.path("aliases") + "." + k.value
		m := a.items[i]
		if m.kind != yaml.MappingNode || k.value == "" {
			p.fail(k, path, "must map each rule to a field, not %s", m.what())
			continue
		}
		if !slices.Contains(c.groupBy, k.value) && !slices.Contains(conditionFields(n), k.value) && !slices.Contains(c.field, k.value) {
			p.warn(k, path, "is used neither in group-by nor as the condition's field")
		}
		fields := map[string]string{}
		for j, rule := range m.keys {
			field := m.items[j]
			if field.kind != yaml.ScalarNode || field.isNull() || field.value == "" || strings.Count(field.value, ".") > maxDots {
				p.fail(rule, join(path, rule.value), "must be the name of a field")
				continue
			}
			fields[rule.value] = field.value
		}
		c.aliases[k.value] = fields
	}
}

func conditionFields(n *node) []string {
	f := n.get("condition").get("field")
	switch {
	case f == nil:
		return nil
	case f.kind == yaml.SequenceNode:
		var out []string
		for _, item := range f.items {
			out = append(out, item.value)
		}
		return out
	default:
		return []string{f.value}
	}
}
