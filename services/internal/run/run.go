// Package run starts the modules of a process in order, stops all of them when
// one fails or the process is told to end, and takes down in reverse order
// what was set up. It never ends the process: that is main's to do.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// App is a list of modules and of things to take down. Add and Defer are called
// before Run, or by modules that add others while they start; Ready may be
// called at any time.
type App struct {
	log  *slog.Logger
	stop time.Duration

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Run, from which modules get their own; nil before
	ending  bool
	ended   chan *module // the first to end by itself
	modules []*module
	closers []closer
}

type module struct {
	name  string
	run   func(context.Context) error
	ready func() error
	stop  context.CancelFunc
	done  chan struct{}
	err   error // set before done is closed
}

type closer struct {
	name  string
	close func() error
}

// New returns an App that gives each module the time stop to end once it is
// told to.
func New(log *slog.Logger, stop time.Duration) *App {
	return &App{log: log, stop: stop, ended: make(chan *module, 1)}
}

// Add adds a module. Its run ends with nil once its context ends; if it ends
// before, all modules end. ready is nil or reports why the module is not ready.
// A module that is added while Run is under way starts at once, or never if the
// others are being stopped.
func (a *App) Add(name string, run func(context.Context) error, ready func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := &module{name: name, run: run, ready: ready, done: make(chan struct{})}
	if a.ending {
		return
	}
	a.modules = append(a.modules, m)
	if a.ctx != nil {
		a.start(m)
	}
}

// start runs a module on a goroutine of its own. The caller holds mu.
func (a *App) start(m *module) {
	var own context.Context
	own, m.stop = context.WithCancel(context.WithoutCancel(a.ctx))
	go func() {
		defer close(m.done)
		m.err = m.run(own)
		select {
		case a.ended <- m:
		default: // another was first
		}
	}()
}

// Defer adds what Close calls, last first.
func (a *App) Defer(name string, f func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closers = append(a.closers, closer{name, f})
}

// Ready reports why each module is not ready; nil means that it is.
func (a *App) Ready() map[string]error {
	a.mu.Lock()
	modules := a.modules
	a.mu.Unlock()
	out := make(map[string]error, len(modules))
	for _, m := range modules {
		if out[m.name] = nil; m.ready != nil {
			out[m.name] = m.ready()
		}
	}
	return out
}

// Err joins what Ready reports, for a message.
func (a *App) Err() error {
	var errs []error
	ready := a.Ready()
	for _, name := range sorted(ready) {
		if err := ready[name]; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Run starts all modules and returns when all have ended. When ctx ends or a
// module fails it stops them one by one, the one added last first, so that
// each can still use those that it was built on. It returns the error of the
// module that failed first. It may be called once, and does not call Close.
func (a *App) Run(ctx context.Context) error {
	a.mu.Lock()
	a.ctx = ctx
	for _, m := range a.modules {
		a.start(m)
	}
	a.mu.Unlock()
	var first error
	select {
	case <-ctx.Done():
	case m := <-a.ended:
		if first = m.err; first == nil {
			first = errors.New("ended by itself")
		}
		first = fmt.Errorf("%s: %w", m.name, first)
	}
	a.mu.Lock()
	a.ending = true
	modules := a.modules
	a.mu.Unlock()
	for _, module := range slices.Backward(modules) {
		if err := a.end(module); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// end stops one module and waits for it.
func (a *App) end(m *module) error {
	m.stop()
	timer := time.NewTimer(a.stop)
	defer timer.Stop()
	select {
	case <-m.done:
	case <-timer.C:
		return fmt.Errorf("%s: did not stop within %s", m.name, a.stop)
	}
	if m.err != nil && !errors.Is(m.err, context.Canceled) {
		return fmt.Errorf("%s: %w", m.name, m.err)
	}
	return nil
}

// Close calls what Defer added, last first, and returns all errors. What was
// called is not called again.
func (a *App) Close() error {
	var errs []error
	for {
		a.mu.Lock()
		n := len(a.closers)
		if n == 0 {
			a.mu.Unlock()
			return errors.Join(errs...)
		}
		c := a.closers[n-1]
		a.closers = a.closers[:n-1]
		a.mu.Unlock()
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.name, err))
		}
	}
}

// Signals returns a context that ends at the first SIGINT or SIGTERM. The
// second one ends the process at once, as it does without us.
func Signals(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func sorted(m map[string]error) []string { return slices.Sorted(maps.Keys(m)) }
