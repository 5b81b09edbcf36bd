package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/tools/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func alertOf(id, rule string) alert {
	a := alert{ID: id}
	a.Rule.ID = rule
	return a
}

func TestJudge(t *testing.T) {
	want := []rule{{"a.yml", "a", "A"}, {"b.yml", "b", "B"}, {"gone.yml", "", "(the rule is not there)"}}
	a, a2, b, c := alertOf("1", "a"), alertOf("2", "a"), alertOf("3", "b"), alertOf("4", "c")
	tests := []struct {
		name string
		got  []alert
		want verdict
	}{
		{"nothing came", nil, verdict{missing: want}},
		{"all that can", []alert{b, a}, verdict{missing: want[2:]}},
		{"a second one of the same rule", []alert{a, a2, b}, verdict{missing: want[2:], further: []alert{a2}}},
		{"another rule", []alert{a, b, c}, verdict{missing: want[2:], further: []alert{c}}},
		{"an alert without a rule", []alert{a, b, alertOf("5", "")}, verdict{missing: want[2:], further: []alert{alertOf("5", "")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(want, tt.got)
			require.Equal(t, tt.want.missing, got.missing)
			require.Equal(t, tt.want.further, got.further)
		})
	}
}

// TestOnlyVerifiedAlertsCount delivers one alert twice, one with a wrong
// signature, and something that is no alert.
func TestOnlyVerifiedAlertsCount(t *testing.T) {
	secret := ledger.NewSecret()
	r, err := ledger.NewReceiver(t.Context(), secret, ledger.Behave{})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(secret, id, body string) {
		hook, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		now := time.Now()
		sign, err := hook.Sign(id, now, []byte(body))
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL("/alerts"), strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("webhook-id", id)
		req.Header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
		req.Header.Set("webhook-signature", sign)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	body := `{"type":"stormbell.alert.v1","data":{"id":"one","rule":{"id":"a","title":"A"}}}`
	post(secret, "msg_1", body)
	post(secret, "msg_1", body)
	post(ledger.NewSecret(), "msg_2", strings.Replace(body, "one", "forged", 1))
	post(secret, "msg_3", `{"type":"stormbell.alert.v1","data":[]}`)
	all, refused := alerts(r.Deliveries())
	require.Len(t, all, 1)
	require.Equal(t, "A", all[0].Rule.Title)
	require.Len(t, refused, 2)
}

func TestReadRules(t *testing.T) {
	pack := fstest.MapFS{
		"aws/a.yml":   {Data: []byte("title: A\nid: 0b1c1b5e-7c0a-4c58-9a61-6d4a6f1f1e01\nlogsource: {product: aws}\ndetection: {s: {a: b}, condition: s}\n")},
		"aws/bad.yml": {Data: []byte("title: [")},
	}
	rules, err := readRules(pack, []string{"aws/a.yml", "aws/absent.yml"})
	require.NoError(t, err)
	require.Equal(t, []rule{{"aws/a.yml", "0b1c1b5e-7c0a-4c58-9a61-6d4a6f1f1e01", "A"}, {"aws/absent.yml", "", "(the rule is not there)"}}, rules)
	_, err = readRules(pack, []string{"aws/bad.yml"})
	require.ErrorContains(t, err, "aws/bad.yml")
}

func TestLayoutKeepsEverything(t *testing.T) {
	long := strings.Repeat("x", jsonWidth)
	for _, text := range []string{
		`{}`, `[]`, `null`, `"a\nb"`, `{"a":1.50,"b":[true,{"c":"<é>"}]}`, `{"a":"` + long + `","b":[],"c":{}}`,
		`[{"a":["` + long + `",[1,2,3]]},12345678901234567890]`,
	} {
		laid, err := layout([]byte(text), "")
		require.NoError(t, err)
		var flat bytes.Buffer
		require.NoError(t, json.Compact(&flat, []byte(laid)))
		require.Equal(t, text, flat.String())
		require.Equal(t, strings.Contains(text, long), strings.Contains(laid, "\n"), "what fits stands on one line")
	}
	_, err := layout([]byte(`{"a":`), "")
	require.Error(t, err)
}

func TestFiguresForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1230 * time.Microsecond: "1.2 ms", 45 * time.Millisecond: "45 ms", 2340 * time.Millisecond: "2.34 s", 75 * time.Second: "1m15s", 0: "0.0 ms",
	} {
		require.Equal(t, want, brief(d))
	}
	for n, want := range map[int]string{0: "0", 999: "999", 2000: "2,000", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(n))
	}
	require.Equal(t, "a b  [31m", plain("a\nb\x00\x1b[31m"))
}

func TestLogFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	for _, name := range []string{"a.json", "sub/b.json.gz", "c.txt", "sub/d.json.gz.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	files, err := logFiles(dir)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "a.json"), filepath.Join(dir, "sub", "b.json.gz")}, files)
}

// TestInterrupted ends everything, and says so, where the demo is interrupted
// before it has begun.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	err := Run(ctx, Options{Bin: t.TempDir(), Rules: t.TempDir()}, &out, true)
	require.ErrorContains(t, err, "interrupted")
	require.Contains(t, out.String(), "\x1b[1m", "colour where it is asked for")
}

func TestColourOnlyWhereItIsWelcome(t *testing.T) {
	device, err := os.Open(os.DevNull) // a character device, as a terminal is one
	require.NoError(t, err)
	defer func() { require.NoError(t, device.Close()) }()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	env := func(name, value string) func(string) string {
		return func(asked string) string {
			if asked == name {
				return value
			}
			return ""
		}
	}
	require.True(t, Colourful(device, env("TERM", "xterm-256color")))
	require.False(t, Colourful(device, env("NO_COLOR", "1")))
	require.False(t, Colourful(device, env("TERM", "dumb")))
	require.False(t, Colourful(file, env("TERM", "xterm-256color")))
}
