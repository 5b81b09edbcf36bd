package correlator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/state"
)

// correlator runs stage correlate for the partitions of `detections` that this
// process owns.
type correlator struct {
	cfg      Config
	reader   Reader
	producer Producer
	store    Store
	plans    planner
	tracer   trace.Tracer
	counts   *counts
	fault    Fault
	log      *slog.Logger
	clock    func() time.Time
	events   int   // partitions of `events`
	siblings int   // partitions of `detections`
	share    int64 // of Groups that a partition takes
	owned    *ownership.Partitions[progress]
	gate     *gate
}

// own owns one partition until ctx ends, the store refuses it, or something
// fails whose outcome is not known. Whoever called it calls it again with a
// fresh claim: nothing is carried over.
func (c *correlator) own(ctx context.Context, claim *claim) error {
	c.owned.Enter(claim.Partition, errOpening)
	defer c.owned.Leave(claim.Partition)
	defer c.counts.gone(stageCorrelate, claim.Partition)
	defer c.counts.board.Left(int32(claim.Partition))
	s, err := c.open(ctx, claim)
	for err != nil {
		if _, ok := errors.AsType[*beyondError](err); !ok {
			return err
		}
		// Folding on would skip what the log writes anew below applied.
		c.log.Error("state is ahead of the log: correlation of this partition stands still", "partition", claim.Partition, "error", err)
		c.owned.Set(claim.Partition, err)
		if !sleep(ctx, lookAgain) {
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
		s, err = c.open(ctx, claim)
	}
	err = s.run(ctx)
	s.probation.leave(ctx, err)
	if refused, ok := errors.AsType[*state.RefusedError](err); ok {
		c.counts.refuse(refused.Reason)
		s.log.Warn("write refused, this owner ends", "reason", refused.Reason, "applied", refused.Applied.String(),
			"other_owner", refused.Foreign, "at", s.f.applied.String())
	}
	return err
}

// lookAgain is how often a partition whose log is shorter than its state is
// looked at: an operator may have mended it.
const lookAgain = 5 * time.Second

// open makes this process the partition's owner and decides where it begins.
func (c *correlator) open(ctx context.Context, claim *claim) (*session, error) {
	f := &folder{
		cfg: c.cfg, store: c.store, plans: c.plans, tracer: c.tracer, counts: c.counts, fault: c.fault,
		partition: int32(claim.Partition), upstreams: c.events, siblings: c.siblings, groups: c.share, token: rand.Text(), gate: c.gate,
	}
	if err := f.open(ctx); err != nil {
		return nil, err
	}
	s := &session{c: c, claim: claim, f: f, log: c.log.With("partition", claim.Partition), frontiers: new(frontiers), committed: claim.Committed}
	if err := s.position(ctx); err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		s.probation.leave(ctx, err)
		return nil, err
	}
	f.survey(ctx)
	s.publisher = newPublisher(f, c.producer, s.log)
	s.from, s.began = s.next, c.clock()
	s.told = s.began
	return s, nil
}

// beyondError says that the store has folded records which the log does not
// hold.
type beyondError struct {
	applied state.Position
	end     int64
}

func (e *beyondError) Error() string {
	return fmt.Sprintf("state is folded up to offset %d and the log of detections ends at %d: restore the log, or flush the store so that the log rebuilds it",
		e.applied.Offset, e.end)
}

// session is the time of one owner.
type session struct {
	c         *correlator
	claim     *claim
	f         *folder
	log       *slog.Logger
	frontiers *frontiers
	publisher *publisher
	probation *probation
	first     int64 // in the log, when this owner began
	end       int64 // of the log then
	next      int64 // offset to fetch next
	committed int64 // of the committer
	forwarded forwarding
	began     time.Time
	from      int64 // where a rebuild began
	told      time.Time
	shown     time.Time
}

// position decides where to read on: from applied, or, where nothing is left,
// from where the look-back of the committed watermark begins.
func (s *session) position(ctx context.Context) error {
	first, end, err := s.c.reader.Offsets(ctx, TopicDetections, s.claim.Partition)
	if err != nil {
		return err //nolint:wrapcheck // the bus says what failed
	}
	at, known := parseProgress(s.claim.Metadata)
	s.first, s.end = first, end
	s.probation = newProbation(s.claim, at, s.c.cfg.Attempts, s.log)
	at.trial = trial{}
	f := s.f
	f.silent = max(s.claim.Committed, 0)
	f.meta.lookBack = max(f.meta.lookBack, at.lookBack)
	if s.claim.Committed >= 0 && known {
		s.frontiers.reached(s.claim.Committed, at)
		// Where nothing comes, nothing more is committed: what stands is known.
		s.c.owned.Commit(s.claim.Partition, s.claim.Committed, at)
	}
	if f.applied.Offset >= 0 {
		if f.applied.Offset > end || f.applied.Offset == end && f.applied.Step > 0 {
			return &beyondError{f.applied, end}
		}
		s.next = f.applied.Offset
		if s.next < first {
			s.c.counts.gap(stageCorrelate)
			s.log.Error("detections were removed before they were folded: check the retention of the topic", "offset", s.next, "first", first)
			s.next = first
		}
		if s.next < f.silent {
			s.log.Warn("store has lost its tail, folding it again", "applied", f.applied.String(), "committed", s.claim.Committed)
		}
		s.reached(f.applied.Offset)
		return nil
	}
	if err := s.restore(ctx); err != nil {
		return err
	}
	if s.next, err = s.rebuildFrom(ctx, first, at); err != nil {
		return err
	}
	if s.claim.Committed > end {
		return &beyondError{state.Position{Offset: s.claim.Committed}, end}
	}
	if s.claim.Committed >= 0 && s.claim.Committed < first {
		s.c.counts.gap(stageCorrelate)
		s.log.Error("detections were removed before they were folded: check the retention of the topic", "offset", s.claim.Committed, "first", first)
	}
	if s.next < f.silent {
		s.log.Info("store is empty, rebuilding from the log", "from", s.next, "to", f.silent, "look_back", time.Duration(at.lookBack)*time.Millisecond)
	}
	return nil
}

// rebuildFrom is the first offset that a rebuild reads: the first write at or
// after the committed watermark less the look-back.
func (s *session) rebuildFrom(ctx context.Context, first int64, at progress) (int64, error) {
	return rebuildFrom(ctx, s.c.reader, s.claim.Partition, first, s.claim.Committed, at)
}

func rebuildFrom(ctx context.Context, reader Reader, partition int, first, committed int64, at progress) (int64, error) {
	if committed < 0 || at.watermark == unseen || at.watermark < math.MinInt64+at.lookBack {
		return first, nil
	}
	offset, err := reader.OffsetAtTime(ctx, TopicDetections, partition, time.UnixMilli(at.watermark-at.lookBack))
	if err != nil {
		return 0, err //nolint:wrapcheck // the bus says what failed
	}
	return max(first, min(offset, committed)), nil
}

// run folds, publishes and commits at the same time, until one of them ends.
func (s *session) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.fold(ctx) })
	g.Go(func() error { return s.publisher.run(ctx) })
	g.Go(func() error { return s.commits(ctx) })
	g.Go(func() error { return s.forwards(ctx) })
	return g.Wait() //nolint:wrapcheck // the session's own errors
}

func (s *session) fold(ctx context.Context) error {
	if err := s.finish(ctx); err != nil {
		return err
	}
	failures := 0
	for {
		records, end, err := s.c.reader.Fetch(ctx, TopicDetections, s.claim.Partition, s.next)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err() //nolint:wrapcheck // the end of the claim
			}
			if _, ok := errors.AsType[*bus.OutOfRangeError](err); ok {
				return err //nolint:wrapcheck // position decides
			}
			s.log.Warn("detections cannot be read, trying again", "offset", s.next, "error", err)
			sleep(ctx, backoff(failures))
			failures++
			continue
		}
		failures = 0
		s.c.counts.behind(stageCorrelate, s.claim.Partition, end-s.next)
		if err := s.batches(ctx, records); err != nil {
			return err
		}
		s.c.counts.behind(stageCorrelate, s.claim.Partition, end-s.next)
		if w := s.f.watermarkOf(0); w != unseen {
			s.c.counts.watermark(s.claim.Partition, w)
		}
		s.tell()
		if now := s.c.clock(); now.Sub(s.shown) >= time.Second {
			s.shown = now
			s.f.full.show(s.c.counts.board, s.f.partition, s.f.tallies)
		}
	}
}

// finish does what a former owner has left undone amid what a watermark closes.
// Elsewhere nothing is closed before the record that makes it due is folded:
// a step at an offset says that its record is in.
func (s *session) finish(ctx context.Context) error {
	if s.f.applied.Step > 0 && s.f.applied.Offset >= 0 { // else snapshots are all that it has
		if err := s.drain(ctx); err != nil {
			return err
		}
		s.next = max(s.next, s.f.applied.Offset)
	}
	s.caughtUp()
	return nil
}

// batches folds what a fetch has brought. Each batch is computed while the one
// before is written; what it has to say is told once it is written itself.
func (s *session) batches(ctx context.Context, records []Record) error {
	defer s.f.leave()
	failures := 0
	for len(records) > 0 {
		if s.f.flight == nil {
			if err := s.publisher.rest(ctx); err != nil {
				return err
			}
		}
		n, err := s.take(ctx, records)
		if errors.Is(err, errRetry) {
			s.log.Error("record cannot be folded, trying again", "error", err)
			if failures > 0 && !sleep(ctx, backoff(failures)) {
				return ctx.Err() //nolint:wrapcheck // the end of the claim
			}
			failures++
			continue
		}
		if err != nil {
			return err
		}
		records = records[n:]
	}
	return s.f.land()
}

// write makes the call for a batch, once the one before has been written and the
// outbox has room. Where a watermark has something to close, that is done at once.
func (s *session) write(ctx context.Context, w *write, next int64) error {
	if err := s.f.land(); err != nil {
		return err
	}
	if err := s.publisher.rest(ctx); err != nil {
		return err
	}
	at, p := w.batch.Next, s.progress()
	err := s.f.launch(ctx, w, func() error {
		s.publisher.add(at.Offset, w.batch.Outbox)
		if at.Step > 0 {
			return nil
		}
		return s.written(ctx, next, p)
	})
	if err != nil || at.Step == 0 {
		return err
	}
	if err := s.drain(ctx); err != nil {
		return err
	}
	return s.written(ctx, next, s.progress())
}

// written notes that all below an offset is folded and written.
func (s *session) written(ctx context.Context, next int64, p progress) error {
	s.next = next
	s.reachedWith(next, p)
	if err := s.passed(ctx); err != nil {
		return err
	}
	s.c.counts.groups(s.claim.Partition, len(s.f.cache.groups))
	s.caughtUp()
	return nil
}

// begin notes that this owner begins, and finds out what to pass over.
func (s *session) begin(ctx context.Context) error {
	if err := s.probation.begin(ctx, s.first, s.next, s.end); err != nil {
		return err
	}
	s.f.blamed, s.f.tries = s.probation.blamed()
	if s.next >= s.end {
		return nil
	}
	skipped, err := s.c.skipped(ctx, s.claim.Partition, s.next)
	if err != nil {
		return err
	}
	if s.f.skipped = skipped; len(skipped) > 0 {
		s.log.Info("records that were skipped before are skipped again", "records", len(skipped), "from", s.next)
	}
	return nil
}

// take folds the first of the records: all that fit, or, where processes have
// ended before, a stretch that is noted, or one record alone, which is written
// before anything else is done.
func (s *session) take(ctx context.Context, records []Record) (n int, err error) {
	if !s.probation.careful() {
		n, w, err := s.f.compute(ctx, records)
		if err != nil {
			return 0, err
		}
		return n, s.write(ctx, w, records[n-1].Offset+1)
	}
	if err := s.f.land(); err != nil {
		return 0, err
	}
	n, entries, err := s.careful(ctx, records)
	if err != nil {
		return 0, err
	}
	s.publisher.add(s.f.applied.Offset, entries)
	if s.f.applied.Step > 0 {
		if err := s.drain(ctx); err != nil {
			return 0, err
		}
	}
	return n, s.written(ctx, records[n-1].Offset+1, s.progress())
}

// careful folds and writes as many of the records as are tried at once.
func (s *session) careful(ctx context.Context, records []Record) (n int, entries []state.Entry, err error) {
	n, alone := s.probation.take(records)
	records = records[:n]
	marks := n > 1 || !s.f.passes(records[0].Offset)
	within := ctx
	if alone {
		defer s.c.gate.alone()()
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, aloneFor)
		defer cancel()
	}
	if marks {
		if err := s.probation.mark(ctx, records); err != nil {
			return 0, nil, err
		}
	}
	s.f.alone = alone
	n, entries, err = s.f.fold(within, records)
	s.f.alone = false
	if alone && marks && (err == nil || errors.Is(err, errRetry)) {
		if lost := s.probation.unmark(ctx); lost != nil {
			return 0, nil, lost
		}
	}
	return n, entries, err
}

// passed tells the probation how far the fold has got.
func (s *session) passed(ctx context.Context) error {
	err := s.probation.passed(ctx, s.next)
	if err != nil && !errors.Is(err, bus.ErrNotOwner) {
		s.log.Warn("claim is not noted as good, trying again", "offset", s.next, "error", err)
		return nil
	}
	return err
}

// drain lets the watermark decide and close what is due. It rests where the
// outbox is full.
func (s *session) drain(ctx context.Context) error {
	if err := s.f.land(); err != nil {
		return err
	}
	return s.f.drainDue(ctx, func(entries []state.Entry) error {
		s.publisher.add(s.f.applied.Offset, entries)
		return s.publisher.rest(ctx)
	})
}

// reached notes what a commit at this offset would have to say.
func (s *session) reached(offset int64) { s.reachedWith(offset, s.progress()) }

// progress is what a commit at the place where the fold is would have to say.
func (s *session) progress() progress {
	p := progress{watermark: s.f.watermark(), lookBack: s.f.meta.lookBack}
	if s.f.applied.Step == 0 { // else what the last watermark makes due is yet to be said
		p.signals = s.f.signals()
	}
	return p
}

// reachedWith notes it. While the fold is silent the committed word stands.
func (s *session) reachedWith(offset int64, p progress) {
	if offset > s.f.silent || s.claim.Committed < 0 {
		s.frontiers.reached(offset, p)
	}
}

// commits commits the frontier as it moves.
func (s *session) commits(ctx context.Context) error {
	tick := time.NewTicker(s.c.cfg.Commit)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		case <-tick.C:
		}
		if err := s.commit(ctx); err != nil {
			return err
		}
	}
}

// commit commits the frontier, where it has moved. Only the loss of the
// partition is an error.
func (s *session) commit(ctx context.Context) error {
	offset := s.publisher.frontier()
	if offset <= s.committed {
		return nil
	}
	p, ok := s.frontiers.at(offset)
	if !ok {
		return nil
	}
	if err := s.probation.commit(ctx, offset, p); err != nil {
		if errors.Is(err, bus.ErrNotOwner) {
			return err //nolint:wrapcheck // ends the claim
		}
		s.log.Warn("frontier is not committed, trying again", "offset", offset, "error", err)
		return nil
	}
	s.committed = offset
	s.c.owned.Commit(s.claim.Partition, offset, p)
	return nil
}

// caughtUp reports the partition ready once the fold has passed the frontier
// that it found.
func (s *session) caughtUp() {
	if s.next < s.f.silent || s.c.owned.Ready(s.claim.Partition) {
		return
	}
	s.c.owned.Set(s.claim.Partition, nil)
	if s.from < s.f.silent {
		s.log.Info("rebuilt from the log", "from", s.from, "to", s.f.silent, "took", s.c.clock().Sub(s.began).Round(time.Millisecond))
	}
}

// tell logs the progress of a rebuild once a second.
func (s *session) tell() {
	if s.next >= s.f.silent {
		return
	}
	now := s.c.clock()
	done := float64(s.next-s.from) / float64(max(s.f.silent-s.from, 1))
	s.c.owned.Set(s.claim.Partition, fmt.Errorf("partition %d is rebuilding from the log: %.0f %% of %d records", s.claim.Partition, 100*done, s.f.silent-s.from))
	s.c.counts.rebuild(s.claim.Partition, s.f.silent-s.next)
	if now.Sub(s.told) >= time.Second {
		s.told = now
		s.log.Info("rebuilding from the log", "at", s.next, "to", s.f.silent, "percent", int(100*done))
	}
}

var errOpening = errors.New("state is being opened")
