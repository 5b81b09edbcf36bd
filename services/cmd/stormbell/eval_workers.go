package main

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/internal/event"
)

// pipeline runs the workers. Each takes the next chunk, which it reads and
// decodes while no other does, matches it, and folds what is next in order: so
// one worker is one thread, and several wait for each other only where they read
// and where they print.
func (e *evaluation) pipeline(ctx context.Context, in *inputs) error {
	g, ctx := errgroup.WithContext(ctx)
	next, stop := iter.Pull2(e.chunks(ctx, in))
	defer stop()
	var reading sync.Mutex
	number := 0
	take := func() (events []event.Event, n int, more bool, err error) {
		reading.Lock()
		defer reading.Unlock()
		events, err, more = next()
		n = number
		number++
		return events, n, more, err
	}
	queue := newFoldQueue(2*e.workers, func(m *correlator.Matched) error {
		e.count(m)
		return e.run.Fold(ctx, m, e.print, e.warn)
	})
	for range e.workers {
		g.Go(func() error {
			evaluator := e.run.Evaluator()
			for {
				events, n, more, err := take()
				if !more {
					return nil
				}
				var matched *correlator.Matched
				if err == nil {
					matched, err = evaluator.Match(ctx, events)
				}
				if err != nil {
					queue.fail(err)
					return err
				}
				if err := queue.add(n, matched); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// foldQueue folds chunks in their order, as soon as there are all before them.
// Whoever brings one that is next does it.
type foldQueue struct {
	fold  func(*correlator.Matched) error
	ahead int // how far a chunk may be from the next

	mu      sync.Mutex
	moved   *sync.Cond
	ready   map[int]*correlator.Matched
	next    int
	folding bool
	failed  error
}

func newFoldQueue(ahead int, fold func(*correlator.Matched) error) *foldQueue {
	q := &foldQueue{fold: fold, ahead: ahead, ready: map[int]*correlator.Matched{}}
	q.moved = sync.NewCond(&q.mu)
	return q
}

// add hands in the n-th chunk. It waits while too many before it are not there.
func (q *foldQueue) add(n int, m *correlator.Matched) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.failed == nil && n >= q.next+q.ahead {
		q.moved.Wait()
	}
	q.ready[n] = m
	if q.folding || q.failed != nil {
		return q.failed
	}
	q.folding = true
	for q.failed == nil && q.ready[q.next] != nil {
		m := q.ready[q.next]
		delete(q.ready, q.next)
		q.mu.Unlock()
		err := q.fold(m)
		q.mu.Lock()
		q.next++
		if q.failed == nil {
			q.failed = err
		}
		q.moved.Broadcast()
	}
	q.folding = false
	return q.failed
}

// fail lets nobody wait for a chunk that does not come.
func (q *foldQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed == nil {
		q.failed = err
	}
	q.moved.Broadcast()
}

// chunks cuts the input and makes events of it. An error is the last.
func (e *evaluation) chunks(ctx context.Context, in *inputs) iter.Seq2[[]event.Event, error] {
	return func(yield func([]event.Event, error) bool) {
		var (
			text   []byte
			places []place
		)
		stopped := false
		flush := func() error {
			events, err := e.decode(text, places)
			text, places = make([]byte, 0, len(text)), places[:0]
			if err == nil && len(events) > 0 && !yield(events, nil) {
				stopped = true
				return errFindings // nobody takes it
			}
			return err
		}
		err := in.each(ctx, func(line []byte, at place) error {
			if len(places) == chunkEvents || len(text) > 0 && len(text)+len(line) > chunkBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			text = append(append(text, line...), '\n')
			places = append(places, at)
			return nil
		})
		if err == nil && len(places) > 0 {
			err = flush()
		}
		if err != nil && !stopped {
			yield(nil, err)
		}
	}
}

// decode makes events of a chunk's lines, and tells those that are none.
func (e *evaluation) decode(text []byte, places []place) ([]event.Event, error) {
	events, rejected, err := e.decoder.Lines(text)
	if err != nil {
		return nil, err
	}
	for _, r := range rejected {
		at := places[min(r.Index, len(places)-1)]
		if e.rejected++; e.rejected <= shownErrors {
			e.warn(fmt.Sprintf("%s: event %d: %s", at.file, at.number, r.Detail))
		}
	}
	e.events += len(places)
	e.date(events)
	e.routing.route(events)
	return events, nil
}
