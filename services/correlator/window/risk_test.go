package window

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawRisk(rt *rapid.T) *Spec {
	s := &Spec{
		Kind: Risk, Rules: 1, Level: MaxLevel,
		Timespan: rapid.SampledFrom([]int64{10, 60_000}).Draw(rt, "timespan"),
		Lateness: rapid.SampledFrom([]int64{0, 30_000}).Draw(rt, "lateness"),
		Min:      rapid.IntRange(1, 30).Draw(rt, "min"),
	}
	s.Extension.Tactics = rapid.Int64Range(0, 3).Draw(rt, "tactics")
	if rapid.Bool().Draw(rt, "suppressed") {
		s.Suppress = 3 * s.Timespan
	}
	return s
}

// drawScores gives records of few scores; some parts are scored differently by
// some of their records, and some events have several.
func drawScores(rt *rapid.T, s *Spec) []Record {
	out := drawRecords(rt, s)
	for i := range out {
		score := Score{
			Points: rapid.SampledFrom([]int64{1, 5, 5, 10, 20}).Draw(rt, "points"), Tactics: rapid.SampledFrom([]uint64{0, 1, 2, 4, 3, 1 << 63}).Draw(rt, "bits"),
			Rule: rapid.SampledFrom([]string{"a", "b", "a1"}).Draw(rt, "rule"), Part: rapid.SampledFrom([]string{"1", "2", "12"}).Draw(rt, "part"),
			Note: rapid.SampledFrom([]string{"", "n"}).Draw(rt, "note"),
		}
		out[i].Rules, out[i].Value = 1, score.Text()
		if rapid.IntRange(0, 19).Draw(rt, "no score") == 0 {
			out[i].Value = "none"
		}
	}
	return out
}

// riskOf applies the definition to a set: the greatest score of each part of each
// rule, and the tactics of all.
func riskOf(set []Record) (total int64, tactics int) {
	best, seen := map[[2]string]int64{}, uint64(0)
	for _, r := range set {
		s, ok := ParseScore(r.Value)
		if !ok || !r.HasValue {
			panic("counts what has no score")
		}
		best[[2]string{s.Rule, s.Part}] = max(best[[2]string{s.Rule, s.Part}], s.Points)
		seen |= s.Tactics
	}
	for _, points := range best {
		total += points
	}
	return total, bits.OnesCount64(seen)
}

// riskBuckets are those of events that qualify, by trying every stretch of ingest
// times.
func riskBuckets(s *Spec, recs []Record) []int64 {
	width := max(s.Timespan, s.Suppress)
	recs = slices.DeleteFunc(slices.Clone(recs), func(r Record) bool { return r.Value == "none" || !r.HasValue })
	fired := map[int64]bool{}
	for _, e := range recs {
		for _, first := range recs {
			reach := s.Timespan + s.Lateness + 5*60_000
			var set []Record
			has := false
			for _, r := range recs {
				if e.Time-s.Timespan <= r.Time && r.Time <= e.Time && first.Ingest <= r.Ingest && r.Ingest <= first.Ingest+reach {
					set = append(set, r)
					has = has || fmt.Sprint(r) == fmt.Sprint(e)
				}
			}
			if total, tactics := riskOf(set); has && total >= int64(s.Min) && tactics >= int(s.Extension.Tactics) {
				fired[naiveFloor(e.Time, width)] = true
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

// TestRiskIsPure holds a risk to the definition, whatever the order of arrival,
// copies, drops and rereads.
func TestRiskIsPure(t *testing.T) {
	fired, held := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawRisk(rt)
		recs := drawScores(rt, spec)
		want := riskBuckets(spec, recs)
		order := rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order")
		require.Equal(rt, want, fold(rt, spec, order), "spec %+v, order %+v", *spec, order)
		if len(want) > 0 {
			fired++
		} else {
			held++
		}
	})
	require.Positive(t, fired)
	require.Positive(t, held)
}

func TestRiskNamesItsParts(t *testing.T) {
	s := &Spec{Kind: Risk, Rules: 1, Timespan: minute, Min: 60}
	s.Extension.Tactics = 2
	require.NoError(t, s.Validate())
	g := New(s)
	add := func(id string, at int64, score Score) []Firing {
		return g.Add(Record{EventID: id, Time: at, Ingest: at, Rules: 1, Value: score.Text(), HasValue: true})
	}
	once := Score{Points: 20, Tactics: 1, Rule: "a", Part: "1", Note: "first"}
	require.Empty(t, add("e1", 1, once))
	require.Empty(t, add("e2", 2, once), "it scores once")
	require.Empty(t, add("e3", 3, Score{Points: 40, Tactics: 1, Rule: "a", Part: "2"}), "one tactic is too few")
	fired := add("e4", 4, Score{Points: 5, Tactics: 4, Rule: "b", Part: "1"})
	require.Len(t, fired, 1)
	f := fired[0]
	require.Equal(t, 65, f.Count)
	require.Equal(t, uint64(5), f.Tactics)
	require.Equal(t, 3, f.AllParts)
	require.Equal(t, []Part{
		{Score{40, 1, "a", "2", ""}, "e3", 3, 1}, {Score{20, 1, "a", "1", "first"}, "e1", 1, 2}, {Score{5, 4, "b", "1", ""}, "e4", 4, 1},
	}, f.Parts)
	require.Equal(t, 4, f.Total)
	score, ok := ParseScore(f.Events[2].Score)
	require.True(t, ok)
	require.Equal(t, "2", score.Part)
}

// TestRiskIsBounded folds far more than a group holds, each a score of its own,
// in one window: the newest are kept, and what is known of the others goes with
// them.
func TestRiskIsBounded(t *testing.T) {
	s := &Spec{Kind: Risk, Rules: 1, Timespan: 3_600_000, Min: MaxRisk, Level: MaxLevel}
	require.NoError(t, s.Validate())
	g, total := New(s), 3*MaxRecords+10_000
	stored := map[string][]byte{}
	for i := range total {
		score := Score{Points: 1, Tactics: 1 << (i % 64), Rule: "rule", Part: fmt.Sprint("alert-", i)}
		require.Empty(t, g.Add(Record{EventID: fmt.Sprint("e", i), Time: int64(i), Ingest: int64(i), Rules: 1, Value: score.Text(), HasValue: true, Keep: []byte("kept")}))
		if i%1000 == 0 {
			store(g, stored)
		}
	}
	store(g, stored)
	require.Equal(t, MaxRecords, g.Len())
	require.True(t, g.Overflowed())
	// What has gone is forgotten together, at the latest where it is twice as much
	// as what is left.
	most := 3*MaxRecords + 4096 + 1
	require.LessOrEqual(t, len(g.values.names), most)
	require.LessOrEqual(t, len(g.values.scores.all), most)
	require.LessOrEqual(t, len(g.values.scores.places), most)
	require.LessOrEqual(t, len(g.pages.keeps), 2*shown)
	size := 0
	for field, value := range stored {
		size += len(field) + len(value)
	}
	require.Less(t, size, 64*MaxRecords, "about 45 bytes for each of these records, and nothing of those that have gone")
	g.Advance(int64(total) + s.LookBack() + 1)
	require.True(t, g.Empty())
	store(g, stored)
	require.LessOrEqual(t, len(stored), 2, "its counters, and the page that is being filled")
}

// store applies what has changed of a group to what is stored of it.
func store(g *Group, stored map[string][]byte) {
	for _, c := range g.Changes(nil) {
		if c.Value == nil {
			delete(stored, c.Field)
		} else {
			stored[c.Field] = c.Value
		}
	}
}

func TestRiskIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"nothing":          {func(s *Spec) { s.Min = 0 }, "a total of 0"},
		"beyond all":       {func(s *Spec) { s.Min = MaxRisk + 1 }, "must be from 1 to"},
		"too many tactics": {func(s *Spec) { s.Extension.Tactics = 65 }, "65 tactics"},
		"sessions":         {func(s *Spec) { s.Shape, s.Gap = Session, 1 }, "sliding windows only"},
		"a bound":          {func(s *Spec) { s.Bounds[0] = Bound{LT, "3"} }, "sliding windows only"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Spec{Kind: Risk, Timespan: minute, Min: 100, Rules: 1, Level: MaxLevel}
			require.NoError(t, s.Validate())
			tc.change(s)
			require.ErrorContains(t, s.Validate(), tc.want)
		})
	}
	for _, text := range []string{"", "none", "\x00", (&Score{Points: MaxPoints + 1}).Text(), (&Score{Points: 1}).Text() + "x"} {
		_, ok := ParseScore(text)
		require.False(t, ok, "%q", text)
	}
}
