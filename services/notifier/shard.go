package notifier

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// shard is one partition of `alerts` while this process owns it.
type shard struct {
	cfg       Config
	reader    Reader
	producer  Producer
	queue     Queue
	control   Control
	counts    *counts
	courier   *courier
	owned     *ownership.Partitions[progress]
	log       *slog.Logger
	claim     *bus.Claim
	partition int
	token     string

	ledger  *ledger
	tracker *tracker
	// prev is the queue's applied offset, next the offset to read.
	prev, next int64
	written    int64 // greatest write time below next

	publisher  *publisher
	dispatcher *dispatcher
	crashed    atomic.Bool

	began, told time.Time
	from        int64 // where reading began
}

// own owns one partition until ctx ends, the queue refuses it, or something
// fails whose outcome is not known. Whoever called it calls it again with a
// fresh claim: nothing is carried over.
func (s *Service) own(ctx context.Context, claim *bus.Claim) error {
	log := s.deps.Log.With("partition", claim.Partition)
	s.owned.Enter(claim.Partition, errOpening)
	defer s.counts.gone(claim.Partition)
	defer s.owned.Leave(claim.Partition)
	sh := &shard{
		cfg: s.cfg, reader: s.deps.Reader, producer: s.deps.Producer, queue: s.deps.Queue, control: s.deps.Control,
		counts: s.counts, courier: s.courier, owned: s.owned, log: log,
		claim: claim, partition: claim.Partition, token: rand.Text(),
	}
	sh.publisher = newPublisher(sh)
	sh.dispatcher = newDispatcher(sh)
	err := sh.position(ctx)
	if err == nil {
		err = sh.run(ctx)
	}
	var (
		refused *queue.RefusedError
		beyond  *beyondError
	)
	switch {
	case errors.As(err, &beyond):
		// Going on would skip what the log writes anew below applied.
		log.ErrorContext(ctx, "queue is ahead of the log: delivery of this partition stands still", "error", err)
		s.owned.Set(claim.Partition, err)
		<-ctx.Done()
	case errors.As(err, &refused):
		s.counts.refuse(refused.Foreign)
		log.WarnContext(ctx, "call of the queue refused, this owner ends", "applied", refused.Applied, "other_owner", refused.Foreign)
	}
	return err
}

// beyondError says that the queue has taken records which the log does not
// hold.
type beyondError struct{ applied, end int64 }

func (e *beyondError) Error() string {
	return fmt.Sprintf("the queue holds alerts up to offset %d and the log of alerts ends at %d: restore the log, or flush the queue so that the log rebuilds it",
		e.applied, e.end)
}

// position fences former owners, reads what is decided, and finds where to
// read on: from the queue's applied offset, or, where nothing is left, from the
// oldest alert that the committed offset knows to be open.
func (s *shard) position(ctx context.Context) error {
	var applied int64
	err := retry(ctx, func(err error) { s.log.WarnContext(ctx, "queue cannot be acquired, trying again", "error", err) }, func() (err error) {
		applied, err = s.queue.Acquire(ctx, s.partition, s.token)
		return err //nolint:wrapcheck // logged
	})
	if err != nil {
		return err
	}
	first, end, err := s.reader.Offsets(ctx, bus.TopicAlerts, s.partition)
	if err != nil {
		return err //nolint:wrapcheck // the bus says what failed
	}
	if applied > end || s.claim.Committed > end {
		return &beyondError{max(applied, s.claim.Committed), end}
	}
	s.prev, s.next = applied, applied
	at, known := parseProgress(s.claim.Metadata)
	switch {
	case applied == queue.Nowhere:
		if s.next, err = rebuildFrom(ctx, s.reader, s.partition, first, s.claim.Committed, at, known); err != nil {
			return err
		}
		if s.claim.Committed > 0 {
			s.log.InfoContext(ctx, "queue is empty, rebuilding it from the log", "from", s.next, "to", s.claim.Committed)
		}
	case applied < first:
		s.counts.gap()
		s.log.ErrorContext(ctx, "alerts were removed before they were routed: check the retention of the topic", "offset", applied, "first", first)
		s.next = first
	case applied < s.claim.Committed:
		s.log.WarnContext(ctx, "queue has lost its tail, reading it again", "applied", applied, "committed", s.claim.Committed)
	}
	s.written = at.writtenMS
	s.tracker = newTracker(applied, s.written)
	return s.recall(ctx, at, known)
}

// rebuildFrom is the first alert that may be open.
func rebuildFrom(ctx context.Context, reader Reader, partition int, first, committed int64, at progress, known bool) (int64, error) {
	if committed < 0 || !known {
		return first, nil
	}
	if at.oldestMS == 0 {
		return max(first, committed), nil
	}
	offset, err := offsetAt(ctx, reader, bus.TopicAlerts, partition, at.since())
	if err != nil {
		return 0, err
	}
	return max(first, min(offset, committed)), nil
}

// offsetAt is the first offset written at a time or later.
func offsetAt(ctx context.Context, reader Reader, topic string, partition int, ms int64) (int64, error) {
	if ms <= 0 { // which the protocol takes for something else
		return 0, nil
	}
	return reader.OffsetAtTime(ctx, topic, partition, time.UnixMilli(ms)) //nolint:wrapcheck // the bus says what failed
}

// recall reads `deliveries` to its end, from the look-back before the first
// alert that is to be read.
func (s *shard) recall(ctx context.Context, at progress, known bool) error {
	s.ledger = newLedger(s.next, s.cfg.LookBack)
	first, end, err := s.reader.Offsets(ctx, bus.TopicDeliveries, s.partition)
	if err != nil {
		return err //nolint:wrapcheck // the bus says what failed
	}
	s.ledger.next = first
	since, ok := at.writtenMS, known
	if r, err := s.peek(ctx); err != nil {
		return err
	} else if r != nil {
		since = r.Time.UnixMilli()
		if known {
			since = min(since, at.writtenMS)
		}
		ok = true
	}
	if ok {
		offset, err := decisionsFrom(ctx, s.reader, s.partition, first, since, s.cfg.LookBack)
		if err != nil {
			return err
		}
		s.ledger.next = offset
	}
	err = read(ctx, s.reader, s.log, bus.TopicDeliveries, s.partition, s.ledger.next, end, func(records []bus.Record) error {
		s.ledger.apply(records)
		return nil
	})
	s.ledger.next = max(s.ledger.next, end)
	if s.ledger.skipped > 0 {
		s.log.ErrorContext(ctx, "records of deliveries cannot be read and were skipped", "records", s.ledger.skipped)
	}
	return err
}

// peek returns the record to be read next, or nil where there is none.
func (s *shard) peek(ctx context.Context) (*bus.Record, error) {
	_, end, err := s.reader.Offsets(ctx, bus.TopicAlerts, s.partition)
	if err != nil {
		return nil, err //nolint:wrapcheck // the bus says what failed
	}
	var found *bus.Record
	stop := errors.New("found")
	err = read(ctx, s.reader, s.log, bus.TopicAlerts, s.partition, s.next, end, func(records []bus.Record) error {
		found = &records[0]
		return stop
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return found, err
}

// decisionsFrom is the first record of `deliveries` that may speak of an alert
// written at a time or later.
func decisionsFrom(ctx context.Context, reader Reader, partition int, first, sinceMS int64, lookBack time.Duration) (int64, error) {
	offset, err := offsetAt(ctx, reader, bus.TopicDeliveries, partition, sinceMS-lookBack.Milliseconds())
	return max(first, offset), err
}

// run routes, dispatches, publishes and commits at the same time, until one of
// them ends.
func (s *shard) run(ctx context.Context) error {
	err := retry(ctx, func(err error) { s.log.WarnContext(ctx, "control cannot be read, trying again", "error", err) },
		func() error { return s.control.Sync(ctx) })
	if err != nil {
		return err
	}
	s.from, s.began = s.next, s.courier.clock()
	s.told = s.began
	if s.prev == queue.Nowhere {
		// From here on a loss shows.
		if err := s.commitBatch(ctx, &queue.Batch{Token: s.token, Prev: queue.Nowhere, Next: s.next}); err != nil {
			return err
		}
	}
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return s.route(running) })
	g.Go(func() error { return s.dispatcher.run(running) })
	g.Go(func() error { return s.publisher.run(running) })
	g.Go(func() error { return s.commits(running) })
	err = g.Wait()
	var refused *queue.RefusedError
	if s.crashed.Load() || errors.As(err, &refused) {
		return err
	}
	// What was settled while the requests under way ended.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace)
	defer cancel()
	if e := s.publisher.drain(last); e != nil {
		s.log.WarnContext(ctx, "last attempts are left to the next owner", "error", e)
	}
	return err //nolint:wrapcheck // the shard's own errors
}

// recommit is how often an offset is committed again because what is open
// below it has changed.
const recommit = 30 * time.Second

// commits commits what is safe as it moves.
func (s *shard) commits(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Commit)
	defer tick.Stop()
	done, said, at := s.claim.Committed, progress{}, s.courier.clock()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		case <-tick.C:
		}
		m := s.tracker.committable()
		if m == nil || m.offset < 0 || m.offset < done {
			continue
		}
		now := s.courier.clock()
		if m.offset == done && (m.progress == said || now.Sub(at) < recommit) {
			continue
		}
		if err := s.claim.Commit(ctx, m.offset, m.progress.String()); err != nil {
			if errors.Is(err, bus.ErrNotOwner) {
				return err //nolint:wrapcheck // ends the claim
			}
			s.log.WarnContext(ctx, "offset is not committed, trying again", "offset", m.offset, "error", err)
			continue
		}
		done, said, at = m.offset, m.progress, now
		s.owned.Commit(s.partition, done, said)
	}
}
