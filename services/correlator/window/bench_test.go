package window

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
)

// BenchmarkAdd folds one detection into a group whose window holds so many
// records, in order of time and with one in ten 2 s late.
func BenchmarkAdd(b *testing.B) {
	for _, kind := range []Kind{EventCount, ValueCount, Temporal, TemporalOrdered} {
		for _, held := range []int{10, 1000, 100_000} {
			for _, disorder := range []bool{false, true} {
				b.Run(fmt.Sprintf("kind=%d/window=%d/disorder=%t", kind, held, disorder), func(b *testing.B) {
					benchmarkAdd(b, kind, held, disorder)
				})
			}
		}
	}
}

func benchmarkAdd(b *testing.B, kind Kind, held int, disorder bool) {
	spec := &Spec{Kind: kind, Timespan: int64(held), Lateness: 0, Min: MaxRecords, Rules: 1}
	if spec.temporal() {
		spec.Rules, spec.Min = 3, 3
	}
	g := New(spec)
	ids := make([]string, 1<<20)
	for i := range ids {
		ids[i] = "event-" + strconv.Itoa(i)
	}
	values := make([]string, 1000)
	for i := range values {
		values[i] = "value-" + strconv.Itoa(i)
	}
	keep := []byte("{}")
	// Ingest is scaled so that the group holds about its window.
	scale := spec.Reach()/int64(held) + 1
	b.ReportAllocs()
	defer reportCPU(b)()
	for i := 0; b.Loop(); i++ {
		t := int64(i)
		if disorder && i%10 == 0 {
			t -= int64(held) / 20
		}
		g.Add(Record{EventID: ids[i&(1<<20-1)], Time: t, Ingest: int64(i) * scale, Rules: 1 + uint64(i)%2, Value: values[i%1000], HasValue: true, Keep: keep})
		if w := int64(i) * scale; w >= g.Next() {
			g.Advance(w)
		}
		if i%500 == 0 {
			g.Changes(nil)
		}
	}
}

// BenchmarkHot folds one detection into a group of which every bucket fires and
// whose window holds 100,000 records, as it is and compacted.
func BenchmarkHot(b *testing.B) {
	for _, compact := range []bool{false, true} {
		b.Run(fmt.Sprintf("compact=%t", compact), func(b *testing.B) {
			const timespan = 100_000
			spec := &Spec{Kind: EventCount, Timespan: timespan, Min: 60, Rules: 1}
			g := New(spec)
			b.ReportAllocs()
			defer reportCPU(b)()
			for i := int64(0); b.Loop(); i++ {
				g.Add(Record{EventID: "event-" + strconv.FormatInt(i, 10), Time: i, Ingest: i, Rules: 1})
				if i-1000 >= g.Next() {
					g.Advance(i - 1000)
				}
				if compact && g.Bulky() {
					g.Compact(i - 1000)
				}
				if i%500 == 0 {
					g.Changes(nil)
				}
			}
		})
	}
}

// BenchmarkSignals folds one detection into a busy group that others refer to,
// whose event times come in any order within a window of about so many records,
// one in a hundred repeated.
func BenchmarkSignals(b *testing.B) {
	for _, kind := range []Kind{EventCount, ValueCount, TemporalOrdered} {
		for _, held := range []int64{1000, 20_000} {
			b.Run(fmt.Sprintf("kind=%d/window=%d", kind, held), func(b *testing.B) {
				spec := &Spec{Kind: kind, Timespan: held, Lateness: held, Min: 3, Rules: 1}
				if spec.temporal() {
					spec.Rules = 3
				}
				g := New(spec)
				carry := []byte("c")
				b.ReportAllocs()
				defer reportCPU(b)()
				for i := int64(0); b.Loop(); i++ {
					n := i - i%100/99 // now and then the one before again
					t := n - n*7919%held
					g.Add(Record{EventID: "event-" + strconv.FormatInt(n, 10), Time: t, Ingest: i, Rules: 1 << (n % int64(spec.Rules)), Value: strconv.FormatInt(n%50, 10), HasValue: true, Carry: carry})
					if i >= g.Next() {
						g.Advance(i)
					}
					if i%500 == 0 {
						g.Changes(nil)
					}
				}
			})
		}
	}
}

// reportCPU adds the CPU time per operation, which a loaded machine does not
// distort as it does the time that passes.
func reportCPU(b *testing.B) func() {
	b.Helper()
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkDecide folds one detection into a group whose window holds so many
// records, and lets the watermark decide it, every 500 records.
func BenchmarkDecide(b *testing.B) {
	above := [2]Bound{{GT, "100000"}}
	for name, spec := range map[string]*Spec{
		"event_count":      {Kind: EventCount, Bounds: [2]Bound{{EQ, "100000"}}},
		"value_count":      {Kind: ValueCount, Bounds: [2]Bound{{EQ, "100000"}}},
		"temporal":         {Kind: Temporal, Expr: string([]byte{0, ExprAbsent + 1, ExprAnd})},
		"value_sum":        {Kind: ValueSum, Bounds: [2]Bound{{LT, "-1"}}},
		"value_avg":        {Kind: ValueAvg, Bounds: above},
		"value_percentile": {Kind: ValuePercentile, Percentile: "95", Bounds: above},
		"session":          {Kind: EventCount, Shape: Session, Gap: 1, Bounds: [2]Bound{{EQ, "100000"}}},
		"tumbling":         {Kind: ValueAvg, Shape: Tumbling, Bounds: above},
	} {
		for _, held := range []int{10, 1000, 100_000} {
			b.Run(fmt.Sprintf("kind=%s/window=%d", name, held), func(b *testing.B) {
				s := *spec
				s.Timespan, s.Rules = int64(held), 2
				benchmarkDecide(b, &s)
			})
		}
	}
}

func benchmarkDecide(b *testing.B, spec *Spec) {
	if err := spec.Validate(); err != nil {
		b.Fatal(err)
	}
	spec.AnyAge = true
	g := New(spec)
	ids, values := make([]string, 1<<20), make([]string, 1<<16)
	for i := range ids {
		ids[i] = "event-" + strconv.Itoa(i)
	}
	for i := range values {
		values[i] = strconv.Itoa(i*7919%65_536) + ".25"
	}
	keep := []byte("{}")
	b.ReportAllocs()
	defer reportCPU(b)()
	for i := 0; b.Loop(); i++ {
		g.Add(Record{EventID: ids[i&(1<<20-1)], Time: int64(i), Rules: 3, Value: values[i&(1<<16-1)], HasValue: true, Keep: keep})
		if i%500 == 499 {
			g.Advance(int64(i))
			g.Changes(nil)
		}
	}
}
