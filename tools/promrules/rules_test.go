package promrules_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const deployments = "../../deployments"

type rule struct {
	Record, Alert, Expr string
	For                 model.Duration
	Labels              map[string]string
	Annotations         map[string]string
}

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

// testFile is the part of promtool's format that is used here; an unknown key
// is an error.
type testFile struct {
	RuleFiles []string       `yaml:"rule_files"`
	Interval  model.Duration `yaml:"evaluation_interval"`
	Tests     []struct {
		Name     string
		Interval model.Duration
		Series   []struct{ Series, Values string } `yaml:"input_series"`
		Alerts   []struct {
			Name string         `yaml:"alertname"`
			At   model.Duration `yaml:"eval_time"`
			Want []struct {
				Labels map[string]string `yaml:"exp_labels"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
		Queries []struct {
			Expr string
			At   model.Duration `yaml:"eval_time"`
			Want []struct {
				Labels string
				Value  float64
			} `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	}
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	require.NoError(t, d.Decode(into), path)
}

// TestRules runs each unit test as promtool does: samples come as time goes on,
// rules are evaluated in order at each interval, and alerts wait for as long
// as they must hold.
func TestRules(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(deployments, "prometheus/tests/*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	tried := make(map[string]bool)
	for _, path := range paths {
		var file testFile
		read(t, path, &file)
		var rules []rule
		for _, name := range file.RuleFiles {
			rules = append(rules, load(t, filepath.Join(filepath.Dir(path), name))...)
		}
		for _, test := range file.Tests {
			t.Run(test.Name, func(t *testing.T) {
				var input strings.Builder
				fmt.Fprintf(&input, "load %s\n", test.Interval)
				for _, s := range test.Series {
					fmt.Fprintf(&input, "  %s %s\n", s.Series, s.Values)
				}
				end := time.Duration(0)
				for _, a := range test.Alerts {
					end = max(end, time.Duration(a.At))
				}
				for _, q := range test.Queries {
					end = max(end, time.Duration(q.At))
				}
				w := start(t, input.String(), rules)
				for at := time.Duration(0); at <= end; at += time.Duration(file.Interval) {
					w.step(t, at)
					for _, a := range test.Alerts {
						if time.Duration(a.At) != at {
							continue
						}
						want := []string{}
						for _, one := range a.Want {
							want = append(want, fmt.Sprint(one.Labels))
							tried[a.Name] = true
						}
						require.ElementsMatch(t, want, w.firing(a.Name, at), "%s at %s", a.Name, at)
					}
					for _, q := range test.Queries {
						if time.Duration(q.At) != at {
							continue
						}
						got := w.query(t, q.Expr, at)
						require.Len(t, got, len(q.Want), q.Expr)
						for i, want := range q.Want {
							require.Equal(t, want.Labels, got[i].Metric.Get(labels.MetricName))
							require.InDelta(t, want.Value, got[i].F, 1e-9)
						}
					}
				}
			})
		}
		for _, r := range rules {
			require.True(t, r.Alert == "" || tried[r.Alert], "no test has %s fire", r.Alert)
		}
	}
}

func load(t *testing.T, path string) []rule {
	t.Helper()
	var file ruleFile
	read(t, path, &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// world is a Prometheus in which time passes by steps.
type world struct {
	*promqltest.LazyLoader
	rules []rule
	// since is when each alert became true, by the rule's place and its labels.
	since map[int]map[string]time.Duration
	named map[string]map[string]string
}

func start(t *testing.T, input string, rules []rule) *world {
	t.Helper()
	l, err := promqltest.NewLazyLoader(input, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	l.SubqueryInterval = time.Minute
	return &world{LazyLoader: l, rules: rules, since: make(map[int]map[string]time.Duration), named: make(map[string]map[string]string)}
}

func (w *world) query(t *testing.T, expr string, at time.Duration) promql.Vector {
	t.Helper()
	q, err := w.QueryEngine().NewInstantQuery(w.Context(), w.Storage(), nil, expr, time.Unix(0, 0).Add(at))
	require.NoError(t, err, expr)
	defer q.Close()
	result := q.Exec(w.Context())
	require.NoError(t, result.Err, expr)
	require.Empty(t, result.Warnings, expr)
	v, err := result.Vector()
	require.NoError(t, err, expr)
	return slices.Clone(v)
}

func (w *world) step(t *testing.T, at time.Duration) {
	t.Helper()
	w.WithSamplesTill(time.Unix(0, 0).Add(at), func(err error) { require.NoError(t, err) })
	for i, r := range w.rules {
		found := w.query(t, r.Expr, at)
		if r.Record != "" {
			app := w.Storage().Appender(w.Context())
			for _, s := range found {
				_, err := app.Append(0, labels.NewBuilder(s.Metric).Set(labels.MetricName, r.Record).Labels(), at.Milliseconds(), s.F)
				require.NoError(t, err)
			}
			require.NoError(t, app.Commit())
			continue
		}
		now := make(map[string]time.Duration)
		for _, s := range found {
			all := s.Metric.Map()
			delete(all, labels.MetricName)
			maps.Copy(all, r.Labels)
			key := fmt.Sprint(all)
			now[key], w.named[key] = at, all
			if before, ok := w.since[i][key]; ok {
				now[key] = before
			}
		}
		w.since[i] = now
	}
}

// firing are the labels of the alerts of a name that have held long enough.
func (w *world) firing(name string, at time.Duration) []string {
	found := []string{}
	for i, r := range w.rules {
		if r.Alert != name {
			continue
		}
		for key, since := range w.since[i] {
			if at-since >= time.Duration(r.For) {
				found = append(found, key)
			}
		}
	}
	return found
}

// TestDashboardsParse parses every expression of every panel.
func TestDashboardsParse(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(deployments, "grafana/dashboards/*.json"))
	require.NoError(t, err)
	require.Len(t, paths, 3)
	count := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var page struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		require.NoError(t, json.Unmarshal(text, &page))
		for _, panel := range page.Panels {
			for _, target := range panel.Targets {
				require.NoError(t, parse(target.Expr), "%s: %s", path, panel.Title)
				count++
			}
		}
	}
	require.Greater(t, count, 70)
	require.Error(t, parse("sum by (tenant (rate(x[$__rate_interval]))"))
}

func parse(expr string) error {
	_, err := parser.NewParser(parser.Options{}).ParseExpr(strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$tenant", ".*").Replace(expr))
	return err //nolint:wrapcheck // the test says where
}
