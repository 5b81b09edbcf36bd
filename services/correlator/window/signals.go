package window

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
)

// A record that carries something is reported once, when it qualifies: as a
// signal to those who refer to the correlation. What is reported does not depend
// on the order of arrival: in the end it is each carrier that some set of
// records makes qualify, buckets that have fired or not.
//
// Carriers are stored in the pages of records; field "sN" has a bit for each
// record of page N that has been reported, so that nothing is reported again
// because it was read from the store.
//
// The record that completes a large count makes all of it qualify. So they are
// told a few at a time, by one call each, and the group is due at once until all
// are: which are left to look at is stored with it.

const (
	// MaxSignals is how many signals one call of Add or Advance returns at most.
	MaxSignals = 256
	// maxTold is about how many bytes those carry that one call returns; the first
	// may have more.
	maxTold = 1 << 20
	// Now is Next of a group that has signals yet to tell: a time, in milliseconds,
	// before every watermark that there may be, and one that stores can keep.
	Now = -1 << 46
)

// toTell is the times of records that are yet to be looked at, both ends in.
type toTell struct {
	left     bool
	from, to int64
}

// carriers are the records of a group that carry something.
type carriers struct {
	carried map[uint64][]byte   // by sequence number
	told    map[uint64]uint64   // by page
	changed map[uint64]struct{} // pages of which told has changed since Changes
	untold  int
	rest    toTell
}

func (c *carriers) carry(seq uint64, carry []byte) {
	if len(carry) == 0 {
		return
	}
	if c.carried == nil {
		c.carried, c.told, c.changed = map[uint64][]byte{}, map[uint64]uint64{}, map[uint64]struct{}{}
	}
	c.carried[seq] = carry
	if !c.isTold(seq) {
		c.untold++
	}
}

func (c *carriers) isTold(seq uint64) bool {
	return c.told[seq/pageRecords]>>(seq%pageRecords)&1 != 0
}

func (c *carriers) tell(seq uint64) {
	c.told[seq/pageRecords] |= 1 << (seq % pageRecords)
	c.changed[seq/pageRecords] = struct{}{}
	c.untold--
}

// drop forgets a record. That it was told stays with its page, from which it
// may be read again.
func (c *carriers) drop(seq uint64) {
	if _, ok := c.carried[seq]; !ok {
		return
	}
	delete(c.carried, seq)
	if !c.isTold(seq) {
		c.untold--
	}
}

func (c *carriers) dropPage(n uint64) {
	if _, ok := c.told[n]; ok {
		delete(c.told, n)
		c.changed[n] = struct{}{}
	}
}

// changes appends what of a group's fields has changed, in a fixed order.
func (c *carriers) changes(dst []Change) []Change {
	pages := make([]uint64, 0, len(c.changed))
	for n := range c.changed {
		pages = append(pages, n)
	}
	slices.Sort(pages)
	for _, n := range pages {
		change := Change{Field: "s" + strconv.FormatUint(n, 10)}
		if told := c.told[n]; told != 0 {
			change.Value = binary.LittleEndian.AppendUint64(nil, told)
		}
		dst = append(dst, change)
	}
	return dst
}

func (c *carriers) decodeTold(n uint64, b []byte) error {
	if len(b) != 8 {
		return fmt.Errorf("%w: what of page %d was reported", errCorrupt, n)
	}
	if c.told == nil {
		c.carried, c.told, c.changed = map[uint64][]byte{}, map[uint64]uint64{}, map[uint64]struct{}{}
	}
	c.told[n] = binary.LittleEndian.Uint64(b)
	return nil
}

// recount counts what is left to report, once all fields are read.
func (c *carriers) recount() {
	c.untold = 0
	for seq := range c.carried {
		if !c.isTold(seq) {
			c.untold++
		}
	}
}

// same reports whether two records carry the same.
func (c *carriers) same(seq uint64, carry []byte) bool {
	return string(c.carried[seq]) == string(carry)
}

// tell notes that the record at an index was reported.
func (g *Group) tell(i int) {
	g.pages.tell(g.recs.at(i).seq)
	g.recs.told(i)
}

// Carries reports whether a record is there that carries something.
func (g *Group) Carries() bool {
	return len(g.pages.carried) > 0 || g.sequence != nil && g.sequence.carrying()
}

// report adds the carriers that qualify by a newcomer at time t: those
// whose windows contain it.
func (g *Group) report(out []Firing, t int64) []Firing {
	look := toTell{true, t, t + g.spec.Timespan}
	if g.spec.Shape == Tumbling {
		look.from, look.to = g.spec.start(t), g.spec.end(t)-1
	}
	if rest := g.pages.rest; rest.left { // whoever tells is to ask for it first
		look.from, look.to = min(look.from, rest.from), max(look.to, rest.to)
	}
	return g.tellSome(out, look)
}

// tellSome adds the carriers that qualify in a stretch, and notes what is left of
// it where they are many.
func (g *Group) tellSome(out []Firing, look toTell) []Firing {
	left, told := g.most, 0
	g.pages.meta = g.pages.meta || g.pages.rest.left
	g.pages.rest = toTell{}
	for j := g.recs.untold(g.recs.lower(look.from)); j < g.recs.len(); j = g.recs.untold(j) {
		r := g.recs.at(j)
		if r.time > look.to {
			break
		}
		if left == 0 || told > g.mostTold {
			g.pages.rest, g.pages.meta = toTell{true, r.time, look.to}, true
			break
		}
		ok, next := g.meets(j)
		if ok {
			g.tell(j)
			left--
			told += len(g.pages.carried[r.seq])
			out = append(out, Firing{
				Signal: true, Bucket: g.spec.Bucket(r.time), EventID: r.id, Time: r.time, Ingest: r.ingest,
				Start: g.spec.start(r.time), End: g.spec.end(r.time) - 1, Carry: g.pages.carried[r.seq], Keep: g.pages.keeps[r.seq],
			})
		}
		if j++; next > j && next < g.recs.len() {
			next = g.firstOf(g.recs.at(next).time) // those of its millisecond are in one window
		}
		j = max(next, j)
	}
	return out
}

// meets reports whether the record at j qualifies; where not, next is the first
// later one that could instead.
func (g *Group) meets(j int) (ok bool, next int) {
	e := g.recs.at(j)
	lo, hi := g.window(e)
	if few := 4*g.spec.Min + 16; few <= chunkRecords && g.nearest(e, max(lo, hi-few), hi) { // of a busy group these do
		return true, 0
	}
	if next := g.impossible(lo, hi); next > 0 {
		return false, next
	}
	if (g.spec.Kind == EventCount || g.spec.Kind == ValueCount) && g.recs.spread(lo, hi) <= g.spec.Reach() {
		return true, 0 // ingest times left aside, it is not impossible because it holds
	}
	if g.nearest(e, lo, hi) {
		return true, 0
	}
	_, count := g.stretch(lo, hi, e)
	return count >= g.least(), 0
}

// nearest reports whether the records that lie nearest to e in its window
// satisfy the condition by themselves. It looks at few where a full look would
// go through the whole window for each event of a busy group; a no says nothing.
func (g *Group) nearest(e *record, lo, hi int) bool {
	if g.spec.Expr != "" {
		return false
	}
	tally := nearby{spec: g.spec}
	switch g.spec.Kind {
	case EventCount:
		if g.ids.repeated > 0 {
			tally.ids = make(map[string]struct{}, g.spec.Min)
		}
	case ValueCount:
		tally.values = make(map[int32]struct{}, g.spec.Min)
	case Temporal:
	case TemporalOrdered:
		if g.spec.Min != g.spec.Rules {
			return false
		}
		tally.next, tally.before = g.spec.Rules, math.MaxInt64
	default:
		return false
	}
	if g.spec.Kind != TemporalOrdered {
		tally.count(e)
	}
	least, most := e.ingest, e.ingest
	for i := hi - 1; i >= lo && tally.n < g.spec.Min; i-- {
		r := g.recs.at(i)
		if r.seq == e.seq && g.spec.Kind != TemporalOrdered || !tally.count(r) {
			continue
		}
		least, most = min(least, r.ingest), max(most, r.ingest)
		if most-least > g.spec.Reach() {
			return false
		}
	}
	return tally.n >= g.spec.Min
}

// nearby counts records from the last one of a window back.
type nearby struct {
	spec   *Spec
	n      int
	ids    map[string]struct{} // where they repeat
	values map[int32]struct{}
	rules  uint64
	// next is one above the rule that is to be met, before the time of the one that
	// met the last.
	next   int
	before int64
}

// count reports whether the record adds to what is counted.
func (t *nearby) count(r *record) bool {
	was := t.n
	switch t.spec.Kind {
	case EventCount:
		if t.ids == nil {
			t.n++
			break
		}
		t.ids[r.id] = struct{}{}
		t.n = len(t.ids)
	case ValueCount:
		t.values[r.value] = struct{}{}
		t.n = len(t.values)
	case Temporal:
		t.rules |= r.rules
		t.n = bits.OnesCount64(t.rules)
	default:
		// Of one millisecond only one is taken: then no event is taken twice, and
		// ties do not matter.
		if t.next > 0 && r.time < t.before && r.rules>>(t.next-1)&1 != 0 {
			t.n++
			t.next, t.before = t.next-1, r.time
		}
	}
	return t.n > was
}
