// Package redistest starts the machine's redis-server for one test, on a free
// loopback port and in a directory of its own.
//
// It stops what it started and nothing else, and it imitates nothing: where
// redis-server is missing the test is skipped with the reason, or fails if
// STORMBELL_REQUIRE_REAL is 1.
package redistest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Options choose what the server offers. The zero value is a server without
// persistence, encryption or users.
type Options struct {
	// TLS makes the server answer TLS only, with a certificate of its own CA.
	TLS bool
	// User and Password create an ACL user with ACL as its rules; the default
	// user is then off.
	User, Password string
	// ACL is the user's rule string; empty allows everything.
	ACL string
	// AppendOnly writes an append-only file that is synced at every write.
	AppendOnly bool
	// Config are further lines of redis.conf.
	Config []string
}

const adminUser = "redistest"

// Server is one running redis-server.
type Server struct {
	// Addr is host:port.
	Addr string
	// Dir holds its files; it outlives Kill and Start.
	Dir string
	// CAFile is the PEM file of the CA that signed the certificate; empty
	// without TLS.
	CAFile string
	opts   Options
	admin  string // password of adminUser
	bus    string // the port by which nodes of a cluster talk; empty where there is none
	cmd    *exec.Cmd
	output *bytes.Buffer
}

// Start starts a server and stops it at the end of the test.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s := prepare(tb, opts)
	s.Up(tb)
	tb.Cleanup(func() { s.Kill(tb) })
	return s
}

func prepare(tb testing.TB, opts Options) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("STORMBELL_REQUIRE_REAL") == "1" {
			tb.Fatal("redis-server is not installed, and STORMBELL_REQUIRE_REAL=1 forbids to skip: apt-get install redis-server")
		}
		tb.Skip("redis-server is not installed: apt-get install redis-server")
	}
	s := &Server{Dir: tb.TempDir(), opts: opts, admin: rand.Text()}
	if opts.TLS {
		s.certificate(tb)
	}
	s.Addr = freeAddr(tb)
	return s
}

// Up starts the process anew on the same address and files, after Kill.
func (s *Server) Up(tb testing.TB) {
	tb.Helper()
	conf := filepath.Join(s.Dir, "redis.conf")
	require.NoError(tb, os.WriteFile(conf, s.config(tb), 0o600))
	s.output = new(bytes.Buffer)
	s.cmd = exec.Command("redis-server", conf) //nolint:noctx // it outlives every context of a test and is killed in Cleanup
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, s.output, s.output
	require.NoError(tb, s.cmd.Start())
	client := s.Client(tb)
	deadline := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := client.Ping(ctx).Err()
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Kill(tb)
			tb.Fatalf("redis-server does not answer on %s: %v\n%s", s.Addr, err, s.output)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Kill ends the process at once, as SIGKILL does. It may be called twice.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Client returns a client that may do everything, whatever Options allow the
// user. It is closed at the end of the test.
func (s *Server) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	opts := &redis.Options{Addr: s.Addr, MaxRetries: -1, ContextTimeoutEnabled: true}
	if s.opts.User != "" {
		opts.Username, opts.Password = adminUser, s.admin
	}
	if s.opts.TLS {
		pool := x509.NewCertPool()
		ca, err := os.ReadFile(s.CAFile)
		require.NoError(tb, err)
		require.True(tb, pool.AppendCertsFromPEM(ca))
		opts.TLSConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c := redis.NewClient(opts)
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *Server) config(tb testing.TB) []byte {
	tb.Helper()
	_, port, err := net.SplitHostPort(s.Addr)
	require.NoError(tb, err)
	var b bytes.Buffer
	fmt.Fprintf(&b, "bind 127.0.0.1\ndir %s\nsave \"\"\nmaxmemory-policy noeviction\nenable-debug-command yes\n", s.Dir)
	if s.opts.TLS {
		fmt.Fprintf(&b, "port 0\ntls-port %s\ntls-cert-file %s/cert.pem\ntls-key-file %s/key.pem\ntls-ca-cert-file %s\ntls-auth-clients no\n",
			port, s.Dir, s.Dir, s.CAFile)
	} else {
		fmt.Fprintf(&b, "port %s\n", port)
	}
	if s.opts.AppendOnly {
		b.WriteString("appendonly yes\nappendfsync always\naof-use-rdb-preamble no\n")
	}
	if s.opts.User != "" {
		rules := s.opts.ACL
		if rules == "" {
			rules = "~* &* +@all"
		}
		fmt.Fprintf(&b, "user default off\nuser %s on >%s ~* &* +@all\nuser %s on >%s %s\n", adminUser, s.admin, s.opts.User, s.opts.Password, rules)
	}
	if s.bus != "" {
		fmt.Fprintf(&b, "cluster-enabled yes\ncluster-port %s\ncluster-node-timeout 2000\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n", s.bus)
		if s.opts.TLS {
			b.WriteString("tls-cluster yes\n")
		}
	}
	for _, line := range s.opts.Config {
		b.WriteString(line + "\n")
	}
	return b.Bytes()
}

// certificate writes a self-signed certificate that is its own CA.
func (s *Server) certificate(tb testing.TB) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // nodes of a cluster are both
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(tb, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(tb, err)
	s.CAFile = filepath.Join(s.Dir, "cert.pem")
	require.NoError(tb, os.WriteFile(s.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(tb, os.WriteFile(filepath.Join(s.Dir, "key.pem"),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
