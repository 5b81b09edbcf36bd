package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRulesDiffOfDirectories needs no gateway, and says by its exit code whether
// anything differs.
func TestRulesDiffOfDirectories(t *testing.T) {
	const rules = "title: A\nid: a\nlogsource: {product: p}\ndetection: {s: {f: v}, condition: s}\n"
	dir := func(text string) string {
		d := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(d, "r.yml"), []byte(text), 0o600))
		return d
	}
	before := dir(rules)
	run := func(after string) (code int, out string) {
		var stdout, stderr strings.Builder
		env := &environment{in: strings.NewReader(""), out: &stdout, err: &stderr, getenv: func(string) string { return "" }}
		code = execute(t.Context(), env, []string{"rules", "diff", before, after})
		require.Empty(t, stderr.String())
		return code, stdout.String()
	}
	code, out := run(before)
	require.Equal(t, exitOK, code)
	require.Equal(t, "rules: 0 added, 0 removed, 0 changed, 0 text only, 1 unchanged, 0 rejected\n", out)
	code, out = run(dir(strings.Replace(rules, "title: A", "title: Better", 1)))
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "text    detection  a   Better  text only: state and ids go on")
	code, out = run(dir(strings.Replace(rules, "f: v", "f: w", 1)))
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "begins anew")
}

func TestTimeOf(t *testing.T) {
	now := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"6h": "2026-11-02T06:00:00Z", "7d": "2026-10-26T12:00:00Z", "2026-11-01": "2026-11-01T00:00:00Z", "2026-11-01T10:00:00Z": "2026-11-01T10:00:00Z",
		"": "", "yesterday": "", "-1h": "",
	} {
		got, err := timeOf(text, now)
		require.Equal(t, want == "", err != nil, text)
		if err == nil {
			require.Equal(t, want, got.Format(time.RFC3339), text)
		}
	}
}
