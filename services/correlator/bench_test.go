package correlator

import (
	"fmt"
	"log/slog"
	"strconv"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
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
	defer reportCPU(b).report()
	for n := 0; b.Loop(); n++ {
		if n%500 == 0 {
			at := n % len(records)
			if _, err := m.batch(b.Context(), records[at:at+500]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkFold folds and commits batches of 500 detections of so many groups,
// whose windows are full; figures are per detection.
func BenchmarkFold(b *testing.B) {
	for _, groups := range []int64{1, 100, 20_000} {
		b.Run(fmt.Sprintf("store=memory/groups=%d", groups), func(b *testing.B) { benchmarkFold(b, groups, state.NewMemory(), nil) })
		b.Run(fmt.Sprintf("store=redis/groups=%d", groups), func(b *testing.B) {
			server := redistest.Start(b, redistest.Options{})
			cfg := state.DefaultConfig()
			cfg.Addrs = []string{server.Addr}
			s, err := state.OpenRedis(b.Context(), cfg, slog.New(slog.DiscardHandler))
			require.NoError(b, err)
			b.Cleanup(func() { _ = s.Close() })
			benchmarkFold(b, groups, s, server.Client(b))
		})
	}
}

// folding is a fold that goes on and on.
type folding struct {
	b      *testing.B
	f      *folder
	groups int64
	log    *feed
	n      int64 // detections so far
	offset int64
}

const (
	foldBatch = 500
	foldLog   = 200_000 // detections that are made at once
	foldFull  = 240_000 // what a window and what is kept behind it hold
)

func benchmarkFold(b *testing.B, groups int64, store Store, server *redis.Client) {
	cfg := DefaultConfig()
	x := &folding{b: b, f: openFolder(b, cfg, compile(b, cfg, testRules), 1<<40, store), groups: groups}
	for x.n < foldFull {
		x.more()
		x.batch()
	}
	b.ReportAllocs()
	ours := reportCPU(b)
	theirs := reportRedis(b, server)
	for n := 0; b.Loop(); n++ {
		if n%foldBatch > 0 {
			continue
		}
		if x.n%foldLog == 0 {
			b.StopTimer()
			ours.without(x.more)
			b.StartTimer()
		}
		x.batch()
	}
	require.NoError(b, x.f.land())
	ours.report()
	theirs()
}

// more makes the next part of the log, where the last one is read.
func (x *folding) more() {
	if x.n%foldLog > 0 {
		return
	}
	x.log = &feed{p: x.f.plans.(always).plan}
	for k := x.n; k < x.n+foldLog; k++ {
		x.log.detect("t", "both", "user-"+strconv.FormatInt(k%x.groups, 10), "event-"+strconv.FormatInt(k, 10), t0+k*10, t0+k*10)
	}
}

func (x *folding) batch() {
	b, f := x.b, x.f
	at := x.n % foldLog
	records := x.log.records[at : at+foldBatch]
	for i := range records {
		records[i].Offset = x.offset + int64(i)
	}
	x.offset += foldBatch
	x.n += foldBatch
	for len(records) > 0 {
		taken, w, err := f.compute(b.Context(), records) // while the batch before is written
		require.NoError(b, err)
		require.NoError(b, f.launch(b.Context(), w, nil))
		records = records[taken:]
	}
	if w := t0 + x.n*10 - 60_000; w >= f.due[0] {
		mark := &feed{}
		mark.watermark(w)
		mark.records[0].Offset = x.offset
		x.offset++
		require.NoError(b, f.land())
		_, _, err := f.fold(b.Context(), mark.records)
		require.NoError(b, err)
		require.NoError(b, f.drainDue(b.Context(), func([]state.Entry) error { return nil }))
	}
}

// reportRedis adds the CPU time that a server takes per operation, if there is one.
func reportRedis(b *testing.B, server *redis.Client) func() {
	b.Helper()
	if server == nil {
		return func() {}
	}
	used := func() (sum float64) {
		info, err := server.InfoMap(b.Context(), "cpu").Result()
		require.NoError(b, err)
		for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
			v, err := strconv.ParseFloat(info["CPU"][name], 64)
			require.NoError(b, err)
			sum += v
		}
		return sum
	}
	before := used()
	return func() { b.ReportMetric((used()-before)*1e9/float64(b.N), "redis-cpu-ns/op") }
}

// reportCPU adds the CPU time per operation, which a loaded machine does not
// distort as it does the time that passes.
func reportCPU(b *testing.B) *cpuTime {
	b.Helper()
	c := &cpuTime{b: b}
	c.before = c.used()
	return c
}

type cpuTime struct {
	b      *testing.B
	before int64
}

func (c *cpuTime) used() int64 {
	var u syscall.Rusage
	require.NoError(c.b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// without leaves out what f takes.
func (c *cpuTime) without(f func()) {
	at := c.used()
	f()
	c.before += c.used() - at
}

func (c *cpuTime) report() {
	c.b.ReportMetric(float64(c.used()-c.before)/float64(c.b.N), "cpu-ns/op")
}
