package state_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/correlator/statetest"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
)

// prefixOn is a prefix with which the keys of partition 3 lie on a server.
func prefixOn(t *testing.T, c *redistest.Cluster, s *redistest.Server) string {
	t.Helper()
	for i := 0; ; i++ {
		prefix := fmt.Sprintf("sb:%d", i)
		if c.Owner(t, "{"+prefix+":c:3}:meta") == s {
			return prefix
		}
	}
}

// TestCluster holds the store on each server of a cluster to what it does on one,
// whether all of them are named or one.
func TestCluster(t *testing.T) {
	opts := redistest.Options{}
	secured := redistest.Options{TLS: true, User: "stormbell", Password: "correct-horse", ACL: leastACL}
	for name, tc := range map[string]struct {
		opts redistest.Options
		addr int // of all
	}{"one address": {opts, 1}, "all addresses": {opts, 3}, "tls and acl": {secured, 1}} {
		t.Run(name, func(t *testing.T) {
			c := redistest.StartCluster(t, []redistest.Options{tc.opts, tc.opts, tc.opts})
			admins := make([]*redis.Client, len(c.Masters))
			for i, s := range c.Masters {
				admins[i] = s.Client(t)
			}
			flush := func() {
				for _, admin := range admins {
					require.NoError(t, admin.FlushAll(t.Context()).Err())
				}
			}
			for i, s := range c.Masters {
				t.Run(fmt.Sprint("server ", i), func(t *testing.T) {
					cfg := config(c.Masters[0], tc.opts)
					cfg.Addrs, cfg.Prefix = c.Addrs()[:tc.addr], prefixOn(t, c, s)
					r, err := state.OpenRedis(t.Context(), cfg, quiet())
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, r.Close()) })
					require.NoError(t, r.Ping(t.Context()))
					statetest.Run(t, func(t *testing.T) statetest.Fixture {
						t.Helper()
						flush()
						return statetest.Fixture{Store: r, Save: func() func() { return save(t, admins...) }, Flush: flush}
					})
				})
			}
		})
	}
}

func openCluster(t *testing.T, c *redistest.Cluster, prefix string) *state.Redis {
	t.Helper()
	cfg := config(c.Masters[0], redistest.Options{})
	cfg.Prefix = prefix
	r, err := state.OpenRedis(t.Context(), cfg, quiet())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func batchAt(offset int64, groups ...string) *state.Batch {
	b := &state.Batch{Token: "a", Prev: state.Nowhere, Next: state.Position{Offset: offset}}
	if offset > 1 {
		b.Prev = state.Position{Offset: offset - 1}
	}
	for _, g := range groups {
		b.Changes = append(b.Changes, state.Change{Key: g, Due: offset, Fields: []state.Field{{Name: "n", Value: fmt.Append(nil, offset)}}})
	}
	return b
}

// TestClusterMovesASlot: a commit to a slot that is between two servers is taken
// whole or not at all, and the store goes on where the slot has gone.
func TestClusterMovesASlot(t *testing.T) {
	opts := redistest.Options{}
	c := redistest.StartCluster(t, []redistest.Options{opts, opts})
	from, to := c.Masters[0], c.Masters[1]
	prefix := prefixOn(t, c, from)
	r := openCluster(t, c, prefix)
	_, err := r.Acquire(t.Context(), 3, "a")
	require.NoError(t, err)
	require.NoError(t, r.Commit(t.Context(), 3, batchAt(1, "g1", "g2")))
	key := "{" + prefix + ":c:3}:meta"
	c.Migrate(t, key, to, func(k string) bool { return strings.HasSuffix(k, "g:g1") || strings.HasSuffix(k, ":due") })
	require.ErrorContains(t, r.Commit(t.Context(), 3, batchAt(2, "g1", "g2", "g3")), "TRYAGAIN")
	c.Settle(t, key, to)
	require.Same(t, to, c.Owner(t, key))
	p, err := r.Acquire(t.Context(), 3, "a")
	require.NoError(t, err)
	require.Equal(t, state.Position{Offset: 1}, p.Applied)
	got, err := r.Load(t.Context(), 3, []string{"g1", "g2", "g3"})
	require.NoError(t, err)
	one := []state.Field{{Name: "n", Value: []byte("1")}}
	require.Equal(t, [][]state.Field{one, one, nil}, got)
	require.NoError(t, r.Commit(t.Context(), 3, batchAt(2, "g1", "g2", "g3")))
}

// TestClusterNodeDies and comes back: the partitions on the others go on, if the
// cluster is set so, and its own when it is there.
func TestClusterNodeDies(t *testing.T) {
	opts := redistest.Options{AppendOnly: true, Config: []string{"cluster-require-full-coverage no"}}
	c := redistest.StartCluster(t, []redistest.Options{opts, opts, opts})
	dead := c.Masters[2]
	mortal, other := openCluster(t, c, prefixOn(t, c, dead)), openCluster(t, c, prefixOn(t, c, c.Masters[1]))
	for _, r := range []*state.Redis{mortal, other} {
		_, err := r.Acquire(t.Context(), 3, "a")
		require.NoError(t, err)
		require.NoError(t, r.Commit(t.Context(), 3, batchAt(1, "g")))
	}
	dead.Kill(t)
	require.Error(t, mortal.Commit(t.Context(), 3, batchAt(2, "g")))
	require.ErrorContains(t, mortal.Ping(t.Context()), dead.Addr)
	require.NoError(t, other.Commit(t.Context(), 3, batchAt(2, "g")))
	_, err := state.OpenRedis(t.Context(), config(c.Masters[0], opts), quiet())
	require.ErrorIs(t, err, state.ErrNoAnswer)
	require.ErrorContains(t, err, dead.Addr)
	dead.Up(t)
	c.Await(t)
	require.NoError(t, mortal.Ping(t.Context()))
	require.NoError(t, mortal.Commit(t.Context(), 3, batchAt(2, "g")))
	require.NoError(t, other.Commit(t.Context(), 3, batchAt(3, "g")))
}

// TestClusterIsRefused where one server evicts, be it one to which a failover
// would lead.
func TestClusterIsRefused(t *testing.T) {
	evicts := redistest.Options{Config: []string{"maxmemory-policy allkeys-lru"}}
	t.Run("a master", func(t *testing.T) {
		c := redistest.StartCluster(t, []redistest.Options{{}, evicts})
		for _, addrs := range [][]string{c.Addrs()[:1], c.Addrs()} {
			cfg := config(c.Masters[0], evicts)
			cfg.Addrs = addrs
			_, err := state.OpenRedis(t.Context(), cfg, quiet())
			require.EqualError(t, err, "redis at "+c.Masters[1].Addr+` has maxmemory-policy "allkeys-lru", which drops open windows: set it to noeviction`)
		}
	})
	t.Run("a replica", func(t *testing.T) {
		c := redistest.StartCluster(t, []redistest.Options{{}, {}}, evicts)
		_, err := state.OpenRedis(t.Context(), config(c.Masters[0], evicts), quiet())
		require.ErrorContains(t, err, "redis at "+c.Replicas[0].Addr+` has maxmemory-policy`)
		c.Replicas[0].Kill(t)
		openCluster(t, c, "sb") // it is not waited for
	})
	t.Run("no cluster", func(t *testing.T) {
		one, two := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
		cfg := config(one, redistest.Options{})
		cfg.Addrs = []string{one.Addr, two.Addr}
		_, err := state.OpenRedis(t.Context(), cfg, quiet())
		require.ErrorContains(t, err, "is no cluster: name one server in redis.addrs")
		require.NotErrorIs(t, err, state.ErrNoAnswer)
	})
	t.Run("no slots", func(t *testing.T) {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		_, bus, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, l.Close())
		empty := redistest.Start(t, redistest.Options{Config: []string{"cluster-enabled yes", "cluster-port " + bus}})
		_, err = state.OpenRedis(t.Context(), config(empty, redistest.Options{}), quiet())
		require.ErrorIs(t, err, state.ErrNoAnswer)
		require.ErrorContains(t, err, "no server holds slots")
	})
}

// says is a server that answers INFO with a text, and nothing else.
func says(t *testing.T, info string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				lines := bufio.NewScanner(conn)
				for lines.Scan() { // of *COUNT, then $LENGTH and the word, for each
					var words int
					if _, err := fmt.Sscanf(lines.Text(), "*%d", &words); err != nil {
						return
					}
					var command string
					for i := range words {
						for range 2 {
							lines.Scan()
						}
						if i == 0 {
							command = strings.ToLower(lines.Text())
						}
					}
					answer := "-ERR unknown command\r\n"
					if command == "info" {
						answer = fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)
					}
					if _, err := conn.Write([]byte(answer)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestOldRedisIsRefused, by its own word.
func TestOldRedisIsRefused(t *testing.T) {
	for version, want := range map[string]string{
		"6.2.14": `is version "6.2.14": use 7 or newer`, "": `is version "": use 7 or newer`, "7.0.0": "", "8.2": "", "10.0.1": "",
	} {
		cfg := state.DefaultConfig()
		cfg.Addrs = []string{says(t, "# Server\r\nredis_version:"+version+"\r\nredis_mode:standalone\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n")}
		r, err := state.OpenRedis(t.Context(), cfg, quiet())
		if want != "" {
			require.EqualError(t, err, "redis at "+cfg.Addrs[0]+" "+want)
			continue
		}
		require.NoError(t, err, version)
		require.NoError(t, r.Close())
	}
}
