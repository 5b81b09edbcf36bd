package window

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"
)

// A sequence is the state of a group whose events are taken one after the
// other, in order of (time, id). An event waits until the watermark has passed
// its time by the lateness: from then on nothing that counts can come before
// it, so what the machine makes of it does not depend on the order of arrival.
type sequence struct {
	spec    *Spec
	machine machine
	memory  memory
	// waiting are the events that are not taken yet, in order; held those that
	// the machine has taken and still needs.
	waiting, held []*entry
	// taken is the last event that the machine has taken; without an id: none.
	taken *entry
	// frontier: all events with earlier times are taken.
	frontier int64
	// bucket is the latest that has fired, where alerts are suppressed.
	bucket  int64
	pages   pages
	whole   []*entry // those of all events that are kept whole
	carries bool     // an event has carried something
	basis   []byte   // what is kept of one that has gone, while others have nothing
	rebased bool
	hole    hole
	lost    Lost
	room    int // MaxRecords
	next    int64
}

// A machine makes firings of events in order.
type machine interface {
	// take takes the next event and returns what fires by it.
	take(e *entry) *Firing
	// pass lets the event time come to t: no event before it will follow. It
	// returns the next thing that fires, or nil.
	pass(t int64) *Firing
	// due is the least time that pass has something to do at.
	due() int64
}

// memory is what a machine remembers beside the events that it holds.
type memory interface {
	// size is how much it remembers; 0 is nothing.
	size() int
	// changes appends what has changed since the last call.
	changes(dst []Change) []Change
	// load takes one stored field.
	load(field string, value []byte) error
}

// entry is one event of a sequence.
type entry struct {
	id           string
	time, ingest int64
	rules        uint64
	value        string
	trace        string
	carry        []byte // handed back with the signal, where it fires
	seq          uint64
	// settled says that nothing will fire by it, whatever else comes.
	settled bool
}

const (
	// maxWhole is how many events a sequence keeps whole.
	maxWhole = 64
	noBucket = math.MinInt64
)

func newSequence(s *Spec) *sequence {
	q := &sequence{spec: s, taken: &entry{}, frontier: math.MinInt64, bucket: noBucket, next: math.MaxInt64, hole: noHole(), room: MaxRecords}
	q.pages.init()
	switch s.Kind {
	case Absence:
		m := &absence{sequence: q}
		q.machine, q.memory = m, m
	case NewValue:
		m := newNovelty(q)
		q.machine, q.memory = m, m
	case Travel:
		m := &travel{sequence: q}
		q.machine, q.memory = m, m
	default:
		m := newRate(q)
		q.machine, q.memory = m, m
	}
	return q
}

func (q *sequence) add(r *Record) {
	if q.spec.Judge(r) != Counts || r.Time < q.frontier {
		return
	}
	e := &entry{id: r.EventID, time: r.Time, ingest: r.Ingest, rules: r.Rules, value: r.Value, trace: r.Trace, carry: r.Carry}
	if !q.spec.valued() {
		e.value = ""
	}
	if q.spec.triggered() && e.rules&1 == 0 {
		e.carry = nil // nothing fires by it
	}
	if q.hasTaken(e) {
		return
	}
	at, known := slices.BinarySearchFunc(q.waiting, e, compareEntries)
	if known {
		q.again(at, e)
		return
	}
	if q.needless(at, e) {
		return
	}
	q.store(e)
	q.waiting = slices.Insert(q.waiting, at, e)
	if len(q.whole) < maxWhole && !e.settled && len(r.Keep) > 0 && (!q.spec.triggered() || e.rules&1 != 0) {
		q.pages.keep(e.seq, r.Keep)
		q.whole = append(q.whole, e)
	}
	q.next = min(q.next, q.wake(e))
	if len(q.waiting) > maxWhole { // take them in bulk, before they are many
		q.next = min(q.next, q.watermarkOf(q.waiting[0].time+1))
	}
	q.thin(at)
	if len(q.waiting)+len(q.held) > q.room {
		q.shed()
	}
}

// store puts an event into the page that is being filled.
func (q *sequence) store(e *entry) {
	q.carries = q.carries || len(e.carry) > 0
	q.pages.tail = appendCarrier(q.pages.tail, e)
	e.seq = q.pages.appended()
}

// again takes a copy of an event that waits. Of those that carry something the
// one that was received first speaks: all of them are here before the event's
// turn comes, so which one it is does not depend on the order of arrival.
func (q *sequence) again(at int, e *entry) {
	was := q.waiting[at]
	if len(e.carry) == 0 || len(was.carry) > 0 && cmp.Or(cmp.Compare(was.ingest, e.ingest), bytes.Compare(was.carry, e.carry)) <= 0 {
		return
	}
	e.settled = was.settled
	q.store(e)
	if keep, ok := q.pages.keeps[was.seq]; ok {
		q.pages.keep(e.seq, keep)
		q.whole[slices.Index(q.whole, was)] = e
	}
	q.pages.drop(was.seq)
	q.waiting[at] = e
}

func compareEntries(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.time, b.time), strings.Compare(a.id, b.id), cmp.Compare(a.rules, b.rules), strings.Compare(a.value, b.value))
}

// wake is the watermark at which a waiting event must be taken: nothing fires
// by it before.
func (q *sequence) wake(e *entry) int64 {
	t := e.time
	switch {
	case q.spec.Kind == Absence:
		t += q.spec.Timespan
	case e.settled:
		t += q.spec.Extension.History / 64
	}
	return q.watermarkOf(t + 1)
}

// watermarkOf is the watermark at which the frontier comes to t.
func (q *sequence) watermarkOf(t int64) int64 {
	if t == math.MaxInt64 {
		return t
	}
	return t + q.spec.Lateness
}

func (q *sequence) schedule() {
	q.next = q.watermarkOf(q.machine.due())
	if len(q.waiting) > maxWhole { // taken in bulk, and so before any of them must be
		q.next = min(q.next, q.watermarkOf(q.waiting[0].time+1))
	} else {
		for _, e := range q.waiting {
			q.next = min(q.next, q.wake(e))
		}
	}
	if q.bucket != noBucket {
		q.next = min(q.next, q.watermarkOf(q.bucketEnd()))
	}
}

// bucketEnd is when no event of the bucket that has fired fires any more.
func (q *sequence) bucketEnd() int64 {
	end := (q.bucket + 1) * q.spec.Suppress
	if q.spec.Kind == Absence { // whose events fire later than they are
		end += q.spec.Timespan + 1
	}
	return end
}

// advance takes what the watermark has settled. It returns at most MaxFirings
// firings; where there may be more, next is at most w.
func (q *sequence) advance(cut func(*Firing) bool, w int64) []Firing {
	if w < q.next {
		return nil
	}
	to := w - q.spec.Lateness
	var out []Firing
	say := func(f *Firing) bool {
		if f != nil {
			out = q.say(f, cut, out)
		}
		return len(out) < MaxFirings
	}
	for len(q.waiting) > 0 && q.waiting[0].time < to {
		e := q.waiting[0]
		if !q.passes(e.time, say) {
			return q.interrupted(w, out)
		}
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.frontier = max(q.frontier, e.time)
		q.held = append(q.held, e)
		f := q.machine.take(e)
		q.taken = e
		if !say(f) {
			return q.interrupted(w, out)
		}
	}
	if !q.passes(to, say) {
		return q.interrupted(w, out)
	}
	q.frontier = max(q.frontier, to)
	if q.bucket != noBucket && q.bucketEnd() <= q.frontier {
		q.bucket = noBucket
	}
	q.mend()
	q.pages.meta = true
	q.schedule()
	return out
}

func (q *sequence) passes(t int64, say func(*Firing) bool) bool {
	for f := q.machine.pass(t); f != nil; f = q.machine.pass(t) {
		if !say(f) {
			return false
		}
	}
	return true
}

func (q *sequence) interrupted(w int64, out []Firing) []Firing {
	q.pages.meta, q.next = true, w
	return out
}

// say gives a firing its bucket and appends it, unless that has fired, and its
// signal, where someone wants to know of the event. What is cut says neither.
// Firings come in order of their events' times, so the latest bucket is all there
// is to know.
func (q *sequence) say(f *Firing, cut func(*Firing) bool, out []Firing) []Firing {
	s, fired := q.spec.Suppress, false
	if s > 0 {
		f.Bucket, f.ByEvent = floorDiv(f.Time, s), false
		fired = f.Bucket == q.bucket
	}
	if fired && len(f.Carry) == 0 {
		return out
	}
	from := min(f.Start, f.since)
	if q.unsure(f) {
		q.lost.Cut++
		return out
	}
	if cut != nil {
		whole := *f
		whole.Start = from
		if cut(&whole) {
			return out
		}
	}
	signal := Firing{
		Signal: true, Bucket: f.Bucket, ByEvent: f.ByEvent, EventID: f.EventID, Time: f.Time, Ingest: f.Ingest,
		Start: f.Start, End: f.End, Carry: f.Carry, Keep: f.Keep, Trace: f.Trace, Near: f.Near,
	}
	if f.Carry, f.Keep = nil, nil; !fired {
		out = append(out, *f)
	}
	if s > 0 {
		q.bucket = f.Bucket
	}
	if len(signal.Carry) > 0 {
		out = append(out, signal)
	}
	return out
}

// release lets go of an event that the machine holds.
func (q *sequence) release(e *entry) {
	switch n := len(q.held); e {
	case q.held[0]:
		q.held = q.held[1:]
	case q.held[n-1]:
		q.held = q.held[:n-1]
	default:
		i := slices.Index(q.held, e)
		q.held = slices.Delete(q.held, i, i+1)
	}
	q.letGo(e)
}

// letGo drops what pages have of an event that is neither held nor waits any more.
func (q *sequence) letGo(e *entry) {
	if keep, ok := q.pages.keeps[e.seq]; ok {
		q.whole = slices.DeleteFunc(q.whole, func(x *entry) bool { return x == e })
		if len(q.whole) == 0 {
			q.basis, q.rebased = keep, true
		}
	}
	q.pages.drop(e.seq)
	q.pages.meta = true
}

// firing is one for event e, which shows these events.
func (q *sequence) firing(e *entry, start, end int64, shown ...*entry) *Firing {
	f := &Firing{
		EventID: e.id, Time: e.time, Ingest: e.ingest, Start: start, End: end, Count: len(shown), Total: len(shown),
		ByEvent: true, Trace: e.trace, Near: q.pages.keeps[e.seq], since: start,
		Carry: e.carry, Keep: q.pages.keeps[e.seq],
	}
	for _, x := range shown {
		f.Events = append(f.Events, Ref{ID: x.id, Time: x.time, Rules: x.rules, Keep: q.pages.keeps[x.seq]})
	}
	if f.Near == nil {
		f.Near = q.near(e)
	}
	return f
}

// near is what is kept of the event nearest to e of which anything is.
func (q *sequence) near(e *entry) []byte {
	var nearest *entry
	best := int64(math.MaxInt64)
	for _, x := range q.whole {
		d := max(x.time-e.time, e.time-x.time)
		if nearest == nil || d < best || d == best && compareEntries(x, nearest) < 0 {
			nearest, best = x, d
		}
	}
	if nearest == nil {
		return q.basis
	}
	return q.pages.keeps[nearest.seq]
}

func (q *sequence) empty() bool {
	return len(q.waiting)+len(q.held) == 0 && q.memory.size() == 0 && q.bucket == noBucket
}

// carrying reports whether an event is there that carries something.
func (q *sequence) carrying() bool {
	carries := func(e *entry) bool { return len(e.carry) > 0 }
	return slices.ContainsFunc(q.waiting, carries) || slices.ContainsFunc(q.held, carries)
}

func (q *sequence) len() int { return len(q.waiting) + len(q.held) + q.memory.size() }

func floorDiv(a, b int64) int64 {
	d := a / b
	if a%b < 0 {
		d--
	}
	return d
}
