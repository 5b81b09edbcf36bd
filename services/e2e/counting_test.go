package e2e_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/ledger"
)

// alertBody is what the scenarios look at of a webhook.
type alertBody struct {
	Type string
	Data struct {
		ID    string
		Rule  struct{ ID, Title string }
		Group map[string]string
		Count int
		Trace string `json:"trace_id"`
		Risk  struct {
			Signals []struct {
				AlertID string `json:"alert_id"`
			}
		}
	}
}

func bodyOf(t *testing.T, d *ledger.Delivery) alertBody {
	t.Helper()
	var b alertBody
	require.NoError(t, json.Unmarshal(d.Body, &b))
	return b
}

// titles returns what came for a group, as sorted titles of rules.
func titles(t *testing.T, deliveries []ledger.Delivery, user string) []string {
	t.Helper()
	out := []string{}
	for i := range deliveries {
		if b := bodyOf(t, &deliveries[i]); b.Data.Group["user"] == user && !slices.Contains(out, b.Data.Rule.Title) {
			out = append(out, b.Data.Rule.Title)
		}
	}
	slices.Sort(out)
	return out
}

func newReceiver(t *testing.T, how ledger.Behave) *ledger.Receiver {
	t.Helper()
	r, err := ledger.NewReceiver(t.Context(), ledger.NewSecret(), how)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// testCounting posts events without a time: equal posts are different events,
// but for those that one Idempotency-Key makes a repetition.
func testCounting(t *testing.T, r *rig.Runner) {
	d := r.Start(t, rig.Options{Rules: "testdata/rules/count"})
	receiver := newReceiver(t, ledger.Behave{})
	d.Subscribe(t, 0, receiver)
	event := func(user string) []byte { return []byte(`{"action":"login_failed","user":"` + user + `"}`) }

	seen := map[string]bool{}
	for i := range 5 {
		for _, id := range d.Post(t, i%len(d.URLs), event("equal")) {
			seen[id] = true
		}
	}
	require.Len(t, seen, 5)
	seen = map[string]bool{}
	for i := range 6 {
		for _, id := range d.Post(t, i%len(d.URLs), event("keyed"), "Idempotency-Key", "the same") {
			seen[id] = true
		}
	}
	require.Len(t, seen, 1)
	batch := strings.Repeat(string(event("batch"))+"\n", 2)
	require.Equal(t, d.Post(t, 0, []byte(batch), "Idempotency-Key", "a batch"), d.Post(t, len(d.URLs)-1, []byte(batch), "Idempotency-Key", "a batch"))
	// The last one tells that all before it in its partition was read, and so
	// does one in each other partition.
	sentinels := sentinel(t, d)

	err := receiver.Await(within(t, patience), func(got []ledger.Delivery) bool {
		return len(titles(t, got, "equal")) == 2 && len(titles(t, got, "batch")) == 1 && hasAll(t, got, sentinels)
	})
	require.NoError(t, err)
	got := receiver.Deliveries()
	require.Equal(t, []string{"Five failed logins", "Two failed logins"}, titles(t, got, "equal"))
	require.Equal(t, []string{"Two failed logins"}, titles(t, got, "batch"))
	require.Empty(t, titles(t, got, "keyed"))
}

// sentinel posts events that alert by themselves until, in all likelihood, each
// partition of `events` has one behind what was posted before, and returns
// their ids.
func sentinel(t *testing.T, d *rig.Deployment) []string {
	t.Helper()
	var ids []string
	for i := range 8 * rig.Partitions {
		ids = append(ids, d.Post(t, i%len(d.URLs), []byte(`{"action":"alarm"}`))...)
	}
	return ids
}

// hasAll says whether there was an alert of each event.
func hasAll(t *testing.T, deliveries []ledger.Delivery, events []string) bool {
	t.Helper()
	seen := map[string]bool{}
	for i := range deliveries {
		var b struct {
			Data struct{ Events []struct{ ID string } }
		}
		require.NoError(t, json.Unmarshal(deliveries[i].Body, &b))
		for _, e := range b.Data.Events {
			seen[e.ID] = true
		}
	}
	return !slices.ContainsFunc(events, func(id string) bool { return !seen[id] })
}
