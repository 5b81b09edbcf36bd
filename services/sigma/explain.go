package sigma

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Explanation is why a rule matches an event, or does not.
type Explanation struct {
	ID    string
	Title string
	// LogSource is the rule's, as pipelines leave it.
	LogSource LogSource
	// Applies says that the rule is for the event's log source.
	Applies bool
	// Condition is the rule's condition over its search identifiers, joined
	// with the filters and with what pipelines add.
	Condition Step
	// Selections are the search identifiers, also those that the condition does
	// not use, then those of filters, then what pipelines add.
	Selections []Step
}

// Matches reports whether the rule matches the event.
func (e *Explanation) Matches() bool { return e.Applies && e.Condition.Holds }

// StepKind is what a Step stands for.
type StepKind string

// The kinds of steps.
const (
	StepAll     StepKind = "all"      // every kid must hold
	StepAny     StepKind = "any"      // one kid must hold
	StepNot     StepKind = "not"      // the kid must not hold
	StepAtLeast StepKind = "at least" // so many kids as Name says must hold
	StepNamed   StepKind = "named"    // a search identifier; without kids in a condition
	StepField   StepKind = "field"    // a field of a search identifier, or keywords
	StepTest    StepKind = "test"     // a test that a field consists of
)

// Step is a part of a rule with its outcome.
type Step struct {
	Kind  StepKind
	Holds bool
	// Name is that of the search identifier, or the field with its modifiers as
	// written, empty for keywords; of a test, the field that it reads.
	Name string
	// Want are the values as written.
	Want []string
	// Seen are the field's values in the event, none if it is absent, at most
	// 32. Of keywords they are those values that match.
	Seen []Seen
	Kids []Step
}

// Seen is a value of the event.
type Seen struct {
	// Field is where it stands.
	Field string
	// Text is the value as text: text decoded, an object as compact JSON.
	Text string
	// Null says that it is null, whose text is empty.
	Null bool
	// Holds says that this value satisfies the test by itself.
	Holds bool
}

// Bounds of what an explanation shows.
const (
	maxSeen     = 32
	maxSeenText = 512
)

// part is a search identifier as it was built.
type part struct {
	name string
	expr *expr
}

// Explain says of each part of the detection rule with this id (or name)
// whether it holds for an event, with the values seen. docs are the documents
// of its set, filters included; only the rule and what applies to it is
// compiled.
func Explain(docs []Document, id string, opts Options, ev Event) (*Explanation, error) {
	d, filters, err := explained(docs, id)
	if err != nil {
		return nil, err
	}
	a, parts, f := assemble(d, filters, opts, true)
	if f != nil {
		return nil, fmt.Errorf("%s", Problem{File: d.File, Line: max(f.line, d.Line), Field: f.field, Message: f.message})
	}
	c := newCompiler(opts)
	x := &explainer{condition: c.keep(a.expr)}
	all := []*expr{a.expr}
	for _, p := range parts {
		if p.expr != nil {
			all = append(all, p.expr)
			x.parts = append(x.parts, c.keep(p.expr))
		}
	}
	r := &Rule{expr: c.intern(joinExpr(exprOr, all...)), class: c.class(a.logsource)}
	c.set.rules, c.set.preds = []*Rule{r}, len(c.preds)
	x.m = c.set.Matcher()
	p := c.set.build([]byte{1})
	x.m.epoch = 1
	err = x.m.view.scan(p.paths, len(c.set.fields), ev.Raw, false)
	if err == nil && p.keywords {
		err = x.m.view.scalars()
	}
	if err != nil {
		return nil, fmt.Errorf("the event can't be read: %w", err)
	}
	src := ev.LogSource
	src.Product, src.Service, src.Category = strings.ToLower(src.Product), strings.ToLower(src.Service), strings.ToLower(src.Category)
	out := &Explanation{ID: d.ID, Title: d.Title, LogSource: a.logsource, Applies: a.logsource.appliesTo(src, ev.Strict), Condition: x.step(x.condition, true)}
	for _, p := range x.parts {
		out.Selections = append(out.Selections, x.step(p, false))
	}
	return out, nil
}

// explained finds a rule and the filters that apply to it.
func explained(docs []Document, id string) (*Document, []*Document, error) {
	c := newCompiler(Options{})
	good := c.unique(docs)
	d := c.names[id]
	switch {
	case d == nil:
		return nil, nil, fmt.Errorf("there is no rule with the id or name %q", id)
	case d.Kind != KindDetection:
		return nil, nil, fmt.Errorf("%q is no detection rule: explain the rules that it refers to", id)
	}
	for _, other := range good {
		if other.Kind == KindFilter {
			c.filter(other, good)
		}
	}
	return d, c.filtered[d], nil
}

// keep copies an expression with its labels and order, its predicates shared.
func (c *compiler) keep(e *expr) *expr {
	out := &expr{op: e.op, n: e.n, label: e.label}
	if e.op == exprPred {
		out.pred = c.predicate(e.pred)
	}
	for _, k := range e.kids {
		out.kids = append(out.kids, c.keep(k))
	}
	return out
}

type explainer struct {
	m         *Matcher
	condition *expr
	parts     []*expr
}

// step turns an expression into steps. In a condition, names stand alone.
func (x *explainer) step(e *expr, condition bool) Step {
	s := Step{Holds: x.m.eval(e)}
	switch {
	case e.label != nil && e.label.name != "":
		s.Kind, s.Name = StepNamed, e.label.name
		if !condition {
			s.Kids = x.kids(e, condition)
		}
		return s
	case e.label != nil:
		return x.field(e, s)
	}
	switch e.op {
	case exprPred:
		s.Kind, s.Name = StepTest, e.pred.field
		s.Seen = x.seen(e.pred)
		return s
	case exprAnd:
		s.Kind = StepAll
	case exprOr:
		s.Kind = StepAny
	case exprNot:
		s.Kind = StepNot
	default:
		s.Kind, s.Name = StepAtLeast, strconv.Itoa(e.n)
	}
	s.Kids = x.kids(e, condition)
	return s
}

func (x *explainer) kids(e *expr, condition bool) []Step {
	var out []Step
	for _, k := range e.kids {
		out = append(out, x.step(k, condition))
	}
	return out
}

// field is a field with its values; its tests are kids where it has several.
func (x *explainer) field(e *expr, s Step) Step {
	s.Kind, s.Name = StepField, e.label.key
	for _, v := range e.label.values {
		s.Want = append(s.Want, v.written())
	}
	inner := e.kids[0]
	if inner.op == exprNot && inner.kids[0].op == exprPred {
		inner = inner.kids[0]
	}
	if inner.op == exprPred {
		s.Seen = x.seen(inner.pred)
		return s
	}
	s.Kids = []Step{x.step(inner, false)}
	return s
}

// written is a value as it stands in a rule, near enough.
func (n *node) written() string {
	switch {
	case n.kind != yaml.ScalarNode:
		return n.what()
	case n.tag == "!!str":
		return strconv.Quote(n.value)
	case n.isNull():
		return "null"
	default:
		return n.value
	}
}

// seen are the values that a predicate reads.
func (x *explainer) seen(p *predicate) []Seen {
	var out []Seen
	v := &x.m.view
	slots := []int{p.slot}
	if p.kind == predRef {
		slots = append(slots, p.ref.slot)
	}
	for _, slot := range slots {
		for i := v.first(slot); i >= 0 && len(out) < maxSeen; i = v.values[i].next {
			kind := v.values[i].kind
			if kind == kindArray {
				continue
			}
			s := Seen{Field: x.m.set.fields[slot], Null: kind == kindNull}
			if !s.Null {
				s.Text = cut(string(v.textOf(i)))
			}
			s.Holds = x.alone(p, i, kind)
			if slot == keywordSlot && !s.Holds {
				continue
			}
			out = append(out, s)
		}
	}
	return out
}

// alone reports whether one value satisfies a predicate.
func (x *explainer) alone(p *predicate, i int32, kind valueKind) bool {
	switch p.kind {
	case predExists:
		return p.exists
	case predNull:
		return kind == kindNull
	case predRef:
		return x.m.test(p)
	default:
		return kind != kindNull && x.m.testValue(p, i, kind)
	}
}

func cut(s string) string {
	if len(s) <= maxSeenText {
		return s
	}
	return strings.ToValidUTF8(s[:maxSeenText], "") + "…"
}

// String lays the explanation out for a terminal: what holds is marked "+",
// what does not "-".
func (e *Explanation) String() string {
	var b strings.Builder
	verdict := "matches"
	switch {
	case !e.Applies:
		verdict = "does not apply: the event is of another log source"
	case !e.Condition.Holds:
		verdict = "does not match"
	}
	fmt.Fprintf(&b, "%s (%s): %s\ncondition\n", e.ID, e.Title, verdict)
	e.Condition.write(&b, 1)
	for i := range e.Selections {
		e.Selections[i].write(&b, 0)
	}
	return b.String()
}

func (s *Step) write(b *strings.Builder, depth int) {
	fmt.Fprintf(b, "%s%s %s\n", strings.Repeat("  ", depth), map[bool]string{true: "+", false: "-"}[s.Holds], s.line())
	for i := range s.Kids {
		s.Kids[i].write(b, depth+1)
	}
}

func (s *Step) line() string {
	var out string
	switch s.Kind {
	case StepNamed:
		return s.Name
	case StepField, StepTest:
		out = s.Name
		if out == "" {
			out = "keywords"
		}
		if len(s.Want) > 0 {
			out += ": " + strings.Join(s.Want, ", ")
		}
	case StepAtLeast:
		return "at least " + s.Name
	default:
		return string(s.Kind)
	}
	var seen []string
	for _, v := range s.Seen {
		text := strconv.Quote(v.Text)
		if v.Null {
			text = "null"
		}
		seen = append(seen, text)
	}
	switch {
	case len(seen) > 0:
		out += "  ← " + strings.Join(seen, ", ")
	case len(s.Kids) == 0:
		out += "  ← nothing"
	}
	return out
}

// note names a part for an explanation.
func (b *builder) note(name string, e *expr) *expr {
	if !b.labels {
		return e
	}
	name = b.prefix + name
	if e != nil {
		e = &expr{op: exprAnd, kids: []*expr{e}, label: &label{name: name}}
	}
	b.parts = append(b.parts, part{name, e})
	return e
}
