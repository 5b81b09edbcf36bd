package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// evaluated is what of an alert the tests look at.
type evaluated struct {
	ID     string
	Time   string
	Rule   struct{ ID, Title string }
	Group  map[string]string
	Count  int
	Window struct{ Start, End string }
	Events []struct{ ID string }
}

func alertsOf(t *testing.T, text string) (all []evaluated) {
	t.Helper()
	for line := range strings.Lines(text) {
		var a evaluated
		require.NoError(t, json.Unmarshal([]byte(line), &a))
		all = append(all, a)
	}
	return all
}

// login is a failed login at a minute and second of an hour.
func login(user, at string) string {
	return fmt.Sprintf(`{"product":"app","action":"login_failed","user":%q,"time":"2026-01-02T03:%sZ"}`+"\n", user, at)
}

func TestEval(t *testing.T) {
	rules := writeFile(t, t.TempDir(), "failed.yml", failedLogins)
	type found struct{ rule, user, start, end string }
	for name, tc := range map[string]struct {
		in   string
		want []found
	}{
		"nothing":         {"", nil},
		"below threshold": {login("bob", "00:00") + login("bob", "04:00"), nil},
		"both ends are in": {
			login("bob", "00:00") + login("bob", "01:00") + login("bob", "05:00"),
			[]found{{manyID, "bob", "00:00", "05:00"}},
		},
		"too far apart": {login("bob", "00:00") + login("bob", "01:00") + login("bob", "05:01"), nil},
		"order is no matter": {
			login("bob", "05:00") + login("bob", "00:00") + login("bob", "01:00"),
			[]found{{manyID, "bob", "00:00", "05:00"}},
		},
		"another user":    {login("bob", "00:00") + login("eve", "00:01") + login("bob", "00:02"), nil},
		"another product": {strings.ReplaceAll(login("bob", "00:00")+login("bob", "00:01")+login("bob", "00:02"), `"app"`, `"web"`), nil},
		"missing group":   {strings.ReplaceAll(login("bob", "00:00")+login("bob", "00:01")+login("bob", "00:02"), "user", "usr"), nil},
		"no time of its own": {
			login("bob", "00:00") + failedLogin + failedLogin,
			[]found{{manyID, "bob", "55:00", "00:00"}},
		},
		"no time of its own, later": {login("bob", "00:00") + login("eve", "30:00") + failedLogin + failedLogin, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, tc.in, nil, "eval", "-r", rules)
			require.Zero(t, r.code, r.err)
			var got []found
			for _, a := range alertsOf(t, r.out) {
				got = append(got, found{a.Rule.ID, a.Group["user"], a.Window.Start[14:19], a.Window.End[14:19]})
			}
			require.Equal(t, tc.want, got, r.out)
			require.Regexp(t, fmt.Sprintf(`^events: %d, rejected: 0, alerts: %d, time: .* s, events per second: \d+\n$`, strings.Count(tc.in, "\n"), len(tc.want)), r.err)
		})
	}
}

func TestEvalTellsWhatItLeavesOut(t *testing.T) {
	dir := t.TempDir()
	rules := writeFile(t, dir, "failed.yml", failedLogins+"---\ntitle: Bad\nid: 77777777-7777-4777-8777-777777777777\n")
	events := writeFile(t, dir, "events.ndjson", failedLogin+"[1]\n"+failedLogin+"{\"a\":\n"+failedLogin)
	r := stormbell(t, "", nil, "eval", "-r", rules, events)
	require.Equal(t, exitFailed, r.code)
	require.Len(t, alertsOf(t, r.out), 1)
	lines := strings.Split(strings.TrimSpace(r.err), "\n")
	require.Len(t, lines, 4, r.err)
	require.Contains(t, lines[0], rules+":23: ")
	require.Contains(t, lines[1], events+": event 2: ")
	require.Contains(t, lines[2], events+": event 4: ")
	require.Contains(t, lines[3], "events: 5, rejected: 2, alerts: 1")

	quiet := stormbell(t, "", nil, "eval", "--quiet", "-r", rules, events)
	require.Equal(t, result{exitFailed, r.out, ""}, quiet)

	r = stormbell(t, "", nil, "eval", "-r", writeFile(t, dir, "bad/bad.yml", "title: Bad\n"))
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "none of 1 rules compiles")
}

// TestEvalWorkers holds that neither threads nor the form of the input change
// a byte.
func TestEvalWorkers(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "rules/failed.yml", failedLogins)
	writeFile(t, dir, "rules/single.yml", strings.NewReplacer(failedID, "33333333-3333-4333-8333-333333333333", "login_failed", "login_odd", "Login failed", "Odd").Replace(strings.Split(failedLogins, "---")[0]))
	random := rand.New(rand.NewPCG(1, 2))
	var lines, array bytes.Buffer
	array.WriteString("[\n")
	for i := range 5000 {
		action := "login_failed"
		if random.IntN(50) == 0 {
			action = "login_odd"
		}
		event := fmt.Sprintf(`{"product":"app","action":%q,"user":"u%d","n":%d,"time":%d}`, action, random.IntN(500), i, 1_700_000_000_000+random.IntN(3_600_000))
		lines.WriteString(event + "\n")
		if i > 0 {
			array.WriteString(",\n")
		}
		array.WriteString(" " + event)
	}
	array.WriteString("]\n")
	rules := filepath.Join(dir, "rules")
	want := stormbell(t, lines.String(), nil, "eval", "-q", "-r", rules, "--workers", "1")
	require.Zero(t, want.code, want.err)
	all := alertsOf(t, want.out)
	require.True(t, slices.ContainsFunc(all, func(a evaluated) bool { return a.Rule.ID == manyID }))
	require.True(t, slices.ContainsFunc(all, func(a evaluated) bool { return a.Rule.Title == "Odd" }))
	require.Greater(t, len(all), 100)

	for name, args := range map[string][]string{
		"8 workers":  {"--workers", "8"},
		"array":      {writeFile(t, dir, "array.json", array.String())},
		"gzip":       {writeFile(t, dir, "lines.gz", zipped(t, lines.Bytes()))},
		"two files":  {writeFile(t, dir, "1.ndjson", firstLines(lines.String(), 1234)), writeFile(t, dir, "2.ndjson", lines.String()[len(firstLines(lines.String(), 1234)):])},
		"empty file": {writeFile(t, dir, "none", ""), writeFile(t, dir, "lines.ndjson", lines.String())},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, want, stormbell(t, lines.String(), nil, append([]string{"eval", "-q", "-r", rules}, args...)...))
		})
	}
}

// TestEvalBrief holds that a short line says what the whole one says of the same
// alert, for any number of threads.
func TestEvalBrief(t *testing.T) {
	dir := t.TempDir()
	rules := writeFile(t, dir, "failed.yml", failedLogins)
	single := writeFile(t, dir, "single.yml", strings.NewReplacer(failedID, "33333333-3333-4333-8333-333333333333", "name: login_failed", "name: single").Replace(strings.Split(failedLogins, "---")[0]))
	var in strings.Builder
	for i := range 900 {
		in.WriteString(login(fmt.Sprintf("u%d", i%7), fmt.Sprintf("%02d:%02d", i/15, i%15*4)))
	}
	args := []string{"eval", "-q", "-r", rules, "-r", single}
	whole := stormbell(t, in.String(), nil, args...)
	brief := stormbell(t, in.String(), nil, append(args, "-o", "brief", "--workers", "3")...)
	require.Zero(t, brief.code, brief.err)
	require.NotContains(t, brief.out, `"events"`)
	want, got := alertsOf(t, whole.out), alertsOf(t, brief.out)
	require.Greater(t, len(got), 900)
	for i := range want {
		require.NotEmpty(t, want[i].Events)
		want[i].Events = nil
	}
	require.Equal(t, want, got)
	require.Equal(t, brief, stormbell(t, in.String(), nil, append(args, "-o", "brief", "--workers", "1")...))
}

// TestEvalUpdates holds that what alerts came to is printed on request alone, under
// the ids of the alerts, which it does not change.
func TestEvalUpdates(t *testing.T) {
	rules := writeFile(t, t.TempDir(), "failed.yml", failedLogins+"stormbell: {updates: true}\n")
	var in strings.Builder
	for i := range 8 { // 03:00:00 to 03:04:40 is one bucket
		in.WriteString(login("bob", fmt.Sprintf("%02d:%02d", i*40/60, i*40%60)))
	}
	in.WriteString(login("eve", "01:00") + login("eve", "01:01") + login("eve", "01:02"))
	args := []string{"eval", "-q", "-r", rules}
	without := alertsOf(t, stormbell(t, in.String(), nil, args...).out)
	r := stormbell(t, in.String(), nil, append(args, "--updates")...)
	require.Zero(t, r.code, r.err)
	ids := map[string]string{} // by user
	for _, a := range without {
		ids[a.Group["user"]] = a.ID
	}
	require.Len(t, ids, 2)
	var alerts []evaluated
	updates := 0
	for line := range strings.Lines(r.out) {
		var a struct {
			evaluated
			Updated bool
		}
		require.NoError(t, json.Unmarshal([]byte(line), &a))
		if !a.Updated {
			alerts = append(alerts, a.evaluated)
			continue
		}
		updates++
		require.Equal(t, "bob", a.Group["user"], "nothing followed eve's")
		require.Equal(t, ids["bob"], a.ID)
		require.Equal(t, 8, a.Count)
	}
	require.Equal(t, 1, updates)
	require.Equal(t, without, alerts)
}

func firstLines(text string, n int) string {
	at := 0
	for range n {
		at += strings.IndexByte(text[at:], '\n') + 1
	}
	return text[:at]
}

func zipped(t *testing.T, text []byte) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.String()
}

// TestEvalAgreesWithUp holds that a file gives the same alerts, by id, whether
// it is evaluated or posted.
func TestEvalAgreesWithUp(t *testing.T) {
	dir, in := t.TempDir(), newInbox(t)
	rules := filepath.Dir(writeFile(t, dir, "rules/failed.yml", failedLogins))
	var trail strings.Builder
	trail.WriteString(`{"Records":[`)
	for n := range 40 {
		fmt.Fprintf(&trail, `{"eventVersion":"1.08","eventID":"e-%02d","eventTime":"2023-07-10T11:%02d:00Z","eventSource":"iam.amazonaws.com","eventName":"GetUser","user":"u%d"},`, n, n, n%4)
	}
	file := writeFile(t, dir, "trail.json", strings.TrimSuffix(trail.String(), ",")+"]}")
	writeFile(t, dir, "rules/trail.yml", strings.NewReplacer(
		"product: app", "product: aws\n  service: cloudtrail", "action: login_failed", "eventName: GetUser", "timespan: 5m", "timespan: 10m",
		failedID, "55555555-5555-4555-8555-555555555555", manyID, "66666666-6666-4666-8666-666666666666", "login_failed", "get_user",
	).Replace(failedLogins))

	r := stormbell(t, "", nil, "eval", "-r", rules, file)
	require.Zero(t, r.code, r.err)
	var want []string
	for _, a := range alertsOf(t, r.out) {
		want = append(want, a.ID)
	}
	require.Greater(t, len(want), 4)
	slices.Sort(want)

	i := startUp(t, filepath.Join(dir, "data"), "--rules", rules)
	i.must("", "webhooks", "add", in.url)
	i.must("", "send", file)
	var got []string
	for range want {
		got = append(got, in.next(t).body.Data.ID)
	}
	slices.Sort(got)
	require.Equal(t, want, got)
}

// TestEvalPublicData runs the public AWS rules over real CloudTrail files.
func TestEvalPublicData(t *testing.T) {
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "..", "shared")
	}
	files, err := filepath.Glob(filepath.Join(shared, "corpora", "invictus-cloudtrail", "CloudTrail", "*"))
	require.NoError(t, err)
	rules := filepath.Join(shared, "corpora", "sigmahq", "rules", "cloud", "aws")
	if _, err := os.Stat(rules); err != nil || len(files) == 0 {
		t.Skip("the corpora are not here: SHARED names their directory")
	}
	r := stormbell(t, "", nil, append([]string{"eval", "-r", rules}, files...)...)
	require.Zero(t, r.code, r.err)
	titles := make(map[string]int)
	for _, a := range alertsOf(t, r.out) {
		titles[a.Rule.Title]++
	}
	// Two rules whose conditions are easily said in other words.
	var routes, buckets int
	for _, name := range files {
		var file struct {
			Records []struct{ EventSource, EventName, ErrorCode string }
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &file))
		for _, r := range file.Records {
			switch {
			case r.EventSource == "ec2.amazonaws.com" && r.EventName == "CreateRoute":
				routes++
			case r.EventName == "DeleteBucket" && (r.ErrorCode == "" || r.ErrorCode == "Success"):
				buckets++
			}
		}
	}
	require.NotZero(t, routes*buckets)
	require.Equal(t, routes, titles["New Network Route Added"])
	require.Equal(t, buckets, titles["AWS Bucket Deleted"])
}
