package e2e_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/oracle"
)

// busy is true, within one atomic call, where at a time windows are open, an
// outbox holds something and deliveries are pending; with ARGV[1] it then
// empties everything.
const busy = `
local function some(pattern)
	for _, key in ipairs(redis.call('KEYS', pattern)) do
		local kind = redis.call('TYPE', key).ok
		local size = ({stream = 'XLEN', hash = 'HLEN', zset = 'ZCARD', list = 'LLEN'})[kind]
		if size and redis.call(size, key) > 0 then return true end
	end
	return false
end
if some('{*:c:*}:g:*') and some('{*:c:*}:outbox') and some('{*:n:*}:tasks') then
	if ARGV[1] == 'flush' then redis.call('FLUSHALL') end
	return 1
end
return 0`

func testFlushAll(t *testing.T, r *rig.Runner) {
	lossOfRedis(t, r, func(d *rig.Deployment, c *redis.Client) { await(t, c, "flush") })
}

func testCutTail(t *testing.T, r *rig.Runner) {
	lossOfRedis(t, r, func(d *rig.Deployment, c *redis.Client) {
		await(t, c, "look")
		require.NoError(t, d.Redis.Kill())
		cut, err := d.Redis.CutTail(30)
		require.NoError(t, err)
		require.Positive(t, cut)
		require.NoError(t, d.Redis.Restart(t.Context()))
		t.Logf("%d bytes were cut off", cut)
	})
}

// await runs the script until it finds all of what it looks for.
func await(t *testing.T, c *redis.Client, what string) {
	t.Helper()
	script := redis.NewScript(busy)
	require.NoError(t, rig.Every(within(t, patience), "Redis is busy", func() bool {
		n, err := script.Run(t.Context(), c, nil, what).Int()
		require.NoError(t, err)
		return n == 1
	}))
}

// lossOfRedis loses what Redis holds in the middle of a load. Nothing may be
// missing afterwards, and nothing may be there that would not have been.
func lossOfRedis(t *testing.T, r *rig.Runner, lose func(*rig.Deployment, *redis.Client)) {
	t.Helper()
	if r.Kind != rig.Cluster {
		t.Skip("the embedded default has no Redis")
	}
	d := r.Start(t, rig.Options{Rules: "testdata/rules/crash"})
	// One endpoint refuses some alerts at first, so that deliveries are pending.
	// It refuses a quarter only: one that fails too often is left alone for longer.
	healthy, slow := newReceiver(t, ledger.Behave{}), newReceiver(t, refuseFirst(4))
	d.Subscribe(t, 0, healthy)
	d.Subscribe(t, 1, slow)
	now := time.Now()
	l := newLoad(seedOfCrash(t), 10_000, 40, now)
	client := newClient(t, d)
	c := redis.NewClient(&redis.Options{Addr: d.Redis.Addr()})
	t.Cleanup(func() { require.NoError(t, c.Close()) })

	progress := new(progress)
	g, ctx := errgroup.WithContext(within(t, 2*patience))
	g.Go(func() error { return progress.send(ctx, client, l) })
	lose(d, c)
	require.NoError(t, g.Wait())

	rules, settings := rulesOf(t, "testdata/rules/crash")
	want, err := oracle.Alerts(rules, l.records(now), settings)
	require.NoError(t, err)
	l.requireSound(t, want)
	enough := func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) >= len(want) }
	for _, receiver := range []*ledger.Receiver{healthy, slow} {
		if err := receiver.Await(within(t, patience), enough); err != nil {
			t.Log(err) // the judge says which are lost
		}
	}

	// Keys and subscriptions are none of Redis's business.
	var list struct{ Webhooks []struct{ ID string } }
	for gateway := range d.URLs {
		d.JSON(t, gateway, http.MethodGet, "/v1/webhooks", nil, http.StatusOK, &list)
		require.Len(t, list.Webhooks, 2)
		d.Post(t, gateway, []byte(`{"action":"none"}`))
	}
	require.NoError(t, d.AwaitDrained(within(t, patience)))
	d.Stop(t)
	topics := d.Records(t, bus.TopicEvents, bus.TopicAlerts, bus.TopicDLQ)
	require.Empty(t, topics[bus.TopicDLQ])
	for _, receiver := range []*ledger.Receiver{healthy, slow} {
		v := &verdict{
			rules: rules, settings: settings, told: client.Accepted(), events: accepted(t, topics[bus.TopicEvents]),
			alerts: alertIDs(t, topics[bus.TopicAlerts]), deliveries: receiver.Deliveries(),
		}
		found, err := v.judge()
		require.NoError(t, err)
		require.Empty(t, found)
	}
	t.Logf("%d alerts, %d records in alerts, %d and %d requests", len(want), len(topics[bus.TopicAlerts]), len(healthy.Deliveries()), len(slow.Deliveries()))
}

// refuseFirst answers the first delivery of every nth alert with 500.
func refuseFirst(every int) ledger.Behave {
	var mu sync.Mutex
	seen := map[string]bool{}
	return ledger.Behave{Answer: func(_ int, d *ledger.Delivery) int {
		mu.Lock()
		defer mu.Unlock()
		first := !seen[d.WebhookID]
		seen[d.WebhookID] = true
		if first && len(seen)%every == 0 {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	}}
}
