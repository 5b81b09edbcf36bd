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
// input to standard output, by the processor time that they take, starting up
// included: in turns, the median of several runs.
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
	rules, none := filepath.Join(t.TempDir(), "rules.yml"), filepath.Join(t.TempDir(), "none.yml")
	require.NoError(t, os.WriteFile(rules, []byte(authRules), 0o600))
	// The floor: events are read, given their ids and put to rules that none matches.
	unmet := strings.NewReplacer("outcome: failure", "outcome: none", "outcome: success", "outcome: none", "action: download", "action: none")
	require.NoError(t, os.WriteFile(none, []byte(unmet.Replace(authRules)), 0o600))
	eval := func(rules, output string) *measuredProgram {
		return &measuredProgram{env: "GOMAXPROCS=1", argv: []string{program, "eval", "-r", rules, "--workers", "1", "--output", output, "--quiet"}}
	}
	rsigma := other(t)
	fmt.Println("| Events apart | B/event | Ours, events/s | -o brief | RSigma | Ratio | brief | Alerts | Its alerts | Its without ours | Ours without its | No match, events/s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, lane := range []struct {
		name  string
		apart time.Duration
	}{{"1 s", time.Second}, {"100 ms", 100 * time.Millisecond}, {"no time", 0}} {
		input := authEvents(n, lane.apart)
		whole, brief, idle := eval(rules, "ndjson"), eval(rules, "brief"), eval(none, "ndjson")
		all := []*measuredProgram{whole, brief, idle}
		theirs := &measuredProgram{env: "RAYON_NUM_THREADS=1", argv: []string{rsigma, "engine", "eval", "-r", rules, "--quiet", "--no-detections", "--output-format", "ndjson"}}
		if rsigma != "" {
			all = append(all, theirs)
		}
		inTurns(t, runs, input, all)
		require.Empty(t, idle.out)
		require.Equal(t, bytes.Count(whole.out, []byte("\n")), bytes.Count(brief.out, []byte("\n")), "a line for each alert, whole or short")
		alerts := ourAlerts(t, whole.out)
		rate, ratio, ratioBrief, kinds, only, without := "", "", "", map[alertKey]int{}, "", ""
		if rsigma != "" {
			rate = fmt.Sprintf("%.0f", theirs.rate(n))
			ratio, ratioBrief = fmt.Sprintf("%.2f", whole.rate(n)/theirs.rate(n)), fmt.Sprintf("%.2f", brief.rate(n)/theirs.rate(n))
			kinds = theirAlerts(t, theirs.out)
			only, without = difference(kinds, alerts), difference(alerts, kinds)
		}
		fmt.Printf("| %s | %d | %.0f | %.0f | %s | %s | %s | %s | %s | %s | %s | %.0f |\n", lane.name, len(input)/n, whole.rate(n), brief.rate(n), rate,
			ratio, ratioBrief, total(alerts), total(kinds), only, without, idle.rate(n))
	}
}

// A measuredProgram is a command, what it printed, and the processor time that
// each of its runs took.
type measuredProgram struct {
	env   string
	argv  []string
	out   []byte
	spent []time.Duration
}

// rate is how many of n events it takes in a second.
func (p *measuredProgram) rate(n int) float64 { return perSecond(n, median(p.spent)) }

// inTurns runs each program on the same input, one after the other, several times.
func inTurns(t *testing.T, times int, input []byte, all []*measuredProgram) {
	t.Helper()
	for range times {
		for _, p := range all {
			cmd := exec.CommandContext(t.Context(), p.argv[0], p.argv[1:]...)
			cmd.Env = append(os.Environ(), p.env)
			cmd.Stdin = bytes.NewReader(input)
			var told bytes.Buffer
			cmd.Stderr = &told
			var err error
			p.out, err = cmd.Output()
			require.NoError(t, err, "%s: %s", p.argv[0], told.String())
			p.spent = append(p.spent, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
	}
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
