package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/geo"
	"github.com/stormbell/stormbell/services/internal/bus"
)

// detector runs stage detect for the partitions of `events` that this process
// owns. It keeps nothing between two claims.
type detector struct {
	cfg        Config
	reader     Reader
	producer   Producer
	plans      planner
	tracer     trace.Tracer
	counts     *counts
	fault      Fault
	log        *slog.Logger
	clock      func() time.Time
	gate       *gate
	places     *geo.Locator
	detections int  // partitions of `detections`
	look       bool // into rules that never match, see looking
	brief      bool // alerts are, see Evaluation.Brief
}

// work is what one fetch became, on its way through the pipeline.
type work struct {
	next       int64 // offset behind it
	ingest     int64 // greatest ingest time below next
	alerts     []bus.Message
	detections []bus.Message
	dead       []bus.Message
	rulings    []*detectionv1.Ruling
	levels     uint32        // up to which correlations signal to others, by the rules seen
	ruled      string        // what the next owner has to know of manifests
	produced   chan struct{} // closed once all is acknowledged
	// objects, where there are any, are in place of alerts and detections: there
	// is no log.
	objects *objects
}

// pipelined is how many fetches may be in production at once. Their offsets
// are committed in order all the same.
const pipelined = 4

// own runs the claim until ctx ends or the partition belongs to another.
func (d *detector) own(ctx context.Context, c *claim) (err error) {
	m := newMatching(d, c)
	defer d.counts.gone(stageDetect, c.Partition)
	defer func() { m.probation.leave(ctx, err) }()
	if err := d.begin(ctx, m); err != nil {
		return err
	}
	s := newSettling(d, m)
	if err := d.goCarefully(ctx, m, s); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	works := make(chan *work, pipelined)
	g.Go(func() error { return d.match(ctx, c, m, g, works) })
	g.Go(func() error { return d.settle(ctx, s, works) })
	return g.Wait() //nolint:wrapcheck // the claim's own errors
}

// begin finds out where to begin, and notes that this owner does.
func (d *detector) begin(ctx context.Context, m *matching) error {
	var first, end int64
	err := retry(ctx, func(err error) {
		d.log.Warn("start of events is not known yet", "partition", m.partition, "error", err)
	}, func() (err error) {
		first, end, err = d.reader.Offsets(ctx, TopicEvents, m.partition)
		return err //nolint:wrapcheck // logged with its topic
	})
	if err != nil {
		return err
	}
	if m.next < 0 {
		m.next = first
	}
	if err := m.probation.begin(ctx, m.next, m.next, end); err != nil {
		return err
	}
	m.blamed, m.tries = m.probation.blamed()
	return nil
}

// goCarefully takes records one stretch after the other, until the claim has
// got past where processes have ended before.
func (d *detector) goCarefully(ctx context.Context, m *matching, s *settling) error {
	for failures := 0; m.probation.careful(); {
		err := d.prove(ctx, m, s)
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil, errors.Is(err, bus.ErrNotOwner), crashed(ctx, err):
			return err
		default:
			s.log.Warn("events cannot be processed, trying again", "offset", m.next, "error", err)
			sleep(ctx, backoff(failures))
			failures++
		}
	}
	return nil
}

// prove takes the next few records, or one of which processes have died alone,
// and commits what became of them before anything else.
func (d *detector) prove(ctx context.Context, m *matching, s *settling) error {
	records, _, err := d.fetch(ctx, m)
	if err != nil || len(records) == 0 {
		return err
	}
	n, alone := m.probation.take(records)
	records = records[:n]
	within := ctx
	if alone {
		defer d.gate.alone()()
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, aloneFor)
		defer cancel()
	}
	if n > 1 || !m.passes(&records[0]) {
		if err := m.probation.mark(ctx, records); err != nil {
			return err
		}
	}
	m.alone = alone
	w, err := m.batch(within, records)
	m.alone = false
	if err != nil {
		if crashed(ctx, err) {
			return err
		}
		return errors.Join(err, m.probation.unmark(ctx))
	}
	if err := d.produce(ctx, s.log, w); err != nil {
		return err
	}
	if err := d.fault.at(PointProduced, nil); err != nil {
		return err
	}
	s.took(w)
	return s.proved(ctx)
}

// match reads and matches, in order, and starts the produces.
func (d *detector) match(ctx context.Context, c *claim, m *matching, g *errgroup.Group, works chan<- *work) error {
	log := d.log.With("partition", c.Partition)
	for {
		var w *work
		err := retry(ctx, func(err error) { log.Warn("events cannot be processed, trying again", "offset", m.next, "error", err) }, func() (err error) {
			w, err = d.step(ctx, m)
			return err
		})
		if _, ok := errors.AsType[*faultError](m.failed); ok {
			return m.failed
		}
		if err != nil {
			return err
		}
		if w == nil {
			continue
		}
		g.Go(func() error { return d.produce(ctx, log, w) })
		select {
		case works <- w:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
	}
}

// fetch reads what comes next; nothing where there is nothing yet.
func (d *detector) fetch(ctx context.Context, m *matching) (records []Record, end int64, err error) {
	records, end, err = d.reader.Fetch(ctx, TopicEvents, m.partition, m.next)
	if gap, ok := errors.AsType[*bus.OutOfRangeError](err); ok {
		d.counts.gap(stageDetect)
		to := gap.First
		if gap.Offset > gap.End {
			to = gap.End
		}
		d.log.Error("events were removed before they were read, or the log lost its end: check retention and unclean leader elections",
			"partition", m.partition, "offset", gap.Offset, "first", gap.First, "end", gap.End, "continuing_at", to)
		m.next = to
		return nil, to, nil
	}
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // the bus says what failed
	}
	d.counts.behind(stageDetect, m.partition, end-m.next)
	return records, end, nil
}

// step matches one fetch; nil if there was nothing to read.
func (d *detector) step(ctx context.Context, m *matching) (*work, error) {
	records, end, err := d.fetch(ctx, m)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, nil //nolint:nilnil // nothing was read
	}
	w, err := m.batch(ctx, records)
	if err != nil {
		if _, ok := errors.AsType[*faultError](err); ok {
			m.failed = err
			return nil, nil //nolint:nilnil // the caller looks at m.failed
		}
		return nil, err
	}
	d.counts.behind(stageDetect, m.partition, end-m.next)
	return w, nil
}

// produce writes what a fetch became, until all of it is acknowledged.
func (d *detector) produce(ctx context.Context, log *slog.Logger, w *work) error {
	for _, part := range []struct {
		topic string
		msgs  []bus.Message
	}{{TopicAlerts, w.alerts}, {TopicDetections, w.detections}, {TopicDLQ, w.dead}} {
		if len(part.msgs) == 0 {
			continue
		}
		err := retry(ctx, func(err error) {
			log.Warn("what was detected is not acknowledged, trying again", "topic", part.topic, "error", err)
		}, func() error { return d.producer.ProduceKeyed(ctx, part.topic, part.msgs) })
		if err != nil {
			return err
		}
	}
	close(w.produced)
	return nil
}

// settle follows the produces in order: what is acknowledged is forwarded as
// a watermark and committed.
func (d *detector) settle(ctx context.Context, s *settling, works <-chan *work) error {
	tick := time.NewTicker(min(d.cfg.Forward, d.cfg.Commit) / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		case w := <-works:
			select {
			case <-ctx.Done():
				return ctx.Err() //nolint:wrapcheck // the end of the claim
			case <-w.produced:
			}
			if err := d.fault.at(PointProduced, nil); err != nil {
				return err
			}
			s.took(w)
		case <-tick.C:
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
}

// settling is what of a partition is acknowledged, and what of that is known
// outside.
type settling struct {
	d         *detector
	partition int
	probation *probation
	log       *slog.Logger
	next      int64
	ingest    int64
	rulings   []*detectionv1.Ruling
	ruled     string
	levels    uint32
	forwarded int64
	committed int64
	forwardAt time.Time
	commitAt  time.Time
}

func newSettling(d *detector, m *matching) *settling {
	return &settling{d: d, partition: m.partition, probation: m.probation, log: d.log.With("partition", m.partition)}
}

// took notes work that is acknowledged.
func (s *settling) took(w *work) {
	s.next, s.ingest, s.ruled, s.levels = w.next, w.ingest, w.ruled, w.levels
	s.rulings = append(s.rulings, w.rulings...)
}

// progress is what a commit says.
func (s *settling) progress() progress {
	return progress{ingest: s.ingest, ruled: s.ruled, levels: s.levels}
}

// proved commits at once, and returns once that is known outside.
func (s *settling) proved(ctx context.Context) error {
	if err := s.tell(ctx, s.d.clock()); err != nil {
		return err
	}
	var lost error
	err := retry(ctx, func(err error) {
		s.log.Warn("offset of events is not committed, trying again", "offset", s.next, "error", err)
	}, func() error {
		err := s.probation.commit(ctx, s.next, s.progress())
		if errors.Is(err, bus.ErrNotOwner) {
			lost, err = err, nil
		}
		return err
	})
	if err = errors.Join(err, lost); err == nil {
		s.committed = s.next
	}
	return err
}

// tell forwards what is due.
func (s *settling) tell(ctx context.Context, now time.Time) error {
	// A ruling may not be lost by a commit that overtakes it.
	if len(s.rulings) > 0 || s.next > s.forwarded && now.Sub(s.forwardAt) >= s.d.cfg.Forward {
		if err := s.forward(ctx); err != nil {
			return err
		}
		s.forwardAt = now
	}
	return nil
}

func (s *settling) settle(ctx context.Context) error {
	now := s.d.clock()
	if err := s.tell(ctx, now); err != nil {
		return err
	}
	if s.next > s.committed && now.Sub(s.commitAt) >= s.d.cfg.Commit {
		s.commitAt = now
		if err := s.probation.commit(ctx, s.next, s.progress()); err != nil {
			if errors.Is(err, bus.ErrNotOwner) {
				return err //nolint:wrapcheck // ends the claim
			}
			s.log.Warn("offset of events is not committed, trying again", "offset", s.next, "error", err)
			return nil
		}
		s.committed = s.next
	}
	return nil
}

// forward tells every partition of `detections` how far this partition of
// `events` is acknowledged. It says nothing that is not so, whoever owns the
// partition meanwhile.
func (s *settling) forward(ctx context.Context) error {
	var msgs []bus.Message
	for _, r := range s.rulings {
		value, err := marshal(r)
		if err != nil {
			s.log.Error("ruling cannot be encoded", "error", err)
			continue
		}
		msgs = append(msgs, bus.Message{Value: value, Headers: newHeaders(schemaRuling, r.GetTenant())})
	}
	if s.ingest != unseen {
		value, err := marshal(&detectionv1.Watermark{
			UpstreamPartition: int32(s.partition), NextOffset: s.next, WatermarkMs: s.ingest - s.d.cfg.Slack.Milliseconds(),
			Levels: s.levels,
		})
		if err != nil {
			return fmt.Errorf("encode watermark: %w", err)
		}
		msgs = append(msgs, bus.Message{Value: value, Headers: newHeaders(schemaWatermark, "")})
	}
	missing := make([]int, s.d.detections)
	for p := range missing {
		missing[p] = p
	}
	err := retry(ctx, func(err error) { s.log.Warn("watermark is not forwarded, trying again", "error", err) }, func() (err error) {
		missing, err = spread(ctx, s.d.producer, missing, msgs)
		return err
	})
	if err != nil {
		return err
	}
	s.rulings, s.forwarded = nil, s.next
	return nil
}
