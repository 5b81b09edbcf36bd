package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/loadgen"
)

// detectionsEnv is how many detections BenchmarkRebuild has rebuilt.
const detectionsEnv = "BENCH_DETECTIONS"

const rebuildRules = `
title: Failed login
name: failed_login
level: low
logsource: {product: bench}
detection: {selection: {action: login_failed}, condition: selection}
---
title: Many failed logins
level: high
correlation: {type: event_count, rules: [failed_login], group-by: [user], timespan: 1h, condition: {gte: 20}}
stormbell: {suppress: 1d}
`

// BenchmarkRebuild measures how long correlators take until they serve again after
// Redis has lost everything: a million detections of 50,000 groups.
func BenchmarkRebuild(b *testing.B) {
	n := 1_000_000
	if text := os.Getenv(detectionsEnv); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	rules := b.TempDir()
	require.NoError(b, os.WriteFile(filepath.Join(rules, "rules.yml"), []byte(rebuildRules), 0o600))
	d := rig.NewRunner(b, rig.Cluster).Start(b, rig.Options{Rules: rules, Copies: 1})
	logins := func(dst []byte, i int, at time.Time) []byte {
		return fmt.Appendf(dst, `{"product":"bench","action":"login_failed","user":"user-%d","time":"%s"}`, i%50_000, at.UTC().Format(time.RFC3339Nano))
	}
	res, err := loadgen.Run(b.Context(), loadgen.Config{
		URLs: d.URLs, Key: d.Key, Batch: 500, Concurrency: 4, Duration: time.Hour, Count: n, Event: logins,
	})
	require.NoError(b, err)
	require.Empty(b, res.Errors)
	require.NoError(b, d.AwaitDrained(within(b, 20*time.Minute)))
	correlator := d.Processes[slices.IndexFunc(d.Processes, func(p *rig.Process) bool { return p.Kind == "correlator" })]
	c := redis.NewClient(&redis.Options{Addr: d.Redis.Addr()})
	b.Cleanup(func() { require.NoError(b, c.Close()) })
	for times := 1; b.Loop(); times++ {
		began := time.Now()
		require.NoError(b, c.FlushAll(b.Context()).Err())
		var rebuilt int64
		require.NoError(b, rig.Every(within(b, 20*time.Minute), "every partition is rebuilt", func() bool {
			var parts int
			parts, rebuilt = rebuiltBy(b, correlator.LogFile())
			return parts == times*rig.Partitions
		}))
		took := time.Since(began)
		rebuilt /= int64(times)
		perMillion := took.Seconds() * 1e6 / float64(rebuilt)
		fmt.Printf("\nrebuild: %d records of %d partitions in %s: %.1f s a million\n\n", rebuilt, rig.Partitions, took.Round(time.Millisecond), perMillion)
		b.ReportMetric(perMillion, "s/million")
	}
}

// rebuiltBy is what a correlator's log says of its rebuilds.
func rebuiltBy(tb testing.TB, logFile string) (parts int, records int64) {
	tb.Helper()
	text, err := os.ReadFile(logFile)
	require.NoError(tb, err)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var line struct {
			Msg      string
			From, To int64
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "rebuilt from the log" {
			parts, records = parts+1, records+line.To-line.From
		}
	}
	return parts, records
}
