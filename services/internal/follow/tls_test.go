package follow_test

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
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/services/internal/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type pair struct{ cert, key string }

// write puts a certificate for 127.0.0.1 with a serial number in place.
func (p pair) write(t *testing.T, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Unix(4_000_000_000+serial, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, spec, spec, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	replace(t, p.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	replace(t, p.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
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

// watched is a watch with its metrics.
func watched(t *testing.T) (*follow.Watch, func() map[string]int64) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	w, err := follow.NewWatch(slog.New(slog.DiscardHandler), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	require.NoError(t, err)
	return w, func() map[string]int64 {
		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &all))
		out := map[string]int64{}
		for _, m := range all.ScopeMetrics[0].Metrics {
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, p := range points {
				name := m.Name
				for _, a := range p.Attributes.ToSlice() {
					name += " " + a.Value.AsString()
				}
				out[name] = p.Value
			}
		}
		return out
	}
}

// serve accepts TLS connections until the test ends, and echoes what they say.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = listener.Close() })
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return listener.Addr().String()
}

func TestConnectionsUseTheFilesAsTheyAre(t *testing.T) {
	dir := t.TempDir()
	server := pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	client := pair{filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")}
	ca := filepath.Join(dir, "ca.pem")
	w, metrics := watched(t)
	_, err := follow.KeyPair(w, "gateway.tls", server.cert, server.key)
	require.ErrorContains(t, err, server.cert)
	_, err = follow.Authorities(w, "kafka.tls.ca_file", ca)
	require.ErrorContains(t, err, "kafka.tls.ca_file")

	server.write(t, 1)
	client.write(t, 101)
	trust := func() {
		text, err := os.ReadFile(server.cert)
		require.NoError(t, err)
		replace(t, ca, text)
	}
	trust()
	keys, err := follow.KeyPair(w, "gateway.tls", server.cert, server.key)
	require.NoError(t, err)
	again, err := follow.KeyPair(w, "gateway.tls", server.cert, server.key)
	require.NoError(t, err)
	require.Same(t, keys, again, "who asks again gets the same one")
	peer := follow.Peer{}
	peer.Authorities, err = follow.Authorities(w, "kafka.tls.ca_file", ca)
	require.NoError(t, err)
	peer.KeyPair, err = follow.KeyPair(w, "kafka.tls.cert_file", client.cert, client.key)
	require.NoError(t, err)
	shown := make(chan int64, 1)
	addr := serve(t, &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return keys.Get(), nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			shown <- s.PeerCertificates[0].SerialNumber.Int64()
			return nil
		},
	})
	dial := func() (net.Conn, int64, int64) {
		conn, err := peer.Dial(t.Context(), "tcp", addr, time.Minute)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn, conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), <-shown
	}
	served := func(wantServer, wantClient int64) net.Conn {
		t.Helper()
		w.Look(t.Context())
		conn, s, c := dial()
		require.Equal(t, []int64{wantServer, wantClient}, []int64{s, c})
		return conn
	}
	old := served(1, 101)
	server.write(t, 2)
	trust()
	client.write(t, 102)
	served(2, 102)
	_, err = old.Write([]byte("!"))
	require.NoError(t, err)
	_, err = io.ReadFull(old, make([]byte, 1))
	require.NoError(t, err, "a connection under way goes on")
	require.EqualValues(t, 4_000_000_002, metrics()["stormbell_files_certificate_expiry_timestamp_seconds gateway.tls"])
	require.EqualValues(t, 0, metrics()["stormbell_files_stale gateway.tls"])

	replace(t, server.key, []byte("not a key"))
	replace(t, ca, []byte("none"))
	require.NoError(t, os.Remove(client.cert))
	served(2, 102)
	served(2, 102)
	for _, name := range []string{"gateway.tls", "kafka.tls.ca_file", "kafka.tls.cert_file"} {
		require.EqualValues(t, 1, metrics()["stormbell_files_stale "+name])
		require.EqualValues(t, 1, metrics()["stormbell_files_reloads_total "+name+" failed"], "one change is told once")
	}
	server.write(t, 3)
	trust()
	client.write(t, 103)
	served(3, 103)
	require.EqualValues(t, 0, metrics()["stormbell_files_stale gateway.tls"])
	require.EqualValues(t, 2, metrics()["stormbell_files_reloads_total gateway.tls ok"])

	server.write(t, 4) // the client still trusts the one before
	w.Look(t.Context())
	_, err = peer.Dial(t.Context(), "tcp", addr, time.Minute)
	require.ErrorContains(t, err, "certificate")
	bound, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.Run(bound))
}
