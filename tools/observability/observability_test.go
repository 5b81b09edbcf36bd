package observability_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/observability"
)

//go:generate go test -run ^TestWritten$ . -update

const root = "../.."

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the files")
	flag.Parse()
	m.Run()
}

// written are all files, by their path in the repository.
func written(t *testing.T) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	rules, err := observability.RuleFile()
	require.NoError(t, err)
	files["deployments/prometheus/rules/stormbell.yaml"] = rules
	operator, err := observability.PrometheusRule()
	require.NoError(t, err)
	files["deployments/kubernetes/components/monitoring/prometheusrule.yaml"] = operator
	for _, d := range observability.Dashboards() {
		text, err := d.JSON()
		require.NoError(t, err)
		files["deployments/grafana/dashboards/"+strings.TrimPrefix(d.UID, "stormbell-")+".json"] = text
	}
	return files
}

// TestWritten holds the files against the code; with -update it writes them.
func TestWritten(t *testing.T) {
	for path, want := range written(t) {
		path = filepath.Join(root, path)
		if flag.Lookup("update").Value.String() == "true" {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, want, 0o644))
			continue
		}
		have, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), string(have), "%s is not what the code says: run `make generate`", path)
	}
}

// known are the metrics in the reference, by name.
func known(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs/reference/metrics.md"))
	require.NoError(t, err)
	found := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| [^|]*\\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		found[m[1]] = m[2] + " " + m[3]
	}
	require.Greater(t, len(found), 40)
	return found
}

func recorded() map[string]bool {
	names := make(map[string]bool)
	for _, g := range observability.Groups() {
		for _, r := range g.Rules {
			names[r.Record] = true
		}
	}
	return names
}

// expressions are all that dashboards and rules ask for, by who asks.
func expressions() map[string]string {
	all := make(map[string]string)
	for _, d := range observability.Dashboards() {
		for _, c := range d.Choices {
			all[d.UID+" $"+c[0]] = c[1]
		}
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				for _, q := range p.Queries {
					all[d.UID+" "+row.Title+" / "+p.Title+" "+q.Legend] = q.Expr
				}
			}
		}
	}
	for _, g := range observability.Groups() {
		for _, r := range g.Rules {
			all[g.Name+" "+r.Record+r.Alert+r.Labels["window"]] = r.Expr
		}
	}
	return all
}

// unknown returns the names in an expression that are no metric.
func unknown(expr string, metrics map[string]string, records map[string]bool) []string {
	var found []string
	for _, name := range regexp.MustCompile(`\b(?:stormbell[a-z0-9_:]+|process_[a-z_]+|go_[a-z_]+)`).FindAllString(expr, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if cut, ok := strings.CutSuffix(name, suffix); ok && strings.HasPrefix(metrics[cut], "histogram") {
				base = cut
			}
		}
		foreign := strings.HasPrefix(name, "process_") || name == "go_goroutines"
		if _, ok := metrics[base]; !ok && !records[name] && !foreign {
			found = append(found, name)
		}
	}
	return found
}

// TestMetricsExist holds that whatever a dashboard or a rule names is in the
// reference, which is generated from the code.
func TestMetricsExist(t *testing.T) {
	metrics, records := known(t), recorded()
	all := expressions()
	require.Greater(t, len(all), 100)
	for where, expr := range all {
		require.Empty(t, unknown(expr, metrics, records), "%s: %s", where, expr)
	}
	require.Equal(t, []string{"stormbell_gateway_event_total"}, unknown("rate(stormbell_gateway_event_total[5m])", metrics, records))
	require.Equal(t, []string{"stormbell_gateway_events_total_bucket"}, unknown("stormbell_gateway_events_total_bucket", metrics, records), "it is no histogram")
	require.Equal(t, []string{"stormbell:ingest_errors:ratio_rate7d"}, unknown("stormbell:ingest_errors:ratio_rate7d > 1", metrics, records))
}

// TestAlertsHaveRunbooks holds that each alert says what to do, and that no
// runbook is for an alert that is gone.
func TestAlertsHaveRunbooks(t *testing.T) {
	linked := make(map[string]bool)
	for _, g := range observability.Groups() {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.Contains(t, []string{"page", "ticket"}, r.Labels["severity"], r.Alert)
			name, ok := strings.CutPrefix(r.Annotations["runbook_url"], observability.Runbooks)
			require.True(t, ok, r.Alert)
			text, err := os.ReadFile(filepath.Join(root, "docs/runbooks", name))
			require.NoError(t, err, "%s has no runbook", r.Alert)
			require.Contains(t, string(text), "`"+r.Alert+"`", "the runbook names its alert")
			linked[name] = true
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "docs/runbooks"))
	require.NoError(t, err)
	for _, e := range entries {
		require.True(t, linked[e.Name()] || e.Name() == "README.md", "no alert links to %s", e.Name())
	}
}
