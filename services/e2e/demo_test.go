package e2e_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/demo"
	"github.com/stormbell/stormbell/services/e2e/rig"
	workday "github.com/stormbell/stormbell/services/e2e/story"
	"github.com/stormbell/stormbell/tools/kafka"
	"github.com/stormbell/stormbell/tools/redis"
)

// shippedRules is the directory of the rules that Stormbell brings.
const shippedRules = "../rules"

func playDemo(t *testing.T, opts demo.Options) (string, error) {
	t.Helper()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	opts.Bin = filepath.Dir(rig.Program("stormbell"))
	var out bytes.Buffer
	err := demo.Run(within(t, patience), opts, &out, false)
	left, readErr := os.ReadDir(tmp)
	require.NoError(t, readErr)
	require.Empty(t, left, "the demo leaves nothing behind")
	return out.String(), err
}

func TestDemo(t *testing.T) {
	tests := []struct {
		kind    string
		cluster bool
	}{{rig.Embedded, false}, {rig.Cluster, true}}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			rig.Select(t, tt.kind)
			if tt.cluster {
				kafka.Require(t)
				redis.Require(t)
			}
			out, err := playDemo(t, demo.Options{Rules: shippedRules, Shipped: true, Cluster: tt.cluster})
			require.NoError(t, err, "%s", out)
			t.Log(out)
			for _, want := range []string{
				"2,000 events accepted, 0 late, 0 rejected",
				"✓ All 6 expected alerts arrived",
				"POST /v1/events: 202", "topic events", "detect match", "topic detections", "correlate fire", "topic alerts", "notify deliver: attempt 1, answer 204",
				"webhook-signature: v1,",
				"everything, building included",
				"make demo DATA=DIR",
			} {
				require.Contains(t, out, want)
			}
			require.Equal(t, 6, strings.Count(out, "  ✓ medium")+strings.Count(out, "  ✓ high")+strings.Count(out, "  ✓ critical"))
			require.NotContains(t, out, "whsec_")
			require.NotContains(t, out, "sbk_")
			require.NotContains(t, out, "\x1b", "colour is for terminals")
		})
	}
}

// TestDemoNotices breaks one rule and adds one that a benign day sets off: the
// demo fails and names both.
func TestDemoNotices(t *testing.T) {
	rig.Select(t, rig.Embedded)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(shippedRules)))
	takeover := filepath.Join(dir, "correlation", "account_takeover.yml")
	text, err := os.ReadFile(takeover)
	require.NoError(t, err)
	broken := regexp.MustCompile(`timespan: \S+`).ReplaceAll(text, []byte("timespan: 1s"))
	require.NotEqual(t, text, broken)
	require.NoError(t, os.WriteFile(takeover, broken, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "aws", "noisy.yml"), []byte(`title: Somebody takes a snapshot
id: 0b1c1b5e-7c0a-4c58-9a61-6d4a6f1f1e01
logsource: {product: aws, service: cloudtrail}
detection:
  s: {eventName: CreateSnapshot}
  condition: s
level: low
`), 0o600))
	out, err := playDemo(t, demo.Options{Rules: dir})
	require.ErrorIs(t, err, demo.ErrFailed)
	require.Equal(t, 1, strings.Count(out, "✗ missing: "), "%s", out)
	require.Regexp(t, `✗ missing: .+ \(correlation/account_takeover.yml\)`, out)
	require.Equal(t, 1, strings.Count(out, "✗ not expected: "), "%s", out)
	require.Contains(t, out, "✗ not expected: Somebody takes a snapshot (aws/noisy.yml)")
	require.NotContains(t, out, "All 6")
}

// TestDemoOfAFolder plays files as `make demo DATA=DIR` does.
func TestDemoOfAFolder(t *testing.T) {
	rig.Select(t, rig.Embedded)
	dir := t.TempDir()
	day := workday.Ending(time.Now().Add(-100 * 24 * time.Hour)) // old files
	text, err := workday.File(day.Attack)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "2026", "03"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "2026", "03", "attack.json.gz"), text, 0o600))
	out, err := playDemo(t, demo.Options{Rules: shippedRules, Shipped: true, Data: dir})
	require.NoError(t, err, "%s", out)
	require.Contains(t, out, "sent: 63, accepted: 63, late: 0, rejected: 0")
	for _, file := range []string{"aws/console_login_without_mfa.yml", "aws/access_key_created.yml", "aws/cloudtrail_stopped.yml", "correlation/secrets_read_in_bulk.yml", "correlation/account_takeover.yml"} {
		require.Contains(t, out, file)
	}
	_, err = playDemo(t, demo.Options{Rules: shippedRules, Shipped: true, Data: t.TempDir()})
	require.ErrorContains(t, err, "name a folder of CloudTrail files")
	_, err = playDemo(t, demo.Options{Rules: shippedRules, Shipped: true, Data: filepath.Join(dir, "absent")})
	require.ErrorIs(t, err, fs.ErrNotExist)
}
