package sigma_test

import (
	"testing"

	"github.com/stormbell/stormbell/services/sigma"
)

var cloudTrailSource = sigma.LogSource{Product: "aws", Service: "cloudtrail"}

func benchmark(b *testing.B, set *sigma.Set, events [][]byte, src sigma.LogSource, strict bool) {
	b.Helper()
	m := set.Matcher()
	var dst []*sigma.Rule
	size := int64(0)
	for _, raw := range events { // programs and buffers take their size
		dst = m.Match(sigma.Event{Raw: raw, LogSource: src, Strict: strict}, dst[:0])
		size += int64(len(raw))
	}
	b.SetBytes(size / int64(len(events)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		dst = m.Match(sigma.Event{Raw: events[i], LogSource: src, Strict: strict}, dst[:0])
		if i++; i == len(events) {
			i = 0
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkCloudTrail(b *testing.B) {
	events := cloudTrail(b, corpora(b, "invictus-cloudtrail"), corpora(b, "stratus"))
	b.Run("aws rules", func(b *testing.B) {
		set, _ := load(b, corpora(b, "sigmahq", "rules", "cloud", "aws"))
		benchmark(b, set, events, cloudTrailSource, true)
	})
	all, _ := load(b, corpora(b, "sigmahq", "rules"))
	b.Run("all rules", func(b *testing.B) { benchmark(b, all, events, cloudTrailSource, true) })
	b.Run("all rules, not routed", func(b *testing.B) { benchmark(b, all, events, sigma.LogSource{}, false) })
}
