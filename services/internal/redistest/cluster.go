package redistest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Cluster is a Redis Cluster of servers on loopback.
type Cluster struct {
	// Masters share the slots evenly; replicas, if any, come behind them.
	Masters, Replicas []*Server
}

const slots = 16384

// StartCluster starts a master with each of the options, and a replica of the
// first one with each of replicas. All of them stop at the end of the test.
func StartCluster(tb testing.TB, masters []Options, replicas ...Options) *Cluster {
	tb.Helper()
	c := &Cluster{}
	for i, opts := range slices.Concat(masters, replicas) {
		s := prepare(tb, opts)
		_, s.bus, _ = net.SplitHostPort(freeAddr(tb))
		if i < len(masters) {
			c.Masters = append(c.Masters, s)
		} else {
			c.Replicas = append(c.Replicas, s)
		}
	}
	first := c.Masters[0]
	for _, s := range c.all() {
		if s != first && s.CAFile != "" { // one certificate for all: they trust one another
			for _, name := range []string{"cert.pem", "key.pem"} {
				text, err := os.ReadFile(filepath.Join(first.Dir, name))
				require.NoError(tb, err)
				require.NoError(tb, os.WriteFile(filepath.Join(s.Dir, name), text, 0o600))
			}
		}
		s.Up(tb)
		tb.Cleanup(func() { s.Kill(tb) })
	}
	for i, s := range c.all() {
		s.do(tb, "cluster", "set-config-epoch", i+1)
		if i < len(masters) {
			s.do(tb, "cluster", "addslotsrange", i*slots/len(masters), (i+1)*slots/len(masters)-1)
		}
		if s != first {
			host, port, err := net.SplitHostPort(s.Addr)
			require.NoError(tb, err)
			first.do(tb, "cluster", "meet", host, port, s.bus)
		}
	}
	c.await(tb, 0)
	for _, s := range c.Replicas {
		s.do(tb, "cluster", "replicate", first.id(tb))
	}
	c.Await(tb)
	return c
}

func (c *Cluster) all() []*Server { return slices.Concat(c.Masters, c.Replicas) }

// Addrs are the addresses of the masters.
func (c *Cluster) Addrs() (addrs []string) {
	for _, s := range c.Masters {
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// Await waits until all servers know one another and serve all slots.
func (c *Cluster) Await(tb testing.TB) {
	tb.Helper()
	c.await(tb, len(c.Replicas))
}

func (c *Cluster) await(tb testing.TB, replicas int) {
	tb.Helper()
	for _, s := range c.all() {
		s.await(tb, func(ctx context.Context, client *redis.Client) bool {
			info, _ := client.ClusterInfo(ctx).Result()
			nodes, _ := client.ClusterNodes(ctx).Result()
			ranges, _ := client.ClusterSlots(ctx).Result() //nolint:staticcheck // what clients go by
			listed := 0                                    // with a replica that has been told something
			for _, r := range ranges {
				listed += len(r.Nodes)
			}
			return listed >= len(c.Masters)+replicas && strings.Contains(info, "cluster_state:ok") && strings.Count(nodes, " connected") == len(c.all()) &&
				!strings.Contains(nodes, "fail") && !strings.Contains(nodes, "handshake") && strings.Count(nodes, "slave ") == replicas
		})
	}
}

// Owner is the master that has a key's slot.
func (c *Cluster) Owner(tb testing.TB, key string) *Server {
	tb.Helper()
	client := c.Masters[0].Client(tb)
	slot := c.slot(tb, key)
	ranges, err := client.ClusterSlots(tb.Context()).Result() //nolint:staticcheck // what clients go by
	require.NoError(tb, err)
	for _, r := range ranges {
		if r.Start <= slot && slot <= r.End {
			i := slices.IndexFunc(c.Masters, func(s *Server) bool { return s.Addr == r.Nodes[0].Addr })
			require.GreaterOrEqual(tb, i, 0)
			return c.Masters[i]
		}
	}
	tb.Fatalf("slot %d has no owner", slot)
	return nil
}

func (c *Cluster) slot(tb testing.TB, key string) int {
	tb.Helper()
	slot, err := c.Masters[0].Client(tb).ClusterKeySlot(tb.Context(), key).Result()
	require.NoError(tb, err)
	return int(slot)
}

// Migrate begins to move the slot of a key to another master, with those keys
// that goes picks. The slot is between the two until Settle.
func (c *Cluster) Migrate(tb testing.TB, key string, to *Server, goes func(key string) bool) {
	tb.Helper()
	from, slot := c.Owner(tb, key), c.slot(tb, key)
	to.do(tb, "cluster", "setslot", slot, "importing", from.id(tb))
	from.do(tb, "cluster", "setslot", slot, "migrating", to.id(tb))
	c.move(tb, slot, from, to, goes)
}

// Settle ends what Migrate has begun.
func (c *Cluster) Settle(tb testing.TB, key string, to *Server) {
	tb.Helper()
	from, slot := c.Owner(tb, key), c.slot(tb, key)
	c.move(tb, slot, from, to, func(string) bool { return true })
	for _, s := range append([]*Server{to, from}, c.Masters...) {
		s.do(tb, "cluster", "setslot", slot, "node", to.id(tb))
	}
}

func (c *Cluster) move(tb testing.TB, slot int, from, to *Server, goes func(key string) bool) {
	tb.Helper()
	host, port, err := net.SplitHostPort(to.Addr)
	require.NoError(tb, err)
	keys, err := from.Client(tb).ClusterGetKeysInSlot(tb.Context(), slot, 1<<20).Result()
	require.NoError(tb, err)
	for _, k := range keys {
		if goes(k) {
			from.do(tb, "migrate", host, port, k, 0, 5000)
		}
	}
}

func (s *Server) id(tb testing.TB) string {
	tb.Helper()
	id, err := s.Client(tb).ClusterMyID(tb.Context()).Result()
	require.NoError(tb, err)
	return id
}

func (s *Server) do(tb testing.TB, args ...any) {
	tb.Helper()
	require.NoError(tb, s.Client(tb).Do(tb.Context(), args...).Err(), "%v", args)
}

func (s *Server) await(tb testing.TB, ready func(context.Context, *redis.Client) bool) {
	tb.Helper()
	client := s.Client(tb)
	deadline := time.Now().Add(30 * time.Second)
	for !ready(tb.Context(), client) {
		if time.Now().After(deadline) {
			tb.Fatalf("the cluster does not form at %s:\n%s\n%s", s.Addr, client.ClusterNodes(tb.Context()), s.output)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
