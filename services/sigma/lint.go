package sigma

import (
	"fmt"
	"slices"
)

// Lint finds parts of rules that never do anything, which is legal and surely
// not meant: rules and search identifiers that no event satisfies, and rules
// that say generate: false where no correlation refers to them. What is
// rejected it leaves out. The problems are all warnings, and certain: what would
// take too long to know is not one.
//
// Search identifiers that a condition does not use, and filters that apply to
// nothing, are warnings of Parse and Compile.
func Lint(docs []Document, opts Options) []Problem {
	c := newCompiler(opts)
	good := c.unique(docs)
	for _, d := range good {
		if d.Kind == KindFilter {
			c.filter(d, good)
		}
	}
	referred := map[*Document]bool{}
	for _, d := range good {
		if d.Kind == KindCorrelation {
			for _, ref := range d.correlation.rules {
				referred[c.names[ref]] = true
			}
		}
	}
	c.problems = nil
	for _, d := range good {
		if d.Kind != KindDetection {
			continue
		}
		c.unreachable(d)
		if g := d.detection.silent; g != nil && !referred[d] {
			c.warn(d, g, "generate", "belongs into a correlation: none refers to this rule, so it alerts by itself")
		}
	}
	return c.problems
}

// unreachable warns of a rule, or of a search identifier, that no event
// satisfies.
func (c *compiler) unreachable(d *Document) {
	a, parts, f := assemble(d, c.filtered[d], c.opts, true)
	if f != nil {
		return // Compile says so
	}
	if why, never := c.never(a.expr); never {
		c.warn(d, d.detection.node, "detection", "no event can match this rule: %s", why)
		return
	}
	for _, p := range parts {
		if p.expr == nil {
			continue
		}
		why, never := c.never(p.expr)
		if !never {
			continue
		}
		at := d.detection.node
		for _, k := range at.keys {
			if k.value == p.name {
				at = k
			}
		}
		c.warn(d, at, "detection."+p.name, "no event can satisfy this: %s", why)
	}
}

// never reports whether nothing satisfies an expression, and why.
func (c *compiler) never(e *expr) (why string, never bool) {
	r := &reach{left: maxReach}
	if r.satisfiable([]wanted{{c.keep(e), true}}, nil, nil) {
		return "", false
	}
	return r.why, true
}

// maxReach bounds the steps of a search for something that satisfies a rule.
const maxReach = 20_000

// wanted is an expression that must hold, or must not.
type wanted struct {
	expr  *expr
	holds bool
}

// reach searches for values that satisfy an expression. It takes a field's
// values one by one: where several conditions on a field can only be met by
// different elements of a list, it says so.
type reach struct {
	left int
	why  string // the first contradiction that was met
}

// satisfiable reports whether all of do, and one kid each of branch, can hold
// beside the tests that are decided. It says yes where it does not know.
func (r *reach) satisfiable(do, branch []wanted, decided []fact) bool {
	for len(do) > 0 {
		if r.left--; r.left < 0 {
			return true
		}
		w := do[len(do)-1]
		do = do[:len(do)-1]
		switch e := w.expr; {
		case e.op == exprPred:
			var clash string
			if decided, clash = decide(decided, fact{e.pred, w.holds}); clash != "" {
				if r.why == "" {
					r.why = clash
				}
				return false
			}
		case e.op == exprNot:
			do = append(do, wanted{e.kids[0], !w.holds})
		case e.op == exprAtLeast:
			// Not looked into.
		case len(e.kids) == 1, (e.op == exprAnd) == w.holds:
			for _, k := range e.kids {
				do = append(do, wanted{k, w.holds})
			}
		default:
			branch = append(branch, w)
		}
	}
	if len(branch) == 0 {
		return true
	}
	last := branch[len(branch)-1]
	rest := branch[: len(branch)-1 : len(branch)-1]
	for _, k := range last.expr.kids {
		if r.satisfiable([]wanted{{k, last.holds}}, rest, slices.Clip(decided)) {
			return true
		}
	}
	return false
}

// named is a field for messages.
func named(field string) string {
	if field == "" {
		return "the keywords"
	}
	return fmt.Sprintf("the conditions on %q", field)
}
