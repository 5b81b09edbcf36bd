package window

import (
	"cmp"
	"slices"
)

// A group that is not stored may put off where a record goes that changes nothing
// but what the group holds: one between others, in a bucket that has fired, behind
// which there is none. Many such are put into their places together, in one pass
// over the group, once somebody asks, or the group could let go of some.
type pending struct {
	recs []record // each with its index here for a number
	// latest is the greatest of their ingest times.
	latest int64
	// What comes between these two is not among the first and the last, and not kept
	// whole. They stay where they are for as long as something waits.
	from, to *record
	whole    []waiting
}

// waiting is what is to be kept whole of a record without a place.
type waiting struct {
	at     int
	keep   []byte
	object any
}

const (
	// mostWaiting are kept whole of what waits.
	mostWaiting = 64
	// pendingShare is which part of a group's records those must be that are put in in
	// one pass over it. Fewer are cheaper each by itself.
	pendingShare = 16
)

// putOff reports whether it has put a record off, and marked its bucket as insert
// and evaluate would have.
func (g *Group) putOff(r *record, of *Record) bool {
	n, p := g.recs.len(), &g.pending
	if !g.pages.unstored || n < pendingShare || n+len(p.recs) >= g.room || len(of.Carry) > 0 || len(g.pages.carried) > 0 {
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
	at := len(p.recs)
	if at == 0 {
		p.from, p.to, p.latest = g.recs.at(shown-1), g.recs.at(n-shown), r.ingest
	}
	p.latest = max(p.latest, r.ingest)
	p.recs = append(p.recs, *r)
	p.recs[at].seq = uint64(at)
	if compare(r, p.from) < 0 || compare(r, p.to) > 0 {
		p.whole = append(p.whole, waiting{at, of.Keep, of.Object})
	}
	if len(p.whole) == mostWaiting || g.bulky > 0 && len(p.recs) >= max(mostWaiting, n) {
		g.settle()
	}
	return true
}

// settle puts what was put off into its place.
func (g *Group) settle() {
	p := g.pending
	if len(p.recs) == 0 {
		return
	}
	order := make([]*record, len(p.recs))
	for i := range p.recs {
		order[i] = &p.recs[i]
	}
	slices.SortFunc(order, func(a, b *record) int {
		return cmp.Or(compare(a, b), cmp.Compare(a.seq, b.seq))
	})
	g.pending = pending{}
	if len(order)*pendingShare >= g.recs.len() && !g.spec.Updates {
		order = g.merge(order, p.whole)
	}
	for _, r := range order {
		w := wholeOf(p.whole, r.seq)
		g.insert(*r, &Record{Keep: w.keep, Object: w.object})
	}
}

// wholeOf is what is to be kept whole of the record at an index.
func wholeOf(all []waiting, at uint64) waiting {
	i, ok := slices.BinarySearchFunc(all, int(at), func(w waiting, at int) int { return cmp.Compare(w.at, at) })
	if !ok {
		return waiting{}
	}
	return all[i]
}

// unsettle lets go of what was put off if all of it would be dropped at once for its
// ingest time, below least.
func (g *Group) unsettle(least int64) {
	if g.pending.latest < least && !g.spec.Updates {
		g.pending = pending{}
	}
}

// merge puts records, which are in order and none of them the last, into their
// places in one pass, as insert would one by one. It leaves out those that may be
// copies of others, and returns them.
func (g *Group) merge(order []*record, whole []waiting) (rest []*record) {
	fresh := order[:0]
	for _, r := range order {
		if g.ids.known(r.hash) {
			rest = append(rest, r)
			continue
		}
		g.ids.add(r.hash)
		fresh = append(fresh, r)
	}
	before := g.outermost()
	first := g.pages.next
	all := make([]record, 0, g.recs.len()+len(fresh))
	left := fresh
	for _, r := range g.recs.all() {
		for len(left) > 0 && compare(left[0], r) < 0 {
			all = append(all, *left[0])
			all[len(all)-1].seq = g.pages.append(left[0], &Record{})
			left = left[1:]
		}
		all = append(all, *r)
	}
	g.recs.fill(all)
	g.swept = nil
	start := g.spec.start(g.recs.latest().time)
	for _, r := range fresh {
		g.entered(r, start)
	}
	after := g.outermost()
	for _, seq := range before {
		if !slices.Contains(after, seq) {
			g.pages.unkeep(seq)
		}
	}
	for _, seq := range after {
		if seq >= first {
			w := wholeOf(whole, fresh[seq-first].seq)
			g.pages.keep(seq, w.keep)
			g.pages.objects.put(seq, w.object)
		}
	}
	return rest
}

// entered counts a record that has come before the latest, in whose window the
// records from start on are.
func (g *Group) entered(r *record, start int64) {
	if g.spec.temporal() {
		g.rules.insert(r, false)
	}
	counts := g.spec.tallied()
	if counts {
		g.values.enterTotal(r.value)
	}
	if r.time < start {
		g.front++
	} else if counts {
		g.values.enterFront(r.value)
	}
}

// outermost are the numbers of the first and the last records, which are kept
// whole.
func (g *Group) outermost() []uint64 {
	n := g.recs.len()
	seqs := make([]uint64, 0, 2*shown)
	for i := 0; i < n; i++ {
		if i == shown {
			i = max(i, n-shown)
		}
		seqs = append(seqs, g.recs.at(i).seq)
	}
	return seqs
}
