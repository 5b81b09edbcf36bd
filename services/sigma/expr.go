package sigma

import "slices"

type exprOp uint8

const (
	exprPred exprOp = iota + 1
	exprAnd
	exprOr
	exprNot
	exprAtLeast // n of the kids
)

// expr is a boolean expression over predicates. It is immutable once compiled
// and may share parts with other rules.
type expr struct {
	op   exprOp
	n    int // of exprAtLeast
	kids []*expr
	pred *predicate
	cost int // what evaluating it may take, to try cheap parts first
	// label says what the expression was written as; for Explain only.
	label *label
}

// label is a field of a search identifier as written, or keywords.
type label struct {
	key    string
	values []*node
	name   string // of a search identifier
}

func predExpr(p *predicate) *expr { return &expr{op: exprPred, pred: p} }

func notExpr(e *expr) *expr {
	if e == nil {
		return nil
	}
	return &expr{op: exprNot, kids: []*expr{e}}
}

// joinExpr joins by exprAnd or exprOr, flattening nested joins of the same kind.
// What a pipeline dropped is nil and left out; nil if nothing is left.
func joinExpr(op exprOp, kids ...*expr) *expr {
	kids = slices.DeleteFunc(kids, func(k *expr) bool { return k == nil })
	switch len(kids) {
	case 0:
		return nil
	case 1:
		return kids[0]
	}
	out := &expr{op: op}
	for _, k := range kids {
		if k.op == op && k.label == nil {
			out.kids = append(out.kids, k.kids...)
		} else {
			out.kids = append(out.kids, k)
		}
	}
	return out
}

// walk calls f for every predicate.
func (e *expr) walk(f func(*predicate)) {
	if e.op == exprPred {
		f(e.pred)
		return
	}
	for _, k := range e.kids {
		k.walk(f)
	}
}
