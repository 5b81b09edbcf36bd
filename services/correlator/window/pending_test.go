package window

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestPutOffChangesNothing folds the same records, in any order and with copies,
// into a group that is stored and one that is not, both compacted and advanced at
// times: they say the same, name and keep the same events, and hold the same.
func TestPutOffChangesNothing(t *testing.T) {
	waited := 0
	rapid.Check(t, func(rt *rapid.T) {
		s := &Spec{
			Kind:     rapid.SampledFrom([]Kind{EventCount, ValueCount, ValueSum, Temporal, TemporalOrdered}).Draw(rt, "kind"),
			Timespan: rapid.SampledFrom([]int64{10, 60_000}).Draw(rt, "timespan"),
			Shape:    rapid.SampledFrom([]Shape{Sliding, Sliding, Tumbling}).Draw(rt, "shape"),
			Min:      rapid.IntRange(1, 2).Draw(rt, "min"),
			Rules:    2,
		}
		if s.Kind == ValueSum {
			s.Min, s.Bounds = 0, [2]Bound{{GT, "3"}}
		}
		if rapid.IntRange(0, 3).Draw(rt, "suppressed") == 0 {
			s.Suppress = s.Timespan*5/2 + 1
		}
		require.NoError(rt, s.Validate())
		stored, other := New(s), New(s)
		other.Unstored()
		ids := rapid.IntRange(20, 200).Draw(rt, "ids")
		most := rapid.SampledFrom([]int64{0, 5, 2 * s.Timespan}).Draw(rt, "most")
		for i := range rapid.IntRange(20, 200).Draw(rt, "n") {
			r := Record{
				EventID: fmt.Sprintf("%04d", rapid.IntRange(0, ids).Draw(rt, "id")), Rules: rapid.Uint64Range(1, 3).Draw(rt, "rules"),
				Time: rapid.Int64Range(0, most).Draw(rt, "time"), Ingest: int64(i) / 10,
				Value: rapid.SampledFrom([]string{"1", "2", "3.5"}).Draw(rt, "value"), HasValue: true,
			}
			with := r
			r.Keep, with.Object = []byte(r.EventID), r.EventID
			if i%7 == 0 && rapid.IntRange(0, 5).Draw(rt, "compact") == 0 && s.compacts() {
				for _, g := range []*Group{stored, other} {
					g.thresholds(3)
					g.Compact(r.Ingest)
				}
			}
			if rapid.IntRange(0, 30).Draw(rt, "advance") == 0 {
				require.Equal(rt, stored.Next(), other.Next())
				stored.Advance(r.Ingest)
				other.Advance(r.Ingest)
			}
			require.Equal(rt, said(stored.Add(r)), said(other.Add(with)))
			waited = max(waited, len(other.pending.recs))
		}
		require.Equal(rt, stored.Fill(), other.Fill())
		require.Equal(rt, stored.Len(), other.Len())
		for i, r := range stored.recs.all() {
			x := other.recs.at(i)
			require.Zero(rt, compare(r, x))
			kept := other.pages.objects.at(x.seq)
			require.Equal(rt, stored.pages.keeps[r.seq] != nil, kept != nil, "of %d, the %d-th", stored.Len(), i)
		}
		require.Equal(rt, stored.fired, other.fired)
	})
	require.Greater(t, waited, 1, "some were put off")
}

// said are firings, with what is kept of events as text.
func said(firings []Firing) []Firing {
	for _, f := range firings {
		for i := range f.Events {
			e := &f.Events[i]
			if e.Keep != nil {
				e.Object = string(e.Keep)
			}
			e.Keep = nil
		}
	}
	return firings
}
