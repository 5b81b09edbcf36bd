package queue_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/notifier/queue"
	"github.com/stormbell/stormbell/services/notifier/queue/queuetest"
)

type onCluster struct {
	*queue.Redis
	t       *testing.T
	servers []*redis.Client
}

func (r onCluster) Lose() queuetest.Store {
	for _, s := range r.servers {
		require.NoError(r.t, s.FlushAll(r.t.Context()).Err())
	}
	return r
}

func openCluster(t *testing.T, c *redistest.Cluster, opts redistest.Options, prefix string) onCluster {
	t.Helper()
	cfg := state.DefaultConfig()
	cfg.Addrs, cfg.Prefix = c.Addrs()[:1], prefix
	cfg.Username, cfg.Password, cfg.TLS, cfg.CAFile = opts.User, opts.Password, opts.TLS, c.Masters[0].CAFile
	r, err := queue.OpenRedis(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	on := onCluster{Redis: r, t: t}
	for _, s := range c.Masters {
		on.servers = append(on.servers, s.Client(t))
	}
	return on
}

// TestCluster holds the queue on each server of a cluster to what it does on one,
// of which it is told one address.
func TestCluster(t *testing.T) {
	secured := redistest.Options{TLS: true, User: "notifier", Password: "pw", ACL: leastACL}
	for name, opts := range map[string]redistest.Options{"plain": {}, "tls and acl": secured} {
		t.Run(name, func(t *testing.T) {
			c := redistest.StartCluster(t, []redistest.Options{opts, opts, opts})
			prefixes := make(map[*redistest.Server]string)
			for i := 0; len(prefixes) < len(c.Masters); i++ {
				prefix := "sb:n:" + fmt.Sprint(i)
				prefixes[c.Owner(t, "{"+prefix+":n:3}:meta")] = prefix
			}
			for _, prefix := range prefixes {
				r := openCluster(t, c, opts, prefix)
				require.NoError(t, r.Ping(t.Context()))
				queuetest.Run(t, func(t *testing.T) queuetest.Store {
					r.t = t
					return r.Lose()
				})
			}
		})
	}
}

// TestClusterMovesASlot: a call that finds its keys on two servers changes
// nothing, also where only a queue is not there.
func TestClusterMovesASlot(t *testing.T) {
	opts := redistest.Options{}
	c := redistest.StartCluster(t, []redistest.Options{opts, opts})
	r := openCluster(t, c, opts, "sb")
	const key, part = "{sb:n:3}:meta", 3
	to := c.Masters[0]
	if c.Owner(t, key) == to {
		to = c.Masters[1]
	}
	batch := func(prev, next int64, alerts ...string) *queue.Batch {
		b := &queue.Batch{Token: "me", Prev: prev, Next: next}
		for _, a := range alerts {
			b.Messages = append(b.Messages, queue.Message{Alert: a, Body: []byte(a), WrittenMS: 1, Tasks: []queue.Task{{Endpoint: "x", DueMS: 1, State: []byte("s")}}})
		}
		return b
	}
	claim := func(fence string) (alerts []string) {
		got, err := r.Claim(t.Context(), part, &queue.Request{Token: "me", Applied: 1, NowMS: 100, LeaseMS: 1000, Fence: fence, Limit: 1, Default: 1})
		require.NoError(t, err)
		for _, task := range got.Tasks {
			alerts = append(alerts, task.Alert)
		}
		return alerts
	}
	_, err := r.Acquire(t.Context(), part, "me")
	require.NoError(t, err)
	require.NoError(t, r.Create(t.Context(), part, batch(queue.Nowhere, 1, "a", "b")))
	require.Equal(t, []string{"a"}, claim("f"))
	done := &queue.Settlement{Applied: 1, Endpoint: "x", Alert: "a", Fence: "f", Record: []byte("r")}
	other := *done
	require.NoError(t, r.Settle(t.Context(), part, &other))
	require.Equal(t, []string{"b"}, claim("g"))
	done.Alert, done.Fence = "b", "g"

	c.Migrate(t, key, to, func(k string) bool { return strings.HasSuffix(k, "q:x") })
	require.ErrorContains(t, r.Create(t.Context(), part, batch(1, 2, "c")), "TRYAGAIN")
	require.ErrorContains(t, r.Settle(t.Context(), part, done), "TRYAGAIN")
	c.Settle(t, key, to)

	require.NoError(t, r.Create(t.Context(), part, batch(1, 2, "c")))
	require.NoError(t, r.Settle(t.Context(), part, done))
	require.Equal(t, []string{"c"}, claim("h"))
	entries, err := r.Outbox(t.Context(), part, 10)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}
