package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

func faultRedisKills(t *testing.T, r *rig.Runner) string {
	figure, _ := losses(t, r, times(1, 20), func(d *rig.Deployment, c *redis.Client, _ *rand.Rand) {
		await(t, c, "look")
		require.NoError(t, d.Redis.Kill())
		require.NoError(t, d.Redis.Restart(t.Context()))
	})
	return figure
}

func faultRedisTails(t *testing.T, r *rig.Runner) string {
	figure, rebuilt := losses(t, r, times(1, 20), func(d *rig.Deployment, c *redis.Client, random *rand.Rand) {
		await(t, c, "look")
		require.NoError(t, d.Redis.Kill())
		cut, err := d.Redis.CutTail(1 + random.IntN(30))
		require.NoError(t, err)
		require.Positive(t, cut)
		require.NoError(t, d.Redis.Restart(t.Context()))
	})
	requireRebuilt(t, rebuilt)
	return figure
}

func faultRedisFlushes(t *testing.T, r *rig.Runner) string {
	figure, rebuilt := losses(t, r, times(1, 10), func(_ *rig.Deployment, c *redis.Client, _ *rand.Rand) { await(t, c, "flush") })
	requireRebuilt(t, rebuilt)
	return figure
}

// requireRebuilt holds that something was folded again. The short form may lose what
// nothing had come of yet.
func requireRebuilt(t *testing.T, records int64) {
	t.Helper()
	if full() {
		require.Positive(t, records, "nothing was folded again: the run shows nothing")
	}
}

// losses loses what Redis holds n times under load, and once more webhooks have
// come before each. It returns too how many records correlators folded again.
func losses(t *testing.T, r *rig.Runner, n int, lose func(*rig.Deployment, *redis.Client, *rand.Rand)) (figure string, rebuilt int64) {
	t.Helper()
	o := begin(t, r, rig.Options{})
	// Deliveries to this one are pending whenever something is lost.
	slow := newReceiver(t, refuseFirst(4))
	o.d.Subscribe(t, 1, slow)
	c := redis.NewClient(&redis.Options{Addr: o.d.Redis.Addr()})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	o.await(times(0, 200_000)) // so that there is something to rebuild
	random := rand.New(rand.NewPCG(o.seed, 17))
	for range n {
		lose(o.d, c, random)
		o.progress()
	}
	figure = fmt.Sprintf("%d times; %s", n, o.judge())
	for _, p := range o.of("correlator") {
		_, records := rebuiltBy(t, p.LogFile())
		rebuilt += records
	}
	if rebuilt > 0 {
		figure += fmt.Sprintf("; %d records rebuilt", rebuilt)
	}
	return figure, rebuilt
}
