package notifier_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/control/controltest"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/signature"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	partitions = 2
	patience   = time.Minute
	look       = 5 * time.Millisecond
)

// A world is a broker with topics, a view of control, and what notifiers need.
type world struct {
	t      testing.TB
	bus    *bus.Client
	view   *control.View
	sealer *seal.Sealer
	queue  notifier.Queue
	egress *egress.Client
	clock  *clock
	logs   *syncBuffer
	tracer *sdktrace.TracerProvider
	seq    int
}

// clock is the wall clock plus what the test adds to it.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func newWorld(t testing.TB) *world {
	t.Helper()
	addr := embeddedtest.Start(t).Addr()
	w := &world{t: t, view: controltest.Open(t, addr), queue: queue.NewMemory(), clock: new(clock), logs: new(syncBuffer), tracer: sdktrace.NewTracerProvider()}
	cfg := bus.DefaultConfig()
	cfg.Compression = "none" // lz4 takes 4 MiB for each batch, which the race detector watches byte by byte
	cfg.Brokers = []string{addr}
	var err error
	w.bus, err = bus.New(cfg, slog.New(slog.DiscardHandler), metricnoop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(w.bus.Close)
	root, err := seal.ParseRoot(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
	require.NoError(t, err)
	w.sealer = seal.New(root, w.view, slog.New(slog.DiscardHandler), time.Now)
	w.sender(egress.DefaultClientConfig())
	return w
}

func (w *world) sender(cfg egress.ClientConfig) {
	guard, err := egress.NewGuard(egress.LoopbackConfig())
	require.NoError(w.t, err)
	w.egress = egress.NewClient(guard, cfg)
	w.t.Cleanup(w.egress.Close)
}

func testConfig() notifier.Config {
	cfg := notifier.DefaultConfig()
	cfg.Poll, cfg.Commit, cfg.Grace = 5*time.Millisecond, 5*time.Millisecond, 500*time.Millisecond
	return cfg
}

// A node is one running notifier.
type node struct {
	*notifier.Service
	cancel context.CancelFunc
	done   chan error
}

type option func(*notifier.Config, *notifier.Deps)

func (w *world) deps() notifier.Deps {
	return notifier.Deps{
		Reader: w.bus, Producer: w.bus, Group: w.bus, Control: w.view, Sealer: w.sealer, Sender: w.egress, Queue: w.queue,
		Log: slog.New(slog.NewJSONHandler(w.logs, nil)), Tracers: w.tracer, Meters: metricnoop.NewMeterProvider(), Clock: w.clock.now,
	}
}

// start runs a notifier until the test ends or stop.
func (w *world) start(options ...option) *node {
	w.t.Helper()
	cfg, deps := testConfig(), w.deps()
	for _, o := range options {
		o(&cfg, &deps)
	}
	s, err := notifier.New(cfg, deps)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	n := &node{Service: s, cancel: cancel, done: make(chan error, 1)}
	go func() { n.done <- s.Run(ctx) }()
	w.t.Cleanup(func() { _ = n.stop() })
	return n
}

// stop ends a notifier and returns what Run did; it may be called again.
func (n *node) stop() error {
	n.cancel()
	return n.wait()
}

func (n *node) wait() error {
	err := <-n.done
	n.done <- err
	return err
}

// hook is a subscription and its signing secret.
type hook struct {
	*controlv1.Subscription
	secret string
}

// subscribe stores a subscription of tenant acme, sealed as the gateway does.
func (w *world) subscribe(url string, change ...func(*controlv1.Subscription)) hook {
	w.t.Helper()
	w.seq++
	secret := signature.NewSecret()
	sub := &controlv1.Subscription{Id: fmt.Sprintf("wh_%03d", w.seq), Tenant: "acme", Revision: "r1", CreatedMs: 1}
	sub.Url = w.seal(sub, "url", url)
	sub.Secret = w.seal(sub, "secret", secret)
	for _, c := range change {
		c(sub)
	}
	w.put(sub)
	return hook{sub, secret}
}

func (w *world) seal(sub *controlv1.Subscription, field, value string) *controlv1.Sealed {
	w.t.Helper()
	sealed, err := w.sealer.Seal(w.t.Context(), seal.Place{Tenant: sub.GetTenant(), Kind: "subscription", ID: sub.GetId(), Field: field}, seal.NewSecret(value))
	require.NoError(w.t, err)
	return sealed
}

func (w *world) put(sub *controlv1.Subscription) {
	w.t.Helper()
	require.NoError(w.t, w.view.Put(w.t.Context(), &controlv1.Control{Object: &controlv1.Control_Subscription{Subscription: sub}}))
}

// newAlert is one of tenant acme.
func (w *world) newAlert(change ...func(*alertv1.Alert)) *alertv1.Alert {
	w.seq++
	a := &alertv1.Alert{
		Id: event.Hash("test", fmt.Sprint(w.seq)), Tenant: "acme", TimeMs: 1_700_000_000_000, Summary: "somebody did something",
		Rule:    &alertv1.Rule{Id: "rule-1", Title: "A rule", Level: "medium", Tags: []string{"attack.t1078"}, Revision: "rev", Type: "detection"},
		Window:  &alertv1.Window{StartMs: 1_700_000_000_000, EndMs: 1_700_000_000_000},
		Sources: []string{"aws/cloudtrail"}, Count: 1, IngestMs: time.Now().UnixMilli(),
	}
	for _, c := range change {
		c(a)
	}
	return a
}

// publish appends alerts as the correlator does.
func (w *world) publish(alerts ...*alertv1.Alert) {
	w.t.Helper()
	msgs := make([]bus.Message, 0, len(alerts))
	for _, a := range alerts {
		value, err := proto.Marshal(a)
		require.NoError(w.t, err)
		msgs = append(msgs, bus.Message{Key: []byte(a.GetId()), Value: value, Headers: []bus.Header{
			{Key: event.HeaderSchema, Value: []byte("stormbell.alert.v1.Alert")},
			{Key: event.HeaderTenant, Value: []byte(a.GetTenant())},
			{Key: event.HeaderTraceparent, Value: []byte(traceparent(a.GetId()))},
		}})
	}
	require.NoError(w.t, w.bus.ProduceKeyed(w.t.Context(), bus.TopicAlerts, msgs))
}

// traceparent is made of an alert's id.
func traceparent(id string) string {
	return fmt.Sprintf("00-%032x-%016x-01", []byte(id)[:16], []byte(id)[16:24])
}

// read returns all records of a topic.
func (w *world) read(topic string) []bus.Record {
	w.t.Helper()
	var out []bus.Record
	n, err := w.bus.Partitions(w.t.Context(), topic)
	require.NoError(w.t, err)
	for p := range n {
		first, end, err := w.bus.Offsets(w.t.Context(), topic, p)
		require.NoError(w.t, err)
		require.NoError(w.t, w.bus.Read(w.t.Context(), topic, p, first, end, func(records []bus.Record) error {
			out = append(out, records...)
			return nil
		}))
	}
	return out
}

// deliveries returns what the topic says, by alert.
func (w *world) deliveries() (routed map[string][]*deliveryv1.Routed, attempts map[string][]*deliveryv1.Attempt) {
	w.t.Helper()
	routed, attempts = map[string][]*deliveryv1.Routed{}, map[string][]*deliveryv1.Attempt{}
	for _, r := range w.read(bus.TopicDeliveries) {
		switch schema := string(r.Header(event.HeaderSchema)); schema {
		case "stormbell.delivery.v1.Routed":
			d := new(deliveryv1.Routed)
			require.NoError(w.t, proto.Unmarshal(r.Value, d))
			require.Equal(w.t, d.GetAlertId(), string(r.Key))
			routed[d.GetAlertId()] = append(routed[d.GetAlertId()], d)
		case "stormbell.delivery.v1.Attempt":
			a := new(deliveryv1.Attempt)
			require.NoError(w.t, proto.Unmarshal(r.Value, a))
			require.Equal(w.t, a.GetAlertId(), string(r.Key))
			attempts[a.GetAlertId()] = append(attempts[a.GetAlertId()], a)
		default:
			require.Fail(w.t, "unknown schema", schema)
		}
	}
	return routed, attempts
}

// ended waits until each alert has n deliveries that ended, and returns their
// attempts.
func (w *world) ended(n int, alerts ...*alertv1.Alert) map[string][]*deliveryv1.Attempt {
	w.t.Helper()
	var attempts map[string][]*deliveryv1.Attempt
	w.until(func() bool {
		_, attempts = w.deliveries()
		return !slices.ContainsFunc(alerts, func(a *alertv1.Alert) bool { return len(terminal(attempts[a.GetId()])) < n })
	})
	return attempts
}

// terminal returns the endpoints whose delivery ended, with how.
func terminal(attempts []*deliveryv1.Attempt) map[string]deliveryv1.Outcome {
	out := map[string]deliveryv1.Outcome{}
	for _, a := range attempts {
		if a.GetOutcome() != deliveryv1.Outcome_OUTCOME_FAILED {
			out[a.GetEndpointId()] = a.GetOutcome()
		}
	}
	return out
}

func (w *world) until(holds func() bool) {
	w.t.Helper()
	require.Eventually(w.t, holds, patience, look, "%s", w.logs)
}

// routed waits for the decisions on alerts.
func (w *world) routed(alerts ...*alertv1.Alert) map[string][]*deliveryv1.Routed {
	w.t.Helper()
	var routed map[string][]*deliveryv1.Routed
	w.until(func() bool {
		routed, _ = w.deliveries()
		return !slices.ContainsFunc(alerts, func(a *alertv1.Alert) bool { return len(routed[a.GetId()]) == 0 })
	})
	return routed
}

// A receiver is a subscriber's server. It keeps all that it was sent.
type receiver struct {
	*httptest.Server
	t       testing.TB
	release chan struct{}

	mu  sync.Mutex
	got []received
	// answer, if set, is called for each request, outside the lock.
	answer func(n int, w http.ResponseWriter, r *http.Request)
}

type received struct {
	header http.Header
	body   []byte
}

func (w *world) receiver(answer func(n int, rw http.ResponseWriter, r *http.Request)) *receiver {
	r := &receiver{t: w.t, answer: answer, release: make(chan struct{})}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	w.t.Cleanup(func() {
		close(r.release)
		r.Close()
	})
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.got = append(r.got, received{req.Header.Clone(), body})
	n := len(r.got)
	r.mu.Unlock()
	if r.answer != nil {
		r.answer(n, w, req)
	}
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// bodies groups what arrived by webhook-id and fails where one id had two bodies.
func (r *receiver) bodies() map[string]int {
	r.t.Helper()
	first, count := map[string][]byte{}, map[string]int{}
	for _, g := range r.all() {
		id := g.header.Get("webhook-id")
		if count[id]++; count[id] == 1 {
			first[id] = g.body
		}
		require.Equal(r.t, string(first[id]), string(g.body), "one id, one body")
	}
	return count
}

// verify has the reference library verify a delivery.
func verify(t testing.TB, secret string, g received) {
	t.Helper()
	hook, err := webhooks.NewWebhook(secret)
	require.NoError(t, err)
	require.NoError(t, hook.Verify(g.body, g.header))
}

func data(t testing.TB, g received) map[string]any {
	t.Helper()
	var body map[string]any
	require.NoError(t, json.Unmarshal(g.body, &body))
	return body
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
