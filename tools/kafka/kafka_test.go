package kafka_test

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/tools/kafka"
)

const topic = "letters"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, brokers []string, tlsConfig *tls.Config, mechanism sasl.Mechanism) *kafkago.Client {
	t.Helper()
	transport := &kafkago.Transport{TLS: tlsConfig, SASL: mechanism}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafkago.Client{Addr: kafkago.TCP(brokers...), Transport: transport, Timeout: 20 * time.Second}
}

func createTopic(t *testing.T, c *kafkago.Client, replicas int) {
	t.Helper()
	resp, err := c.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{
		Topics: []kafkago.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: replicas}},
	})
	require.NoError(t, err)
	require.NoError(t, resp.Errors[topic])
}

func produce(ctx context.Context, c *kafkago.Client, value string) error {
	resp, err := c.Produce(ctx, &kafkago.ProduceRequest{
		Topic: topic, RequiredAcks: kafkago.RequireAll,
		Records: kafkago.NewRecordReader(kafkago.Record{Value: protocol.NewBytes([]byte(value))}),
	})
	if err != nil {
		return err
	}
	return resp.Error
}

// mustProduce retries what a broker that has just come back answers.
func mustProduce(t *testing.T, c *kafkago.Client, value string) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		err = produce(t.Context(), c, value)
		return err == nil
	}, time.Minute, 50*time.Millisecond, "last error: %v", err)
}

func fetchAll(t *testing.T, c *kafkago.Client) []string {
	t.Helper()
	resp, err := c.Fetch(t.Context(), &kafkago.FetchRequest{Topic: topic, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
	require.NoError(t, err)
	require.NoError(t, resp.Error)
	var values []string
	for {
		r, err := resp.Records.ReadRecord()
		if err != nil {
			return values
		}
		b, err := protocol.ReadAll(r.Value)
		require.NoError(t, err)
		values = append(values, string(b))
	}
}

func TestOneNodeKeepsWhatItAcknowledgedThroughKill(t *testing.T) {
	c := kafka.ForTest(t)
	brokers, pid := c.Brokers(), c.Pid(0)
	require.Len(t, brokers, 1)
	require.Empty(t, c.SecureBrokers())
	cl := client(t, brokers, nil, nil)
	createTopic(t, cl, 1)
	mustProduce(t, cl, "before")

	require.NoError(t, c.Kill(0))
	require.Zero(t, c.Pid(0))
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	require.Error(t, produce(t.Context(), cl, "lost"))

	require.NoError(t, c.Restart(t.Context(), 0))
	require.Equal(t, brokers, c.Brokers())
	mustProduce(t, cl, "after")
	require.Equal(t, []string{"before", "after"}, fetchAll(t, cl))
}

func TestThreeNodesNeedTwo(t *testing.T) {
	c := kafka.ForTest(t, func(o *kafka.Options) { o.Nodes = 3 })
	cl := client(t, c.Brokers(), nil, nil)
	createTopic(t, cl, 3)
	mustProduce(t, cl, "three")
	require.NoError(t, c.Kill(0))
	mustProduce(t, cl, "two")

	require.NoError(t, c.Kill(1))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.Error(t, produce(ctx, cl, "one"), "a single copy must not be acknowledged")

	require.NoError(t, c.Restart(t.Context(), 0, 1))
	mustProduce(t, cl, "again")
	values := fetchAll(t, cl)
	require.Subset(t, values, []string{"three", "two", "again"})
}

func TestSecuredListener(t *testing.T) {
	c := kafka.ForTest(t, func(o *kafka.Options) { o.TLS, o.User, o.Password = true, "stormbell", "hunter2-hunter2" })
	require.Len(t, c.SecureBrokers(), 1)
	require.FileExists(t, c.CAFile())
	scramOf := func(a scram.Algorithm, password string) sasl.Mechanism {
		m, err := scram.Mechanism(a, "stormbell", password)
		require.NoError(t, err)
		return m
	}
	tests := []struct {
		name      string
		tls       *tls.Config
		mechanism sasl.Mechanism
		ok        bool
	}{
		{"plain", c.TLSConfig(), plain.Mechanism{Username: "stormbell", Password: "hunter2-hunter2"}, true},
		{"scram 256", c.TLSConfig(), scramOf(scram.SHA256, "hunter2-hunter2"), true},
		{"scram 512", c.TLSConfig(), scramOf(scram.SHA512, "hunter2-hunter2"), true},
		{"wrong password", c.TLSConfig(), scramOf(scram.SHA512, "guess"), false},
		{"no user", c.TLSConfig(), nil, false},
		{"no TLS", nil, plain.Mechanism{Username: "stormbell", Password: "hunter2-hunter2"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cl := client(t, c.SecureBrokers(), tt.tls, tt.mechanism)
			cl.Timeout = 5 * time.Second
			resp, err := cl.Metadata(t.Context(), &kafkago.MetadataRequest{})
			if !tt.ok {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			got := resp.Brokers[0]
			require.Equal(t, c.SecureBrokers()[0], net.JoinHostPort(got.Host, strconv.Itoa(got.Port)))
		})
	}
}

func TestStartContinuesADirectory(t *testing.T) {
	dir := t.TempDir()
	inDir := func(o *kafka.Options) { o.Dir = dir }
	first := kafka.ForTest(t, inDir)
	cl := client(t, first.Brokers(), nil, nil)
	createTopic(t, cl, 1)
	mustProduce(t, cl, "kept")
	require.NoError(t, first.Stop())
	require.NoError(t, first.Stop())

	_, text, err := net.SplitHostPort(first.Brokers()[0])
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	second := kafka.ForTest(t, inDir, func(o *kafka.Options) { o.Port = port })
	require.Equal(t, first.Brokers(), second.Brokers())
	require.Equal(t, []string{"kept"}, fetchAll(t, client(t, second.Brokers(), nil, nil)))
}

func TestStartReportsWhatKafkaSaid(t *testing.T) {
	kafka.Require(t)
	_, err := kafka.Start(t.Context(), kafka.Options{Config: map[string]string{"num.io.threads": "none"}})
	require.ErrorContains(t, err, "num.io.threads")
}

func TestOptionsAreChecked(t *testing.T) { // before anything is looked for or started
	tests := []struct {
		name string
		opts kafka.Options
		want string
	}{
		{"two nodes", kafka.Options{Nodes: 2}, "only 1 and 3"},
		{"one port, three nodes", kafka.Options{Nodes: 3, Port: 9092}, "only one node"},
		{"user alone", kafka.Options{User: "u"}, "set together"},
		{"injection", kafka.Options{User: "u", Password: `p"; evil`}, "letters, digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := kafka.Start(t.Context(), tt.opts)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestStartIsBoundedByItsContext(t *testing.T) {
	kafka.Require(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := kafka.Start(ctx, kafka.Options{})
	require.Error(t, err)
	require.ErrorIs(t, err, context.Canceled)
}
