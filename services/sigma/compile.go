package sigma

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// MaxRules is how many documents a Set may have.
const MaxRules = 50_000

// Options are what a deployment decides about a rule set. The zero value is valid.
type Options struct {
	// Placeholders are the values of `%name%` under the modifier expand, by name.
	Placeholders map[string][]string
	// Pipelines change rules before they are compiled, by their priorities.
	Pipelines []*Pipeline
	// LogSourceFields are the names of the fields in which events tell their own
	// log source, for Event.Own. Those that are empty have the dimension's name.
	LogSourceFields LogSource
	// Accept, if set, may refuse a correlation that the caller can't evaluate:
	// its error rejects the correlation and becomes the problem's message.
	Accept func(*Correlation) error
}

// Set is a compiled rule set. It is immutable and safe for concurrent use.
type Set struct {
	rules        []*Rule
	correlations []*Correlation
	filters      []*Filter
	byID         map[string]*Rule
	corrByID     map[string]*Correlation

	fields []string // by slot; keywordSlot has no name
	preds  int
	// keywords says that some rule searches every value.
	keywords bool
	classes  []LogSource
	known    [3]map[string]bool // products, services, categories that rules name

	extraction extraction

	sources     *paths // of the fields that hold an event's own log source
	sourceSlots [3]int

	mu       sync.Mutex
	all      *paths              // of all fields
	programs map[string]*program // by the rules that they hold
	routes   map[route]*program
}

// Compile builds a Set of the documents that are good; the others, and
// correlations that refer to them, are left out and reported. It never returns
// a nil Set.
func Compile(docs []Document, opts Options) (*Set, []Problem) {
	c := newCompiler(opts)
	if len(docs) > MaxRules {
		d := docs[MaxRules]
		c.fail(&d, nil, "", "is beyond the %d rules that a set may have", MaxRules)
		docs = docs[:MaxRules]
	}
	good := c.unique(docs)
	for _, d := range good {
		if d.Kind == KindFilter {
			c.filter(d, good)
		}
	}
	for _, d := range good {
		if d.Kind == KindDetection {
			c.detection(d)
		}
	}
	for _, d := range good {
		if d.Kind == KindCorrelation && (d.correlation.typ != Risk || len(d.correlation.rules) > 0) {
			c.correlation(d, nil)
		}
	}
	c.filters(good)
	c.link()
	c.riskOfAll(good)
	c.sources()
	c.set.extraction.paths = newPaths(c.set.extraction.slots)
	c.set.preds = len(c.preds)
	return c.set, c.problems
}

func newCompiler(opts Options) *compiler {
	return &compiler{
		opts: opts,
		set: &Set{
			byID: map[string]*Rule{}, corrByID: map[string]*Correlation{}, fields: []string{""},
			programs: map[string]*program{}, routes: map[route]*program{},
			known: [3]map[string]bool{{}, {}, {}}, extraction: extraction{slots: map[string]int{}},
		},
		names: map[string]*Document{}, slots: map[string]int{}, preds: map[string]*predicate{},
		classes: map[LogSource]int{}, state: map[*Document]resolution{}, ids: map[string]string{},
		filtered: map[*Document][]*Document{},
	}
}

type resolution uint8

const (
	pending resolution = iota
	resolving
	accepted
	refused
)

type compiler struct {
	opts     Options
	set      *Set
	problems []Problem
	names    map[string]*Document // by id and by name
	ids      map[string]string    // reference → id, of accepted rules
	slots    map[string]int
	preds    map[string]*predicate
	classes  map[LogSource]int
	state    map[*Document]resolution
	filtered map[*Document][]*Document // by rule: the filters that apply to it
}

func (c *compiler) fail(d *Document, n *node, field, format string, args ...any) {
	line := d.Line
	if n != nil {
		line = n.line
	}
	c.problems = append(c.problems, Problem{File: d.File, Line: line, Field: field, Message: fmt.Sprintf(format, args...), Document: d.Line})
	c.state[d] = refused
}

func (c *compiler) warn(d *Document, n *node, field, format string, args ...any) {
	c.problems = append(c.problems, Problem{
		File: d.File, Line: n.line, Field: field, Severity: Warning, Message: fmt.Sprintf(format, args...), Document: d.Line,
	})
}

// unique keeps documents whose id and name no earlier one has.
func (c *compiler) unique(docs []Document) []*Document {
	var good []*Document
	for i := range docs {
		d := &docs[i]
		clash := false
		for _, ref := range references(d) {
			if other := c.names[ref.name]; other != nil {
				c.fail(d, nil, ref.field, "%q is taken by the rule in %s:%d: give one of them another", ref.name, other.File, other.Line)
				clash = true
			}
		}
		if clash {
			continue
		}
		for _, ref := range references(d) {
			c.names[ref.name] = d
		}
		good = append(good, d)
	}
	return good
}

type reference struct{ field, name string }

func references(d *Document) []reference {
	refs := []reference{{"id", d.ID}}
	if d.Name != "" && d.Name != d.ID {
		refs = append(refs, reference{"name", d.Name})
	}
	return refs
}

func (c *compiler) detection(d *Document) {
	a, _, f := assemble(d, c.filtered[d], c.opts, false)
	if f != nil {
		c.fail(d, &node{line: cmp.Or(f.line, d.Line)}, f.field, "%s", f.message)
		return
	}
	r := &Rule{
		ID: d.ID, Name: d.Name, Title: d.Title, Description: d.meta.description, Status: d.meta.status,
		Author: d.meta.author, Level: d.meta.level, Tags: d.meta.tags, References: d.meta.references,
		Fields: d.meta.fields, LogSource: a.logsource, File: d.File, Line: d.Line, Alerts: true, Shadow: d.Shadow,
		Revision: a.revision, risk: d.meta.risk,
		index: len(c.set.rules), expr: c.intern(a.expr), class: c.class(a.logsource), active: a.active,
	}
	c.set.rules = append(c.set.rules, r)
	c.set.byID[r.ID] = r
	c.accept(d)
}

func (c *compiler) accept(d *Document) {
	c.state[d] = accepted
	for _, ref := range references(d) {
		c.ids[ref.name] = d.ID
	}
}

func (c *compiler) class(l LogSource) int {
	if i, ok := c.classes[l]; ok {
		return i
	}
	i := len(c.set.classes)
	c.classes[l] = i
	c.set.classes = append(c.set.classes, l)
	for dim, v := range []string{l.Product, l.Service, l.Category} {
		if v != "" {
			c.set.known[dim][v] = true
		}
	}
	return i
}

// intern copies an expression with each distinct predicate shared by all rules,
// and cheaper tests first.
func (c *compiler) intern(e *expr) *expr {
	out := &expr{op: e.op, n: e.n}
	if e.op == exprPred {
		out.pred = c.predicate(e.pred)
		out.cost = out.pred.cost()
		return out
	}
	for _, k := range e.kids {
		out.kids = append(out.kids, c.intern(k))
		out.cost += out.kids[len(out.kids)-1].cost
	}
	slices.SortStableFunc(out.kids, func(a, b *expr) int { return cmp.Compare(a.cost, b.cost) })
	return out
}

func (c *compiler) predicate(p *predicate) *predicate {
	if q, ok := c.preds[string(p.key)]; ok {
		return q
	}
	q := *p
	q.id = len(c.preds)
	q.slot = c.slot(p.field)
	c.set.keywords = c.set.keywords || q.slot == keywordSlot
	if p.kind == predRef {
		q.ref.slot = c.slot(p.ref.field)
	}
	c.preds[string(p.key)] = &q
	return &q
}

// sources gives slots to the fields that hold the log source.
func (c *compiler) sources() {
	names := c.opts.LogSourceFields
	fields := map[string]int{}
	for dim, name := range []string{cmp.Or(names.Product, "product"), cmp.Or(names.Service, "service"), cmp.Or(names.Category, "category")} {
		fields[name] = c.slot(name)
		c.set.sourceSlots[dim] = fields[name]
	}
	c.set.sources = newPaths(fields)
}

func (c *compiler) slot(field string) int {
	if field == "" {
		return keywordSlot
	}
	if s, ok := c.slots[field]; ok {
		return s
	}
	s := len(c.set.fields)
	c.slots[field] = s
	c.set.fields = append(c.set.fields, field)
	return s
}

// correlation resolves a correlation after those that it refers to. chain are
// the documents whose references led here.
func (c *compiler) correlation(d *Document, chain []*Document) bool {
	switch c.state[d] {
	case accepted:
		return true
	case refused:
		return false
	case resolving:
		c.fail(d, nil, d.correlation.path("rules"), "refers to itself by way of %s", names(chain[slices.Index(chain, d)+1:]))
		return false
	}
	doc := d.correlation
	c.state[d] = resolving
	chain = append(slices.Clip(chain), d)
	for i, ref := range doc.rules {
		other := c.names[ref]
		refs, path := doc.reference(i)
		switch {
		case other == nil:
			c.fail(d, refs, path, "there is no rule with the id or name %q", ref)
		case other.Kind == KindCorrelation && other.correlation.typ == Risk:
			c.fail(d, refs, path, "%q (%s:%d) is of type risk, which adds up what others say and is counted by none: refer to other rules", ref, other.File, other.Line)
		case other.Kind == KindFilter:
			c.fail(d, refs, path, "%q is a filter (%s:%d): refer to rules", ref, other.File, other.Line)
		case other.Kind == KindDetection && c.state[other] != accepted,
			other.Kind == KindCorrelation && !c.correlation(other, chain):
			if c.state[d] != refused {
				c.fail(d, refs, path, "refers to %q (%s:%d), which is rejected", ref, other.File, other.Line)
			}
		}
	}
	if c.state[d] == refused {
		return false
	}
	corr := c.build(d)
	if corr == nil {
		return false
	}
	if c.opts.Accept != nil {
		if err := c.opts.Accept(corr); err != nil {
			c.fail(d, doc.node, doc.root, "%v", err)
			return false
		}
	}
	c.set.correlations = append(c.set.correlations, corr)
	c.set.corrByID[corr.ID] = corr
	c.accept(d)
	return true
}

func names(chain []*Document) string {
	if len(chain) == 0 {
		return "its own name"
	}
	var out []string
	for _, d := range chain {
		out = append(out, fmt.Sprintf("%q", d.ID))
	}
	return strings.Join(out, ", ")
}

// build makes the Correlation of a document whose references are all good; nil
// after a problem.
func (c *compiler) build(d *Document) *Correlation {
	doc := d.correlation
	corr := &Correlation{
		ID: d.ID, Name: d.Name, Title: d.Title, Description: d.meta.description, Status: d.meta.status,
		Author: d.meta.author, Level: d.meta.level, Tags: d.meta.tags, References: d.meta.references,
		Type: doc.typ, GroupBy: doc.groupBy, Timespan: doc.timespan, Condition: doc.condition, Field: doc.field, Percentile: doc.percent,
		Generate: doc.generate, StrictTies: doc.strict, Lateness: doc.lateness, Suppress: doc.suppress, Extension: doc.extension,
		Window: doc.window, Gap: doc.gap, Updates: doc.updates, risk: d.meta.risk,
		File: d.File, Line: d.Line, Alerts: true, Shadow: d.Shadow, Depth: 1, extractors: map[string]*extractor{},
	}
	level := -1
	var revisions []string
	var listed []string
	for i, ref := range c.members(doc) {
		id := c.ids[ref]
		if doc.typ == Risk {
			if listed = append(listed, id); !c.rate(corr, id) {
				continue
			}
		}
		if len(doc.rules) > 0 && slices.Contains(corr.Rules, id) {
			at, path := doc.reference(i)
			c.fail(d, at, path, "%q names a rule that is listed already", ref)
			return nil
		}
		corr.Rules = append(corr.Rules, id)
		if r := c.set.byID[id]; r != nil {
			revisions = append(revisions, r.Revision)
			level = max(level, slices.Index(levels(), r.Level))
		} else {
			child := c.set.corrByID[id]
			revisions = append(revisions, child.Revision)
			level = max(level, slices.Index(levels(), child.Level))
			corr.Depth = max(corr.Depth, child.Depth+1)
			corr.Children = append(corr.Children, child)
		}
	}
	if corr.Level == "" && corr.Type == Risk {
		corr.Level = "high"
	} else if corr.Level == "" && level >= 0 {
		corr.Level = levels()[level]
	}
	if corr.Depth > MaxChain && corr.Type != Risk {
		c.fail(d, doc.node.get("rules"), "correlation.rules", "is the end of a chain of %d correlations: at most %d", corr.Depth, MaxChain)
		return nil
	}
	if corr.ways = c.set.ways(corr); corr.ways == nil && len(corr.Rules) > 0 {
		c.fail(d, doc.node.get("rules"), "correlation.rules", "comes to detection rules in more than %d ways: refer to fewer", mostWays(corr))
		return nil
	}
	if !c.aliases(d, corr) || !c.renames(d, corr) || !c.ruleExpression(d, corr) {
		return nil
	}
	if corr.Revision = correlationRevision(corr, revisions); corr.Type == Risk {
		if len(doc.rules) == 0 {
			listed = nil
		}
		corr.Revision = riskRevision(corr, listed)
	}
	c.set.extract(corr)
	return corr
}

// aliases resolves the rules that aliases name, and demands a field for each.
func (c *compiler) aliases(d *Document, corr *Correlation) bool {
	doc := d.correlation
	at := doc.node.get("aliases")
	corr.Aliases = map[string]map[string]string{}
	for _, alias := range sortedKeys(doc.aliases) {
		path := doc.path("aliases") + "." + alias
		fields := map[string]string{}
		for _, ref := range sortedKeys(doc.aliases[alias]) {
			id, ok := c.ids[ref]
			switch {
			case !ok || !slices.Contains(corr.Rules, id) && corr.Type != Risk:
				c.fail(d, at, path, "%q is not among the rules of this correlation", ref)
				return false
			case fields[id] != "":
				c.fail(d, at, path, "%q names a rule that has a field already", ref)
				return false
			}
			fields[id] = doc.aliases[alias][ref]
		}
		for i, id := range corr.Rules {
			if fields[id] == "" && corr.Type != Risk {
				c.fail(d, at, path, "has no field for rule %q: an alias must cover every rule", doc.rules[i])
				return false
			}
		}
		corr.Aliases[alias] = fields
	}
	return true
}

// link tells rules which correlations refer to them, and whether they alert by
// themselves: an explicit generate wins over any number of silences.
func (c *compiler) link() {
	generated := map[string]bool{}
	for _, corr := range c.set.correlations {
		for _, id := range corr.Rules {
			generated[id] = generated[id] || corr.Generate
		}
		c.refer(corr)
	}
	for id, own := range generated {
		if r := c.set.byID[id]; r != nil {
			r.Alerts = own
		} else {
			c.set.corrByID[id].Alerts = own
		}
	}
}

// refer tells rules that a correlation refers to them.
func (c *compiler) refer(corr *Correlation) {
	for _, id := range corr.Rules {
		if r := c.set.byID[id]; r != nil {
			r.Correlations = append(r.Correlations, corr)
		} else {
			child := c.set.corrByID[id]
			child.Parents = append(child.Parents, corr)
		}
	}
}

// Rules are the detection rules in the order of their documents.
func (s *Set) Rules() []*Rule { return s.rules }

// Correlations are the correlation rules, each after those it refers to.
func (s *Set) Correlations() []*Correlation { return s.correlations }

// Rule is the detection rule with this id, or nil.
func (s *Set) Rule(id string) *Rule { return s.byID[id] }

// Correlation is the correlation rule with this id, or nil.
func (s *Set) Correlation(id string) *Correlation { return s.corrByID[id] }
