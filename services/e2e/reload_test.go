package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/ledger"
)

// reloadRules are the rules of testReload at first.
const reloadRules = `title: Failed
id: failed
logsource: {product: app}
detection: {s: {action: failed}, condition: s}
---
title: Three failed
id: three
correlation: {type: event_count, rules: [failed], group-by: [user], timespan: 1h, condition: {gte: 3}}
---
title: Alarm
id: alarm
logsource: {product: app}
detection: {s: {action: alarm}, condition: s}
---
title: Quiet
id: quiet
logsource: {product: app}
detection: {s: {action: alarm}, condition: s}
stormbell: {shadow: true}
`

// reloading is what testReload has sent.
type reloading struct {
	t    *testing.T
	d    *rig.Deployment
	at   time.Time
	n    int
	sent bytes.Buffer
}

// post sends events of their own time, none late, each by a gateway in turn.
func (r *reloading) post(action string, times int, users ...string) {
	r.t.Helper()
	for range times {
		for _, user := range users {
			r.n++
			line := fmt.Sprintf(`{"@timestamp":%q,"product":"app","action":%q,"user":%q,"n":%d}`, r.at.Add(time.Duration(r.n)*time.Millisecond).Format(time.RFC3339Nano), action, user, r.n)
			r.d.Post(r.t, r.n%len(r.d.URLs), []byte(line))
			r.sent.WriteString(line + "\n")
		}
	}
}

// rules puts a rule set in force.
func (r *reloading) rules(text string) (dir string) {
	r.t.Helper()
	dir = r.t.TempDir()
	require.NoError(r.t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(text), 0o600))
	r.d.PushRules(r.t, dir)
	return dir
}

// alertsIn reads the ids off lines of alerts.
func alertsIn(t *testing.T, lines string) map[string]bool {
	t.Helper()
	ids := make(map[string]bool)
	for line := range strings.Lines(lines) {
		var a struct{ ID string }
		require.NoError(t, json.Unmarshal([]byte(line), &a), line)
		ids[a.ID] = true
	}
	return ids
}

// eval runs the rules over what was sent so far.
func (r *reloading) eval(rules string) map[string]bool {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), rig.Program("stormbell"), "eval", "-q", "-r", rules, "-")
	cmd.Stdin = bytes.NewReader(r.sent.Bytes())
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	require.NoError(r.t, err, failed.String())
	return alertsIn(r.t, string(out))
}

// crash kills what correlates, and starts it again.
func (r *reloading) crash() {
	r.t.Helper()
	for _, p := range r.d.Processes {
		if strings.HasPrefix(p.Name, "correlator") || p.Name == "up" {
			require.NoError(r.t, p.Kill())
			require.NoError(r.t, p.Start(r.t.Context()))
		}
	}
}

func users(kind string) (out []string) {
	for i := range 8 {
		out = append(out, fmt.Sprint(kind, "-", i))
	}
	return out
}

// testReload changes rules under load, with crashes. What is said better goes
// on where it was, what is changed begins anew, and what the log gives to a
// backtest is what was delivered.
func testReload(t *testing.T, runner *rig.Runner) {
	d := runner.Start(t, rig.Options{})
	receiver := newReceiver(t, ledger.Behave{})
	d.Subscribe(t, 0, receiver)
	r := &reloading{t: t, d: d, at: time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond)}
	await := func(want map[string]bool) {
		t.Helper()
		err := receiver.Await(within(t, patience), func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) >= len(want) })
		got := ledger.Alerts(receiver.Deliveries())
		require.NoError(t, err, "%d of %d", len(got), len(want))
		require.Equal(t, want, got)
	}

	first := r.rules(reloadRules)
	r.post("failed", 3, users("whole")...)
	r.post("failed", 2, users("parted")...)
	r.post("alarm", 1, "first")
	want := r.eval(first)
	require.Len(t, want, 9, "and nothing of the rule in the shadow")
	await(want)

	// Other words, another order: the same revision.
	docs := strings.Split(reloadRules, "---\n")
	slices.Reverse(docs)
	retitled := r.rules("# said better\n" + strings.ReplaceAll(strings.Join(docs, "\n---\n"), "title: ", "title: Better "))
	r.crash()
	r.post("failed", 1, users("parted")...)
	r.post("failed", 2, users("changed")...)
	want = r.eval(first)
	require.Len(t, want, 17)
	require.Equal(t, want, r.eval(retitled))
	await(want)

	// Another threshold: what was counted before does not count, and an old
	// count is not gone on with.
	four := r.rules(strings.Replace(reloadRules, "gte: 3", "gte: 4", 1))
	r.crash()
	r.post("failed", 2, users("changed")...)
	r.post("failed", 4, users("fresh")...)
	r.post("alarm", 1, users("last")...)
	tail := reloading{t: t}
	for _, line := range strings.SplitAfter(r.sent.String(), "\n") {
		if strings.Contains(line, "fresh-") || strings.Contains(line, "last-") {
			tail.sent.WriteString(line)
		}
	}
	added := tail.eval(four)
	require.Len(t, added, 16)
	maps.Copy(want, added)
	await(want)
	require.NoError(t, d.AwaitDrained(within(t, patience)))
	require.Equal(t, want, ledger.Alerts(receiver.Deliveries()))

	out, said, err := d.Stormbell(t.Context(), 0, "backtest", "--from", "1h", "-o", "ndjson")
	require.NoError(t, err)
	require.Equal(t, want, alertsIn(t, out), "with the rules in force then")
	require.Contains(t, said, fmt.Sprintf("%d alerts, 0 failed", len(want)))
	out, _, err = d.Stormbell(t.Context(), len(d.URLs)-1, "backtest", "--from", "1h", "-o", "ndjson", "-r", first)
	require.NoError(t, err)
	require.Equal(t, r.eval(first), alertsIn(t, out), "with other rules")

	_, _, err = d.Stormbell(t.Context(), 0, "rules", "diff", four)
	require.NoError(t, err, "nothing differs from what is in force")
	out, _, err = d.Stormbell(t.Context(), 0, "rules", "diff", first)
	require.Error(t, err)
	require.Contains(t, out, "rules: 0 added, 0 removed, 1 changed, 0 text only, 3 unchanged, 0 rejected")
	require.NoError(t, rig.Every(within(t, patience), "the shadow is counted", func() bool {
		out, _, err = d.Stormbell(t.Context(), 0, "rules", "list")
		require.NoError(t, err)
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); f[0] == "quiet" {
				return f[len(f)-3] != "0"
			}
		}
		return false
	}))
}
