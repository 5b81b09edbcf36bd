package window

import (
	"math/big"
	"strconv"
)

// A condition is a spec's, ready for use.
type condition struct {
	bounds []bound
	// rank is what the percentile's rank is, of 100 × 10^k: p × 10^k.
	rank, of *big.Int
}

type bound struct {
	op     Op
	count  int      // of what is counted
	number *big.Int // of what is measured
}

func newCondition(s *Spec) condition {
	var c condition
	if s.Min > 0 {
		c.bounds = append(c.bounds, bound{op: GTE, count: s.Min})
	}
	for _, b := range s.Bounds {
		if b.Op == 0 {
			continue
		}
		x := bound{op: b.Op}
		if s.measures() { // Validate has read them
			x.number, _, _ = parseNumber(b.Number)
		} else {
			x.count, _ = strconv.Atoi(b.Number)
		}
		c.bounds = append(c.bounds, x)
	}
	switch {
	case s.Kind == ValueMedian:
		c.rank, c.of = big.NewInt(1), big.NewInt(2)
	case s.Kind == ValuePercentile && s.Percentile != "":
		p, _, _ := parseNumber(s.Percentile)
		hundred, _, _ := parseNumber("100")
		shared := new(big.Int).GCD(nil, nil, p, hundred)
		c.rank, c.of = p.Quo(p, shared), hundred.Quo(hundred, shared)
	}
	return c
}

// holds reports whether a count meets every bound.
func (c *condition) holds(count int) bool {
	for _, b := range c.bounds {
		if !b.op.holds(count - b.count) {
			return false
		}
	}
	return true
}

// holds reports whether a comparison is met, by the sign of left less right.
func (o Op) holds(sign int) bool {
	switch o {
	case GT:
		return sign > 0
	case GTE:
		return sign >= 0
	case LT:
		return sign < 0
	case LTE:
		return sign <= 0
	case EQ:
		return sign == 0
	default:
		return sign != 0
	}
}

// exprHolds runs a program of Spec.Expr: of the rules that were seen, and of
// all of which there is anything at all.
func exprHolds(program string, seen, all uint64) bool {
	var stack uint64 // the top is the lowest bit
	for i := range len(program) {
		switch op := program[i]; {
		case op < MaxRules:
			stack = stack<<1 | seen>>op&1
		case op == ExprAnd:
			stack = stack>>2<<1 | stack&1&(stack>>1)
		case op == ExprOr:
			stack = stack>>2<<1 | (stack|stack>>1)&1
		default:
			stack = stack<<1 | ^all>>(op-ExprAbsent)&1
		}
	}
	return stack&1 == 1
}

// checkExpr reports why a program can't be run.
func checkExpr(program string, rules int) string {
	depth := 0
	for i := range len(program) {
		switch op := program[i]; {
		case op < MaxRules && int(op) < rules, op >= ExprAbsent && int(op-ExprAbsent) < rules:
			depth++
		case op == ExprAnd || op == ExprOr:
			depth--
		default:
			return "it refers to a rule that is not there"
		}
		if depth < 1 || depth > 60 {
			return "it is nested too deeply"
		}
	}
	if depth != 1 || len(program) > maxExpr {
		return "it is too long"
	}
	return ""
}
