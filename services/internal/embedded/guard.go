package embedded

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	// maxConns bounds goroutines and file descriptors; the services of one
	// process need some dozens.
	maxConns = 512
	// loginTimeout bounds how long a connection may stay unauthenticated.
	loginTimeout = 10 * time.Second
	user         = "stormbell"
)

// guard is the listener that the engine accepts from: it hands over TCP
// connections that pass through its checks, and our own in-process ones.
type guard struct {
	tcp      net.Listener
	conns    chan net.Conn
	open     chan struct{} // closed when TCP connections may enter
	done     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
	slots    chan struct{}
	log      *slog.Logger
	versions *kversion.Versions
	limit    int64
	password string // empty: no authentication
	sync     *syncer
	produced func(bytes int)
	check    func(request) error // after the engine has answered
	refused  atomic.Int64
}

// listen opens the loopback port. Connections wait until admit is called.
func (g *guard) listen() error {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open loopback port: %w", err)
	}
	g.tcp = tcp
	g.conns = make(chan net.Conn)
	g.open, g.done = make(chan struct{}), make(chan struct{})
	g.slots = make(chan struct{}, maxConns)
	g.wg.Go(g.acceptLoop)
	return nil
}

func (g *guard) admit() { close(g.open) }

func (g *guard) acceptLoop() {
	select {
	case <-g.open:
	case <-g.done:
		return
	}
	for {
		conn, err := g.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			g.log.Warn("broker cannot accept a connection", "error", err)
			select { // out of file descriptors, most likely: give others time to close
			case <-time.After(50 * time.Millisecond):
				continue
			case <-g.done:
				return
			}
		}
		select {
		case g.slots <- struct{}{}:
			g.hand(g.newConn(conn))
		default:
			g.refused.Add(1)
			g.log.Warn("broker refused a connection: too many are open", "limit", maxConns)
			_ = conn.Close()
		}
	}
}

func (g *guard) hand(conn net.Conn) {
	select {
	case g.conns <- conn:
	case <-g.done:
		_ = conn.Close()
	}
}

// dial opens an in-process connection that bypasses the checks.
func (g *guard) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case g.conns <- server:
		return client, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Accept implements net.Listener for the engine.
func (g *guard) Accept() (net.Conn, error) {
	select {
	case conn := <-g.conns:
		return conn, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (g *guard) Addr() net.Addr { return g.tcp.Addr() }

// Close implements net.Listener and waits until nothing more is accepted.
func (g *guard) Close() error {
	var err error
	g.once.Do(func() {
		close(g.done)
		err = g.tcp.Close()
		g.wg.Wait()
	})
	return err
}

func (g *guard) newConn(c net.Conn) net.Conn {
	gc := &guardConn{Conn: c, g: g, authenticated: g.password == ""}
	if !gc.authenticated {
		_ = c.SetReadDeadline(time.Now().Add(loginTimeout))
	}
	return gc
}

// guardConn stands between one client and the engine. The engine reads only
// whole, checked frames from it, and an acknowledgement written to it leaves
// only when the records are on stable storage.
type guardConn struct {
	net.Conn
	g      *guard
	once   sync.Once
	frame  bytes.Buffer // with its length; drained by Read
	handed []byte       // what of frame the engine has not read yet

	authenticated, shook bool

	mu      sync.Mutex // guards pending and the order of writes
	pending []request  // handed to the engine and not yet answered
}

// Read implements net.Conn for the engine.
func (c *guardConn) Read(p []byte) (int, error) {
	for len(c.handed) == 0 {
		if err := c.next(); err != nil {
			if errors.Is(err, errFrame) || errors.Is(err, errDisk) {
				c.g.refused.Add(1)
				c.g.log.Warn("broker closed a connection", "remote", c.RemoteAddr().String(), "error", err)
			}
			_ = c.Close()
			return 0, io.EOF
		}
	}
	n := copy(p, c.handed)
	c.handed = c.handed[n:]
	return n, nil
}

// next reads and checks one frame and makes it ready for the engine, unless
// the guard answers it itself.
func (c *guardConn) next() error {
	if err := c.readFrame(); err != nil {
		return err
	}
	req, err := inspect(c.frame.Bytes()[4:], c.g.versions)
	if errors.Is(err, errNewer) {
		return c.tellVersions(req)
	}
	if err != nil {
		return err
	}
	switch body := req.body.(type) {
	case *kmsg.SASLHandshakeRequest:
		return c.handshake(req, body)
	case *kmsg.SASLAuthenticateRequest:
		return c.authenticate(req, body)
	case *kmsg.ApiVersionsRequest:
	default:
		if !c.authenticated {
			return fmt.Errorf("%w: key %d before authentication", errFrame, req.key)
		}
	}
	if err := c.before(req); err != nil {
		return err
	}
	req.body = nil // its records alias the frame
	c.mu.Lock()
	c.pending = append(c.pending, req)
	c.mu.Unlock()
	c.handed = c.frame.Bytes()
	return nil
}

// before makes what a request relies on true before the engine sees it.
func (c *guardConn) before(req request) error {
	switch kmsg.Key(req.key) {
	case kmsg.Produce:
		c.g.produced(c.frame.Len())
		return c.g.sync.begin(req.produced)
	case kmsg.OffsetCommit:
		// An offset must never be stored ahead of its record, or a power cut
		// would leave a group beyond the end of the log.
		return c.g.sync.flush()
	}
	return nil
}

// readFrame reads one frame into c.frame. It allocates as bytes arrive, so a
// length alone costs nothing.
func (c *guardConn) readFrame() error {
	if c.frame.Cap() > controlFrameBytes {
		c.frame = bytes.Buffer{}
	}
	c.frame.Reset()
	if _, err := io.CopyN(&c.frame, c.Conn, 4+2); err != nil {
		return err
	}
	head := c.frame.Bytes()
	size := int64(binary.BigEndian.Uint32(head))
	limit := frameLimit(int16(binary.BigEndian.Uint16(head[4:])), c.g.limit)
	if !c.authenticated {
		limit = loginFrameBytes
	}
	if size < headerBytes || size > limit {
		return fmt.Errorf("%w: frame of %d bytes, at most %d", errFrame, size, limit)
	}
	_, err := io.CopyN(&c.frame, c.Conn, size-2)
	return err
}

// Write implements net.Conn for the engine, which writes one whole response
// per call. An error makes the engine close the connection: to the client the
// outcome is then unknown, which is not an acknowledgement.
func (c *guardConn) Write(p []byte) (int, error) {
	if len(p) < headerBytes {
		return 0, io.ErrShortWrite
	}
	correlation := int32(binary.BigEndian.Uint32(p[4:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 || c.pending[0].correlation != correlation {
		return 0, errors.New("response without request")
	}
	req := c.pending[0]
	c.pending = c.pending[1:]
	if err := c.after(req); err != nil {
		c.g.log.Error("broker withheld an acknowledgement", "error", err)
		return 0, err
	}
	return c.Conn.Write(p)
}

// after makes what a response promises true before the client sees it.
func (c *guardConn) after(req request) error {
	switch kmsg.Key(req.key) {
	case kmsg.Produce:
		return c.g.sync.end(req.produced)
	case kmsg.CreateTopics:
		return c.g.check(req)
	}
	return nil
}

// Close implements net.Conn. The engine calls it more than once.
func (c *guardConn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.Conn.Close()
		<-c.g.slots
	})
	return err
}

// tellVersions answers a request for the supported versions that is too new:
// in version 0, with the versions in which to ask again (KIP-511).
func (c *guardConn) tellVersions(req request) error {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	key := kmsg.NewApiVersionsResponseApiKey()
	key.ApiKey = req.key
	key.MaxVersion, _ = c.g.versions.LookupMaxKeyVersion(req.key)
	resp.ApiKeys = append(resp.ApiKeys, key)
	return c.answer(req, resp)
}

// handshake answers a SASL handshake; only PLAIN is offered.
func (c *guardConn) handshake(req request, body *kmsg.SASLHandshakeRequest) error {
	resp := body.ResponseKind().(*kmsg.SASLHandshakeResponse)
	resp.SupportedMechanisms = []string{"PLAIN"}
	switch {
	case c.g.password == "" || c.authenticated:
		resp.ErrorCode = kerr.IllegalSaslState.Code
	case req.version < 1: // version 0 is followed by bytes without a frame
		resp.ErrorCode = kerr.UnsupportedVersion.Code
	case body.Mechanism != "PLAIN":
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
	default:
		c.shook = true
	}
	return c.answer(req, resp)
}

// authenticate compares the credential in constant time.
func (c *guardConn) authenticate(req request, body *kmsg.SASLAuthenticateRequest) error {
	resp := body.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	if !c.shook || c.authenticated {
		resp.ErrorCode = kerr.IllegalSaslState.Code
		return c.answer(req, resp)
	}
	want := sha256.Sum256([]byte("\x00" + user + "\x00" + c.g.password))
	got := sha256.Sum256(body.SASLAuthBytes)
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return errors.Join(c.answer(req, resp), fmt.Errorf("%w: wrong credential", errFrame))
	}
	c.authenticated = true
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return c.answer(req, resp)
}

func (c *guardConn) answer(req request, resp kmsg.Response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Conn.Write(appendResponse(nil, resp, req.correlation))
	return err
}
