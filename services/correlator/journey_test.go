package correlator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/control/controltest"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/telemetry"
)

const journeyPartitions = 4 // controltest's

// journey is a real log with a store and any number of correlators.
type journey struct {
	t      *testing.T
	cfg    Config
	bus    *bus.Client
	view   *control.View
	store  Store
	spans  *tracetest.InMemoryExporter
	tracer *sdktrace.TracerProvider
	roots  map[string]trace.SpanContext // of the requests, by event id

	mu      sync.Mutex
	running []*Service
}

func newJourney(t *testing.T) *journey {
	t.Helper()
	broker := embeddedtest.Start(t)
	cfg := bus.DefaultConfig()
	cfg.Compression = "none" // lz4 takes 4 MiB for each batch, which the race detector watches byte by byte
	cfg.Brokers = []string{broker.Addr()}
	j := &journey{
		t: t, cfg: DefaultConfig(), store: state.NewMemory(), view: controltest.Open(t, broker.Addr()),
		spans: tracetest.NewInMemoryExporter(), roots: make(map[string]trace.SpanContext),
	}
	j.cfg.Lateness, j.cfg.Forward, j.cfg.Commit = time.Second, 50*time.Millisecond, 50*time.Millisecond
	var err error
	j.bus, err = bus.New(cfg, slog.New(slog.DiscardHandler), metricnoop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(j.bus.Close)
	j.tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(j.spans))
	t.Cleanup(func() { require.NoError(t, j.tracer.Shutdown(context.WithoutCancel(t.Context()))) })
	return j
}

func (j *journey) push(rules string) []byte {
	j.t.Helper()
	var docs []control.Document
	for i, src := range strings.Split(rules, "\n---\n") {
		docs = append(docs, control.Document{File: "test.yml", Line: i + 1, Source: []byte(src)})
	}
	hash, err := j.view.PushRules(j.t.Context(), "", docs)
	require.NoError(j.t, err)
	return hash
}

// start runs a correlator and returns what stops it.
func (j *journey) start(fault Fault) (stop func()) {
	j.t.Helper()
	s, err := New(j.cfg, Deps{
		Reader: j.bus, Producer: j.bus, Group: j.bus, Control: j.view, Store: j.store, Log: slog.New(slog.DiscardHandler),
		Tracers: j.tracer, Meters: metricnoop.NewMeterProvider(), Clock: time.Now, Fault: fault,
	})
	require.NoError(j.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(j.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	j.mu.Lock()
	j.running = append(j.running, s)
	j.mu.Unlock()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			j.t.Errorf("run: %v", err)
		}
		j.mu.Lock()
		j.running = slices.DeleteFunc(j.running, func(x *Service) bool { return x == s })
		j.mu.Unlock()
	})
	j.t.Cleanup(stop)
	return stop
}

// post produces events as the gateway does, each in a trace of its own.
func (j *journey) post(events []accepted, manifest []byte) {
	j.t.Helper()
	for _, a := range events {
		ctx, span := j.tracer.Tracer("test").Start(j.t.Context(), "request")
		span.End()
		if _, ok := j.roots[a.id]; !ok {
			j.roots[a.id] = span.SpanContext()
		}
		_, value := a.record()
		e, err := event.Decode(value)
		require.NoError(j.t, err)
		e.ManifestAll = manifest
		j.produce(TopicEvents, a.partition, bus.Message{
			Value: event.Encode(nil, &e), Headers: telemetry.Inject(ctx, newHeaders(event.SchemaEvent, a.tenant)),
		})
	}
}

func (j *journey) produce(topic string, partition int, m bus.Message) {
	j.t.Helper()
	_, err := j.bus.Produce(j.t.Context(), topic, partition, []bus.Message{m})
	require.NoError(j.t, err)
}

func (j *journey) read(topic string) (out []bus.Record) {
	j.t.Helper()
	n, err := j.bus.Partitions(j.t.Context(), topic)
	require.NoError(j.t, err)
	for p := range n {
		first, end, err := j.bus.Offsets(j.t.Context(), topic, p)
		require.NoError(j.t, err)
		require.NoError(j.t, j.bus.Read(j.t.Context(), topic, p, first, end, func(r []bus.Record) error {
			out = append(out, r...)
			return nil
		}))
	}
	return out
}

func (j *journey) alerts() map[string][]bus.Record {
	j.t.Helper()
	out := make(map[string][]bus.Record)
	for _, r := range j.read(TopicAlerts) {
		if name := nameOfAlert(j.t, r.Value); name == string(r.Key) {
			out[name] = append(out[name], r)
		}
	}
	return out
}

// withoutUpdates leaves out what depends on how far time has gone.
func withoutUpdates(want map[string]bool) map[string]bool {
	maps.DeleteFunc(want, func(name string, _ bool) bool { return strings.Contains(name, " updated") })
	return want
}

// rest waits until all that was posted is detected, forwarded, folded,
// published and committed.
func (j *journey) rest() {
	j.t.Helper()
	j.tick()
	require.Eventually(j.t, func() bool { return j.idle() }, time.Minute, 20*time.Millisecond)
}

// tick does as the gateway does for silent partitions. An owner tells, and
// commits, only what it has read itself.
func (j *journey) tick() {
	j.t.Helper()
	for p := range journeyPartitions {
		j.produce(TopicEvents, p, bus.Message{Value: event.EncodeTick(nil, time.Now().UnixMilli()), Headers: newHeaders(event.SchemaTick, "")})
	}
}

func (j *journey) idle() bool {
	forwarded := make(map[int32]int64)
	for _, r := range j.read(TopicDetections) {
		var w detectionv1.Watermark
		if header(r.Headers, event.HeaderSchema) == schemaWatermark && proto.Unmarshal(r.Value, &w) == nil {
			forwarded[w.GetUpstreamPartition()] = max(forwarded[w.GetUpstreamPartition()], w.GetNextOffset())
		}
	}
	for p := range journeyPartitions {
		_, end, err := j.bus.Offsets(j.t.Context(), TopicEvents, p)
		if err != nil || forwarded[int32(p)] < end {
			return false
		}
		_, end, err = j.bus.Offsets(j.t.Context(), TopicDetections, p)
		if err != nil || j.committed(p) < end {
			return false
		}
	}
	return true
}

func (j *journey) committed(p int) (most int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.running {
		if offset, _, ok := s.owned.Last(p); ok {
			most = max(most, offset)
		}
	}
	return most
}

// someEvents are events of this minute, of users of their own.
func someEvents(n int, round string) (out []accepted) {
	r := rand.New(rand.NewPCG(7, uint64(len(round))))
	now := time.Now().UnixMilli()
	for i := range n {
		a := accepted{
			partition: r.IntN(journeyPartitions), id: fmt.Sprintf("%s-%d", round, i), tenant: "t1",
			time: now - int64(r.IntN(40_000)), ingest: now - int64(r.IntN(2_000)),
			fields: map[string]string{
				"action": []string{"a", "b", "c", "ab", "x", "none"}[r.IntN(6)], "user": fmt.Sprintf("user-%d", r.IntN(8)),
				"actor": fmt.Sprintf("user-%d", r.IntN(8)), "ip": fmt.Sprintf("ip-%d", r.IntN(3)), "zone": "z",
			},
		}
		out = append(out, a)
		if r.IntN(10) == 0 {
			out = append(out, a) // delivered twice
		}
	}
	return out
}

// TestJourney takes events through both stages on a real broker while
// correlators come and go, rules change in mid-stream, records are poisoned and
// rules panic.
func TestJourney(t *testing.T) {
	j := newJourney(t)
	changed := strings.Replace(testRules, "condition: {gte: 3}", "condition: {gte: 2}", 1)
	plan1, plan2 := compile(t, j.cfg, testRules), compile(t, j.cfg, changed)
	fault := func(p Point, r *Record) error {
		if p == PointMatch && bytes.Contains(r.Value, []byte("boom-match")) || p == PointFold && bytes.Contains(r.Value, []byte("boom-fold")) {
			panic("a rule that panics")
		}
		return nil
	}
	first := j.push(testRules)
	stopA := j.start(fault)
	before := someEvents(300, "one")
	j.post(before[:150], first)
	stopB := j.start(fault)
	j.poison(first)
	j.post(before[150:], first)

	second := j.push(changed)
	require.NotEqual(t, first, second)
	after := someEvents(300, "twoo")
	j.post(after[:150], second)
	stopA()
	// A gateway that has not seen the change yet goes on with the old rules.
	stragglers := someEvents(40, "three")
	j.post(stragglers, first)
	before = append(before, stragglers...)
	j.start(fault)
	j.post(after[150:], second)
	stopB()
	j.rest()

	never := func(o *oracleRule) {
		if o.id == "count" {
			o.min = 1 << 30
		}
	}
	only := func(least int) func(*oracleRule) {
		return func(o *oracleRule) {
			if o.min = least; o.id != "count" {
				o.min = 1 << 30
			}
		}
	}
	want := expected(j.cfg, plan1, slices.Concat(before, after), never)
	maps.Copy(want, expected(j.cfg, plan1, before, only(3)))
	maps.Copy(want, expected(j.cfg, plan2, after, only(2)))
	want = withoutUpdates(want)
	got := j.alerts()
	require.Greater(t, len(want), 150)
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	j.checkDead()
	j.checkSpans(got)
}

// poison puts records into both topics that cannot be processed.
func (j *journey) poison(manifest []byte) {
	j.t.Helper()
	j.produce(TopicEvents, 1, bus.Message{Value: []byte("\xff\xff"), Headers: newHeaders(event.SchemaEvent, "t1")})
	j.produce(TopicEvents, 2, bus.Message{Value: []byte("{}"), Headers: newHeaders("who.knows", "t1")})
	now := time.Now().UnixMilli()
	j.post([]accepted{
		{partition: 1, id: "boom-match", tenant: "t1", time: now, ingest: now, fields: map[string]string{"action": "x"}},
		{partition: 3, id: "boom-fold", tenant: "t1", time: now, ingest: now, fields: map[string]string{"action": "a", "user": "boom"}},
	}, manifest)
	j.produce(TopicDetections, 0, bus.Message{Key: []byte("k"), Value: []byte("\xff\xff"), Headers: newHeaders(schemaDetection, "t1")})
	value, err := marshal(&detectionv1.Detection{Tenant: "t1", CorrelationId: "nobody's", ManifestAll: manifest})
	require.NoError(j.t, err)
	j.produce(TopicDetections, 0, bus.Message{Key: []byte("k"), Value: value, Headers: newHeaders(schemaDetection, "t1")})
}

// checkDead demands each poisoned record in `dlq`, with the reason and how often
// it was tried, and no other.
func (j *journey) checkDead() {
	j.t.Helper()
	found := make(map[string]int)
	for _, r := range j.read(TopicDLQ) {
		var d dlqv1.DeadLetter
		require.NoError(j.t, proto.Unmarshal(r.Value, &d))
		require.NotEmpty(j.t, d.GetValue())
		name := fmt.Sprintf("%s %s %d", d.GetTopic(), d.GetStage(), d.GetAttempts())
		for _, part := range []string{"malformed event", "unknown schema", "panicked", "malformed detection", "hold no correlation", "failed at every attempt"} {
			if strings.Contains(d.GetReason(), part) {
				name += " " + part
			}
		}
		found[name]++
	}
	// The event that panics in the fold is in two correlations.
	require.Equal(j.t, []string{
		"detections correlate 1 hold no correlation", "detections correlate 1 malformed detection", "detections correlate 3 failed at every attempt",
		"events detect 1 malformed event", "events detect 1 unknown schema", "events detect 3 panicked",
	}, slices.Sorted(maps.Keys(found)), found)
}

// checkSpans demands that each alert's trace is that of the request of the event
// that made it fire, without a gap: request, match, fire.
func (j *journey) checkSpans(alerts map[string][]bus.Record) {
	j.t.Helper()
	byID := make(map[trace.SpanID]tracetest.SpanStub)
	for _, s := range j.spans.GetSpans() {
		byID[s.SpanContext.SpanID()] = s
	}
	linked := 0
	for id, records := range alerts {
		var a alertv1.Alert
		require.NoError(j.t, proto.Unmarshal(records[0].Value, &a))
		sc := trace.SpanContextFromContext(telemetry.Extract(j.t.Context(), records[0].Headers))
		require.Equal(j.t, a.GetTraceId(), sc.TraceID().String(), "alert %s", id)
		span, ok := byID[sc.SpanID()]
		require.True(j.t, ok, "alert %s is not of an exported span", id)
		if a.GetRule().GetType() != "detection" {
			require.Equal(j.t, "correlate fire", span.Name)
			linked += len(span.Links)
			for _, l := range span.Links {
				require.NotEqual(j.t, sc.TraceID(), l.SpanContext.TraceID())
			}
			span = byID[span.Parent.SpanID()]
		}
		require.Equal(j.t, "detect match", span.Name, "alert %s", id)
		require.Equal(j.t, "request", byID[span.Parent.SpanID()].Name)
		require.Equal(j.t, sc.TraceID(), span.Parent.TraceID())
	}
	require.Positive(j.t, linked, "the other events are links")
}

// TestCrashEndsRun holds an injected crash to what it imitates.
func TestCrashEndsRun(t *testing.T) {
	j := newJourney(t)
	manifest := j.push(testRules)
	for _, point := range []Point{PointMatch, PointProduced, PointFold, PointFolded, PointApplied, PointPublished, PointTrimmed} {
		s, err := New(j.cfg, Deps{
			Reader: j.bus, Producer: j.bus, Group: j.bus, Control: j.view, Store: j.store, Log: slog.New(slog.DiscardHandler),
			Tracers: j.tracer, Meters: metricnoop.NewMeterProvider(), Clock: time.Now,
			Fault: func(p Point, _ *Record) error {
				if p == point {
					return errors.New("crash at " + string(p))
				}
				return nil
			},
		})
		require.NoError(t, err)
		now := time.Now().UnixMilli()
		var events []accepted
		for i := range 3 {
			events = append(events, accepted{id: fmt.Sprint(point, i), tenant: "t1", time: now, ingest: now, fields: map[string]string{"action": "a", "user": string(point)}})
		}
		j.post(events, manifest)
		require.ErrorContains(t, s.Run(t.Context()), "crash at "+string(point))
	}
	j.start(nil)
	j.rest()
	users := make(map[string]bool)
	for _, records := range j.alerts() {
		var a alertv1.Alert
		require.NoError(t, proto.Unmarshal(records[0].Value, &a))
		if a.GetRule().GetId() == "count" {
			users[a.GetGroup()[0].GetValue()] = true
		}
	}
	require.Len(t, users, 7, "whatever the point, the alert is not lost")
}
