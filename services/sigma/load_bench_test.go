package sigma_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// BenchmarkLoad parses and compiles all public rules, from texts in memory, and
// tells what of the heap is in use for them after a collection.
func BenchmarkLoad(b *testing.B) {
	texts := map[string][]byte{}
	eachRule(b, corpora(b, "sigmahq", "rules"), func(name string, src []byte) { texts[name] = src })
	compile := func() *sigma.Set {
		var docs []sigma.Document
		for name, text := range texts {
			found, problems := sigma.Parse(text, name)
			require.Zero(b, sigma.Rejected(problems))
			docs = append(docs, found...)
		}
		set, problems := sigma.Compile(docs, sigma.Options{})
		require.Zero(b, sigma.Rejected(problems))
		return set
	}
	before := liveHeap()
	set := compile()
	live := liveHeap() - before
	runtime.KeepAlive(set)
	b.ReportAllocs()
	for b.Loop() {
		compile()
	}
	b.ReportMetric(float64(live)/(1<<20), "live-MiB")
	b.ReportMetric(float64(len(set.Rules())), "rules")
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
