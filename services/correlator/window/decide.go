package window

import (
	"encoding/binary"
	"math"
	"slices"
)

// A decider is what a group has beside its records where the watermark decides.
//
// A window is decided once no record that counts can come into it any more: a
// record that is not late has an event time of at least its ingest time less L,
// and so of at least W − L. What has an event time below closed is decided, and
// closed never goes back; what is not late therefore always comes at closed or
// after it. How far the watermark moves at a time makes no difference.
type decider struct {
	cond   *condition
	closed int64
	traces map[uint64]string // of records that are not decided, by their numbers
	// kept are the numbers of the events that are kept whole, in order of arrival.
	kept []uint64
	// What the records from lo to hi add up to: those of the latest window that
	// was looked at, without what no further window has. Once begun, hi is the
	// first record that is not decided.
	begun  bool
	lo, hi int
	sum    aggregate
	session
	missing missing
	// cut, where it is there, says of a firing that it must not be.
	cut func(*Firing) bool
}

const (
	// MaxFirings is about how many firings one call of Advance returns at most: one
	// more where an event's bucket fires and the event is a signal too.
	MaxFirings = 16
	// maxKept is how many events a decider keeps whole; beyond it every other
	// one is let go, so that what is left lies evenly.
	maxKept = 64
	// never is before every event time, and far from overflow.
	never = math.MinInt64 / 4
)

func newDecider(s *Spec, c *condition) *decider {
	return &decider{cond: c, closed: never, traces: map[uint64]string{}, sum: newAggregate(s), session: session{run: never, last: never}, missing: missing{floor: never}}
}

// inserted takes notice of a new record.
func (d *decider) inserted(g *Group, r *record, from *Record) {
	if from.Trace != "" {
		d.traces[r.seq] = from.Trace
	}
	if len(from.Keep) > 0 {
		g.pages.keep(r.seq, from.Keep)
		d.kept = append(d.kept, r.seq)
		d.thin(g)
	}
	if r.value >= 0 {
		g.values.enterTotal(r.value)
	}
	g.minDrop = min(g.minDrop, d.dueOf(g, r.time))
}

// thin lets go of kept events where they are too many.
func (d *decider) thin(g *Group) {
	if len(d.kept) <= maxKept {
		return
	}
	d.kept = slices.DeleteFunc(d.kept, func(seq uint64) bool { return g.pages.keeps[seq] == nil })
	if len(d.kept) <= maxKept {
		return
	}
	d.kept = g.everyOther(d.kept)
}

// near is what is kept of the event nearest in arrival.
func (d *decider) near(g *Group, seq uint64) (keep []byte) {
	least := uint64(math.MaxUint64)
	for _, s := range d.kept {
		apart := max(s, seq) - min(s, seq)
		if k := g.pages.keeps[s]; k != nil && apart < least {
			least, keep = apart, k
		}
	}
	return keep
}

// dropped takes notice of a record at an index below lo, or anywhere, that goes.
func (d *decider) dropped(r *record, beforeLo bool) {
	delete(d.traces, r.seq)
	if beforeLo {
		d.lo--
		d.hi--
	} else {
		d.begun = false
	}
}

// shed takes notice that the group's first record goes, because it is full.
func (d *decider) shed(g *Group, r *record) {
	d.lose(g, r)
	switch {
	case d.lo > 0 || !d.begun:
		d.dropped(r, d.lo > 0)
	case d.hi > 0:
		delete(d.traces, r.seq)
		d.sum.leave(g, r)
		d.hi--
	default:
		delete(d.traces, r.seq)
	}
}

// decide decides what ends before limit, and reports whether that is all.
func (g *Group) decide(limit int64) (out []Firing, done bool) {
	d := g.decider
	if limit <= d.closed {
		return nil, true
	}
	g.pages.meta = true
	d.begin(g)
	if g.spec.Shape == Session {
		return d.sessions(g, limit)
	}
	if g.spec.Shape == Tumbling {
		limit = g.spec.start(limit)
	}
	from := d.hi
	for i := from; i < g.recs.len() && len(out) < MaxFirings; {
		t := g.recs.at(i).time
		end := g.spec.end(t)
		if end > limit {
			break
		}
		b := g.spec.Bucket(t)
		if _, ok := g.fired[b]; ok && g.pages.untold == 0 {
			i = max(i+1, g.recs.lower(min(limit, g.spec.begins(b+1))))
			continue
		}
		next := g.recs.lower(end)
		d.slide(g, g.spec.start(t), next)
		for j := next - 1; j >= i && len(out) < MaxFirings; j-- {
			out = d.at(g, j, Firing{Bucket: b, Start: g.spec.start(t), End: end - 1}, out)
		}
		i = next
		if len(out) >= MaxFirings {
			// What is said is marked so: the rest of this window is looked at again.
			if limit = t; g.spec.Shape == Tumbling {
				limit = g.spec.start(t)
			}
		}
	}
	d.decided(g, from, max(limit, d.closed))
	return out, len(out) < MaxFirings
}

// at appends what the record at an index says, for whose window the sum stands:
// that its bucket fires, unless it has, and that it qualifies, where someone
// wants to know.
func (d *decider) at(g *Group, j int, f Firing, out []Firing) []Firing {
	e := g.recs.at(j)
	_, fired := g.fired[f.Bucket]
	signals := e.untold && g.speaks(j, e)
	if fired && !signals {
		return out
	}
	lacks := d.missing.lacks(f.Start)
	if lacks && (d.missing.blurred || e.time <= d.missing.floor || g.spec.measures()) {
		g.lost.Cut++
		return out
	}
	v := d.sum.judge(g, d.cond, e, d.lo, d.hi)
	switch {
	case lacks && (!v.ok || !d.sum.sure(g, d.cond, v.count, d.lo, d.hi)):
		g.lost.Cut++
		return out
	case !v.ok:
		return out
	}
	f.EventID, f.Time, f.Ingest, f.Trace, f.Near = e.id, e.time, e.ingest, d.traces[e.seq], d.near(g, e.seq)
	if d.cut != nil && d.cut(&f) {
		return out
	}
	if !fired {
		said := g.firing(e, g.listed(d.lo, d.hi), v.count)
		said.Bucket, said.Start, said.End, said.Trace, said.Near = f.Bucket, f.Start, f.End, f.Trace, f.Near
		said.Measured, said.AtLeast = d.sum.measured(g, d.cond, e), lacks
		g.fired[f.Bucket] = e.ingest
		out = append(out, said)
	}
	if signals {
		g.tell(j)
		f.Signal, f.Carry, f.Keep = true, g.pages.carried[e.seq], g.pages.keeps[e.seq]
		out = append(out, f)
	}
	return out
}

// speaks reports whether of the copies of a carrier it is the one whose signal is
// told: the one that was received first, and of equal ones that which carries the
// least. insert stores a copy only where it speaks, so that it is the last one.
func (g *Group) speaks(at int, e *record) bool {
	lo, hi := g.copies(at, e)
	for _, c := range g.recs.each(lo, hi) {
		if c.seq > e.seq {
			return false
		}
	}
	return true
}

// listed is the records from lo to hi.
func (g *Group) listed(lo, hi int) []*record {
	recs := make([]*record, 0, hi-lo)
	for _, r := range g.recs.each(lo, hi) {
		recs = append(recs, r)
	}
	return recs
}

// begin adds up anew what is lost with what is kept in memory only.
func (d *decider) begin(g *Group) {
	if d.begun {
		return
	}
	d.begun = true
	d.sum.reset(g)
	from := g.spec.start(d.closed)
	if g.spec.Shape == Session {
		if from = d.closed; d.open {
			from = d.start
		}
	}
	d.lo = g.recs.lower(from)
	d.hi = d.lo
	d.slide(g, from, g.recs.lower(d.closed))
}

// slide brings the sum to the records from an event time on and up to an index.
func (d *decider) slide(g *Group, from int64, to int) {
	lo := d.lo
	for lo < to && g.recs.at(lo).time < from {
		lo++
	}
	for _, r := range g.recs.each(d.lo, min(lo, d.hi)) {
		d.sum.leave(g, r)
	}
	if lo >= d.hi { // nothing stays, and what lies between never came in
		d.sum.emptied(g)
		d.hi = lo
	}
	for _, r := range g.recs.each(d.hi, to) {
		d.sum.enter(g, r)
	}
	d.lo, d.hi = lo, max(d.hi, to)
}

// decided notes that all before limit is decided.
func (d *decider) decided(g *Group, from int, limit int64) {
	d.closed = limit
	end := g.recs.lower(limit)
	if d.begun = d.hi <= end; d.begun {
		d.slide(g, g.spec.start(limit), end)
	}
	for _, r := range g.recs.each(min(from, end), end) {
		delete(d.traces, r.seq)
	}
	d.forget(g, limit)
	d.mend(g)
}

// forget forgets the marks of buckets in which nothing is decided any more.
func (d *decider) forget(g *Group, limit int64) {
	for b := range g.fired {
		if g.spec.begins(b+1) <= limit {
			delete(g.fired, b)
		}
	}
}

// due is the watermark at which there is something to decide, or a mark to
// forget; math.MaxInt64 where nothing is.
func (d *decider) due(g *Group) int64 {
	due := int64(math.MaxInt64)
	if d.open {
		due = d.until(g.spec) + g.spec.Lateness
	} else if i := g.recs.lower(d.closed); i < g.recs.len() {
		due = d.dueOf(g, g.recs.at(i).time)
	}
	for b := range g.fired {
		due = min(due, g.markDropAt(g.spec.begins(b+1)))
	}
	return due
}

// dueOf is the watermark at which the window of an event time is decided, or,
// where its bucket has fired and nobody wants to know more, the next that may be.
func (d *decider) dueOf(g *Group, t int64) int64 {
	if len(g.fired) > 0 && g.spec.Shape != Session && g.pages.untold == 0 {
		if b := g.spec.Bucket(t); g.fires(b) {
			t = g.spec.begins(b + 1)
		}
	}
	return g.spec.end(t) + g.spec.Lateness
}

func (g *Group) fires(bucket int64) bool {
	_, ok := g.fired[bucket]
	return ok
}

func (d *decider) append(b []byte) []byte {
	b = binary.AppendVarint(b, d.closed)
	if !d.open && d.last == never {
		return append(b, 0)
	}
	if d.open {
		b = append(b, 2)
		b = binary.AppendVarint(b, d.start)
	} else {
		b = append(b, 1)
	}
	b = binary.AppendVarint(b, d.run)
	return binary.AppendVarint(b, d.last)
}

func (d *decider) decode(from *decoder) {
	d.closed = max(never, from.varint())
	switch from.byte() {
	case 2:
		d.open, d.start = true, from.varint()
		fallthrough
	case 1:
		d.run, d.last = from.varint(), from.varint()
	}
}

// opened takes notice of the group's decoded records.
func (d *decider) opened(g *Group) {
	d.missing.opened(g)
	for seq := range g.pages.keeps {
		d.kept = append(d.kept, seq)
	}
	slices.Sort(d.kept)
}
