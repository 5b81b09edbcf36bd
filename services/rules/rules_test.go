package rules_test

import (
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules"
	"github.com/stormbell/stormbell/services/rules/trial"
	"github.com/stormbell/stormbell/services/sigma"
)

// settings are those of `stormbell up` without any of one's own.
func settings() trial.Settings {
	cfg := correlator.DefaultConfig()
	return trial.Settings{Sigma: sigma.Options{Accept: cfg.Accept}, Gateway: gateway.DefaultConfig(), Correlator: cfg}
}

func pack(t *testing.T) (files, tests []ruleset.File) {
	t.Helper()
	files, err := rules.Files()
	require.NoError(t, err)
	tests, err = rules.Tests()
	require.NoError(t, err)
	return files, tests
}

// TestPack runs the tests of all rules.
func TestPack(t *testing.T) {
	files, tests := pack(t)
	report, err := trial.Run(t.Context(), files, nil, tests, settings())
	require.NoError(t, err)
	require.Empty(t, report.Problems, "rules come without errors and warnings")
	require.Empty(t, report.Gaps, "each rule has tests that fire it and tests that hold it back")
	require.Len(t, tests, len(files), "each file of rules has its tests")
	for _, r := range report.Results {
		require.Empty(t, r.Failures, "%s:%d: %s", r.File, r.Line, r.Name)
	}
}

// TestPackIsComplete demands of each rule what a responder needs.
func TestPackIsComplete(t *testing.T) {
	files, _ := pack(t)
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	tag := regexp.MustCompile(`^attack\.(t\d{4}(\.\d{3})?|[a-z]+(-[a-z]+)*)$`)
	for _, f := range files {
		t.Run(f.Name, func(t *testing.T) {
			var r struct {
				Title, ID, Name, Status, Description, Author, Date, Level string
				Tags                                                      []string
				FalsePositives                                            []string `yaml:"falsepositives"`
			}
			require.NoError(t, yaml.Unmarshal(f.Content, &r))
			require.NotEmpty(t, r.Title)
			require.Regexp(t, uuid, r.ID)
			base := strings.TrimSuffix(path.Base(f.Name), ".yml")
			require.Equal(t, "stormbell_"+base, r.Name, "the name is that of the file, and nobody else's")
			require.Contains(t, []string{"stable", "test"}, r.Status)
			require.Greater(t, len(r.Description), 150, "say what to do next")
			require.Equal(t, "Stormbell", r.Author)
			require.Regexp(t, `^20\d\d-\d\d-\d\d$`, r.Date)
			require.Contains(t, []string{"informational", "low", "medium", "high", "critical"}, r.Level)
			require.NotEmpty(t, r.FalsePositives)
			technique := false
			for _, text := range r.Tags {
				require.Regexp(t, tag, text)
				technique = technique || strings.HasPrefix(text, "attack.t")
			}
			require.True(t, technique, "names an ATT&CK technique")
		})
	}
}
