package embedded

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// powerSupply remembers what was synced and can show the disk as it would be
// after a power cut at the worst moment: segments as far as they were synced,
// everything else as far as it was written.
type powerSupply struct {
	mu     sync.Mutex
	synced map[string]int64 // file → bytes
	named  map[string]bool  // files whose directory was synced after they came
}

func (p *powerSupply) fsync(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var names []string
	if info.IsDir() {
		if names, err = filepath.Glob(filepath.Join(f.Name(), "*.dat")); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !info.IsDir() {
		p.synced[f.Name()] = info.Size()
	}
	for _, name := range names {
		p.named[name] = true
	}
	return nil
}

// cut copies the log in from to where a restart finds it.
func (p *powerSupply) cut(t *testing.T, from, to string) {
	t.Helper()
	groups, err := os.ReadFile(filepath.Join(from, "groups.log"))
	require.NoError(t, err)
	p.mu.Lock()
	synced, named := maps.Clone(p.synced), maps.Clone(p.named)
	p.mu.Unlock()
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	require.NoError(t, os.WriteFile(filepath.Join(to, "groups.log"), groups, 0o600))
	parts, err := listLog(to)
	require.NoError(t, err)
	for _, segments := range parts {
		for _, s := range segments {
			original := filepath.Join(from, strings.TrimPrefix(s.path, to))
			require.NoError(t, os.Truncate(s.path, min(s.size, synced[original])))
			if !named[original] {
				require.NoError(t, os.Remove(s.path))
			}
		}
	}
}

func TestPowerCutLosesNothingAcknowledged(t *testing.T) {
	cfg := testConfig(t.TempDir())
	b := mustOpen(t, cfg, time.Now)
	power := powerSupply{synced: make(map[string]int64), named: make(map[string]bool)}
	b.sync.fsync = power.fsync
	c := client(t, b)
	createTopic(t, c, events, 2)
	var (
		mu    sync.Mutex
		acked = [2]map[int64]string{{}, {}}
		wg    sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				part := (worker + i) % 2
				value := fmt.Sprint(worker, "-", i, strings.Repeat("x", 1500))
				offset, err := produce(ctx, c, events, part, []byte(value))
				if err != nil {
					return
				}
				mu.Lock()
				acked[part][offset] = value
				mu.Unlock()
			}
		})
	}
	wg.Go(func() { // a reader that commits all that it can see
		for ctx.Err() == nil {
			for part := range 2 {
				if err := commitEnd(ctx, c, "reader", events, part); err != nil {
					return
				}
			}
		}
	})
	for round := 1; round <= 10; round++ {
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acked[0])+len(acked[1]) >= 60*round
		}, 20*time.Second, time.Millisecond)
		mu.Lock()
		want := [2]map[int64]string{maps.Clone(acked[0]), maps.Clone(acked[1])}
		mu.Unlock()
		after := testConfig(t.TempDir())
		power.cut(t, b.root(), filepath.Join(after.Dir, "log"))

		restarted, err := Open(after, quiet(), time.Now)
		require.NoError(t, err, "no group may be ahead of what was synced")
		rc := client(t, restarted)
		for part, values := range want {
			got := readAll(t, rc, events, part, 0)
			for offset, value := range values {
				require.Less(t, offset, int64(len(got)), "acknowledged, but not synced")
				require.Equal(t, value, got[offset])
			}
		}
		require.NoError(t, restarted.Close())
	}
	cancel()
	wg.Wait()
}

// A record can be read before it is synced; an offset behind it must not be
// stored before that.
func TestCommitWaitsForTheSync(t *testing.T) {
	b := mustOpen(t, testConfig(t.TempDir()), time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	real := b.sync.fsync
	b.sync.fsync = func(f *os.File) error {
		<-gate
		return real(f)
	}
	results := make(chan error, 2)
	writer, reader := client(t, b), client(t, b)
	go func() {
		_, err := produce(context.Background(), writer, events, 0, []byte("seen"))
		results <- err
	}()
	require.Eventually(t, func() bool { return len(readAll(t, c, events, 0, 0)) == 1 }, 5*time.Second, time.Millisecond)
	go func() { results <- commitOffset(context.Background(), reader, "g", events, 0, 1) }()
	waiting := func(n int) bool {
		b.sync.mu.Lock()
		defer b.sync.mu.Unlock()
		return len(b.sync.waiting) == n
	}
	require.Eventually(t, func() bool { return b.Status().SyncRounds == 1 && waiting(1) }, 5*time.Second, time.Millisecond)
	stored, err := os.ReadFile(filepath.Join(b.root(), "groups.log"))
	if err == nil {
		require.False(t, bytes.Contains(stored, []byte(`"commit"`)))
	}
	require.Empty(t, results, "neither is answered yet")
	release()
	require.NoError(t, <-results)
	require.NoError(t, <-results)
	require.Equal(t, int64(1), groupOffset(t, c, "g", 0))
}
