package window

import (
	"math"
	"slices"
)

// A group of a kind that takes events in order keeps those that the watermark has
// not passed. It lets go of an event where that provably makes no difference: see
// the machines. What is left when it is full goes by age, and leaves a hole: what is
// decided by events of a time that lies in it is left undecided, and counted.

// hole is the times, both ends in, from which events lack.
type hole struct{ from, to int64 }

func noHole() hole { return hole{math.MaxInt64, math.MinInt64} }

// unsure reports whether a firing may be one for want of an event. When a group of
// Rate began, as far as it knows, may be for want of one, too.
func (q *sequence) unsure(f *Firing) bool {
	from := min(f.Start, f.since)
	if q.spec.Kind == Rate {
		from = f.Start - q.spec.Memory()
	}
	return from <= q.hole.to && q.hole.from <= f.End
}

// lacking reports whether events lack that something may still depend on.
func (q *sequence) lacking() bool { return q.hole.from <= q.hole.to }

// lose notes that an event lacks for want of room.
func (q *sequence) lose(t int64) {
	q.hole = hole{min(q.hole.from, t), max(q.hole.to, t)}
	q.pages.meta = true
}

// mend forgets the hole where nothing that is still to be said reaches back to it.
func (q *sequence) mend() {
	if q.lacking() && q.hole.to < q.frontier-q.spec.Memory()-q.spec.Timespan {
		q.hole = noHole()
	}
}

// A thinner is a machine to which an event that waits may be superfluous beside
// those before and after it, of which either may be nil.
type thinner interface {
	superfluous(before, e, after *entry) bool
}

// around is the waiting event at an index, or nil.
func (q *sequence) around(i int) *entry {
	if i < 0 || i >= len(q.waiting) {
		return nil
	}
	return q.waiting[i]
}

// thin lets go of what is superfluous for the event that has just come to an index.
func (q *sequence) thin(at int) {
	switch m := q.machine.(type) {
	case *novelty:
		if e := m.between(q.waiting[at]); e != nil {
			i, _ := slices.BinarySearchFunc(q.waiting, e, compareEntries)
			q.unwait(i)
		}
	case thinner:
		for i := min(at+1, len(q.waiting)-1); i >= 0; i-- {
			if m.superfluous(q.around(i-1), q.waiting[i], q.around(i+1)) {
				q.unwait(i)
			} else if i < at {
				return
			}
		}
	}
}

// thinAll does so for all that wait: pages may have what was let go before.
func (q *sequence) thinAll() {
	m, ok := q.machine.(thinner)
	if !ok {
		return
	}
	var last *entry
	left := q.waiting[:0]
	for i, e := range q.waiting {
		if m.superfluous(last, e, q.around(i+1)) {
			q.letGo(e)
			continue
		}
		last, left = e, append(left, e)
	}
	q.waiting = left
}

// unwait lets go of the waiting event at an index.
func (q *sequence) unwait(i int) {
	e := q.waiting[i]
	if i == 0 {
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
	} else {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.letGo(e)
}

// needless reports whether a newcomer, which would come to an index, need not wait.
func (q *sequence) needless(at int, e *entry) bool {
	switch m := q.machine.(type) {
	case thinner:
		return m.superfluous(q.around(at-1), e, q.around(at))
	case *novelty:
		return m.early(e)
	case *rate:
		return m.overtaken(e)
	}
	return false
}

// shed makes room where the group is full.
func (q *sequence) shed() {
	switch m := q.machine.(type) {
	case *rate:
		if m.merge() {
			return
		}
	case *novelty:
		q.lost.Shed++
		q.lost.Cut++
		e := q.waiting[0]
		m.remember(e)
		q.unwait(0)
		return
	}
	q.lost.Shed++
	if q.spec.triggered() && len(q.held) > 0 { // a trigger, the oldest: it ends nothing
		q.lost.Cut++
		q.release(q.held[0])
		return
	}
	e := q.waiting[0]
	switch {
	case q.spec.Kind == Travel: // to its place, and from there
		q.lost.Cut += 2
	case !q.spec.triggered(), e.rules&1 != 0:
		q.lost.Cut++
	}
	q.lose(e.time)
	q.unwait(0)
}
