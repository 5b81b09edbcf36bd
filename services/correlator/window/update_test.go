package window

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestUpdatesArePure compares what buckets say at their close with the
// definition, in any order of arrival, with copies and repeats, late and early
// records, ticks at any time, and read from the store now and then.
func TestUpdatesArePure(t *testing.T) {
	told := 0
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSpec(rt)
		s.Updates = true
		s.AnyAge = rapid.IntRange(0, 9).Draw(rt, "any age") == 0
		recs := drawTimely(rt, s)
		want := naiveUpdates(s, recs)
		got := foldUpdates(rt, s, rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order"))
		require.Equal(rt, want, got, "spec %+v, records %+v", *s, recs)
		told += len(want)
	})
	if !testing.Short() {
		require.Greater(t, told, 30, "there was something to tell")
	}
	t.Logf("%d updates", told)
}

// final is what of an update is held against the definition.
type final struct {
	Bucket, Start, End, Time int64
	Count                    int
	Events                   []string
}

func foldUpdates(rt *rapid.T, s *Spec, order []Record) []final {
	require.NoError(rt, s.Validate())
	stored := map[string][]byte{}
	g := New(s)
	most := rapid.SampledFrom([]int{2, 3, chunkRecords}).Draw(rt, "most")
	fired, out := map[int64]bool{}, []final{}
	advance := func(w int64) {
		for again := true; again; again = g.Next() <= w && g.Next() != math.MaxInt64 {
			for _, f := range g.Advance(w) {
				require.True(rt, f.Update)
				require.True(rt, fired[f.Bucket], "bucket %d has fired before", f.Bucket)
				require.False(rt, f.AtLeast)
				require.Equal(rt, []byte("k"), f.Near)
				require.GreaterOrEqual(rt, w, f.End+1+s.Lateness, "not before its close")
				u := final{Bucket: f.Bucket, Start: f.Start, End: f.End, Time: f.Time, Count: f.Count}
				for _, e := range f.Events {
					u.Events = append(u.Events, e.ID)
				}
				require.Equal(rt, len(u.Events), f.Total)
				out = append(out, u)
			}
			if rapid.IntRange(0, 3).Draw(rt, "store amid") == 0 {
				g = reread(rt, g, s, stored)
			}
		}
	}
	for i, r := range order {
		g.recs.most = most
		w := r.Ingest
		for _, later := range order[i:] {
			w = min(w, later.Ingest)
		}
		if rapid.IntRange(0, 2).Draw(rt, "advance") == 0 && !s.AnyAge {
			advance(w)
		}
		for _, f := range g.Add(r) {
			require.False(rt, f.Update)
			fired[f.Bucket] = true
		}
		if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
			g = reread(rt, g, s, stored)
		}
	}
	advance(math.MaxInt64 / 4)
	require.True(rt, g.Empty())
	slices.SortFunc(out, func(a, b final) int { return cmp.Compare(a.Bucket, b.Bucket) })
	return out
}

// TestUpdateOfEventsThatCameBetween: of eleven events and more none is kept whole
// that came between the first five and the last five, and only such are left.
func TestUpdateOfEventsThatCameBetween(t *testing.T) {
	s := eventCount(5*minute, 3)
	s.Updates, s.Lateness = true, 30*minute
	g, stored := New(s), map[string][]byte{}
	add := func(i int, time, ingest int64) {
		g.Add(Record{EventID: fmt.Sprint(i), Time: time, Ingest: ingest, Rules: 1, Keep: []byte(fmt.Sprint(i))})
	}
	for i := range 10 {
		at := int64(i)
		if i >= 5 {
			at += minute
		}
		add(i, at, 0)
	}
	const later = 20 * minute
	for i := 10; i < 14; i++ {
		add(i, 30_000+int64(i), later)
	}
	require.Len(t, g.pages.keeps, 10)
	g.settle()
	g.drop(later)
	require.Equal(t, 4, g.recs.len())
	require.Len(t, g.pages.keeps, 1)
	f, ok := g.final(0)
	require.True(t, ok)
	require.Equal(t, 4, f.Count)
	require.NotEmpty(t, f.Near)
	g = reread(t, g, s, stored)
	g.drop(later)
	f, ok = g.final(0)
	require.True(t, ok)
	require.NotEmpty(t, f.Near, "it is stored, too")
}

// naiveUpdates applies the definition: of the records that are neither late nor
// early, in order of time and id, the first that completes the condition in a
// bucket, and all from its window's start to the bucket's end.
func naiveUpdates(s *Spec, recs []Record) []final {
	var timely []Record
	for _, r := range recs {
		late, early := r.Ingest > r.Time+s.Lateness, r.Time > r.Ingest+5*minute
		if naiveCounts(s, r) && (s.AnyAge || !late && !early) {
			timely = append(timely, r)
		}
	}
	slices.SortFunc(timely, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.EventID, b.EventID), cmp.Compare(a.Rules, b.Rules), cmp.Compare(a.Value, b.Value))
	})
	between := func(from, to int64, upTo int) (set []Record) {
		for _, r := range timely[:upTo] {
			if from <= r.Time && r.Time < to {
				set = append(set, r)
			}
		}
		return set
	}
	ids := func(set []Record) (out []string) {
		for _, r := range set {
			if !slices.Contains(out, r.EventID) {
				out = append(out, r.EventID)
			}
		}
		return out
	}
	out, seen := []final{}, map[int64]bool{}
	for i, q := range timely {
		b, start := naiveBucket(s, q.Time), q.Time-s.Timespan
		if s.Shape == Tumbling {
			start = naiveFloor(q.Time, s.Timespan) * s.Timespan
		}
		before := between(start, q.Time+1, i+1)
		if seen[b] || !naiveHolds(s, before, q) {
			continue
		}
		seen[b] = true
		end := q.Time // behind which the bucket is another
		for ; naiveBucket(s, end) == b; end++ {
			if whole := s.Timespan / 4; naiveBucket(s, end+whole) == b {
				end += whole - 1
			}
		}
		all := between(start, end, len(timely))
		if last := all[len(all)-1]; len(ids(all)) > len(ids(before)) || last.Time > q.Time {
			out = append(out, final{b, start, end - 1, last.Time, naiveCount(s, all), ids(all)})
		}
	}
	return out
}

// naiveCount is what a condition counts.
func naiveCount(s *Spec, set []Record) int {
	values, ids, rules := map[string]bool{}, map[string]bool{}, map[int]bool{}
	for _, r := range set {
		values[r.Value], ids[r.EventID] = true, true
		for i := range s.Rules {
			if r.Rules&(1<<i) != 0 {
				rules[i] = true
			}
		}
	}
	switch s.Kind {
	case ValueCount:
		return len(values)
	case Temporal:
		return len(rules)
	case TemporalOrdered:
		return New(s).asked(set)
	default:
		return len(ids)
	}
}

// asked is what a group says of a set that comes at once: of conditions over
// rules in order there is more than one right answer.
func (g *Group) asked(set []Record) int {
	var recs []*record
	for _, r := range set {
		recs = append(recs, &record{id: r.EventID, time: r.Time, ingest: r.Ingest, rules: r.Rules})
	}
	return g.measure(recs)
}

func TestUpdateSaysWhatABucketCameTo(t *testing.T) {
	s := eventCount(5*minute, 3)
	s.Updates, s.Lateness = true, 10*minute
	g := New(s)
	at := func(i int) int64 { return int64(i) * 10_000 }
	fired := 0
	for i := range 40 { // 6 min 40 s: a second bucket has 10
		fired += len(g.Add(Record{EventID: fmt.Sprintf("%03d", i), Time: at(i), Ingest: at(i), Rules: 1, Keep: []byte{byte(i)}}))
	}
	require.Equal(t, 2, fired)
	require.Equal(t, int64(15*minute), g.Next())
	require.Empty(t, g.Advance(15*minute-1))
	require.Empty(t, g.Add(Record{EventID: "late", Time: 7, Ingest: 15 * minute, Rules: 1}), "it comes too late to count")
	out := g.Advance(15 * minute)
	require.Len(t, out, 1)
	f := out[0]
	require.Equal(t, 30, f.Count)
	require.Equal(t, int64(20_000-5*minute), f.Start)
	require.Equal(t, int64(5*minute-1), f.End)
	require.Equal(t, at(29), f.Time)
	require.Equal(t, []byte{29}, f.Near)
	require.Len(t, f.Events, 30)
	out = g.Advance(20 * minute)
	require.Len(t, out, 1)
	require.Equal(t, 10+30, out[0].Count, "the window of the first in it reaches back")
	require.Empty(t, g.Advance(21*minute))
	g.Advance(60 * minute)
	require.True(t, g.Empty())
}

func TestNoUpdateWhereNothingFollowed(t *testing.T) {
	s := eventCount(5*minute, 3)
	s.Updates = true
	g := New(s)
	for i := range int64(3) {
		add(g, fmt.Sprint(i), i, i)
	}
	require.Empty(t, g.Advance(5*minute))
}

func TestUpdatesOfSuppressedBuckets(t *testing.T) {
	s := eventCount(5*minute, 3)
	s.Updates, s.Suppress = true, 24*60*minute
	g := New(s)
	n := 0
	for i := range int64(24 * 60) {
		n += len(add(g, fmt.Sprint(i), i*minute, i*minute))
		require.Empty(t, g.Advance(i*minute))
	}
	require.Equal(t, 1, n)
	out := g.Advance(24 * 60 * minute)
	require.Len(t, out, 1)
	require.Equal(t, 24*60, out[0].Count, "records are kept until the bucket closes")
}

func TestUpdateOfAHotGroupIsExact(t *testing.T) {
	s := eventCount(5*minute, 3)
	s.Updates = true
	g := New(s)
	for i := range int64(20_000) {
		g.Add(Record{EventID: fmt.Sprint(i), Time: i, Ingest: i, Rules: 1, Keep: []byte{1}})
		require.False(t, g.Bulky())
	}
	require.Less(t, len(g.pages.keeps), 2*maxKept)
	out := g.Advance(5 * minute)
	require.Len(t, out, 1)
	require.Equal(t, 20_000, out[0].Count)
	require.False(t, out[0].AtLeast)
	require.Len(t, out[0].Events, MaxRefs)
	whole := 0
	for i, e := range out[0].Events {
		require.True(t, i == 0 || out[0].Events[i-1].Time < e.Time)
		if e.Keep != nil {
			whole++
		}
	}
	require.Greater(t, whole, 30)
}

func TestOneAdvanceGivesSoManyUpdates(t *testing.T) {
	s := eventCount(minute, 1)
	s.Updates = true
	g := New(s)
	for i := range int64(100) {
		add(g, fmt.Sprint(i), i*minute/2, i*minute/2)
	}
	const w = 1000 * minute
	n := 0
	for g.Next() <= w {
		out := g.Advance(w)
		require.LessOrEqual(t, len(out), MaxFirings)
		n += len(out)
	}
	require.Equal(t, 50, n)
	require.True(t, g.Empty())
}

func TestCutBucketsTellNoUpdate(t *testing.T) {
	s := eventCount(minute, 1)
	s.Updates = true
	g := New(s)
	for i := range int64(10) {
		add(g, fmt.Sprint(i), i, i)
	}
	asked := 0
	require.Empty(t, g.AdvanceUnless(func(*Firing) bool { asked++; return true }, minute))
	require.Equal(t, 1, asked)
	require.Empty(t, g.Advance(2*minute), "it is not told later either")
}

func TestUpdatesAreOfRulesThatFireAtOnce(t *testing.T) {
	for name, s := range map[string]*Spec{
		"range":   {Kind: EventCount, Timespan: 1, Rules: 1, Bounds: [2]Bound{{LT, "3"}}, Updates: true},
		"session": {Kind: EventCount, Timespan: 2, Rules: 1, Min: 1, Shape: Session, Gap: 1, Updates: true},
		"absence": {Kind: Absence, Timespan: 2, Rules: 1, Updates: true},
	} {
		require.ErrorContains(t, s.Validate(), "updates", name)
	}
}

func BenchmarkUpdates(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := eventCount(5*minute, 3)
		s.Updates = true
		g := New(s)
		for i := range int64(MaxRecords) {
			add(g, fmt.Sprint(i), i, i)
		}
		b.StartTimer()
		if len(g.Advance(5*minute)) != 1 {
			b.Fatal("no update")
		}
	}
}
