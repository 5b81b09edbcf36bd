package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

// A lossyProxy stands between services and a Redis. Armed, it lets one script
// run to its end, keeps the reply to itself and cuts the connection.
type lossyProxy struct {
	listener net.Listener
	to       string
	of       [2]string // what scripts name whose replies are lost, in turn
	armed    atomic.Int64
	dropped  atomic.Int64
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool // nil once closed
}

func newLossyProxy(t *testing.T) *lossyProxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &lossyProxy{listener: listener, of: [2]string{":c:", ":n:"}, open: map[net.Conn]bool{}}
	t.Cleanup(func() {
		_ = listener.Close() // ends serve
		p.mu.Lock()
		for c := range p.open {
			_ = c.Close() // ends its copies
		}
		p.open = nil
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *lossyProxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.to)
		if err != nil {
			_ = client.Close() // as Redis would that is not there
			continue
		}
		if !p.hold(client, server) {
			return
		}
		p.wg.Go(func() { p.link(client, server) })
	}
}

// hold notes connections that are to be closed at the end.
func (p *lossyProxy) hold(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.open == nil {
			_ = c.Close() // the test has ended
			continue
		}
		p.open[c] = true
	}
	return p.open != nil
}

// link copies both ways until one side ends. A connection of go-redis carries
// one command, or one pipeline, at a time: what comes back after a script is
// its reply.
func (p *lossyProxy) link(client, server net.Conn) {
	var doomed atomic.Bool
	closeBoth := func() {
		_, _ = client.Close(), server.Close() // either may be closed already
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, client)
		delete(p.open, server)
	}
	defer closeBoth()
	p.wg.Go(func() {
		defer closeBoth()
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if bytes.Contains(buf[:n], []byte("evalsha")) && bytes.Contains(buf[:n], []byte(p.of[p.dropped.Load()%2])) && p.armed.Load() > 0 && p.armed.Add(-1) >= 0 {
				doomed.Store(true)
			}
			if _, failed := server.Write(buf[:n]); failed != nil || err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if n > 0 && doomed.Load() {
			p.dropped.Add(1)
			return
		}
		if _, failed := client.Write(buf[:n]); failed != nil || err != nil {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				return
			}
			return
		}
	}
}

// faultReplies loses the replies to scripts that were executed.
func faultReplies(t *testing.T, r *rig.Runner) string {
	p := newLossyProxy(t)
	o := begin(t, r, rig.Options{Redis: func(addr string) string {
		p.to = addr
		p.wg.Go(p.serve)
		return p.listener.Addr().String()
	}})
	n := int64(times(10, 100))
	for i := range n {
		p.armed.Add(1)
		require.NoError(t, rig.Every(within(t, patience), "a reply is lost", func() bool { return p.dropped.Load() > i }))
		if i%10 == 0 {
			o.progress()
		}
	}
	return fmt.Sprintf("%d replies lost; %s", p.dropped.Load(), o.judge())
}
