package window

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestDecidedBucketsArePure holds what the watermark decides to the definition:
// whatever the order of arrival, the copies, the steps of the watermark and the
// times at which the state is written and read back.
func TestDecidedBucketsArePure(t *testing.T) {
	fired := 0
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawDecided(rt)
		recs := drawTimely(rt, spec)
		want := naiveDecided(spec, recs)
		order := rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order")
		got := foldDecided(rt, spec, order)
		require.Equal(rt, want, got, "spec %+v, order %+v", *spec, order)
		fired += len(want)
	})
	require.Positive(t, fired)
}

func drawDecided(rt *rapid.T) *Spec {
	s := &Spec{
		Kind:     rapid.SampledFrom([]Kind{EventCount, ValueCount, Temporal, TemporalOrdered}).Draw(rt, "kind"),
		Timespan: rapid.SampledFrom([]int64{10, 60_000, 600_000}).Draw(rt, "timespan"),
		Lateness: rapid.SampledFrom([]int64{0, 5, 30_000, 600_000}).Draw(rt, "lateness"),
		Rules:    1,
	}
	if s.temporal() {
		s.Rules = rapid.IntRange(1, 4).Draw(rt, "rules")
		s.StrictTies = s.Kind == TemporalOrdered && rapid.Bool().Draw(rt, "strict")
	}
	if rapid.Bool().Draw(rt, "suppressed") {
		s.Suppress = 3 * s.Timespan
	}
	s.Bounds[0] = Bound{Op(rapid.IntRange(int(GT), int(NEQ)).Draw(rt, "op")), strconv.Itoa(rapid.IntRange(0, 4).Draw(rt, "bound"))}
	if rapid.Bool().Draw(rt, "range") {
		s.Bounds[0].Op = GTE
		s.Bounds[1] = Bound{LT, strconv.Itoa(rapid.IntRange(1, 5).Draw(rt, "upper"))}
	}
	return s
}

// drawTimely gives records whose event times cluster where windows and buckets
// end and whose ingest times lie about where they are late or early; some are
// flagged, some have copies.
func drawTimely(rt *rapid.T, s *Spec) []Record {
	times := []int64{0, 1, s.Timespan - 1, s.Timespan, s.Timespan + 1, 2 * s.Timespan, -1, s.Timespan / 2, 3*s.Timespan + 2, 7 * s.Timespan}
	after := []int64{0, 0, 1, s.Lateness / 2, s.Lateness, s.Lateness, s.Lateness + 1, -EarlyAllowance, -EarlyAllowance - 1}
	var out []Record
	for i := range rapid.IntRange(1, 14).Draw(rt, "n") {
		r := Record{
			EventID:  fmt.Sprintf("e%02d", i),
			Time:     rapid.SampledFrom(times).Draw(rt, "time"),
			Rules:    rapid.Uint64Range(1, 1<<s.Rules-1).Draw(rt, "bits"),
			Value:    rapid.SampledFrom([]string{"a", "b", "c", "", "d"}).Draw(rt, "value"),
			HasValue: rapid.IntRange(0, 9).Draw(rt, "has") > 0,
			Late:     rapid.IntRange(0, 9).Draw(rt, "late") == 0,
			Early:    rapid.IntRange(0, 19).Draw(rt, "early") == 0,
			Trace:    rapid.SampledFrom([]string{"", "trace"}).Draw(rt, "trace"),
			Keep:     []byte("k"),
		}
		r.Ingest = r.Time + rapid.SampledFrom(after).Draw(rt, "after")
		out = append(out, r)
		for range rapid.IntRange(0, 2).Draw(rt, "copies") {
			c := r
			if rapid.IntRange(0, 3).Draw(rt, "moved") == 0 {
				c.Time = rapid.SampledFrom(times).Draw(rt, "copy time")
			}
			c.Ingest = c.Time + rapid.SampledFrom(after).Draw(rt, "copy")
			out = append(out, c)
		}
	}
	return out
}

// foldDecided runs the group as a stage does, until the watermark has passed
// everything.
func foldDecided(rt *rapid.T, s *Spec, order []Record) []int64 {
	require.NoError(rt, s.Validate())
	require.False(rt, s.AtOnce())
	stored := map[string][]byte{}
	g := New(s)
	most := rapid.SampledFrom([]int{2, 3, chunkRecords}).Draw(rt, "most")
	fired := map[int64]int{}
	advance := func(w int64) {
		for again := true; again; again = g.Next() <= w && g.Next() != math.MaxInt64 {
			list := g.Advance(w)
			require.LessOrEqual(rt, len(list), MaxFirings+1)
			for _, f := range list {
				fired[f.Bucket]++
				require.NotEmpty(rt, f.Events)
				require.Equal(rt, []byte("k"), f.Near)
			}
			if rapid.IntRange(0, 3).Draw(rt, "store amid") == 0 {
				g = reread(rt, g, s, stored)
			}
		}
	}
	for i, r := range order {
		g.recs.most = most
		if rapid.IntRange(0, 2).Draw(rt, "advance") == 0 {
			w := r.Ingest
			for _, later := range order[i:] {
				w = min(w, later.Ingest)
			}
			advance(w)
		}
		require.Empty(rt, g.Add(r))
		if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
			g = reread(rt, g, s, stored)
		}
	}
	advance(math.MaxInt64)
	require.True(rt, g.Empty())
	out := []int64{}
	for b, n := range fired {
		require.Equal(rt, 1, n, "bucket %d", b)
		out = append(out, b)
	}
	slices.Sort(out)
	return out
}

// naiveDecided applies the definition: each event that is neither late nor early,
// by all such events of its window.
func naiveDecided(s *Spec, recs []Record) []int64 {
	var timely []Record
	for _, r := range recs {
		late := r.Late || r.Ingest-r.Time > s.Lateness
		early := r.Early || r.Time-r.Ingest > EarlyAllowance
		if !late && !early && (r.HasValue || s.Kind != ValueCount) {
			timely = append(timely, r)
		}
	}
	fired := map[int64]bool{}
	for _, e := range timely {
		var set []Record
		for _, r := range timely {
			if e.Time-s.Timespan <= r.Time && r.Time <= e.Time {
				set = append(set, r)
			}
		}
		if naiveBounds(s, naiveCount(s, set)) {
			fired[s.Bucket(e.Time)] = true
		}
	}
	out := []int64{}
	for b := range fired {
		out = append(out, b)
	}
	slices.Sort(out)
	return out
}

// naiveCount is the largest threshold that the set would meet.
func naiveCount(s *Spec, set []Record) (n int) {
	atLeast := *s
	for atLeast.Min = 1; holds(&atLeast, set); atLeast.Min++ {
		n = atLeast.Min
	}
	return n
}

func naiveBounds(s *Spec, n int) bool {
	for _, b := range s.Bounds {
		if b.Op == 0 {
			continue
		}
		x, _ := strconv.Atoi(b.Number)
		if !map[Op]bool{GT: n > x, GTE: n >= x, LT: n < x, LTE: n <= x, EQ: n == x, NEQ: n != x}[b.Op] {
			return false
		}
	}
	return true
}

// TestOneAdvanceGivesSoManyFirings goes on where it has left off.
func TestOneAdvanceGivesSoManyFirings(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 1000, Rules: 1, Bounds: [2]Bound{{LT, "5"}}}
	g := New(s)
	const n = 100
	for i := range int64(n) {
		add(g, fmt.Sprint(i), i*1000, i*1000)
	}
	const w = n * 1000
	total, calls := 0, 0
	for ; g.Next() <= w; calls++ {
		fired := g.Advance(w)
		require.LessOrEqual(t, len(fired), MaxFirings)
		for _, f := range fired {
			require.EqualValues(t, total, f.Bucket)
			total++
		}
	}
	require.Equal(t, n, total)
	require.Greater(t, calls, n/MaxFirings)
}

// TestCutWindowsAreLeftUndecided asks for each event that would make a bucket
// fire, and lets the next one of the bucket.
func TestCutWindowsAreLeftUndecided(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 1000, Rules: 1, Bounds: [2]Bound{{LT, "9"}}}
	g := New(s)
	for i := range int64(20) {
		add(g, fmt.Sprintf("%02d", i), i*300, i*300)
	}
	var got []string
	for _, f := range g.AdvanceUnless(func(f *Firing) bool { return f.Start < 1200 }, 10_000) {
		got = append(got, f.EventID)
	}
	// 2.4 s is the first whose window begins late enough; the buckets before have none.
	require.Equal(t, []string{"08", "10", "14", "17"}, got)
}

// TestKeptEventsStayFew keeps no more whole than it may, and has one near.
func TestKeptEventsStayFew(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: 10_000, Lateness: 10_000, Rules: 1, Bounds: [2]Bound{{EQ, "11"}}}
	g := New(s)
	for i := range int64(2000) {
		require.Empty(t, g.Add(Record{EventID: fmt.Sprint(i), Time: i * 1000, Ingest: i * 1000, Rules: 1, Keep: fmt.Append(nil, i), Trace: fmt.Sprint("t", i)}))
		require.LessOrEqual(t, len(g.pages.keeps), maxKept)
		for _, f := range g.Advance(i * 1000) {
			require.Equal(t, "t"+f.EventID, f.Trace)
			require.NotEmpty(t, f.Near)
		}
		require.LessOrEqual(t, len(g.decider.traces), 25, "those that are not decided")
	}
}
