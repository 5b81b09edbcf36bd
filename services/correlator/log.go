package correlator

import (
	"context"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// Record is that of the bus.
type Record = bus.Record

// Header is that of the bus.
type Header = bus.Header

// Names of the topics, without their prefix.
const (
	TopicEvents     = bus.TopicEvents
	TopicDetections = bus.TopicDetections
	TopicAlerts     = bus.TopicAlerts
	TopicDLQ        = bus.TopicDLQ
	TopicState      = bus.TopicState
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

// A Producer writes to the log; *bus.Client is one. Both methods return nil
// only once all records are acknowledged by all in-sync replicas; after an
// error the outcome is unknown.
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

// claim is the ownership of one partition: what stages need of a *bus.Claim.
type claim struct {
	Partition int
	// Committed is −1 where nothing is; Metadata came with it.
	Committed int64
	Metadata  string
	// Commit returns nil once the offset is committed, and bus.ErrNotOwner where
	// another member owns the partition.
	Commit func(ctx context.Context, offset int64, metadata string) error
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
