package window

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
)

// Compaction lets go of records that no alert to come can need, so that a group
// of a rule that counts events or values costs about its threshold and not its
// window. Why it changes no alert:
//
// A bucket fires by an event e in it and a set S of records that contains e and
// satisfies the condition, with all event times in the window that ends at e and
// all ingest times within R of each other. A bucket that has fired fires no more
// (should its mark be forgotten meanwhile, then only to say the same alert
// again), so only an e in another bucket counts, and only a set that contains a
// record f that is still to come: without f, e's bucket would have fired
// already. The ingest time of f is at least the watermark w.
//
// Take a run of fired buckets next to each other, which ends before the event
// time E. No window that ends before the run contains any record of it; one that
// ends behind it, at E or later, contains those from E − T on, and with one of
// them all later ones of the run. Tumbling windows lie in one bucket as a whole.
// Hence:
//
//  1. A record of the run before E − T (tumbling: any) is in no S.
//  2. A record with an ingest time below w − R is in no S, since f is.
//  3. Let lo be at most w and at most all ingest times, from w − R on, of records
//     with event times in [E − T, E + T): of whatever shares a window with a
//     record of the run, or will. Let r be another record of the run, x its
//     ingest time, and D records of the run that are kept and come after r in the
//     order of the timeline, with ingest times in [x, lo + R], or of just x. Put D
//     into S in place of r: the window of S contains D, as it contains r; no
//     ingest time is less than before; one that is greater is at most lo + R,
//     and none in S is less than lo. So S with D and without r is a set as before
//     but for the condition, and so on for all of S that is to be dropped.
//     If D has as many distinct events (values) as the condition demands, it holds
//     by D alone. If it counts values and D has r's, it holds as before.
//
// What is dropped so may stand for others that were: the argument replaces those
// by it, and it by what stands for it, which comes later in the run still. New
// arrivals have ingest times of at least w, and lo is right for them too. A
// dropped record that arrives again is in a set of what was accepted, as it was
// without compaction: what is kept is a part of that, so never more fires.
//
// The same holds for what an alert says, with exact in place of the threshold: a
// record is dropped only for exact later events (and, where it counts values, for
// one of its value or exact values). So a window that lacks a record holds at
// least exact events, and a window that holds so many names the latest of them
// and counts "at least", whether or not the group was ever compacted: see firing.
// (Where ingest times in one window lie more than R apart, which of the events
// are named may differ; and of several that qualify in one millisecond, which it
// is that Firing.EventID has, and no alert shows.)
//
// Records that carry something are reported in fired buckets too, so that all
// above fails: groups of correlations that others refer to are never compacted.
// Nor are those that tell updates, which count all.

// exactCount is below what counts are exact at least.
const exactCount = 1000

// compacts reports whether records of the spec's groups may be let go early.
func (s *Spec) compacts() bool {
	return (s.Kind == EventCount || s.Kind == ValueCount) && s.AtOnce() && !s.Updates
}

// thresholds sets from which count on a group says "at least", and from how many
// records on it is worth compacting.
func (g *Group) thresholds(exact int) {
	g.exact = max(exact, g.spec.Min+1)
	g.bulky = g.exact + max(g.exact/2, 256)
}

// Bulky reports whether the group has grown so much that Compact may pay.
func (g *Group) Bulky() bool { return g.bulky > 0 && g.recs.len() >= g.bulky }

// Compact lets go of what no alert to come can need, given that later records
// have ingest times of at least w; math.MinInt64 where that is not known. It
// looks at each record once, and so costs O(log n) for each Add between two
// calls, if it is called where the group is Bulky.
func (g *Group) Compact(w int64) {
	if g.exact == 0 {
		return
	}
	g.settle()
	held := g.recs.len()
	if !g.Carries() {
		if kept := g.needed(w); len(kept) < held && g.written(kept) <= maxWritten {
			g.refill(kept)
		}
	}
	g.thresholds(g.exact)
	g.bulky = max(g.bulky, 2*g.recs.len())
}

// maxWritten is how many bytes of records Compact stores anew at once. A group of
// which more is needed stays as it is, up to MaxRecords: one write must not take
// it all.
const maxWritten = 8 << 20

// written is about how many bytes it takes to store records anew, with all that is
// kept whole.
func (g *Group) written(kept []record) (size int) {
	for _, whole := range g.pages.keeps {
		size += len(whole)
	}
	const numbers = 24 // times, rules and lengths
	for i := range kept {
		size += len(kept[i].id) + numbers
		if v := kept[i].value; v >= 0 {
			size += len(g.values.names[v])
		}
	}
	return size
}

// needed are the records that are not to be dropped, in order.
func (g *Group) needed(w int64) []record {
	buckets := make([]int64, 0, len(g.fired))
	for b := range g.fired {
		buckets = append(buckets, b)
	}
	slices.Sort(buckets)
	kept, at := make([]record, 0, g.exact), 0
	take := func(to int) {
		for _, r := range g.recs.each(at, to) {
			kept = append(kept, *r)
		}
	}
	for i := 0; i < len(buckets); {
		k := i + 1
		for k < len(buckets) && buckets[k] == buckets[k-1]+1 {
			k++
		}
		begin, end := g.spec.begins(buckets[i]), g.spec.begins(buckets[k-1]+1)
		if i = k; begin > end || end > math.MaxInt64-g.spec.Timespan {
			continue // at the end of all times
		}
		take(g.recs.lower(begin))
		kept = g.neededOf(kept, end, w)
		at = g.recs.lower(end)
	}
	take(g.recs.len())
	return kept
}

// neededOf appends those of a run of fired buckets that ends before end.
func (g *Group) neededOf(kept []record, end, w int64) []record {
	if g.spec.Shape == Tumbling {
		return kept
	}
	dead, least := int64(math.MinInt64), w
	if w != math.MinInt64 {
		dead = w - g.spec.Reach()
	}
	from, to := g.recs.lower(end-g.spec.Timespan), g.recs.lower(end)
	for _, r := range g.recs.each(from, g.recs.lower(end+g.spec.Timespan)) {
		if r.ingest >= dead {
			least = min(least, r.ingest)
		}
	}
	upTo := least
	if least != math.MinInt64 {
		upTo += g.spec.Reach()
	}
	others := newOthers(g.spec.Kind == ValueCount, g.exact, upTo)
	if g.ids.repeated > 0 {
		others.ids = map[string]struct{}{}
	}
	start := len(kept)
	for i := to - 1; i >= from; i-- {
		if r := g.recs.at(i); r.ingest >= dead && !others.standFor(r) {
			others.add(r)
			kept = append(kept, *r)
		}
	}
	slices.Reverse(kept[start:])
	return kept
}

// refill makes records, which are in order, all that the group holds. They are
// stored anew: so the pages are full of what is left, and what is dropped is not
// read again.
func (g *Group) refill(kept []record) {
	old := g.pages.restart()
	g.ids = idset{}
	for i := range kept {
		r, of := &kept[i], Record{}
		if r.value >= 0 {
			of.Value = g.values.names[r.value]
		}
		seq := r.seq
		r.seq = g.pages.append(r, &of)
		g.pages.keep(r.seq, old.keeps[seq])
		g.pages.objects.put(r.seq, old.objects.at(seq))
		g.ids.add(r.hash)
	}
	g.recs.fill(kept)
	g.reindex()
	g.schedule()
}

// restart makes pages without records, for those that are to be stored anew. It
// returns what was kept of the old ones.
func (p *pages) restart() (old pages) {
	old = *p
	p.init()
	if p.unstored {
		p.objects = nil
		return old
	}
	for _, seqs := range []map[uint64]struct{}{old.rekept, seqsOf(old.keeps)} {
		for seq := range seqs {
			if seq < p.stored {
				p.rekept[seq] = struct{}{}
			}
		}
	}
	last := p.next / pageRecords
	for i, n := range old.live.counts {
		if page := old.live.first + uint64(i); n > 0 && page != last && page*pageRecords < p.stored {
			p.gone = append(p.gone, page)
		}
	}
	if p.next%pageRecords != 0 {
		if last*pageRecords < p.stored {
			p.gone = append(p.gone, last)
		}
		p.next = (last + 1) * pageRecords
	}
	for page := range old.told {
		p.dropPage(page)
	}
	p.full, p.tail, p.dirty, p.meta, p.live = nil, nil, false, true, pageCounts{}
	return old
}

func seqsOf(keeps map[uint64][]byte) map[uint64]struct{} {
	out := make(map[uint64]struct{}, len(keeps))
	for seq := range keeps {
		out[seq] = struct{}{}
	}
	return out
}

// others are the records of a run that are kept so far, from its end.
type others struct {
	upTo        int64
	events      crowd
	values      crowd
	ids         map[string]struct{} // that events counts; nil where they do not repeat
	known       map[int32]struct{}  // that values counts
	nearest     map[int32]int64     // by value, the greatest ingest time up to upTo
	same        map[valueAt]bool
	countValues bool
}

type valueAt struct {
	value  int32
	ingest int64
}

func newOthers(countValues bool, exact int, upTo int64) *others {
	o := &others{upTo: upTo, countValues: countValues, events: newCrowd(exact, upTo)}
	if countValues {
		o.values, o.known = newCrowd(exact, upTo), map[int32]struct{}{}
		o.nearest, o.same = map[int32]int64{}, map[valueAt]bool{}
	}
	return o
}

// standFor reports whether they make up for a record before them.
func (o *others) standFor(r *record) bool {
	if !o.events.from(r.ingest) || !o.countValues {
		return o.events.from(r.ingest)
	}
	if near, ok := o.nearest[r.value]; ok && r.ingest <= near {
		return true
	}
	return o.same[valueAt{r.value, r.ingest}] || o.values.from(r.ingest)
}

// add takes the record before them. Of the records of one event, or value, the
// first counts: that may be too few, never too many.
func (o *others) add(r *record) {
	if _, ok := o.ids[r.id]; !ok {
		if o.ids != nil {
			o.ids[r.id] = struct{}{}
		}
		o.events.add(r.ingest)
	}
	if !o.countValues {
		return
	}
	if near, ok := o.nearest[r.value]; r.ingest <= o.upTo && (!ok || r.ingest > near) {
		o.nearest[r.value] = r.ingest
	}
	o.same[valueAt{r.value, r.ingest}] = true
	if _, ok := o.known[r.value]; !ok {
		o.known[r.value] = struct{}{}
		o.values.add(r.ingest)
	}
}

// A crowd counts ingest times.
type crowd struct {
	n      int
	upTo   int64
	latest ingests       // the greatest n up to upTo
	equal  map[int64]int // how many there are of those above
}

func newCrowd(n int, upTo int64) crowd { return crowd{n: n, upTo: upTo, equal: map[int64]int{}} }

// from reports whether n of them lie from x up to upTo or, where x is above it,
// at x.
func (c *crowd) from(x int64) bool {
	if x > c.upTo {
		return c.equal[x] >= c.n
	}
	return len(c.latest) >= c.n && c.latest[0] >= x
}

func (c *crowd) add(x int64) {
	switch {
	case x > c.upTo:
		c.equal[x]++
	case len(c.latest) < c.n:
		heap.Push(&c.latest, x)
	case cmp.Less(c.latest[0], x):
		c.latest[0] = x
		heap.Fix(&c.latest, 0)
	}
}

// ingests is a heap, the least first.
type ingests []int64

func (h ingests) Len() int           { return len(h) }
func (h ingests) Less(i, j int) bool { return h[i] < h[j] }
func (h ingests) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *ingests) Push(x any) { *h = append(*h, x.(int64)) } //nolint:forcetypeassert // of this package alone

// Pop implements heap.Interface.
func (h *ingests) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
