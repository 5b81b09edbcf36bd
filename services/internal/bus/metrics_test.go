package bus_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// gauge returns the data points of an observable gauge by its labels.
func gauge(t *testing.T, r *sdk.ManualReader, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, r.Collect(t.Context(), &all))
	out := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if g, ok := m.Data.(metricdata.Gauge[int64]); ok && m.Name == name {
				for _, p := range g.DataPoints {
					out[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
				}
			}
		}
	}
	return out
}

func TestLagAndQueueAreReportedWhileTheyAreOurs(t *testing.T) {
	_, cfg := start(t, 1)
	r := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(r))
	c, err := bus.New(cfg, slog.New(slog.DiscardHandler), provider)
	require.NoError(t, err)
	defer c.Close()

	p := bus.NewProducer(c, bus.TopicEvents, bus.DefaultProducerConfig())
	result, release := held(t, p, 77)
	require.Equal(t, map[string]int64{"topic=events": 77}, gauge(t, r, "stormbell_bus_queue_bytes"))
	release()
	require.NoError(t, <-result)
	p.Close()
	require.Empty(t, gauge(t, r, "stormbell_bus_queue_bytes"))

	_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(2))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
		defer cancel()
		_, _, err := cl.Fetch(ctx, 0)
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"group=g,partition=0,topic=events": 0}, gauge(t, r, "stormbell_bus_lag_records"))
		return nil
	}))
	require.Empty(t, gauge(t, r, "stormbell_bus_lag_records"), "another member will report it")
}
