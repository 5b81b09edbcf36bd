package observability_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// TestCollectorKeepsAlerts holds the spans by which the Collector knows a trace
// with an alert against those that the services make of alerts.
func TestCollectorKeepsAlerts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deployments/otel/collector.yaml"))
	require.NoError(t, err)
	var config struct {
		Processors map[string]struct {
			Policies []struct {
				Name          string
				OTTLCondition struct{ Span []string } `yaml:"ottl_condition"`
			}
		}
		Service struct {
			Pipelines map[string]struct{ Receivers, Processors, Exporters []string }
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &config))
	require.Contains(t, config.Service.Pipelines["traces"].Processors, "tail_sampling")
	var kept []string
	for _, p := range config.Processors["tail_sampling"].Policies {
		for _, condition := range p.OTTLCondition.Span {
			require.Equal(t, "alerts", p.Name)
			name, ok := strings.CutPrefix(condition, "name == ")
			require.True(t, ok, condition)
			kept = append(kept, strings.Trim(name, `"`))
		}
	}
	var made []string
	starts := regexp.MustCompile(`tracer\.Start\([^\n]*"((?:correlate|notify) [a-z]+)"`)
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "services"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range starts.FindAllStringSubmatch(string(source), -1) {
			made = append(made, m[1])
		}
		return err
	}))
	slices.Sort(kept)
	slices.Sort(made)
	require.Equal(t, slices.Compact(made), kept)
}
