package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// writePair writes a certificate for 127.0.0.1 with a serial number.
func writePair(t *testing.T, files TLS, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, spec, spec, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	replace(t, files.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	replace(t, files.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	parsed, err := x509.ParseCertificate(cert)
	require.NoError(t, err)
	return parsed
}

// replace renames a new file over the old one, so that its time differs.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	old, _ := os.Stat(path)
	require.NoError(t, os.WriteFile(path+".new", text, 0o600))
	if old != nil {
		when := old.ModTime().Add(time.Second)
		require.NoError(t, os.Chtimes(path+".new", when, when))
	}
	require.NoError(t, os.Rename(path+".new", path))
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	files := TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	_, err := loadCertificate(files, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, files.CertFile)

	first := writePair(t, files, 1)
	c, err := loadCertificate(files, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", c.config())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	tick := make(chan time.Time)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer listener.Close()
	wg.Go(func() { c.watch(ctx, tick) })
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	})
	// Two ticks: when the second is taken, the first has had its effect.
	look := func() { tick <- time.Time{}; tick <- time.Time{} }
	served := func(trusted *x509.Certificate) int64 {
		pool := x509.NewCertPool()
		pool.AddCert(trusted)
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.EqualValues(t, 1, served(first))
	look()
	require.EqualValues(t, 1, served(first))
	second := writePair(t, files, 2)
	look()
	require.EqualValues(t, 2, served(second))

	replace(t, files.KeyFile, []byte("not a key"))
	look()
	require.EqualValues(t, 2, served(second), "a broken pair leaves the one before in force")
	require.NoError(t, os.Remove(files.CertFile))
	look()
	require.EqualValues(t, 2, served(second))
	third := writePair(t, files, 3)
	look()
	require.EqualValues(t, 3, served(third))

	_, err = (&tls.Dialer{Config: &tls.Config{MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}}).DialContext(ctx, "tcp", listener.Addr().String())
	require.Error(t, err, "old versions are refused")
}
