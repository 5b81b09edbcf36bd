package window

import "slices"

// A group that is not stored may put off where a record goes that changes nothing
// but what the group holds: one between others, in a bucket that has fired, behind
// which there is none. Many such are put into their places together, in their
// order, which looks at the same records one after the other; each by itself would
// look at some that lie far from those of the one before.
type pending struct {
	record
	keep   []byte
	object any
}

// mostPending are put off, and no more than a part of what the group holds.
const (
	mostPending  = 64
	pendingShare = 16
)

// putOff reports whether it has put a record off, and marked its bucket as insert
// and evaluate would have.
func (g *Group) putOff(r *record, of *Record) bool {
	n := g.recs.len()
	if !g.pages.unstored || n < pendingShare || n+mostPending > MaxRecords || len(of.Carry) > 0 || len(g.pages.carried) > 0 {
		return false
	}
	latest := g.recs.latest()
	b := g.spec.Bucket(r.time)
	if b != g.spec.Bucket(latest.time) || compare(latest, r) <= 0 {
		return false
	}
	last, ok := g.fired[b]
	if !ok {
		return false
	}
	g.touch(b, last, r.ingest)
	g.minDrop = min(g.minDrop, g.dropAt(r.ingest))
	g.pending = append(g.pending, pending{*r, of.Keep, of.Object})
	if len(g.pending) >= min(mostPending, n/pendingShare) {
		g.settle()
	}
	return true
}

// settle puts what was put off into its place.
func (g *Group) settle() {
	if len(g.pending) == 0 {
		return
	}
	slices.SortStableFunc(g.pending, func(a, b pending) int { return compare(&a.record, &b.record) })
	for i := range g.pending {
		p := &g.pending[i]
		g.insert(p.record, &Record{Keep: p.keep, Object: p.object})
	}
	clear(g.pending)
	g.pending = g.pending[:0]
}
