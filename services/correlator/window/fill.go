package window

import "math/bits"

// Fill says how full a group is, for displays.
type Fill struct {
	// Count is about what the condition counts in the window that ends at the
	// latest event: ingest times and copies are left aside. Kinds of which that is
	// no number of events, values or rules count the events that are held.
	Count int
	// Events is how many records the group holds, First and Last are the times of
	// the outermost; 0 where there is none.
	Events      int
	First, Last int64
	// AtLeast says that the group was full.
	AtLeast bool
}

// maxLooked bounds the records of a window that Fill looks at.
const maxLooked = 1024

// Fill returns how full the group is, at a cost that does not grow with it.
func (g *Group) Fill() Fill {
	g.settle()
	f := Fill{Count: g.Len(), Events: g.Len(), AtLeast: g.Overflowed()}
	if g.sequence != nil || g.recs.len() == 0 {
		return f
	}
	f.First, f.Last = g.recs.first().time, g.recs.latest().time
	held := g.recs.len() - g.front
	switch g.spec.Kind {
	case EventCount:
		f.Count = held
	case ValueCount:
		f.Count = g.values.front.distinct
	case Temporal, TemporalOrdered:
		var seen uint64
		for _, r := range g.recs.each(max(g.front, g.recs.len()-maxLooked), g.recs.len()) {
			seen |= r.rules
		}
		f.Count = bits.OnesCount64(seen)
	default:
	}
	return f
}
