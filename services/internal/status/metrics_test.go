package status_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/stormbell/stormbell/services/internal/status"
)

// TestObserve counts for more tenants than metrics name: their sum is right,
// labels stay bounded, and who had one keeps it.
func TestObserve(t *testing.T) {
	const tenants = 1100 // more than a board keeps apart, too
	reader := sdkmetric.NewManualReader()
	b := status.NewBoard()
	require.NoError(t, b.Observe(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	require.Empty(t, observed(t, reader, "stormbell_tenant_events_total"))

	b.Tenant("zz").Received.Add(7, 1)
	require.Equal(t, map[string]int64{"zz": 7}, observed(t, reader, "stormbell_tenant_events_total"))
	for i := range tenants {
		b.Tenant(fmt.Sprintf("t%04d", i)).Received.Add(2, 1)
	}
	b.Tenant("zz").Delivered.Add(1, 1)
	for range 2 { // the second time names the same
		got := observed(t, reader, "stormbell_tenant_events_total")
		require.Len(t, got, 101)
		require.EqualValues(t, 7, got["zz"], "it was there first")
		sum := int64(0)
		for _, n := range got {
			sum += n
		}
		require.EqualValues(t, 7+2*tenants, sum)
	}
	require.Equal(t, map[string]int64{"zz": 1}, observed(t, reader, "stormbell_tenant_delivered_total"))
}

func observed(t *testing.T, reader *sdkmetric.ManualReader, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	found := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				tenant, ok := p.Attributes.Value("tenant")
				require.True(t, ok)
				found[tenant.AsString()] = p.Value
			}
		}
	}
	return found
}
