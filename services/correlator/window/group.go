package window

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
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
	// Keep is handed back with a Firing for the events that it shows whole.
	Keep []byte
}

// Group is the state of one correlation for one set of group values. It is not
// safe for concurrent use. After an error of the store throw it away and decode
// it again.
type Group struct {
	spec *Spec
	// recs is sorted by (time, id, ingest); ids are distinct but for copies.
	recs []record
	// ids counts records by hash of the event id: a collision costs time, never
	// a wrong answer.
	ids map[uint64]int32
	// repeated is how many records share their id (or its hash) with another.
	repeated int
	values   values
	rules    ruleTimes
	// fired holds the buckets that have fired, each with the latest ingest time
	// that touched it.
	fired    map[int64]int64
	overflow bool
	sheds    int   // since the last reindex
	minDrop  int64 // watermark at which a drop is due
	pages    pages
}

type record struct {
	id     string
	time   int64
	ingest int64
	rules  uint64
	seq    uint64
	value  int32
}

// New returns an empty group.
func New(spec *Spec) *Group {
	g := &Group{
		spec:    spec,
		ids:     map[uint64]int32{},
		fired:   map[int64]int64{},
		minDrop: math.MaxInt64,
	}
	g.pages.init()
	g.reindex()
	return g
}

// Add folds one record and returns the buckets that fire by it, at most one
// Firing a bucket, in order of time. A record that the group has already, and
// one that does not count, change nothing.
func (g *Group) Add(r Record) []Firing {
	if r.Rules == 0 || (g.spec.Kind == ValueCount && !r.HasValue) {
		return nil
	}
	rec := record{id: r.EventID, time: r.Time, ingest: r.Ingest, rules: r.Rules, value: -1}
	if g.spec.Kind == ValueCount {
		rec.value = g.values.intern(r.Value)
	}
	if !g.insert(rec, r.Value, r.Keep) {
		return nil
	}
	return g.evaluate(r.Time, r.Ingest)
}

// Next is the watermark at which Advance has something to do; math.MaxInt64
// where the group is empty.
func (g *Group) Next() int64 { return g.minDrop }

// Empty reports whether nothing is left to remember.
func (g *Group) Empty() bool { return len(g.recs) == 0 && len(g.fired) == 0 }

// Len is how many records the group holds.
func (g *Group) Len() int { return len(g.recs) }

// Overflowed reports whether records were dropped because the group was full.
func (g *Group) Overflowed() bool { return g.overflow }

// Advance drops what no later record can reach, now that the watermark has
// come to w: a record once w has passed its ingest time by Reach, a fired mark
// a bucket later. Later records have ingest times of at least w, so what is
// dropped can't qualify with them and dropping is invisible in the alerts.
func (g *Group) Advance(w int64) {
	if w < g.minDrop {
		return
	}
	g.drop(w - g.spec.Reach())
	for b, ingest := range g.fired {
		if ingest+g.spec.LookBack() < w {
			delete(g.fired, b)
			g.pages.meta = true
		}
	}
	g.schedule()
}

// drop lets go of all records with an ingest time below least.
func (g *Group) drop(least int64) {
	first, old := 0, 0
	for i := range g.recs {
		if g.recs[i].ingest >= least {
			continue
		}
		if old == first && i == first {
			first++
		}
		old++
	}
	if old == first { // in order of time as of ingest: what is left stays as it is
		for range first {
			g.shed()
		}
		return
	}
	kept := g.recs[:0]
	for _, r := range g.recs {
		if r.ingest < least {
			g.pages.drop(r.seq)
			g.forget(&r)
			continue
		}
		kept = append(kept, r)
	}
	clear(g.recs[len(kept):])
	g.recs = kept
	g.reindex()
}

// schedule sets when the next drop is due. It is late by a part of the reach,
// so that records go in bulk: each is looked at a bounded number of times.
func (g *Group) schedule() {
	g.minDrop = math.MaxInt64
	for _, r := range g.recs {
		g.minDrop = min(g.minDrop, g.dropAt(r.ingest))
	}
	for _, ingest := range g.fired {
		g.minDrop = min(g.minDrop, g.markDropAt(ingest))
	}
}

func (g *Group) dropAt(ingest int64) int64 {
	reach := g.spec.Reach()
	return ingest + reach + reach/8 + 1
}

func (g *Group) markDropAt(ingest int64) int64 {
	return g.dropAt(ingest) + g.spec.Width()
}

// insert puts the record into its place. It reports false where the group has
// an equal one, or copies that make it redundant.
func (g *Group) insert(r record, value string, keep []byte) bool {
	at := len(g.recs)
	if at > 0 && compare(&g.recs[at-1], &r) >= 0 {
		at = sort.Search(at, func(i int) bool { return compare(&g.recs[i], &r) >= 0 })
		if g.redundant(at, &r) {
			return false
		}
	} else if at > 0 && g.redundant(at, &r) {
		return false
	}
	r.seq = g.pages.append(&r, value)
	g.recs = slices.Insert(g.recs, at, r)
	g.index(&r, at)
	g.minDrop = min(g.minDrop, g.dropAt(r.ingest))
	g.keepAround(at, keep)
	if len(g.recs) > MaxRecords {
		g.overflow = true
		g.pages.meta = true
		g.shed()
	}
	return true
}

// shed drops the first record, at a cost that does not grow with the group.
func (g *Group) shed() {
	r := &g.recs[0]
	g.pages.drop(r.seq)
	g.forget(r)
	if g.spec.Kind == ValueCount {
		g.values.shed(r.value)
	}
	if g.spec.temporal() {
		g.rules.shed(r.rules)
	}
	*r = record{}
	g.recs = g.recs[1:]
	if g.sheds++; g.sheds >= MaxRecords/8 {
		g.reindex() // lets the values go that no record has any more
	}
}

// redundant reports whether copies that differ in ingest time only make r
// superfluous. A copy between two others that lie at most R apart is: a stretch
// of ingest times of length R that contains it contains one of the two.
func (g *Group) redundant(at int, r *record) bool {
	lo, hi := at, at
	for lo > 0 && sameButIngest(&g.recs[lo-1], r) {
		lo--
	}
	for hi < len(g.recs) && sameButIngest(&g.recs[hi], r) {
		hi++
	}
	var before, after bool
	var b, a int64
	for i := lo; i < hi; i++ {
		switch x := g.recs[i].ingest; {
		case x == r.ingest:
			return true
		case x < r.ingest:
			before, b = true, x
		case !after:
			after, a = true, x
		}
	}
	return before && after && a-b <= g.spec.Reach()
}

func (g *Group) index(r *record, at int) {
	h := xxhash.Sum64String(r.id)
	if g.ids[h]++; g.ids[h] > 1 {
		g.repeated++
	}
	if g.spec.Kind == ValueCount {
		g.values.insert(g.recs, at, g.spec.Timespan)
	}
	if g.spec.temporal() {
		g.rules.insert(r, at == len(g.recs)-1)
	}
}

// remember puts the ids of all records into an empty index.
func (g *Group) remember() {
	for i := range g.recs {
		h := xxhash.Sum64String(g.recs[i].id)
		if g.ids[h]++; g.ids[h] > 1 {
			g.repeated++
		}
	}
}

// forget takes the id of a record that is dropped out of the index.
func (g *Group) forget(r *record) {
	h := xxhash.Sum64String(r.id)
	switch n := g.ids[h]; {
	case n > 1:
		g.ids[h] = n - 1
		g.repeated--
	default:
		delete(g.ids, h)
	}
}

// reindex rebuilds what else is derived from recs, after records were dropped.
func (g *Group) reindex() {
	g.sheds = 0
	if g.spec.Kind == ValueCount {
		g.values.rebuild(g.recs, g.spec.Timespan)
	}
	if g.spec.temporal() {
		g.rules.rebuild(g.spec, g.recs)
	}
}

// shown is how many of a group's first and last events are kept whole.
const shown = 5

// keepAround keeps the newcomer's event where it is among the first or the last
// five, and lets the one go that it pushes out.
func (g *Group) keepAround(at int, keep []byte) {
	n := len(g.recs)
	if at < shown || at >= n-shown {
		g.pages.keep(g.recs[at].seq, keep)
	}
	if n <= 2*shown {
		return
	}
	if at < shown {
		g.pages.unkeep(g.recs[shown].seq)
	} else if at >= n-shown {
		g.pages.unkeep(g.recs[n-shown-1].seq)
	}
}

func compare(a, b *record) int {
	if a.time != b.time {
		return cmp.Compare(a.time, b.time)
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

func sameButIngest(a, b *record) bool {
	return a.time == b.time && a.id == b.id && a.rules == b.rules && a.value == b.value
}
