package state_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/correlator/statetest"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
)

func TestMemory(t *testing.T) {
	statetest.Run(t, func(*testing.T) statetest.Fixture {
		m := state.NewMemory()
		return statetest.Fixture{Store: m, Save: m.Save, Flush: m.Flush}
	})
}

// leastACL is all that the service needs.
const leastACL = "~{sb:* resetchannels -@all +info +eval +evalsha +script|load +get +set +hmget +hset +hdel +hget +hgetall" +
	" +unlink +exists +xadd +xtrim +xrange +zadd +zrem +zrange +zrangebyscore +ping +hello +auth +cluster"

func TestRedis(t *testing.T) {
	for name, opts := range map[string]redistest.Options{
		"plain":       {},
		"tls and acl": {TLS: true, User: "stormbell", Password: "correct-horse", ACL: leastACL},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, opts)
			admin := server.Client(t)
			r, err := state.OpenRedis(t.Context(), config(server, opts), quiet())
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, r.Close()) })
			statetest.Run(t, func(t *testing.T) statetest.Fixture {
				t.Helper()
				flush := func() { require.NoError(t, admin.FlushAll(t.Context()).Err()) }
				flush()
				return statetest.Fixture{Store: r, Save: func() func() { return save(t, admin) }, Flush: flush}
			})
		})
	}
}

func config(server *redistest.Server, opts redistest.Options) state.Config {
	cfg := state.DefaultConfig()
	cfg.Addrs = []string{server.Addr}
	cfg.Username, cfg.Password = opts.User, opts.Password
	cfg.TLS, cfg.CAFile = opts.TLS, server.CAFile
	return cfg
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// save dumps every key of servers, and returns what brings exactly those back.
func save(t *testing.T, servers ...*redis.Client) func() {
	t.Helper()
	dumps := make([]map[string]string, len(servers))
	for i, c := range servers {
		dumps[i] = make(map[string]string)
		names, err := c.Keys(t.Context(), "*").Result()
		require.NoError(t, err)
		for _, k := range names {
			dumps[i][k], err = c.Dump(t.Context(), k).Result()
			require.NoError(t, err)
		}
	}
	return func() {
		for i, c := range servers {
			require.NoError(t, c.FlushAll(t.Context()).Err())
			for k, v := range dumps[i] {
				require.NoError(t, c.Restore(t.Context(), k, 0, v).Err())
			}
		}
	}
}

func TestOpenRedisRefuses(t *testing.T) {
	acl := redistest.Options{User: "stormbell", Password: "correct-horse"}
	locked := redistest.Start(t, acl)
	evicting := redistest.Start(t, redistest.Options{Config: []string{"maxmemory-policy allkeys-lru"}})
	for name, c := range map[string]struct {
		cfg  state.Config
		want string
	}{
		"wrong password": {
			config(locked, redistest.Options{User: "stormbell", Password: "wrong-secret"}),
			`refuses the credentials of user "stormbell": check redis.username and redis.password`,
		},
		"no password":  {config(locked, redistest.Options{}), `refuses the credentials of user "default"`},
		"evicts":       {config(evicting, redistest.Options{}), "set it to noeviction"},
		"not there":    {state.Config{Addrs: []string{"127.0.0.1:1"}, Timeout: time.Second, Prefix: "sb"}, "check redis.addrs"},
		"no address":   {state.Config{Timeout: time.Second, Prefix: "sb"}, "set redis.addrs"},
		"braces":       {state.Config{Addrs: []string{"x:1"}, Timeout: time.Second, Prefix: "{sb}"}, "without braces"},
		"ca, no tls":   {state.Config{Addrs: []string{"x:1"}, Timeout: time.Second, Prefix: "sb", CAFile: "ca.pem"}, "set tls"},
		"ca not there": {state.Config{Addrs: []string{"x:1"}, Timeout: time.Second, Prefix: "sb", CAFile: "none.pem", TLS: true}, "redis.ca_file"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := state.OpenRedis(ctx, c.cfg, quiet())
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "wrong-secret")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// TestClientSpeaksThroughTheLog: what the client says of its connections is a line of
// the log like any other.
func TestClientSpeaksThroughTheLog(t *testing.T) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	cfg := state.Config{Addrs: []string{"127.0.0.1:1"}, Timeout: time.Second, Prefix: "sb"}
	_, err = state.OpenRedis(t.Context(), cfg, slog.New(slog.NewJSONHandler(log, nil)))
	require.ErrorIs(t, err, state.ErrNoAnswer)
	said, err := os.ReadFile(log.Name())
	require.NoError(t, err)
	require.Contains(t, string(said), `"msg":"redis client"`)
}

// droppedReplies is a network on which the reply to a call is lost after the
// server has executed it.
type droppedReplies struct {
	armed   atomic.Bool
	dropped atomic.Int64
}

func (d *droppedReplies) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &droppingConn{Conn: c, net: d}, nil
}

type droppingConn struct {
	net.Conn
	net *droppedReplies
}

func (c *droppingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.net.armed.CompareAndSwap(true, false) {
		c.net.dropped.Add(1)
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

func TestRedisReplyLostAfterExecution(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	network := new(droppedReplies)
	r := state.NewRedis(redis.NewClient(&redis.Options{
		Addr: server.Addr, Dialer: network.dial, MaxRetries: 3, ContextTimeoutEnabled: true, DisableIdentity: true, Protocol: 2,
	}), "sb")
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	_, err := r.Acquire(t.Context(), 0, "a")
	require.NoError(t, err)
	prev := state.Nowhere
	const rounds = 100
	for i := range int64(rounds) {
		next := state.Position{Offset: i + 1}
		network.armed.Store(true)
		require.NoError(t, r.Commit(t.Context(), 0, &state.Batch{
			Token: "a", Prev: prev, Next: next, Outbox: []state.Entry{{Seq: i + 1, Offset: i, Body: []byte("x")}},
			Changes: []state.Change{{Key: "g", Due: i, Fields: []state.Field{{Name: "n", Value: fmt.Append(nil, i)}}}},
		}))
		prev = next
	}
	require.Equal(t, int64(rounds), network.dropped.Load())
	entries, err := r.Outbox(t.Context(), 0, 0, 2*rounds)
	require.NoError(t, err)
	require.Len(t, entries, rounds)
}

func TestRedisForgetsScripts(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r, err := state.OpenRedis(t.Context(), config(server, redistest.Options{}), quiet())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	_, err = r.Acquire(t.Context(), 0, "a")
	require.NoError(t, err)
	prev := state.Nowhere
	for i := range int64(3) {
		require.NoError(t, server.Client(t).ScriptFlush(t.Context()).Err())
		next := state.Position{Offset: i + 1}
		require.NoError(t, r.Commit(t.Context(), 0, &state.Batch{Token: "a", Prev: prev, Next: next}))
		prev = next
	}
}

func TestRedisSurvivesKill(t *testing.T) {
	opts := redistest.Options{AppendOnly: true}
	server := redistest.Start(t, opts)
	r, err := state.OpenRedis(t.Context(), config(server, opts), quiet())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	_, err = r.Acquire(t.Context(), 7, "a")
	require.NoError(t, err)
	b := &state.Batch{
		Token: "a", Prev: state.Nowhere, Next: state.Position{Offset: 4}, Outbox: []state.Entry{{Seq: 1, Offset: 2, Body: []byte("x")}},
		Changes: []state.Change{{Key: "g", Due: 9, Fields: []state.Field{{Name: "n", Value: []byte("1")}}}},
	}
	require.NoError(t, r.Commit(t.Context(), 7, b))
	server.Kill(t)
	server.Up(t)
	require.NoError(t, r.Commit(t.Context(), 7, b), "the token survives too")
	p, err := r.Acquire(t.Context(), 7, "b")
	require.NoError(t, err)
	require.Equal(t, state.Partition{Applied: state.Position{Offset: 4}, Meta: []byte{}, Seq: 1, First: 1, Due: 9}, p)
}
