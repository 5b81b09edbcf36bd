package window

import (
	"math"
	"slices"
	"sort"
)

// A ladder climbs records in their order. Where all rules are demanded, rung i is
// the latest start of a chain of distinct events, none earlier than the one before,
// that meet the first i+1 rules in listed order. Where some of them are, there is a
// row of rungs for each number of rules up to that: rung i of row c is the latest
// start of a chain that meets c+1 of the first i+1 rules. Ingest times are left aside.
//
// Events of one millisecond may climb as far as they are many, and each by any rule
// that one of them matches: so it may promise too much of them, never too little.
type ladder struct {
	spec  *Spec
	rungs []int64
	// before is what rungs were before the events of time, the last.
	before []int64
	time   int64
	tied   uint64 // rules that they match
	events int    // how many they are
	id     string // of the last
}

// maxRungs bounds what one record may cost.
const maxRungs = 256

// climbs reports whether there is a ladder for the spec.
func (s *Spec) climbs() bool {
	return s.Kind == TemporalOrdered && s.Expr == "" && s.Min > 0 && s.rungs() <= maxRungs
}

func (s *Spec) rungs() int {
	if s.Min == s.Rules {
		return s.Rules
	}
	return s.Min * s.Rules
}

func newLadder(s *Spec) *ladder {
	n := s.rungs()
	l := &ladder{spec: s, rungs: slices.Repeat([]int64{math.MinInt64}, n), before: make([]int64, n)}
	copy(l.before, l.rungs)
	return l
}

// put sets the ladder to rungs from which later records climb on.
func (l *ladder) put(rungs []int64) {
	copy(l.rungs, rungs)
	l.events = 0
}

// follows reports whether a record is later than all before it.
func (l *ladder) follows(r *record) bool { return l.events == 0 || r.time != l.time }

func (l *ladder) push(r *record) {
	switch {
	case l.follows(r):
		copy(l.before, l.rungs)
		l.time, l.tied, l.events, l.id = r.time, r.rules, 1, r.id
		l.step()
		return
	case r.id != l.id && !l.spec.StrictTies:
		l.events++
	}
	l.id, l.tied = r.id, l.tied|r.rules
	copy(l.rungs, l.before)
	for range min(l.events, l.spec.Min) {
		l.step()
	}
}

// step lets one event climb.
func (l *ladder) step() {
	n := l.spec.Rules
	if l.spec.Min == n {
		for i := n - 1; i > 0; i-- {
			if l.tied>>i&1 != 0 {
				l.rungs[i] = max(l.rungs[i], l.rungs[i-1])
			}
		}
		if l.tied&1 != 0 {
			l.rungs[0] = l.time
		}
		return
	}
	for c := l.spec.Min - 1; c >= 0; c-- {
		row := l.rungs[c*n : (c+1)*n]
		for i := range row {
			if l.tied>>i&1 == 0 || i < c {
				continue
			}
			start := l.time
			if c > 0 {
				start = l.rungs[(c-1)*n+i-1]
			}
			for k := i; k < n && row[k] < start; k++ { // a row only rises
				row[k] = start
			}
		}
	}
}

// top is the latest start of a chain that meets what is demanded.
func (l *ladder) top() int64 { return l.rungs[len(l.rungs)-1] }

// A climb is the ladder of all records of a group, with marks of what it was on the
// way. A record that comes out of order changes it from there on, and as a rule not
// for long: the next ones climb as before.
type climb struct {
	front *ladder
	marks []mark
	since int // records since the last mark
	// from and to are the times of the first and the last record that is not counted
	// in yet; none is where from is above to.
	from, to int64
}

// mark is the rungs of all records before a time.
type mark struct {
	time  int64
	rungs []int64
}

// markEvery is after how many records there is a mark, where they do not all have one
// time.
const markEvery = 64

func newClimb(s *Spec) *climb {
	return &climb{front: newLadder(s), from: math.MaxInt64, to: math.MinInt64}
}

func (x *climb) insert(r *record, last bool) {
	if !last || x.from <= x.to {
		x.from, x.to = min(x.from, r.time), max(x.to, r.time)
		return
	}
	x.push(r)
}

// push climbs by the last record.
func (x *climb) push(r *record) {
	if x.since >= markEvery && x.front.follows(r) {
		x.marks, x.since = append(x.marks, mark{r.time, slices.Clone(x.front.rungs)}), 0
	}
	x.front.push(r)
	x.since++
}

// trim forgets marks before t that nothing begins from.
func (x *climb) trim(t int64) {
	k := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].time > t })
	x.marks = slices.Delete(x.marks, 0, max(k-1, 0))
}

// start gives a ladder to climb from, of all records before the last mark that is not
// after t; n is how many marks that leaves, and at the first record to climb by.
func (x *climb) start(g *Group, t int64) (l *ladder, n, at int) {
	l = newLadder(g.spec)
	n = sort.Search(len(x.marks), func(i int) bool { return x.marks[i].time > t })
	if n > 0 {
		l.put(x.marks[n-1].rungs)
		at = g.recs.lower(x.marks[n-1].time)
	}
	return l, n, at
}

// repair counts in what is not: it climbs anew from the first of it on, until behind
// the last of it all is as it was.
func (x *climb) repair(g *Group) {
	if x.from > x.to {
		return
	}
	l, n, at := x.start(g, x.from)
	last := x.to
	x.from, x.to = math.MaxInt64, math.MinInt64
	since := 0
	for _, r := range g.recs.each(at, g.recs.len()) {
		if l.follows(r) {
			for ; n < len(x.marks) && x.marks[n].time <= r.time; n++ {
				m := &x.marks[n]
				if m.time > last && slices.Equal(m.rungs, l.rungs) {
					return
				}
				copy(m.rungs, l.rungs)
				since = 0
			}
			if since >= markEvery {
				x.marks = slices.Insert(x.marks, n, mark{r.time, slices.Clone(l.rungs)})
				n, since = n+1, 0
			}
		}
		l.push(r)
		since++
	}
	x.front, x.marks, x.since = l, x.marks[:n], since
}

// outOfOrder is impossible for rules in order: of the window that ends with the
// record before hi, and of those behind it.
func (g *Group) outOfOrder(hi int) int {
	x, e := g.rules.climb, g.recs.at(hi-1)
	x.repair(g)
	start := g.spec.start(e.time)
	if x.front.top() < start { // rungs only rise, and later windows begin later
		return g.recs.len()
	}
	if hi == g.recs.len() {
		return 0
	}
	// The records before the last mark that is too low do not suffice for a window.
	from := e.time
	high := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].rungs[len(x.marks[i].rungs)-1] >= start })
	if high > 0 {
		from = max(from, x.marks[high-1].time)
	}
	l, _, at := x.start(g, from)
	for i, r := range g.recs.each(at, g.recs.len()) {
		if i >= hi && l.follows(r) && l.events > 0 && l.top() >= g.spec.start(l.time) {
			if i == hi {
				return 0
			}
			return g.firstOf(l.time)
		}
		l.push(r)
	}
	return g.firstOf(g.recs.latest().time)
}

// firstOf is the first record of the first window in which a time lies at its end or,
// where windows lie next to each other, anywhere.
func (g *Group) firstOf(t int64) int {
	if g.spec.Shape == Tumbling {
		t = g.spec.start(t)
	}
	return g.recs.lower(t)
}
