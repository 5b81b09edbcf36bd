package window

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const minute = 60_000

func eventCount(timespan int64, n int) *Spec {
	return &Spec{Kind: EventCount, Timespan: timespan, Min: n, Rules: 1}
}

func add(g *Group, id string, t, ingest int64) []Firing {
	return g.Add(Record{EventID: id, Time: t, Ingest: ingest, Rules: 1})
}

func TestOldEventAfterNewOnesFiresNothing(t *testing.T) {
	g := New(eventCount(minute, 3))
	require.Empty(t, add(g, "a", 100_000, 100_000))
	require.Empty(t, add(g, "b", 100_001, 100_001))
	require.Empty(t, add(g, "c", 10, 100_002))
}

func TestEveryOrderFires(t *testing.T) {
	base := int64(12 * 60 * minute)
	times := map[string]int64{"late": base + 10*minute, "a": base + minute, "b": base + minute + 10_000, "c": base + minute + 20_000}
	n := 0
	for order := range permutations([]string{"a", "b", "c", "late"}) {
		g := New(eventCount(minute, 3))
		var fired []Firing
		for i, id := range order {
			fired = append(fired, add(g, id, times[id], base+int64(i))...)
		}
		require.Len(t, fired, 1, "order %v", order)
		require.Equal(t, "c", fired[0].EventID)
		require.Equal(t, 3, fired[0].Count)
		n++
	}
	require.Equal(t, 24, n)
}

func TestOldFilesPostedTodayFire(t *testing.T) {
	const in2023, today = 1_690_000_000_000, 1_790_000_000_000
	g := New(eventCount(5*minute, 3))
	require.Empty(t, add(g, "a", in2023, today))
	require.Empty(t, add(g, "b", in2023+1000, today+5))
	require.Len(t, add(g, "c", in2023+2000, today+9), 1)
}

func TestIngestTimesTooFarApartDoNotQualify(t *testing.T) {
	s := eventCount(minute, 2)
	g := New(s)
	require.Empty(t, add(g, "a", 0, 0))
	require.Empty(t, add(g, "b", 0, s.Reach()+1))
	require.Len(t, add(g, "c", 0, s.Reach()), 1, "c lies within reach of both")
}

func TestBothEndsOfTheWindowAreIn(t *testing.T) {
	g := New(eventCount(minute, 2))
	require.Empty(t, add(g, "a", 0, 0))
	require.Len(t, add(g, "b", minute, minute), 1)
	g = New(eventCount(minute, 2))
	require.Empty(t, add(g, "a", 0, 0))
	require.Empty(t, add(g, "b", minute+1, minute+1))
}

func TestRedeliveryCountsOnce(t *testing.T) {
	g := New(eventCount(minute, 2))
	for range 5 {
		require.Empty(t, add(g, "a", 1, 1))
	}
	require.Empty(t, add(g, "a", 1, 7), "a copy with its own ingest time")
	require.Equal(t, 2, g.Len())
	require.Len(t, add(g, "b", 1, 7), 1)
}

func TestOneFiringABucket(t *testing.T) {
	g := New(eventCount(minute, 3))
	fired := map[int64]int{}
	for i := range int64(1000) {
		for _, f := range add(g, fmt.Sprint(i), i*500, i*500) {
			fired[f.Bucket]++
			require.Equal(t, f.Bucket, f.Time/minute)
		}
	}
	require.Len(t, fired, 9)
	for b, n := range fired {
		require.Equal(t, 1, n, "bucket %d", b)
	}
}

func TestSuppressWidensTheBucket(t *testing.T) {
	s := eventCount(minute, 3)
	s.Suppress = 60 * minute
	g := New(s)
	var fired []Firing
	for i := range int64(1000) {
		fired = append(fired, add(g, fmt.Sprint(i), i*500, i*500)...)
	}
	require.Len(t, fired, 1)
}

func TestOrdered(t *testing.T) {
	type ev struct {
		t     int64
		rules uint64
	}
	for name, tc := range map[string]struct {
		rules, min int
		strict     bool
		events     []ev
		want       int
	}{
		"in order":                           {2, 2, false, []ev{{1, 1}, {2, 2}}, 1},
		"200 ms then 700 ms, the other way":  {2, 2, false, []ev{{200, 2}, {700, 1}}, 0},
		"tie counts":                         {2, 2, false, []ev{{1, 2}, {1, 1}}, 1},
		"tie strict":                         {2, 2, true, []ev{{1, 2}, {1, 1}}, 0},
		"one event is not two":               {2, 2, false, []ev{{1, 3}}, 0},
		"two events that match both":         {2, 2, false, []ev{{1, 3}, {2, 3}}, 1},
		"tie needs a matching":               {3, 3, false, []ev{{1, 3}, {1, 1}, {1, 4}}, 1},
		"tie without a matching":             {3, 3, false, []ev{{1, 3}, {1, 4}, {1, 4}}, 0},
		"the last completes":                 {3, 3, false, []ev{{1, 1}, {2, 4}, {3, 2}, {4, 4}}, 1},
		"two of three in order":              {3, 2, false, []ev{{1, 1}, {2, 4}}, 1},
		"two of three, none in order":        {3, 2, false, []ev{{1, 4}, {2, 1}}, 0},
		"repeats do not help":                {2, 2, false, []ev{{1, 2}, {2, 2}, {3, 1}}, 0},
		"arrival is not order (late first)":  {2, 2, false, []ev{{9, 2}, {3, 1}}, 1},
		"a later stranger qualifies as well": {2, 2, false, []ev{{1, 1}, {2, 2}, {minute - 1, 2}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Spec{Kind: TemporalOrdered, Timespan: minute, Min: tc.min, Rules: tc.rules, StrictTies: tc.strict}
			require.NoError(t, s.Validate())
			g := New(s)
			got := 0
			for i, e := range tc.events {
				got += len(g.Add(Record{EventID: fmt.Sprint(i), Time: e.t, Ingest: int64(i), Rules: e.rules}))
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestFiringNamesItsEvents(t *testing.T) {
	g := New(eventCount(minute, 200))
	var fired []Firing
	for i := range int64(200) {
		fired = append(fired, g.Add(Record{EventID: fmt.Sprintf("%03d", i), Time: i, Ingest: i, Rules: 1, Keep: fmt.Append(nil, i)})...)
	}
	require.Len(t, fired, 1)
	f := fired[0]
	require.Equal(t, 200, f.Count)
	require.Equal(t, 200, f.Total)
	require.Len(t, f.Events, MaxRefs)
	var whole []string
	for _, e := range f.Events {
		if e.Keep != nil {
			whole = append(whole, string(e.Keep))
		}
	}
	require.Equal(t, []string{"0", "1", "2", "3", "4", "195", "196", "197", "198", "199"}, whole)
}

func TestFullGroupSaysAtLeast(t *testing.T) {
	g := New(eventCount(minute, MaxRecords))
	fired := 0
	for i := range int64(MaxRecords + 10) {
		fired += len(add(g, fmt.Sprint(i), i/1000, i))
	}
	require.Equal(t, 1, fired)
	require.True(t, g.Overflowed())
	require.Equal(t, MaxRecords, g.Len())
}

// TestShedIsReindex holds what is kept up to date at each drop of the first
// record to what a rebuild from the records gives.
func TestShedIsReindex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawSpec(rt)
		g := New(spec)
		g.recs.most = rapid.SampledFrom([]int{2, 3, chunkRecords}).Draw(rt, "most")
		for _, r := range withRepeats(rt, drawRecords(rt, spec)) {
			g.Add(r)
		}
		for g.recs.len() > 0 && rapid.IntRange(0, 5).Draw(rt, "more") > 0 {
			g.shed()
		}
		ids, repeated, distinct, inFront, front := counts(&g.ids), g.ids.repeated, g.values.total.distinct, g.values.front.distinct, g.front
		times := make([][]int64, len(g.rules.times))
		for i := range times {
			times[i] = slices.Clone(g.rules.times[i])
		}
		g.ids = idset{}
		for _, r := range g.recs.all() {
			g.ids.add(r.hash)
		}
		g.reindex()
		require.Equal(rt, counts(&g.ids), ids)
		require.Equal(rt, []int{g.ids.repeated, g.values.total.distinct, g.values.front.distinct, g.front}, []int{repeated, distinct, inFront, front})
		for i := range times {
			require.True(rt, slices.Equal(times[i], g.rules.times[i]))
		}
	})
}

// counts is what an idset holds.
func counts(s *idset) map[uint32]int {
	out := map[uint32]int{}
	for _, h := range s.slots {
		if h != 0 {
			out[h]++
		}
	}
	return out
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"no kind":           {func(s *Spec) { s.Kind = 0 }, "unknown kind"},
		"no timespan":       {func(s *Spec) { s.Timespan = 0 }, "timespan"},
		"ages":              {func(s *Spec) { s.Timespan = 1 << 60 }, "timespan"},
		"negative lateness": {func(s *Spec) { s.Lateness = -1 }, "lateness"},
		"short suppress":    {func(s *Spec) { s.Suppress = 1 }, "suppress"},
		"zero":              {func(s *Spec) { s.Min = 0 }, "absence"},
		"more than kept":    {func(s *Spec) { s.Min = MaxRecords + 1 }, "keeps"},
		"too many rules":    {func(s *Spec) { s.Rules = 65 }, "rules"},
		"out of reach":      {func(s *Spec) { s.Kind, s.Min = Temporal, 2 }, "can't be reached"},
		"too many ways":     {func(s *Spec) { s.Kind, s.Min, s.Rules = TemporalOrdered, 10, 30 }, "ways"},
	} {
		t.Run(name, func(t *testing.T) {
			s := eventCount(minute, 3)
			require.NoError(t, s.Validate())
			tc.change(s)
			require.ErrorContains(t, s.Validate(), tc.want)
		})
	}
}

func TestBucketFloorsBelowZero(t *testing.T) {
	s := eventCount(minute, 1)
	require.Equal(t, []int64{-2, -1, -1, 0, 0, 1},
		[]int64{s.Bucket(-minute - 1), s.Bucket(-minute), s.Bucket(-1), s.Bucket(0), s.Bucket(minute - 1), s.Bucket(minute)})
}

// TestBucketsArePure holds the folded group to the definition: whatever the
// order of arrival, however often a record comes again, whenever the watermark
// drops what it may and the state is written and read back, the buckets that
// fire are those in which an event qualifies.
func TestBucketsArePure(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawSpec(rt)
		recs := drawRecords(rt, spec)
		want := naive(spec, recs)
		order := rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order")
		got := fold(rt, spec, order)
		require.Equal(rt, want, got, "spec %+v, order %+v", *spec, order)
	})
}

func drawSpec(rt *rapid.T) *Spec {
	s := &Spec{
		Kind:     rapid.SampledFrom([]Kind{EventCount, ValueCount, Temporal, TemporalOrdered, ValueSum}).Draw(rt, "kind"),
		Timespan: rapid.SampledFrom([]int64{10, 60_000, 600_000}).Draw(rt, "timespan"),
		Lateness: rapid.SampledFrom([]int64{0, 30_000, 600_000}).Draw(rt, "lateness"),
		Shape:    rapid.SampledFrom([]Shape{Sliding, Sliding, Tumbling}).Draw(rt, "shape"),
		Rules:    1,
	}
	if s.temporal() && rapid.Bool().Draw(rt, "expression") {
		s.Rules = rapid.IntRange(1, 4).Draw(rt, "rules")
		s.StrictTies = rapid.Bool().Draw(rt, "strict")
		s.Expr = drawExpr(rt, s.Rules, 3, false)
	} else if s.Kind == ValueSum {
		s.Bounds[0] = Bound{rapid.SampledFrom([]Op{GT, GTE}).Draw(rt, "op"), rapid.SampledFrom([]string{"0.3", "1", "3.5", "-1"}).Draw(rt, "bound")}
	} else if s.temporal() {
		s.Rules = rapid.IntRange(1, 4).Draw(rt, "rules")
		s.Min = rapid.IntRange(1, s.Rules).Draw(rt, "min")
		s.StrictTies = rapid.Bool().Draw(rt, "strict")
	} else {
		s.Min = rapid.IntRange(1, 4).Draw(rt, "min")
	}
	if rapid.Bool().Draw(rt, "suppressed") {
		s.Suppress = 3 * s.Timespan
	}
	return s
}

// drawExpr gives a program over rules.
func drawExpr(rt *rapid.T, rules, depth int, absent bool) string {
	switch n := rapid.IntRange(0, 3).Draw(rt, "node"); {
	case depth > 0 && n < 2:
		return drawExpr(rt, rules, depth-1, absent) + drawExpr(rt, rules, depth-1, absent) + string([]byte{byte(ExprAnd + n)})
	case absent && n == 2:
		return string([]byte{byte(ExprAbsent + rapid.IntRange(0, rules-1).Draw(rt, "not"))})
	default:
		return string([]byte{byte(rapid.IntRange(0, rules-1).Draw(rt, "rule"))})
	}
}

// someNumbers are texts of numbers, equal ones in several forms, and of none.
func someNumbers() []string {
	return []string{"0.1", "0.2", "1", "1.0", "1e0", "-2", "3.5", "0", "abc", "", "1e-39", "0.1000000000000000000000000001"}
}

// drawRecords gives records whose times cluster where windows, reaches and
// buckets end; some ids have copies with other ingest times, and for the kinds
// that only count also with other event times.
func drawRecords(rt *rapid.T, s *Spec) []Record {
	n := rapid.IntRange(1, 14).Draw(rt, "n")
	times := []int64{0, 1, s.Timespan - 1, s.Timespan, s.Timespan + 1, 2 * s.Timespan, -1, s.Timespan / 2}
	ingests := []int64{0, 1, s.Reach() - 1, s.Reach(), s.Reach() + 1, s.Reach() / 2, 2 * s.Reach(), 3 * s.Reach()}
	var out []Record
	for i := range n {
		r := Record{
			EventID:  fmt.Sprintf("e%02d", i),
			Time:     rapid.SampledFrom(times).Draw(rt, "time"),
			Ingest:   rapid.SampledFrom(ingests).Draw(rt, "ingest"),
			Rules:    rapid.Uint64Range(1, 1<<s.Rules-1).Draw(rt, "bits"),
			Value:    rapid.SampledFrom([]string{"a", "b", "c", "", "d"}).Draw(rt, "value"),
			HasValue: rapid.IntRange(0, 9).Draw(rt, "has") > 0,
		}
		if s.measures() {
			r.Value = rapid.SampledFrom(someNumbers()).Draw(rt, "number")
		}
		out = append(out, r)
		for range rapid.IntRange(0, 3).Draw(rt, "copies") {
			c := r
			if s.measures() && rapid.IntRange(0, 3).Draw(rt, "other") == 0 {
				c.Value = rapid.SampledFrom(someNumbers()).Draw(rt, "number")
			}
			c.Ingest = rapid.SampledFrom(ingests).Draw(rt, "copy")
			if s.Kind != TemporalOrdered && rapid.IntRange(0, 3).Draw(rt, "moved") == 0 {
				c.Time = rapid.SampledFrom(times).Draw(rt, "copy time")
			}
			out = append(out, c)
		}
	}
	return out
}

func withRepeats(rt *rapid.T, recs []Record) []Record {
	out := slices.Clone(recs)
	for range rapid.IntRange(0, 5).Draw(rt, "repeats") {
		out = append(out, rapid.SampledFrom(recs).Draw(rt, "repeat"))
	}
	return out
}

// fold runs the group as a stage does: the watermark before a record is at most
// the least ingest time still to come.
func fold(rt *rapid.T, s *Spec, order []Record) []int64 {
	require.NoError(rt, s.Validate())
	stored := map[string][]byte{}
	g := New(s)
	most := rapid.SampledFrom([]int{2, 3, chunkRecords}).Draw(rt, "most")
	fired := map[int64]int{}
	for i, r := range order {
		g.recs.most = most // so that few records fill chunks
		if rapid.IntRange(0, 3).Draw(rt, "advance") == 0 {
			w := order[i].Ingest
			for _, later := range order[i:] {
				w = min(w, later.Ingest)
			}
			g.Advance(w)
		}
		for _, f := range g.Add(r) {
			if f.Signal {
				continue
			}
			fired[f.Bucket]++
			require.Equal(rt, s.Bucket(f.Time), f.Bucket)
			require.GreaterOrEqual(rt, f.Count, max(s.Min, 1))
			require.NotEmpty(rt, f.Events)
		}
		if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
			g = reread(rt, g, s, stored)
		}
	}
	out := []int64{}
	for b := range fired {
		out = append(out, b)
	}
	slices.Sort(out)
	return out
}

func reread(rt require.TestingT, g *Group, s *Spec, stored map[string][]byte) *Group {
	for _, c := range g.Changes(nil) {
		if c.Value == nil {
			delete(stored, c.Field)
			continue
		}
		stored[c.Field] = c.Value
	}
	fields := make([]Change, 0, len(stored))
	for f, v := range stored {
		fields = append(fields, Change{Field: f, Value: v})
	}
	g, err := Decode(s, fields)
	require.NoError(rt, err)
	return g
}

// naive applies the definition: every event, every stretch of ingest times.
func naive(s *Spec, recs []Record) []int64 {
	fired := map[int64]bool{}
	for _, e := range recs {
		if !naiveCounts(s, e) {
			continue
		}
		for _, first := range recs {
			var set []Record
			for _, r := range recs {
				inTime := e.Time-s.Timespan <= r.Time && r.Time <= e.Time
				if s.Shape == Tumbling {
					inTime = naiveFloor(r.Time, s.Timespan) == naiveFloor(e.Time, s.Timespan)
				}
				inReach := first.Ingest <= r.Ingest && r.Ingest <= first.Ingest+s.Reach()
				if inTime && inReach && naiveCounts(s, r) {
					set = append(set, r)
				}
			}
			if slices.Contains(set2(set), fmt.Sprint(e)) && naiveHolds(s, set, e) {
				fired[naiveBucket(s, e.Time)] = true
			}
		}
	}
	out := []int64{}
	for b := range fired {
		out = append(out, b)
	}
	slices.Sort(out)
	return out
}

func set2(recs []Record) []string {
	var out []string
	for _, r := range recs {
		out = append(out, fmt.Sprint(r))
	}
	return out
}

func holds(s *Spec, set []Record) bool {
	ids, values, rules := map[string]bool{}, map[string]bool{}, map[int]bool{}
	for _, r := range set {
		ids[r.EventID], values[r.Value] = true, true
		for i := range s.Rules {
			if r.Rules&(1<<i) != 0 {
				rules[i] = true
			}
		}
	}
	switch s.Kind {
	case EventCount:
		return len(ids) >= s.Min
	case ValueCount:
		return len(values) >= s.Min
	case Temporal:
		return len(rules) >= s.Min
	default:
		return chain(s, set, map[string]bool{}, -1, 0, 0)
	}
}

// chain looks for Min rules in listed order by trying everything.
func chain(s *Spec, set []Record, used map[string]bool, lastTime int64, rule, n int) bool {
	if n == s.Min {
		return true
	}
	for i := rule; i < s.Rules; i++ {
		for _, r := range set {
			ordered := n == 0 || r.Time > lastTime || (r.Time == lastTime && !s.StrictTies)
			if used[r.EventID] || r.Rules&(1<<i) == 0 || !ordered {
				continue
			}
			used[r.EventID] = true
			ok := chain(s, set, used, r.Time, i+1, n+1)
			delete(used, r.EventID)
			if ok {
				return true
			}
		}
	}
	return false
}

func permutations(in []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		var rec func(k int) bool
		rec = func(k int) bool {
			if k == len(in) {
				return yield(in)
			}
			for i := k; i < len(in); i++ {
				in[k], in[i] = in[i], in[k]
				ok := rec(k + 1)
				in[k], in[i] = in[i], in[k]
				if !ok {
					return false
				}
			}
			return true
		}
		rec(0)
	}
}

func FuzzDecode(f *testing.F) {
	specs := []*Spec{
		eventCount(minute, 2),
		{Kind: ValueCount, Timespan: minute, Min: 2, Rules: 1},
		{Kind: Temporal, Timespan: minute, Min: 2, Rules: 2},
		{Kind: TemporalOrdered, Timespan: minute, Min: 2, Rules: 3},
	}
	for kind, s := range specs {
		g := New(s)
		g.Add(Record{EventID: "a", Time: 1, Ingest: 2, Rules: 1, Value: "v", HasValue: true, Keep: []byte("x")})
		for _, c := range g.Changes(nil) {
			if c.Field == "p0" {
				f.Add(byte(kind), g.appendMeta(nil), c.Value, "k0")
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, meta, page []byte, field string) {
		s := specs[int(kind)%len(specs)]
		g, err := Decode(s, []Change{{Field: "m", Value: meta}, {Field: "p0", Value: page}, {Field: field, Value: page}})
		if err != nil {
			return
		}
		g.Advance(0)
		g.Add(Record{EventID: "z", Time: 5, Ingest: 5, Rules: 1, Value: "w", HasValue: true})
		g.Changes(nil)
		g.Advance(1 << 50)
	})
}

func FuzzDecodeSequence(f *testing.F) {
	specs := []*Spec{
		{Kind: Absence, Timespan: minute, Rules: 2},
		{Kind: Absence, Timespan: minute, Rules: 1},
		{Kind: NewValue, Timespan: minute, Rules: 1, Extension: Extension{History: minute, Learn: 1}},
		{Kind: Travel, Timespan: minute, Rules: 1, Extension: Extension{MaxSpeed: 900, MinDistance: 1}},
		{Kind: Rate, Timespan: minute, Rules: 1, Min: 1, Extension: Extension{Baseline: 2 * minute, Learn: minute, Ratio: 1000}},
	}
	for kind, s := range specs {
		g := New(s)
		for i := range 3 {
			g.Add(Record{EventID: fmt.Sprint(i), Time: int64(i), Ingest: 2, Rules: 1, Value: "1,1", HasValue: true, Keep: []byte("x")})
		}
		g.Advance(2)
		fields := map[string][]byte{}
		for _, c := range g.Changes(nil) {
			fields[c.Field] = c.Value
		}
		for field, value := range fields {
			f.Add(byte(kind), fields["m"], fields["p0"], fields["sh"], field, value)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, meta, page, held []byte, field string, value []byte) {
		s := specs[int(kind)%len(specs)]
		g, err := Decode(s, []Change{{Field: "m", Value: meta}, {Field: "p0", Value: page}, {Field: "sh", Value: held}, {Field: field, Value: value}})
		if err != nil {
			return
		}
		g.Advance(0)
		g.Add(Record{EventID: "z", Time: 5, Ingest: 5, Rules: 1, Value: "2,2", HasValue: true})
		g.Changes(nil)
		g.Advance(1 << 50)
	})
}

// TestCopiesAreFew holds that a group knows of an event, however often and in
// whatever order it comes, few copies, and yet in which stretches of ingest times it
// has come.
func TestCopiesAreFew(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &Spec{Kind: EventCount, Timespan: 1000, Min: 2, Rules: 1}
		g, stored, reach := New(s), map[string][]byte{}, s.Reach()
		var all []int64
		span := rapid.SampledFrom([]int64{10, reach, 5 * reach}).Draw(rt, "span")
		for range rapid.IntRange(1, 60).Draw(rt, "copies") {
			all = append(all, rapid.Int64Range(0, span).Draw(rt, "ingest"))
			g.Add(Record{EventID: "e", Time: 0, Ingest: all[len(all)-1], Rules: 1, Keep: []byte("e")})
		}
		require.LessOrEqual(rt, int64(g.Len()), 2+3*(span/reach), "%v", all)
		if rapid.Bool().Draw(rt, "store") {
			g = reread(rt, g, s, stored)
		}
		for _, x := range all {
			for _, from := range []int64{x, x - reach} {
				in := func(ingest int64) bool { return from <= ingest && ingest <= from+reach }
				require.Equal(rt, slices.ContainsFunc(all, in), slices.ContainsFunc(g.listed(0, g.recs.len()), func(r *record) bool { return in(r.ingest) }))
			}
		}
		f := g.Add(Record{EventID: "other", Time: 0, Ingest: all[0], Rules: 1})
		require.Len(rt, f, 1)
		require.Equal(rt, []byte("e"), f[0].Events[0].Keep)
	})
}
