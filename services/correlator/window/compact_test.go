package window

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestCompactionChangesNoAlert folds the same records into a group that is
// compacted at any time and one that never is: in any order, with copies,
// repeats of what was dropped, leaps of ingest times and both read from the store
// now and then.
func TestCompactionChangesNoAlert(t *testing.T) {
	dropped, capped := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		s := &Spec{
			Kind:     rapid.SampledFrom([]Kind{EventCount, EventCount, ValueCount}).Draw(rt, "kind"),
			Timespan: rapid.SampledFrom([]int64{10, 60_000}).Draw(rt, "timespan"),
			Shape:    rapid.SampledFrom([]Shape{Sliding, Sliding, Sliding, Tumbling}).Draw(rt, "shape"),
			Min:      rapid.IntRange(1, 4).Draw(rt, "min"),
			Rules:    1,
		}
		if rapid.IntRange(0, 3).Draw(rt, "suppressed") == 0 {
			s.Suppress = s.Timespan*5/2 + 1
		}
		recs := drawCrowd(rt, s)
		order := rapid.Permutation(recs).Draw(rt, "order")
		if rapid.Bool().Draw(rt, "in order") {
			slices.SortStableFunc(order, func(a, b Record) int { return int(a.Ingest - b.Ingest) })
		}
		order = append(order, withRepeats(rt, order)[len(order):]...)
		c := &compared{
			spec: s, exact: rapid.IntRange(1, 3).Draw(rt, "exact"), plain: New(s), compacted: New(s),
			stored: [2]map[string][]byte{{}, {}}, first: [2]map[int64]Firing{{}, {}},
		}
		for i := range order {
			c.step(rt, order, i)
		}
		require.Equal(rt, naive(s, order), c.buckets(), "spec %+v, order %+v", *s, order)
		dropped += c.dropped
		for _, f := range c.first[1] {
			if f.AtLeast {
				capped++
			}
		}
	})
	require.Greater(t, dropped, 50, "compaction had something to do")
	require.Positive(t, capped, "counts were cut short")
	t.Logf("%d records dropped, %d counts cut short", dropped, capped)
}

// drawCrowd gives records of some buckets that hold many each, a part of which
// has its ingest time from a few values a part of R apart.
func drawCrowd(rt *rapid.T, s *Spec) (out []Record) {
	reach := s.Reach()
	leaps := []int64{0, 0, 0, 1, reach / 2, reach - 1, reach, reach + 1, 2 * reach}
	for i := range rapid.IntRange(5, 40).Draw(rt, "n") {
		r := Record{
			EventID: fmt.Sprintf("e%02d", i), Rules: 1, HasValue: true,
			Time:  rapid.Int64Range(0, 5*s.Timespan).Draw(rt, "time"),
			Value: rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}).Draw(rt, "value"),
			Keep:  fmt.Append(nil, i),
		}
		if rapid.IntRange(0, 4).Draw(rt, "edge") == 0 {
			r.Time = r.Time / s.Timespan * s.Timespan
		}
		r.Ingest = r.Time + rapid.SampledFrom(leaps).Draw(rt, "leap")
		out = append(out, r)
		for rapid.IntRange(0, 5).Draw(rt, "copied") == 0 {
			r.Ingest = r.Time + rapid.SampledFrom(leaps).Draw(rt, "copy")
			if rapid.Bool().Draw(rt, "moved") {
				r.Time += rapid.Int64Range(-s.Timespan, s.Timespan).Draw(rt, "by")
			}
			out = append(out, r)
		}
	}
	return out
}

// compared are the two groups and what of each bucket they said first.
type compared struct {
	spec             *Spec
	exact            int
	plain, compacted *Group
	stored           [2]map[string][]byte
	first            [2]map[int64]Firing
	dropped          int
}

func (c *compared) step(rt *rapid.T, order []Record, i int) {
	c.plain.thresholds(c.exact)
	c.compacted.thresholds(c.exact)
	w := int64(math.MaxInt64)
	for _, later := range order[i:] {
		w = min(w, later.Ingest)
	}
	if rapid.IntRange(0, 3).Draw(rt, "advance") == 0 {
		c.plain.Advance(w)
		c.compacted.Advance(w)
	}
	if rapid.Bool().Draw(rt, "compact") {
		held := c.compacted.Len()
		c.compacted.Compact(rapid.SampledFrom([]int64{w, w, w - 1, math.MinInt64}).Draw(rt, "watermark"))
		c.dropped += held - c.compacted.Len()
	}
	for k, g := range []*Group{c.plain, c.compacted} {
		for _, f := range g.Add(order[i]) {
			if _, ok := c.first[k][f.Bucket]; !ok {
				c.first[k][f.Bucket] = f
			}
		}
	}
	require.Len(rt, c.first[1], len(c.first[0]))
	for b, want := range c.first[0] {
		got, ok := c.first[1][b]
		require.True(rt, ok, "bucket %d", b)
		c.same(rt, want, got, order[:i+1])
	}
	if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
		c.plain = reread(rt, c.plain, c.spec, c.stored[0])
		c.compacted = reread(rt, c.compacted, c.spec, c.stored[1])
	}
}

// same holds what two alerts of a bucket say against each other.
func (c *compared) same(rt *rapid.T, want, got Firing, known []Record) {
	least, most := want.Ingest, want.Ingest
	for _, r := range known {
		in := want.Start <= r.Time && r.Time <= want.End && max(r.Ingest-want.Ingest, want.Ingest-r.Ingest) <= c.spec.Reach()
		if in {
			least, most = min(least, r.Ingest), max(most, r.Ingest)
		}
	}
	if most-least > c.spec.Reach() {
		want.Events, got.Events, want.Total, got.Total = nil, nil, 0, 0
	}
	require.Equal(rt, want.Time, got.Time)
	got.EventID, got.Ingest = want.EventID, want.Ingest // of several of one millisecond it is any
	require.Len(rt, got.Events, len(want.Events))
	for i := range want.Events {
		if want.Events[i].Keep == nil {
			got.Events[i].Keep = nil // it may show more events whole, never fewer
		}
	}
	require.Equal(rt, want, got)
}

func (c *compared) buckets() []int64 {
	out := []int64{}
	for b := range c.first[1] {
		out = append(out, b)
	}
	slices.Sort(out)
	return out
}

// TestCompactionKeepsWhatAnOldRecordNeeds: o and r qualify with f, and nothing
// that stands for r elsewhere lies within R of o.
func TestCompactionKeepsWhatAnOldRecordNeeds(t *testing.T) {
	s := eventCount(10, 3)
	g := New(s)
	g.thresholds(1)
	add(g, "r", 5, 100)
	fired := 0
	for i := range int64(4) {
		fired += len(add(g, fmt.Sprint("later", i), 9, s.Reach()+50))
	}
	require.Equal(t, 1, fired)
	require.Empty(t, add(g, "o", 12, 0))
	g.Compact(100)
	require.Len(t, add(g, "f", 8, 120), 1)
}

// TestHotGroupsCostKilobytes: a group with a million events in its window, of a
// rule that demands 60.
func TestHotGroupsCostKilobytes(t *testing.T) {
	const events, timespan = 1_000_000, 5 * minute
	for name, s := range map[string]*Spec{
		"events": {Kind: EventCount, Timespan: timespan, Min: 60, Rules: 1},
		"values": {Kind: ValueCount, Timespan: timespan, Min: 60, Rules: 1},
		"few":    {Kind: ValueCount, Timespan: timespan, Min: 3, Rules: 1},
	} {
		t.Run(name, func(t *testing.T) {
			values := 1 << 30
			if name == "few" {
				values = 10
			}
			g, stored := New(s), map[string][]byte{}
			before, most, fired := heapInUse(), 0, 0
			for i := range int64(events) {
				at := i * timespan / events
				w := at - minute
				fired += len(g.Add(Record{EventID: "event-" + strconv.FormatInt(i, 10), Time: at, Ingest: at + i%500, Rules: 1, Value: strconv.Itoa(int(i) % values), HasValue: true}))
				if w >= g.Next() {
					g.Advance(w)
				}
				if g.Bulky() {
					g.Compact(w)
				}
				most = max(most, g.Len())
				if i%50_000 == 0 {
					g = reread(t, g, s, stored)
				}
			}
			g = reread(t, g, s, stored)
			used := heapInUse() - before
			size := 0
			for f, v := range stored {
				size += len(f) + len(v)
			}
			require.Equal(t, 1, fired)
			require.False(t, g.Overflowed())
			require.Less(t, most, 3000)
			require.Less(t, size, 100<<10, "bytes stored")
			require.Less(t, used, int64(1<<20), "bytes of heap")
			t.Logf("%d records at most, %d bytes stored, %d of heap", most, size, used)

			// What is left serves the next bucket.
			next := g.Add(Record{EventID: "next", Time: timespan, Ingest: timespan, Rules: 1, Value: "0", HasValue: true})
			require.Len(t, next, 1)
			require.Equal(t, name != "few", next[0].AtLeast)
			runtime.KeepAlive(g)
		})
	}
}

// TestCompactionWritesWhatOneCallTakes compacts groups of which much is needed: what
// is then to be written is bounded, and the bound is what is known of it before.
func TestCompactionWritesWhatOneCallTakes(t *testing.T) {
	for name, tc := range map[string]struct {
		needed, whole int // records, and bytes of what is kept of each
		compacted     bool
	}{
		"some":                    {20_000, 100, true},
		"many":                    {60_000, 100, false},
		"some, some of them long": {20_000, maxWritten / 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(&Spec{Kind: ValueCount, Timespan: 5 * minute, Min: 60, Rules: 1})
			g.thresholds(tc.needed)
			held, whole := tc.needed+tc.needed/2, bytes.Repeat([]byte("x"), tc.whole)
			for i := range held {
				g.Add(Record{
					EventID: fmt.Sprintf("%036d", i), Time: int64(i), Ingest: int64(i), Rules: 1,
					Value: fmt.Sprintf("%0100d", i), HasValue: true, Keep: whole,
				})
			}
			require.True(t, g.Bulky())
			g.Changes(nil)
			want := g.written(g.needed(0))
			g.Compact(0)
			size := 0
			for _, c := range g.Changes(nil) {
				size += len(c.Value)
			}
			if !tc.compacted {
				require.Equal(t, []int{held, 0}, []int{g.Len(), size})
				require.Greater(t, want, maxWritten)
				require.False(t, g.Bulky(), "it is not tried again at once")
				return
			}
			require.Equal(t, tc.needed, g.Len())
			require.Less(t, want, maxWritten)
			require.LessOrEqual(t, size, want)
			require.Greater(t, size, want*8/10)
		})
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestGroupsThatCarryAreNotCompacted: what they carry is reported in buckets
// that have fired too.
func TestGroupsThatCarryAreNotCompacted(t *testing.T) {
	g := New(eventCount(minute, 1))
	g.thresholds(1)
	for i := range int64(10) {
		g.Add(Record{EventID: fmt.Sprint(i), Time: i, Ingest: 0, Rules: 1, Carry: []byte("c")})
	}
	g.Compact(0)
	require.Equal(t, 10, g.Len())
}
