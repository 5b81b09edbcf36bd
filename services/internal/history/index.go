package history

import (
	"context"
	"crypto/sha256"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// index is where the ids of a partition stand. It covers a stretch of the log,
// grows while ids are looked up, newest first, and reads no record twice.
type index struct {
	topic     string
	partition int
	most      int // ids that are looked for backwards; twice as many at all
	// turn is taken by whoever reads or changes the rest.
	turn chan struct{}
	// lo and hi bound what is covered: [lo, hi).
	lo, hi int64
	at     map[name]int64
}

// name stands for an id: there may be many.
type name [12]byte

func nameOf(key []byte) name {
	h := sha256.Sum256(key)
	return name(h[:len(name{})])
}

func newIndex(topic string, partition, most int) *index {
	return &index{topic: topic, partition: partition, most: most, turn: make(chan struct{}, 1), at: make(map[name]int64)}
}

// find returns the first record with a key, as far as the log goes back.
func (x *index) find(ctx context.Context, log Log, key string, b *budget) (*bus.Record, error) {
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-ctx.Done():
		return nil, ctx.Err() //nolint:wrapcheck // nobody waits any more
	}
	first, end, err := log.Offsets(ctx, x.topic, x.partition)
	if err != nil {
		return nil, err //nolint:wrapcheck // the bus names topic and partition
	}
	if x.hi > end || x.hi < first || len(x.at) > 2*x.most {
		x.lo, x.hi = end, end // of another log, or of one that has gone on without it
		clear(x.at)
	}
	if x.lo == x.hi {
		x.lo, x.hi = end, end
	}
	if err := x.forward(ctx, log, end, b); err != nil {
		return nil, err
	}
	want := nameOf([]byte(key))
	at, ok := x.at[want]
	if !ok || at < first {
		if ok || x.lo <= first {
			return nil, ErrNotFound
		}
		if at, ok, err = x.backward(ctx, log, first, want, b); err != nil {
			return nil, err
		}
		if !ok {
			return nil, ErrNotFound
		}
	}
	return one(ctx, log, x.topic, x.partition, at, key)
}

// forward covers what was written since.
func (x *index) forward(ctx context.Context, log Log, end int64, b *budget) error {
	t := &tape{log: log, topic: x.topic, partition: x.partition, forward: true, lo: x.hi, hi: end}
	for t.hungry() {
		if b.spent() {
			return ErrUnfinished
		}
		if err := t.fill(ctx, b); err != nil {
			return err
		}
		for i := range t.held {
			if n := nameOf(t.held[i].Key); !x.has(n) {
				x.at[n] = t.held[i].Offset
			}
		}
		t.held, x.hi = nil, t.lo
	}
	return nil
}

func (x *index) has(n name) bool {
	_, ok := x.at[n]
	return ok
}

// backward covers what is older, until it finds a name or the beginning.
func (x *index) backward(ctx context.Context, log Log, first int64, want name, b *budget) (at int64, ok bool, err error) {
	t := &tape{log: log, topic: x.topic, partition: x.partition, lo: first, hi: x.lo, chunk: mostChunk / 4}
	for t.hungry() {
		switch {
		case len(x.at) >= x.most:
			return 0, false, ErrTooOld
		case b.spent():
			return 0, false, ErrUnfinished
		}
		if err := t.fill(ctx, b); err != nil {
			return 0, false, err
		}
		for i := range t.held {
			if n := nameOf(t.held[i].Key); t.held[i].Key != nil {
				at, ok := x.at[n]
				x.at[n] = t.held[i].Offset
				if ok {
					x.at[n] = min(at, t.held[i].Offset)
				}
			}
		}
		t.held, x.lo = nil, t.hi
		if at, ok := x.at[want]; ok {
			return at, true, nil
		}
	}
	x.lo = t.lo
	return 0, false, nil
}

// one reads one record.
func one(ctx context.Context, log Log, topic string, partition int, offset int64, key string) (*bus.Record, error) {
	t := &tape{log: log, topic: topic, partition: partition, forward: true, lo: offset, hi: offset + 1}
	records, _, err := t.fetch(ctx, offset)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 || records[0].Offset != offset || string(records[0].Key) != key {
		return nil, ErrNotFound
	}
	return &records[0], nil
}
