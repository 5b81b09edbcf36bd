package window

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"slices"
)

// An update says what a bucket that has fired came to in the end. What it says,
// and whether there is one, depends on which records were accepted and not on
// the order in which they came, nor on when the bucket fired:
//
// Only records that are neither late nor early count in it. One with an event
// time in the bucket has an ingest time below the bucket's end + L, so that all of
// them are there once the watermark has come to that, which is when the bucket
// closes; one of the window that the bucket's first event ends is not older than
// its start − T − 5 min, and is kept until then: see held.
//
// Taken in the order of (time, id), the first event in the bucket whose window so
// far satisfies the condition is q. All that count from the start of q's window up
// to the bucket's end are what the update is of. It is told if they are more events
// than those up to q, or end later than q: an alert of events that came in order is
// of those up to q. That the bucket has fired need not be asked: the ingest times of
// such records in one window lie no more than T + L + 5 min = R apart, so that q
// qualifies, and the mark that says so is younger than the bucket's close, since
// each record in the bucket touches it.
//
// Groups that tell updates are not compacted: they count exactly, up to what a
// group holds.

// updates is what a group has for them.
type updates struct {
	// closed is the event time up to which buckets have been closed. It never goes
	// back: what comes below it later is late.
	closed int64
	// spares are the numbers of events that are kept whole though they are not among
	// the first or the last of the group any more, or not in it, in order of arrival.
	spares []uint64
}

// held is how long past its ingest a record is kept.
func (s *Spec) held() int64 {
	if s.Updates {
		return s.Reach() + s.Width()
	}
	return s.Reach()
}

// onTime reports whether a record is neither late nor early.
func (s *Spec) onTime(time, ingest int64) bool {
	return s.AnyAge || ingest-time <= s.Lateness && time-ingest <= EarlyAllowance
}

// closesAt is the watermark at which a bucket closes; ok is false where it has.
func (g *Group) closesAt(bucket int64) (w int64, ok bool) {
	end := g.spec.begins(bucket + 1)
	if end < g.spec.begins(bucket) || end > math.MaxInt64-g.spec.Lateness {
		return 0, false // at the end of all times
	}
	return end + g.spec.Lateness, end > g.updates.closed
}

// update closes the buckets of which the watermark lets it, in order of time,
// and reports whether that is all.
func (g *Group) update(cut func(*Firing) bool, w int64) (out []Firing, done bool) {
	var buckets []int64
	for b := range g.fired {
		if at, ok := g.closesAt(b); ok && at <= w {
			buckets = append(buckets, b)
		}
	}
	slices.Sort(buckets)
	for _, b := range buckets {
		if len(out) >= MaxFirings {
			return out, false
		}
		if f, ok := g.final(b); ok && (cut == nil || !cut(&f)) {
			out = append(out, f)
		}
		g.updates.closed = g.spec.begins(b + 1)
		g.pages.meta = true
	}
	return out, true
}

// final is the update of a bucket, if there is one.
func (g *Group) final(bucket int64) (Firing, bool) {
	s := g.spec
	begin, end := s.begins(bucket), s.begins(bucket+1)
	from := begin
	if s.Shape == Sliding {
		from -= s.Timespan
	}
	var recs []*record
	for _, r := range g.recs.each(g.recs.lower(from), g.recs.lower(end)) {
		if s.onTime(r.time, r.ingest) {
			recs = append(recs, r)
		}
	}
	m, lo := newMeter(g), 0
	for i, r := range recs {
		m.enter(r)
		if r.time < begin {
			continue
		}
		for ; recs[lo].time < s.start(r.time); lo++ {
			m.leave(recs[lo])
		}
		if !m.met(recs[lo:i+1], s.start(r.time)) {
			continue
		}
		all, last := recs[lo:], recs[len(recs)-1]
		if last.time == r.time && distinct(all) == distinct(recs[lo:i+1]) {
			return Firing{}, false
		}
		f := g.firing(last, slices.Clone(all), g.measure(all))
		f.Update, f.Bucket, f.Start, f.End, f.Near = true, bucket, s.start(r.time), end-1, g.nearUpdate(all)
		return f, true
	}
	return Firing{}, false
}

// nearUpdate is what is kept of the latest of the records of which anything is,
// else of the event nearest in arrival.
func (g *Group) nearUpdate(recs []*record) (keep []byte) {
	for _, r := range slices.Backward(recs) {
		if keep := g.pages.keeps[r.seq]; keep != nil {
			return keep
		}
	}
	last, least := recs[len(recs)-1].seq, uint64(math.MaxUint64)
	for seq, k := range g.pages.keeps {
		if apart := max(seq, last) - min(seq, last); apart < least {
			least, keep = apart, k
		}
	}
	return keep
}

// spare keeps an event that is not among the first or the last any more, for
// updates, and lets go of some where they are too many.
func (g *Group) spare(seq uint64) {
	if g.pages.keeps[seq] == nil {
		g.pages.unkeep(seq)
		return
	}
	u := &g.updates
	if u.spares = append(u.spares, seq); len(u.spares) <= maxKept {
		return
	}
	u.spares = slices.DeleteFunc(u.spares, func(seq uint64) bool { return g.pages.keeps[seq] == nil })
	if len(u.spares) > maxKept {
		u.spares = g.everyOther(u.spares)
	}
}

// letGo drops what pages have of a record. A group that says later what it is of,
// by an event that is kept whole, keeps the last one beyond that: others have come
// between those that were kept.
func (g *Group) letGo(seq uint64) {
	keep, ok := g.pages.keeps[seq]
	g.pages.drop(seq)
	if !ok || len(g.pages.keeps) > 0 {
		return
	}
	switch { // of those whose events are kept none is left
	case g.spec.Updates:
		g.updates.spares = append(g.updates.spares[:0], seq)
	case g.decider != nil:
		g.decider.kept = append(g.decider.kept[:0], seq)
	default:
		return
	}
	g.pages.keep(seq, keep)
}

// everyOther lets go of every other of the events that are kept whole, so that
// what is left lies evenly, but not of the last one.
func (g *Group) everyOther(seqs []uint64) []uint64 {
	left := seqs[:0]
	for i, seq := range seqs {
		if i%2 == 0 || i == len(seqs)-1 {
			left = append(left, seq)
			continue
		}
		g.pages.unkeep(seq)
	}
	return left
}

// opened takes notice of the group's decoded records.
func (u *updates) opened(g *Group) {
	around := make(map[uint64]bool, 2*shown)
	n := g.recs.len()
	for i, r := range g.recs.each(0, min(shown, n)) {
		around[r.seq] = i < n
	}
	for _, r := range g.recs.each(max(0, n-shown), n) {
		around[r.seq] = true
	}
	for seq := range g.pages.keeps {
		if !around[seq] {
			u.spares = append(u.spares, seq)
		}
	}
	slices.Sort(u.spares)
}

func (u *updates) append(b []byte) []byte { return binary.AppendVarint(b, u.closed) }

func (u *updates) decode(from *decoder) { u.closed = max(never, from.varint()) }

// fewer are MaxRefs of an update's events, in order: those that are kept whole,
// and the first and the last.
func fewer(refs []Ref) []Ref {
	chosen, n := make([]bool, len(refs)), 0
	choose := func(i int) {
		if !chosen[i] && n < MaxRefs {
			chosen[i] = true
			n++
		}
	}
	for i := range refs {
		if refs[i].Keep != nil {
			choose(i)
		}
	}
	for i := 0; n < MaxRefs; i++ {
		choose(i)
		choose(len(refs) - 1 - i)
	}
	out := make([]Ref, 0, MaxRefs)
	for i := range refs {
		if chosen[i] {
			out = append(out, refs[i])
		}
	}
	return out
}

// A meter says of records that come and go in order whether they satisfy the
// condition, ingest times left aside.
type meter struct {
	g      *Group
	events map[string][]int32 // values of each event's records
	values map[int32]int
	rules  [MaxRules]int
	seen   uint64
	sum    big.Int
	ladder *ladder // nil where there is none
}

func newMeter(g *Group) *meter {
	m := &meter{g: g, events: map[string][]int32{}, values: map[int32]int{}}
	if g.spec.climbs() {
		m.ladder = newLadder(g.spec)
	}
	return m
}

func (m *meter) enter(r *record) {
	switch m.g.spec.Kind {
	case ValueCount:
		m.values[r.value]++
	case EventCount, ValueSum:
		was := m.events[r.id]
		now := append(was, r.value)
		m.events[r.id] = now
		m.added(was, now)
	default:
		for left := r.rules; left != 0; left &= left - 1 {
			i := bits.TrailingZeros64(left)
			m.rules[i]++
			m.seen |= 1 << i
		}
		if m.ladder != nil {
			m.ladder.push(r)
		}
	}
}

func (m *meter) leave(r *record) {
	switch m.g.spec.Kind {
	case ValueCount:
		if m.values[r.value]--; m.values[r.value] == 0 {
			delete(m.values, r.value)
		}
	case EventCount, ValueSum:
		was := m.events[r.id]
		i := slices.Index(was, r.value)
		now := append(slices.Clone(was[:i]), was[i+1:]...)
		if m.events[r.id] = now; len(now) == 0 {
			delete(m.events, r.id)
		}
		m.added(was, now)
	default:
		for left := r.rules; left != 0; left &= left - 1 {
			if i := bits.TrailingZeros64(left); m.rules[i] > 1 {
				m.rules[i]--
			} else {
				m.rules[i] = 0
				m.seen &^= 1 << i
			}
		}
	}
}

// added brings the sum from an event's values to others: the greatest counts.
func (m *meter) added(was, now []int32) {
	if m.g.spec.Kind != ValueSum {
		return
	}
	most := func(values []int32) *big.Int {
		x := new(big.Int)
		for _, v := range values {
			if n := m.g.values.numbers.all[v]; n.Cmp(x) > 0 {
				x = n
			}
		}
		return x
	}
	m.sum.Add(&m.sum, most(now))
	m.sum.Sub(&m.sum, most(was))
}

// met reports whether what is there satisfies the condition: the records of a
// window that begins at start.
func (m *meter) met(recs []*record, start int64) bool {
	s := m.g.spec
	switch s.Kind {
	case EventCount:
		return len(m.events) >= s.Min
	case ValueCount:
		return len(m.values) >= s.Min
	case ValueSum:
		b := m.g.condition.bounds[0]
		return len(m.events) > 0 && b.op.holds(m.sum.Cmp(b.number))
	case Temporal:
		if s.Expr != "" {
			return exprHolds(s.Expr, m.seen, m.seen) && m.seen != 0
		}
		return bits.OnesCount64(m.seen) >= s.Min
	default:
		if s.Expr != "" && !exprHolds(s.Expr, m.seen, m.seen) || bits.OnesCount64(m.seen) < m.g.least() {
			return false
		}
		if m.ladder != nil && m.ladder.top() < start {
			return false
		}
		return m.g.measure(recs) >= m.g.least()
	}
}
