package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
)

// TestSeededDefect runs the load of the crash scenario, without a crash, on
// programs with a defect in `window`. The scenario's verdict must name it; on
// the programs as they are it must not.
func TestSeededDefect(t *testing.T) {
	tests := []struct {
		name, file, old, by, want string
	}{
		{name: "none"},
		{
			name: "a newcomer looks at its own window only", file: "correlator/window/qualify.go",
			old: "g.recs.at(j).time <= t+g.spec.Timespan;", by: "g.recs.at(j).time <= t;", want: "lost: alert",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rig.NewRunner(t, rig.Embedded)
			if tt.file != "" {
				rig.BuildDefect(t, tt.file, tt.old, tt.by)
			}
			found := verdictOfLoad(t, r)
			if tt.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found, "the defect was not noticed")
			require.Contains(t, found[0], tt.want)
			t.Logf("%d anomalies, the first: %s", len(found), found[0])
		})
	}
}

func verdictOfLoad(t *testing.T, r *rig.Runner) []string {
	t.Helper()
	d := r.Start(t, rig.Options{Rules: "testdata/rules/crash"})
	l := newLoad(seedOfCrash(t), 5000, 60, time.Now())
	client := newClient(t, d)
	require.NoError(t, new(progress).send(within(t, patience), client, l))
	// What does not come cannot be waited for: all that was posted is read.
	require.NoError(t, d.AwaitDrained(within(t, patience)))
	d.Stop(t)
	rules, settings := rulesOf(t, "testdata/rules/crash")
	topics := d.Records(t, bus.TopicEvents, bus.TopicAlerts)
	v := &verdict{
		rules: rules, settings: settings, told: client.Accepted(), events: accepted(t, topics[bus.TopicEvents]),
		alerts: alertIDs(t, topics[bus.TopicAlerts]),
	}
	for _, id := range v.alerts { // deliveries are not the question here
		v.deliveries = append(v.deliveries, ledger.Delivery{WebhookID: id, AlertID: id, Status: 204})
	}
	found, err := v.judge()
	require.NoError(t, err)
	return found
}
