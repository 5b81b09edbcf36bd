package bus_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// fake starts an engine without the embedded broker's guards, on a port that
// outlives it, for faults that must be made in the broker.
func fake(t *testing.T, dir string, port int, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	options = append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir)}, options...)
	k, err := kfake.NewCluster(options...)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

func freePort(t *testing.T) int {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // as asked for
}

func at(port int) bus.Config {
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	return cfg
}

// TestConnectionsThatABrokerLeftBehind: the first request on such a connection
// fails, which nobody outside may notice.
func TestConnectionsThatABrokerLeftBehind(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	k := fake(t, dir, port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)

	k.Close()
	fake(t, dir, port)
	_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	require.Equal(t, []string{"0", "0"}, values(t, c))
}

func TestABrokerThatComesLateIsWaitedFor(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	k := fake(t, dir, port)
	_, err := open(t, at(port)).EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	k.Close()

	c := open(t, at(port))
	require.ErrorContains(t, c.Healthy(t.Context()), "kafka does not answer")
	result := make(chan error, 1)
	go func() {
		_, err := c.Produce(context.Background(), bus.TopicEvents, 0, messages(1))
		result <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = c.Produce(ctx, bus.TopicEvents, 0, messages(1))
	require.ErrorContains(t, err, "connection refused", "the cause, not that the topic is unknown")
	fake(t, dir, port)
	require.NoError(t, <-result)
	require.NoError(t, c.Healthy(t.Context()))
}

func TestFollowOutlivesItsBroker(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	k := fake(t, dir, port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	offsets := make(chan int64, 8)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = c.Follow(ctx, bus.TopicEvents, 0, 0, func(r []bus.Record) error {
			for _, x := range r {
				offsets <- x.Offset
			}
			return nil
		})
	})
	require.EqualValues(t, 0, <-offsets)
	k.Close()
	fake(t, dir, port)
	_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	require.EqualValues(t, 1, <-offsets)
	cancel()
	wg.Wait()
}

// TestAnErrorIsNoProofOfAbsence: the broker writes, and its answer is lost.
func TestAnErrorIsNoProofOfAbsence(t *testing.T) {
	port := freePort(t)
	k := fake(t, t.TempDir(), port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	answers := make(chan struct{})
	k.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.SleepControl(func() { <-answers })
		return nil, nil, false // then as usual
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = c.Produce(ctx, bus.TopicEvents, 0, messages(1))
	require.Error(t, err)
	close(answers)
	require.Eventually(t, func() bool {
		_, end, err := c.Offsets(t.Context(), bus.TopicEvents, 0)
		return err == nil && end == 1
	}, 10*time.Second, 5*time.Millisecond)
}

func TestPassingFaultsAreRetried(t *testing.T) {
	port := freePort(t)
	k := fake(t, t.TempDir(), port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	for _, code := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.RequestTimedOut} {
		k.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			res := req.ResponseKind().(*kmsg.ProduceResponse) //nolint:forcetypeassert // as asked for
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic = req.(*kmsg.ProduceRequest).Topics[0].Topic //nolint:forcetypeassert // as asked for
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.ErrorCode = code.Code
			topic.Partitions = append(topic.Partitions, partition)
			res.Topics = append(res.Topics, topic)
			return res, nil, true
		})
		_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
		require.NoError(t, err, code.Message)
	}
	require.Len(t, values(t, c), 3)
}

// TestAThrottledFetchSkipsNothing: an empty answer from a broker that limits us
// is not the end of the log.
func TestAThrottledFetchSkipsNothing(t *testing.T) {
	port := freePort(t)
	k := fake(t, t.TempDir(), port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(3))
	require.NoError(t, err)
	left := 5
	k.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if left == 0 {
			return nil, nil, false
		}
		left--
		asked := req.(*kmsg.FetchRequest)               //nolint:forcetypeassert // as asked for
		res := req.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // as asked for
		res.ThrottleMillis = 1
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic = asked.Topics[0].Topic
		partition := kmsg.NewFetchResponseTopicPartition()
		partition.HighWatermark, partition.LogStartOffset = 3, 0
		topic.Partitions = append(topic.Partitions, partition)
		res.Topics = append(res.Topics, topic)
		return res, nil, true
	})
	require.Equal(t, []string{"0", "1", "2"}, values(t, c))
	require.Zero(t, left)
}

func TestCommitsTellWhoseThePartitionIs(t *testing.T) {
	tests := []struct {
		name string
		code *kerr.Error
		want error
	}{
		{"rebalance", kerr.RebalanceInProgress, bus.ErrNotOwner},
		{"generation", kerr.IllegalGeneration, bus.ErrNotOwner},
		{"member", kerr.UnknownMemberID, bus.ErrNotOwner},
		{"metadata too large", kerr.OffsetMetadataTooLarge, kafka.OffsetMetadataTooLarge},
		{"coordinator moves", kerr.NotCoordinator, nil},
		{"coordinator loads", kerr.CoordinatorLoadInProgress, nil},
	}
	port := freePort(t)
	k := fake(t, t.TempDir(), port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: tt.name, Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
				defer cancel()
				k.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
					res := req.ResponseKind().(*kmsg.OffsetCommitResponse) //nolint:forcetypeassert // as asked for
					topic := kmsg.NewOffsetCommitResponseTopic()
					topic.Topic = req.(*kmsg.OffsetCommitRequest).Topics[0].Topic //nolint:forcetypeassert // as asked for
					partition := kmsg.NewOffsetCommitResponseTopicPartition()
					partition.ErrorCode = tt.code.Code
					topic.Partitions = append(topic.Partitions, partition)
					res.Topics = append(res.Topics, topic)
					return res, nil, true
				})
				result <- cl.Commit(ctx, 0, "m")
				return nil
			}))
			if tt.want == nil {
				require.NoError(t, <-result, "tried again")
				return
			}
			require.ErrorIs(t, <-result, tt.want)
		})
	}
}

func TestWhatAnOperatorChangedIsReported(t *testing.T) {
	port := freePort(t)
	fake(t, t.TempDir(), port, kfake.BrokerConfigs(map[string]string{"offsets.retention.minutes": "60"}))
	cfg := at(port)
	k := &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Transport: &kafka.Transport{}}
	defer k.Transport.(*kafka.Transport).CloseIdleConnections() //nolint:forcetypeassert // made above
	topic := func(name, key, value string) kafka.TopicConfig {
		return kafka.TopicConfig{
			Topic: cfg.TopicPrefix + name, NumPartitions: 1, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{{ConfigName: key, ConfigValue: value}},
		}
	}
	_, err := k.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		topic(bus.TopicControl, "cleanup.policy", "delete"), topic(bus.TopicEvents, "retention.bytes", "1000000"),
	}})
	require.NoError(t, err)
	differs, err := open(t, cfg).EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	all := strings.Join(differs, "\n")
	for _, want := range []string{
		"topic stormbell.control has cleanup.policy=delete, wanted is compact: records that are still needed may be deleted",
		"topic stormbell.control has message.timestamp.type=CreateTime",
		"topic stormbell.events has retention.bytes=1000000, wanted is -1: records are deleted before their time",
		"broker has offsets.retention.minutes=60, less than the retention of 168h0m0s",
	} {
		require.Contains(t, all, want)
	}
	require.NotContains(t, all, "stormbell.state")
}

func TestAHandlerThatDoesNotStopIsNamed(t *testing.T) {
	_, cfg := start(t, 1)
	cfg.RebalanceTimeout = time.Second
	lines := make(chan string, 64)
	c, err := bus.New(cfg, slog.New(slog.NewTextHandler(writer(lines), nil)), noop.NewMeterProvider())
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "slow", Topics: []string{bus.TopicEvents}}, func(context.Context, *bus.Claim) error {
		cancel()
		for line := range lines {
			if strings.Contains(line, "handlers overrun the rebalance time-out") && strings.Contains(line, "group=slow") {
				return nil
			}
		}
		return nil
	}))
}

type writer chan string

func (w writer) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

func TestTooLargeIsSaidAtOnce(t *testing.T) {
	port := freePort(t)
	fake(t, t.TempDir(), port)
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	for name, size := range map[string]int{"for the broker": 2 << 20, "for any broker": 9 << 20} {
		large := make([]byte, size)
		_, _ = rand.Read(large) // does not compress
		_, err = c.Produce(t.Context(), bus.TopicEvents, 0, []bus.Message{{Value: large}})
		require.ErrorIs(t, err, bus.ErrTooLarge, name)
	}
}

// TestDeadLettersOfAnySizeAreTaken has a broker that takes less than brokers do:
// a record must not hold up its partition by its size.
func TestDeadLettersOfAnySizeAreTaken(t *testing.T) {
	port := freePort(t)
	fake(t, t.TempDir(), port, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "50000"}))
	c := open(t, at(port))
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	large := make([]byte, 2<<20)
	_, _ = rand.Read(large) // does not compress
	var msgs []bus.Message
	for i, size := range []int{10, len(large), 100_000} {
		m, err := bus.DeadLetter(&bus.Record{Topic: bus.TopicEvents, Offset: int64(i), Value: large[:size]}, "detect", "boom", 3)
		require.NoError(t, err)
		msgs = append(msgs, m)
	}
	require.NoError(t, c.ProduceKeyed(t.Context(), bus.TopicDLQ, msgs))
	var whole []bool
	require.NoError(t, c.Read(t.Context(), bus.TopicDLQ, 0, 0, 3, func(records []bus.Record) error {
		for i := range records {
			d, w, ok := bus.ReadDeadLetter(&records[i])
			require.True(t, ok)
			require.EqualValues(t, len(whole), d.GetOffset())
			require.Equal(t, w, len(d.GetValue()) > 0)
			whole = append(whole, w)
		}
		return nil
	}))
	require.Equal(t, []bool{true, false, false}, whole)
}

func TestSASL(t *testing.T) {
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			port := freePort(t)
			name := map[string]string{"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}[mechanism]
			fake(t, t.TempDir(), port, kfake.EnableSASL(), kfake.Superuser(name, "user", "right"))
			secret := filepath.Join(t.TempDir(), "password")
			require.NoError(t, os.WriteFile(secret, []byte("right\n"), 0o600))
			cfg := at(port)
			cfg.SASL = bus.SASLConfig{Mechanism: mechanism, Username: "user", PasswordFile: secret, AllowPlaintext: true}
			c := open(t, cfg)
			_, err := c.EnsureTopics(t.Context(), topics(1))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
				defer cancel()
				return cl.Commit(ctx, 0, "")
			}))

			cfg.SASL.Password, cfg.SASL.PasswordFile = "wrong-canary", ""
			short, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer stop()
			_, err = open(t, cfg).Produce(short, bus.TopicEvents, 0, messages(1))
			// Kafka says so, and is not asked again; this engine just hangs up.
			require.ErrorContains(t, err, "check kafka.tls, and kafka.sasl with its password")
			require.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestTLS(t *testing.T) {
	// The test server lends its certificate, which is valid for 127.0.0.1 and
	// example.com.
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	own := &tls.Config{Certificates: server.TLS.Certificates, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, ca, "CERTIFICATE", server.Certificate().Raw)
	write(t, cert, "CERTIFICATE", server.Certificate().Raw)
	writeKey(t, key, server.TLS.Certificates[0].PrivateKey)
	port := freePort(t)
	fake(t, t.TempDir(), port, kfake.TLS(own))

	good := at(port)
	good.TLS = bus.TLSConfig{Enabled: true, CAFile: ca, CertFile: cert, KeyFile: key}
	tests := []struct {
		name, want string
		change     func(*bus.TLSConfig)
	}{
		{"good", "", func(*bus.TLSConfig) {}},
		{"named", "", func(c *bus.TLSConfig) { c.ServerName = "example.com" }},
		{"unknown authority", "certificate", func(c *bus.TLSConfig) { c.CAFile = "" }},
		{"other name", "not other.example", func(c *bus.TLSConfig) { c.ServerName = "other.example" }},
		{"no client certificate", "", func(c *bus.TLSConfig) { c.CertFile, c.KeyFile = "", "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg.TLS)
			c := open(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			err := c.Healthy(ctx)
			if tt.name == "good" || tt.name == "named" {
				require.NoError(t, err)
				_, err = c.EnsureTopics(t.Context(), topics(1))
				require.NoError(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(context.Context, *bus.Claim) error {
					cancel()
					return nil
				}))
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func write(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func writeKey(t *testing.T, path string, key any) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write(t, path, "PRIVATE KEY", der)
}

func TestCloseIsQuick(t *testing.T) {
	c, cfg := start(t, 1)
	d := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	following := make(chan error, 1)
	go func() {
		following <- d.Follow(ctx, bus.TopicEvents, 0, 0, func([]bus.Record) error { return nil })
	}()
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-following, context.Canceled)
	d.Close() // goleak waits for what is left, and not for long
	d.Close()
}

// TestSecuredKafka needs a real Kafka with SASL over TLS: its host:port in
// STORMBELL_TEST_KAFKA_SECURE, the authority's file in …_CA, and the user "user"
// with the password "right".
func TestSecuredKafka(t *testing.T) {
	addr, ca := os.Getenv("STORMBELL_TEST_KAFKA_SECURE"), os.Getenv("STORMBELL_TEST_KAFKA_SECURE_CA")
	if addr == "" {
		t.Skip("STORMBELL_TEST_KAFKA_SECURE names no Kafka")
	}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cfg := bus.DefaultConfig()
			cfg.Brokers, cfg.TopicPrefix = []string{addr}, "secure."
			cfg.TLS = bus.TLSConfig{Enabled: true, CAFile: ca}
			cfg.SASL = bus.SASLConfig{Mechanism: mechanism, Username: "user", Password: "right"}
			c := open(t, cfg)
			_, err := c.EnsureTopics(t.Context(), topics(1))
			require.NoError(t, err)
			_, err = c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
				defer cancel()
				return cl.Commit(ctx, max(cl.Committed, 0), mechanism)
			}))

			cfg.SASL.Password = "wrong-canary"
			_, err = open(t, cfg).Produce(t.Context(), bus.TopicEvents, 0, messages(1))
			require.ErrorIs(t, err, kafka.SASLAuthenticationFailed, "at once, with the cause")
			require.NotContains(t, err.Error(), "canary")
		})
	}
}
