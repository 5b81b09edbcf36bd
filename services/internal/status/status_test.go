package status_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// world is a broker with a view of its topic, and a clock that is moved.
type world struct {
	t    *testing.T
	bus  *bus.Client
	view *status.View
	ms   atomic.Int64 // that the clock is ahead
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{embeddedtest.Start(t).Addr()}
	client, err := bus.New(cfg, slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(client.Close)
	topics := bus.DefaultTopicsConfig()
	topics.Partitions = 1
	_, err = client.EnsureTopics(t.Context(), topics)
	require.NoError(t, err)
	w := &world{t: t, bus: client}
	w.view = w.follow()
	return w
}

func (w *world) now() time.Time {
	return time.Now().Add(time.Duration(w.ms.Load()) * time.Millisecond)
}

// follow returns a view that has read nothing yet.
func (w *world) follow() *status.View {
	v := status.NewView(w.bus, slog.New(slog.DiscardHandler), w.now)
	w.run(v.Run)
	return v
}

// run runs something until the test ends, or what it returns is called.
func (w *world) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = f(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// process starts a process that counts.
func (w *world) process(service string) (b *status.Board, stop func()) {
	b = status.NewBoard()
	cfg := status.Config{Least: 5 * time.Millisecond, Most: 50 * time.Millisecond, BytesPerSecond: 1 << 20}
	return b, w.run(status.NewPublisher(cfg, service, b, w.bus, slog.New(slog.DiscardHandler), w.now).Run)
}

// await waits until the view shows what is asked for.
func (w *world) await(v *status.View, ok func(*status.Summary) bool) *status.Summary {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return ok(v.Tenant("acme")) }, patience, 5*time.Millisecond)
	return v.Tenant("acme")
}

func TestProcessesAddUp(t *testing.T) {
	w := newWorld(t)
	one, stop := w.process("gateway")
	two, _ := w.process("gateway")
	now := w.now().UnixMilli()
	one.Tenant("acme").Received.Add(3, now-1000)
	one.Tenant("acme").Source(status.Source{Product: "aws"}).Add(3, now)
	two.Tenant("acme").Received.Add(4, now)
	two.Tenant("acme").Source(status.Source{Product: "aws"}).Add(3, now)
	two.Tenant("acme").Source(status.Source{Product: "app"}).Add(1, now)
	two.Tenant("globex").Received.Add(50, now)
	sum := w.await(w.view, func(s *status.Summary) bool { return s.Received.N == 7 && len(s.Sources) == 2 && s.Sources[0].N == 6 })
	require.Equal(t, now, sum.Received.LastMS, "the time of the last one, whoever counted it")
	require.EqualValues(t, 50, w.view.Tenant("globex").Received.N)
	require.Zero(t, w.view.Tenant("nobody").Received.N)

	// A process that ends has told all, and what it told stays, also for whoever
	// begins to read later; one that takes its place adds to it.
	one.Tenant("acme").Received.Add(10, now)
	stop()
	three, _ := w.process("gateway")
	three.Tenant("acme").Received.Add(100, now)
	w.await(w.view, func(s *status.Summary) bool { return s.Received.N == 117 })
	w.await(w.follow(), func(s *status.Summary) bool { return s.Received.N == 117 })
}

func TestGaugesAreOfTheLiving(t *testing.T) {
	w := newWorld(t)
	stage := func(partitions int32, lag, watermark int64) func() *statusv1.Stage {
		return func() *statusv1.Stage {
			return &statusv1.Stage{Name: "correlate", Partitions: partitions, Lag: lag, WatermarkMs: watermark}
		}
	}
	base := w.now().UnixMilli()
	one, stopOne := w.process("correlator")
	one.Watch(stage(1, 10, base-90_000))
	one.Open(0, "tally", "acme", "many", 5)
	two, _ := w.process("correlator")
	two.Watch(stage(3, 2, base-30_000))
	two.Open(1, "tally", "acme", "many", 2)
	two.Open(2, "tally", "acme", "many", 1)
	sum := w.await(w.view, func(s *status.Summary) bool {
		return s.Stages["correlate"] != nil && s.Stages["correlate"].Instances == 2 && s.Rules["many"] != nil && s.Rules["many"].OpenGroups == 8
	})
	require.Equal(t, 4, sum.Stages["correlate"].Partitions)
	require.EqualValues(t, 12, sum.Stages["correlate"].Lag)
	require.Equal(t, base-90_000, sum.Stages["correlate"].WatermarkMS, "the least")
	require.GreaterOrEqual(t, sum.Stages["correlate"].AgeMS, int64(90_000))

	two.Left(2)
	w.await(w.view, func(s *status.Summary) bool { return s.Rules["many"].OpenGroups == 7 })
	stopOne()
	sum = w.await(w.view, func(s *status.Summary) bool { return s.Stages["correlate"].Instances == 1 })
	require.EqualValues(t, 2, sum.Rules["many"].OpenGroups)
	require.Equal(t, base-30_000, sum.Stages["correlate"].WatermarkMS)
}

func TestFullestGroups(t *testing.T) {
	w := newWorld(t)
	one, _ := w.process("correlator")
	two, _ := w.process("correlator")
	one.Open(0, "tally", "acme", "many", 5)
	one.Fullest(0, "tally", "acme", "many", []status.Group{{Values: []string{"bob"}, Count: 3, Events: 9, FirstMS: 1, LastMS: 2, DueMS: 3}, {Values: []string{"eve"}, Count: 7, AtLeast: true}})
	one.Fullest(1, "tally", "acme", "many", []status.Group{{Values: []string{"joe"}, Count: 4}})
	one.Fullest(0, "other", "globex", "many", []status.Group{{Values: []string{"not theirs"}, Count: 40}})
	two.Open(2, "tally", "acme", "many", 1)
	two.Fullest(2, "tally", "acme", "many", []status.Group{{Values: []string{strings.Repeat("x", 5000)}, Count: 5}})
	names := func(s *status.Summary) (out []string) {
		if r := s.Rules["many"]; r != nil {
			for _, g := range r.Groups {
				out = append(out, g.Values[0][:3])
			}
		}
		return out
	}
	sum := w.await(w.view, func(s *status.Summary) bool { return len(names(s)) == 4 })
	require.Equal(t, []string{"eve", "xxx", "joe", "bob"}, names(sum), "the fullest first, of all processes")
	require.Len(t, sum.Rules["many"].Groups[1].Values[0], 200, "foreign text is cut")
	require.True(t, sum.Rules["many"].Groups[0].AtLeast)
	require.Equal(t, status.Group{Values: []string{"bob"}, Count: 3, Events: 9, FirstMS: 1, LastMS: 2, DueMS: 3}, sum.Rules["many"].Groups[3])
	one.Left(0)
	w.await(w.view, func(s *status.Summary) bool { return slices.Equal(names(s), []string{"xxx", "joe"}) })
}

// What ends without a word is alive no longer, and forgotten after a day.
func TestSilenceIsDeath(t *testing.T) {
	w := newWorld(t)
	b, _ := w.process("notifier")
	b.Watch(func() *statusv1.Stage { return &statusv1.Stage{Name: "notify"} })
	b.Tenant("acme").Delivered.Add(1, w.now().UnixMilli())
	w.await(w.view, func(s *status.Summary) bool { return s.Delivered.N == 1 && s.Stages["notify"] != nil })

	later := time.Hour
	old := status.NewView(w.bus, slog.New(slog.DiscardHandler), func() time.Time { return time.Now().Add(later) })
	w.run(old.Run)
	sum := w.await(old, func(s *status.Summary) bool { return s.Delivered.N == 1 })
	require.Empty(t, sum.Stages)
	ancient := status.NewView(w.bus, slog.New(slog.DiscardHandler), func() time.Time { return time.Now().Add(25 * later) })
	w.run(ancient.Run)
	require.Zero(t, ancient.Tenant("acme").SinceMS)
}

func TestRetriesEnd(t *testing.T) {
	w := newWorld(t)
	b, _ := w.process("notifier")
	acme := b.Tenant("acme")
	acme.RetriesBegun.Add(3, 1)
	acme.RetriesEnded.Add(1, 2)
	acme.Webhook("w").Failed.Add(3, 1)
	acme.Webhook("w").Said("the endpoint answered 500")
	sum := w.await(w.view, func(s *status.Summary) bool { return s.Retrying == 2 && len(s.Webhooks) == 1 })
	require.Equal(t, "the endpoint answered 500", sum.Webhooks[0].Error)
	acme.RetriesEnded.Add(5, 3)
	acme.Webhook("w").Delivered.Add(1, 4)
	acme.Webhook("w").Said("")
	w.await(w.view, func(s *status.Summary) bool { return s.Retrying == 0 && s.Webhooks[0].Error == "" })
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	b, _ := w.process("gateway")
	for i := range 100 {
		b.Tenant("acme").Source(status.Source{Product: string(rune('A' + i))}).Add(1, 1)
	}
	sum := w.await(w.view, func(s *status.Summary) bool { return len(s.Sources) == 64 })
	require.True(t, sum.Cut, "it says that there were more")
}

func TestLackingFields(t *testing.T) {
	w := newWorld(t)
	b, _ := w.process("correlator")
	r := b.Tenant("acme").Rule("r")
	r.Look("1", false, []string{"a"}, []string{"b"})
	r.Look("1", true, []string{"a"}, []string{"b", "c"})
	r.Look("1", false, []string{"c"}, nil)
	sum := w.await(w.view, func(s *status.Summary) bool { return s.Rules["r"] != nil && len(s.Rules["r"].Lacking) == 1 })
	require.Equal(t, []string{"b"}, sum.Rules["r"].Lacking, "c was in some event")
	require.EqualValues(t, 1, sum.Rules["r"].Near)
	r.Look("2", true, nil, []string{"d"})
	w.await(w.view, func(s *status.Summary) bool { return s.Rules["r"].Lacking[0] == "d" })
	r.Hits.Add(1, 1)
	w.await(w.view, func(s *status.Summary) bool { return s.Rules["r"].Hits.N == 1 && len(s.Rules["r"].Lacking) == 0 })
}

// Counting is on the way of every event.
func TestCountingAllocatesNothing(t *testing.T) {
	b := status.NewBoard()
	src := status.Source{Product: "aws", Service: "cloudtrail", Strict: true}
	count := func() {
		acme := b.Tenant("acme")
		acme.Received.Add(1, 1)
		acme.Source(src).Add(1, 1)
		acme.Rule("r").Hits.Add(1, 1)
	}
	count()
	require.Zero(t, testing.AllocsPerRun(100, count))
}

func BenchmarkCount(b *testing.B) {
	board := status.NewBoard()
	src := status.Source{Product: "aws", Service: "cloudtrail", Strict: true}
	b.ReportAllocs()
	for b.Loop() {
		board.Tenant("acme").Source(src).Add(1, 1)
	}
}
