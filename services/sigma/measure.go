package sigma

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Expression is a boolean expression over the rules that a temporal correlation
// refers to.
type Expression struct {
	Op ExpressionOp
	// Rule is the id of a referred rule, of the op RuleSeen.
	Rule string
	Kids []*Expression
}

// ExpressionOp is what an Expression does with its kids.
type ExpressionOp uint8

// The operators of an Expression.
const (
	RuleSeen ExpressionOp = iota + 1
	AllOf
	AnyOf
	NoneOf // of exactly one kid
)

// Holds reports whether the expression is true of the rules that were seen.
func (e *Expression) Holds(seen func(rule string) bool) bool {
	switch e.Op {
	case RuleSeen:
		return seen(e.Rule)
	case AllOf:
		return !slices.ContainsFunc(e.Kids, func(k *Expression) bool { return !k.Holds(seen) })
	case AnyOf:
		return slices.ContainsFunc(e.Kids, func(k *Expression) bool { return k.Holds(seen) })
	default:
		return !e.Kids[0].Holds(seen)
	}
}

// Monotone reports whether seeing a further rule never makes the expression
// false: there is no not.
func (e *Expression) Monotone() bool {
	return e.Op != NoneOf && !slices.ContainsFunc(e.Kids, func(k *Expression) bool { return !k.Monotone() })
}

// expression resolves the names of a parsed condition to ids.
func (c *condNode) expression(ids map[string]string) *Expression {
	if c.op == exprPred {
		return &Expression{Op: RuleSeen, Rule: ids[c.name]}
	}
	e := &Expression{Op: map[exprOp]ExpressionOp{exprAnd: AllOf, exprOr: AnyOf, exprNot: NoneOf}[c.op]}
	for _, k := range c.kids {
		e.Kids = append(e.Kids, k.expression(ids))
	}
	return e
}

// expressionNames calls f with each name of a condition, and with each pattern.
func (c *condNode) expressionNames(f func(name string, pattern bool)) {
	if c.op == exprPred {
		f(c.name, c.pattern)
		return
	}
	for _, k := range c.kids {
		k.expressionNames(f)
	}
}

// encode writes the expression for a revision.
func (e *Expression) encode(to *encoder) {
	to.int(int64(e.Op)).text(e.Rule).int(int64(len(e.Kids)))
	for _, k := range e.Kids {
		k.encode(to)
	}
}

func (t CorrelationType) temporal() bool { return t == Temporal || t == TemporalOrdered }

// measured: the condition's field gives numbers, which bounds compare.
func (t CorrelationType) measured() bool {
	return t == ValueSum || t == ValueAvg || t == ValuePercentile || t == ValueMedian
}

func (p *docParser) correlationCondition(n *node, c *correlationDoc) {
	const path = "correlation.condition"
	v := n.get("condition")
	switch {
	case v == nil && c.typ.temporal():
		c.condition = Condition{Bounds: []Bound{newBound(GTE, int64(len(c.rules)))}}
		return
	case v == nil:
		p.fail(n, path, "is missing")
		return
	case v.kind == yaml.ScalarNode && c.typ.temporal():
		p.ruleExpression(v, c)
		return
	case v.kind != yaml.MappingNode:
		p.fail(v, path, "must be a mapping such as gte: 10, not %s", v.what())
		return
	}
	for i, k := range v.keys {
		switch k.value {
		case "field":
			if c.typ != ValueCount && !c.typ.measured() {
				p.fail(k, path+".field", "has no meaning for %s", c.typ)
			}
			c.field = p.names(v, path, "field")
		case "percentile":
			p.percentile(k, v.items[i], c)
		default:
			p.bound(k, v.items[i], c)
		}
	}
	switch {
	case c.typ == ValueCount && len(c.field) == 0:
		p.fail(v, path+".field", "is missing: name the field whose values are counted")
	case c.typ.measured() && len(c.field) == 0:
		p.fail(v, path+".field", "is missing: name the field that holds the numbers")
	case c.typ.measured() && len(c.field) > 1:
		p.fail(v.get("field"), path+".field", "must be a single field for %s", c.typ)
	}
	p.checkBounds(v, c)
}

// percentile reads which percentile value_percentile compares.
func (p *docParser) percentile(k, v *node, c *correlationDoc) {
	const path = "correlation.condition.percentile"
	d, ok := boundNumber(v)
	switch {
	case c.typ != ValuePercentile:
		p.fail(k, path, "has no meaning for %s", c.typ)
	case !ok || d.neg || d.compare(hundred()) > 0:
		p.fail(v, path, "must be a number from 0 to 100")
	default:
		c.percent = v.value
	}
}

func hundred() decimal { return decimal{digits: []byte("1"), exp: 3} }

// boundNumber is a YAML number, not in quotes.
func boundNumber(v *node) (decimal, bool) {
	if v.kind != yaml.ScalarNode || (v.tag != "!!int" && v.tag != "!!float") {
		return decimal{}, false
	}
	return parseDecimal([]byte(numberText(v)), nil)
}

// ruleExpression reads a condition over the names of the referred rules.
func (p *docParser) ruleExpression(v *node, c *correlationDoc) {
	const path = "correlation.condition"
	cond, err := parseCondition(v.value)
	if err != nil {
		p.fail(v, path, "%v", err)
		return
	}
	good := true
	cond.expressionNames(func(name string, pattern bool) {
		if pattern {
			p.fail(v, path, "%q: patterns are not allowed here, name the rules", name)
			good = false
		}
	})
	if !good {
		return
	}
	c.condition = Condition{Expression: strings.Join(strings.Fields(v.value), " ")}
	c.expr = cond
}

// ruleExpression resolves the names in a correlation's expression.
func (c *compiler) ruleExpression(d *Document, corr *Correlation) bool {
	const path = "correlation.condition"
	doc := d.correlation
	if doc.expr == nil {
		return true
	}
	at := doc.node.get("condition")
	used := map[string]bool{}
	strange := ""
	doc.expr.expressionNames(func(name string, _ bool) {
		if id, ok := c.ids[name]; ok && slices.Contains(corr.Rules, id) {
			used[id] = true
		} else if strange == "" {
			strange = name
		}
	})
	if strange != "" {
		c.fail(d, at, path, "%q is not among the rules of this correlation", strange)
		return false
	}
	corr.Condition.Tree = doc.expr.expression(c.ids)
	if !satisfiable(corr.Condition.Tree, corr.Rules) {
		c.fail(d, at, path, "can't be satisfied by an event of these rules")
		return false
	}
	for i, id := range corr.Rules {
		if !used[id] {
			c.problems = append(c.problems, Problem{
				File: d.File, Line: at.line, Field: path, Severity: Warning, Document: d.Line,
				Message: fmt.Sprintf("does not use the rule %q", doc.rules[i]),
			})
		}
	}
	return true
}

// maxTried is up to how many rules all sets of them are tried.
const maxTried = 12

// satisfiable reports whether some set of rules, not empty, makes an expression
// true. Of many rules it is not known and taken for granted.
func satisfiable(e *Expression, rules []string) bool {
	if len(rules) > maxTried {
		return true
	}
	for set := 1; set < 1<<len(rules); set++ {
		if e.Holds(func(r string) bool { return set>>slices.Index(rules, r)&1 == 1 }) {
			return true
		}
	}
	return false
}

func newBound(op Op, count int64) Bound {
	return Bound{Op: op, Count: count, Number: strconv.FormatInt(count, 10)}
}

func (p *docParser) bound(k, v *node, c *correlationDoc) {
	path := "correlation.condition." + k.value
	op := Op(k.value)
	if !slices.Contains([]Op{GT, GTE, LT, LTE, EQ, NEQ}, op) {
		p.fail(k, path, "is not known: gt, gte, lt, lte, eq, neq and field are")
		return
	}
	if c.typ.measured() {
		if _, ok := boundNumber(v); !ok {
			p.fail(v, path, "must be a number, not %s %q", v.what(), v.value)
			return
		}
		count, _ := strconv.ParseInt(numberText(v), 10, 64)
		c.condition.Bounds = append(c.condition.Bounds, Bound{Op: op, Count: count, Number: numberText(v)})
		return
	}
	count, err := strconv.ParseInt(v.value, 10, 64)
	if v.kind != yaml.ScalarNode || err != nil || count < 0 || count == math.MaxInt64 {
		p.fail(v, path, "must be a whole number, not %s %q", v.what(), v.value)
		return
	}
	c.condition.Bounds = append(c.condition.Bounds, newBound(op, count))
}

// checkBounds allows one operator, or a lower and an upper bound, that
// something satisfies.
func (p *docParser) checkBounds(v *node, c *correlationDoc) {
	const path = "correlation.condition"
	b := c.condition.Bounds
	lower := func(o Op) bool { return o == GT || o == GTE }
	upper := func(o Op) bool { return o == LT || o == LTE }
	switch {
	case len(b) == 0:
		p.fail(v, path, "needs one of gt, gte, lt, lte, eq, neq")
		return
	case len(b) == 2 && upper(b[0].Op) && lower(b[1].Op):
		b[0], b[1] = b[1], b[0]
	case len(b) == 2 && lower(b[0].Op) && upper(b[1].Op), len(b) == 1:
	default:
		p.fail(v, path, "takes one operator, or a lower and an upper bound")
		return
	}
	if c.typ.measured() {
		p.checkNumbers(v, c)
		return
	}
	// Between neighbouring thresholds nothing changes, so these decide.
	fires := false
	for _, x := range b {
		for _, count := range []int64{x.Count - 1, x.Count, x.Count + 1} {
			if count > 0 && c.condition.Holds(count) {
				fires = true
			}
		}
	}
	switch {
	case !fires:
		p.fail(v, path, "no count above zero satisfies it: a correlation never fires without an event")
	case c.typ.temporal():
		if !p.reachable(c) {
			p.fail(v, path, "can't be satisfied by %d rules", len(c.rules))
		}
	case len(b) == 1 && (b[0].Op == GTE && b[0].Count == 0):
		p.fail(v, path, "gte: 0 holds without an event: a correlation never fires so")
	}
}

// checkNumbers refuses a range that is empty, and a share that no event can have.
func (p *docParser) checkNumbers(v *node, c *correlationDoc) {
	const path = "correlation.condition"
	b := c.condition.Bounds
	var d [2]decimal
	for i := range b {
		d[i], _ = parseDecimal([]byte(b[i].Number), nil)
	}
	if len(b) == 2 {
		if order := d[0].compare(d[1]); order > 0 || (order == 0 && (b[0].Op == GT || b[1].Op == LT)) {
			p.fail(v, path, "no number is between %s and %s", b[0].Number, b[1].Number)
			return
		}
	}
	if c.typ != ValuePercentile || c.percent != "" {
		return
	}
	for i := range b {
		if d[i].neg || d[i].compare(hundred()) > 0 {
			p.fail(v, path, "without percentile the bound is a share in %%, from 0 to 100, not %s", b[i].Number)
			return
		}
	}
}

func (p *docParser) reachable(c *correlationDoc) bool {
	for n := int64(1); n <= int64(len(c.rules)); n++ {
		if c.condition.Holds(n) {
			return true
		}
	}
	return false
}
