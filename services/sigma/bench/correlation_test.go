//go:build unix

package bench_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// correlationEnv names the program `stormbell` to measure; `make
// bench-correlation` builds it.
const correlationEnv = "STORMBELL_BENCH_CORRELATION"

// authRules are four correlations over five minutes of authentication events.
// They refer to rules by id, as the other program wants it.
const authRules = `title: Login failed
id: 9c7f0a10-0001-4000-8000-000000000001
level: low
logsource: {category: authentication}
detection:
    selection: {action: login, outcome: failure}
    condition: selection
---
title: Login
id: 9c7f0a10-0002-4000-8000-000000000002
level: low
logsource: {category: authentication}
detection:
    selection: {action: login, outcome: success}
    condition: selection
---
title: Download
id: 9c7f0a10-0003-4000-8000-000000000003
level: low
logsource: {category: authentication}
detection:
    selection: {action: download}
    condition: selection
---
title: Many failed logins of a user
id: 9c7f0a10-0004-4000-8000-000000000004
level: medium
correlation:
    type: event_count
    rules: [9c7f0a10-0001-4000-8000-000000000001]
    group-by: [user]
    timespan: 5m
    condition: {gte: 9}
---
title: One address tries many users
id: 9c7f0a10-0005-4000-8000-000000000005
level: medium
correlation:
    type: value_count
    rules: [9c7f0a10-0001-4000-8000-000000000001]
    group-by: [source_ip]
    timespan: 5m
    condition: {gte: 14, field: user}
---
title: Much downloaded
id: 9c7f0a10-0006-4000-8000-000000000006
level: medium
correlation:
    type: value_sum
    rules: [9c7f0a10-0003-4000-8000-000000000003]
    group-by: [user]
    timespan: 5m
    condition: {gt: 250000, field: bytes}
---
title: Login after failures
id: 9c7f0a10-0007-4000-8000-000000000007
level: high
correlation:
    type: temporal_ordered
    rules: [9c7f0a10-0001-4000-8000-000000000001, 9c7f0a10-0002-4000-8000-000000000002]
    group-by: [user]
    timespan: 5m
`

// authEvents are n of them, so far apart; 0 leaves out the time.
func authEvents(n int, apart time.Duration) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var b bytes.Buffer
	for i := range n {
		action, outcome := "login", "failure"
		switch k := r.IntN(100); {
		case k >= 80:
			action, outcome = "download", "success"
		case k >= 50:
			outcome = "success"
		}
		b.WriteByte('{')
		if apart > 0 {
			fmt.Fprintf(&b, `"timestamp":%q,`, at.Add(time.Duration(i)*apart).Format("2006-01-02T15:04:05.000Z"))
		}
		fmt.Fprintf(&b, `"event_id":"ev-%08d","category":"authentication","action":%q,"outcome":%q,"user":"user-%03d","source_ip":"198.51.100.%d","host":"srv-%02d","bytes":%d,"session":"%016x"}`+"\n",
			i, action, outcome, r.IntN(30), r.IntN(10), r.IntN(20), r.IntN(100_000), r.Uint64())
	}
	return b.Bytes()
}

// TestBenchCorrelation measures both programs on the same events, from standard
// input to standard output, by the processor time that they take beyond what
// they take for no event.
func TestBenchCorrelation(t *testing.T) {
	program := os.Getenv(correlationEnv)
	if program == "" {
		t.Skip("a measurement, not a test: run make bench-correlation")
	}
	n := defaultEvents
	if s := os.Getenv("STORMBELL_BENCH_EVENTS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	rules := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte(authRules), 0o600))
	rsigma := other(t)
	fmt.Println("| Events apart | B/event | Ours, events/s | -o brief | Alerts | RSigma | Its alerts | Ratio | Its alerts without ours | Ours without its |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, lane := range []struct {
		name  string
		apart time.Duration
		runs  int
	}{{"1 s", time.Second, runs}, {"100 ms", 100 * time.Millisecond, runs}, {"no time", 0, 1}} {
		input := authEvents(n, lane.apart)
		ours, spent := measured(t, lane.runs, input, []string{"GOMAXPROCS=1"}, program, "eval", "-r", rules, "--workers", "1", "--output", "ndjson", "--quiet")
		rate := perSecond(n, spent)
		short, spent := measured(t, lane.runs, input, []string{"GOMAXPROCS=1"}, program, "eval", "-r", rules, "--workers", "1", "--output", "brief", "--quiet")
		require.Equal(t, bytes.Count(ours, []byte("\n")), bytes.Count(short, []byte("\n")), "a line for each alert, whole or short")
		brief := perSecond(n, spent)
		alerts := ourAlerts(t, ours)
		theirs, ratio, kinds, only, without := "", "", map[alertKey]int{}, "", ""
		if rsigma != "" {
			out, spent := measured(t, lane.runs, input, []string{"RAYON_NUM_THREADS=1"}, rsigma, "engine", "eval", "-r", rules, "--quiet", "--no-detections", "--output-format", "ndjson")
			theirs, ratio = fmt.Sprintf("%.0f", perSecond(n, spent)), fmt.Sprintf("%.1f", rate/perSecond(n, spent))
			kinds = theirAlerts(t, out)
			only, without = difference(kinds, alerts), difference(alerts, kinds)
		}
		fmt.Printf("| %s | %d | %.0f | %.0f | %s | %s | %s | %s | %s | %s |\n", lane.name, len(input)/n, rate, brief, total(alerts), theirs, total(kinds), ratio, only, without)
	}
}

// measured runs a program several times and returns what it printed and the
// median of its processor time, less that for no input.
func measured(t *testing.T, times int, input []byte, env []string, argv ...string) ([]byte, time.Duration) {
	t.Helper()
	run := func(in []byte) ([]byte, time.Duration) {
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdin = bytes.NewReader(in)
		var told bytes.Buffer
		cmd.Stderr = &told
		out, err := cmd.Output()
		require.NoError(t, err, "%s: %s", argv[0], told.String())
		return out, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	var idle, busy []time.Duration
	var out []byte
	for range times {
		_, d := run(nil)
		idle = append(idle, d)
		out, d = run(input)
		busy = append(busy, d)
	}
	return out, median(busy) - median(idle)
}

// An alertKey is a rule and a group.
type alertKey struct{ rule, group string }

// ourAlerts counts lines by rule and group.
func ourAlerts(t *testing.T, out []byte) map[alertKey]int {
	t.Helper()
	counts := map[alertKey]int{}
	for line := range bytes.Lines(out) {
		var a struct {
			Rule  struct{ ID string }
			Group map[string]string
		}
		require.NoError(t, json.Unmarshal(line, &a), "%s", line)
		counts[alertKey{a.Rule.ID, flat(a.Group)}]++
	}
	return counts
}

func theirAlerts(t *testing.T, out []byte) map[alertKey]int {
	t.Helper()
	counts := map[alertKey]int{}
	for line := range bytes.Lines(out) {
		var a struct {
			ID    string          `json:"rule_id"`
			Group json.RawMessage `json:"group_key"`
			Type  string          `json:"correlation_type"`
		}
		require.NoError(t, json.Unmarshal(line, &a), "%s", line)
		if a.Type == "" {
			continue // a detection
		}
		counts[alertKey{a.ID, theirGroup(t, a.Group)}]++
	}
	return counts
}

// theirGroup reads a list of pairs.
func theirGroup(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var pairs [][2]string
	require.NoError(t, json.Unmarshal(raw, &pairs), "%s", raw)
	group := map[string]string{}
	for _, p := range pairs {
		group[p[0]] = p[1]
	}
	return flat(group)
}

func flat(group map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(group)) {
		parts = append(parts, k+"="+group[k])
	}
	return strings.Join(parts, " ")
}

// total is the sum, and that of each rule, by the last digit of its id.
func total(counts map[alertKey]int) string {
	sum, byRule := 0, map[string]int{}
	for k, n := range counts {
		sum += n
		byRule[k.rule] += n
	}
	var parts []string
	for _, rule := range slices.SortedFunc(maps.Keys(byRule), cmp.Compare) {
		parts = append(parts, fmt.Sprintf("%c:%d", rule[len(rule)-1], byRule[rule]))
	}
	return fmt.Sprintf("%d (%s)", sum, strings.Join(parts, " "))
}

// difference is how many groups the one has alerts of and the other not.
func difference(a, b map[alertKey]int) string {
	n := 0
	for k := range a {
		if b[k] == 0 {
			n++
		}
	}
	return fmt.Sprintf("%d of %d groups", n, len(a))
}
