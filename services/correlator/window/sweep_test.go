package window

import (
	"math"
	"math/big"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestWindowsAreRefusedForGood holds what is known of windows without looking at them
// to what a look at all their records finds: a sweep's figures, and that no window
// that is passed over could satisfy the condition.
func TestWindowsAreRefusedForGood(t *testing.T) {
	for name, s := range map[string]Spec{
		"event_count":  {Kind: EventCount, Min: 30, Rules: 1},
		"value_count":  {Kind: ValueCount, Min: 12, Rules: 1},
		"value_sum":    {Kind: ValueSum, Bounds: [2]Bound{{GTE, "150"}}, Rules: 1},
		"risk":         {Kind: Risk, Min: 150, Rules: 1},
		"ordered_all":  {Kind: TemporalOrdered, Min: 3, Rules: 3},
		"ordered_some": {Kind: TemporalOrdered, Min: 3, Rules: 4},
		"ordered_ties": {Kind: TemporalOrdered, Min: 3, Rules: 3, StrictTies: true},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s := s
				s.Timespan = 200
				s.Shape = rapid.SampledFrom([]Shape{Sliding, Tumbling}).Draw(rt, "shape")
				if s.Kind == Risk {
					s.Shape = Sliding
				}
				require.NoError(rt, s.Validate())
				checkRefusals(rt, New(&s))
			})
		})
	}
}

func checkRefusals(rt *rapid.T, g *Group) {
	step := rapid.SampledFrom([]int64{0, 1, 3, 10}).Draw(rt, "step")
	late := rapid.SampledFrom([]int64{0, 5, 100, 500}).Draw(rt, "late")
	rare, others := rapid.Uint64Range(1, 1<<g.spec.Rules-1).Draw(rt, "rare"), rapid.SampledFrom([]int{1, 20, 60}).Draw(rt, "others")
	at, ingest := int64(0), int64(0)
	for i := range rapid.IntRange(1, 300).Draw(rt, "records") {
		at += rapid.Int64Range(0, step).Draw(rt, "apart")
		ingest += rapid.SampledFrom([]int64{0, 100, 3000, g.spec.Reach() / 8}).Draw(rt, "received")
		r := Record{EventID: strconv.Itoa(i - rapid.SampledFrom([]int{0, 0, 0, 1, 7}).Draw(rt, "again")), Time: at, Ingest: ingest, HasValue: true}
		if rapid.Bool().Draw(rt, "is late") {
			r.Time -= rapid.Int64Range(0, late).Draw(rt, "by")
		}
		r.Rules = 1
		if g.spec.Rules > 1 && rapid.IntRange(0, others).Draw(rt, "other") == 0 {
			r.Rules = rapid.SampledFrom([]uint64{rare, rare, 2}).Draw(rt, "matched")
		}
		n := rapid.IntRange(0, 14).Draw(rt, "value")
		if r.Value = strconv.Itoa(n); g.spec.Kind == Risk {
			r.Value = (&Score{Points: 1 + int64(n), Rule: r.Value, Part: "p"}).Text()
		}
		g.Add(r)
		if rapid.IntRange(0, 50).Draw(rt, "drop") == 0 {
			for w := ingest; w >= g.Next(); {
				g.Advance(w)
			}
		}
		if rapid.IntRange(0, 80).Draw(rt, "shed") == 0 && g.recs.len() > 1 {
			g.shed()
		}
		if g.recs.len() > 0 && rapid.IntRange(0, 5).Draw(rt, "look") == 0 {
			checkRefusal(rt, g, rapid.IntRange(0, g.recs.len()-1).Draw(rt, "at"))
		}
	}
}

// checkRefusal looks at the window of the record at j.
func checkRefusal(rt *rapid.T, g *Group, j int) {
	lo, hi := g.window(g.recs.at(j))
	next := g.impossible(lo, hi)
	switch {
	case next == 0:
		next = j
	case next < g.recs.len():
		next = g.firstOf(g.recs.at(next).time) // the same window
	}
	for k := j; k < min(next, g.recs.len()); k++ {
		lo, hi := g.window(g.recs.at(k))
		require.Less(rt, g.measure(g.listed(lo, hi)), g.least(), "the window of %d, passed over from %d to %d", k, j, next)
	}
	if c := g.rules.climb; c != nil {
		plain := newLadder(g.spec)
		for _, r := range g.recs.each(0, hi) {
			plain.push(r)
		}
		if next == j { // it may hold: then also by a ladder that begins with what is there, or with what has gone
			require.GreaterOrEqual(rt, c.front.top(), plain.top())
		}
		return
	}
	w := g.sweep(lo, hi)
	ids, values, sum := map[string]int{}, map[int32]int{}, new(big.Int)
	weighs := weight{}
	for _, r := range g.recs.each(lo, hi) {
		ids[r.id]++
		if values[r.value]++; g.values.numbers != nil {
			sum.Add(sum, g.values.numbers.all[r.value])
		}
		if g.values.scores != nil && values[r.value] == 1 {
			weighs.enter(&g.values.scores.all[r.value])
		}
	}
	if g.spec.Kind == EventCount {
		require.Equal(rt, ids, w.ids)
		return
	}
	require.Equal(rt, len(values), w.values.distinct)
	require.Zero(rt, sum.Cmp(&w.total))
	require.Equal(rt, weighs, w.weight)
}

// TestLaddersClimbAsEventsDo holds a ladder to the walk over all orders: exact where
// no two events have one time, and never too low where some have.
func TestLaddersClimbAsEventsDo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(rt, "rules")
		s := &Spec{Kind: TemporalOrdered, Timespan: 1000, Rules: n, Min: rapid.IntRange(1, n).Draw(rt, "least")}
		s.StrictTies = rapid.Bool().Draw(rt, "strict")
		ties := rapid.Bool().Draw(rt, "ties")
		g, l := New(s), newLadder(s)
		at := int64(0)
		var recs []*record
		for i := range rapid.IntRange(1, 12).Draw(rt, "events") {
			r := newRecord("e" + strconv.Itoa(10+i))
			r.rules = rapid.Uint64Range(1, 1<<n-1).Draw(rt, "matched")
			if at++; ties && rapid.Bool().Draw(rt, "tied") {
				at--
			}
			r.time = at
			recs = append(recs, &r)
			l.push(&r)
			// The latest start of a suffix that holds.
			latest := int64(math.MinInt64)
			for k := range recs {
				if g.ordered(recs[k:]) > 0 {
					latest = recs[k].time
				}
			}
			if !ties {
				require.Equal(rt, latest, l.top())
			}
			require.GreaterOrEqual(rt, l.top(), latest)
		}
	})
}
