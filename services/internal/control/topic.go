package control

import (
	"context"
	"errors"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// Bus is what a Topic needs of a *bus.Client.
type Bus interface {
	Produce(ctx context.Context, topic string, partition int, msgs []bus.Message) (base int64, err error)
	Fetch(ctx context.Context, topic string, partition int, offset int64) (records []bus.Record, end int64, err error)
	Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error)
}

// Topic is the Log on a bus. The topic must exist.
type Topic struct{ bus Bus }

// OnBus returns the topic `control` of a bus.
func OnBus(b Bus) Topic { return Topic{b} }

// Append implements Log.
func (t Topic) Append(ctx context.Context, records ...Record) error {
	msgs := make([]bus.Message, 0, len(records))
	for _, r := range records {
		msgs = append(msgs, bus.Message{Key: []byte(r.Key), Value: r.Value})
	}
	_, err := t.bus.Produce(ctx, bus.TopicControl, 0, msgs)
	return err
}

// Offsets implements Log.
func (t Topic) Offsets(ctx context.Context) (start, end int64, err error) {
	return t.bus.Offsets(ctx, bus.TopicControl, 0)
}

// Read implements Log.
func (t Topic) Read(ctx context.Context, from int64) ([]Record, int64, error) {
	found, end, err := t.fetch(ctx, from)
	if err == nil && len(found) == 0 && end > from {
		// Compaction may have emptied the log's tail; or the end is younger
		// than the records of the answer. What stood there before this
		// second look would be in it.
		if found, _, err = t.fetch(ctx, from); err == nil && len(found) == 0 {
			return nil, end, nil
		}
	}
	if err != nil {
		return nil, 0, err
	}
	records, next := make([]Record, 0, len(found)), from
	for i := range found {
		r := Record{Offset: found[i].Offset, Key: string(found[i].Key)}
		if len(found[i].Value) > 0 {
			r.Value = found[i].Value
		}
		records, next = append(records, r), found[i].Offset+1
	}
	return records, next, nil
}

func (t Topic) fetch(ctx context.Context, from int64) ([]bus.Record, int64, error) {
	found, end, err := t.bus.Fetch(ctx, bus.TopicControl, 0, from)
	if _, ok := errors.AsType[*bus.OutOfRangeError](err); ok {
		return nil, 0, errors.Join(ErrOutOfRange, err)
	}
	return found, end, err
}
