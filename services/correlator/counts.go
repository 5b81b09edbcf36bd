package correlator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/internal/status"
)

// Names of the stages in metrics, logs and dead letters.
const (
	stageDetect    = "detect"
	stageCorrelate = "correlate"
)

// counts are the metrics of both stages. No label grows with tenants, rules or
// groups.
type counts struct {
	ctx      context.Context //nolint:containedctx // metrics outlive every claim and carry no deadline
	events   metric.Int64Counter
	hits     metric.Int64Counter
	found    metric.Int64Counter
	missing  metric.Int64Counter
	late     metric.Int64Counter
	copies   metric.Int64Counter
	signals  metric.Int64Counter
	alerts   metric.Int64Counter
	updates  metric.Int64Counter
	shadow   metric.Int64Counter
	poisoned metric.Int64Counter
	refused  metric.Int64Counter
	gaps     metric.Int64Counter
	over     metric.Int64Counter
	shed     metric.Int64Counter
	snaps    metric.Int64Counter
	restores metric.Int64Counter

	// board counts by tenant and rule, which no label does.
	board *status.Board
	clock func() time.Time

	mu     sync.Mutex
	gauges map[gauge]int64
}

// gauge is a figure of one partition.
type gauge struct {
	name      string
	stage     string
	partition int
}

const (
	gaugeLag     = "lag"
	gaugeGroups  = "groups"
	gaugeMark    = "watermark"
	gaugeRebuild = "rebuild"
	gaugeOutbox  = "outbox"
)

func newCounts(m metric.Meter, clock func() time.Time) (*counts, error) {
	c := &counts{ctx: context.Background(), gauges: make(map[gauge]int64), board: status.NewBoard(), clock: clock}
	var errs []error
	for _, def := range []struct {
		to         *metric.Int64Counter
		name, text string
	}{
		{&c.events, "stormbell_correlator_events_total", "Events that stage detect has read."},
		{&c.hits, "stormbell_correlator_matched_total", "Matches of detection rules."},
		{&c.found, "stormbell_correlator_detections_total", "Detections handed to correlations."},
		{&c.missing, "stormbell_correlator_ungrouped_total", "Matches not counted because a field of group-by or of the value is missing."},
		{&c.late, "stormbell_correlator_raised_total", "Events whose ingest time was raised to the watermark."},
		{&c.copies, "stormbell_correlator_copies_total", "Detections ignored because the watermark has passed them."},
		{&c.signals, "stormbell_correlator_signals_total", "Signals of correlations to others that refer to them."},
		{&c.alerts, "stormbell_correlator_alerts_total", "Alerts, repetitions under the same id included."},
		{&c.updates, "stormbell_correlator_updates_total", "What alerts came to at the close of their bucket, where their rule says `updates: true`; repetitions included."},
		{&c.shadow, "stormbell_correlator_shadow_alerts_total", "Alerts of rules in the shadow, which go to nobody."},
		{&c.poisoned, "stormbell_correlator_poison_total", "Records that could not be processed."},
		{&c.refused, "stormbell_correlator_refused_writes_total", "Writes that the store refused."},
		{&c.over, "stormbell_correlator_overflow_total", "Detections not counted because their correlation has as many groups as it may have."},
		{&c.shed, "stormbell_correlator_shed_total", "Records that groups have let go, or not taken, because they were full."},
		{&c.snaps, "stormbell_correlator_snapshots_total", "Snapshots of groups with a long memory."},
		{&c.restores, "stormbell_correlator_restored_total", "Groups that were restored from snapshots."},
		{&c.gaps, "stormbell_correlator_gaps_total", "Times that the log lacked records that had not been read."},
	} {
		var err error
		*def.to, err = m.Int64Counter(def.name, metric.WithDescription(def.text))
		errs = append(errs, err)
	}
	errs = append(errs, c.observe(m, clock))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("correlator metrics: %w", err)
	}
	return c, nil
}

func (c *counts) observe(m metric.Meter, clock func() time.Time) error {
	lag, err1 := m.Int64ObservableGauge("stormbell_correlator_lag_records", metric.WithDescription("Records not yet read, by stage and partition."))
	groups, err2 := m.Int64ObservableGauge("stormbell_correlator_open_groups", metric.WithDescription("Groups held decoded, by partition."))
	age, err3 := m.Float64ObservableGauge("stormbell_correlator_watermark_age_seconds", metric.WithUnit("s"), metric.WithDescription("How far the watermark lies behind the clock, by partition."))
	rebuild, err4 := m.Int64ObservableGauge("stormbell_correlator_rebuild_records", metric.WithDescription("Records that a rebuild still has to read, by partition."))
	outbox, err5 := m.Int64ObservableGauge("stormbell_correlator_outbox_entries", metric.WithDescription("Alerts, signals and dead letters in the store that the log has not acknowledged, by partition; at `correlator.outbox_entries` the partition waits."))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for g, v := range c.gauges {
			attrs := metric.WithAttributes(attribute.String("stage", g.stage), attribute.Int("partition", g.partition))
			switch g.name {
			case gaugeLag:
				o.ObserveInt64(lag, v, attrs)
			case gaugeGroups:
				o.ObserveInt64(groups, v, attrs)
			case gaugeMark:
				o.ObserveFloat64(age, clock().Sub(time.UnixMilli(v)).Seconds(), attrs)
			case gaugeRebuild:
				o.ObserveInt64(rebuild, v, attrs)
			case gaugeOutbox:
				o.ObserveInt64(outbox, v, attrs)
			}
		}
		return nil
	}, lag, groups, age, rebuild, outbox)
	return err //nolint:wrapcheck // the caller says what it is
}

func (c *counts) set(name, stage string, partition int, v int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gauges[gauge{name, stage, partition}] = v
}

// gone forgets the figures of a partition that has another owner.
func (c *counts) gone(stage string, partition int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{gaugeLag, gaugeGroups, gaugeMark, gaugeRebuild, gaugeOutbox} {
		delete(c.gauges, gauge{name, stage, partition})
	}
}

// stage adds up a stage's gauges over its partitions.
func (c *counts) stage(name string) *statusv1.Stage {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &statusv1.Stage{Name: name}
	for g, v := range c.gauges {
		switch {
		case g.stage != name:
		case g.name == gaugeLag:
			out.Partitions++
			out.Lag += v
		case g.name == gaugeMark && (out.WatermarkMs == 0 || v < out.WatermarkMs):
			out.WatermarkMs = v
		}
	}
	return out
}

func (c *counts) now() int64 { return c.clock().UnixMilli() }

func (c *counts) read(n int64)      { c.events.Add(c.ctx, n) }
func (c *counts) matched(n int64)   { c.hits.Add(c.ctx, n) }
func (c *counts) detected(n int64)  { c.found.Add(c.ctx, n) }
func (c *counts) ungrouped(n int64) { c.missing.Add(c.ctx, n) }
func (c *counts) raised(n int64)    { c.late.Add(c.ctx, n) }
func (c *counts) copied(n int64)    { c.copies.Add(c.ctx, n) }
func (c *counts) signaled(n int64)  { c.signals.Add(c.ctx, n) }
func (c *counts) overflow(n int64)  { c.over.Add(c.ctx, n) }
func (c *counts) shedding(n int64)  { c.shed.Add(c.ctx, n) }
func (c *counts) snapshot(n int64)  { c.snaps.Add(c.ctx, n) }
func (c *counts) restored(n int64)  { c.restores.Add(c.ctx, n) }
func (c *counts) fired(n int64)     { c.alerts.Add(c.ctx, n) }
func (c *counts) update(n int64)    { c.updates.Add(c.ctx, n) }

func (c *counts) poison(stage string) {
	c.poisoned.Add(c.ctx, 1, metric.WithAttributes(attribute.String("stage", stage)))
}

func (c *counts) gap(stage string) {
	c.gaps.Add(c.ctx, 1, metric.WithAttributes(attribute.String("stage", stage)))
}

func (c *counts) refuse(reason string) {
	c.refused.Add(c.ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (c *counts) behind(stage string, partition int, lag int64) {
	c.set(gaugeLag, stage, partition, max(lag, 0))
}

func (c *counts) groups(partition, n int) { c.set(gaugeGroups, stageCorrelate, partition, int64(n)) }

func (c *counts) watermark(partition int, w int64) {
	c.set(gaugeMark, stageCorrelate, partition, w)
}

func (c *counts) rebuild(partition int, left int64) {
	c.set(gaugeRebuild, stageCorrelate, partition, max(left, 0))
}

func (c *counts) outbox(partition int, open int64) {
	c.set(gaugeOutbox, stageCorrelate, partition, max(open, 0))
}
