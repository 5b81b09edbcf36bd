package notifier_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

const benchEndpoints = 100

// A quay is a receiver with many endpoints that notes when what arrived.
type quay struct {
	*receiver
	mu       sync.Mutex
	arrivals map[string]time.Time
	all      chan struct{} // closed when all that is wanted has arrived
	want     int
}

// newQuay subscribes endpoints, of which those that hang answer nothing.
func newQuay(w *world, hangs func(i int) bool) *quay {
	q := &quay{arrivals: make(map[string]time.Time), all: make(chan struct{})}
	q.receiver = w.receiver(func(_ int, _ http.ResponseWriter, r *http.Request) {
		var i int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &i)
		if hangs(i) {
			q.hang(r)
			return
		}
		q.arrive(r.Header.Get("webhook-id"))
	})
	for i := range benchEndpoints {
		w.subscribe(fmt.Sprintf("%s/%d", q.URL, i), func(s *controlv1.Subscription) { s.Filter = &controlv1.Filter{RuleIds: []string{fmt.Sprint(i)}} })
	}
	return q
}

func (q *quay) arrive(id string) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.arrivals[id]; !ok {
		q.arrivals[id] = now
		if len(q.arrivals) == q.want {
			close(q.all)
		}
	}
}

// benchAlerts makes alerts, one after the other for each endpoint, with bodies
// of about 1.5 kB.
func (w *world) benchAlerts(n int) ([]*alertv1.Alert, []bus.Message) {
	alerts, msgs := make([]*alertv1.Alert, n), make([]bus.Message, n)
	for i := range alerts {
		a := w.newAlert(func(a *alertv1.Alert) {
			a.Rule.Id = fmt.Sprint(i % benchEndpoints)
			a.Events = []*alertv1.Event{{Id: "e", RuleId: "r", Event: fmt.Appendf(nil, `{"pad":"%0800d"}`, i)}}
		})
		value, err := proto.Marshal(a)
		require.NoError(w.t, err)
		alerts[i], msgs[i] = a, bus.Message{Key: []byte(a.GetId()), Value: value, Headers: []bus.Header{
			{Key: event.HeaderSchema, Value: []byte("stormbell.alert.v1.Alert")}, {Key: event.HeaderTenant, Value: []byte("acme")},
		}}
	}
	return alerts, msgs
}

// BenchmarkDispatch takes alerts from the log to 2xx of 100 local endpoints,
// as fast as it goes: routing, decisions, queue, signatures, requests.
func BenchmarkDispatch(b *testing.B) {
	for _, kind := range []string{"memory", "redis"} {
		b.Run(kind, func(b *testing.B) {
			w := newWorld(b)
			if kind == "redis" {
				w.queue = queue.NewRedis(redistest.Start(b, redistest.Options{}).Client(b), "sb")
			}
			q := newQuay(w, func(int) bool { return false })
			q.want = b.N
			_, msgs := w.benchAlerts(b.N)
			w.start(production)
			b.ReportAllocs()
			b.ResetTimer()
			for part := range slices.Chunk(msgs, 500) {
				require.NoError(b, w.bus.ProduceKeyed(b.Context(), bus.TopicAlerts, part))
			}
			<-q.all
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}

func production(c *notifier.Config, _ *notifier.Deps) {
	d := notifier.DefaultConfig()
	c.Poll, c.Commit = d.Poll, d.Commit
}

// BenchmarkIsolation sends alerts to 100 endpoints at a fixed rate, by intended
// times, once with all of them healthy and once with every other one hanging,
// and reports the p99 from intended time to receipt of the same 50 healthy
// endpoints. It wants a fixed number of alerts, such as -benchtime 10000x.
func BenchmarkIsolation(b *testing.B) {
	const rate = 500 // alerts a second
	run := func(b *testing.B, hangs func(int) bool) float64 {
		w := newWorld(b)
		q := newQuay(w, hangs)
		alerts, msgs := w.benchAlerts(max(b.N, 4*benchEndpoints))
		for i := range alerts {
			if i%benchEndpoints%2 == 0 || !hangs(i%benchEndpoints) {
				q.want++
			}
		}
		n := w.start(production)
		w.until(func() bool { return n.Ready() == nil })
		intended := make([]time.Time, len(msgs))
		begin := time.Now()
		const step = rate / 100 // every 10 ms
		for i := 0; i < len(msgs); i += step {
			at := begin.Add(time.Duration(i) * time.Second / rate)
			if wait := time.Until(at); wait > 0 {
				<-time.After(wait)
			}
			end := min(i+step, len(msgs))
			for j := i; j < end; j++ {
				intended[j] = at
			}
			require.NoError(b, w.bus.ProduceKeyed(b.Context(), bus.TopicAlerts, msgs[i:end]))
		}
		<-q.all
		require.NoError(b, n.stop())
		q.mu.Lock()
		defer q.mu.Unlock()
		var took []time.Duration
		for i, a := range alerts {
			if i%benchEndpoints%2 == 0 && i >= 2*benchEndpoints { // connections are made by then
				took = append(took, q.arrivals[alert.WebhookID(a)].Sub(intended[i]))
			}
		}
		slices.Sort(took)
		return float64(took[len(took)*99/100].Microseconds()) / 1000
	}
	healthy := run(b, func(int) bool { return false })
	hanging := run(b, func(i int) bool { return i%2 == 1 })
	b.ReportMetric(healthy, "healthy-p99-ms")
	b.ReportMetric(hanging, "half-hanging-p99-ms")
	b.ReportMetric(hanging/healthy, "p99-ratio")
	b.ReportMetric(0, "ns/op")
}
