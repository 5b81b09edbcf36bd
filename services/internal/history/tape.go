package history

import (
	"context"
	"errors"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// Bounds of one chunk that is read backwards. Forwards a chunk is what one
// fetch brings.
const (
	leastChunk = 16
	mostChunk  = 1000
	chunkBytes = 256 << 10
	// fetchBytes bounds one fetch, compressed.
	fetchBytes = 64 << 10
	// emptyLooks is how often a broker must say that there is nothing before
	// that is believed.
	emptyLooks = 3
)

// tape is a stretch of a partition, read from one of its ends.
type tape struct {
	log       Log
	topic     string
	partition int
	forward   bool
	// lo and hi bound what is not read yet: [lo, hi).
	lo, hi int64
	// held is read and not taken.
	held  []bus.Record
	chunk int // records
}

// position is where a later call goes on: the offset of the next record
// forwards, the one behind it backwards.
func (t *tape) position() int64 {
	switch {
	case t.forward && len(t.held) > 0:
		return t.held[0].Offset
	case t.forward:
		return t.lo
	case len(t.held) > 0:
		return t.held[len(t.held)-1].Offset + 1
	default:
		return t.hi
	}
}

func (t *tape) peek() *bus.Record {
	if t.forward {
		return &t.held[0]
	}
	return &t.held[len(t.held)-1]
}

func (t *tape) take() *bus.Record {
	r := t.peek()
	if t.forward {
		t.held = t.held[1:]
	} else {
		t.held = t.held[:len(t.held)-1]
	}
	return r
}

// hungry reports whether the tape must be filled before it is known what comes
// next.
func (t *tape) hungry() bool { return len(t.held) == 0 && t.lo < t.hi }

// fill reads chunks until one holds a record or nothing is left.
func (t *tape) fill(ctx context.Context, b *budget) error {
	for t.hungry() {
		var err error
		if t.forward {
			t.held, t.lo, err = t.fetch(ctx, t.lo)
			if t.lo > t.hi {
				t.held, t.lo = below(t.held, t.hi), t.hi
			}
		} else {
			err = t.fillBackwards(ctx)
		}
		if err != nil {
			return err
		}
		b.spend(t.held)
	}
	return nil
}

func (t *tape) fillBackwards(ctx context.Context) error {
	from := max(t.lo, t.hi-int64(t.chunk))
	var held []bus.Record
	for at := from; at < t.hi; {
		records, next, err := t.fetch(ctx, at)
		if err != nil {
			return err
		}
		held, at = append(held, below(records, t.hi)...), next
	}
	t.held, t.hi = held, from
	if len(held) > 0 {
		size := 0
		for i := range held {
			size += weight(&held[i])
		}
		fits := chunkBytes * len(held) / size
		t.chunk = min(max(min(2*t.chunk, fits), leastChunk), mostChunk)
	}
	return nil
}

func below(records []bus.Record, to int64) []bus.Record {
	n := len(records)
	for n > 0 && records[n-1].Offset >= to {
		n--
	}
	return records[:n]
}

// fetch reads at an offset and returns where the log goes on. What was removed
// meanwhile is passed over.
func (t *tape) fetch(ctx context.Context, at int64) (records []bus.Record, next int64, err error) {
	for range emptyLooks {
		records, _, err = t.log.FetchAtMost(ctx, t.topic, t.partition, at, fetchBytes)
		if gap, ok := errors.AsType[*bus.OutOfRangeError](err); ok && gap.First > at {
			t.lo = max(t.lo, min(gap.First, t.hi))
			return nil, gap.First, nil
		}
		if err != nil {
			return nil, at, err //nolint:wrapcheck // the bus names topic and offset
		}
		if n := len(records); n > 0 {
			return records, records[n-1].Offset + 1, nil
		}
	}
	return nil, t.hi, nil
}
