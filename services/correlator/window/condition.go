package window

import "strconv"

// A condition is a spec's, ready for use.
type condition struct{ bounds []bound }

type bound struct {
	op Op
	n  int
}

func newCondition(s *Spec) condition {
	if s.Bounds[0].Op == 0 {
		return condition{bounds: []bound{{GTE, s.Min}}}
	}
	var c condition
	for _, b := range s.Bounds {
		if b.Op != 0 {
			n, _ := strconv.Atoi(b.Number) // Validate has read it
			c.bounds = append(c.bounds, bound{b.Op, n})
		}
	}
	return c
}

// holds reports whether a count meets every bound.
func (c *condition) holds(count int) bool {
	for _, b := range c.bounds {
		if !b.op.holds(count - b.n) {
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
