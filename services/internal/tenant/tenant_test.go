package tenant_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/tenant"
)

func TestQuotaHoldsTheAverage(t *testing.T) {
	q, now := tenant.NewQuotas(), time.Unix(1_700_000_000, 0)
	quota := tenant.Quota{EventsPerSecond: 100}
	taken := 0
	for range 60 * 100 { // a minute of requests of ten events each 10 ms
		if q.Take("a", quota, 10, 0, now) == 0 {
			taken += 10
		}
		now = now.Add(10 * time.Millisecond)
	}
	require.InDelta(t, 100*60+100*10, taken, 20, "a minute and one burst")
}

func TestQuotaSaysWhenToComeBack(t *testing.T) {
	q, now := tenant.NewQuotas(), time.Unix(1_700_000_000, 0)
	quota := tenant.Quota{EventsPerSecond: 1000, BytesPerSecond: 10}
	require.Zero(t, q.Take("a", quota, 1, 150, now), "one request may overdraw")
	require.Equal(t, 5*time.Second, q.Wait("a", quota, now))
	require.Equal(t, 5*time.Second, q.Take("a", quota, 1, 1, now), "a refused request is not charged")
	require.Zero(t, q.Wait("b", quota, now), "tenants do not share")
	now = now.Add(-time.Hour)
	require.Equal(t, 5*time.Second, q.Wait("a", quota, now), "a step back of the clock refills nothing")
	now = now.Add(time.Hour + 5*time.Second)
	require.Positive(t, q.Wait("a", quota, now))
	require.Zero(t, q.Wait("a", quota, now.Add(time.Millisecond)))
}

func TestNoQuotaIsNoLimit(t *testing.T) {
	q := tenant.NewQuotas()
	for range 1000 {
		require.Zero(t, q.Take("a", tenant.Quota{}, 1<<30, 1<<30, time.Unix(0, 0)))
	}
}

func TestShare(t *testing.T) {
	share := tenant.Share("default", 24, 0)
	require.Equal(t, share, tenant.Share("default", 24, 0), "the same at each call")
	require.Len(t, tenant.Share("default", 24, 0), 12)
	require.Len(t, tenant.Share("default", 24, 3), 3)
	require.Equal(t, []int{0, 1, 2, 3}, tenant.Share("default", 4, 99))
	require.Equal(t, []int{0}, tenant.Share("default", 1, 0))

	load := make([]int, 24)
	for i := range 2400 {
		for _, p := range tenant.Share(fmt.Sprint("tenant-", i), 24, 6) {
			load[p]++
		}
	}
	for p, n := range load {
		require.InDelta(t, 600, n, 120, "partition %d", p)
	}
}
