package window

import (
	"fmt"
	"strconv"
	"testing"
)

// BenchmarkNear folds one detection into a group that is never far from firing: its
// window holds about so many records and falls short of the condition by a few.
// Events come in order of time, or half of them 5 ms late.
func BenchmarkNear(b *testing.B) {
	for _, c := range nearCases() {
		for _, held := range []int64{1000, 10_000, 80_000} {
			for _, late := range []int64{0, 5} {
				b.Run(fmt.Sprintf("%s/window=%d/late=%d", c.name, held, late), func(b *testing.B) {
					spec := c.spec(held)
					spec.Timespan = held - 1
					benchmarkNear(b, &spec, func(i int64) Record { return c.record(i, held) }, late)
				})
			}
		}
	}
}

type nearCase struct {
	name   string
	spec   func(held int64) Spec
	record func(i, held int64) Record
}

func nearCases() []nearCase {
	plain := func(i, _ int64) Record { return Record{EventID: strconv.FormatInt(i, 10), Time: i, Rules: 1} }
	// first has, of each window and with more silence before it, another first event.
	first := func(rules uint64) func(i, held int64) Record {
		return func(i, held int64) Record {
			r := Record{EventID: strconv.FormatInt(i, 10), Time: i + i/(held-8)*2*held, Rules: 1}
			if i%(held-8) == 0 { // none is so late that it comes before it
				r.Rules, r.Time = rules, r.Time-10
			}
			return r
		}
	}
	ordered := func(least, rules int) func(held int64) Spec {
		return func(int64) Spec { return Spec{Kind: TemporalOrdered, Min: least, Rules: rules} }
	}
	return []nearCase{
		{"event_count", func(held int64) Spec { return Spec{Kind: EventCount, Rules: 1, Min: int(held + 8)} }, plain},
		{"value_count", func(int64) Spec { return Spec{Kind: ValueCount, Rules: 1, Min: 103} }, func(i, held int64) Record {
			r := plain(i, held)
			r.Value, r.HasValue = strconv.FormatInt(i*100/held, 10), true
			return r
		}},
		{"value_sum", func(held int64) Spec {
			return Spec{Kind: ValueSum, Rules: 1, Bounds: [2]Bound{{GTE, strconv.FormatInt(held+8, 10)}}}
		}, func(i, held int64) Record {
			r := plain(i, held)
			r.Value, r.HasValue = "1", true
			return r
		}},
		{"copies", func(held int64) Spec { return Spec{Kind: EventCount, Rules: 1, Min: int(held/4 + 8)} }, func(i, held int64) Record {
			return plain(i/4*4, held) // each four times, received at other times
		}},
		{"few_copies", func(held int64) Spec { return Spec{Kind: EventCount, Rules: 1, Min: 60} }, func(i, held int64) Record {
			r := plain(i/held*50+i%50, held) // the same fifty again and again
			r.Time = i / held * held
			return r
		}},
		{"ordered_both", ordered(2, 2), first(3)},
		{"ordered_reverse", ordered(2, 2), first(2)},
		{"ordered_some", ordered(2, 3), first(2)},
	}
}

func benchmarkNear(b *testing.B, spec *Spec, record func(i int64) Record, late int64) {
	b.Helper()
	if err := spec.Validate(); err != nil {
		b.Fatal(err)
	}
	g := New(spec)
	scale := spec.Reach()/spec.Timespan + 1 // so that the group holds about its window
	keep, fired := []byte("{}"), 0
	add := func(i int64) {
		r := record(i)
		if r.Ingest, r.Keep = i*scale, keep; i%2 == 1 {
			r.Time -= late
		}
		fired += len(g.Add(r))
		for w := i * scale; w >= g.Next(); {
			g.Advance(w)
		}
		if i%500 == 0 {
			g.Changes(nil)
		}
	}
	i := int64(0)
	for ; i < spec.Timespan*3/2; i++ {
		add(i)
	}
	b.ReportAllocs()
	defer reportCPU(b)()
	for ; b.Loop(); i++ {
		add(i)
	}
	b.ReportMetric(float64(fired), "fired")
}
