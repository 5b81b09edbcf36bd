package reference_test

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/follow"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/notifier"
)

//go:generate go test -run ^TestMetrics$ . -update

const (
	page     = "../../../../docs/reference/metrics.md"
	services = "../../.."
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the page")
	flag.Parse()
	m.Run()
}

// A room is a package that makes metrics.
type room struct {
	title, dir string
	// make has the room make its instruments.
	make func(t *testing.T, meters metric.MeterProvider)
	// labels are those of each instrument; TestLabels holds them against the
	// code. An instrument that is not listed has none.
	labels map[string]string
}

// rooms lists all of them: a new service adds itself here.
func rooms() []room {
	tracers := noop.NewTracerProvider()
	log := slog.New(slog.DiscardHandler)
	return []room{
		{
			title: "Gateway", dir: "gateway",
			make: func(t *testing.T, meters metric.MeterProvider) {
				cfg := gateway.DefaultConfig()
				cfg.Listen = "127.0.0.1:0"
				s, err := gateway.New(cfg, gateway.Deps{
					Producer: new(bus.Producer), Partitions: 1, Log: log, TracerProvider: tracers, MeterProvider: meters, Clock: time.Now,
				})
				require.NoError(t, err)
				require.NoError(t, s.Close())
			},
			labels: map[string]string{
				"stormbell_gateway_requests_total":           "route, status",
				"stormbell_gateway_request_duration_seconds": "route",
				"stormbell_gateway_events_total":             "source",
				"stormbell_gateway_event_bytes_total":        "source",
				"stormbell_gateway_late_events_total":        "source",
				"stormbell_gateway_rejected_records_total":   "code",
				"stormbell_gateway_produce_errors_total":     "reason",
			},
		},
		{
			title: "Correlator", dir: "correlator",
			make: func(t *testing.T, meters metric.MeterProvider) {
				cfg := correlator.DefaultConfig()
				cfg.Stages = "detect" // the other one needs a store, and has the same metrics
				_, err := correlator.New(cfg, correlator.Deps{Log: log, Tracers: tracers, Meters: meters, Clock: time.Now})
				require.NoError(t, err)
			},
			labels: map[string]string{
				"stormbell_correlator_poison_total":          "stage",
				"stormbell_correlator_gaps_total":            "stage",
				"stormbell_correlator_refused_writes_total":  "reason",
				"stormbell_correlator_lag_records":           "stage, partition",
				"stormbell_correlator_open_groups":           "stage, partition",
				"stormbell_correlator_watermark_age_seconds": "stage, partition",
				"stormbell_correlator_rebuild_records":       "stage, partition",
			},
		},
		{
			title: "Notifier", dir: "notifier",
			make: func(t *testing.T, meters metric.MeterProvider) {
				guard, err := egress.NewGuard(egress.DefaultConfig())
				require.NoError(t, err)
				client := egress.NewClient(guard, egress.DefaultClientConfig())
				defer client.Close()
				_, err = notifier.New(notifier.DefaultConfig(), notifier.Deps{Sender: client, Log: log, Tracers: tracers, Meters: meters, Clock: time.Now})
				require.NoError(t, err)
			},
			labels: map[string]string{
				"stormbell_notifier_attempts_total":           "outcome",
				"stormbell_notifier_delivery_seconds":         "outcome",
				"stormbell_notifier_refused_writes_total":     "reason",
				"stormbell_notifier_lag_records":              "partition",
				"stormbell_notifier_queue_depth":              "partition",
				"stormbell_notifier_oldest_alert_age_seconds": "partition",
				"stormbell_notifier_rebuild_records":          "partition",
			},
		},
		{
			title: "Tenants, in every process", dir: "internal/status",
			make: func(t *testing.T, meters metric.MeterProvider) {
				require.NoError(t, status.NewBoard().Observe(meters))
			},
			labels: map[string]string{
				"stormbell_tenant_events_total":              "tenant",
				"stormbell_tenant_rejected_records_total":    "tenant",
				"stormbell_tenant_late_events_total":         "tenant",
				"stormbell_tenant_matched_total":             "tenant",
				"stormbell_tenant_alerts_total":              "tenant",
				"stormbell_tenant_unsubscribed_alerts_total": "tenant",
				"stormbell_tenant_delivered_total":           "tenant",
				"stormbell_tenant_failed_attempts_total":     "tenant",
				"stormbell_tenant_parked_total":              "tenant",
				"stormbell_tenant_dead_letters_total":        "tenant",
			},
		},
		{
			title: "Bus, in every process", dir: "internal/bus",
			make: func(t *testing.T, meters metric.MeterProvider) {
				cfg := bus.DefaultConfig()
				cfg.Brokers = []string{"127.0.0.1:9092"} // is not asked
				client, err := bus.New(cfg, log, meters)
				require.NoError(t, err)
				client.Close()
			},
			labels: map[string]string{
				"stormbell_bus_produce_duration_seconds": "topic",
				"stormbell_bus_produce_batch_records":    "topic",
				"stormbell_bus_produced_records_total":   "topic",
				"stormbell_bus_produce_retries_total":    "topic",
				"stormbell_bus_produce_failures_total":   "topic",
				"stormbell_bus_queue_bytes":              "topic",
				"stormbell_bus_lag_records":              "group, topic, partition",
			},
		},
		{
			title: "Files of keys and certificates, in every process", dir: "internal/follow",
			make: func(t *testing.T, meters metric.MeterProvider) {
				_, err := follow.NewWatch(log, meters)
				require.NoError(t, err)
			},
			labels: map[string]string{
				"stormbell_files_reloads_total":                        "files, outcome",
				"stormbell_files_stale":                                "files",
				"stormbell_files_certificate_expiry_timestamp_seconds": "files",
			},
		},
	}
}

func (r room) instruments(t *testing.T) []instrument {
	t.Helper()
	var seen recorder
	r.make(t, &seen)
	// A room may have others with it, which are listed by themselves.
	seen.made = slices.DeleteFunc(seen.made, func(i instrument) bool { return path.Base(i.meter) != path.Base(r.dir) })
	require.NotEmpty(t, seen.made)
	slices.SortFunc(seen.made, func(a, b instrument) int { return cmp.Compare(a.name, b.name) })
	return seen.made
}

const title = `# Metrics

Generated from the code by ` + "`make generate`" + `; do not edit.

Every process serves its metrics in the Prometheus format at ` + "`/metrics`" + ` on the admin address, and sends them by OTLP
where the ` + "`OTEL_*`" + ` variables say so. Base units are in the names. No label grows with rules, groups or
webhooks; those of tenants name a hundred at most in each process, all others being "other". A counter or histogram appears with its first value.
`

// TestMetrics holds the page against the code; with -update it writes it.
func TestMetrics(t *testing.T) {
	var text strings.Builder
	text.WriteString(title)
	for _, r := range rooms() {
		fmt.Fprintf(&text, "\n## %s\n\n| Name | Type | Unit | Labels | Meaning |\n| --- | --- | --- | --- | --- |\n", r.title)
		for _, i := range r.instruments(t) {
			fmt.Fprintf(&text, "| `%s` | %s | %s | %s | %s |\n", i.name, i.kind, unit(i), r.labels[i.name], strings.ReplaceAll(i.description, "|", `\|`))
		}
	}
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile(page, []byte(text.String()), 0o644))
		return
	}
	have, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Equal(t, text.String(), string(have), "the page is not what the code says: run `make generate`")
}

// unit spells a unit out, or reads it off the name.
func unit(i instrument) string {
	switch {
	case i.unit == "s":
		return "seconds"
	case i.unit == "By", strings.Contains(i.name, "_bytes"):
		return "bytes"
	case i.unit != "":
		return i.unit
	}
	return ""
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rooms() {
		for _, i := range r.instruments(t) {
			require.False(t, seen[i.name], "%s is there twice", i.name)
			seen[i.name] = true
			require.Regexp(t, `^stormbell_[a-z]+_[a-z_]+$`, i.name)
			require.Equal(t, i.kind == "counter", strings.HasSuffix(i.name, "_total"), "%s is a %s", i.name, i.kind)
			require.Equal(t, i.unit == "s", strings.Contains(i.name, "seconds"), "%s has the unit %q", i.name, i.unit)
			require.Regexp(t, `^[A-Z].*\.$`, i.description, i.name)
		}
		for name := range r.labels {
			require.True(t, seen[name], "labels of %s, which %s does not make", name, r.dir)
		}
	}
}

// TestLabels holds the table against the label names in the code, package by
// package.
func TestLabels(t *testing.T) {
	for _, r := range rooms() {
		listed := map[string]bool{}
		for _, labels := range r.labels {
			for label := range strings.SplitSeq(labels, ", ") {
				listed[label] = true
			}
		}
		require.Equal(t, attributes(t, filepath.Join(services, r.dir)), listed, r.dir)
	}
}

// attributes returns the keys without dots of all attributes in a package;
// those of spans have dots.
func attributes(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	packages, err := parser.ParseDir(token.NewFileSet(), dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // one directory, and no build tags matter
	require.NoError(t, err)
	for _, p := range packages {
		ast.Inspect(p, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if from, ok := fun.X.(*ast.Ident); !ok || from.Name != "attribute" {
				return true
			}
			key, ok := call.Args[0].(*ast.BasicLit)
			require.True(t, ok, "%s: the key of an attribute is written where it is used", dir)
			name, err := strconv.Unquote(key.Value)
			require.NoError(t, err)
			if !strings.Contains(name, ".") {
				found[name] = true
			}
			return true
		})
	}
	return found
}

// TestEveryRoomIsListed finds packages that ask for a meter.
func TestEveryRoomIsListed(t *testing.T) {
	listed := map[string]bool{}
	for _, r := range rooms() {
		listed[r.dir] = true
	}
	asks := regexp.MustCompile(`\.Meter\("`)
	require.NoError(t, filepath.WalkDir(services, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && asks.Match(text) {
			dir, _ := filepath.Rel(services, filepath.Dir(path))
			require.True(t, listed[filepath.ToSlash(dir)], "%s makes metrics: add it to rooms", dir)
		}
		return err
	}))
}
