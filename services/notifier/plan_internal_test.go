package notifier

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

func testPlan() plan {
	c := DefaultConfig()
	return plan{c.Schedule, c.Jitter, c.MaxRetryAfter}
}

func TestPlan(t *testing.T) {
	p := testPlan()
	least, most := map[int]time.Duration{}, map[int]time.Duration{}
	for task := range 300 {
		for n, base := range p.schedule {
			d, more := p.pause(fmt.Sprint("msg_", task), "wh", n)
			require.True(t, more)
			again, _ := p.pause(fmt.Sprint("msg_", task), "wh", n)
			require.Equal(t, d, again, "the same names, the same pause")
			require.InDelta(t, float64(base), float64(d), float64(base)/10)
			if least[n] == 0 || d < least[n] {
				least[n] = d
			}
			most[n] = max(most[n], d)
		}
	}
	for n, base := range p.schedule[1:] {
		require.Less(t, float64(least[n+1]), 0.92*float64(base), "all of the range is used")
		require.Greater(t, float64(most[n+1]), 1.08*float64(base))
	}
	_, more := p.pause("msg", "wh", len(p.schedule))
	require.False(t, more)
	var sum time.Duration
	for _, d := range p.schedule {
		sum += d
	}
	require.Equal(t, 75*time.Hour+35*time.Minute+5*time.Second, sum)
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "0.5": 500 * time.Millisecond, "-7": 0, "1e300": 24 * time.Hour, "NaN": 0, "Inf": 24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0, "Sun, 02 Jan 2028 03:04:05 GMT": 24 * time.Hour, "soon": 0,
	} {
		require.Equal(t, want, testPlan().retryAfter(http.Header{"Retry-After": {text}}, now), text)
	}
	require.Zero(t, testPlan().retryAfter(http.Header{}, now))
}

func TestTargets(t *testing.T) {
	a := &alertv1.Alert{
		Id: "a", Tenant: "acme", Sources: []string{"aws/cloudtrail", "vpc"},
		Rule: &alertv1.Rule{Id: "r1", Level: "medium", Tags: []string{"attack.t1078", "cis"}},
	}
	only := func(id string) *alertv1.Alert {
		return &alertv1.Alert{Id: "a", Tenant: "acme", Rule: a.GetRule(), OnlyEndpoint: id}
	}
	cases := []struct {
		name  string
		sub   *controlv1.Subscription
		alert *alertv1.Alert
		match bool
	}{
		{"no filter", &controlv1.Subscription{}, a, true},
		{"empty filter", &controlv1.Subscription{Filter: &controlv1.Filter{}}, a, true},
		{"rule", &controlv1.Subscription{Filter: &controlv1.Filter{RuleIds: []string{"r0", "r1"}}}, a, true},
		{"other rule", &controlv1.Subscription{Filter: &controlv1.Filter{RuleIds: []string{"r0"}}}, a, false},
		{"level below", &controlv1.Subscription{Filter: &controlv1.Filter{MinLevel: "low"}}, a, true},
		{"level equal", &controlv1.Subscription{Filter: &controlv1.Filter{MinLevel: "medium"}}, a, true},
		{"level above", &controlv1.Subscription{Filter: &controlv1.Filter{MinLevel: "high"}}, a, false},
		{"least level and none", &controlv1.Subscription{Filter: &controlv1.Filter{MinLevel: "informational"}}, &alertv1.Alert{Tenant: "acme"}, true},
		{"level and none", &controlv1.Subscription{Filter: &controlv1.Filter{MinLevel: "low"}}, &alertv1.Alert{Tenant: "acme"}, false},
		{"one tag", &controlv1.Subscription{Filter: &controlv1.Filter{Tags: []string{"x", "cis"}}}, a, true},
		{"no tag", &controlv1.Subscription{Filter: &controlv1.Filter{Tags: []string{"x"}}}, a, false},
		{"source", &controlv1.Subscription{Filter: &controlv1.Filter{Sources: []string{"vpc"}}}, a, true},
		{"other source", &controlv1.Subscription{Filter: &controlv1.Filter{Sources: []string{"aws"}}}, a, false},
		{"all must hold", &controlv1.Subscription{Filter: &controlv1.Filter{RuleIds: []string{"r1"}, Sources: []string{"aws"}}}, a, false},
		{"disabled", &controlv1.Subscription{Disabled: true}, a, false},
		{"expired", &controlv1.Subscription{ExpiresMs: 1000}, a, false},
		{"not expired", &controlv1.Subscription{ExpiresMs: 1001}, a, true},
		{"other tenant", &controlv1.Subscription{Tenant: "other"}, a, false},
		{"only it", &controlv1.Subscription{Filter: &controlv1.Filter{MinLevel: "critical"}}, only("wh"), true},
		{"only another", &controlv1.Subscription{}, only("wh2"), false},
		{"only it, disabled", &controlv1.Subscription{Disabled: true}, only("wh"), false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tc.sub.Id, tc.sub.Revision = "wh", "r9"
			if tc.sub.GetTenant() == "" {
				tc.sub.Tenant = "acme"
			}
			got := targets(tc.alert, []*controlv1.Subscription{tc.sub}, 1000)
			require.Len(t, got, map[bool]int{true: 1}[tc.match])
			if tc.match {
				require.Equal(t, "wh", got[0].GetEndpointId())
				require.Equal(t, "r9", got[0].GetSubscriptionRevision())
			}
		})
	}
}

// entry is a record of deliveries at an offset.
func entry(t *testing.T, offset int64, at time.Time, m any) bus.Record {
	t.Helper()
	r := bus.Record{Offset: offset, Time: at}
	var err error
	switch m := m.(type) {
	case *deliveryv1.Routed:
		r.Headers = []bus.Header{{Key: event.HeaderSchema, Value: []byte(schemaRouted)}}
		r.Value, err = marshal(m)
	case *deliveryv1.Attempt:
		r.Headers = []bus.Header{{Key: event.HeaderSchema, Value: []byte(schemaAttempt)}}
		r.Value, err = marshal(m)
	}
	require.NoError(t, err)
	return r
}

func decision(alert string, offset int64, endpoints ...string) *deliveryv1.Routed {
	r := &deliveryv1.Routed{Tenant: "acme", AlertId: alert, AlertOffset: offset}
	for _, e := range endpoints {
		r.Targets = append(r.Targets, &deliveryv1.Target{EndpointId: e})
	}
	return r
}

func TestLedger(t *testing.T) {
	now := time.Now()
	l := newLedger(10, time.Hour)
	l.apply([]bus.Record{
		entry(t, 0, now, decision("before", 9, "x")),
		entry(t, 1, now, decision("a", 10, "x", "y", "z")),
		entry(t, 2, now, decision("a", 12, "w")),
		entry(t, 3, now, &deliveryv1.Attempt{AlertId: "a", EndpointId: "x", Number: 1, Outcome: outcomeFailed, NextDueMs: 5, TraceId: "11", SpanId: "22"}),
		entry(t, 4, now, &deliveryv1.Attempt{AlertId: "a", EndpointId: "x", Number: 2, Outcome: outcomeFailed, NextDueMs: 7, TraceId: "11", SpanId: "33"}),
		entry(t, 5, now, &deliveryv1.Attempt{AlertId: "a", EndpointId: "x", Number: 1, Outcome: outcomeFailed, NextDueMs: 5, TraceId: "11", SpanId: "22"}),
		entry(t, 6, now, &deliveryv1.Attempt{AlertId: "a", EndpointId: "y", Number: 1, Outcome: outcomeSucceeded}),
		entry(t, 7, now, decision("done", 11, "x", "y")),
		entry(t, 8, now, &deliveryv1.Attempt{AlertId: "done", EndpointId: "x", Number: 1, Outcome: outcomeParked}),
		entry(t, 9, now, &deliveryv1.Attempt{AlertId: "done", EndpointId: "y", Outcome: outcomeCancelled}),
		entry(t, 10, now, &deliveryv1.Attempt{AlertId: "stranger", EndpointId: "y", Outcome: outcomeFailed}),
		{Offset: 11, Headers: []bus.Header{{Key: event.HeaderSchema, Value: []byte(schemaRouted)}}, Value: []byte("\xff")},
	})
	require.Equal(t, int64(12), l.next)
	require.Equal(t, 1, l.skipped)
	for _, id := range []string{"before", "a", "done"} {
		require.True(t, l.known(id))
	}
	require.False(t, l.known("stranger"))
	require.Empty(t, l.take("before"), "the queue has had it")
	require.Empty(t, l.take("done"))
	require.Equal(t, []pending{{endpoint: "x", attempts: 2, dueMS: 7, first: "00-11-22-01"}, {endpoint: "z"}}, l.take("a"), "the first decision counts")
	require.Empty(t, l.take("a"), "once")
	l.apply([]bus.Record{entry(t, 3, now, decision("again", 20, "x"))})
	require.False(t, l.known("again"), "read before")
	// Decisions are forgotten when no copy of their alert can come any more,
	// but not while something waits.
	l.apply([]bus.Record{entry(t, 12, now.Add(time.Minute), decision("waits", 13, "x")), entry(t, 13, now.Add(3*time.Hour), decision("late", 14, "x"))})
	require.False(t, l.known("a"))
	require.True(t, l.known("waits"))
	l.passed(14)
	require.Empty(t, l.take("waits"))
	l.apply([]bus.Record{entry(t, 14, now.Add(3*time.Hour), decision("later", 15))})
	require.False(t, l.known("waits"))
	require.True(t, l.known("late"))
}

func TestTracker(t *testing.T) {
	k := newTracker(5, 100)
	require.Nil(t, k.committable())
	m := k.before()
	k.reached(8, 200)
	seq := k.sequence()
	k.observed(m, 50)
	k.drained(seq)
	require.Nil(t, k.committable(), "the outbox was read before the queue named its oldest alert")
	second := k.before()
	k.observed(second, 60)
	seq = k.sequence()
	third := k.before()
	k.observed(third, 70)
	k.drained(seq)
	require.Equal(t, mark{offset: 5, progress: progress{100, 50}, seq: 1}, *k.committable())
	k.drained(k.sequence())
	require.Equal(t, mark{offset: 8, progress: progress{200, 70}, seq: 3}, *k.committable())
	require.Equal(t, int64(8), k.at())
}

func TestProgress(t *testing.T) {
	for _, p := range []progress{{}, {writtenMS: 7}, {7, 9}, {9, 7}} {
		back, ok := parseProgress(p.String())
		require.True(t, ok)
		require.Equal(t, p, back)
	}
	require.Equal(t, int64(7), progress{9, 7}.since())
	require.Equal(t, int64(9), progress{9, 0}.since())
	for _, text := range []string{"", "1", "1 2", "2 3 4", "1 -3 4", "1 x 4"} {
		_, ok := parseProgress(text)
		require.False(t, ok, text)
	}
}

func TestConfig(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	cases := map[string]func(*Config){
		"schedule of 0 attempts":       func(c *Config) { c.Schedule = nil },
		"schedule has a pause of -1s":  func(c *Config) { c.Schedule = []time.Duration{-time.Second} },
		"jitter 0.6":                   func(c *Config) { c.Jitter = 0.6 },
		"retention 48h0m0s: a rebuild": func(c *Config) { c.Retention = 48 * time.Hour },
		"workers 0":                    func(c *Config) { c.Workers = 0 },
		"in_flight 0":                  func(c *Config) { c.InFlight = 0 },
		"rate -1 and burst":            func(c *Config) { c.Rate = -1 },
		"breaker_requests 0":           func(c *Config) { c.BreakerRequests = 0 },
		"breaker_max_pause 1s":         func(c *Config) { c.BreakerMaxPause = time.Second },
		"poll 0s":                      func(c *Config) { c.Poll = 0 },
	}
	for want, change := range cases {
		c := DefaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), "notifier: "+want)
	}
}
