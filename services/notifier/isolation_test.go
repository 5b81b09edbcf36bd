package notifier_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/notifier"
)

// hang answers nothing until the test ends or the client leaves.
func (r *receiver) hang(req *http.Request) {
	select {
	case <-r.release:
	case <-req.Context().Done():
	}
}

// An endpoint that hangs takes one slot, and all others go on.
func TestHangingEndpoint(t *testing.T) {
	w := newWorld(t)
	var under, most atomic.Int64
	var stuck *receiver
	stuck = w.receiver(func(_ int, _ http.ResponseWriter, r *http.Request) {
		if n := under.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer under.Add(-1)
		stuck.hang(r)
	})
	good := w.receiver(nil)
	w.subscribe(stuck.URL)
	healthy := w.subscribe(good.URL)
	w.start(func(c *notifier.Config, _ *notifier.Deps) { c.Workers = 4 })
	var alerts []*alertv1.Alert
	for range 40 {
		alerts = append(alerts, w.newAlert())
	}
	w.publish(alerts...)
	attempts := w.ended(1, alerts...)
	for _, a := range alerts {
		require.Equal(t, map[string]deliveryv1.Outcome{healthy.GetId(): succeeded}, terminal(attempts[a.GetId()]))
	}
	require.Equal(t, int64(1), most.Load())
}

// A lease that ended settles nothing: the attempt that came after it counts.
func TestStaleLease(t *testing.T) {
	w := newWorld(t)
	var hold atomic.Bool
	held, release := make(chan struct{}), make(chan struct{})
	r := w.receiver(func(n int, rw http.ResponseWriter, _ *http.Request) {
		if hold.CompareAndSwap(true, false) {
			close(held)
			<-release
		} else if n == 3 { // the second request of the alert
			rw.WriteHeader(500)
		}
	})
	w.subscribe(r.URL)
	reader := sdkmetric.NewManualReader()
	w.start(func(_ *notifier.Config, d *notifier.Deps) {
		d.Meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	})
	first := w.newAlert() // makes room for two at once
	w.publish(first)
	w.ended(1, first)
	hold.Store(true)
	a := w.newAlert()
	w.publish(a)
	<-held
	w.clock.advance(notifier.DefaultConfig().Lease)
	due := w.attempts(a, 1)[0].GetNextDueMs()
	close(release)
	w.until(func() bool { return sum(t, reader, "stormbell_notifier_stale_leases_total") == 1 })
	w.advanceTo(due)
	attempts := w.ended(1, a)[a.GetId()]
	require.Len(t, attempts, 2, "the 2xx that came too late counts for nothing")
	require.Equal(t, failed, attempts[0].GetOutcome())
	require.Equal(t, succeeded, attempts[1].GetOutcome())
	require.Equal(t, uint32(2), attempts[1].GetNumber())
	require.Equal(t, 3, r.bodies()[alert.WebhookID(a)], "all under one id")
}

// sum adds up a counter's points.
func sum(t *testing.T, reader sdkmetric.Reader, name string) int64 {
	t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &rm))
	var total int64
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			if s, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
				for _, p := range s.DataPoints {
					total += p.Value
				}
			}
		}
	}
	return total
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	good, bad := w.receiver(nil), w.receiver(status(410))
	w.subscribe(good.URL)
	w.subscribe(bad.URL)
	reader := sdkmetric.NewManualReader()
	w.start(func(_ *notifier.Config, d *notifier.Deps) {
		d.Meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	})
	a, nobody := w.newAlert(), w.newAlert(func(a *alertv1.Alert) { a.Tenant = "other" })
	w.publish(a, nobody)
	w.ended(2, a)
	w.routed(nobody)
	for name, want := range map[string]int64{
		"stormbell_notifier_attempts_total": 2, "stormbell_notifier_parked_total": 1,
		"stormbell_notifier_routed_total": 2, "stormbell_notifier_unsubscribed_alerts_total": 1,
	} {
		w.until(func() bool { return sum(t, reader, name) == want })
	}
	var rm metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &rm))
	seen := map[string]uint64{}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			seen[m.Name]++
			if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, p := range h.DataPoints {
					seen[m.Name] += p.Count
					_, labelled := p.Attributes.Value("endpoint")
					require.False(t, labelled)
				}
			}
		}
	}
	require.Equal(t, uint64(2), seen["stormbell_notifier_event_to_webhook_seconds"], "one delivery was a success")
	require.Equal(t, uint64(3), seen["stormbell_notifier_delivery_seconds"])
	for _, name := range []string{"stormbell_notifier_queue_depth", "stormbell_notifier_lag_records", "stormbell_notifier_oldest_alert_age_seconds"} {
		require.Positive(t, seen[name], name)
	}
}

// Every attempt is a child of the alert's own context and later ones link to
// the first; the receiver sees the attempt's span, and no baggage.
func TestTrace(t *testing.T) {
	w := newWorld(t)
	spans := tracetest.NewSpanRecorder()
	w.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	r := w.receiver(func(n int, rw http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			rw.WriteHeader(500)
		}
	})
	w.subscribe(r.URL)
	w.start()
	a := w.newAlert()
	w.publish(a)
	for n := 1; n < 3; n++ {
		w.advanceTo(w.attempts(a, n)[n-1].GetNextDueMs())
	}
	attempts := w.ended(1, a)[a.GetId()]
	require.Len(t, attempts, 3)
	var sent []sdktrace.ReadOnlySpan
	routed := 0
	for _, s := range spans.Ended() {
		require.Equal(t, traceparent(a.GetId()), "00-"+s.Parent().TraceID().String()+"-"+s.Parent().SpanID().String()+"-01", s.Name())
		switch s.Name() {
		case "notify deliver":
			sent = append(sent, s)
		case "notify route":
			routed++
		}
		for _, kv := range s.Attributes() {
			require.NotContains(t, kv.Value.String(), "127.0.0.1")
		}
	}
	require.Equal(t, 1, routed)
	require.Len(t, sent, 3)
	for i, s := range sent {
		require.Equal(t, trace.SpanKindClient, s.SpanKind())
		require.Equal(t, "00-"+s.SpanContext().TraceID().String()+"-"+s.SpanContext().SpanID().String()+"-01", r.all()[i].header.Get("traceparent"))
		require.Empty(t, r.all()[i].header.Get("baggage"))
		require.Equal(t, attempts[i].GetTraceId(), s.SpanContext().TraceID().String())
		require.Equal(t, attempts[i].GetSpanId(), s.SpanContext().SpanID().String())
		if i == 0 {
			require.Empty(t, s.Links())
			continue
		}
		require.Len(t, s.Links(), 1)
		require.Equal(t, sent[0].SpanContext().SpanID(), s.Links()[0].SpanContext.SpanID())
	}
}

// What a subscription seals is sent, and found nowhere else, not even where
// the receiver repeats it.
func TestSecretsStayInside(t *testing.T) {
	const canary = "canary-4711-secret"
	w := newWorld(t)
	spans := tracetest.NewSpanRecorder()
	w.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	r := w.receiver(func(_ int, rw http.ResponseWriter, req *http.Request) {
		rw.WriteHeader(500)
		_, _ = rw.Write([]byte("you sent " + req.Header.Get("X-Token") + " to " + req.URL.String()))
	})
	refusing := w.receiver(nil)
	refusing.Close()
	headers := func(s *controlv1.Subscription) { s.Headers = w.seal(s, "headers", `{"X-Token":"`+canary+`"}`) }
	w.subscribe(r.URL+"/"+canary+"?key="+canary, headers)
	w.subscribe(refusing.URL+"/"+canary, headers)
	n := w.start()
	a := w.newAlert()
	w.publish(a)
	attempts := w.attempts(a, 2)
	require.Equal(t, canary, r.all()[0].header.Get("X-Token"))
	require.NoError(t, n.stop())
	for _, x := range attempts {
		switch x.GetStatusCode() {
		case 500:
			require.Equal(t, "you sent [redacted] to [redacted]", string(x.GetResponse()))
		default:
			require.Equal(t, "connection refused", x.GetError())
		}
	}
	for _, topic := range []string{bus.TopicDeliveries, bus.TopicAlerts, bus.TopicControl, bus.TopicDLQ} {
		for _, rec := range w.read(topic) {
			require.NotContains(t, string(rec.Value), canary, topic)
		}
	}
	require.NotContains(t, w.logs.String(), canary)
	require.NotContains(t, w.logs.String(), "127.0.0.1")
	for _, s := range spans.Ended() {
		require.NotContains(t, s.Status().Description, canary)
		for _, kv := range s.Attributes() {
			require.NotContains(t, kv.Value.String(), canary)
		}
	}
}

// A webhook whose secrets cannot be opened, or sent, fails visibly.
func TestUnusableSubscription(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(nil)
	cases := map[string]struct {
		change func(*controlv1.Subscription)
		reason string
	}{
		"moved secret": {func(s *controlv1.Subscription) {
			s.Secret = w.seal(&controlv1.Subscription{Tenant: "acme", Id: "other"}, "secret", "whsec_x")
		}, "the webhook cannot be opened: open subscription secret: sealed value does not open: it was changed, or moved from another place"},
		"bad secret":       {func(s *controlv1.Subscription) { s.Secret = w.seal(s, "secret", "password") }, "the webhook's secret cannot be used: signing secret does not begin with whsec_"},
		"forbidden header": {func(s *controlv1.Subscription) { s.Headers = w.seal(s, "headers", `{"Host":"a"}`) }, "the webhook's headers cannot be sent: custom header Host may not be set"},
		"denied address": {
			func(s *controlv1.Subscription) { s.Url = w.seal(s, "url", "https://10.1.2.3/") },
			"this host is on a network that webhooks may not reach: an operator can list the network in egress.allow",
		},
	}
	w.start()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w.subscribe(r.URL, tc.change, func(s *controlv1.Subscription) { s.Filter = &controlv1.Filter{RuleIds: []string{name}} })
			a := w.newAlert(func(a *alertv1.Alert) { a.Rule.Id = name })
			w.publish(a)
			x := w.attempts(a, 1)[0]
			require.Equal(t, failed, x.GetOutcome())
			require.Equal(t, tc.reason, x.GetError())
			require.Zero(t, x.GetStatusCode())
		})
	}
	require.Empty(t, r.all())
}

// What cannot be delivered to anybody goes to dlq, and what follows goes on.
func TestPoison(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(nil)
	w.subscribe(r.URL)
	w.start()
	good := w.newAlert()
	key := []byte(good.GetId()) // all in one partition
	value := func(a *alertv1.Alert) []byte {
		b, err := proto.Marshal(a)
		require.NoError(t, err)
		return b
	}
	schema := []bus.Header{{Key: event.HeaderSchema, Value: []byte("stormbell.alert.v1.Alert")}, {Key: event.HeaderTenant, Value: []byte("acme")}}
	require.NoError(t, w.bus.ProduceKeyed(t.Context(), bus.TopicAlerts, []bus.Message{
		{Key: key, Value: []byte("\xff\xff\xff"), Headers: schema},
		{Key: key, Value: value(good)},
		{Key: key, Value: value(w.newAlert()), Headers: schema},
		{Key: key, Value: value(&alertv1.Alert{Id: good.GetId()}), Headers: schema},
		{Key: key, Value: value(&alertv1.Alert{Id: good.GetId(), Tenant: "acme", Events: []*alertv1.Event{{Event: []byte("{")}}}), Headers: schema},
	}))
	w.publish(good)
	w.ended(1, good)
	var reasons []string
	for _, rec := range w.read(bus.TopicDLQ) {
		d := new(dlqv1.DeadLetter)
		require.NoError(t, proto.Unmarshal(rec.Value, d))
		require.Equal(t, "notify", d.GetStage())
		require.Equal(t, "alerts", d.GetTopic())
		require.Equal(t, key, d.GetKey())
		reasons = append(reasons, d.GetReason())
	}
	require.Len(t, reasons, 5)
	for _, part := range []string{"do not decode", `unknown schema ""`, "under a key that is not its id", "without id or tenant", "body cannot be written"} {
		require.Contains(t, join(reasons), part)
	}
	require.Equal(t, map[string]int{alert.WebhookID(good): 1}, r.bodies())
}

func join(list []string) string {
	out := ""
	for _, s := range list {
		out += s + "\n"
	}
	return out
}

// A rebuild never needs what lies before the floor, and the floor moves.
func TestFloor(t *testing.T) {
	w := newWorld(t)
	var healthy atomic.Bool
	r := w.receiver(func(_ int, rw http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			rw.WriteHeader(500)
		}
	})
	w.subscribe(r.URL)
	n := w.start(func(c *notifier.Config, _ *notifier.Deps) { c.LookBack = time.Millisecond })
	require.Zero(t, n.Floor(t.Context(), bus.TopicControl, 0))
	a := w.newAlert()
	w.publish(a)
	first := w.attempts(a, 1)[0]
	partition := bus.Partition([]byte(a.GetId()), 4)
	require.Zero(t, n.Floor(t.Context(), bus.TopicAlerts, partition), "the alert waits")
	healthy.Store(true)
	w.advanceTo(first.GetNextDueMs())
	w.ended(1, a)
	// Each commit may say more; it is made again when time has passed.
	w.until(func() bool {
		w.clock.advance(10 * time.Second)
		return n.Floor(t.Context(), bus.TopicAlerts, partition) == 1
	})
}

func TestLeaseMustExceedTimeout(t *testing.T) {
	w := newWorld(t)
	cfg := egress.DefaultClientConfig()
	cfg.Timeout = notifier.DefaultConfig().Lease
	w.sender(cfg)
	_, err := notifier.New(testConfig(), w.deps())
	require.EqualError(t, err, "notifier: lease 30s: a request may take 30s: use at least 32s")
}

// A webhook that is stored before its event is never missed, whichever
// notifier decides.
func TestNewWebhookAtOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	var mu sync.Mutex
	got := map[string]bool{}
	for range 20 {
		r := w.receiver(func(_ int, _ http.ResponseWriter, req *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			got[req.Header.Get("webhook-id")] = true
		})
		h := w.subscribe(r.URL)
		a := w.newAlert()
		w.publish(a)
		w.until(func() bool {
			_, all := w.deliveries()
			_, ended := terminal(all[a.GetId()])[h.GetId()]
			return ended
		})
	}
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 20)
}
