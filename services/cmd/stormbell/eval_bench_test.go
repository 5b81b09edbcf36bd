package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkEval measures `stormbell eval` over public CloudTrail records with
// the public AWS rules, on one and on two threads.
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
	const tiles = 20
	input := string(bytes.Join(slices.Repeat([][]byte{lines.Bytes()}, tiles), nil))
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			// One worker has one processor: the collector runs beside it on none.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers))
			for b.Loop() {
				var out, errs bytes.Buffer
				env := &environment{in: strings.NewReader(input), out: &out, err: &errs, getenv: func(string) string { return "" }}
				cmd := newEval(env)
				cmd.SetArgs([]string{"-r", rules, "--workers", fmt.Sprint(workers)})
				require.NoError(b, cmd.ExecuteContext(b.Context()), errs.String())
				require.NotZero(b, out.Len())
			}
			b.ReportMetric(float64(b.N*n*tiles)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
