package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules/trial"
)

// TestDocumentedExample holds the example in docs/rules.md: it is the file that
// it says it is, it passes, and it fails as shown.
func TestDocumentedExample(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		require.NoError(t, err)
		return string(text)
	}
	tests, page := read("examples/rules/failed-logins.test.yml"), read("rules.md")
	require.Contains(t, page, "```yaml\n"+tests+"```\n")
	run := func(tests string) *trial.Report {
		files := []ruleset.File{{Name: "docs/examples/rules/failed-logins.yml", Content: []byte(read("examples/rules/failed-logins.yml"))}}
		report, err := trial.Run(t.Context(), files, nil, []ruleset.File{{Name: "docs/examples/rules/failed-logins.test.yml", Content: []byte(tests)}}, settings())
		require.NoError(t, err)
		require.Len(t, report.Results, 3)
		return report
	}
	report := run(tests)
	require.Zero(t, report.Failed())
	require.Empty(t, report.Gaps)

	changed := "expect: [{ rule: 8d3c1f5a-4b7e-4d5b-9a57-0c7a1f1e2b01 }]"
	require.Contains(t, page, changed)
	report = run(strings.Replace(tests, "expect: []", changed, 1))
	require.Equal(t, 1, report.Failed())
	f := report.Results[2].Failures[0]
	require.Contains(t, page, ":27: failed: a login that succeeds: "+f.Message+"\n    "+f.Why[0]+"\n")
	require.Equal(t, 27, f.Line)
	require.Len(t, f.Why, 1)
}
