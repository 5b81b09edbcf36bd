package window

import (
	"cmp"
	"math"
	"math/big"
	"slices"
	"sort"
)

// ruleTimes holds, for the temporal kinds, the times of each rule's records in
// order, and the ladder of the window that ends at the latest record.
type ruleTimes struct {
	times [][]int64
	front ladder
	stale bool // a record came out of order: front must be climbed anew
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
	if !last || x.stale {
		x.stale = true
		return
	}
	x.front.push(r)
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
}

func (x *ruleTimes) rebuild(s *Spec, recs *timeline) {
	*x = ruleTimes{times: make([][]int64, s.Rules), front: newLadder(s.Rules)}
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

// A ladder climbs records by time: rung i is the latest start of a chain that
// meets the first i+1 rules in order. It lets one event stand for two rules and
// ties in any order, so it may promise too much, never too little.
type ladder struct {
	rungs []int64
	time  int64
	tied  uint64
}

func newLadder(rules int) ladder {
	l := ladder{rungs: make([]int64, rules), time: math.MinInt64}
	for i := range l.rungs {
		l.rungs[i] = math.MinInt64
	}
	return l
}

func (l *ladder) push(r *record) {
	if r.time != l.time {
		l.time, l.tied = r.time, 0
	}
	l.tied |= r.rules
	for i := range l.rungs {
		switch {
		case l.tied&(1<<i) == 0:
		case i == 0:
			l.rungs[0] = r.time
		default:
			l.rungs[i] = max(l.rungs[i], l.rungs[i-1])
		}
	}
}

func (l *ladder) top() int64 { return l.rungs[len(l.rungs)-1] }

// A sweep carries what one evaluation learns from window to window, so that a
// newcomer out of order costs one pass over its surroundings and not one each
// for the windows that contain it. Windows come in order of time.
type sweep struct {
	begun    bool
	lo, hi   int
	distinct int
	total    big.Int
	ladder   ladder
	weight   *weight
	copies   map[string]int
}

// ids is how many distinct events recs[lo:hi] holds.
func (w *sweep) ids(g *Group, lo, hi int) int {
	if !w.begun {
		w.begun, w.lo, w.hi, w.copies = true, lo, lo, make(map[string]int, hi-lo)
	}
	for _, r := range g.recs.each(w.hi, hi) {
		w.copies[r.id]++
	}
	for _, r := range g.recs.each(w.lo, lo) {
		if w.copies[r.id]--; w.copies[r.id] == 0 {
			delete(w.copies, r.id)
		}
	}
	w.lo, w.hi = lo, hi
	return len(w.copies)
}

// values is how many distinct values recs[lo:hi] holds.
func (w *sweep) values(g *Group, lo, hi int) int {
	if !w.begun {
		w.begun, w.lo, w.hi = true, lo, lo
		g.values.scratch = slices.Grow(g.values.scratch[:0], len(g.values.names))[:len(g.values.names)]
		clear(g.values.scratch)
	}
	for _, r := range g.recs.each(w.hi, hi) {
		v := r.value
		if g.values.scratch[v]++; g.values.scratch[v] == 1 {
			w.distinct++
		}
	}
	for _, r := range g.recs.each(w.lo, lo) {
		v := r.value
		if g.values.scratch[v]--; g.values.scratch[v] == 0 {
			w.distinct--
		}
	}
	w.lo, w.hi = lo, hi
	return w.distinct
}

// sum is what recs[lo:hi] add up to, copies of an event included.
func (w *sweep) sum(g *Group, lo, hi int) *big.Int {
	all := g.values.numbers.all
	if !w.begun {
		w.begun, w.lo, w.hi = true, lo, lo
	}
	for _, r := range g.recs.each(w.hi, hi) {
		w.total.Add(&w.total, all[r.value])
	}
	for _, r := range g.recs.each(w.lo, lo) {
		w.total.Sub(&w.total, all[r.value])
	}
	w.lo, w.hi = lo, hi
	return &w.total
}

// ordered reports whether recs[lo:hi] may meet all rules in order.
func (w *sweep) ordered(g *Group, lo, hi int) bool {
	start := g.spec.start(g.recs.at(hi - 1).time)
	if hi == g.recs.len() && !g.rules.stale {
		return g.rules.front.top() >= start
	}
	if !w.begun {
		w.begun, w.hi, w.ladder = true, lo, newLadder(g.spec.Rules)
	}
	for _, r := range g.recs.each(w.hi, hi) {
		w.ladder.push(r)
	}
	w.hi = hi
	return w.ladder.top() >= start
}

// close hands a ladder that has come to the end to the group.
func (w *sweep) close(g *Group) {
	if w.begun && g.spec.Kind == TemporalOrdered && w.hi == g.recs.len() && g.rules.stale {
		g.rules.front, g.rules.stale = w.ladder, false
	}
}
