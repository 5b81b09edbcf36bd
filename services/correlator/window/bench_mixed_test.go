package window

import (
	"fmt"
	"strconv"
	"testing"
)

// BenchmarkMixed folds one detection into one of many groups of rules of all kinds in
// turn. Their windows hold so many records, short of what fires, in order of time but
// for one in ten, which is slightly late. A group is stored, and where the watermark
// decides advanced, every 500 of its own.
func BenchmarkMixed(b *testing.B) {
	for _, held := range []int64{10, 1000, 100_000} {
		b.Run(fmt.Sprintf("window=%d", held), func(b *testing.B) {
			var groups []*Group
			for range min(12, 100_000/held) {
				for _, s := range mixedSpecs(held) {
					if err := s.Validate(); err != nil {
						b.Fatal(err)
					}
					s.AnyAge = s.Kind.sequential()
					groups = append(groups, New(&s))
				}
			}
			benchmarkMixed(b, groups, held)
		})
	}
}

func mixedSpecs(held int64) []Spec {
	specs := []Spec{
		{Kind: EventCount, Rules: 1, Min: int(min(held+held/10+8, MaxRecords))},
		{Kind: ValueCount, Rules: 1, Min: int(min(held, 1000) + 8)},
		{Kind: Temporal, Rules: 3, Min: 3},
		{Kind: TemporalOrdered, Rules: 3, Min: 3},
		{Kind: ValueSum, Rules: 1, Bounds: [2]Bound{{GTE, strconv.FormatInt(held+held/10+8, 10)}}},
		{Kind: Absence, Rules: 2},
		{Kind: NewValue, Rules: 1, Extension: Extension{History: max(held, 2000), Learn: 1}},
		{Kind: Rate, Rules: 1, Min: MaxRecords, Extension: Extension{Baseline: held * 20, Learn: held * 10, Ratio: 3000}},
	}
	for i := range specs {
		if specs[i].Timespan = held; specs[i].Kind == NewValue {
			specs[i].Timespan = specs[i].Extension.History
		}
	}
	return specs
}

func benchmarkMixed(b *testing.B, groups []*Group, held int64) {
	b.Helper()
	ids, values := make([]string, 1<<20), make([]string, 1000)
	for i := range ids {
		ids[i] = "event-" + strconv.Itoa(i)
	}
	for i := range values {
		values[i] = "value-" + strconv.Itoa(i)
	}
	keep, fired := []byte("{}"), 0
	add := func(g *Group, i int64) { // the group's i-th
		t, scale := i, int64(1)
		if i%10 == 0 {
			t -= min(5, max(held/20, 1))
		}
		value := values[i%1000]
		if g.sequence == nil { // so that the group holds about its window
			scale = g.spec.Reach()/held + 1
		}
		if g.spec.Kind == ValueSum {
			value = "1"
		}
		g.Add(Record{EventID: ids[i&(1<<20-1)], Time: t, Ingest: i * scale, Rules: 1 + uint64(i)%uint64(min(g.spec.Rules, 2)), Value: value, HasValue: true, Keep: keep})
		if i%500 == 499 || g.sequence == nil && i*scale >= g.Next() {
			for w := i*scale - 5; w >= g.Next(); {
				fired += len(g.Advance(w))
			}
		}
		if i%500 == 499 {
			g.Changes(nil)
		}
	}
	n := int64(len(groups))
	i := int64(0)
	for ; i < max(held, 1000)*n; i++ { // then all values are known
		add(groups[i%n], i/n)
	}
	b.ReportAllocs()
	defer reportCPU(b)()
	for ; b.Loop(); i++ {
		add(groups[i%n], i/n)
	}
	b.ReportMetric(float64(fired), "fired")
}
