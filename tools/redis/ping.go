package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

const pingLimit = time.Second

// ping says whether the server answers a client as the options describe it. It
// speaks the protocol by hand: two commands do not need a client library.
func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is buffered
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
	}
	r := bufio.NewReader(conn)
	if s.opts.User != "" {
		if err := call(conn, r, "+OK", "AUTH", s.opts.User, s.opts.Password); err != nil {
			return err
		}
	}
	return call(conn, r, "+PONG", "PING")
}

func (s *Server) dial(ctx context.Context) (net.Conn, error) {
	if s.tls != nil {
		return (&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", s.Addr())
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr())
}

func call(conn net.Conn, r *bufio.Reader, want string, args ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return fmt.Errorf("send %s: %w", args[0], err)
	}
	got, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read answer to %s: %w", args[0], err)
	}
	if got = strings.TrimSpace(got); got != want {
		return errors.New("answer to " + args[0] + ": " + got) // LOADING, NOAUTH …
	}
	return nil
}
