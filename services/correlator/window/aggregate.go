package window

import "math/bits"

// An aggregate is what the records of a window add up to, kept up to date as
// they enter and leave.
type aggregate struct {
	n      int
	ids    map[string]int32 // records by event id, where ids may repeat
	values tally
	rules  []int32 // records by rule
	seen   uint64  // rules that any record has
}

func newAggregate(s *Spec) aggregate {
	var a aggregate
	if s.Kind == Temporal {
		a.rules = make([]int32, s.Rules)
	}
	return a
}

// reset empties the aggregate.
func (a *aggregate) reset(g *Group) {
	a.n, a.seen = 0, 0
	clear(a.rules)
	a.values.clear()
	a.emptied(g)
}

// emptied decides whether event ids have to be counted one by one from here on.
func (a *aggregate) emptied(g *Group) {
	a.ids = nil
	if g.spec.Kind == EventCount && g.ids.repeated > 0 {
		a.ids = map[string]int32{}
	}
}

func (a *aggregate) enter(g *Group, r *record) {
	a.n++
	switch g.spec.Kind {
	case EventCount:
		if a.ids != nil {
			a.ids[r.id]++
		}
	case ValueCount:
		a.values.grow(len(g.values.names))
		a.values.enter(r.value)
	case Temporal:
		for left := r.rules; left != 0; left &= left - 1 {
			i := bits.TrailingZeros64(left)
			if i < len(a.rules) {
				a.rules[i]++
				a.seen |= 1 << i
			}
		}
	default:
	}
}

func (a *aggregate) leave(g *Group, r *record) {
	a.n--
	switch g.spec.Kind {
	case EventCount:
		if a.ids == nil {
			return
		}
		if a.ids[r.id]--; a.ids[r.id] == 0 {
			delete(a.ids, r.id)
		}
	case ValueCount:
		a.values.leave(r.value)
	case Temporal:
		for left := r.rules; left != 0; left &= left - 1 {
			i := bits.TrailingZeros64(left)
			if i < len(a.rules) {
				if a.rules[i]--; a.rules[i] == 0 {
					a.seen &^= 1 << i
				}
			}
		}
	default:
	}
}

// count is what the condition counts in the window, which the records from lo
// to hi are.
func (a *aggregate) count(g *Group, lo, hi int) int {
	switch g.spec.Kind {
	case EventCount:
		if a.ids != nil {
			return len(a.ids)
		}
		if g.ids.repeated > 0 { // since the aggregate was reset
			a.ids = map[string]int32{}
			for _, r := range g.recs.each(lo, hi) {
				a.ids[r.id]++
			}
			return len(a.ids)
		}
		return a.n
	case ValueCount:
		return a.values.distinct
	case Temporal:
		return bits.OnesCount64(a.seen)
	default:
		recs := make([]*record, 0, hi-lo)
		for _, r := range g.recs.each(lo, hi) {
			recs = append(recs, r)
		}
		return g.longest(recs)
	}
}
