package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/e2e/spans"
	"github.com/stormbell/stormbell/tools/ledger"
)

// testTrace follows one event from its client to the subscriber: all spans on
// the way, both topics and the outbox included, are descendants of the
// client's span, and so is every retry.
func testTrace(t *testing.T, r *rig.Runner) {
	c := newCollector(t)
	d := r.Start(t, rig.Options{Rules: "testdata/rules/count", Env: c.Env("traces")})
	receiver := newReceiver(t, refuseFirst(1))
	d.Subscribe(t, 0, receiver)

	const clientSpan = "00f067aa0ba902b7"
	parent := func(n int) (trace, header string) {
		trace = fmt.Sprintf("%032x", 0xabcdef<<8+n)
		return trace, "00-" + trace + "-" + clientSpan + "-01"
	}
	event := []byte(`{"action":"login_failed","user":"traced"}`)
	first, header := parent(1)
	d.Post(t, 0, event, "traceparent", header)
	// The second event makes the correlation fire once the first was folded.
	trace, header := parent(2)
	require.NoError(t, rig.Every(within(t, patience), "the first event was matched", func() bool { return hasSpan(c.Of(first), "detect match") }))
	d.Post(t, len(d.URLs)-1, event, "traceparent", header, "baggage", "secret=1")

	require.NoError(t, receiver.Await(within(t, patience), func(got []ledger.Delivery) bool {
		return len(ledger.Alerts(got)) == 1 && len(got) == 2
	}))
	got := receiver.Deliveries()
	alert := bodyOf(t, &got[0])
	// The two events may be folded in either order: whichever came second fired.
	if alert.Data.Trace == first {
		trace = first
	}
	require.Equal(t, trace, alert.Data.Trace)
	want := []string{"POST /v1/events", "detect match", "correlate fire", "notify route", "notify deliver"}
	attempts := map[string]bool{}
	for _, delivery := range got {
		require.Empty(t, delivery.Headers.Get("baggage"))
		parts := strings.Split(delivery.Headers.Get("traceparent"), "-")
		require.Len(t, parts, 4)
		require.Equal(t, trace, parts[1])
		require.NoError(t, rig.Every(within(t, patience), "the attempt's span was exported", func() bool {
			_, ok := c.Of(trace)[parts[2]]
			return ok && len(c.Of(trace)) >= len(want)+1
		}))
		names := requirePath(t, c.Of(trace), parts[2], clientSpan)
		require.Subset(t, names, []string{want[0], want[1], want[2], want[4]}, "the way to the subscriber")
		attempts[parts[2]] = true
	}
	require.Len(t, attempts, 2, "each attempt is a span of its own")

	all := c.Of(trace)
	services := map[string]bool{}
	for _, name := range want {
		require.True(t, hasSpan(all, name), "no span %q in %v", name, all)
	}
	for id, s := range all {
		requirePath(t, all, id, clientSpan)
		services[s.Service] = true
	}
	wantServices := []string{"stormbell-up"}
	if d.Kind == rig.Cluster {
		wantServices = []string{"stormbell-correlator", "stormbell-gateway", "stormbell-notifier"}
	}
	require.Equal(t, wantServices, slices.Sorted(maps.Keys(services)))
	// The other event is linked.
	linked := false
	other := first
	if trace == first {
		other, _ = parent(2)
	}
	for _, s := range all {
		linked = linked || s.Name == "correlate fire" && slices.Contains(s.Links, other)
	}
	require.True(t, linked, "the other event of the window is a link of the span that fires")
	require.Equal(t, http.StatusNoContent, got[1].Status)
}

func hasSpan(all map[string]spans.Span, name string) bool {
	for _, s := range all {
		if s.Name == name {
			return true
		}
	}
	return false
}
