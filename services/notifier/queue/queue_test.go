package queue_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/notifier/queue"
	"github.com/stormbell/stormbell/services/notifier/queue/queuetest"
)

type memory struct{ *queue.Memory }

func (m memory) Lose() queuetest.Store {
	m.Flush()
	return m
}

func TestMemory(t *testing.T) {
	queuetest.Run(t, func(*testing.T) queuetest.Store { return memory{queue.NewMemory()} })
}

type onRedis struct {
	*queue.Redis
	t      *testing.T
	client *redis.Client
}

func (r onRedis) Lose() queuetest.Store {
	require.NoError(r.t, r.client.FlushAll(r.t.Context()).Err())
	return r
}

func TestRedis(t *testing.T) {
	client := redistest.Start(t, redistest.Options{}).Client(t)
	queuetest.Run(t, func(t *testing.T) queuetest.Store {
		require.NoError(t, client.FlushAll(t.Context()).Err())
		return onRedis{queue.NewRedis(client, "sb"), t, client}
	})
}

// leastACL is what the notifier needs of the list in docs/operations.md.
const leastACL = "~{sb:n:* resetchannels -@all +info +eval +evalsha +script|load +get +set +hmget +hset +hdel +hget +hgetall" +
	" +hincrby +hsetnx +unlink +exists +xadd +xtrim +xrange +zadd +zrem +zrange +zrangebyscore +multi +exec +ping +hello +auth +cluster"

// A user who may touch nothing but the notifier's keys, over TLS, is enough.
func TestRedisACL(t *testing.T) {
	server := redistest.Start(t, redistest.Options{TLS: true, User: "notifier", Password: "pw", ACL: leastACL + " +flushall"})
	client := server.Client(t)
	queuetest.Run(t, func(t *testing.T) queuetest.Store {
		require.NoError(t, client.FlushAll(t.Context()).Err())
		return onRedis{queue.NewRedis(client, "sb"), t, client}
	})
}
