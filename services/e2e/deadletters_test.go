package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/ledger"
)

const (
	poisoned = 7
	healthy  = 5
)

// testDeadLetters posts events that a defect of the correlator cannot process.
// They are found in dlq, replayed once programs without the defect run, and lead
// to their alerts, once, though they are replayed twice.
func testDeadLetters(t *testing.T, r *rig.Runner) {
	good := os.Getenv(rig.BinEnv)
	rig.BuildDefect(t, "correlator/match.go", "	if err := m.d.fault.at(PointMatch, r); err != nil {",
		"	if bytes.Contains(e.Raw, []byte(`poison`)) {\n\t\tpanic(`a defect`)\n\t}\n	if err := m.d.fault.at(PointMatch, r); err != nil {")
	d := r.Start(t, rig.Options{Rules: "testdata/rules/count"})
	receiver := newReceiver(t, ledger.Behave{})
	d.Subscribe(t, 0, receiver)
	var bad, all []string
	for i := range poisoned {
		bad = append(bad, d.Post(t, i%len(d.URLs), fmt.Appendf(nil, `{"action":"alarm","n":%d,"with":"poison"}`, i))...)
	}
	for i := range healthy {
		all = append(all, d.Post(t, i%len(d.URLs), fmt.Appendf(nil, `{"action":"alarm","n":%d}`, i))...)
	}
	await := func(events []string) {
		t.Helper()
		require.NoError(t, receiver.Await(within(t, patience), func(got []ledger.Delivery) bool { return hasAll(t, got, events) }))
	}
	await(all)
	require.NoError(t, rig.Every(within(t, patience), "all of them are in dlq", func() bool { return len(deadOf(t, d)) >= poisoned }))
	dead := deadOf(t, d)
	var found []string
	for _, one := range dead {
		require.Equal(t, "match panicked: a defect", one.Reason)
		require.Equal(t, []any{"events", "detect", 3, true}, []any{one.Topic, one.Stage, one.Attempts, one.Replayable})
		found = append(found, one.RecordID)
	}
	require.ElementsMatch(t, bad, found, "these, and no other")
	shown, _, err := d.Stormbell(t.Context(), 0, "dlq", "show", dead[0].ID)
	require.NoError(t, err)
	require.Contains(t, shown, `"with":"poison"`)
	t.Logf("stormbell dlq show:\n%s", shown)

	d.Stop(t)
	for _, p := range d.Processes {
		p.Replace(filepath.Join(good, filepath.Base(p.Program())))
	}
	t.Setenv(rig.BinEnv, good)
	for _, p := range d.Processes {
		require.NoError(t, p.Start(t.Context()))
	}
	for range 2 {
		out, told, err := d.Stormbell(t.Context(), 0, "dlq", "replay", "--all", "--reason", "a defect")
		require.NoError(t, err)
		require.Equal(t, poisoned, strings.Count(out, "\n"), out)
		require.Equal(t, fmt.Sprintf("%d replayed, 0 not\n", poisoned), told)
	}
	await(slices.Concat(all, bad))
	require.NoError(t, d.AwaitDrained(within(t, patience)))
	require.Len(t, deadOf(t, d), poisoned, "what was skipped stays recorded")
	ids := map[string]bool{}
	for _, got := range receiver.Deliveries() {
		require.False(t, ids[got.AlertID], "an alert came twice")
		ids[got.AlertID] = true
	}
	require.Len(t, ids, poisoned+healthy)
	listWhileGatewaysDie(t, d, ids)
}

type deadLetter struct {
	ID         string
	Topic      string
	Stage      string
	Reason     string
	Attempts   int
	RecordID   string `json:"record_id"`
	Replayable bool
}

// deadOf is what `stormbell dlq list` shows.
func deadOf(t *testing.T, d *rig.Deployment) (dead []deadLetter) {
	t.Helper()
	out, _, err := d.Stormbell(t.Context(), 0, "dlq", "list", "--limit", "0", "-o", "json")
	require.NoError(t, err)
	for line := range strings.Lines(out) {
		var one deadLetter
		require.NoError(t, json.Unmarshal([]byte(line), &one))
		dead = append(dead, one)
	}
	return dead
}

// listWhileGatewaysDie kills the gateway that answered a page before the next.
func listWhileGatewaysDie(t *testing.T, d *rig.Deployment, want map[string]bool) {
	t.Helper()
	var gateways []int // of the processes
	for i, p := range d.Processes {
		if p.Kind == "gateway" || p.Kind == "up" {
			gateways = append(gateways, i)
		}
	}
	got, cursor := map[string]int{}, ""
	for n := 0; n == 0 || cursor != ""; n++ {
		at := n % len(gateways)
		var page struct {
			Alerts []struct{ ID string }
			Next   string
		}
		d.JSON(t, at, http.MethodGet, "/v1/alerts?limit=4&cursor="+cursor, nil, http.StatusOK, &page)
		for _, a := range page.Alerts {
			got[a.ID]++
		}
		cursor = page.Next
		p := d.Processes[gateways[at]]
		require.NoError(t, p.Kill())
		require.NoError(t, p.Start(t.Context()))
		d.Post(t, at, []byte(`{"action":"alarm","n":"later"}`))
	}
	for id := range want {
		require.Positive(t, got[id], "alert %s is not listed", id)
	}
}
