package sigma

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
}

func predExpr(p *predicate) *expr { return &expr{op: exprPred, pred: p} }

func notExpr(e *expr) *expr { return &expr{op: exprNot, kids: []*expr{e}} }

// joinExpr joins by exprAnd or exprOr, flattening nested joins of the same kind.
func joinExpr(op exprOp, kids ...*expr) *expr {
	if len(kids) == 1 {
		return kids[0]
	}
	out := &expr{op: op}
	for _, k := range kids {
		if k.op == op {
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
