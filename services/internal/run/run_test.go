package run_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/services/internal/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal notes what happened in which order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) module(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add("stop " + name)
		return nil
	}
}

func newApp(stop time.Duration) *run.App { return run.New(slog.New(slog.DiscardHandler), stop) }

func TestStopsAndClosesInReverseOrder(t *testing.T) {
	var j journal
	app := newApp(time.Minute)
	for _, name := range []string{"broker", "view", "gateway"} {
		app.Add(name, j.module(name), nil)
		app.Defer(name, func() error { j.add("close " + name); return nil })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, app.Run(ctx))
	require.NoError(t, app.Close())
	require.NoError(t, app.Close())
	require.Equal(t, []string{"stop gateway", "stop view", "stop broker", "close gateway", "close view", "close broker"}, j.lines)
}

func TestOneFailureStopsAll(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		result error
		want   string
	}{
		"error":           {boom, "bad: boom"},
		"ended by itself": {nil, "bad: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			app := newApp(time.Minute)
			app.Add("good", j.module("good"), nil)
			app.Add("bad", func(context.Context) error { return tc.result }, nil)
			require.EqualError(t, app.Run(t.Context()), tc.want)
			require.Equal(t, []string{"stop good"}, j.lines)
		})
	}
}

func TestStuckModuleIsLeftBehind(t *testing.T) {
	release := make(chan struct{})
	app := newApp(time.Millisecond)
	app.Add("stuck", func(context.Context) error { <-release; return nil }, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.EqualError(t, app.Run(ctx), "stuck: did not stop within 1ms")
	close(release)
}

func TestReady(t *testing.T) {
	app := newApp(time.Second)
	app.Add("a", nil, func() error { return nil })
	app.Add("b", nil, func() error { return errors.New("rebuilding") })
	app.Add("c", nil, nil)
	require.EqualError(t, app.Err(), "b: rebuilding")
	require.Len(t, app.Ready(), 3)
}

func TestCloseReportsAllErrors(t *testing.T) {
	app := newApp(time.Second)
	app.Defer("a", func() error { return errors.New("one") })
	app.Defer("b", func() error { return errors.New("two") })
	require.EqualError(t, app.Close(), "close b: two\nclose a: one")
}

func TestSignals(t *testing.T) {
	ctx, stop := run.Signals(t.Context())
	defer stop()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("SIGTERM did not end the context")
	}
}

func TestModuleAddsModules(t *testing.T) {
	var j journal
	app := newApp(time.Minute)
	started := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	app.Add("start", func(ctx context.Context) error {
		app.Add("added", func(ctx context.Context) error {
			close(started)
			return j.module("added")(ctx)
		}, nil)
		return j.module("start")(ctx)
	}, nil)
	go func() {
		<-started
		cancel()
	}()
	require.NoError(t, app.Run(ctx))
	require.Equal(t, []string{"stop added", "stop start"}, j.lines)
	app.Add("too late", func(context.Context) error { return errors.New("must not run") }, nil)
	require.Len(t, app.Ready(), 2)
}
