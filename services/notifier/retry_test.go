package notifier_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/signature"
	"github.com/stormbell/stormbell/services/notifier"
)

const (
	succeeded = deliveryv1.Outcome_OUTCOME_SUCCEEDED
	failed    = deliveryv1.Outcome_OUTCOME_FAILED
	parked    = deliveryv1.Outcome_OUTCOME_PARKED
	cancelled = deliveryv1.Outcome_OUTCOME_CANCELLED
)

func status(code int) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// attempts waits until an alert has had n attempts.
func (w *world) attempts(a *alertv1.Alert, n int) []*deliveryv1.Attempt {
	w.t.Helper()
	var found []*deliveryv1.Attempt
	w.until(func() bool {
		_, all := w.deliveries()
		found = all[a.GetId()]
		return len(found) >= n
	})
	return found
}

// advanceTo lets the clock jump to when an attempt is due.
func (w *world) advanceTo(ms int64) {
	w.clock.advance(max(0, time.UnixMilli(ms).Sub(w.clock.now())))
}

func TestScheduleUntilParked(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(status(500))
	h := w.subscribe(r.URL)
	w.start()
	a := w.newAlert()
	w.publish(a)
	schedule := notifier.DefaultConfig().Schedule
	for n := 1; n < len(schedule); n++ {
		last := w.attempts(a, n)[n-1]
		require.Equal(t, failed, last.GetOutcome())
		require.Equal(t, "the endpoint answered 500", last.GetError())
		pause := float64(last.GetNextDueMs() - last.GetTimeMs() - last.GetDurationMs())
		require.InDelta(t, float64(schedule[n].Milliseconds()), pause, float64(schedule[n].Milliseconds())/10+2)
		w.advanceTo(last.GetNextDueMs())
	}
	all := w.attempts(a, len(schedule))
	require.Len(t, all, 10)
	for i, x := range all {
		require.Equal(t, uint32(i+1), x.GetNumber())
		require.Equal(t, alert.WebhookID(a), x.GetWebhookId())
		if i > 0 {
			require.GreaterOrEqual(t, x.GetTimeMs(), all[i-1].GetNextDueMs(), "never early")
		}
	}
	require.Equal(t, parked, all[9].GetOutcome())
	require.Zero(t, all[9].GetNextDueMs())
	require.Equal(t, map[string]int{alert.WebhookID(a): 10}, r.bodies())
	key, err := signature.ParseSecret(h.secret)
	require.NoError(t, err)
	stamps := map[string]bool{}
	for _, g := range r.all() {
		stamp := g.header.Get(signature.HeaderTimestamp)
		stamps[stamp] = true
		seconds, err := strconv.ParseInt(stamp, 10, 64)
		require.NoError(t, err)
		require.NoError(t, signature.Verify(key, g.header.Get(signature.HeaderID), stamp, g.header.Get(signature.HeaderSignature), g.body, time.Unix(seconds, 0)))
	}
	require.Len(t, stamps, 10, "signed anew")
}

func TestRetryAfter(t *testing.T) {
	cases := []struct {
		name   string
		status int
		header func(now time.Time) string
		least  time.Duration
		most   time.Duration
	}{
		{"seconds above the schedule", 503, func(time.Time) string { return "120" }, 120 * time.Second, 121 * time.Second},
		{"a date", 503, func(now time.Time) string { return now.Add(time.Hour).UTC().Format(http.TimeFormat) }, time.Hour - 2*time.Second, time.Hour + time.Second},
		{"below the schedule", 500, func(time.Time) string { return "1" }, 4500 * time.Millisecond, 5600 * time.Millisecond},
		{"more than a day", 429, func(time.Time) string { return "99999999" }, 24 * time.Hour, 24*time.Hour + time.Second},
		{"nonsense", 500, func(time.Time) string { return "soon" }, 4500 * time.Millisecond, 5600 * time.Millisecond},
	}
	w := newWorld(t)
	w.start()
	for i, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := w.receiver(func(_ int, rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Retry-After", tc.header(w.clock.now()))
				rw.WriteHeader(tc.status)
			})
			rule := fmt.Sprint("rule-", i)
			w.subscribe(r.URL, func(s *controlv1.Subscription) { s.Filter = &controlv1.Filter{RuleIds: []string{rule}} })
			a := w.newAlert(func(a *alertv1.Alert) { a.Rule.Id = rule })
			w.publish(a)
			first := w.attempts(a, 1)[0]
			pause := time.Duration(first.GetNextDueMs()-first.GetTimeMs()) * time.Millisecond
			require.GreaterOrEqual(t, pause, tc.least)
			require.LessOrEqual(t, pause-time.Duration(first.GetDurationMs())*time.Millisecond, tc.most)
		})
	}
}

func TestAnswers(t *testing.T) {
	cases := []struct {
		name    string
		status  int
		outcome deliveryv1.Outcome
		reason  string
	}{
		{"200", 200, succeeded, ""},
		{"204", 204, succeeded, ""},
		{"299", 299, succeeded, ""},
		{"301", 301, failed, "the endpoint answered 301: redirects are not followed"},
		{"307", 307, failed, "the endpoint answered 307: redirects are not followed"},
		{"308", 308, failed, "the endpoint answered 308: redirects are not followed"},
		{"400", 400, failed, "the endpoint answered 400"},
		{"404", 404, failed, "the endpoint answered 404"},
		{"410", 410, parked, "the endpoint answered 410: the webhook is disabled"},
		{"503", 503, failed, "the endpoint answered 503"},
	}
	w := newWorld(t)
	elsewhere := w.receiver(nil)
	w.start()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := w.receiver(func(_ int, rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Location", elsewhere.URL)
				rw.WriteHeader(tc.status)
				_, _ = rw.Write([]byte("as it is"))
			})
			h := w.subscribe(r.URL, func(s *controlv1.Subscription) { s.Filter = &controlv1.Filter{RuleIds: []string{tc.name}} })
			a := w.newAlert(func(a *alertv1.Alert) { a.Rule.Id = tc.name })
			w.publish(a)
			got := w.attempts(a, 1)[0]
			require.Equal(t, tc.outcome, got.GetOutcome())
			require.Equal(t, tc.reason, got.GetError())
			require.Equal(t, int32(tc.status), got.GetStatusCode())
			if tc.status != 204 {
				require.Equal(t, "as it is", string(got.GetResponse()))
			}
			require.NoError(t, w.view.Sync(t.Context()))
			now, ok := w.view.Subscription("acme", h.GetId())
			require.True(t, ok)
			require.Equal(t, tc.status == 410, now.GetDisabled())
			if tc.status == 410 {
				require.Equal(t, "the endpoint answered 410 Gone", now.GetDisabledReason())
				require.NotEqual(t, h.GetRevision(), now.GetRevision())
			}
		})
	}
	require.Empty(t, elsewhere.all(), "no redirect is followed")
}

// A status that speaks of the endpoint stops all its deliveries, not only the
// one that met it.
func TestThrottledEndpoint(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(func(n int, rw http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			rw.Header().Set("Retry-After", "60")
			rw.WriteHeader(429)
		}
	})
	w.subscribe(r.URL)
	other := w.receiver(nil)
	w.subscribe(other.URL)
	w.start()
	a := w.newAlert()
	w.publish(a)
	first := w.attempts(a, 2) // one of each endpoint
	var limited *deliveryv1.Attempt
	for _, x := range first {
		if x.GetOutcome() == failed {
			limited = x
		}
	}
	b := w.newAlert()
	w.publish(b)
	w.attempts(b, 1) // the other endpoint's
	require.Len(t, r.all(), 1)
	w.advanceTo(limited.GetTimeMs() + limited.GetDurationMs() + 60_000 + 100)
	for _, all := range w.ended(2, a, b) {
		for _, x := range all {
			if x.GetEndpointId() == limited.GetEndpointId() && x != limited && x.GetOutcome() == succeeded {
				require.GreaterOrEqual(t, x.GetTimeMs(), limited.GetTimeMs()+60_000)
			}
		}
	}
}

func TestSubscriptionChanges(t *testing.T) {
	w := newWorld(t)
	broken, whole := w.receiver(status(500)), w.receiver(nil)
	removed, disabled, expired, moved := w.subscribe(broken.URL), w.subscribe(broken.URL), w.subscribe(broken.URL), w.subscribe(broken.URL)
	w.start()
	a := w.newAlert()
	w.publish(a)
	first := w.attempts(a, 4)
	require.NoError(t, w.view.Delete(t.Context(), "subscription/acme/"+removed.GetId()))
	disabled.Disabled, disabled.DisabledReason = true, "disabled by request"
	w.put(disabled.Subscription)
	expired.ExpiresMs = 1
	w.put(expired.Subscription)
	fresh := signature.NewSecret()
	moved.Url, moved.Secret, moved.Revision = w.seal(moved.Subscription, "url", whole.URL), w.seal(moved.Subscription, "secret", fresh), "r2"
	w.put(moved.Subscription)
	for _, x := range first {
		w.advanceTo(x.GetNextDueMs())
	}
	all := w.ended(4, a)[a.GetId()]
	require.Equal(t, map[string]deliveryv1.Outcome{
		removed.GetId(): cancelled, disabled.GetId(): parked, expired.GetId(): cancelled, moved.GetId(): succeeded,
	}, terminal(all))
	reasons := map[string]string{}
	for _, x := range all[4:] {
		reasons[x.GetEndpointId()] = x.GetError()
	}
	require.Equal(t, map[string]string{
		removed.GetId(): "the webhook was removed", disabled.GetId(): "the webhook is disabled: disabled by request",
		expired.GetId(): "the webhook has expired", moved.GetId(): "",
	}, reasons)
	require.Len(t, broken.all(), 4)
	require.Len(t, whole.all(), 1)
	verifyAt(t, fresh, whole.all()[0])
}

// verifyAt verifies a delivery that a test's clock has dated.
func verifyAt(t *testing.T, secret string, g received) {
	t.Helper()
	key, err := signature.ParseSecret(secret)
	require.NoError(t, err)
	seconds, err := strconv.ParseInt(g.header.Get(signature.HeaderTimestamp), 10, 64)
	require.NoError(t, err)
	require.NoError(t, signature.Verify(key, g.header.Get(signature.HeaderID), fmt.Sprint(seconds), g.header.Get(signature.HeaderSignature), g.body, time.Unix(seconds, 0)))
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(nil)
	before := signature.NewSecret()
	h := w.subscribe(r.URL, func(s *controlv1.Subscription) {
		s.PreviousSecret = w.seal(s, "previous_secret", before)
		s.PreviousSecretUntilMs = time.Now().Add(time.Hour).UnixMilli()
	})
	w.start()
	a := w.newAlert()
	w.publish(a)
	w.ended(1, a)
	verify(t, h.secret, r.all()[0])
	verify(t, before, r.all()[0])
	w.clock.advance(time.Hour)
	b := w.newAlert()
	w.publish(b)
	w.ended(1, b)
	verifyAt(t, h.secret, r.all()[1])
	require.NotContains(t, r.all()[1].header.Get(signature.HeaderSignature), " ", "the secret before has ended")
}

// A test goes to its endpoint alone, whatever the filter, and once.
func TestOnlyOnce(t *testing.T) {
	w := newWorld(t)
	r, other := w.receiver(status(500)), w.receiver(nil)
	h := w.subscribe(r.URL, func(s *controlv1.Subscription) { s.Filter = &controlv1.Filter{MinLevel: "critical"} })
	w.subscribe(other.URL)
	w.start()
	a := w.newAlert(func(a *alertv1.Alert) { a.Type, a.OnlyEndpoint = alert.TypeTest, h.GetId() })
	w.publish(a)
	all := w.ended(1, a)[a.GetId()]
	require.Len(t, all, 1)
	require.Equal(t, parked, all[0].GetOutcome())
	require.Equal(t, int32(500), all[0].GetStatusCode())
	require.Equal(t, alert.TypeTest, data(t, r.all()[0])["type"])
	b := w.newAlert(func(b *alertv1.Alert) { b.Rule.Level = "high" })
	w.publish(b)
	w.ended(1, b)
	require.Len(t, r.all(), 1)
	require.Len(t, other.all(), 1)
}
