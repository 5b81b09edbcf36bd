package redis_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/tools/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client speaks just enough of the protocol to look at the server as its users do.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, s *redis.Server) *client {
	t.Helper()
	var conn net.Conn
	var err error
	if s.TLSConfig() != nil {
		conn, err = (&tls.Dialer{Config: s.TLSConfig()}).DialContext(t.Context(), "tcp", s.Addr())
	} else {
		conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
	}
	require.NoError(t, err)
	c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	t.Cleanup(func() { _ = conn.Close() })
	return c
}

func (c *client) do(args ...string) string {
	c.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	_, err := c.conn.Write([]byte(b.String()))
	require.NoError(c.t, err)
	line, err := c.r.ReadString('\n')
	require.NoError(c.t, err)
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "$") || line == "$-1" {
		return line
	}
	n, err := strconv.Atoi(line[1:])
	require.NoError(c.t, err)
	body := make([]byte, n+2)
	_, err = io.ReadFull(c.r, body)
	require.NoError(c.t, err)
	return string(body[:n])
}

func TestServerRefusesWritesInsteadOfEvicting(t *testing.T) {
	c := dial(t, redis.ForTest(t))
	require.Contains(t, c.do("INFO", "memory"), "maxmemory_policy:noeviction")
}

func TestSyncedWritesSurviveKill(t *testing.T) {
	s := redis.ForTest(t, func(o *redis.Options) { o.AppendOnly, o.Fsync = true, "always" })
	require.Equal(t, "+OK", dial(t, s).do("SET", "k", "v"))
	addr, pid := s.Addr(), s.Pid()
	require.NoError(t, s.Kill())
	require.Zero(t, s.Pid())
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, addr, s.Addr())
	require.Equal(t, "v", dial(t, s).do("GET", "k"))
}

func TestCutTailLosesTheLastWritesOnly(t *testing.T) {
	s := redis.ForTest(t, func(o *redis.Options) { o.AppendOnly, o.Fsync = true, "always" })
	c := dial(t, s)
	for i := range 100 {
		require.Equal(t, "+OK", c.do("SET", fmt.Sprintf("k%02d", i), "v"))
	}
	_, err := s.CutTail(10)
	require.ErrorContains(t, err, "kill it first")
	require.NoError(t, s.Kill())
	cut, err := s.CutTail(10)
	require.NoError(t, err)
	require.Positive(t, cut)
	require.NoError(t, s.Restart(t.Context()))
	c = dial(t, s)
	require.Equal(t, "v", c.do("GET", "k00"))
	require.Equal(t, "v", c.do("GET", "k80"))
	require.Equal(t, "$-1", c.do("GET", "k99"))
}

func TestCutTailRefusesNonsense(t *testing.T) {
	memory := redis.ForTest(t)
	require.NoError(t, memory.Kill())
	_, err := memory.CutTail(10)
	require.ErrorContains(t, err, "AppendOnly")
	for _, percent := range []int{-1, 0, 101} {
		_, err := memory.CutTail(percent)
		require.ErrorContains(t, err, "not between 1 and 100", "percent %d", percent)
	}
}

func TestTLSAndUser(t *testing.T) {
	s := redis.ForTest(t, func(o *redis.Options) { o.TLS, o.User, o.Password = true, "stormbell", "hunter2hunter2" })
	c := dial(t, s)
	require.Contains(t, c.do("PING"), "NOAUTH")
	require.Equal(t, "+OK", c.do("AUTH", s.User(), s.Password()))
	require.Equal(t, "+PONG", c.do("PING"))
	require.FileExists(t, s.CAFile())

	plain, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr())
	require.NoError(t, err)
	defer func() { _ = plain.Close() }()
	_, err = plain.Write([]byte("PING\r\n"))
	require.NoError(t, err)
	answer, _ := io.ReadAll(plain) // an alert or a reset, according to timing
	require.NotContains(t, string(answer), "PONG")
}

func TestStartReportsWhatTheServerSaid(t *testing.T) {
	redis.Require(t)
	_, err := redis.Start(t.Context(), redis.Options{Dir: t.TempDir(), AppendOnly: true, Fsync: "sometimes"})
	require.ErrorContains(t, err, "appendfsync")
}

func TestStopRemovesItsTemporaryDirectory(t *testing.T) {
	redis.Require(t)
	s, err := redis.Start(t.Context(), redis.Options{})
	require.NoError(t, err)
	pid := s.Pid()
	require.NoError(t, s.Stop())
	require.NoError(t, s.Stop())
	require.NoDirExists(t, s.Dir())
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

func TestUserNeedsPassword(t *testing.T) {
	redis.Require(t)
	_, err := redis.Start(t.Context(), redis.Options{Dir: t.TempDir(), User: "u"})
	require.ErrorContains(t, err, "set together")
}
