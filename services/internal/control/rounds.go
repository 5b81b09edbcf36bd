package control

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// rounds lets any number of callers share the runs of one function. A caller
// is served only by a run that began after it asked.
type rounds struct {
	do       func(ctx context.Context) error
	interval time.Duration // least time between the beginnings of two runs

	mu   sync.Mutex
	next *round // the run that has not begun; nil if nobody waits
	wake chan struct{}
}

type round struct {
	done chan struct{}
	err  error // set before done is closed
}

func newRounds(interval time.Duration, do func(context.Context) error) *rounds {
	// One pending wake-up is enough: a run serves all that wait.
	return &rounds{do: do, interval: interval, wake: make(chan struct{}, 1)}
}

// wait returns once a run that begins from now on has ended.
func (r *rounds) wait(ctx context.Context, timeout time.Duration) error {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no answer within %s", timeout)
	}
}

// run serves callers until ctx ends.
func (r *rounds) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		mine := r.next
		r.next = nil
		r.mu.Unlock()
		if mine == nil {
			continue
		}
		mine.err = r.do(ctx)
		close(mine.done)
		if r.interval > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(r.interval):
			}
		}
	}
}
