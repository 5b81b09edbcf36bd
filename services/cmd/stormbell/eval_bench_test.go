//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// BenchmarkEval measures `stormbell eval` over public CloudTrail records with
// the public AWS rules: one worker, two, and, for what the machine gives at most,
// two evaluations that share nothing but the process.
func BenchmarkEval(b *testing.B) {
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "..", "shared")
	}
	rules := filepath.Join(shared, "corpora", "sigmahq", "rules", "cloud", "aws")
	if _, err := os.Stat(rules); err != nil {
		b.Skipf("no public corpora: %v (set SHARED)", err)
	}
	var lines bytes.Buffer
	for _, of := range []string{"invictus-cloudtrail", "stratus"} {
		require.NoError(b, filepath.WalkDir(filepath.Join(shared, "corpora", of), func(path string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".json" {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			return events(f, func(event []byte) error {
				lines.Write(event)
				return lines.WriteByte('\n')
			})
		}))
	}
	n := bytes.Count(lines.Bytes(), []byte("\n"))
	const tiles = 40
	input := string(bytes.Join(slices.Repeat([][]byte{lines.Bytes()}, tiles), nil))
	for _, way := range []struct {
		name            string
		workers, atOnce int
	}{{"one worker", 1, 1}, {"two workers", 2, 1}, {"two evaluations at once", 1, 2}} {
		b.Run(way.name, func(b *testing.B) {
			threads := way.workers * way.atOnce
			// One worker has one processor: the collector runs beside it on none.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
			before := processorTime(b)
			for b.Loop() {
				var g errgroup.Group
				for range way.atOnce {
					g.Go(func() error {
						return evaluatedOnce(b.Context(), input, "-r", rules, "--workers", fmt.Sprint(way.workers))
					})
				}
				require.NoError(b, g.Wait())
			}
			took, all := processorTime(b)-before, float64(b.N*n*tiles*way.atOnce)
			b.ReportMetric(all/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(took.Nanoseconds())/all, "cpu-ns/event")
			b.ReportMetric(100*took.Seconds()/b.Elapsed().Seconds()/float64(threads), "%busy")
		})
	}
}

// evaluatedOnce runs `stormbell eval`, which must find something.
func evaluatedOnce(ctx context.Context, input string, args ...string) error {
	var (
		out  counter
		errs bytes.Buffer
	)
	cmd := newEval(&environment{in: strings.NewReader(input), out: &out, err: &errs, getenv: func(string) string { return "" }})
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, errs.String())
	}
	if out == 0 {
		return errors.New("no alert")
	}
	return nil
}

// counter counts what is written, and keeps none of it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
