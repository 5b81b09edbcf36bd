package window

import (
	"cmp"
	"math"
)

// Record is one detection as a group sees it.
type Record struct {
	EventID string
	// Time is the event time, Ingest the ingest time.
	Time, Ingest int64
	// Rules has bit i for the i-th referred rule that the event matched.
	Rules uint64
	// Value is the value that value_count counts, by exact text; HasValue is
	// false where it is missing, and then the event does not count.
	Value    string
	HasValue bool
	// Late and Early say how the event time lies to the ingest time. What is
	// decided at the watermark leaves such records out.
	Late, Early bool
	// Trace, where the watermark decides, is handed back with the Firing that is
	// for this event.
	Trace string
	// Keep is handed back with a Firing for the events that it shows whole.
	Keep []byte
	// Object is too, where a group that is not stored fires at once.
	Object any
	// Carry, where it is not empty, is handed back with the signal that says that
	// this record qualifies.
	Carry []byte
}

// Group is the state of one correlation for one set of group values. It is not
// safe for concurrent use. After an error of the store throw it away and decode
// it again.
type Group struct {
	spec *Spec
	// recs is in order of (time, id, ingest); ids are distinct but for copies.
	recs timeline
	ids  idset
	// front is the index of the first record in the window that ends at the
	// latest one.
	front  int
	swept  *sweep // nil where none is begun
	values values
	rules  ruleTimes
	// fired holds the buckets that have fired, each with the latest ingest time
	// that touched it.
	fired    map[int64]int64
	overflow bool
	lost     Lost
	room     int   // MaxRecords
	sheds    int   // since the last reindex
	minDrop  int64 // watermark at which a drop is due
	// exact is from which count on a firing says "at least", bulky from how many
	// records on compaction may pay; 0 where there is none.
	exact, bulky int
	pages        pages
	pending      pending
	// condition is there where Min does not say all, decider where the watermark
	// decides.
	condition *condition
	decider   *decider
	updates   updates
	most      int // signals of one call
	mostTold  int // bytes that they carry
	// sequence is all of the state of kinds that take events in order.
	sequence *sequence
}

type record struct {
	id     string
	time   int64
	ingest int64
	rules  uint64
	seq    uint64
	value  int32
	hash   uint32 // of id
	prefix uint32 // of id; see newRecord
	late   bool   // for whoever reads the alert
	untold bool   // it carries something that has not been reported
}

// newRecord is a record of an id, without a value. The first bytes of an id lie
// beside the time, so that an order is mostly found without a look at the ids.
func newRecord(id string) record {
	r := record{id: id, value: -1, hash: hashOf(id)}
	for i := range min(len(id), 4) {
		r.prefix |= uint32(id[i]) << (24 - 8*i)
	}
	return r
}

// New returns an empty group.
func New(spec *Spec) *Group {
	if spec.Kind.sequential() {
		return &Group{spec: spec, sequence: newSequence(spec)}
	}
	g := &Group{
		spec:     spec,
		recs:     newTimeline(),
		fired:    map[int64]int64{},
		minDrop:  math.MaxInt64,
		most:     MaxSignals,
		mostTold: maxTold,
		room:     MaxRecords,
	}
	g.pages.init()
	if spec.Numbers() || spec.Expr != "" || !spec.AtOnce() {
		g.condition = new(newCondition(spec))
	}
	if spec.Numbers() {
		g.values.numbers = newNumbers(g.condition)
	}
	if spec.Kind == Risk {
		g.values.scores = newScores()
	}
	if !spec.AtOnce() {
		g.decider = newDecider(spec, g.condition)
	}
	g.updates.closed = never
	if spec.compacts() {
		g.thresholds(exactCount)
	}
	g.reindex()
	return g
}

// Unstored makes a new group one that is never stored: nothing is encoded, and
// Changes says nothing.
func (g *Group) Unstored() {
	p := &g.pages
	if g.sequence != nil {
		p = &g.sequence.pages
	}
	p.unstored = true
}

// Add folds one record and returns the buckets that fire by it, at most one
// Firing a bucket, in order of time, and behind them the signals of the records
// with a Carry that qualify by it, at most MaxSignals: where there may be more,
// Next is Now, and Advance is to be called before the next record. A record that
// the group has already, and one that does not count, change nothing.
func (g *Group) Add(r Record) []Firing {
	if g.sequence != nil {
		g.sequence.add(&r)
		return nil
	}
	if g.spec.Judge(&r) != Counts {
		return nil
	}
	rec := newRecord(r.EventID)
	rec.time, rec.ingest, rec.rules, rec.late = r.Time, r.Ingest, r.Rules, r.Late
	if g.spec.tallied() {
		rec.value, r.Value, _ = g.values.intern(r.Value) // Judge has read the number
	}
	if d := g.decider; d != nil {
		if g.spec.AnyAge {
			rec.ingest = rec.time // it only says when the record is dropped
		}
		if r.Time >= d.closed {
			g.insert(rec, &r)
		} else {
			d.overtaken(g, r.Time)
		}
		return nil
	}
	if g.putOff(&rec, &r) {
		return nil
	}
	g.settle()
	if !g.insert(rec, &r) {
		return nil
	}
	out := g.evaluate(r.Time, r.Ingest)
	if g.pages.untold > 0 {
		out = g.report(out, r.Time)
	}
	return out
}

// Next is the watermark at which Advance has something to do: Now where it has, and
// math.MaxInt64 where the group is empty.
func (g *Group) Next() int64 {
	if g.sequence != nil {
		return g.sequence.next
	}
	if g.pages.rest.left {
		return Now
	}
	return g.minDrop
}

// Empty reports whether nothing is left to remember.
func (g *Group) Empty() bool {
	if g.sequence != nil {
		return g.sequence.empty()
	}
	return g.recs.len() == 0 && len(g.fired) == 0
}

// Len is how many records the group holds.
func (g *Group) Len() int {
	if g.sequence != nil {
		return g.sequence.len()
	}
	g.settle()
	return g.recs.len()
}

// Held is at least Len, and nothing to compute.
func (g *Group) Held() int {
	if g.sequence != nil {
		return g.sequence.len()
	}
	return g.recs.len() + len(g.pending.recs)
}

// Overflowed reports whether records were dropped because the group was full: where
// the watermark decides, such as something may still depend on.
func (g *Group) Overflowed() bool {
	g.settle()
	return g.overflow || g.sequence != nil && g.sequence.lacking()
}

// Advance decides what the watermark, now that it has come to w, lets decide,
// and drops what no later record can reach: a record once w has passed its
// ingest time by Reach, a fired mark a bucket later. Later records have ingest
// times of at least w, so what is dropped can't qualify with them and dropping
// is invisible in the alerts.
//
// It returns at most MaxFirings, or MaxSignals of what Add has left. Where there
// may be more, Next is at most w, and Advance is to be called again.
func (g *Group) Advance(w int64) []Firing { return g.AdvanceUnless(nil, w) }

// AdvanceUnless is Advance, but for windows of which cut says that they must be
// left undecided. It is asked with all of a Firing but what it counts, for each
// event that would make a bucket fire; one that is cut does not mark its bucket.
func (g *Group) AdvanceUnless(cut func(*Firing) bool, w int64) []Firing {
	if g.sequence != nil {
		return g.sequence.advance(cut, w)
	}
	if g.pages.rest.left {
		return g.tellSome(nil, g.pages.rest)
	}
	if w < g.minDrop {
		return nil
	}
	g.unsettle(w - g.spec.held())
	g.settle()
	var out []Firing
	if g.decider != nil {
		var done bool
		g.decider.cut = cut
		if out, done = g.decide(w - g.spec.Lateness); !done {
			w = g.decider.closed + g.spec.Lateness // as if it had come no further
		}
	} else {
		if g.spec.Updates {
			var done bool
			if out, done = g.update(cut, w); !done {
				w = g.updates.closed + g.spec.Lateness
			}
		}
		for b, ingest := range g.fired {
			if ingest+g.spec.LookBack() < w {
				delete(g.fired, b)
				g.pages.meta = true
			}
		}
	}
	g.drop(w - g.spec.held())
	g.schedule()
	return out
}

// drop lets go of all records with an ingest time below least.
func (g *Group) drop(least int64) {
	if g.recs.oldest() >= least {
		return
	}
	g.swept = nil
	counts := g.spec.tallied()
	latest, front, lo := g.recs.latest().seq, g.front, 0
	if g.decider != nil {
		lo = g.decider.lo
	}
	g.recs.drop(least, func(i int, r *record) {
		g.sheds++
		g.letGo(r.seq)
		g.ids.remove(r.hash)
		if counts {
			g.values.leaveTotal(r.value)
		}
		switch {
		case g.decider != nil:
			g.decider.dropped(r, i < lo)
		case i < front:
			g.front--
		case counts:
			g.values.leaveFront(r.value)
		}
	})
	if g.recs.len() == 0 {
		for seq := range g.pages.keeps {
			g.pages.unkeep(seq)
		}
	}
	switch {
	case g.recs.len() == 0, g.recs.latest().seq != latest, g.worn():
		g.reindex()
	case g.spec.temporal() && g.decider == nil:
		g.rules.trim(g.recs.first().time)
	}
}

// schedule sets when the next drop is due. It is late by a part of the reach,
// so that records go in bulk: each is looked at a bounded number of times.
func (g *Group) schedule() {
	g.minDrop = math.MaxInt64
	if g.recs.len() > 0 {
		g.minDrop = g.dropAt(g.recs.oldest())
	}
	if g.decider != nil {
		g.minDrop = min(g.minDrop, g.decider.due(g))
		return
	}
	for b, ingest := range g.fired {
		g.minDrop = min(g.minDrop, g.markDropAt(ingest))
		if !g.spec.Updates {
			continue
		}
		if at, open := g.closesAt(b); open {
			g.minDrop = min(g.minDrop, at)
		}
	}
}

func (g *Group) dropAt(ingest int64) int64 {
	held := g.spec.held()
	return ingest + held + held/8 + 1
}

func (g *Group) markDropAt(ingest int64) int64 {
	return g.dropAt(ingest) + g.spec.Width()
}

// insert puts the record into its place. It reports false where the group has
// an equal one, or copies that make it redundant.
func (g *Group) insert(r record, of *Record) bool {
	at := g.recs.len()
	if at > 0 && compare(g.recs.latest(), &r) >= 0 {
		at = g.recs.place(&r)
	}
	if g.decider != nil && g.copied(at, &r, of.Carry) {
		return false
	}
	if g.redundant(at, &r, of.Carry) {
		return false
	}
	r.seq, r.untold = g.pages.append(&r, of), len(of.Carry) > 0
	if i, ok := g.superseded(at, &r); ok {
		g.supersede(i, r)
		return true
	}
	g.recs.insert(at, r)
	g.ids.add(r.hash)
	g.minDrop = min(g.minDrop, g.dropAt(r.ingest))
	if g.decider != nil {
		g.decider.inserted(g, &r, of)
	} else {
		g.index(&r, at)
		g.keepAround(at, of)
	}
	if g.recs.len() > g.room {
		g.overflow = true
		g.pages.meta = true
		g.lost.Shed++
		g.shed()
	}
	return true
}

// shed drops the first record, at a cost that does not grow with the group.
func (g *Group) shed() {
	r := g.recs.first()
	g.letGo(r.seq)
	g.ids.remove(r.hash)
	if g.spec.temporal() && g.decider == nil {
		g.rules.shed(r.rules)
	}
	if g.spec.tallied() {
		g.values.leaveTotal(r.value)
	}
	switch {
	case g.decider != nil:
		g.decider.shed(g, r)
	case g.front > 0:
		g.front--
	case g.spec.tallied():
		g.values.leaveFront(r.value)
	}
	g.swept.shed(g, r)
	g.recs.shift()
	if g.sheds++; g.worn() {
		g.reindex()
	}
}

// worn reports whether so many records have gone that reindex is due, which
// lets go of the values and times that no record has any more.
func (g *Group) worn() bool { return g.sheds >= 4096+2*g.recs.len() }

// index counts the record that has just been put at an index.
func (g *Group) index(r *record, at int) {
	if g.spec.temporal() {
		g.rules.insert(r, at == g.recs.len()-1)
	}
	g.swept.inserted(g, r, at)
	counts := g.spec.tallied()
	if counts {
		g.values.enterTotal(r.value)
	}
	start := g.spec.start(g.recs.latest().time)
	if at < g.front || r.time < start {
		g.front++
		return
	}
	if counts {
		g.values.enterFront(r.value)
	}
	// The latest record ends this at the latest.
	for x := g.recs.at(g.front); x.time < start; x = g.recs.at(g.front) {
		if counts {
			g.values.leaveFront(x.value)
		}
		g.front++
	}
}

// reindex rebuilds what else is derived from recs, after records were dropped.
func (g *Group) reindex() {
	g.sheds, g.swept = 0, nil
	counts := g.spec.tallied()
	if counts {
		g.values.rebuild(&g.recs)
	}
	if g.decider != nil {
		g.decider.begun = false
		return
	}
	if g.spec.temporal() {
		g.rules.rebuild(g.spec, &g.recs)
	}
	g.front = g.recs.len()
	if g.front == 0 {
		return
	}
	g.front = g.recs.lower(g.spec.start(g.recs.latest().time))
	if counts {
		for _, r := range g.recs.each(g.front, g.recs.len()) {
			g.values.enterFront(r.value)
		}
	}
}

// shown is how many of a group's first and last events are kept whole.
const shown = 5

// keepAround keeps the newcomer's event where it is among the first or the last
// five, and lets the one go that it pushes out.
func (g *Group) keepAround(at int, of *Record) {
	n := g.recs.len()
	if at < shown || at >= n-shown {
		g.pages.keep(g.recs.at(at).seq, of.Keep)
		g.pages.objects.put(g.recs.at(at).seq, of.Object)
	}
	if n <= 2*shown {
		return
	}
	out := shown
	if at >= n-shown {
		out = n - shown - 1
	} else if at >= shown {
		return
	}
	if seq := g.recs.at(out).seq; g.spec.Updates {
		g.spare(seq)
	} else {
		g.pages.unkeep(seq)
	}
}

func compare(a, b *record) int {
	if a.time != b.time {
		return cmp.Compare(a.time, b.time)
	}
	if a.prefix != b.prefix {
		return cmp.Compare(a.prefix, b.prefix)
	}
	if c := cmp.Compare(a.id, b.id); c != 0 {
		return c
	}
	if a.rules != b.rules {
		return cmp.Compare(a.rules, b.rules)
	}
	if a.value != b.value {
		return cmp.Compare(a.value, b.value)
	}
	return cmp.Compare(a.ingest, b.ingest)
}
