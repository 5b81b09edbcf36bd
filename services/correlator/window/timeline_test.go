package window

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestTimelineIsASlice holds a timeline to a plain slice under insertions and
// drops at the front, with chunks so small that they split and go.
func TestTimelineIsASlice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newTimeline()
		l.most = rapid.IntRange(2, 5).Draw(rt, "most")
		var model []record
		for i := range rapid.IntRange(0, 60).Draw(rt, "steps") {
			switch step := rapid.IntRange(0, 8).Draw(rt, "step"); {
			case step < 2 && len(model) > 0:
				l.shift()
				model = model[1:]
			case step == 2:
				least := rapid.Int64Range(0, 70).Draw(rt, "least")
				var want, got []string
				left := model[:0:0]
				for i, r := range model {
					if r.ingest < least {
						want = append(want, fmt.Sprint(i, r.id))
						continue
					}
					left = append(left, r)
				}
				model = left
				l.drop(least, func(i int, r *record) { got = append(got, fmt.Sprint(i, r.id)) })
				require.Equal(rt, want, got)
			default:
				r := record{time: rapid.Int64Range(0, 12).Draw(rt, "time"), id: fmt.Sprintf("%02d", rapid.IntRange(0, 99).Draw(rt, "id")), ingest: (int64(i) * 37) % 71}
				at := sort.Search(len(model), func(k int) bool { return compare(&model[k], &r) >= 0 })
				require.Equal(rt, at, l.place(&r))
				l.insert(at, r)
				model = slices.Insert(model, at, r)
			}
			requireSlice(rt, model, &l)
		}
		if rapid.Bool().Draw(rt, "refill") {
			l.fill(model)
			requireSlice(rt, model, &l)
		}
		from := rapid.IntRange(0, len(model)).Draw(rt, "from")
		to := rapid.IntRange(from, len(model)).Draw(rt, "to")
		var got []record
		for i, r := range l.each(from, to) {
			require.Equal(rt, from+len(got), i)
			got = append(got, *r)
		}
		require.True(rt, slices.Equal(model[from:to], got))
	})
}

func requireSlice(rt *rapid.T, model []record, l *timeline) {
	require.Equal(rt, len(model), l.len())
	for i := range model {
		require.Equal(rt, model[i], *l.at(i))
	}
	if len(model) > 0 {
		require.Equal(rt, model[0], *l.first())
		require.Equal(rt, model[len(model)-1], *l.latest())
	}
	least := int64(math.MaxInt64)
	for _, r := range model {
		least = min(least, r.ingest)
	}
	require.LessOrEqual(rt, l.oldest(), least)
	for t := int64(-1); t < 14; t++ {
		require.Equal(rt, sort.Search(len(model), func(k int) bool { return model[k].time >= t }), l.lower(t))
		require.Equal(rt, sort.Search(len(model), func(k int) bool { return model[k].time > t }), l.upper(t))
	}
}

// TestIDSetCounts holds the table to a map, with hashes that crowd.
func TestIDSetCounts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var s idset
		model := map[uint32]int{}
		var held []uint32
		for range rapid.IntRange(0, 200).Draw(rt, "steps") {
			if len(held) > 0 && rapid.IntRange(0, 2).Draw(rt, "remove") == 0 {
				i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
				h := held[i]
				held = slices.Delete(held, i, i+1)
				s.remove(h)
				if model[h]--; model[h] == 0 {
					delete(model, h)
				}
			} else {
				// Few homes, far apart by all other bits, and ends that wrap.
				h := rapid.SampledFrom([]uint32{1, 2, 7, 8, 15, 31, 63}).Draw(rt, "home") + rapid.Uint32Range(0, 3).Draw(rt, "high")<<20
				held = append(held, h)
				s.add(h)
				model[h]++
			}
			repeated := 0
			for _, n := range model {
				repeated += n - 1
			}
			require.Equal(rt, repeated, s.repeated)
			require.Equal(rt, len(held), s.n)
			require.Equal(rt, model, counts(&s))
		}
	})
}
