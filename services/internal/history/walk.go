package history

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// Page is a part of what a query finds.
type Page[T any] struct {
	Items []T
	// Next goes on where this page ends; empty where there is no more. A page may
	// be short, or empty, and have a next one: the work of one call is bounded.
	Next string
	// Newer begins with what is written after the first page was read, oldest
	// first. It is empty in the pages that follow backwards.
	Newer string
}

// query is what is asked of a topic.
type query[T any] struct {
	topic      string
	partitions int
	name       [queryBytes]byte
	limit      int
	// show returns what is seen of a record, and whether it is one of those that
	// are looked for.
	show func(*bus.Record) (item T, key string, ok bool)
}

// parallel is how many partitions are asked at a time.
const parallel = 8

// walk reads a page: newest first, or oldest first where the cursor leads
// forwards. By the time of their write, as far as clocks agree, and each
// partition in the order of its log. All records that were there at the first
// page are met once, however many are written meanwhile.
func walk[T any](ctx context.Context, h *History, q *query[T], text string) (Page[T], error) {
	tapes, err := load(ctx, h, q, text)
	if err != nil {
		return Page[T]{}, err
	}
	page := Page[T]{}
	forward := text != "" && tapes[0].forward
	if text == "" {
		end := cursor{forward: true, query: q.name}
		for _, t := range tapes {
			end.positions = append(end.positions, t.hi)
		}
		page.Newer = end.encode()
	}
	b := h.budget()
	if err := fillAll(ctx, tapes, b); err != nil {
		return page, err
	}
	room := h.limits.Answer
	seen := make(map[string]bool)
	for len(page.Items) < q.limit && room > 0 {
		t := head(tapes)
		if t == nil {
			break
		}
		r := t.take()
		// What was written again, after a crash say, is the same.
		if item, key, ok := q.show(r); ok && !seen[key] {
			seen[key] = true
			page.Items = append(page.Items, item)
			room -= weight(r)
		}
		if t.hungry() {
			if b.spent() {
				break
			}
			if err := t.fill(ctx, b); err != nil {
				return page, err
			}
		}
	}
	at, more := cursor{forward: forward, query: q.name}, false
	for _, t := range tapes {
		at.positions = append(at.positions, t.position())
		more = more || len(t.held) > 0 || t.hungry()
	}
	if more {
		page.Next = at.encode()
	}
	if forward {
		page.Newer = at.encode()
	}
	return page, nil
}

// load finds out what there is to read of each partition.
func load[T any](ctx context.Context, h *History, q *query[T], text string) ([]*tape, error) {
	var c *cursor
	if text != "" {
		var err error
		if c, err = decodeCursor(text); err != nil {
			return nil, err
		}
		if c.query != q.name || len(c.positions) != q.partitions {
			return nil, ErrCursor
		}
	}
	chunk := min(max(2*q.limit/q.partitions, leastChunk), mostChunk/4)
	tapes := make([]*tape, q.partitions)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for p := range q.partitions {
		g.Go(func() error {
			first, end, err := h.log.Offsets(ctx, q.topic, p)
			if err != nil {
				return err //nolint:wrapcheck // the bus names topic and partition
			}
			t := &tape{log: h.log, topic: q.topic, partition: p, lo: first, hi: end, chunk: chunk}
			tapes[p] = t
			if c == nil {
				return nil
			}
			at := c.positions[p]
			if at > end {
				return ErrCursor // of a log that had more
			}
			t.forward = c.forward
			if t.forward {
				t.lo = max(first, at)
			} else {
				t.hi = max(first, at)
			}
			return nil
		})
	}
	return tapes, g.Wait() //nolint:wrapcheck // of the bus
}

// fillAll reads the first chunk of all, whatever that takes: so each call gets on.
func fillAll(ctx context.Context, tapes []*tape, b *budget) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	took := make([]budget, len(tapes))
	for i, t := range tapes {
		took[i].clock = b.clock
		g.Go(func() error { return t.fill(ctx, &took[i]) })
	}
	err := g.Wait()
	for i := range took {
		b.records, b.bytes = b.records+took[i].records, b.bytes+took[i].bytes // below zero
	}
	return err //nolint:wrapcheck // of the bus
}

// head is the tape with the record that comes next, nil where there is none.
func head(tapes []*tape) *tape {
	var best *tape
	for _, t := range tapes {
		if len(t.held) == 0 {
			continue
		}
		if best == nil {
			best = t
			continue
		}
		at, than := t.peek().Time, best.peek().Time
		if t.forward && at.Before(than) || !t.forward && !at.Before(than) {
			best = t
		}
	}
	return best
}
