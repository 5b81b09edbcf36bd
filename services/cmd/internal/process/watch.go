package process

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/internal/state"
)

const (
	watchInterval = time.Second
	watchTimeout  = 3 * time.Second
	// openPause is the longest between two attempts to reach Redis.
	openPause = time.Second
)

// Watch adds a module that asks a server every second whether it answers. The
// process is not ready while it does not: who needs the server does no work
// then. It never ends the process, which goes on when the server is back.
func (p *Process) Watch(name string, ping func(context.Context) error) {
	var mu sync.Mutex
	var last error
	look := func(ctx context.Context) {
		bound, cancel := context.WithTimeout(ctx, watchTimeout)
		defer cancel()
		err := ping(bound)
		if ctx.Err() != nil {
			return // told to end
		}
		mu.Lock()
		defer mu.Unlock()
		if (err == nil) != (last == nil) {
			p.Log.WarnContext(ctx, "a server that is needed has changed", "server", name, "answers", err == nil, "error", err)
		}
		last = err
	}
	run := func(ctx context.Context) error {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				look(ctx)
			}
		}
	}
	p.App.Add(name, run, func() error {
		mu.Lock()
		defer mu.Unlock()
		return last
	})
}

// NeedGroups has the process not ready while it is no member of the groups that
// it consumes in: without brokers, and while partitions are shared out.
func (p *Process) NeedGroups() {
	p.App.Add("groups", func(ctx context.Context) error { <-ctx.Done(); return nil }, p.Bus.Joined)
}

// OpenRedis waits for a Redis that does not answer, as Connect waits for
// brokers. What waiting does not mend is an error.
func OpenRedis[R any](ctx context.Context, log *slog.Logger, open func() (R, error)) (R, error) {
	var none R
	for attempt := 0; ; attempt++ {
		r, err := open()
		switch {
		case err == nil:
			return r, nil
		case ctx.Err() != nil:
			return none, ctx.Err() //nolint:wrapcheck // told to end
		case !errors.Is(err, state.ErrNoAnswer):
			return none, err
		}
		if attempt%10 == 0 {
			log.WarnContext(ctx, "waiting for redis", "error", err)
		}
		timer := time.NewTimer(min(openPause, 50*time.Millisecond<<min(attempt, 6)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return none, ctx.Err() //nolint:wrapcheck // told to end
		case <-timer.C:
		}
	}
}
