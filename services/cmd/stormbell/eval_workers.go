package main

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/event"
)

// chunk is what one worker gets at a time.
type chunk struct {
	number, line int // of the chunk, and of its first line
	text         []byte
	places       []place
	before       <-chan int64 // gives the time of the last event of the chunks before it that had one
	after        chan<- int64 // takes it for the next
	rejected     []gateway.Rejection
	matched      *correlator.Matched
}

// pipeline runs the workers. Each takes the next chunk, which it cuts from the
// input while no other does, decodes and matches it, makes lines of its alerts,
// and folds what is next in order: so one worker is one thread, and several wait
// for each other only where they read, and where they count and print.
func (e *evaluation) pipeline(ctx context.Context, in *inputs) error {
	g, ctx := errgroup.WithContext(ctx)
	spent := make(chan *chunk, 3*e.workers) // folded: their memory serves again
	next, stop := iter.Pull2(e.chunks(ctx, in, spent))
	defer stop()
	var reading sync.Mutex
	take := func() (c *chunk, more bool, err error) {
		reading.Lock()
		defer reading.Unlock()
		c, err, more = next()
		return c, more, err
	}
	queue := newFoldQueue(2*e.workers, func(c *chunk) error {
		err := e.fold(ctx, c)
		select {
		case spent <- c:
		default:
		}
		return err
	})
	for range e.workers {
		g.Go(func() error {
			evaluator, decoder := e.run.Evaluator(), e.decoder.At(0)
			for {
				c, more, err := take()
				if !more {
					return nil
				}
				if err == nil {
					err = e.match(ctx, evaluator, decoder, c)
				}
				if err != nil {
					queue.fail(err)
					return err
				}
				if err := queue.add(c.number, c); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// match does of a chunk what needs no other.
func (e *evaluation) match(ctx context.Context, evaluator *correlator.Evaluator, decoder *gateway.Decoder, c *chunk) error {
	decoder.Again(c.line)
	events, rejected, err := decoder.Lines(c.text)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	c.rejected = rejected
	if err := c.date(ctx, events); err != nil {
		return err
	}
	e.routing.route(events)
	if c.matched, err = evaluator.Match(ctx, events); err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	return c.matched.Render(e.render)
}

// date gives events without a time that of the one before them, which may be in
// a chunk before that another worker decodes.
func (c *chunk) date(ctx context.Context, events []event.Event) error {
	own := func(e event.Event) bool { return e.OwnTime }
	first, before := slices.IndexFunc(events, own), int64(0)
	if first >= 0 {
		for _, e := range slices.Backward(events) {
			if e.OwnTime {
				c.after <- e.TimeMS // it has room
				break
			}
		}
	}
	if first != 0 {
		select {
		case before = <-c.before:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // another worker says why
		}
	}
	if first < 0 {
		c.after <- before
	}
	for i := range events {
		if events[i].OwnTime {
			before = events[i].TimeMS
		}
		events[i].TimeMS = before
	}
	return nil
}

// fold tells what of a chunk are no events, and folds the others.
func (e *evaluation) fold(ctx context.Context, c *chunk) error {
	for _, r := range c.rejected {
		at := c.places[min(r.Index, len(c.places)-1)]
		if e.rejected++; e.rejected <= shownErrors {
			e.warn(fmt.Sprintf("%s: event %d: %s", at.file, at.number, r.Detail))
		}
	}
	e.collect()
	e.events += len(c.places)
	e.count(c.matched)
	return e.run.Fold(ctx, c.matched, e.print, e.warn) //nolint:wrapcheck // it says what it was doing
}

// foldQueue folds chunks in their order, as soon as there are all before them.
// Whoever brings one that is next does it.
type foldQueue[T any] struct {
	fold  func(*T) error
	ahead int // how far a chunk may be from the next

	mu      sync.Mutex
	moved   *sync.Cond
	ready   map[int]*T
	next    int
	folding bool
	failed  error
}

func newFoldQueue[T any](ahead int, fold func(*T) error) *foldQueue[T] {
	q := &foldQueue[T]{fold: fold, ahead: ahead, ready: map[int]*T{}}
	q.moved = sync.NewCond(&q.mu)
	return q
}

// add hands in the n-th chunk. It waits while too many before it are not there.
func (q *foldQueue[T]) add(n int, m *T) error {
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
func (q *foldQueue[T]) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed == nil {
		q.failed = err
	}
	q.moved.Broadcast()
}

// chunks cuts the input, into memory of spent chunks if there are some. An error
// is the last.
func (e *evaluation) chunks(ctx context.Context, in *inputs, spent <-chan *chunk) iter.Seq2[*chunk, error] {
	return func(yield func(*chunk, error) bool) {
		first := make(chan int64, 1)
		first <- 0
		before, line, number := (<-chan int64)(first), 0, 0
		fresh := func() *chunk {
			select {
			case c := <-spent:
				return &chunk{text: c.text[:0], places: c.places[:0]}
			default:
				return new(chunk)
			}
		}
		c, stopped := fresh(), false
		flush := func() bool {
			after := make(chan int64, 1)
			c.number, c.line, c.before, c.after = number, line, before, after
			before, line, number = after, line+len(c.places), number+1
			stopped = !yield(c, nil)
			c = fresh()
			return !stopped
		}
		var header []byte // of the file, which each of its chunks begins with
		file := ""
		err := in.each(ctx, func(text []byte, at place) error {
			another := at.file != file && header != nil
			full := len(c.places) == chunkEvents || len(c.text)+len(text) > chunkBytes
			if another {
				header = nil
			}
			if len(c.places) > 0 && (full || another) {
				if !flush() {
					return errFindings // nobody takes it
				}
				c.text = append(c.text, header...)
			}
			file = at.file
			if e.decoder.IsHeader(text) {
				header = append(bytes.Clone(text), '\n')
				c.text = append(c.text, header...)
				return nil
			}
			c.text = append(append(c.text, text...), '\n')
			c.places = append(c.places, at)
			return nil
		})
		if err == nil && len(c.places) > 0 {
			flush()
		}
		if err != nil && !stopped {
			yield(nil, err)
		}
	}
}
