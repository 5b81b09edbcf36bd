package window

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestFullGroupsDecideWhatIsCertain holds a group without room to the definition
// that has all: it says nothing that this does not, what it does not say it has
// counted, and what no record that it let go of is in it says.
func TestFullGroupsDecideWhatIsCertain(t *testing.T) {
	full, missed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawDecided(rt)
		recs := drawTimely(rt, spec)
		for i := range recs {
			recs[i].Carry = rapid.SampledFrom([][]byte{nil, nil, []byte("x"), []byte("x"), []byte("y")}).Draw(rt, "carry")
		}
		order := rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order")
		p := &player{room: rapid.IntRange(1, 8).Draw(rt, "room"), floor: never}
		buckets, signals := p.decided(rt, spec, order)
		want, wanted := naiveDecided(spec, recs)
		if p.lost == (Lost{}) {
			require.Equal(rt, want, buckets, "spec %+v, order %+v", *spec, order)
			require.Equal(rt, wanted, signals, "spec %+v, order %+v", *spec, order)
			return
		}
		full++
		require.Subset(rt, want, buckets, "spec %+v, room %d, order %+v", *spec, p.room, order)
		require.Subset(rt, wanted, signals, "spec %+v, room %d, order %+v", *spec, p.room, order)
		require.LessOrEqual(rt, len(want)-len(buckets), p.lost.Cut, "spec %+v, room %d, order %+v", *spec, p.room, order)
		require.LessOrEqual(rt, len(wanted)-len(signals), p.lost.Cut, "spec %+v, room %d, order %+v", *spec, p.room, order)
		require.Subset(rt, buckets, beyond(spec, recs, p.floor), "spec %+v, room %d, floor %d, order %+v", *spec, p.room, p.floor, order)
		missed += len(want) - len(buckets)
	})
	require.Positive(t, full)
	require.Positive(t, missed)
}

// beyond are the buckets of events that fire, and whose windows begin later than a time.
func beyond(s *Spec, recs []Record, floor int64) (out []int64) {
	if s.Shape == Session {
		return nil
	}
	for _, e := range recs {
		start := e.Time - s.Timespan
		if s.Shape == Tumbling {
			start = naiveFloor(e.Time, s.Timespan) * s.Timespan
		}
		if start <= floor {
			continue
		}
		// Alone with what is in its window it says what it says.
		var some []Record
		for _, r := range recs {
			if r.Time >= start && (r.Time <= e.Time || s.Shape == Tumbling) {
				some = append(some, r)
			}
		}
		buckets, _ := naiveDecided(s, some)
		if s.Shape == Tumbling {
			out = append(out, buckets...)
		}
		for _, r := range some {
			_, bucket := naiveWindow(s, some, e)
			if s.Shape == Sliding && fmt.Sprint(r) == fmt.Sprint(e) && slices.Contains(naiveOf(s, some, e), bucket) {
				out = append(out, bucket)
			}
		}
	}
	return out
}

// naiveOf is the bucket that an event by itself makes fire.
func naiveOf(s *Spec, recs []Record, e Record) (out []int64) {
	if buckets, _ := naiveDecided(s, []Record{e}); len(buckets) == 0 && !timely(s, e) {
		return nil
	}
	var all []Record
	for _, r := range recs {
		if timely(s, r) {
			all = append(all, r)
		}
	}
	if set, bucket := naiveWindow(s, all, e); naiveHolds(s, set, e) {
		out = append(out, bucket)
	}
	return out
}

func timely(s *Spec, r Record) bool {
	late := r.Late && !s.OwnLateness || r.Ingest-r.Time > s.Lateness
	return !late && !r.Early && r.Time-r.Ingest <= EarlyAllowance && naiveCounts(s, r)
}

// player folds records into a group without room.
type player struct {
	room   int
	lost   Lost
	floor  int64
	g      *Group
	stored map[string][]byte
}

func (p *player) narrow() {
	p.g.room = p.room
	if p.g.sequence != nil {
		p.g.sequence.room = p.room
	}
}

func (p *player) begin(s *Spec) {
	p.g, p.stored = New(s), map[string][]byte{}
	p.narrow()
}

// note takes what was lost, and sometimes has the group written and read back.
func (p *player) note(rt *rapid.T, s *Spec) {
	l := p.g.Lost()
	p.lost.Shed += l.Shed
	p.lost.Cut += l.Cut
	if d := p.g.decider; d != nil {
		p.floor = max(p.floor, d.missing.floor)
	}
	if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
		p.g = reread(rt, p.g, s, p.stored)
		p.narrow()
	}
}

func (p *player) decided(rt *rapid.T, s *Spec, order []Record) (buckets []int64, signals []string) {
	p.begin(s)
	buckets, signals = []int64{}, []string{}
	advance := func(w int64) {
		for again := true; again; again = p.g.Next() <= w && p.g.Next() != math.MaxInt64 {
			for _, f := range p.g.Advance(w) {
				if f.Signal {
					signals = append(signals, signalOf(f.EventID, f.Time, f.Ingest, f.Carry))
					continue
				}
				require.NotContains(rt, buckets, f.Bucket)
				buckets = append(buckets, f.Bucket)
			}
			p.note(rt, s)
		}
	}
	for i, r := range order {
		if rapid.IntRange(0, 2).Draw(rt, "advance") == 0 {
			advance(leastIngest(order[i:]))
		}
		p.g.Add(r)
		require.LessOrEqual(rt, p.g.Len(), p.room+pageRecords) // what was stored may come back
		p.note(rt, s)
	}
	advance(math.MaxInt64)
	require.True(rt, p.g.Empty())
	slices.Sort(buckets)
	slices.Sort(signals)
	return buckets, signals
}

func leastIngest(recs []Record) int64 {
	least := int64(math.MaxInt64)
	for _, r := range recs {
		least = min(least, r.Ingest)
	}
	return least
}

// TestFullSequencesSayNothingFalse does so for the kinds that take events in order.
func TestFullSequencesSayNothingFalse(t *testing.T) {
	full, missed := map[Kind]int{}, 0
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSequence(rt)
		recs := drawSequenceRecords(rt, s)
		p := &player{room: rapid.IntRange(1, 8).Draw(rt, "room")}
		p.begin(s)
		var got []string
		for i, r := range recs {
			p.g.Add(r)
			p.note(rt, s)
			if w := leastIngest(recs[i+1:]); w < math.MaxInt64 && rapid.IntRange(0, 2).Draw(rt, "advance") == 0 {
				got = append(got, tellAll(drain(rt, p.g, w))...)
				p.note(rt, s)
			}
		}
		for end := recs[len(recs)-1].Ingest; p.g.Next() < math.MaxInt64; end = p.g.Next() {
			got = append(got, tellAll(drain(rt, p.g, end))...)
			p.note(rt, s)
		}
		require.True(rt, p.g.Empty())
		want, got := aloud(s, naiveSequence(s, recs)), aloud(s, got)
		if p.lost == (Lost{}) {
			require.ElementsMatch(rt, want, got, "%+v", s)
			return
		}
		full[s.Kind]++
		require.Subset(rt, want, got, "%+v, room %d", s, p.room)
		for _, kind := range []string{"signal", ""} {
			n := len(named(want, kind)) - len(named(got, kind))
			require.LessOrEqual(rt, n, p.lost.Cut, "%+v, room %d", s, p.room)
			missed += n
		}
	})
	for _, k := range []Kind{Absence, NewValue, Travel, Rate} {
		if !testing.Short() {
			require.Positive(t, full[k], "kind %d is never full", k)
		}
	}
	require.Positive(t, missed)
}

// aloud leaves out what a full group may say of another event: whose number it was
// by which a rate was reached.
func aloud(s *Spec, all []string) []string {
	if s.Kind == Rate {
		return named(all, "")
	}
	return all
}

func named(all []string, kind string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return (len(s) > 6 && s[:6] == "signal") != (kind == "signal") })
}

// TestFullGroupsFireNoMore does so for the kinds that fire at once.
func TestFullGroupsFireNoMore(t *testing.T) {
	missed := 0
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSpec(rt)
		recs := drawRecords(rt, s)
		p := &player{room: rapid.IntRange(1, 8).Draw(rt, "room")}
		p.begin(s)
		got, shed := []int64{}, 0
		for i, r := range recs {
			if rapid.IntRange(0, 3).Draw(rt, "advance") == 0 {
				p.g.Advance(leastIngest(recs[i:]))
			}
			for _, f := range p.g.Add(r) {
				got = append(got, f.Bucket)
			}
			p.note(rt, s)
			shed += p.lost.Shed
		}
		slices.Sort(got)
		got = slices.Compact(got)
		want := naive(s, recs)
		require.Subset(rt, want, got)
		if shed == 0 {
			require.Equal(rt, want, got)
		}
		missed += len(want) - len(got)
	})
	require.Positive(t, missed)
}

// steady adds an event every so many milliseconds, in order, and lets the watermark
// follow a minute behind.
func (p *player) steady(from, to, every int64) (fired []Firing) {
	for at := from; at < to; at += every {
		p.g.Add(Record{EventID: fmt.Sprintf("e%012d", at), Time: at, Ingest: at, Rules: 1, Value: "=v", HasValue: true, Keep: []byte("k")})
		fired = append(fired, p.advance(at-minute)...)
	}
	return fired
}

func (p *player) advance(w int64) (fired []Firing) {
	for p.g.Next() <= w {
		fired = append(fired, p.g.Advance(w)...)
	}
	l := p.g.Lost()
	p.lost.Shed += l.Shed
	p.lost.Cut += l.Cut
	return fired
}

// TestHeartbeatsCostFewRecords however fast they come.
func TestHeartbeatsCostFewRecords(t *testing.T) {
	s := &Spec{Kind: Absence, Timespan: 10 * minute, Lateness: 30 * minute, Rules: 1}
	p := &player{room: MaxRecords}
	p.begin(s)
	require.Empty(t, p.steady(0, 120*minute, 10))
	require.LessOrEqual(t, p.g.Len(), 10)
	p.g = reread(t, p.g, s, p.stored)
	require.LessOrEqual(t, p.g.Len(), 10, "as it is stored")
	require.LessOrEqual(t, len(p.stored), 24)
	fired := p.advance(200 * minute)
	require.Len(t, fired, 1)
	require.Equal(t, fmt.Sprintf("e%012d", 120*minute-10), fired[0].EventID)
	require.Zero(t, p.lost)

	s.Rules = 2 // and so with what is waited for
	p.begin(s)
	for at := int64(0); at < 60*minute; at += 100 {
		p.g.Add(Record{EventID: fmt.Sprint("a", at), Time: at, Ingest: at, Rules: 1})
		p.g.Add(Record{EventID: fmt.Sprint("b", at), Time: at + 50, Ingest: at + 50, Rules: 2})
	}
	require.LessOrEqual(t, p.g.Len(), 14)
}

// TestKnownValuesDoNotWait however many events show them.
func TestKnownValuesDoNotWait(t *testing.T) {
	s := &Spec{Kind: NewValue, Timespan: 600 * minute, Lateness: 30 * minute, Rules: 1, Extension: Extension{History: 600 * minute, Learn: 1}}
	p := &player{room: MaxRecords}
	p.begin(s)
	require.Empty(t, p.steady(0, 60*minute, 100))
	require.LessOrEqual(t, p.g.Len(), 3)
	require.Zero(t, p.lost)
}

// TestFullGroupsCountRates as exactly as others, of events that come in order.
func TestFullGroupsCountRates(t *testing.T) {
	s := &Spec{Kind: Rate, Timespan: 10 * minute, Lateness: 30 * minute, Rules: 1, Min: 1, Extension: Extension{Baseline: 60 * minute, Learn: 30 * minute, Ratio: 3000}}
	all, few := &player{room: MaxRecords}, &player{room: 50}
	all.begin(s)
	few.begin(s)
	var want, got []Firing
	for hour, every := range []int64{10_000, 1000, 20_000} { // a flood after an hour, and for one
		from, to := int64(hour)*60*minute, int64(hour+1)*60*minute
		want = append(want, all.steady(from, to, every)...)
		got = append(got, few.steady(from, to, every)...)
		require.LessOrEqual(t, few.g.Len(), 50+12, "and a few periods")
	}
	require.NotEmpty(t, want)
	require.Zero(t, few.lost)
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, []int64{want[i].Bucket, int64(want[i].Count), want[i].Baseline}, []int64{got[i].Bucket, int64(got[i].Count), got[i].Baseline})
	}
}

// TestFloodThenCalm decides by a window that has all of its records as soon as there
// is one again, and by none before.
func TestFloodThenCalm(t *testing.T) {
	s := &Spec{Kind: EventCount, Timespan: minute, Lateness: 30 * minute, Rules: 1, Bounds: [2]Bound{{LT, "60"}}}
	p := &player{room: 1000}
	p.begin(s)
	first := p.steady(0, minute/2, 1000)
	require.Empty(t, first)
	flood := p.steady(minute/2, 60*minute, 500)
	require.Empty(t, flood, "it has eight minutes of the half hour that it waits")
	require.Positive(t, p.lost.Shed)
	require.Positive(t, p.lost.Cut)
	calm := p.steady(60*minute, 150*minute, 5000)
	require.NotEmpty(t, calm)
	require.Equal(t, 58, calm[0].Count, "the flood ends")
	for _, f := range calm[1:] {
		require.Equal(t, 13, f.Count)
	}
	require.Less(t, calm[0].Time, int64(61*minute))
	require.False(t, p.g.Overflowed(), "no window reaches down to what has gone")

	// What is certain is said all along.
	s.Bounds = [2]Bound{{NEQ, "60"}}
	p.begin(s)
	flood = p.steady(0, 60*minute, 500)
	flood = append(flood, p.advance(200*minute)...)
	require.Len(t, flood, 8, "of the minutes that the group still has")
	require.True(t, flood[0].AtLeast)
	require.Equal(t, []bool{false, false}, []bool{flood[1].AtLeast, flood[7].AtLeast})
	s.Shape, s.Timespan, s.Gap, s.Bounds, s.Min = Session, 50*minute, minute, [2]Bound{}, 900
	p.begin(s)
	flood = p.steady(0, 60*minute, 500)
	flood = append(flood, p.advance(200*minute)...)
	require.Len(t, flood, 1)
	require.True(t, flood[0].AtLeast)
	require.EqualValues(t, 50*minute+500, flood[0].Start)
}
