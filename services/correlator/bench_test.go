package correlator

import (
	"fmt"
	"log/slog"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
)

// benchEvents are records of `events`, one in three of which matches.
func benchEvents(n, users int) []Record {
	out := make([]Record, n)
	for i := range out {
		action := []string{"a", "none", "nothing"}[i%3]
		raw := fmt.Appendf(nil, `{"action":%q,"user":"user-%d","ip":"10.0.0.%d","padding":%q}`, action, i%users, i%250, make([]byte, 150))
		e := event.Event{
			ID: "event-" + strconv.Itoa(i), Tenant: "t", Format: "json", Product: "test", OwnTime: true,
			TimeMS: t0 + int64(i), IngestMS: t0 + int64(i), LatenessMS: 1000, Raw: raw,
		}
		out[i] = Record{Topic: TopicEvents, Offset: int64(i), Value: event.Encode(nil, &e), Headers: newHeaders(event.SchemaEvent, "t")}
	}
	return out
}

// BenchmarkDetect matches and encodes batches of 500 events; figures are per event.
func BenchmarkDetect(b *testing.B) {
	cfg := DefaultConfig()
	d := &detector{cfg: cfg, plans: always{compile(b, cfg, testRules)}, tracer: tracenoop.Tracer{}, counts: noCounts(b), log: slog.New(slog.DiscardHandler)}
	records := benchEvents(5000, 1000)
	m := newMatching(d, &claim{Committed: -1})
	b.ReportAllocs()
	defer reportCPU(b)()
	for n := 0; b.Loop(); n++ {
		if n%500 == 0 {
			at := n % len(records)
			if _, err := m.batch(b.Context(), records[at:at+500]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkFold folds and commits batches of 500 detections of so many groups;
// figures are per detection.
func BenchmarkFold(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) Store{
		"memory": func(*testing.B) Store { return state.NewMemory() },
		"redis": func(b *testing.B) Store {
			cfg := state.DefaultConfig()
			cfg.Addrs = []string{redistest.Start(b, redistest.Options{}).Addr}
			s, err := state.OpenRedis(b.Context(), cfg, slog.New(slog.DiscardHandler))
			require.NoError(b, err)
			b.Cleanup(func() { _ = s.Close() })
			return s
		},
	} {
		for _, groups := range []int{1, 100, 20_000} {
			b.Run(fmt.Sprintf("store=%s/groups=%d", name, groups), func(b *testing.B) { benchmarkFold(b, groups, open(b)) })
		}
	}
}

func benchmarkFold(b *testing.B, groups int, store Store) {
	cfg := DefaultConfig()
	p := compile(b, cfg, testRules)
	f := openFolder(b, cfg, p, 1<<40, store)
	const batch = 500
	l := &feed{p: p}
	for i := range int64(200_000) {
		l.detect("t", "both", "user-"+strconv.FormatInt(i%int64(groups), 10), "event-"+strconv.FormatInt(i, 10), t0+i*10, t0+i*10)
	}
	b.ReportAllocs()
	defer reportCPU(b)()
	offset := int64(0)
	for n := 0; b.Loop(); n++ {
		if n%batch > 0 {
			continue
		}
		at := n % len(l.records)
		if at == 0 && n > 0 { // the log goes on: later times and offsets
			b.StopTimer()
			fresh := &feed{p: p}
			for i := range int64(len(l.records)) {
				k := i + int64(n)
				fresh.detect("t", "both", "user-"+strconv.FormatInt(k%int64(groups), 10), "event-"+strconv.FormatInt(k, 10), t0+k*10, t0+k*10)
			}
			l = fresh
			b.StartTimer()
		}
		records := l.records[at : at+batch]
		for i := range records {
			records[i].Offset = offset + int64(i)
		}
		offset += batch
		for len(records) > 0 {
			taken, w, err := f.compute(b.Context(), records) // while the batch before is written
			if err != nil {
				b.Fatal(err)
			}
			if err := f.launch(b.Context(), w, nil); err != nil {
				b.Fatal(err)
			}
			records = records[taken:]
		}
		if w := t0 + offset*10 - 60_000; w >= f.due[0] {
			mark := &feed{}
			mark.watermark(w)
			mark.records[0].Offset = offset
			offset++
			require.NoError(b, f.land())
			if _, _, err := f.fold(b.Context(), mark.records); err != nil {
				b.Fatal(err)
			}
			if err := f.drainDue(b.Context(), func([]state.Entry) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	}
	require.NoError(b, f.land())
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
