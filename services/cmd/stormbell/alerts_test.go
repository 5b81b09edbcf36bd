package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startWithAlert runs an instance that has fired one alert.
func startWithAlert(t *testing.T) (*instance, []string) { return startWithAlertOf(t, t.TempDir()) }

func startWithAlertOf(t *testing.T, rules string) (*instance, []string) {
	t.Helper()
	writeFile(t, rules, "failed.yml", failedLogins)
	data := filepath.Join(t.TempDir(), "data")
	i := startUp(t, data, "--rules", rules)
	i.must(strings.Repeat(failedLogin, 3), "send", "-")
	return i, i.awaitAlerts(manyID, 1)
}

// awaitAlerts waits until a rule has so many alerts, and returns their ids.
func (i *instance) awaitAlerts(rule string, n int) (ids []string) {
	i.t.Helper()
	require.Eventually(i.t, func() bool {
		ids = nil
		for line := range strings.Lines(i.must("", "alerts", "list", "--rule", rule, "--limit", "0", "-o", "json")) {
			var a struct{ ID string }
			require.NoError(i.t, json.Unmarshal([]byte(line), &a))
			ids = append(ids, a.ID)
		}
		return len(ids) >= n
	}, patience, 50*time.Millisecond)
	return ids
}

func TestAlertsLookBack(t *testing.T) {
	i, ids := startWithAlert(t)
	require.Len(t, ids, 1)
	text := i.must("", "alerts", "list", "--level", "high", "--from", "1h", "--group", "bob", "--title", "many")
	require.Regexp(t, `^SUMMARY +LEVEL +TIME +ID\n.*Many failed logins.* +high +\S+Z +`+ids[0]+`\n$`, text)
	require.Equal(t, "SUMMARY  LEVEL  TIME  ID\n", i.must("", "alerts", "list", "--group", "alice"))

	shown := ""
	require.Eventually(t, func() bool {
		shown = i.must("", "alerts", "show", ids[0])
		return !strings.Contains(shown, "not routed yet")
	}, patience, 50*time.Millisecond)
	for _, part := range []string{
		"Many failed logins (event_count, " + manyID + ")", "group:       user=bob", "count:       3 (gte 3), of 3 events", "principals:  bob", "window: ", "trace id: ",
		`"action":"login_failed"`, "deliveries: no webhook wanted it: stormbell webhooks add URL",
	} {
		require.Contains(t, shown, part)
	}
	var s shownAlert
	require.NoError(t, json.Unmarshal([]byte(i.must("", "alerts", "show", ids[0], "-o", "json")), &s))
	require.NotNil(t, s.RoutedAt)

	r := i.cli("", "alerts", "show", strings.Repeat("0", 32))
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "answered 404")
	for _, args := range [][]string{{"list", "--from", "soon"}, {"list", "--limit", "-1"}, {"tail", "--last", "-1"}} {
		require.Equal(t, exitUsage, i.cli("", append([]string{"alerts"}, args...)...).code, args)
	}
}

// TestTailOutlivesTheGateway: it goes on where it was, and Ctrl-C is how it ends.
func TestTailOutlivesTheGateway(t *testing.T) {
	rules := t.TempDir()
	i, ids := startWithAlertOf(t, rules)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := new(output), new(output)
	env := testEnv(strings.NewReader(""), out, errs, map[string]string{"STORMBELL_URL": "http://" + i.Listen, "STORMBELL_DATA": i.data})
	ended := make(chan int, 1)
	go func() { ended <- execute(ctx, env, []string{"alerts", "tail", "--rule", manyID}) }()
	printed := func(n int) func() bool {
		return func() bool { return strings.Count(out.String(), "\n") == n }
	}
	require.Eventually(t, printed(1), patience, 10*time.Millisecond)
	require.Contains(t, out.String(), ids[0])
	listen := i.Listen
	require.Zero(t, i.stop())
	require.Eventually(t, func() bool { return strings.Contains(errs.String(), "trying again") }, patience, 10*time.Millisecond)
	i = startUp(t, i.data, "--listen", listen, "--rules", rules)
	i.must(strings.Repeat(strings.ReplaceAll(failedLogin, "bob", "eve"), 3), "send", "-")
	require.Eventually(t, printed(2), patience, 10*time.Millisecond)
	require.Contains(t, out.String(), "eve")
	require.Equal(t, 1, strings.Count(out.String(), ids[0]), "nothing comes twice")
	cancel()
	require.Zero(t, <-ended)
}

func TestDeadLettersOfNone(t *testing.T) {
	i, _ := startWithAlert(t)
	require.Equal(t, "ID  STAGE  AT  WHAT  ATTEMPTS  REPLAYABLE  REASON\n", i.must("", "dlq", "list"))
	require.Equal(t, exitUsage, i.cli("", "dlq", "replay").code)
	require.Equal(t, exitUsage, i.cli("", "dlq", "replay", "events-0-1", "--all").code)
	require.Equal(t, exitUsage, i.cli("", "dlq", "replay", "events-0-1", "--reason", "x").code)
	r := i.cli("", "dlq", "replay", "events-0-1")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, "events-0-1: not replayed: ")
	require.Equal(t, "0 replayed, 1 not\n", r.err)
	r = i.cli("", "dlq", "replay", "--all")
	require.Equal(t, result{exitOK, "", "0 replayed, 0 not\n"}, r)
	require.Equal(t, exitFailed, i.cli("", "dlq", "show", "events-0-1").code)
}

// TestAlertsShowWhy has an event's line name its rule, where that is not the alert's
// own, and that it came late.
func TestAlertsShowWhy(t *testing.T) {
	e := alertEvent{Time: "2026-01-02T03:04:05Z", ID: "e1", RuleID: "r1", Late: true, Event: json.RawMessage(`{"a":1}`)}
	require.Equal(t, `2026-01-02T03:04:05Z  e1  rule r1  late  {"a":1}`, e.text("r2"))
	e.Late, e.Event = false, nil
	require.Equal(t, "2026-01-02T03:04:05Z  e1", e.text("r1"))
}
