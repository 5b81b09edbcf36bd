package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/ledger"
)

// updatedType is that of what an alert came to.
const updatedType = "stormbell.alert.updated.v1"

// testAbsent posts a few events and then nothing: what a rule tells of order and
// absence is told once the watermark has passed it, which ticks alone carry
// forward then. A risk adds up what a detection rule and a correlation say of one
// user, and correlations count what was absent and new. One alert is told again at
// the close of its bucket, to whom that was promised. Whoever correlates is killed
// meanwhile, and the client repeats what it has sent.
func testAbsent(t *testing.T, r *rig.Runner) {
	d := r.Start(t, rig.Options{Rules: "testdata/rules/absent", Settings: map[string]string{"correlator": "slack: 10s"}})
	receiver := newReceiver(t, ledger.Behave{})
	d.Subscribe(t, 0, receiver)
	closes := newReceiver(t, ledger.Behave{})
	d.JSON(t, 0, http.MethodPost, "/v1/webhooks", map[string]any{
		"url": closes.URL("/closes"), "secret": closes.Secret(), "filter": map[string]any{"types": []string{updatedType}},
	}, http.StatusCreated, nil)

	// A whole period that has just ended, so that the periods of a rate are known.
	base := time.Now().Add(-8 * time.Second).Truncate(2 * time.Second)
	var batch string
	put := func(user, action, more string, after time.Duration) {
		batch += fmt.Sprintf(`{"product":"e2e","user":%q,"action":%q,"time":%q%s}`+"\n", user, action, base.Add(after).UTC().Format(time.RFC3339Nano), more)
	}
	put("gone", "stop", "", 0)
	put("back", "stop", "", 0)
	put("back", "start", "", 3*time.Second)
	put("host", "beat", "", 0)
	put("host", "beat", "", 3*time.Second)
	put("eve", "seen", `,"ip":"198.51.100.7"`, 0)
	put("eve", "seen", `,"ip":"198.51.100.7"`, time.Second)
	put("eve", "seen", `,"ip":"203.0.113.9"`, 5*time.Second)
	put("mallory", "seen", `,"region":"eu-north-1"`, 0)
	put("mallory", "seen", `,"region":"ap-southeast-2"`, 3*time.Second)
	put("usual", "call", "", 0)
	put("usual", "call", "", 4*time.Second)
	for i := range 3 {
		put("usual", "call", "", 6*time.Second+time.Duration(i)*time.Millisecond)
	}
	put("risky", "try", `,"host":"h1"`, 0)
	put("risky", "try", `,"host":"h1"`, time.Second)
	put("risky", "take", `,"host":"h2"`, 2*time.Second)
	for i, after := range []time.Duration{0, 5 * time.Second} {
		put("astray", "stop", "", after)
		put("astray", "seen", fmt.Sprintf(`,"ip":"192.0.2.%d"`, i), after)
	}
	for i := range 5 {
		put("counted", "count", "", time.Duration(i)*time.Millisecond)
	}
	d.Post(t, 0, []byte(batch))
	for _, p := range d.Processes {
		if d.Kind == rig.Embedded || p.Kind == "correlator" {
			require.NoError(t, p.Kill())
			require.NoError(t, p.Start(t.Context()))
		}
	}
	d.Post(t, 0, []byte(batch))

	want := map[string]string{
		"gone": "Not started again", "host": "Silent", "eve": "New address", "mallory": "Too fast", "usual": "More than usual",
		"risky": "Risky user", "counted": "Counted",
	}
	const more = 2 + 5 // two of the absences of one user
	err := receiver.Await(within(t, patience), func(got []ledger.Delivery) bool {
		for user := range want {
			if len(titles(t, got, user)) == 0 {
				return false
			}
		}
		all := map[string]bool{}
		for i := range got {
			all[bodyOf(t, &got[i]).Data.ID] = true
		}
		return len(all) >= len(want)+more
	})
	require.NoError(t, err, "what came: %v", receiver.Deliveries())
	got := receiver.Deliveries()
	require.Equal(t, []string{"Astray", "Left stopped", "New address", "Not started again"}, titles(t, got, "astray"))
	for user, title := range want {
		require.Equal(t, []string{title}, titles(t, got, user), user)
	}
	require.Empty(t, titles(t, got, "back"), "it was started within the time, to the millisecond")
	ids := map[string]bool{}
	for i := range got {
		ids[bodyOf(t, &got[i]).Data.ID] = true
	}
	require.Len(t, ids, len(want)+more, "one alert each, two that a risk is made of, and what the chain is made of")
	for i := range got {
		b := bodyOf(t, &got[i])
		if b.Data.Rule.Title != want["risky"] {
			continue
		}
		require.Len(t, b.Data.Risk.Signals, 2)
		for _, s := range b.Data.Risk.Signals {
			require.True(t, ids[s.AlertID], "what it is made of is told by itself too: %+v", s)
		}
	}

	require.NoError(t, closes.Await(within(t, patience), func(got []ledger.Delivery) bool { return len(got) > 0 }))
	updates := closes.Deliveries()
	require.Len(t, ledger.Alerts(updates), 1)
	b := bodyOf(t, &updates[0])
	require.Equal(t, updatedType, b.Type)
	require.Equal(t, want["counted"], b.Data.Rule.Title)
	require.Equal(t, 5, b.Data.Count)
	for i := range got {
		if first := bodyOf(t, &got[i]); first.Data.Group["user"] == "counted" {
			require.Equal(t, "stormbell.alert.v1", first.Type)
			require.Equal(t, first.Data.ID, b.Data.ID, "the same alert")
			require.NotEqual(t, got[i].WebhookID, updates[0].WebhookID, "another message")
		}
	}
}
