package correlator

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"pgregory.net/rapid"

	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
)

// TestModelOnRedis is TestModel on a real Redis that is flushed, killed, and
// loses the end of its append-only file.
func TestModelOnRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	admin := server.Client(t)
	cfg := state.DefaultConfig()
	cfg.Addrs = []string{server.Addr}
	store, err := state.OpenRedis(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	p := compile(t, modelConfig(), testRules)
	seen := make(map[string]int)
	run := rapid.Custom(func(rt *rapid.T) []string {
		// A log of its own wants a file of its own: a cut must not reach further.
		server.Kill(t)
		require.NoError(t, os.RemoveAll(filepath.Join(server.Dir, "appendonlydir")))
		server.Up(t)
		m := newModel(rt, p, counts, store)
		m.run(append(m.actions(), action{"flush", 1, func(int) {
			require.NoError(t, admin.FlushAll(t.Context()).Err())
			seen["flush"]++
		}}, action{"tail lost", 1, func(int) {
			server.Kill(t)
			cut(t, server.Dir, rapid.IntRange(1, 60).Draw(rt, "percent"))
			server.Up(t)
			seen["tail lost"]++
		}}))
		m.settle()
		m.check()
		for k, n := range m.seen {
			seen[k] += n
		}
		return m.problems
	})
	for seed := range 12 {
		require.Empty(t, run.Example(seed), "seed %d", seed)
	}
	t.Log(seen)
	happened(t, seen, "alerts", "tail lost", "flush", "rebuild", "owner ended")
}

// cut removes the last percent of the append-only file.
func cut(t *testing.T, dir string, percent int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	last := files[0]
	for _, f := range files[1:] {
		if len(f) > len(last) || strings.Compare(f, last) > 0 {
			last = f
		}
	}
	info, err := os.Stat(last)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(last, info.Size()*int64(100-percent)/100))
}
