package correlator

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/state"
)

// TestAlertsExplainThemselves: window, count against condition, which rule each
// event matched and whether it was late, also of events that are not kept whole
// and were read back from the store.
func TestAlertsExplainThemselves(t *testing.T) {
	cfg, store := modelConfig(), state.NewMemory()
	p := compile(t, cfg, testRules)
	l := &feed{p: p}
	f := openFolder(t, cfg, p, 10, store)
	order := p.correlations["order"]
	add := func(id string, rule int, at int64, late bool) {
		l.put(schemaDetection, &detectionv1.Detection{
			Tenant: "t", CorrelationId: "order", CorrelationRevision: order.Revision, RuleIds: order.Rules[rule : rule+1], Group: []string{"bob"},
			EventId: id, TimeMs: at, IngestMs: t0, Late: late, UpstreamOffset: int64(len(l.records)), Raw: []byte(`{"action":"a"}`),
		})
	}
	const between = 30
	add("first", 0, t0, true)
	for i := range int64(between) {
		add("b"+string(rune('A'+i)), 1, t0+1+i, i == between/2)
	}
	require.Empty(t, foldAll(t, f, l))
	f = openFolder(t, cfg, p, 10, store) // another owner, which reads the group
	add("last", 2, t0+1000, false)
	got := foldAll(t, f, l)
	require.Len(t, got, 1)
	a := got[0]
	require.Equal(t, "gte 3", a.GetCondition())
	require.EqualValues(t, 3, a.GetCount())
	require.Equal(t, []int64{t0 + 1000 - 20_000, t0 + 1000}, []int64{a.GetWindow().GetStartMs(), a.GetWindow().GetEndMs()})
	require.Len(t, a.GetEvents(), between+2)
	for i, e := range a.GetEvents() {
		want := map[int]string{0: "rule-a", between + 1: "rule-c"}[i]
		if want == "" {
			want = "rule-b"
		}
		require.Equal(t, want, e.GetRuleId(), e.GetId())
		require.Equal(t, i == 0 || i == between/2+1, e.GetLate(), e.GetId())
	}
	body, err := alert.Data(proto.CloneOf(a))
	require.NoError(t, err)
	require.Contains(t, string(body), `"count":3,"condition":"gte 3"`)
	require.Contains(t, string(body), `"late":true`)
}
