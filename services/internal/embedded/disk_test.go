package embedded

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOpenRefusesDamage(t *testing.T) {
	flip := func(at func(size int64) int64) func(*testing.T, []segment) {
		return func(t *testing.T, segments []segment) {
			s := segments[0]
			raw, err := os.ReadFile(s.path)
			require.NoError(t, err)
			raw[at(s.size)] ^= 0xff
			require.NoError(t, os.WriteFile(s.path, raw, 0o600))
		}
	}
	last := func(damage func(*testing.T, []segment)) func(*testing.T, []segment) {
		return func(t *testing.T, segments []segment) { damage(t, segments[len(segments)-1:]) }
	}
	for name, tc := range map[string]struct {
		damage func(*testing.T, []segment)
		want   string
	}{
		"byte in the first segment":         {flip(func(n int64) int64 { return n / 2 }), "with whole records behind it"},
		"first byte of the first segment":   {flip(func(int64) int64 { return 0 }), "with whole records behind it"},
		"length field":                      {flip(func(int64) int64 { return 8 }), "with whole records behind it"},
		"last byte of the first segment":    {flip(func(n int64) int64 { return n - 1 }), "damaged at byte"},
		"byte in the last segment":          {last(flip(func(n int64) int64 { return n / 2 })), "with whole records behind it"},
		"last byte of the log":              {last(flip(func(n int64) int64 { return n - 1 })), "ends at offset 299, but records up to 300 were stored"},
		"last segment missing":              {last(func(t *testing.T, s []segment) { require.NoError(t, os.Remove(s[0].path)) }), "are gone"},
		"last segment empty":                {last(func(t *testing.T, s []segment) { require.NoError(t, os.Truncate(s[0].path, 0)) }), "are gone"},
		"segment missing in between":        {func(t *testing.T, s []segment) { require.NoError(t, os.Remove(s[1].path)) }, "records are missing"},
		"directory missing":                 {func(t *testing.T, s []segment) { require.NoError(t, os.RemoveAll(filepath.Dir(s[0].path))) }, "its directory is missing"},
		"topic list missing":                {func(t *testing.T, s []segment) { removeAbove(t, s[0].path, "topics.json") }, "restore topics.json"},
		"engine's mark missing":             {func(t *testing.T, s []segment) { removeAbove(t, s[0].path, "meta.json") }, "restore it from a backup"},
		"zeroes in the middle of a segment": {zeroes, "with whole records behind it"},
		"topic list without the topic":      {forgetTopics, "does not know it"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Sync = false
			b := mustOpen(t, cfg, time.Now)
			c := client(t, b)
			createTopic(t, c, events, 1)
			fill(t, c, events, 0, 300, 1000)
			require.NoError(t, b.Close())
			segments, err := listSegments(partitionDir(b.root(), partition{events, 0}))
			require.NoError(t, err)
			require.Greater(t, len(segments), 2)
			tc.damage(t, segments)
			before := snapshot(t, b.root())

			for range 2 {
				_, err = Open(cfg, quiet(), time.Now)
				require.ErrorContains(t, err, tc.want)
			}
			require.Equal(t, before, snapshot(t, b.root()), "a refusal changes nothing")
		})
	}
}

func removeAbove(t *testing.T, segment, name string) {
	t.Helper()
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(segment), "..", "..", name)))
}

func zeroes(t *testing.T, s []segment) {
	f, err := os.OpenFile(s[1].path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 4096), s[1].size/4)
	require.NoError(t, errors.Join(err, f.Close()))
}

func forgetTopics(t *testing.T, s []segment) {
	path := filepath.Join(filepath.Dir(s[0].path), "..", "..", "topics.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"version":1,"topics":[]}`), 0o600))
}

// snapshot returns the size of every segment.
func snapshot(t *testing.T, root string) map[string]int64 {
	t.Helper()
	parts, err := listLog(root)
	require.NoError(t, err)
	sizes := make(map[string]int64)
	for _, segments := range parts {
		for _, s := range segments {
			sizes[s.path] = s.size
		}
	}
	return sizes
}

func TestAllowCorruptGoesOn(t *testing.T) {
	for name, index := range map[string]int{"first segment": 0, "middle segment": 1, "last segment": -1} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Sync = false
			b := mustOpen(t, cfg, time.Now)
			c := client(t, b)
			createTopic(t, c, events, 1)
			fill(t, c, events, 0, 300, 1000)
			setOffset(t, c, "a", events, 300)
			require.NoError(t, b.Close())
			segments, err := listSegments(partitionDir(b.root(), partition{events, 0}))
			require.NoError(t, err)
			s := segments[(index+len(segments))%len(segments)]
			raw, err := os.ReadFile(s.path)
			require.NoError(t, err)
			raw[len(raw)/2] ^= 0xff
			require.NoError(t, os.WriteFile(s.path, raw, 0o600))

			cfg.AllowCorrupt = true
			b = mustOpen(t, cfg, time.Now)
			c = client(t, b)
			_, next := offsets(t, c, events, 0)
			require.LessOrEqual(t, groupOffset(t, c, "a", 0), next, "what comes next is not skipped")
			require.Equal(t, next, mustProduce(t, c, events, 0, []byte("new")))
			require.Equal(t, []string{"new"}, readAll(t, c, events, 0, next))
			require.Greater(t, len(readAll(t, c, events, 0, 0)), 100)
			require.NoError(t, b.Close())
			cfg.AllowCorrupt = index == 0 || index == 1 // the hole stays a hole
			b = mustOpen(t, cfg, time.Now)
			require.Equal(t, []string{"new"}, readAll(t, client(t, b), events, 0, next))
		})
	}
}

// A write that a crash cut short was never acknowledged and is no damage.
func TestTornTailIsCut(t *testing.T) {
	for name, tail := range map[string][]byte{
		"half a batch":        batch(300, 1, []byte("never acknowledged"))[:40],
		"whole but bad CRC":   append(batch(300, 1, []byte("never acknowledge")), 'd')[:70],
		"zeroes":              make([]byte, 5000),
		"bytes without sense": []byte(strings.Repeat("\x02garbage", 100)),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Sync = false
			b := mustOpen(t, cfg, time.Now)
			c := client(t, b)
			createTopic(t, c, events, 1)
			fill(t, c, events, 0, 300, 1000)
			require.NoError(t, b.Close())
			segments, err := listSegments(partitionDir(b.root(), partition{events, 0}))
			require.NoError(t, err)
			f, err := os.OpenFile(segments[len(segments)-1].path, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.Write(tail)
			require.NoError(t, errors.Join(err, f.Close()))

			b = mustOpen(t, cfg, time.Now)
			c = client(t, b)
			require.Equal(t, int64(300), mustProduce(t, c, events, 0, []byte("next")))
			require.Len(t, readAll(t, c, events, 0, 0), 301)
		})
	}
}

// The engine would acknowledge what a failing fsync did not store.
func TestFailedSyncIsNeverAcknowledged(t *testing.T) {
	var out logBuffer
	cfg := testConfig(t.TempDir())
	b, err := Open(cfg, slog.New(slog.NewTextHandler(&out, nil)), time.Now)
	require.NoError(t, err)
	c := client(t, b)
	createTopic(t, c, events, 1)
	var failing atomic.Bool
	real := b.sync.fsync
	b.sync.fsync = func(f *os.File) error {
		if failing.Load() {
			return syscall.EIO
		}
		return real(f)
	}
	mustProduce(t, c, events, 0, []byte("stored"))
	failing.Store(true)
	_, err = produce(t.Context(), c, events, 0, []byte("not stored"))
	require.Error(t, err)
	failing.Store(false) // the next fsync would report success: the kernel has forgotten
	_, err = produce(t.Context(), c, events, 0, []byte("after"))
	require.Error(t, err)
	full, reason := b.Full()
	require.True(t, full)
	require.Contains(t, reason, "input/output error")
	require.Contains(t, reason, "restart")
	require.ErrorIs(t, b.Status().Failed, errDisk)
	require.Contains(t, out.String(), "broker withheld an acknowledgement")
	require.Error(t, b.Close(), "what is durable is not known")

	b = mustOpen(t, cfg, time.Now)
	require.Contains(t, readAll(t, client(t, b), events, 0, 0), "stored")
}

func TestConcurrentProducesShareSyncs(t *testing.T) {
	b := mustOpen(t, testConfig(t.TempDir()), time.Now)
	createTopic(t, client(t, b), events, 1)
	// A round that is held up gathers all that arrive meanwhile.
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	real := b.sync.fsync
	b.sync.fsync = func(f *os.File) error {
		<-gate
		return real(f)
	}
	const writers = 16
	done := make(chan error, writers)
	for range writers {
		c := client(t, b)
		go func() {
			_, err := produce(context.Background(), c, events, 0, []byte("x"))
			done <- err
		}()
	}
	require.Eventually(t, func() bool {
		b.sync.mu.Lock()
		defer b.sync.mu.Unlock()
		return b.sync.inflight[partition{events, 0}] == writers
	}, 5*time.Second, time.Millisecond)
	release()
	for range writers {
		require.NoError(t, <-done)
	}
	require.LessOrEqual(t, b.Status().SyncRounds, int64(3))
}

// tmpfs mounts a small file system, or skips.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := mount(dir, size); err != nil {
		t.Skipf("cannot mount a small file system here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unmount(dir)) })
	return dir
}

func TestDiskFull(t *testing.T) {
	dir := tmpfs(t, "8m")
	var out logBuffer
	clock := &testClock{now: time.Now()}
	cfg := testConfig(filepath.Join(dir, "data"))
	b, err := Open(cfg, slog.New(slog.NewTextHandler(&out, nil)), clock.Now)
	require.NoError(t, err)
	c := client(t, b)
	createTopic(t, c, events, 1)
	acked := make(map[int64]string)
	write := func() error {
		value := strings.Repeat(string(rune('a'+len(acked)%26)), 10_000)
		offset, err := produce(t.Context(), c, events, 0, []byte(value))
		if err == nil {
			acked[offset] = value
		}
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 4<<20), 0o600))
	for range 1000 {
		if err = write(); err != nil {
			break
		}
	}
	require.Error(t, err, "the disk must fill up")
	full, reason := b.Full()
	require.True(t, full)
	require.Contains(t, reason, "free space")
	require.Positive(t, b.Status().EngineWarnings)
	require.Contains(t, out.String(), "no space left on device")
	before := len(acked)
	require.Error(t, write())

	require.NoError(t, os.Remove(ballast))
	require.NoError(t, b.Enforce(t.Context()))
	full, reason = b.Full()
	require.False(t, full, reason)
	for range 20 {
		require.NoError(t, write())
	}
	require.Len(t, acked, before+20)
	require.NoError(t, b.Close())

	// A start must work on a full disk, or nothing could ever be trimmed.
	require.Error(t, os.WriteFile(ballast, make([]byte, 8<<20), 0o600))
	b = mustOpen(t, cfg, clock.Now)
	c = client(t, b)
	require.Error(t, write())
	full, _ = b.Full()
	require.True(t, full)
	require.NoError(t, os.Remove(ballast))
	require.NoError(t, b.Enforce(t.Context()))
	require.NoError(t, write())
	got := readAll(t, client(t, b), events, 0, 0)
	for offset, value := range acked {
		require.Less(t, offset, int64(len(got)))
		require.Equal(t, value, got[offset])
	}
	require.NoError(t, b.Close())
}

func TestLowDiskIsFullBeforeItFails(t *testing.T) {
	dir := tmpfs(t, "8m")
	cfg := testConfig(filepath.Join(dir, "data"))
	cfg.MinFreeBytes = 4 << 20
	b := mustOpen(t, cfg, time.Now)
	defer b.Close()
	c := client(t, b)
	createTopic(t, c, events, 1)
	require.NoError(t, b.Enforce(t.Context()))
	full, reason := b.Full()
	require.False(t, full, reason)
	fill(t, c, events, 0, 500, 10_000)
	require.NoError(t, b.Enforce(t.Context()))
	full, reason = b.Full()
	require.True(t, full)
	require.Contains(t, reason, "bytes are free")
	mustProduce(t, c, events, 0, []byte("what is inside may still finish"))
	setOffset(t, c, "a", events, 500)
	require.NoError(t, b.Enforce(t.Context()))
	full, reason = b.Full()
	require.False(t, full, reason)
}

// A start that takes longer than a second says how far it is.
func TestOpenReportsProgress(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Sync = false
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	fill(t, c, events, 0, 300, 1000)
	require.NoError(t, b.Close())
	for name, tc := range map[string]struct {
		step  time.Duration // per reading of the clock, about one for each of five segments
		lines int
	}{
		"fast": {time.Millisecond, 0},
		"slow": {600 * time.Millisecond, 2},
	} {
		t.Run(name, func(t *testing.T) {
			clock := &testClock{now: time.Now()}
			var out logBuffer
			b, err := Open(cfg, slog.New(slog.NewTextHandler(&out, nil)), func() time.Time {
				clock.Advance(tc.step)
				return clock.Now()
			})
			require.NoError(t, err)
			require.NoError(t, b.Close())
			require.Equal(t, tc.lines, strings.Count(out.String(), "checking the log"), out.String())
		})
	}
}
