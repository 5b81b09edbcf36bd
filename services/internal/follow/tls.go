package follow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"
)

// KeyPair follows a certificate and its key in PEM. While only one of the two
// has been replaced, they do not fit, and the pair before stays.
func KeyPair(watch *Watch, name, certFile, keyFile string) (*Value[*tls.Certificate], error) {
	return follow(&Value[*tls.Certificate]{
		watch: watch, name: name, paths: []string{certFile, keyFile},
		load: func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				return nil, fmt.Errorf("%s: load certificate %s with key %s: %w", name, certFile, keyFile, err)
			}
			return &pair, nil
		},
		expires: func(pair *tls.Certificate) time.Time { return pair.Leaf.NotAfter },
	})
}

// Authorities follows a file of certificates to trust.
func Authorities(watch *Watch, name, path string) (*Value[*x509.CertPool], error) {
	return New(watch, name, func() (*x509.CertPool, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificate in %s", name, path)
		}
		return pool, nil
	}, path)
}

// Peer is how a client proves who it is and whom it trusts. What is nil is not
// used: then the system's authorities are trusted and no certificate is shown.
type Peer struct {
	// ServerName is the name in the server's certificate; empty: that of its address.
	ServerName  string
	Authorities *Value[*x509.CertPool]
	KeyPair     *Value[*tls.Certificate]
}

// Dial opens a TLS connection with what is in force now. Within timeout it is
// open, its handshake included.
func (p *Peer) Dial(ctx context.Context, network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what was dialled
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.ServerName}
	if config.ServerName == "" {
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
	}
	if p.Authorities != nil {
		config.RootCAs = p.Authorities.Get()
	}
	if p.KeyPair != nil {
		config.Certificates = []tls.Certificate{*p.KeyPair.Get()}
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake says why
		return nil, fmt.Errorf("tls handshake with %s: %w", address, err)
	}
	return secure, nil
}
