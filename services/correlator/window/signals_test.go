package window

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSignalsArePure holds what a group reports to the definition: whatever the
// order of arrival, drops and rereads, it reports each carrier that qualifies,
// once.
func TestSignalsArePure(t *testing.T) {
	reported := 0
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawSpec(rt)
		recs := drawRecords(rt, spec)
		for i := range recs {
			recs[i].Carry = rapid.SampledFrom([][]byte{nil, []byte("x"), []byte("x"), []byte("y")}).Draw(rt, "carry")
		}
		want := carriersOf(spec, recs)
		order := rapid.Permutation(withRepeats(rt, recs)).Draw(rt, "order")
		require.Equal(rt, want, signals(rt, spec, order), "spec %+v, order %+v", *spec, order)
		require.Equal(rt, naive(spec, recs), fold(rt, spec, order), "buckets fire as without carriers")
		reported += len(want)
	})
	require.Positive(t, reported)
}

func TestEverySignalOfABusyGroup(t *testing.T) {
	g := New(eventCount(minute, 3))
	n := 0
	for i := range int64(1000) {
		for _, f := range g.Add(Record{EventID: fmt.Sprint(i), Time: i * 500, Ingest: i * 500, Rules: 1, Carry: []byte("c"), Keep: fmt.Append(nil, i)}) {
			if f.Signal {
				n++
				require.Equal(t, fmt.Sprint(i), f.EventID)
				require.Equal(t, "c", string(f.Carry))
				require.Equal(t, fmt.Sprint(i), string(f.Keep))
			}
		}
	}
	require.Equal(t, 998, n)
}

// TestSignalsOfOneMillisecond: what lies in one millisecond is in one window, so
// that the first of it qualifies by the last.
func TestSignalsOfOneMillisecond(t *testing.T) {
	g := New(eventCount(minute, 4))
	var got []string
	for i, id := range []string{"b", "c", "d", "a"} {
		at := int64(10)
		if id == "a" {
			at = 0
		}
		for _, f := range g.Add(Record{EventID: id, Time: at, Ingest: int64(i), Rules: 1, Carry: []byte(id)}) {
			if f.Signal {
				got = append(got, f.EventID)
			}
		}
	}
	require.Equal(t, []string{"b", "c", "d"}, got)
}

// signals is fold for what is reported, a few at a time.
func signals(rt *rapid.T, s *Spec, order []Record) []string {
	stored := map[string][]byte{}
	g := New(s)
	most := rapid.SampledFrom([]int{1, 2, MaxSignals}).Draw(rt, "most")
	told := rapid.SampledFrom([]int{0, 1, maxTold}).Draw(rt, "bytes") // each of them carries one
	out := []string{}
	said := func(fired []Firing) {
		n := 0
		for _, f := range fired {
			if f.Signal {
				n++
				out = append(out, fmt.Sprintf("%s %d %d %s", f.EventID, f.Time, f.Ingest, f.Carry))
			}
		}
		require.LessOrEqual(rt, n, min(most, told+1))
		if rapid.IntRange(0, 3).Draw(rt, "store") == 0 {
			g = reread(rt, g, s, stored)
		}
	}
	for i, r := range order {
		if rapid.IntRange(0, 3).Draw(rt, "advance") == 0 {
			w := order[i].Ingest
			for _, later := range order[i:] {
				w = min(w, later.Ingest)
			}
			g.Advance(w)
		}
		g.most, g.mostTold = most, told
		for said(g.Add(r)); g.Next() == Now; said(g.Advance(Now)) {
			g.most, g.mostTold = most, told
		}
	}
	slices.Sort(out)
	return out
}

// TestManySignalsOfOneRecord come a few at a time, each once, before anything else
// is decided.
func TestManySignalsOfOneRecord(t *testing.T) {
	const n = 10_000
	g := New(eventCount(minute, n))
	var fired []Firing
	for i := range n {
		require.Empty(t, fired)
		fired = g.Add(Record{EventID: fmt.Sprint(i), Time: 5, Ingest: int64(i), Rules: 1, Carry: []byte("c")})
	}
	require.False(t, fired[0].Signal)
	seen, calls := map[string]bool{}, 0
	for fired = fired[1:]; len(fired) > 0; fired = g.Advance(10 * minute) {
		calls++
		require.LessOrEqual(t, len(fired), MaxSignals)
		for _, f := range fired {
			require.True(t, f.Signal)
			require.False(t, seen[f.EventID])
			seen[f.EventID] = true
		}
		require.Equal(t, len(seen) < n, g.Next() == Now)
	}
	require.Len(t, seen, n)
	require.Equal(t, (n+MaxSignals-1)/MaxSignals, calls)
}

// carriersOf applies the definition.
func carriersOf(s *Spec, recs []Record) []string {
	seen := map[string]bool{}
	out := []string{}
	for _, e := range recs {
		// Records that differ in what the condition sees are reported each.
		key := fmt.Sprint(e.EventID, e.Time, e.Ingest, e.Rules, string(e.Carry))
		if s.Kind == ValueCount {
			key += e.Value
		}
		if x, ok := naiveNumber(e.Value); ok && s.Kind == ValueSum {
			key += x.RatString()
		}
		if len(e.Carry) == 0 || seen[key] || !naiveCounts(s, e) {
			continue
		}
		for _, first := range recs {
			var set []Record
			within := false
			for _, r := range recs {
				inTime := e.Time-s.Timespan <= r.Time && r.Time <= e.Time
				inReach := first.Ingest <= r.Ingest && r.Ingest <= first.Ingest+s.Reach()
				if s.Shape == Tumbling {
					inTime = naiveFloor(r.Time, s.Timespan) == naiveFloor(e.Time, s.Timespan)
				}
				if inTime && inReach && naiveCounts(s, r) {
					set = append(set, r)
					within = within || fmt.Sprint(r) == fmt.Sprint(e)
				}
			}
			if within && naiveHolds(s, set, e) {
				seen[key] = true
				out = append(out, fmt.Sprintf("%s %d %d %s", e.EventID, e.Time, e.Ingest, e.Carry))
				break
			}
		}
	}
	slices.Sort(out)
	return out
}
