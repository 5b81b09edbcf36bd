package window

import (
	"cmp"
	"math"
	"math/big"
	"slices"
	"sort"
)

// ruleTimes holds, for the temporal kinds, the times of each rule's records in
// order, and how far all records climb.
type ruleTimes struct {
	times [][]int64
	climb *climb // nil where it does not say anything
}

func (x *ruleTimes) insert(r *record, last bool) {
	for i := range x.times {
		if r.rules&(1<<i) == 0 {
			continue
		}
		at := len(x.times[i])
		if at > 0 && x.times[i][at-1] > r.time {
			at = sort.Search(at, func(k int) bool { return x.times[i][k] > r.time })
		}
		x.times[i] = slices.Insert(x.times[i], at, r.time)
	}
	if x.climb != nil {
		x.climb.insert(r, last)
	}
}

// shed forgets the first record. The ladder keeps its start: it may promise too
// much.
func (x *ruleTimes) shed(rules uint64) {
	for i := range x.times {
		if rules&(1<<i) != 0 {
			x.times[i] = x.times[i][1:]
		}
	}
}

// trim forgets the times before t, where records that are dropped leave theirs.
// Those of others that were dropped stay: enoughAt may promise too much.
func (x *ruleTimes) trim(t int64) {
	for i, times := range x.times {
		// Moving the rest down costs less than memory that is only ever left behind.
		x.times[i] = slices.Delete(times, 0, sort.Search(len(times), func(k int) bool { return times[k] >= t }))
	}
	if x.climb != nil {
		x.climb.trim(t)
	}
}

func (x *ruleTimes) rebuild(s *Spec, recs *timeline) {
	*x = ruleTimes{times: make([][]int64, s.Rules)}
	if s.climbs() {
		x.climb = newClimb(s)
	}
	for _, r := range recs.all() {
		x.insert(r, true)
	}
}

// enoughAt reports whether the window [start, end] holds enough of the rules;
// where not, t is the first later time at which one that ends there could.
func (x *ruleTimes) enoughAt(g *Group, start, end int64) (t int64, ok bool) {
	if g.spec.Expr != "" {
		return x.holdsAt(g.spec.Expr, start, end)
	}
	seen := 0
	var coming [MaxRules]int64 // next times of the rules that the window lacks
	n := 0
	for _, times := range x.times {
		k := len(times)
		if k > 0 && times[k-1] > end { // most windows end at the latest record
			k = sort.Search(k, func(k int) bool { return times[k] > end })
		}
		if k > 0 && times[k-1] >= start {
			seen++
			continue
		}
		if k < len(times) {
			coming[n] = times[k]
			n++
		}
	}
	need := g.spec.Min - seen
	if need <= 0 {
		return 0, true
	}
	if need > n {
		return math.MaxInt64, false
	}
	slices.Sort(coming[:n])
	return coming[need-1], false
}

// holdsAt is enoughAt for a condition over rules: it holds the longer, the more
// of them are seen.
func (x *ruleTimes) holdsAt(program string, start, end int64) (t int64, ok bool) {
	var seen uint64
	type coming struct {
		time int64
		rule int
	}
	var next []coming
	for i, times := range x.times {
		k := sort.Search(len(times), func(k int) bool { return times[k] > end })
		switch {
		case k > 0 && times[k-1] >= start:
			seen |= 1 << i
		case k < len(times):
			next = append(next, coming{times[k], i})
		}
	}
	if exprHolds(program, seen, seen) {
		return 0, true
	}
	slices.SortFunc(next, func(a, b coming) int { return cmp.Compare(a.time, b.time) })
	for _, c := range next {
		if seen |= 1 << c.rule; exprHolds(program, seen, seen) {
			return c.time, false
		}
	}
	return math.MaxInt64, false
}

// A sweep is what the records of one stretch, recs[lo:hi], come to. It goes from
// window to window, in either direction, and stays where it is until the next
// newcomer out of order: so that costs what lies between it and the one before,
// and not its whole window.
type sweep struct {
	lo, hi int
	ids    map[string]int // records by event id
	values tally          // records by value
	total  big.Int        // copies of an event included
	weight weight
}

// sweep brings the sweep to the records lo to hi.
func (g *Group) sweep(lo, hi int) *sweep {
	w := g.swept
	if w == nil || lo >= w.hi || hi <= w.lo || max(lo-w.lo, w.lo-lo)+max(hi-w.hi, w.hi-hi) > hi-lo {
		w = &sweep{lo: lo, hi: lo}
		if g.swept = w; g.spec.Kind == EventCount {
			w.ids = map[string]int{}
		}
	}
	for _, r := range g.recs.each(lo, w.lo) {
		w.enter(g, r)
	}
	for _, r := range g.recs.each(w.hi, hi) {
		w.enter(g, r)
	}
	for _, r := range g.recs.each(w.lo, lo) {
		w.leave(g, r)
	}
	for _, r := range g.recs.each(hi, w.hi) {
		w.leave(g, r)
	}
	w.lo, w.hi = lo, hi
	return w
}

func (w *sweep) enter(g *Group, r *record) {
	if g.spec.Kind == EventCount {
		w.ids[r.id]++
		return
	}
	w.values.grow(len(g.values.names))
	first := w.values.enter(r.value)
	switch {
	case g.values.numbers != nil:
		w.total.Add(&w.total, g.values.numbers.all[r.value])
	case g.values.scores != nil && first:
		w.weight.enter(&g.values.scores.all[r.value])
	}
}

func (w *sweep) leave(g *Group, r *record) {
	if g.spec.Kind == EventCount {
		if w.ids[r.id]--; w.ids[r.id] == 0 {
			delete(w.ids, r.id)
		}
		return
	}
	last := w.values.leave(r.value)
	switch {
	case g.values.numbers != nil:
		w.total.Sub(&w.total, g.values.numbers.all[r.value])
	case g.values.scores != nil && last:
		w.weight.leave(&g.values.scores.all[r.value])
	}
}

// inserted takes notice of a record that has come to an index.
func (w *sweep) inserted(g *Group, r *record, at int) {
	switch {
	case w == nil || at >= w.hi:
	case at < w.lo:
		w.lo, w.hi = w.lo+1, w.hi+1
	default:
		w.enter(g, r)
		w.hi++
	}
}

// shed takes notice that the first record goes.
func (w *sweep) shed(g *Group, r *record) {
	switch {
	case w == nil || w.hi == 0:
	case w.lo > 0:
		w.lo, w.hi = w.lo-1, w.hi-1
	default:
		w.leave(g, r)
		w.hi--
	}
}
