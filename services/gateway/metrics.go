package gateway

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// maxSourceLabels bounds the sources that have counters of their own; further
// ones count as "other".
const maxSourceLabels = 50

type metrics struct {
	requests        metric.Int64Counter
	requestDuration metric.Float64Histogram
	events          metric.Int64Counter
	bytes           metric.Int64Counter
	late            metric.Int64Counter
	rejected        metric.Int64Counter
	produceDuration metric.Float64Histogram
	produceErrors   metric.Int64Counter
	ticks           metric.Int64Counter

	sources map[string]metric.MeasurementOption
	other   metric.MeasurementOption
}

func newMetrics(provider metric.MeterProvider, all sources, queued func() int64) (*metrics, error) {
	meter := provider.Meter("github.com/stormbell/stormbell/services/gateway")
	m := &metrics{sources: make(map[string]metric.MeasurementOption), other: sourceLabel("other")}
	names := all.names()
	for _, name := range names[:min(len(names), maxSourceLabels)] {
		m.sources[name] = sourceLabel(name)
	}
	m.sources[""] = sourceLabel("detected")
	for _, c := range []struct {
		counter    *metric.Int64Counter
		name, what string
	}{
		{&m.requests, "stormbell_gateway_requests_total", "Requests by route and status."},
		{&m.events, "stormbell_gateway_events_total", "Accepted events by source."},
		{&m.bytes, "stormbell_gateway_event_bytes_total", "Bytes of accepted events, decompressed."},
		{&m.late, "stormbell_gateway_late_events_total", "Accepted events that were late."},
		{&m.rejected, "stormbell_gateway_rejected_records_total", "Records that could not be taken, by code."},
		{&m.produceErrors, "stormbell_gateway_produce_errors_total", "Requests of which some events were not acknowledged, by reason."},
		{&m.ticks, "stormbell_gateway_ticks_total", "Ticks appended to silent partitions."},
	} {
		var err error
		if *c.counter, err = meter.Int64Counter(c.name, metric.WithDescription(c.what)); err != nil {
			return nil, fmt.Errorf("metric %s: %w", c.name, err)
		}
	}
	for _, h := range []struct {
		histogram  *metric.Float64Histogram
		name, what string
	}{
		{&m.requestDuration, "stormbell_gateway_request_duration_seconds", "Time from the request's header to the end of the answer."},
		{&m.produceDuration, "stormbell_gateway_produce_duration_seconds", "Time from the hand-over of a request's events to the last acknowledgement."},
	} {
		var err error
		*h.histogram, err = meter.Float64Histogram(h.name, metric.WithDescription(h.what), metric.WithUnit("s"),
			metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", h.name, err)
		}
	}
	_, err := meter.Int64ObservableGauge("stormbell_gateway_produce_queue_bytes",
		metric.WithDescription("Bytes of events that wait for the broker or are under way to it."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(queued())
			return nil
		}))
	if err != nil {
		return nil, fmt.Errorf("metric stormbell_gateway_produce_queue_bytes: %w", err)
	}
	return m, nil
}

func sourceLabel(name string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("source", name)))
}

func (m *metrics) request(ctx context.Context, route string, status int, took time.Duration) {
	m.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("route", route), attribute.String("status", strconv.Itoa(status))))
	m.requestDuration.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("route", route)))
}

func (m *metrics) accept(ctx context.Context, b *batch, late int) {
	label, ok := m.sources[b.source.name]
	if !ok {
		label = m.other
	}
	m.events.Add(ctx, int64(len(b.events)), label)
	m.bytes.Add(ctx, int64(b.rawBytes), label)
	if late > 0 {
		m.late.Add(ctx, int64(late), label)
	}
}

func (m *metrics) reject(ctx context.Context, b *batch) {
	if b.rejections() == 0 {
		return
	}
	counts := make(map[string]int64)
	for _, r := range b.rejected {
		counts[r.Code]++
	}
	if b.rejectedMore > 0 {
		counts["unlisted"] += int64(b.rejectedMore)
	}
	for code, n := range counts {
		m.rejected.Add(ctx, n, metric.WithAttributes(attribute.String("code", code)))
	}
}

func (m *metrics) produceFailed(ctx context.Context, reason string) {
	m.produceErrors.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}
