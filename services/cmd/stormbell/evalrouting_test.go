package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEvalLogsource(t *testing.T) {
	rule := func(id, source string) string {
		return "title: " + id + "\nid: " + id + "\nlogsource: {" + source + "}\ndetection:\n    sel: {f: x}\n    condition: sel\nlevel: low\n---\n"
	}
	rules := writeFile(t, t.TempDir(), "all.yml", rule("windows", "product: windows, category: process_creation")+rule("linux", "product: linux")+
		rule("sysmon", "product: windows, service: sysmon")+rule("trail", "product: aws, service: cloudtrail"))
	const (
		plain  = `{"f":"x"}`
		told   = `{"f":"x","product":"linux"}`
		fields = `{"f":"x","product":"linux","os":{"name":"Windows"},"log.service":"SYSMON","kind":"process_creation"}`
		trail  = `{"f":"x","eventVersion":"1.08","eventID":"e","eventTime":"2026-01-02T03:00:00Z"}`
	)
	for name, c := range map[string]struct {
		flags, event, want string
	}{
		"nothing said":            {"", plain, "linux sysmon trail windows"},
		"said by the event":       {"", told, "linux"},
		"asserted":                {"--logsource product=windows,service=sysmon,category=file_event", told, "sysmon"},
		"partly asserted":         {"--logsource product=Windows", told, "sysmon windows"},
		"asserted in two flags":   {"--logsource product=windows --logsource category=process_creation", plain, "sysmon windows"},
		"in other fields":         {"--logsource-field product=os.name,service=log.service", fields, "sysmon windows"},
		"in other fields, all":    {"--logsource-field product=os.name,service=kind,category=kind", fields, "windows"},
		"field that is not there": {"--logsource-field product=none", told, "linux sysmon trail windows"},
		"both":                    {"--logsource-field product=os.name --logsource service=sysmon,category=x", fields, "sysmon"},
		"CloudTrail":              {"", trail, "trail"},
		"CloudTrail, asserted":    {"--logsource product=linux", trail, "linux"},
		"no routing":              {"--no-routing", told, "linux sysmon trail windows"},
		"no routing, CloudTrail":  {"--no-routing", trail, "linux sysmon trail windows"},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, c.event, nil, append([]string{"eval", "-r", rules}, strings.Fields(c.flags)...)...)
			require.Zero(t, r.code, r.err)
			var ids []string
			for _, a := range alertsOf(t, r.out) {
				ids = append(ids, a.Rule.ID)
			}
			slices.Sort(ids)
			require.Equal(t, c.want, strings.Join(ids, " "))
		})
	}
	for flags, says := range map[string]string{
		"--logsource os=windows":                   "--logsource os=windows: use product=…, service=… and category=…",
		"--logsource-field product=":               "--logsource-field product=: use product=…",
		"--no-routing --logsource product=windows": "--no-routing leaves no use for",
		"--logsource windows":                      "windows must be formatted as key=value",
	} {
		r := stormbell(t, plain, nil, append([]string{"eval", "-r", rules}, strings.Fields(flags)...)...)
		require.Equal(t, exitUsage, r.code, flags)
		require.Contains(t, r.err, says, flags)
	}
}

// TestEvalSummary holds that matches count which only a correlation counts, and
// that nothing depends on how many workers there are.
func TestEvalSummary(t *testing.T) {
	dir := t.TempDir()
	rules := writeFile(t, dir, "failed.yml", failedLogins)
	var text strings.Builder
	for n := range 2000 {
		text.WriteString(login(fmt.Sprint("u", n%3), fmt.Sprintf("%02d:%02d", n/60%60, n%60)))
	}
	writeFile(t, dir, "logs/b/2.ndjson", text.String())
	writeFile(t, dir, "logs/1.json", "["+strings.TrimSpace(login("u0", "00:00"))+"]")
	writeFile(t, dir, "logs/README.md", "no events")
	writeFile(t, dir, "logs/.hidden.json", "nor here")
	var first string
	for _, workers := range []int{1, 2, 7} {
		r := stormbell(t, "", nil, "eval", "-r", rules, "--summary", "-o", "json", "--workers", strconv.Itoa(workers), filepath.Join(dir, "logs"))
		require.Zero(t, r.code, r.err)
		require.Contains(t, r.err, "events: 2001, rejected: 0")
		if first == "" {
			first = r.out
		}
		require.Equal(t, first, r.out)
	}
	var got []countedRule
	for line := range strings.Lines(first) {
		var c countedRule
		require.NoError(t, json.Unmarshal([]byte(line), &c))
		got = append(got, c)
	}
	require.Len(t, got, 2)
	require.Equal(t, failedID, got[0].ID)
	require.Equal(t, 2001, got[0].Matches)
	require.Zero(t, got[0].Alerts, "the correlation counts them")
	require.Equal(t, manyID, got[1].ID)
	require.Equal(t, "event_count", got[1].Type)

	alerts := stormbell(t, "", nil, "eval", "-q", "-r", rules, filepath.Join(dir, "logs"))
	require.Len(t, alertsOf(t, alerts.out), got[1].Alerts)
	require.NotZero(t, got[1].Alerts)

	r := stormbell(t, "", nil, "eval", "-q", "-r", rules, "--summary", filepath.Join(dir, "logs"))
	require.Regexp(t, `^MATCHES +ALERTS +LEVEL +TYPE +RULE\n2001 +0 `, r.out)
	r = stormbell(t, "", nil, "eval", "-r", rules, "--summary", writeFile(t, dir, "none.ndjson", `{"a":1}`))
	require.Regexp(t, `^MATCHES[^\n]+\n$`, r.out)
	r = stormbell(t, "", nil, "eval", "-r", rules, t.TempDir())
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "holds no files of events (*.json, *.jsonl, *.ndjson, also with .gz)")
}

// TestEvalPublicMatches holds the documented matches of the public AWS rules on
// public CloudTrail data.
func TestEvalPublicMatches(t *testing.T) {
	corpora := filepath.Join(shared(t), "corpora")
	rules := filepath.Join(corpora, "sigmahq", "rules", "cloud", "aws")
	if _, err := os.Stat(rules); err != nil {
		t.Skip("the corpora are not here: SHARED names their directory")
	}
	text, err := os.ReadFile("../../../docs/sigma.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| Rule | Matches |\n")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	want, total := map[string]int{}, 0
	for _, row := range regexp.MustCompile(`(?m)^\| (.+) \| (\d+) \|$`).FindAllStringSubmatch(table, -1) {
		want[row[1]], err = strconv.Atoi(row[2])
		require.NoError(t, err)
		total += want[row[1]]
	}
	require.Len(t, want, 13)
	r := stormbell(t, "", nil, "eval", "-r", rules, "--summary", "-o", "json", filepath.Join(corpora, "invictus-cloudtrail"), filepath.Join(corpora, "stratus"))
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.err, fmt.Sprintf("events: 3210, rejected: 0, alerts: %d,", total))
	got := map[string]int{}
	for line := range strings.Lines(r.out) {
		var c countedRule
		require.NoError(t, json.Unmarshal([]byte(line), &c))
		got[c.Title] = c.Matches
	}
	require.Equal(t, want, got)
}
