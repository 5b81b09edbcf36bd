package window

import (
	"fmt"
	"strconv"
	"testing"
)

// BenchmarkAddOwn is BenchmarkAdd for the kinds that Sigma does not have. Those that
// take events in order are advanced every 500, so that the watermark decides.
func BenchmarkAddOwn(b *testing.B) {
	for _, own := range []struct {
		name  string
		spec  Spec
		value func(i int) string
	}{
		{"absence", Spec{Kind: Absence, Rules: 2}, nil},
		{"new_value", Spec{Kind: NewValue, Rules: 1}, func(i int) string { return "value-" + strconv.Itoa(i) }},
		{"impossible_travel", Spec{Kind: Travel, Rules: 1, Extension: Extension{MaxSpeed: 900, MinDistance: 500_000}}, func(i int) string { return Place(float64(i%60), float64(i%90)) }},
		{"rate", Spec{Kind: Rate, Rules: 1, Min: MaxRecords}, nil},
		{"risk", Spec{Kind: Risk, Rules: 1, Level: MaxLevel, Min: MaxRisk}, func(i int) string {
			return (&Score{Points: 1 + int64(i%10), Tactics: 1 << (i % 14), Rule: "rule-" + strconv.Itoa(i%40), Part: strconv.Itoa(i)}).Text()
		}},
	} {
		for _, held := range []int{10, 1000, 100_000} {
			for _, disorder := range []bool{false, true} {
				b.Run(fmt.Sprintf("kind=%s/window=%d/disorder=%t", own.name, held, disorder), func(b *testing.B) {
					s := own.spec
					s.Timespan = int64(held)
					switch x := &s.Extension; s.Kind {
					case NewValue:
						x.History, x.Learn = int64(held), 1
					case Rate:
						x.Baseline, x.Learn, x.Ratio = int64(held)*20, int64(held)*10, 3000
					default:
					}
					benchmarkOwn(b, &s, own.value)
				})
			}
		}
	}
}

func benchmarkOwn(b *testing.B, spec *Spec, value func(i int) string) {
	b.Helper()
	if err := spec.Validate(); err != nil {
		b.Fatal(err)
	}
	disorder := len(b.Name()) > 4 && b.Name()[len(b.Name())-4:] == "true"
	spec.AnyAge = spec.Kind.sequential()
	g := New(spec)
	ids, values := make([]string, 1<<20), make([]string, 1000)
	for i := range ids {
		ids[i] = "event-" + strconv.Itoa(i)
	}
	for i := range values {
		if value != nil {
			values[i] = value(i)
		}
	}
	keep, scale := []byte("{}"), int64(1)
	if !spec.AnyAge { // so that the group holds about its window
		scale = spec.Reach()/spec.Timespan + 1
	}
	b.ReportAllocs()
	defer reportCPU(b)()
	for i := 0; b.Loop(); i++ {
		t := int64(i)
		if disorder && i%10 == 0 {
			t -= spec.Timespan / 20
		}
		g.Add(Record{EventID: ids[i&(1<<20-1)], Time: t, Ingest: int64(i) * scale, Rules: 1 + uint64(i)%uint64(spec.Rules), Value: values[i%1000], HasValue: true, Keep: keep})
		if i%500 == 499 {
			g.Changes(nil)
			// A tenth is late by a twentieth of a window.
			for w := int64(i)*scale - spec.Timespan/20*scale; w >= g.Next(); {
				g.Advance(w)
			}
		}
	}
}

// BenchmarkTake lets the watermark settle one event of a group in which so many wait
// for it, and brings another: of a value that is known, and of one whose alert shows
// an event that is not kept whole.
func BenchmarkTake(b *testing.B) {
	for _, kind := range []Kind{NewValue, Absence} {
		for _, waiting := range []int64{1000, 10_000, 90_000} {
			b.Run(fmt.Sprintf("kind=%d/waiting=%d", kind, waiting), func(b *testing.B) {
				spec := &Spec{Kind: kind, Timespan: 1, Lateness: waiting, Rules: 2}
				if kind == NewValue {
					spec.Rules, spec.Timespan = 1, 1000*waiting
					spec.Extension = Extension{History: 1000 * waiting, Learn: 1}
				}
				if err := spec.Validate(); err != nil {
					b.Fatal(err)
				}
				g := New(spec)
				add := func(i int64) {
					g.Add(Record{EventID: "event-" + strconv.FormatInt(i, 10), Time: i, Ingest: i, Rules: 1, Value: "value", HasValue: true, Keep: []byte("{}")})
				}
				for i := range waiting {
					add(i)
				}
				b.ReportAllocs()
				defer reportCPU(b)()
				for i := waiting; b.Loop(); i++ {
					add(i)
					for w := i + 3; w >= g.Next(); {
						g.Advance(w)
					}
					if i%500 == 0 {
						g.Changes(nil)
					}
				}
			})
		}
	}
}
