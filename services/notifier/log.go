package notifier

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// A Reader reads partitions of the log; *bus.Client is one.
//
// Fetch waits a moment where there is nothing yet and then returns nothing. It
// fails with a *bus.OutOfRangeError for an offset that the log does not hold.
type Reader interface {
	Fetch(ctx context.Context, topic string, partition int, offset int64) (records []bus.Record, end int64, err error)
	Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error)
	OffsetAtTime(ctx context.Context, topic string, partition int, t time.Time) (int64, error)
}

// A Producer writes to the log; *bus.Client is one. Both methods that write
// return nil only once all records are acknowledged by all in-sync replicas;
// after an error the outcome is unknown.
type Producer interface {
	Produce(ctx context.Context, topic string, partition int, msgs []bus.Message) (base int64, err error)
	ProduceKeyed(ctx context.Context, topic string, msgs []bus.Message) error
	Partitions(ctx context.Context, topic string) (int, error)
}

// A Group hands out partitions; *bus.Client is one. Consume runs handle for
// each partition that it is given, until ctx ends; a handler that returns
// before is started again after a pause.
type Group interface {
	Consume(ctx context.Context, cfg bus.GroupConfig, handle bus.Handler) error
}

// retry calls f until it returns nil or ctx ends, and tells what failed.
func retry(ctx context.Context, failed func(error), f func() error) error {
	for n := 0; ; n++ {
		err := f()
		if err == nil || ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
		failed(err)
		if !sleep(ctx, backoff(n)) {
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
	}
}

func backoff(n int) time.Duration {
	return min(5*time.Second, 50*time.Millisecond<<min(n, 10))
}

// sleep waits and reports false once ctx ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// read hands the records of a partition from one offset up to another to fn,
// in batches. What fails is tried again until ctx ends; a log that no longer
// holds the offsets is an error.
func read(ctx context.Context, reader Reader, log *slog.Logger, topic string, partition int, from, to int64, fn func([]bus.Record) error) error {
	failures := 0
	for from < to {
		records, end, err := reader.Fetch(ctx, topic, partition, from)
		var gap *bus.OutOfRangeError
		switch {
		case ctx.Err() != nil:
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		case errors.As(err, &gap):
			return err //nolint:wrapcheck // the bus says what is missing
		case err != nil:
			log.WarnContext(ctx, "topic cannot be read, trying again", "topic", topic, "offset", from, "error", err)
			if !sleep(ctx, backoff(failures)) {
				return ctx.Err() //nolint:wrapcheck // the end of the claim
			}
			failures++
			continue
		}
		failures = 0
		to = min(to, end) // a log that lost its tail holds no more
		for len(records) > 0 && records[len(records)-1].Offset >= to {
			records = records[:len(records)-1]
			from = to
		}
		if len(records) == 0 {
			continue
		}
		if err := fn(records); err != nil {
			return err
		}
		from = max(from, records[len(records)-1].Offset+1)
	}
	return nil
}
