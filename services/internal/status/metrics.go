package status

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// maxLabels bounds the tenants that metrics name; all others are "other".
const maxLabels = 100

// figure is one counter of tenants that is a metric too.
type figure struct {
	name, text string
	of         func(*Tenant) *Counter
}

func figures() []figure {
	return []figure{
		{"stormbell_tenant_events_total", "Accepted events.", func(t *Tenant) *Counter { return &t.Received }},
		{"stormbell_tenant_rejected_records_total", "Records that could not be taken.", func(t *Tenant) *Counter { return &t.Rejected }},
		{"stormbell_tenant_late_events_total", "Accepted events that were late.", func(t *Tenant) *Counter { return &t.Late }},
		{"stormbell_tenant_matched_total", "Matches of detection rules.", func(t *Tenant) *Counter { return &t.Matched }},
		{"stormbell_tenant_alerts_total", "Alerts, repetitions under the same id included.", func(t *Tenant) *Counter { return &t.Alerts }},
		{"stormbell_tenant_unsubscribed_alerts_total", "Alerts that no subscription matches.", func(t *Tenant) *Counter { return &t.Unheard }},
		{"stormbell_tenant_delivered_total", "Deliveries that a subscriber took.", func(t *Tenant) *Counter { return &t.Delivered }},
		{"stormbell_tenant_failed_attempts_total", "Webhook attempts that failed and are repeated.", func(t *Tenant) *Counter { return &t.Failed }},
		{"stormbell_tenant_parked_total", "Deliveries given up and left for replay.", func(t *Tenant) *Counter { return &t.Parked }},
		{"stormbell_tenant_dead_letters_total", "Records that went to dlq.", func(t *Tenant) *Counter { return &t.Dead }},
	}
}

// Observe makes metrics of what is counted by tenant. Of many tenants the first
// that were counted have a label of their own, and keep it.
func (b *Board) Observe(provider metric.MeterProvider) error {
	meter := provider.Meter("github.com/stormbell/stormbell/services/internal/status")
	all := figures()
	counters := make([]metric.Int64ObservableCounter, len(all))
	observed := make([]metric.Observable, len(all))
	for i, f := range all {
		c, err := meter.Int64ObservableCounter(f.name, metric.WithDescription(f.text))
		if err != nil {
			return fmt.Errorf("metric %s: %w", f.name, err)
		}
		counters[i], observed[i] = c, c
	}
	var mu sync.Mutex // readers may ask at one time
	named := make(map[string]bool)
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		tenants := b.tenants.load()
		mu.Lock()
		defer mu.Unlock()
		for _, id := range slices.Sorted(maps.Keys(tenants)) {
			if len(named) < maxLabels {
				named[id] = true
			}
		}
		for i, f := range all {
			other := f.of(&b.tenants.rest).n.Load()
			for id, t := range tenants {
				n := f.of(t).n.Load()
				if !named[id] {
					other += n
				} else if n > 0 {
					o.ObserveInt64(counters[i], n, metric.WithAttributes(attribute.String("tenant", id)))
				}
			}
			if other > 0 {
				o.ObserveInt64(counters[i], other, metric.WithAttributes(attribute.String("tenant", "other")))
			}
		}
		return nil
	}, observed...)
	if err != nil {
		return fmt.Errorf("metrics of tenants: %w", err)
	}
	return nil
}
