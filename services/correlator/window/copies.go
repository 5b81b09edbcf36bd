package window

import (
	"bytes"
	"cmp"
)

// copied reports whether a group that the watermark decides has a copy of a
// record, to be put at an index, that makes it superfluous. There the ingest time
// makes no difference, but for whose is told: of the copies that carry something
// that of the one that was received first.
func (g *Group) copied(at int, r *record, carry []byte) bool {
	lo, hi := g.copies(at, r)
	if lo == hi || len(carry) == 0 {
		return lo < hi
	}
	for _, c := range g.recs.each(lo, hi) {
		if first := g.pages.carried[c.seq]; len(first) > 0 && cmp.Or(cmp.Compare(c.ingest, r.ingest), bytes.Compare(first, carry)) <= 0 {
			return true
		}
	}
	return false
}

// copies are the records about an index that differ from r in ingest time only.
func (g *Group) copies(at int, r *record) (lo, hi int) {
	lo, hi = at, at
	for lo > 0 && sameButIngest(g.recs.at(lo-1), r) {
		lo--
	}
	for hi < g.recs.len() && sameButIngest(g.recs.at(hi), r) {
		hi++
	}
	return lo, hi
}

// redundant reports whether copies that differ in ingest time only make r
// superfluous. A copy between two others that lie at most R apart is: a stretch
// of ingest times of length R that contains it contains one of the two. One that
// is to be reported is not, but for its equal: the others may not qualify.
func (g *Group) redundant(at int, r *record, carry []byte) bool {
	lo, hi := g.copies(at, r)
	var before, after bool
	var b, a int64
	for _, c := range g.recs.each(lo, hi) {
		switch x := c.ingest; {
		case x == r.ingest:
			if g.pages.same(c.seq, carry) {
				return true
			}
		case x < r.ingest:
			before, b = true, x
		case !after:
			after, a = true, x
		}
	}
	counted := before && g.spec.onTime(r.time, b) || after && g.spec.onTime(r.time, a)
	if g.spec.Updates && g.spec.onTime(r.time, r.ingest) && !counted {
		return false // an update would leave the others out
	}
	return before && after && a-b <= g.spec.Reach() && len(carry) == 0
}

// superseded is which copy beside an index becomes superfluous by r, which is to be
// put there: one that lies between r and another at most R apart, as in redundant,
// and carries nothing. A set that has it can have one of these two in its place: they
// are the same event, of the same time, rules and value, and one of them is in each
// stretch of ingest times that has it. It qualifies with the same sets, so whether it
// is there makes no difference to any bucket; and where it was superfluous because of
// others that it replaces by r, these two lie about those. So a group has of an event
// few copies, however often it comes. Updates ask which copy was in time.
func (g *Group) superseded(at int, r *record) (i int, ok bool) {
	if g.decider != nil || g.spec.Updates {
		return 0, false
	}
	between := func(i, beyond int) bool {
		if min(i, beyond) < 0 || max(i, beyond) >= g.recs.len() || !sameButIngest(g.recs.at(i), r) || !sameButIngest(g.recs.at(beyond), r) {
			return false
		}
		other := g.recs.at(beyond).ingest
		return max(other-r.ingest, r.ingest-other) <= g.spec.Reach() && len(g.pages.carried[g.recs.at(i).seq]) == 0
	}
	if between(at-1, at-2) {
		return at - 1, true
	}
	return at, between(at, at+1)
}

// supersede puts r in the place of a copy of it. But for the ingest time all stays.
func (g *Group) supersede(i int, r record) {
	seq := g.recs.at(i).seq
	keep, object := g.pages.keeps[seq], g.pages.objects.at(seq)
	g.pages.drop(seq)
	g.pages.keep(r.seq, keep)
	g.pages.objects.put(r.seq, object)
	g.recs.put(i, r)
	g.minDrop = min(g.minDrop, g.dropAt(r.ingest))
}

func sameButIngest(a, b *record) bool {
	return a.time == b.time && a.hash == b.hash && a.id == b.id && a.rules == b.rules && a.value == b.value
}
