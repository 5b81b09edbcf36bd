package window

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// told names what a firing's alert is of, whatever its body.
func told(f *Firing) string {
	if f.ByEvent {
		return "event " + f.EventID
	}
	return fmt.Sprint("bucket ", f.Bucket)
}

func tellAll(fired []Firing) (out []string) {
	for i := range fired {
		if f := &fired[i]; f.Signal {
			out = append(out, signalOf(f.EventID, f.Time, f.Ingest, f.Carry))
		} else {
			out = append(out, told(f))
		}
	}
	return out
}

func signalOf(id string, at, ingest int64, carry []byte) string {
	return fmt.Sprintf("signal of %s at %d, received at %d: %s", id, at, ingest, carry)
}

// TestSequencesArePure holds that what these kinds say is what their definition
// says by brute force, whatever the order, the copies and the moments at which
// the watermark comes, and whether or not a group is stored in between.
func TestSequencesArePure(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSequence(rt)
		require.NoError(rt, s.Validate())
		recs := drawSequenceRecords(rt, s)
		want := naiveSequence(s, recs)
		got := playSequence(rt, s, recs)
		require.ElementsMatch(rt, want, got, "%+v", s)
		seen[fmt.Sprint(s.Kind)] += len(want)
	})
	for _, k := range []Kind{Absence, NewValue, Travel, Rate} {
		if !testing.Short() {
			require.Positive(t, seen[fmt.Sprint(k)], "kind %d never fires: the test shows nothing", k)
		}
	}
}

// TestSequenceCases are what the property can't say: what a firing shows, and
// what the bounds do.
func TestSequenceCases(t *testing.T) {
	in := func(id string, at int64, rules uint64, value string) Record {
		return Record{EventID: id, Time: at, Ingest: at, Rules: rules, Value: value, HasValue: true, Trace: "trace of " + id, Keep: []byte("kept " + id)}
	}
	all := func(s *Spec, recs ...Record) []Firing {
		require.NoError(t, s.Validate())
		g := New(s)
		for _, r := range recs {
			g.Add(r)
		}
		var out []Firing
		for g.Next() < math.MaxInt64 {
			out = append(out, g.Advance(g.Next())...)
		}
		return out
	}
	t.Run("a trail is stopped and not started again", func(t *testing.T) {
		s := &Spec{Kind: Absence, Timespan: minute, Rules: 2}
		require.Empty(t, all(s, in("stop", 0, 1, ""), in("start", minute, 2, "")))
		f := all(s, in("stop", 0, 1, ""), in("start", minute+1, 2, ""))
		require.Len(t, f, 1)
		require.Equal(t, Firing{
			EventID: "stop", ByEvent: true, End: minute, Count: 1, Total: 1, Trace: "trace of stop", Near: []byte("kept stop"),
			Events: []Ref{{ID: "stop", Rules: 1, Keep: []byte("kept stop")}},
		}, f[0])
		require.Len(t, all(s, in("stop", 0, 1, ""), in("start", 0, 2, "")), 1, "of the same millisecond: no known order, a detection is not lost")
	})
	t.Run("nothing fires before its time, and an idle group fires", func(t *testing.T) {
		s := &Spec{Kind: Absence, Timespan: minute, Lateness: 1000, Rules: 1}
		g := New(s)
		g.Add(in("beat", 5, 1, ""))
		require.EqualValues(t, minute+1000+6, g.Next())
		require.Empty(t, g.Advance(minute+1000+5))
		require.Len(t, g.Advance(minute+1000+6), 1)
		require.True(t, g.Empty())
	})
	t.Run("a heartbeat that stopped is listed and said once", func(t *testing.T) {
		s := &Spec{Kind: Absence, Timespan: minute, Rules: 1, Extension: Extension{Forget: 10 * minute}}
		g := New(s)
		g.Add(in("beat", 0, 1, ""))
		require.Len(t, g.Advance(minute+1), 1)
		require.Empty(t, g.Advance(10*minute))
		require.Equal(t, 1, g.Len())
		require.Empty(t, g.Advance(10*minute+1))
		require.True(t, g.Empty())
	})
	t.Run("the second place shows the first", func(t *testing.T) {
		s := &Spec{Kind: Travel, Timespan: 3_600_000, Rules: 1, Extension: Extension{MaxSpeed: 900, MinDistance: 500_000}}
		f := all(s, in("sydney", 0, 1, testPlaces()[3]), in("oslo", minute, 1, testPlaces()[1]))
		require.Len(t, f, 1)
		require.Equal(t, []string{"sydney", "oslo"}, []string{f[0].Events[0].ID, f[0].Events[1].ID})
		require.InDelta(t, 15_950_000, f[0].Metres, 100_000)
		require.Empty(t, all(s, in("sydney", 0, 1, "1,2,3"), in("oslo", minute, 1, "91,0")), "places that are none")
	})
	t.Run("a rate says what it was compared with", func(t *testing.T) {
		s := &Spec{Kind: Rate, Timespan: minute, Rules: 1, Min: 2, Extension: Extension{Baseline: 4 * minute, Learn: 2 * minute, Ratio: 3000}}
		recs := []Record{in("a", 0, 1, ""), in("b", minute, 1, "")}
		for i := range 9 {
			recs = append(recs, in(fmt.Sprint("c", i), 3*minute+int64(i), 1, ""))
		}
		f := all(s, recs...)
		require.Len(t, f, 1)
		require.Equal(t, "c1", f[0].EventID, "one in two minutes: three times that is 1.5, and at least 2 are demanded")
		require.EqualValues(t, 500, f[0].Baseline)
		require.EqualValues(t, 3, f[0].Bucket)
		require.Equal(t, 2, f[0].Count)
	})
	t.Run("many triggers are told in bounded calls, whole events for the first", func(t *testing.T) {
		s := &Spec{Kind: Absence, Timespan: minute, Rules: 2}
		g := New(s)
		for i := range 250 {
			g.Add(in(fmt.Sprintf("e%03d", i), 0, 1, ""))
		}
		var sizes []int
		stored := map[string][]byte{}
		for g.Next() <= 2*minute {
			fired := g.Advance(2 * minute)
			sizes = append(sizes, len(fired))
			for _, f := range fired {
				require.NotEmpty(t, f.Near)
			}
			g = reread(t, g, s, stored)
		}
		require.Equal(t, append(slices.Repeat([]int{MaxFirings}, 15), 10), sizes)
		require.True(t, g.Empty())
	})
	t.Run("a full group lets go of the oldest and says so", func(t *testing.T) {
		g := New(&Spec{Kind: Absence, Timespan: minute, Rules: 2})
		for i := range MaxRecords + 1 {
			g.Add(Record{EventID: fmt.Sprintf("%06d", i), Time: int64(i), Ingest: int64(i), Rules: 1})
		}
		require.Equal(t, MaxRecords, g.Len())
		require.True(t, g.Overflowed())
		require.Equal(t, Lost{Shed: 1, Cut: 1}, g.Lost())
	})
	t.Run("a full history says nothing of what it does not know", func(t *testing.T) {
		s := &Spec{Kind: NewValue, Timespan: minute, Rules: 1, Extension: Extension{History: minute, Learn: 1}}
		g := New(s)
		for i := range MaxValues + 5 {
			g.Add(Record{EventID: fmt.Sprintf("%06d", i), Time: int64(i % 3), Ingest: 0, Rules: 1, Value: fmt.Sprint("=", i), HasValue: true})
			if i%1000 == 0 {
				g.Advance(g.Next())
			}
		}
		for g.Next() < 30_000 {
			g.Advance(30_000)
		}
		require.LessOrEqual(t, g.Len(), MaxValues)
	})
}

func drawSequence(rt *rapid.T) *Spec {
	s := &Spec{
		Kind: rapid.SampledFrom([]Kind{Absence, NewValue, Travel, Rate}).Draw(rt, "kind"), Timespan: 10_000, Rules: 1,
		Lateness: rapid.SampledFrom([]int64{0, 5_000, 60_000}).Draw(rt, "lateness"),
		Suppress: rapid.SampledFrom([]int64{0, 0, 20_000}).Draw(rt, "suppress"),
	}
	s.OwnLateness = rapid.Bool().Draw(rt, "own lateness")
	x := &s.Extension
	switch s.Kind {
	case Absence:
		if s.Rules = rapid.IntRange(1, 2).Draw(rt, "rules"); s.Rules == 1 {
			x.Forget = rapid.SampledFrom([]int64{0, 10_000, 30_000}).Draw(rt, "forget")
		}
	case NewValue:
		x.History = 30_000
		x.Learn = rapid.SampledFrom([]int64{1, 10_000, 30_000}).Draw(rt, "learn")
		s.Timespan = x.History
	case Travel:
		s.Timespan, x.MaxSpeed, x.MinDistance = 3_600_000, 900, 500_000
	default:
		x.Baseline, x.Ratio = 40_000, rapid.SampledFrom([]int64{1000, 1500, 3000}).Draw(rt, "ratio")
		x.Learn = rapid.SampledFrom([]int64{10_000, 20_000, 40_000}).Draw(rt, "learn")
		x.Median = rapid.Bool().Draw(rt, "median")
		s.Min = rapid.IntRange(1, 3).Draw(rt, "min")
	}
	return s
}

// testPlaces lie far from every bound.
func testPlaces() []string {
	return []string{Place(59.33, 18.07), Place(59.91, 10.75), Place(40.71, -74.01), Place(-33.87, 151.21)}
}

func drawSequenceRecords(rt *rapid.T, s *Spec) []Record {
	n := rapid.IntRange(1, 40).Draw(rt, "records")
	step := []int64{0, 0, 1, 500, 2_000, 5_000, 9_999, 10_000, 10_001, 31_000, 80_000}
	if s.Kind == Travel {
		step = []int64{0, 1_000, 600_000, 3_000_000, 3_600_000, 3_600_001, 7_000_000}
	}
	at := rapid.SampledFrom([]int64{0, -50_000, 1_700_000_000_000}).Draw(rt, "start")
	var out []Record
	for i := range n {
		at += rapid.SampledFrom(step).Draw(rt, "step")
		r := Record{EventID: fmt.Sprintf("e%02d", rapid.IntRange(0, 99).Draw(rt, "id")*100+i), Time: at, HasValue: true}
		r.Rules = uint64(rapid.IntRange(1, 1<<s.Rules-1).Draw(rt, "matched"))
		r.Value = rapid.SampledFrom([]string{"=a", "=b", "=c", "=d"}).Draw(rt, "value")
		if s.Kind == Travel {
			r.Value = rapid.SampledFrom(testPlaces()).Draw(rt, "place")
		}
		copies := rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(rt, "copies")
		for range copies {
			r.Ingest = r.Time + rapid.SampledFrom([]int64{0, 0, s.Lateness, s.Lateness + 1, -EarlyAllowance, -EarlyAllowance - 1, s.Lateness / 2}).Draw(rt, "delay")
			r.Late, r.Early = r.Ingest-r.Time > s.Lateness, r.Time-r.Ingest > EarlyAllowance
			if rapid.IntRange(0, 9).Draw(rt, "strict source") == 0 { // one that allows less than the rule
				r.Late = true
			}
			r.Keep = []byte(r.EventID)
			r.Carry = rapid.SampledFrom([][]byte{nil, []byte("x"), []byte("x"), []byte("y")}).Draw(rt, "carry")
			out = append(out, r)
		}
	}
	return rapid.Permutation(out).Draw(rt, "order")
}

// playSequence folds records and lets the watermark come as it may: never above
// the ingest time of what is still to come.
func playSequence(rt *rapid.T, s *Spec, recs []Record) []string {
	g, stored := New(s), map[string][]byte{}
	var out []string
	passed := int64(math.MinInt64 / 2)
	drain := func(rt *rapid.T, g *Group, w int64) {
		for _, f := range drain(rt, g, w) {
			require.GreaterOrEqual(rt, f.Ingest, passed-s.Lag(), "a parent may have closed by now what it is for")
			out = append(out, tellAll([]Firing{f})...)
		}
		passed = w
	}
	for i := range recs {
		g.Add(recs[i])
		if i+1 < len(recs) && rapid.Bool().Draw(rt, "advance") {
			least := int64(math.MaxInt64)
			for _, r := range recs[i+1:] {
				least = min(least, r.Ingest)
			}
			drain(rt, g, least)
		}
		if rapid.IntRange(0, 4).Draw(rt, "store") == 0 {
			g = reread(rt, g, s, stored)
		}
	}
	end := recs[0].Ingest
	for _, r := range recs {
		end = max(end, r.Ingest, r.Time)
	}
	for range 4 {
		end += rapid.SampledFrom([]int64{1, 5_000, 10_000, 40_000}).Draw(rt, "idle")
		drain(rt, g, end)
		g = reread(rt, g, s, stored)
	}
	drain(rt, g, end+2*s.LookBack()+1)
	require.True(rt, g.Empty(), "a group that is silent for all that it remembers is forgotten")
	require.EqualValues(rt, math.MaxInt64, g.Next())
	return out
}

// drain advances as long as something is due, as fold does.
func drain(rt require.TestingT, g *Group, w int64) (out []Firing) {
	for n := 0; g.Next() <= w; n++ {
		fired := g.Advance(w)
		for _, f := range fired {
			require.NotEmpty(rt, f.Near, "what the alert is made of")
			require.Equal(rt, f.Signal, len(f.Events) == 0)
			require.Equal(rt, f.Signal, len(f.Carry) > 0)
			require.Contains(rt, []string{"", f.EventID}, string(f.Keep))
		}
		out = append(out, fired...)
		require.Less(rt, n, 1000, "something stays due")
	}
	return out
}

// naiveSequence says what records add up to by the definition of each kind.
func naiveSequence(s *Spec, recs []Record) []string {
	var events []Record
	for _, r := range recs {
		inTime := r.Ingest <= r.Time+s.Lateness && r.Time <= r.Ingest+5*60_000 && (s.OwnLateness || !r.Late)
		if inTime && !slices.ContainsFunc(events, func(e Record) bool { return e.EventID == r.EventID }) {
			events = append(events, r)
		}
	}
	slices.SortFunc(events, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.EventID, b.EventID))
	})
	var found []Record // the events whose alerts there are
	var at []int64     // by which time
	for i, e := range events {
		if t, ok := naiveFires(s, events, i); ok {
			found, at = append(found, e), append(at, t)
		}
	}
	var out []string
	for i, e := range found {
		out = append(out, naiveSpoken(s, recs, e)...)
		switch {
		case s.Suppress > 0:
			out = append(out, fmt.Sprint("bucket ", int64(math.Floor(float64(at[i])/float64(s.Suppress)))))
		case s.Kind == Rate:
			out = append(out, fmt.Sprint("bucket ", int64(math.Floor(float64(at[i])/float64(s.Timespan)))))
		default:
			out = append(out, "event "+e.EventID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// naiveSpoken is the signal of an event that fires: of the copies that count and
// carry something, it is of the one that was received first.
func naiveSpoken(s *Spec, recs []Record, e Record) []string {
	var best []Record
	for _, r := range recs {
		inTime := r.Ingest <= r.Time+s.Lateness && r.Time <= r.Ingest+5*60_000 && (s.OwnLateness || !r.Late)
		if r.EventID == e.EventID && inTime && len(r.Carry) > 0 {
			best = append(best, r)
		}
	}
	if len(best) == 0 {
		return nil
	}
	slices.SortFunc(best, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Ingest, b.Ingest), cmp.Compare(string(a.Carry), string(b.Carry)))
	})
	return []string{signalOf(e.EventID, e.Time, best[0].Ingest, best[0].Carry)}
}

func naiveFires(s *Spec, events []Record, i int) (at int64, fires bool) {
	e, x := events[i], s.Extension
	switch s.Kind {
	case Absence:
		if s.Rules == 1 {
			return e.Time, i+1 == len(events) || events[i+1].Time > e.Time+s.Timespan
		}
		return e.Time, e.Rules&1 != 0 && !slices.ContainsFunc(events, func(b Record) bool {
			return b.Rules&2 != 0 && b.Time > e.Time && b.Time <= e.Time+s.Timespan
		})
	case NewValue:
		born := i
		for born > 0 && events[born].Time-events[born-1].Time <= x.History {
			born--
		}
		known := slices.ContainsFunc(events[born:i], func(o Record) bool { return o.Value == e.Value && o.Time >= e.Time-x.History })
		return e.Time, !known && e.Time-events[born].Time >= x.Learn
	case Travel:
		if i == 0 {
			return 0, false
		}
		last := events[i-1]
		km, hours := chordKM(last.Value, e.Value), float64(e.Time-last.Time)/3_600_000
		return e.Time, hours <= 1 && km >= 500 && km > 900*hours
	default:
		return e.Time, naiveRate(s, events, i)
	}
}

// chordKM is the distance by the angle between two vectors.
func chordKM(a, b string) float64 {
	vector := func(s string) (v [3]float64) {
		var lat, lon float64
		_, _ = fmt.Sscanf(s, "%f,%f", &lat, &lon)
		lat, lon = lat*math.Pi/180, lon*math.Pi/180
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	u, v := vector(a), vector(b)
	dot := u[0]*v[0] + u[1]*v[1] + u[2]*v[2]
	return 6371 * math.Acos(min(1, dot))
}

// naiveRate reports whether the event at i is the one by which its period's
// count comes to what is demanded.
func naiveRate(s *Spec, events []Record, i int) bool {
	period := func(e Record) int64 { return int64(math.Floor(float64(e.Time) / float64(s.Timespan))) }
	b, n := period(events[i]), s.Extension.Baseline/s.Timespan
	rank, counts := 0, map[int64]int64{}
	born := b
	for k := i; k >= 0 && born-period(events[k]) <= n; k-- {
		born = period(events[k])
		counts[born]++
		if born == b {
			rank++
		}
	}
	var past []int64
	for p := b - n; p < b; p++ {
		if p > born {
			past = append(past, counts[p])
		}
	}
	if int64(len(past))*s.Timespan < s.Extension.Learn {
		return false
	}
	slices.Sort(past)
	mean, k := new(big.Rat), len(past)
	for _, c := range past {
		mean.Add(mean, big.NewRat(c, int64(k)))
	}
	if s.Extension.Median {
		mean = big.NewRat(past[(k-1)/2]+past[k/2], 2)
	}
	demanded := func(count int) bool {
		return count >= s.Min && big.NewRat(int64(count), 1).Cmp(new(big.Rat).Mul(mean, big.NewRat(s.Extension.Ratio, 1000))) >= 0
	}
	return demanded(rank) && !demanded(rank-1)
}

// TestSequenceForgetsWhatItMay holds the claim of Memory: a group that knows only
// the events of so long decides on the last ones as one that has seen all.
func TestSequenceForgetsWhatItMay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSequence(rt)
		s.Suppress, s.Lateness = 0, 5_000
		recs := drawSequenceRecords(rt, s)
		last := recs[0].Time
		for _, r := range recs {
			last = max(last, r.Time)
		}
		after := func(known []Record, from int64) (out []string) {
			g := New(s)
			for _, r := range known {
				g.Add(r)
			}
			for g.Next() < math.MaxInt64 {
				for _, f := range g.Advance(g.Next()) {
					if f.Time >= from {
						out = append(out, told(&f))
					}
				}
			}
			return out
		}
		cut := last - rapid.SampledFrom([]int64{0, 10_000, 25_000}).Draw(rt, "from")
		var recent []Record
		for _, r := range recs {
			if r.Time >= cut-s.Memory() {
				recent = append(recent, r)
			}
		}
		require.Equal(rt, after(recs, cut), after(recent, cut), "%+v", s)
	})
}

// TestSequenceNotesWhatIsThere holds what a sequence notes of its events to what a
// walk over all of them finds: when it is next due, and what is kept nearest to one.
func TestSequenceNotesWhatIsThere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSequence(rt)
		g, stored := New(s), map[string][]byte{}
		at, passed := int64(0), int64(math.MinInt64)
		for i := range rapid.IntRange(1, 3*maxWhole).Draw(rt, "records") {
			at += rapid.Int64Range(0, 2_000).Draw(rt, "step")
			r := Record{EventID: fmt.Sprint("e", i), Time: at, Ingest: at, HasValue: true, Value: rapid.SampledFrom(testPlaces()).Draw(rt, "value")}
			r.Rules = uint64(rapid.IntRange(1, 1<<s.Rules-1).Draw(rt, "matched"))
			r.Carry = rapid.SampledFrom([][]byte{nil, nil, []byte("x")}).Draw(rt, "carry")
			if rapid.IntRange(0, 2).Draw(rt, "kept") == 0 {
				r.Keep = []byte(r.EventID)
			}
			g.Add(r)
			if rapid.IntRange(0, 9).Draw(rt, "copy") == 0 {
				r.Carry, r.Keep = []byte("w"), []byte("w")
				g.Add(r)
			}
			switch rapid.IntRange(0, 20).Draw(rt, "what") {
			case 0:
				g = reread(rt, g, s, stored)
			case 1:
				passed = max(passed, at-rapid.Int64Range(0, 2*s.Lateness+1).Draw(rt, "behind"))
				g.Advance(passed)
			default:
				continue
			}
			q := g.sequence
			require.Equal(rt, string(nearestKept(q, at)), string(q.near(&entry{time: at})))
			q.schedule()
			require.Equal(rt, earliest(q), q.next)
		}
	})
}

func nearestKept(q *sequence, t int64) []byte {
	keep, best := q.basis, int64(math.MaxInt64)
	for _, e := range slices.Concat(q.held, q.waiting) {
		if k, ok := q.pages.keeps[e.seq]; ok && max(e.time-t, t-e.time) < best {
			keep, best = k, max(e.time-t, t-e.time)
		}
	}
	return keep
}

func earliest(q *sequence) int64 {
	next := q.watermarkOf(q.machine.due())
	for i, e := range q.waiting {
		if next = min(next, q.wake(e)); i == maxWhole {
			next = min(next, q.watermarkOf(q.waiting[0].time+1))
		}
	}
	if q.bucket != noBucket {
		next = min(next, q.watermarkOf(q.bucketEnd()))
	}
	return next
}
