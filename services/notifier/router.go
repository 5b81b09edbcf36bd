package notifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// Bounds of one step of routing, of one produce and of one call of the queue.
const (
	routeBatch  = 500
	produceSize = 700_000
	createSize  = 768 << 10
)

// route reads alerts, decides, and puts their tasks into the queue, until ctx
// ends or the queue refuses.
func (s *shard) route(ctx context.Context) error {
	s.caughtUp()
	failures := 0
	for {
		records, end, err := s.reader.Fetch(ctx, bus.TopicAlerts, s.partition, s.next)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err() //nolint:wrapcheck // the end of the claim
			}
			if _, gap := errors.AsType[*bus.OutOfRangeError](err); gap {
				return err //nolint:wrapcheck // position decides
			}
			s.log.WarnContext(ctx, "alerts cannot be read, trying again", "offset", s.next, "error", err)
			sleep(ctx, backoff(failures))
			failures++
			continue
		}
		failures = 0
		for len(records) > 0 {
			n := min(len(records), routeBatch)
			s.counts.set(gaugeLag, s.partition, max(0, end-s.next))
			if err := s.step(ctx, records[:n]); err != nil {
				return err
			}
			records = records[n:]
			s.caughtUp()
		}
		s.counts.set(gaugeLag, s.partition, max(0, end-s.next))
	}
}

// step takes some records all the way into the queue.
func (s *shard) step(ctx context.Context, records []bus.Record) error {
	notices, dead := s.sort(records)
	if err := s.bury(ctx, dead); err != nil {
		return err
	}
	if err := s.decide(ctx, records, notices); err != nil {
		return err
	}
	return s.create(ctx, records, notices)
}

// sort decodes records and tells apart those that cannot be delivered.
func (s *shard) sort(records []bus.Record) (notices map[int64]*notice, dead []bus.Message) {
	notices = make(map[int64]*notice, len(records))
	for i := range records {
		r := &records[i]
		n, err := readNotice(r)
		if err == nil {
			notices[r.Offset] = n
			continue
		}
		if r.Offset < s.claim.Committed {
			continue // it was buried when it was first read
		}
		s.counts.poison()
		s.counts.dead(string(r.Header(event.HeaderTenant)))
		s.log.Error("alert cannot be delivered, it goes to dlq", "offset", r.Offset, "error", err)
		if m, err := bus.DeadLetter(r, stageNotify, err.Error(), 1); err == nil {
			dead = append(dead, m)
		}
	}
	return notices, dead
}

func (s *shard) bury(ctx context.Context, dead []bus.Message) error {
	if len(dead) == 0 {
		return nil
	}
	return retry(ctx, func(err error) {
		s.log.WarnContext(ctx, "dead letters are not acknowledged, trying again", "error", err)
	},
		func() error { return s.producer.ProduceKeyed(ctx, bus.TopicDLQ, dead) })
}

// decide routes the alerts on which there is no decision yet, and returns once
// the decisions are acknowledged. What was read and committed before is never
// decided anew: no webhook gets history.
func (s *shard) decide(ctx context.Context, records []bus.Record, notices map[int64]*notice) error {
	var fresh []*notice
	seen := make(map[string]bool)
	for i := range records {
		n := notices[records[i].Offset]
		if n == nil || n.record.Offset < s.claim.Committed {
			continue
		}
		id := n.name()
		if s.ledger.known(id) || seen[id] {
			if w, open := s.ledger.open[nameOf(id)]; !open || w.offset != n.record.Offset {
				s.counts.copied()
			}
			continue
		}
		seen[id] = true
		fresh = append(fresh, n)
	}
	if len(fresh) == 0 {
		return nil
	}
	// Whoever got a subscription before its event is in this view.
	err := retry(ctx, func(err error) { s.log.WarnContext(ctx, "control cannot be read, routing waits", "error", err) },
		func() error { return s.control.Sync(ctx) })
	if err != nil {
		return err
	}
	return s.announce(ctx, fresh)
}

// announce writes decisions on alerts, in produces of bounded size.
func (s *shard) announce(ctx context.Context, fresh []*notice) error {
	var msgs []bus.Message
	size, unheard := 0, 0
	flush := func() error {
		if len(msgs) == 0 {
			return nil
		}
		defer func() { msgs, size = nil, 0 }()
		return s.agree(ctx, msgs)
	}
	now := s.courier.clock().UnixMilli()
	for _, n := range fresh {
		r := s.targets(ctx, n, now)
		if len(r.GetTargets()) == 0 {
			unheard++
			if n.alert.GetOnlyEndpoint() == "" {
				s.counts.unsubscribed(n.alert.GetTenant())
			}
		}
		m, err := routedMessage(r, n)
		if err != nil {
			return err
		}
		if size+len(m.Value) > produceSize {
			if err := flush(); err != nil {
				return err
			}
		}
		msgs = append(msgs, m)
		size += len(m.Value) + len(m.Key)
	}
	if err := flush(); err != nil {
		return err
	}
	s.counts.decided(len(fresh), unheard)
	return s.courier.fault.at(PointRouted)
}

// targets decides on one alert, in a span that is a child of the alert's own.
func (s *shard) targets(ctx context.Context, n *notice, nowMS int64) *deliveryv1.Routed {
	t := n.task()
	_, span := s.courier.tracer.Start(t.context(ctx), "notify route", trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	found := targets(n.alert, s.control.Subscriptions(n.alert.GetTenant()), nowMS)
	span.SetAttributes(attribute.Int("stormbell.endpoints", len(found)))
	return &deliveryv1.Routed{
		Tenant: n.alert.GetTenant(), AlertId: n.alert.GetId(), Targets: found, TimeMs: nowMS, AlertOffset: n.record.Offset, Type: n.kind(),
	}
}

// agree appends decisions to `deliveries` and reads what stands there up to
// them: another owner may have decided on the same alert before, and the first
// decision counts.
func (s *shard) agree(ctx context.Context, msgs []bus.Message) error {
	var base int64
	err := retry(ctx, func(err error) { s.log.WarnContext(ctx, "decisions are not acknowledged, trying again", "error", err) }, func() (err error) {
		base, err = s.producer.Produce(ctx, bus.TopicDeliveries, s.partition, msgs)
		return err //nolint:wrapcheck // logged
	})
	if err != nil {
		return err
	}
	err = read(ctx, s.reader, s.log, bus.TopicDeliveries, s.partition, s.ledger.next, base, func(records []bus.Record) error {
		s.ledger.apply(records)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	now := s.courier.clock()
	own := make([]bus.Record, len(msgs))
	for i, m := range msgs {
		own[i] = bus.Record{Offset: base + int64(i), Time: now, Value: m.Value, Headers: m.Headers}
	}
	s.ledger.apply(own)
	return nil
}

// create puts what is left to do for records into the queue, in calls of
// bounded size, and moves the applied offset past them.
func (s *shard) create(ctx context.Context, records []bus.Record, notices map[int64]*notice) error {
	batch := &queue.Batch{Token: s.token, Prev: s.prev}
	size := 0
	for i := range records {
		r := &records[i]
		if n := notices[r.Offset]; n != nil {
			m := s.message(n)
			add := len(m.Body)
			for _, t := range m.Tasks {
				add += len(t.State) + len(t.Endpoint)
			}
			if size > 0 && size+add > createSize {
				if err := s.commitBatch(ctx, batch); err != nil {
					return err
				}
				batch, size = &queue.Batch{Token: s.token, Prev: s.prev}, 0
			}
			if len(m.Tasks) > 0 {
				batch.Messages = append(batch.Messages, m)
				size += add
			}
		}
		batch.Next = r.Offset + 1
		s.written = max(s.written, r.Time.UnixMilli())
	}
	if err := s.commitBatch(ctx, batch); err != nil {
		return err
	}
	s.ledger.passed(s.next)
	return nil
}

// message is an alert with its tasks, as far as they are still to be done.
func (s *shard) message(n *notice) queue.Message {
	m := queue.Message{Alert: n.name(), Body: n.body, WrittenMS: n.record.Time.UnixMilli()}
	now := s.courier.clock()
	for _, p := range s.ledger.take(m.Alert) {
		t := n.task()
		t.Attempts, t.First = p.attempts, p.first
		due := p.dueMS
		if due == 0 {
			first, _ := s.courier.plan.pause(t.WebhookID, p.endpoint, 0)
			due = now.Add(first).UnixMilli()
		}
		m.Tasks = append(m.Tasks, queue.Task{Endpoint: p.endpoint, DueMS: due, State: t.encode()})
	}
	return m
}

func (s *shard) commitBatch(ctx context.Context, b *queue.Batch) error {
	var refused *queue.RefusedError
	err := retry(ctx, func(err error) { s.log.WarnContext(ctx, "tasks cannot be created, trying again", "error", err) }, func() error {
		err := s.queue.Create(ctx, s.partition, b)
		if errors.As(err, &refused) {
			return nil
		}
		return err //nolint:wrapcheck // logged
	})
	if err == nil && refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	s.prev, s.next = b.Next, b.Next
	s.tracker.reached(b.Next, s.written)
	if len(b.Messages) > 0 {
		if err := s.courier.fault.at(PointCreated); err != nil {
			return err
		}
		s.dispatcher.wake()
	}
	return nil
}

// caughtUp reports the partition ready once all that was committed is in the
// queue, and until then how far it is.
func (s *shard) caughtUp() {
	to := s.claim.Committed
	if s.next >= to {
		if !s.owned.Ready(s.partition) {
			s.owned.Set(s.partition, nil)
			s.counts.set(gaugeRebuild, s.partition, 0)
			if s.from < to {
				s.log.Info("queue rebuilt from the log", "from", s.from, "to", to, "took", s.courier.clock().Sub(s.began).Round(time.Millisecond))
			}
		}
		return
	}
	done := float64(s.next-s.from) / float64(max(to-s.from, 1))
	s.owned.Set(s.partition, fmt.Errorf("partition %d is rebuilding its deliveries from the log: %.0f %% of %d alerts", s.partition, 100*done, to-s.from))
	s.counts.set(gaugeRebuild, s.partition, to-s.next)
	if now := s.courier.clock(); now.Sub(s.told) >= time.Second {
		s.told = now
		s.log.Info("rebuilding the queue from the log", "at", s.next, "to", to, "percent", int(100*done))
	}
}
