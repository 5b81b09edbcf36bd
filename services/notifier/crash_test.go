package notifier_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// A memory is a queue that can lose everything.
type memory struct {
	queue notifier.Queue
	lose  func()
}

// memories runs a test on both queues.
func memories(t *testing.T, run func(t *testing.T, m memory)) {
	t.Run("memory", func(t *testing.T) {
		q := queue.NewMemory()
		run(t, memory{q, q.Flush})
	})
	t.Run("redis", func(t *testing.T) {
		client := redistest.Start(t, redistest.Options{}).Client(t)
		run(t, memory{queue.NewRedis(client, "sb"), func() { require.NoError(t, client.FlushAll(t.Context()).Err()) }})
	})
}

// crashAt injects one crash, when a point is reached for the nth time.
func crashAt(p notifier.Point, nth int64) option {
	var reached atomic.Int64
	return func(_ *notifier.Config, d *notifier.Deps) {
		d.Fault = func(at notifier.Point) error {
			if at == p && reached.Add(1) == nth {
				return errors.New("crash")
			}
			return nil
		}
	}
}

// A crash after any step, with the queue kept or lost with it, changes neither
// whom an alert goes to nor under which id, and loses nothing.
func TestCrash(t *testing.T) {
	memories(t, func(t *testing.T, m memory) {
		for _, p := range notifier.Points() {
			for _, lost := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/lost=%t", p, lost), func(t *testing.T) {
					m.lose()
					crash(t, m, p, lost)
				})
			}
		}
	})
}

func crash(t *testing.T, m memory, p notifier.Point, lost bool) {
	w := newWorld(t)
	w.queue = m.queue
	good := w.receiver(nil)
	// Answers 500 to every first attempt, so that there are retries.
	seen := make(chan map[string]bool, 1)
	seen <- map[string]bool{}
	shaky := w.receiver(func(_ int, rw http.ResponseWriter, r *http.Request) {
		known := <-seen
		if id := r.Header.Get("webhook-id"); !known[id] {
			known[id] = true
			rw.WriteHeader(500)
		}
		seen <- known
	})
	w.subscribe(good.URL)
	w.subscribe(shaky.URL)
	var alerts []*alertv1.Alert
	for range 12 {
		alerts = append(alerts, w.newAlert())
	}
	w.publish(alerts[:4]...)
	// A breaker would only stretch the test: half of all answers are failures.
	noBreaker := func(c *notifier.Config, _ *notifier.Deps) { c.BreakerRequests = 1000 }
	n := w.start(crashAt(p, 2), noBreaker)
	w.publish(alerts[4:]...)
	require.ErrorContains(t, n.wait(), "injected fault: crash")

	routed, _ := w.deliveries()
	decided := len(routed)
	require.Positive(t, decided)
	late := w.receiver(nil)
	w.subscribe(late.URL)
	if lost {
		m.lose()
	}
	w.clock.advance(notifier.DefaultConfig().Lease) // what the crash has left leased
	n = w.start(noBreaker)
	after := w.newAlert()
	w.publish(after)
	w.until(func() bool {
		w.clock.advance(100 * time.Millisecond) // towards the retries, but no lease ends early
		routed, attempts := w.deliveries()
		for _, a := range append(alerts, after) {
			d := routed[a.GetId()]
			if len(d) == 0 || len(terminal(attempts[a.GetId()])) < len(d[0].GetTargets()) {
				return false
			}
		}
		return true
	})
	require.NoError(t, n.stop())

	again, attempts := w.deliveries()
	for _, a := range append(alerts, after) {
		// A produce that was under way at the crash may land behind what the
		// next owner has read; the first decision counts all the same.
		want := map[string]deliveryv1.Outcome{}
		for _, target := range again[a.GetId()][0].GetTargets() {
			want[target.GetEndpointId()] = succeeded
		}
		require.Equal(t, want, terminal(attempts[a.GetId()]), "routed once")
		for _, x := range attempts[a.GetId()] {
			require.Equal(t, alert.WebhookID(a), x.GetWebhookId())
		}
		require.Positive(t, good.bodies()[alert.WebhookID(a)])
		require.GreaterOrEqual(t, shaky.bodies()[alert.WebhookID(a)], 2)
	}
	for id := range routed {
		require.Len(t, again[id][0].GetTargets(), 2, "what was decided before stays")
	}
	require.LessOrEqual(t, len(late.bodies()), len(alerts)+1-decided, "a new webhook gets no history")
	require.Positive(t, late.bodies()[alert.WebhookID(after)])
}

// The queue loses everything while the notifier runs and deliveries wait: the
// log gives them back, with their number and due time.
func TestLoss(t *testing.T) {
	memories(t, func(t *testing.T, m memory) {
		w := newWorld(t)
		w.queue = m.queue
		var healthy atomic.Bool
		r := w.receiver(func(_ int, rw http.ResponseWriter, _ *http.Request) {
			if !healthy.Load() {
				rw.WriteHeader(500)
			}
		})
		done := w.receiver(nil)
		h := w.subscribe(r.URL)
		w.subscribe(done.URL)
		n := w.start()
		var alerts []*alertv1.Alert
		for range 5 {
			alerts = append(alerts, w.newAlert())
		}
		w.publish(alerts...)
		due := map[string]int64{}
		for _, a := range alerts {
			for _, x := range w.attempts(a, 2) {
				if x.GetEndpointId() == h.GetId() {
					due[a.GetId()] = x.GetNextDueMs()
				}
			}
		}
		m.lose()
		healthy.Store(true)
		b := w.newAlert()
		w.publish(b)
		w.ended(2, b)
		for _, ms := range due {
			w.advanceTo(ms)
		}
		attempts := w.ended(2, alerts...)
		for _, a := range alerts {
			for _, x := range attempts[a.GetId()] {
				if x.GetEndpointId() == h.GetId() && x.GetOutcome() == succeeded {
					require.Equal(t, uint32(2), x.GetNumber(), "the number goes on")
					require.GreaterOrEqual(t, x.GetTimeMs(), due[a.GetId()], "the due time holds")
				}
			}
			require.Equal(t, 1, done.bodies()[alert.WebhookID(a)], "what was done stays done")
			require.Equal(t, 2, r.bodies()[alert.WebhookID(a)])
		}
		routed, _ := w.deliveries()
		for _, a := range alerts {
			require.Len(t, routed[a.GetId()], 1)
		}
		w.until(func() bool { return n.Ready() == nil })
	})
}

// Redis comes back with an older state: the end of its append-only file is gone.
func TestCutTail(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	w := newWorld(t)
	w.queue = queue.NewRedis(client, "sb")
	var healthy atomic.Bool
	r := w.receiver(func(_ int, rw http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			rw.WriteHeader(500)
		}
	})
	w.subscribe(r.URL)
	w.start()
	file := filepath.Join(server.Dir, "appendonlydir", "appendonly.aof.1.incr.aof")
	size := func() int64 {
		info, err := os.Stat(file)
		require.NoError(t, err)
		return info.Size()
	}
	var alerts []*alertv1.Alert
	early := w.newAlert()
	w.publish(early)
	w.attempts(early, 1)
	cut := size()
	for range 6 {
		alerts = append(alerts, w.newAlert())
	}
	w.publish(alerts...)
	for _, a := range alerts {
		w.attempts(a, 1)
	}
	server.Kill(t)
	require.Greater(t, size(), cut)
	require.NoError(t, os.Truncate(file, cut))
	server.Up(t)
	healthy.Store(true)
	w.clock.advance(time.Minute)
	attempts := w.ended(1, append(alerts, early)...)
	routed, _ := w.deliveries()
	for _, a := range append(alerts, early) {
		require.Len(t, routed[a.GetId()], 1)
		for _, outcome := range terminal(attempts[a.GetId()]) {
			require.Equal(t, succeeded, outcome)
		}
		require.GreaterOrEqual(t, r.bodies()[alert.WebhookID(a)], 2)
	}
}

// The partitions of a notifier that ends go on elsewhere.
func TestTakeOver(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(nil)
	w.subscribe(r.URL)
	first := w.start()
	a := w.newAlert()
	w.publish(a)
	w.ended(1, a)
	w.start()
	var alerts []*alertv1.Alert
	for range 10 {
		alerts = append(alerts, w.newAlert())
		w.publish(alerts[len(alerts)-1])
	}
	require.NoError(t, first.stop())
	more := w.newAlert()
	w.publish(more)
	w.ended(1, append(alerts, more)...)
	w.until(func() bool { return len(r.bodies()) == len(alerts)+2 })
}
