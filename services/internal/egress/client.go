package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ClientConfig bounds requests.
type ClientConfig struct {
	// Timeout bounds one whole exchange: name, connect, TLS, request, headers
	// and what is read of the body.
	Timeout time.Duration
	// ConnectTimeout bounds name resolution with connect, and TLS again.
	ConnectTimeout time.Duration
	// MaxResponse is how much of a body is read.
	MaxResponse int64
	// MaxHeader bounds the response's headers.
	MaxHeader int64
	// MaxConnsPerHost bounds connections to one host and port.
	MaxConnsPerHost int
	// MaxIdle bounds idle connections in all, IdleTimeout how long they stay.
	MaxIdle     int
	IdleTimeout time.Duration
	// RootCAs replaces the system's; nil keeps them.
	RootCAs *x509.CertPool
	// Resolver replaces the system's; nil keeps it.
	Resolver *net.Resolver
}

// DefaultClientConfig returns the settings of the notifier.
func DefaultClientConfig() ClientConfig {
	return ClientConfig{
		Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, MaxResponse: 16 << 10, MaxHeader: 32 << 10,
		// Many endpoints of many tenants may share one host.
		MaxConnsPerHost: 256, MaxIdle: 1024, IdleTimeout: 60 * time.Second,
	}
}

// Client sends requests that a Guard lets out. It is safe for concurrent use;
// Close ends its idle connections.
type Client struct {
	cfg           ClientConfig
	secure, plain *http.Client
}

// NewClient returns a client behind a guard.
func NewClient(guard *Guard, cfg ClientConfig) *Client {
	return &Client{cfg: cfg, secure: newHTTP(guard, cfg, false), plain: newHTTP(guard, cfg, true)}
}

func newHTTP(guard *Guard, cfg ClientConfig, plain bool) *http.Client {
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 30 * time.Second, Resolver: cfg.Resolver, ControlContext: guard.control(plain)}
	var protocols http.Protocols
	// One exchange per connection: a stuck one holds up no other.
	protocols.SetHTTP1(true)
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // the environment's would be dialled in the target's place
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    cfg.ConnectTimeout,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
			DisableCompression:     true,
			MaxResponseHeaderBytes: cfg.MaxHeader,
			MaxConnsPerHost:        cfg.MaxConnsPerHost,
			MaxIdleConns:           cfg.MaxIdle,
			MaxIdleConnsPerHost:    16,
			IdleConnTimeout:        cfg.IdleTimeout,
			Protocols:              &protocols,
		},
	}
}

// Timeout returns how long one exchange may take.
func (c *Client) Timeout() time.Duration { return c.cfg.Timeout }

// Close ends idle connections.
func (c *Client) Close() {
	c.secure.CloseIdleConnections()
	c.plain.CloseIdleConnections()
}

// Response is what came back, and no more of it than allowed.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and reads the beginning of the response's body, all
// within ClientConfig.Timeout. A response whose headers came counts, whatever
// then happens to its body. Errors are *Error, and hold nothing of the URL.
func (c *Client) Do(req *http.Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), c.cfg.Timeout)
	defer cancel()
	client := c.secure
	if req.URL.Scheme == "http" {
		client = c.plain
	}
	resp, err := client.Do(req.WithContext(ctx)) //nolint:gosec // G704: the guard judges every address that is dialled
	if err != nil {
		return nil, describe(err)
	}
	defer func() { _ = resp.Body.Close() }()
	out := &Response{Status: resp.StatusCode, Header: resp.Header}
	// An error here, the deadline included, takes nothing from the status.
	out.Body, _ = io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxResponse))
	return out, nil
}

// Error says why there was no response, in words that users may see.
type Error struct {
	Reason string
	// Denied: the guard did not let it out; nothing was sent.
	Denied bool
	// Cancelled: the request's own context ended.
	Cancelled bool
}

func (e *Error) Error() string { return e.Reason }

// describe turns an error into one without addresses, names or URLs.
func describe(err error) *Error {
	var (
		denied   *DeniedError
		dns      *net.DNSError
		cert     *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		netError net.Error
	)
	switch {
	case errors.As(err, &denied):
		return &Error{Reason: denied.Reason, Denied: true}
	case errors.Is(err, context.Canceled):
		return &Error{Reason: "request cancelled", Cancelled: true}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Error{Reason: "the host's name does not resolve"}
	case errors.As(err, &dns):
		return &Error{Reason: "the host's name could not be resolved"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netError) && netError.Timeout():
		return &Error{Reason: "no response in time"}
	case errors.As(err, &cert):
		return &Error{Reason: "the host's certificate cannot be verified"}
	case errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return &Error{Reason: "TLS handshake failed"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Reason: "connection refused"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Reason: "connection closed before the response"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &Error{Reason: "host unreachable"}
	}
	return &Error{Reason: "request failed"}
}
