package embedded

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/stretchr/testify/require"
)

func TestOpenRefusesDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, testConfig(dir), time.Now)
	_, err := Open(testConfig(dir), quiet(), time.Now)
	require.ErrorContains(t, err, fmt.Sprintf("in use by process %d", os.Getpid()))
	require.NoError(t, b.Close())
	mustOpen(t, testConfig(dir), time.Now)
}

func TestRecordsSurviveRestart(t *testing.T) {
	for _, sync := range []bool{true, false} {
		t.Run(fmt.Sprintf("sync %t", sync), func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Sync = sync
			b := mustOpen(t, cfg, time.Now)
			c := client(t, b)
			createTopic(t, c, events, 2)
			fill(t, c, events, 1, 300, 1000)
			want := readAll(t, c, events, 1, 0)
			require.Len(t, want, 300)
			require.NoError(t, b.Close())

			b = mustOpen(t, cfg, time.Now)
			require.Equal(t, want, readAll(t, client(t, b), events, 1, 0))
			require.Equal(t, int64(300), mustProduce(t, client(t, b), events, 1, []byte("next")))
			require.Equal(t, int64(0), mustProduce(t, client(t, b), events, 0, []byte("first")))
		})
	}
}

func TestAuthentication(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Auth = true
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	mustProduce(t, c, events, 0, []byte("in"))

	name, password := b.Credential()
	require.Len(t, password, 26, "at least 128 bits in base 32")
	dialer := &kafka.Dialer{Timeout: 5 * time.Second, SASLMechanism: plain.Mechanism{Username: name, Password: password}}
	conn, err := dialer.DialLeader(t.Context(), "tcp", b.Addr(), events, 0)
	require.NoError(t, err, "the older client of kafka-go, which its consumer groups use")
	require.NoError(t, conn.Close())

	for name, mechanism := range map[string]plain.Mechanism{
		"wrong password":               {Username: name, Password: "wrong"},
		"unknown user, empty password": {Username: "nobody"},
		"empty password":               {Username: name},
	} {
		t.Run(name, func(t *testing.T) {
			d := &kafka.Dialer{Timeout: 5 * time.Second, SASLMechanism: mechanism}
			_, err := d.DialContext(t.Context(), "tcp", b.Addr())
			require.ErrorIs(t, err, kafka.SASLAuthenticationFailed)
		})
	}
	t.Run("none", func(t *testing.T) {
		transport := &kafka.Transport{}
		defer transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := produce(ctx, &kafka.Client{Addr: kafka.TCP(b.Addr()), Transport: transport}, events, 0, []byte("x"))
		require.Error(t, err)
	})
	_, next := offsets(t, c, events, 0)
	require.Equal(t, int64(1), next)
}

func TestGroupConsumesAndResumes(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Auth = true
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, events, 2)
	fill(t, c, events, 0, 10, 100)
	fill(t, c, events, 1, 10, 100)
	name, password := b.Credential()
	consume := func(addr string, mechanism plain.Mechanism, n int) {
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{addr}, GroupID: "g", Topic: events, MaxWait: 100 * time.Millisecond, StartOffset: kafka.FirstOffset,
			Dialer: &kafka.Dialer{Timeout: 5 * time.Second, SASLMechanism: mechanism},
		})
		for range n {
			m, err := reader.FetchMessage(t.Context())
			require.NoError(t, err)
			require.NoError(t, reader.CommitMessages(t.Context(), m))
		}
		require.NoError(t, reader.Close())
	}
	consume(b.Addr(), plain.Mechanism{Username: name, Password: password}, 15)
	require.NoError(t, b.Close())
	b = mustOpen(t, cfg, time.Now)
	name, password = b.Credential()
	consume(b.Addr(), plain.Mechanism{Username: name, Password: password}, 5)
	c = client(t, b)
	require.Equal(t, int64(10), groupOffset(t, c, "g", 0))
	require.Equal(t, int64(10), groupOffset(t, c, "g", 1))
}
