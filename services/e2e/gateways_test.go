package e2e_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/ledger"
)

const (
	alarmRule     = "6f1f6d2e-0105-4000-8000-000000000105"
	keyRounds     = 40
	webhookRounds = 15
)

// testOwnWrites changes something at one gateway and relies on it at another in
// the next moment: a new key is known, a new webhook gets the next alert.
func testOwnWrites(t *testing.T, r *rig.Runner) {
	d := r.Start(t, rig.Options{Rules: "testdata/rules/count"})
	n := len(d.URLs)
	for round := range keyRounds {
		var key struct{ Key string }
		d.JSON(t, round%n, http.MethodPost, "/v1/keys", map[string]any{"name": fmt.Sprint(round)}, http.StatusCreated, &key)
		resp, err := d.Call(t.Context(), (round+1)%n, key.Key, http.MethodPost, "/v1/events", "application/json", []byte(`{"action":"none"}`))
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, resp.Status, "round %d: %s", round, resp.Body)
	}
	resp, err := d.Call(t.Context(), 0, d.Key[:len(d.Key)-1]+"x", http.MethodPost, "/v1/events", "application/json", []byte(`{"action":"none"}`))
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, resp.Status, "a key that is wrong by a letter")

	receiver := newReceiver(t, ledger.Behave{})
	events := map[string]string{} // path → event
	for round := range webhookRounds {
		path := fmt.Sprintf("/round-%d", round)
		d.JSON(t, round%n, http.MethodPost, "/v1/webhooks", map[string]any{
			"url": receiver.URL(path), "secret": receiver.Secret(), "filter": map[string]any{"rule_ids": []string{alarmRule}},
		}, http.StatusCreated, nil)
		events[path] = d.Post(t, (round+1)%n, []byte(`{"action":"alarm"}`))[0]
	}
	err = receiver.Await(within(t, patience), func(got []ledger.Delivery) bool {
		byPath := map[string][]ledger.Delivery{}
		for _, one := range got {
			byPath[one.Path] = append(byPath[one.Path], one)
		}
		for path, id := range events {
			if !hasAll(t, byPath[path], []string{id}) {
				return false
			}
		}
		return true
	})
	require.NoError(t, err)
}
