package certs_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/certs"
)

func TestClientTrustsTheServer(t *testing.T) {
	files, err := certs.Write(t.TempDir(), time.Now())
	require.NoError(t, err)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	require.NoError(t, err)
	client, err := certs.ClientConfig(files)
	require.NoError(t, err)

	tests := []struct {
		name    string
		host    string
		trusted *tls.Config
		ok      bool
	}{
		{"by address", "127.0.0.1", client, true},
		{"by name", "localhost", client, true},
		{"another host", "example.com", client, false},
		{"another trust", "127.0.0.1", &tls.Config{MinVersion: tls.VersionTLS12}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
			require.NoError(t, err)
			defer func() { require.NoError(t, l.Close()) }()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).Handshake() // the client's view is what is tested
				_ = conn.Close()
			}()
			cfg := tt.trusted.Clone()
			cfg.ServerName = tt.host
			conn, err := tls.Dial("tcp", l.Addr().String(), cfg)
			if !tt.ok {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		})
	}
}
