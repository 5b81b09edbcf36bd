package notifier

import (
	"context"
	"errors"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// publishBatch bounds the attempts of one produce, publishBytes its size but
// for the first.
const (
	publishBatch = 500
	publishBytes = 700_000
)

// publisher moves a shard's attempts from the queue's outbox to `deliveries`.
type publisher struct {
	*shard
	woken chan struct{}
}

func newPublisher(s *shard) *publisher { return &publisher{shard: s, woken: make(chan struct{}, 1)} }

// wake says that the outbox holds something.
func (p *publisher) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends or the queue refuses.
func (p *publisher) run(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.Commit)
	defer tick.Stop()
	for {
		if err := p.drain(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		case <-p.woken:
		case <-tick.C:
		}
	}
}

// drain publishes until the outbox is empty.
func (p *publisher) drain(ctx context.Context) error {
	for {
		seq := p.tracker.sequence()
		var entries []queue.Entry
		err := retry(ctx, func(err error) { p.log.WarnContext(ctx, "outbox cannot be read, trying again", "error", err) },
			func() (err error) {
				entries, err = p.queue.Outbox(ctx, p.partition, publishBatch)
				return err //nolint:wrapcheck // logged
			})
		if err != nil {
			return err
		}
		for rest := entries; len(rest) > 0; {
			n, err := p.publish(ctx, rest)
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
		if len(entries) < publishBatch {
			p.tracker.drained(seq)
			return nil
		}
	}
}

// publish produces and trims the first entries, as many as fit.
func (p *publisher) publish(ctx context.Context, entries []queue.Entry) (int, error) {
	var msgs []bus.Message
	size := 0
	for _, e := range entries {
		if size += len(e.Record); size > publishBytes && len(msgs) > 0 {
			break
		}
		m, err := attemptMessage(e.Record)
		if err != nil {
			return 0, err
		}
		msgs = append(msgs, m)
	}
	err := retry(ctx, func(err error) {
		p.log.WarnContext(ctx, "attempts are not acknowledged, trying again", "attempts", len(msgs), "error", err)
	}, func() error {
		_, err := p.producer.Produce(ctx, bus.TopicDeliveries, p.partition, msgs)
		return err //nolint:wrapcheck // logged
	})
	if err != nil {
		return 0, err
	}
	if err := p.courier.fault.at(PointPublished); err != nil {
		return 0, err
	}
	if err := p.trim(ctx, entries[len(msgs)-1].ID); err != nil {
		return 0, err
	}
	return len(msgs), p.courier.fault.at(PointTrimmed)
}

// trim drops what is acknowledged. An entry that is not there was published by
// another owner too.
func (p *publisher) trim(ctx context.Context, id string) error {
	var refused *queue.RefusedError
	err := retry(ctx, func(err error) { p.log.WarnContext(ctx, "outbox cannot be trimmed, trying again", "error", err) }, func() error {
		err := p.queue.Trim(ctx, p.partition, p.token, id)
		if errors.As(err, &refused) || errors.Is(err, queue.ErrStale) {
			return nil
		}
		return err //nolint:wrapcheck // logged
	})
	if err == nil && refused != nil {
		return refused
	}
	return err
}
