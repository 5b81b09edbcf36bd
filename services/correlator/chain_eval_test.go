package correlator

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/event"
)

// TestEvaluationFollowsChains gives what the log gives, and says which child
// each part of a parent's alert is of.
func TestEvaluationFollowsChains(t *testing.T) {
	cfg := DefaultConfig()
	p := compile(t, cfg, chainRules)
	e, err := NewEvaluation(t.Context(), cfg, p.set)
	require.NoError(t, err)
	const t0 = 1_800_000_000_000
	var events []accepted
	add := func(after int64, action, user, ip string) {
		events = append(events, accepted{
			id: string(rune('a' + len(events))), tenant: "t", time: t0 + after, ingest: t0,
			fields: map[string]string{"action": action, "user": user, "actor": user, "ip": ip, "zone": "z"},
		})
	}
	add(0, "a", "u", "1")
	add(1000, "a", "u", "2") // burst: f signals 2
	add(2000, "a", "v", "3")
	add(3000, "a", "v", "3") // burst of another: spread
	add(4000, "b", "v", "1")
	add(5000, "c", "v", "1") // either: mixed, and top
	var in []event.Event
	for _, a := range events {
		_, value := a.record()
		ev, err := event.Decode(value)
		require.NoError(t, err)
		in = append(in, ev)
	}
	matched, err := e.Evaluator().Match(t.Context(), in)
	require.NoError(t, err)
	var got []*alertv1.Alert
	require.NoError(t, e.Fold(t.Context(), matched, func(a *alertv1.Alert) error {
		got = append(got, a)
		return nil
	}, func(reason string) { require.Fail(t, reason) }))
	want := chainExpected(cfg, p, events, nil)
	var rules []string
	for _, a := range got {
		require.True(t, want[a.GetId()])
		rules = append(rules, a.GetRule().GetId())
	}
	require.Len(t, got, len(want))
	require.Equal(t, []string{"burst", "burst", "top"}, slices.Sorted(slices.Values(rules)))
	top := got[slices.Index(rules, "top")]
	require.Equal(t, "critical", top.GetRule().GetLevel())
	require.Equal(t, "f", top.GetEvents()[len(top.GetEvents())-1].GetId())
	var parts []string
	for _, ev := range top.GetEvents() {
		parts = append(parts, ev.GetId()+" "+ev.GetRuleId())
		require.NotEmpty(t, ev.GetEvent(), "what was at hand is shown")
	}
	require.Equal(t, []string{"d spread", "f mixed"}, parts)
}
