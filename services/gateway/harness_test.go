package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/control/controltest"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/seal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(brokerVariable); dir != "" {
		if err := serveBroker(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

const testPartitions = 4

// A world is a broker with topics, and what gateways need to run on it.
type world struct {
	t    testing.TB
	addr string
	bus  *bus.Client
	logs *syncBuffer
	// contract is what all answers are held against; nil in benchmarks.
	contract *contract
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, embeddedtest.Start(t).Addr())
}

// newWorldOn sets the topics up on a broker that runs.
func newWorldOn(t testing.TB, addr string) *world {
	t.Helper()
	w := &world{t: t, addr: addr, logs: new(syncBuffer)}
	if _, ok := t.(*testing.T); ok {
		w.contract = readContract(t)
	}
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{w.addr}
	var err error
	w.bus, err = bus.New(cfg, slog.New(slog.DiscardHandler), metricnoop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(w.bus.Close)
	topics := bus.DefaultTopicsConfig()
	topics.Partitions = testPartitions
	_, err = w.bus.EnsureTopics(t.Context(), topics)
	require.NoError(t, err)
	return w
}

// An edge is one running gateway.
type edge struct {
	*gateway.Service
	w       *world
	view    *control.View
	sealer  *seal.Sealer
	client  *http.Client
	base    string
	key     string // of tenant "acme", with all scopes
	stop    context.CancelFunc
	stopped chan error
}

type option func(*gateway.Config, *gateway.Deps)

func (w *world) gateway(options ...option) *edge {
	w.t.Helper()
	t := w.t
	cfg := gateway.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	view := controltest.Open(t, w.addr)
	log := slog.New(slog.NewJSONHandler(w.logs, nil))
	producer := bus.NewProducer(w.bus, bus.TopicEvents, bus.DefaultProducerConfig())
	t.Cleanup(producer.Close)
	root, err := seal.ParseRoot(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
	require.NoError(t, err)
	sealer := seal.New(root, view, log, time.Now)
	deps := gateway.Deps{
		Producer: producer, Partitions: testPartitions, Control: view, Sealer: sealer,
		CheckURL: func(string) error { return nil }, History: w.bus, Replays: w.bus,
		Log: log, TracerProvider: sdktrace.NewTracerProvider(), MeterProvider: metricnoop.NewMeterProvider(), Clock: time.Now,
	}
	for _, o := range options {
		o(&cfg, &deps)
	}
	s, err := gateway.New(cfg, deps)
	require.NoError(t, err)
	e := &edge{Service: s, w: w, view: view, sealer: sealer, base: "http://" + s.Addr(), stopped: make(chan error, 1)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	e.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	e.key = e.mint("acme", control.ScopeIngest, control.ScopeRead, control.ScopeManage)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	e.stop = cancel
	go func() { e.stopped <- s.Run(ctx) }()
	t.Cleanup(e.end)
	require.Eventually(t, func() bool { return s.Ready() == nil }, 10*time.Second, 5*time.Millisecond)
	return e
}

// end stops the gateway and waits; it may be called again.
func (e *edge) end() {
	e.stop()
	err := <-e.stopped
	require.NoError(e.w.t, err)
	e.stopped <- nil
}

// mint makes a key by way of control alone.
func (e *edge) mint(tenant string, scopes ...string) string {
	e.w.t.Helper()
	return e.mintSpec(control.NewKey{Tenant: tenant, Scopes: scopes})
}

func (e *edge) mintSpec(spec control.NewKey) string {
	e.w.t.Helper()
	plain, record, err := control.NewAPIKey(spec, time.Now())
	require.NoError(e.w.t, err)
	require.NoError(e.w.t, e.view.Put(e.w.t.Context(), &controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: record}}))
	return plain
}

// A reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (r reply) code() string { c, _ := r.json["code"].(string); return c }

func (r reply) ids() []string {
	var ids []string
	list, _ := r.json["ids"].([]any)
	for _, id := range list {
		ids = append(ids, id.(string))
	}
	return ids
}

// do sends a request with e.key; headers are name, value, name, value ….
func (e *edge) do(method, path, body string, headers ...string) reply {
	e.w.t.Helper()
	return e.send(e.request(method, path, body, headers...))
}

func (e *edge) request(method, path, body string, headers ...string) *http.Request {
	e.w.t.Helper()
	req, err := http.NewRequestWithContext(e.w.t.Context(), method, e.base+path, strings.NewReader(body))
	require.NoError(e.w.t, err)
	req.Header.Set("Authorization", "Bearer "+e.key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

func (e *edge) send(req *http.Request) reply {
	e.w.t.Helper()
	res, err := e.client.Do(req)
	require.NoError(e.w.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(e.w.t, err)
	r := reply{status: res.StatusCode, header: res.Header, body: string(text)}
	if kind := res.Header.Get("Content-Type"); strings.Contains(kind, "json") && !strings.Contains(kind, "ndjson") {
		require.NoError(e.w.t, json.Unmarshal(text, &r.json), r.body)
	}
	if e.w.contract != nil {
		e.w.contract.check(e.w.t, req, r)
	}
	return r
}

func (e *edge) post(body string, headers ...string) reply {
	e.w.t.Helper()
	return e.do(http.MethodPost, "/v1/events", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// A stored event is one that the broker holds.
type storedEvent struct {
	event.Event
	partition int
	offset    int64
	headers   map[string]string
}

// events returns all events in the topic, and the ticks by partition.
func (w *world) events() (events []storedEvent, ticks map[int][]int64) {
	w.t.Helper()
	ticks = make(map[int][]int64)
	for p := range testPartitions {
		for next, end := int64(0), int64(1); next < end; {
			records, limit, err := w.bus.Fetch(w.t.Context(), bus.TopicEvents, p, next)
			require.NoError(w.t, err)
			end = limit
			for _, r := range records {
				next = r.Offset + 1
				headers := map[string]string{}
				for _, h := range r.Headers {
					headers[h.Key] = string(h.Value)
				}
				if headers[event.HeaderSchema] == event.SchemaTick {
					ms, err := event.DecodeTick(r.Value)
					require.NoError(w.t, err)
					ticks[p] = append(ticks[p], ms)
					continue
				}
				require.Equal(w.t, event.SchemaEvent, headers[event.HeaderSchema])
				e, err := event.Decode(r.Value)
				require.NoError(w.t, err)
				events = append(events, storedEvent{e, p, r.Offset, headers})
			}
		}
	}
	return events, ticks
}

// byID returns the stored events with their ids.
func (w *world) byID() map[string]storedEvent {
	w.t.Helper()
	all := map[string]storedEvent{}
	events, _ := w.events()
	for _, e := range events {
		all[e.ID] = e
	}
	return all
}

func corpora(t testing.TB, pattern string) []string {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	paths, err := filepath.Glob(filepath.Join(shared, "corpora", pattern))
	require.NoError(t, err)
	if len(paths) == 0 {
		t.Skipf("%s is not there: set SHARED to the directory that holds corpora/", pattern)
	}
	return paths
}

// trailRecords returns so many real CloudTrail records.
func trailRecords(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for _, path := range corpora(t, "invictus-cloudtrail/CloudTrail/*.json") {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var file struct{ Records []json.RawMessage }
		require.NoError(t, json.Unmarshal(text, &file))
		for _, r := range file.Records {
			var line bytes.Buffer
			require.NoError(t, json.Compact(&line, r))
			if out = append(out, line.String()); len(out) == n {
				return out
			}
		}
	}
	t.Fatalf("the corpus holds %d records, %d are needed", len(out), n)
	return nil
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
