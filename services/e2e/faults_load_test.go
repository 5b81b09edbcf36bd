package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/tools/ledger"
)

// faultCopies compares the ids of a clean run with those of one in which every
// event comes twice and a tenth of them out of order.
func faultCopies(t *testing.T, r *rig.Runner) string {
	clean := prepare(t, r, rig.Options{})
	events := newLoad(clean.seed, times(5000, 200_000), times(20, 800), clean.began, decided()...).sent
	slices.SortFunc(events, func(a, b crashEvent) int { return cmp.Compare(a.id, b.id) })
	events = slices.CompactFunc(events, func(a, b crashEvent) bool { return a.id == b.id })
	slices.SortStableFunc(events, func(a, b crashEvent) int { return cmp.Compare(a.time, b.time) })
	for part := range slices.Chunk(events, batch) {
		require.NoError(t, clean.post(t.Context(), part))
	}
	first := clean.judge()

	random := rand.New(rand.NewPCG(clean.seed, 19))
	twice := slices.Concat(events, events)
	slices.SortStableFunc(twice, func(a, b crashEvent) int { return cmp.Compare(a.time, b.time) })
	for range len(twice) / 20 { // a swap moves two
		i := random.IntN(len(twice))
		j := min(max(i+random.IntN(2*farthest)-farthest, 0), len(twice)-1)
		twice[i], twice[j] = twice[j], twice[i]
	}
	unclean := prepare(t, r, rig.Options{})
	unclean.began = clean.began
	for part := range slices.Chunk(twice, batch) {
		require.NoError(t, unclean.post(t.Context(), part))
	}
	second := unclean.judge()
	require.Equal(t, clean.ids(), unclean.ids())
	return fmt.Sprintf("%d ids, the same; clean: %s; twice: %s", len(clean.ids()), first, second)
}

// faultHotGroup has one group be nine tenths of all that there is.
func faultHotGroup(t *testing.T, r *rig.Runner) string {
	o := prepare(t, r, rig.Options{})
	baseline := o.probeAll(times(5, 50))
	a := &author{r: rand.New(rand.NewPCG(o.seed, 23)), base: o.began.UnixMilli() - spread - fiveMin, n: 500_000_000}
	failure := map[string]any{"eventSource": "signin.amazonaws.com", "responseElements": map[string]any{"ConsoleLogin": "Failure"}}
	done := make(chan error, 1)
	ctx := within(t, time.Hour)
	go func() {
		for range times(50, 1000) {
			var events []crashEvent
			for i := range batch {
				user := "hot"
				if i%10 == 0 {
					user = fmt.Sprintf("cold-%d", a.next())
				}
				events = append(events, a.event(a.when(0), user, "ConsoleLogin", failure))
			}
			if err := o.post(ctx, events); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	meanwhile := probeUntil(t, o, done)
	if full() {
		require.Less(t, meanwhile[len(meanwhile)-1], 5*time.Second)
	}
	return fmt.Sprintf("other groups before %s, meanwhile %s, at most %s; %s",
		baseline, meanwhile, meanwhile[len(meanwhile)-1].Round(time.Millisecond), o.judge())
}

// probeUntil probes until what happens meanwhile is done.
func probeUntil(t *testing.T, o *ordeal, done <-chan error) latencies {
	t.Helper()
	var all latencies
	for {
		all = append(all, o.probe())
		select {
		case err := <-done:
			require.NoError(t, err)
			slices.Sort(all)
			return all
		default:
		}
	}
}

// faultCardinality has one tenant make groups without end, as fast as its quota
// lets it. It gets as many as it may have and is told so; its neighbour does not
// notice.
func faultCardinality(t *testing.T, r *rig.Runner) string {
	limit, attack, quota := times(2000, 100_000), times(10_000, 1_000_000), times(500, 2000) // events a second and gateway
	attacked := prepare(t, r, rig.Options{Settings: map[string]string{
		"correlator": fmt.Sprintf("groups: %d", limit),
		"gateway":    fmt.Sprintf("events_per_second: %d", quota),
	}})
	d := attacked.d.As(attacked.d.Tenant(t, "neighbour"))
	d.PushRules(t, crashRules)
	o := &ordeal{t: t, rules: crashRules, seed: attacked.seed, d: d, healthy: newReceiver(t, ledger.Behave{}), client: newClient(t, d), began: attacked.began}
	d.Subscribe(t, 0, o.healthy)
	baseline := o.probeAll(times(10, 1000)) // so that a percentile is not the worst of them

	done := make(chan error, 1)
	ctx := within(t, 2*time.Hour)
	go func() { done <- manyGroups(ctx, attacked, attack) }()
	meanwhile := probeUntil(t, o, done)
	require.NoError(t, attacked.healthy.Await(within(t, patience), func(got []ledger.Delivery) bool {
		return slices.ContainsFunc(got, func(one ledger.Delivery) bool { return bytes.Contains(one.Body, []byte(alert.OverflowRule)) })
	}))
	require.NoError(t, attacked.d.AwaitDrained(within(t, 2*patience)))
	groups, held := groupsIn(t, attacked.d.Redis.Addr())
	// A partition takes its share of the limit, rounded up, and counts for each
	// tenant; the probes have groups of their own.
	require.LessOrEqual(t, groups, limit+3*rig.Partitions+o.probes)
	require.Greater(t, groups, limit/2)
	resident := int64(0)
	for _, p := range attacked.of("correlator") {
		resident = max(resident, peakMemory(t, p.Pid()))
	}
	if full() {
		require.Less(t, resident, int64(1<<30))
		if now, before := meanwhile.p99(), baseline.p99(); now > 2*before {
			t.Errorf("the neighbour's p99 is %s, and was %s", now, before) // the rest is worth knowing
		}
	}
	return fmt.Sprintf("%d groups tried, quota %d/s, %d kept (limit %d); Redis %d MiB, correlator %d MiB at most; neighbour before %s, meanwhile %s",
		attack, quota, groups, limit, held>>20, resident>>20, baseline, meanwhile)
}

// manyGroups posts a failed login of each of n users.
func manyGroups(ctx context.Context, o *ordeal, n int) error {
	failure := map[string]any{"eventSource": "signin.amazonaws.com", "responseElements": map[string]any{"ConsoleLogin": "Failure"}}
	a := &author{r: rand.New(rand.NewPCG(o.seed, 29)), base: o.began.UnixMilli() - spread - fiveMin}
	for sent := 0; sent < n; sent += 10 * batch {
		var events []crashEvent
		for range 10 * batch {
			events = append(events, a.event(a.when(0), fmt.Sprintf("user-%d", a.next()), "ConsoleLogin", failure))
		}
		if err := o.post(ctx, events); err != nil {
			return err
		}
	}
	return nil
}

// groupsIn counts the groups in a Redis, and the bytes that it takes.
func groupsIn(t *testing.T, addr string) (groups int, held int64) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	for keys := c.Scan(t.Context(), 0, "*:c:*}:g:*", 10_000).Iterator(); keys.Next(t.Context()); {
		groups++
	}
	info, err := c.InfoMap(t.Context(), "memory").Result()
	require.NoError(t, err)
	held, err = strconv.ParseInt(info["Memory"]["used_memory"], 10, 64)
	require.NoError(t, err)
	return groups, held
}
