package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
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
	detections int // partitions of `detections`
}

// work is what one fetch became, on its way through the pipeline.
type work struct {
	next       int64 // offset behind it
	ingest     int64 // greatest ingest time below next
	alerts     []bus.Message
	detections []bus.Message
	dead       []bus.Message
	rulings    []*detectionv1.Ruling
	produced   chan struct{} // closed once all is acknowledged
}

// pipelined is how many fetches may be in production at once. Their offsets
// are committed in order all the same.
const pipelined = 4

// own runs the claim until ctx ends or the partition belongs to another.
func (d *detector) own(ctx context.Context, c *claim) error {
	g, ctx := errgroup.WithContext(ctx)
	works := make(chan *work, pipelined)
	g.Go(func() error { return d.match(ctx, c, g, works) })
	g.Go(func() error { return d.settle(ctx, c, works) })
	return g.Wait() //nolint:wrapcheck // the claim's own errors
}

// match reads and matches, in order, and starts the produces.
func (d *detector) match(ctx context.Context, c *claim, g *errgroup.Group, works chan<- *work) error {
	log := d.log.With("partition", c.Partition)
	m := newMatching(d, c)
	if m.next < 0 {
		err := retry(ctx, func(err error) { log.Warn("start of events is not known yet", "error", err) }, func() (err error) {
			m.next, _, err = d.reader.Offsets(ctx, TopicEvents, c.Partition)
			return err //nolint:wrapcheck // logged with its topic
		})
		if err != nil {
			return err
		}
	}
	for {
		var w *work
		err := retry(ctx, func(err error) { log.Warn("events cannot be processed, trying again", "offset", m.next, "error", err) }, func() (err error) {
			w, err = d.step(ctx, c, m)
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

// step matches one fetch; nil if there was nothing to read.
func (d *detector) step(ctx context.Context, c *claim, m *matching) (*work, error) {
	records, end, err := d.reader.Fetch(ctx, TopicEvents, c.Partition, m.next)
	if gap, ok := errors.AsType[*bus.OutOfRangeError](err); ok {
		d.counts.gap(stageDetect)
		to := gap.First
		if gap.Offset > gap.End {
			to = gap.End
		}
		d.log.Error("events were removed before they were read, or the log lost its end: check retention and unclean leader elections",
			"partition", c.Partition, "offset", gap.Offset, "first", gap.First, "end", gap.End, "continuing_at", to)
		m.next = to
		return nil, nil //nolint:nilnil // nothing was read
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // the bus says what failed
	}
	d.counts.behind(stageDetect, c.Partition, end-m.next)
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
	d.counts.behind(stageDetect, c.Partition, end-m.next)
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
func (d *detector) settle(ctx context.Context, c *claim, works <-chan *work) error {
	s := settling{d: d, c: c, log: d.log.With("partition", c.Partition)}
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
			s.next, s.ingest = w.next, w.ingest
			s.rulings = append(s.rulings, w.rulings...)
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
	c         *claim
	log       *slog.Logger
	next      int64
	ingest    int64
	rulings   []*detectionv1.Ruling
	forwarded int64
	committed int64
	forwardAt time.Time
	commitAt  time.Time
}

func (s *settling) settle(ctx context.Context) error {
	now := s.d.clock()
	// A ruling may not be lost by a commit that overtakes it.
	if len(s.rulings) > 0 || s.next > s.forwarded && now.Sub(s.forwardAt) >= s.d.cfg.Forward {
		if err := s.forward(ctx); err != nil {
			return err
		}
		s.forwardAt = now
	}
	if s.next > s.committed && now.Sub(s.commitAt) >= s.d.cfg.Commit {
		s.commitAt = now
		if err := s.c.Commit(ctx, s.next, progress{ingest: s.ingest}.String()); err != nil {
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
			UpstreamPartition: int32(s.c.Partition), NextOffset: s.next, WatermarkMs: s.ingest - s.d.cfg.Slack.Milliseconds(),
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
		missing, err = s.spread(ctx, missing, msgs)
		return err
	})
	if err != nil {
		return err
	}
	s.rulings, s.forwarded = nil, s.next
	return nil
}

// spread writes messages to partitions and returns those that have not
// acknowledged them.
func (s *settling) spread(ctx context.Context, partitions []int, msgs []bus.Message) (failed []int, err error) {
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for _, p := range partitions {
		wg.Go(func() {
			if _, e := s.d.producer.Produce(ctx, TopicDetections, p, msgs); e != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, err = append(failed, p), errors.Join(err, e)
			}
		})
	}
	wg.Wait()
	slices.Sort(failed)
	return failed, err
}
