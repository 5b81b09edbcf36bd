package notifier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/internal/status"
)

// counts are the notifier's metrics. No label grows with tenants or endpoints.
type counts struct {
	ctx      context.Context //nolint:containedctx // metrics outlive every claim and carry no deadline
	attempts metric.Int64Counter
	parked   metric.Int64Counter
	routed   metric.Int64Counter
	unheard  metric.Int64Counter
	copies   metric.Int64Counter
	poisoned metric.Int64Counter
	refused  metric.Int64Counter
	stale    metric.Int64Counter
	gaps     metric.Int64Counter
	latency  metric.Float64Histogram
	journey  metric.Float64Histogram

	// board counts by tenant and webhook, which no label does.
	board *status.Board
	clock func() time.Time

	mu     sync.Mutex
	gauges map[gauge]int64
}

// gauge is a figure of one partition.
type gauge struct {
	name      string
	partition int
}

const (
	gaugeLag     = "lag"
	gaugeDepth   = "depth"
	gaugeOldest  = "oldest"
	gaugeRebuild = "rebuild"
)

func newCounts(m metric.Meter, clock func() time.Time, slots func() int) (*counts, error) {
	c := &counts{ctx: context.Background(), gauges: make(map[gauge]int64), board: status.NewBoard(), clock: clock}
	var errs []error
	for _, def := range []struct {
		to         *metric.Int64Counter
		name, text string
	}{
		{&c.attempts, "stormbell_notifier_attempts_total", "Webhook attempts, by outcome."},
		{&c.parked, "stormbell_notifier_parked_total", "Deliveries given up and left for replay."},
		{&c.routed, "stormbell_notifier_routed_total", "Alerts for which it was decided whom they go to."},
		{&c.unheard, "stormbell_notifier_unsubscribed_alerts_total", "Alerts that no subscription matches."},
		{&c.copies, "stormbell_notifier_copies_total", "Records of alerts that were decided before."},
		{&c.poisoned, "stormbell_notifier_poison_total", "Records that could not be delivered to anybody."},
		{&c.refused, "stormbell_notifier_refused_writes_total", "Calls that the queue refused: another owner, or something was lost."},
		{&c.stale, "stormbell_notifier_stale_leases_total", "Attempts that came back after their lease."},
		{&c.gaps, "stormbell_notifier_gaps_total", "Times that the log lacked alerts that had not been read."},
	} {
		var err error
		*def.to, err = m.Int64Counter(def.name, metric.WithDescription(def.text))
		errs = append(errs, err)
	}
	var err error
	c.latency, err = m.Float64Histogram("stormbell_notifier_delivery_seconds", metric.WithUnit("s"), metric.WithDescription("Duration of webhook requests."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30))
	errs = append(errs, err)
	c.journey, err = m.Float64Histogram("stormbell_notifier_event_to_webhook_seconds", metric.WithUnit("s"),
		metric.WithDescription("Time from the ingest of the event that made an alert fire to the subscriber's 2xx."),
		metric.WithExplicitBucketBoundaries(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 36000, 86400))
	errs = append(errs, err, c.observe(m, clock, slots))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("notifier metrics: %w", err)
	}
	return c, nil
}

func (c *counts) observe(m metric.Meter, clock func() time.Time, slots func() int) error {
	lag, err1 := m.Int64ObservableGauge("stormbell_notifier_lag_records", metric.WithDescription("Alerts not yet routed, by partition."))
	depth, err2 := m.Int64ObservableGauge("stormbell_notifier_queue_depth", metric.WithDescription("Deliveries that are waiting or under way, by partition."))
	age, err3 := m.Float64ObservableGauge("stormbell_notifier_oldest_alert_age_seconds", metric.WithUnit("s"), metric.WithDescription("Age of the oldest alert with a delivery left, by partition."))
	rebuild, err4 := m.Int64ObservableGauge("stormbell_notifier_rebuild_records", metric.WithDescription("Alerts that a rebuild still has to read, by partition."))
	busy, err5 := m.Int64ObservableGauge("stormbell_notifier_requests_in_flight", metric.WithDescription("Webhook requests under way."))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(busy, int64(slots()))
		c.mu.Lock()
		defer c.mu.Unlock()
		for g, v := range c.gauges {
			attrs := metric.WithAttributes(attribute.Int("partition", g.partition))
			switch g.name {
			case gaugeLag:
				o.ObserveInt64(lag, v, attrs)
			case gaugeDepth:
				o.ObserveInt64(depth, v, attrs)
			case gaugeOldest:
				seconds := 0.0
				if v != 0 {
					seconds = clock().Sub(time.UnixMilli(v)).Seconds()
				}
				o.ObserveFloat64(age, seconds, attrs)
			case gaugeRebuild:
				o.ObserveInt64(rebuild, v, attrs)
			}
		}
		return nil
	}, lag, depth, age, rebuild, busy)
	return err //nolint:wrapcheck // the caller says what it is
}

func (c *counts) set(name string, partition int, v int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gauges[gauge{name, partition}] = v
}

// gone forgets the figures of a partition that has another owner.
func (c *counts) gone(partition int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{gaugeLag, gaugeDepth, gaugeOldest, gaugeRebuild} {
		delete(c.gauges, gauge{name, partition})
	}
}

// stage adds up the gauges of all partitions.
func (c *counts) stage() *statusv1.Stage {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &statusv1.Stage{Name: stageNotify}
	for g, v := range c.gauges {
		if g.name == gaugeLag {
			out.Partitions++
			out.Lag += v
		}
	}
	return out
}

// unsubscribed counts an alert of a tenant that nobody has asked for.
func (c *counts) unsubscribed(tenant string) {
	c.board.Tenant(tenant).Unheard.Add(1, c.clock().UnixMilli())
}

// dead counts a record of a tenant that goes to dlq.
func (c *counts) dead(tenant string) {
	c.board.Tenant(tenant).Dead.Add(1, c.clock().UnixMilli())
}

func (c *counts) decided(n, unheard int) {
	c.routed.Add(c.ctx, int64(n))
	c.unheard.Add(c.ctx, int64(unheard))
}

func (c *counts) copied()   { c.copies.Add(c.ctx, 1) }
func (c *counts) poison()   { c.poisoned.Add(c.ctx, 1) }
func (c *counts) gap()      { c.gaps.Add(c.ctx, 1) }
func (c *counts) outlived() { c.stale.Add(c.ctx, 1) }

func (c *counts) refuse(foreign bool) {
	reason := "lost"
	if foreign {
		reason = "owner"
	}
	c.refused.Add(c.ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

// attempt measures a request. ctx carries its span, for exemplars.
func (c *counts) attempt(ctx context.Context, a *deliveryv1.Attempt, t *task, now time.Time) {
	c.latency.Record(ctx, float64(a.GetDurationMs())/1000, metric.WithAttributes(attribute.String("outcome", outcomeName(a.GetOutcome()))))
	if a.GetOutcome() == outcomeSucceeded && t.IngestMS > 0 {
		c.journey.Record(ctx, max(0, now.Sub(time.UnixMilli(t.IngestMS)).Seconds()))
	}
}

// settled counts what a task came to, once that is written.
func (c *counts) settled(v *verdict) {
	o := v.attempt.GetOutcome()
	c.tell(v.attempt, v.result != unknown)
	c.attempts.Add(c.ctx, 1, metric.WithAttributes(attribute.String("outcome", outcomeName(o))))
	if o == outcomeParked {
		c.parked.Add(c.ctx, 1)
	}
}

// tell counts an attempt, or the end of a task without one, for displays.
func (c *counts) tell(a *deliveryv1.Attempt, requested bool) {
	now := c.clock().UnixMilli()
	t := c.board.Tenant(a.GetTenant())
	w := t.Webhook(a.GetEndpointId())
	before := a.GetNumber() // attempts that had failed
	if requested && before > 0 {
		before--
	}
	switch a.GetOutcome() {
	case outcomeSucceeded:
		t.Delivered.Add(1, now)
		w.Delivered.Add(1, now)
	case outcomeFailed:
		t.Failed.Add(1, now)
		w.Failed.Add(1, now)
	case outcomeParked:
		t.Parked.Add(1, now)
		w.Parked.Add(1, now)
	}
	switch failed := a.GetOutcome() == outcomeFailed; {
	case failed && before == 0:
		t.RetriesBegun.Add(1, now)
	case !failed && before > 0:
		t.RetriesEnded.Add(1, now)
	}
	if a.GetOutcome() != outcomeCancelled {
		w.Said(a.GetError())
	}
}
