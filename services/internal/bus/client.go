package bus

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.opentelemetry.io/otel/metric"

	"github.com/stormbell/stormbell/services/internal/follow"
)

// Topics, without the prefix.
const (
	TopicEvents     = "events"
	TopicDetections = "detections"
	TopicAlerts     = "alerts"
	TopicDeliveries = "deliveries"
	TopicControl    = "control"
	TopicState      = "state"
	TopicDLQ        = "dlq"
	TopicStatus     = "status"
)

// Header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Message is a record to produce.
type Message struct {
	Key, Value []byte
	Headers    []Header
}

// Record is a record as read.
type Record struct {
	// Topic without the prefix.
	Topic     string
	Partition int
	Offset    int64
	// Time when the record was sent to the broker, by the sender's clock. Where
	// brokers stamp records themselves, OffsetAtTime goes by their clock: up to
	// the produce time-out, and what the two clocks differ, later.
	Time time.Time
	// Key and Value: nil is none (as a value: a tombstone), not the same as empty.
	Key, Value []byte
	Headers    []Header
}

// Header returns the value of the last header of that name, nil without one.
func (r *Record) Header(key string) []byte {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// Client speaks to the brokers. It is safe for concurrent use.
type Client struct {
	cfg       Config
	log       *slog.Logger
	kafka     *kafka.Client
	transport *kafka.Transport
	dialer    *kafka.Dialer
	batcher   *batcher
	metrics   *metrics
	files     *follow.Watch

	mu         sync.Mutex
	partitions map[string]int
	joined     map[string]bool // by group that Consume is in: whether it is a member now
}

const (
	// requestTimeout bounds every request but a produce. Long polls take 250 ms.
	requestTimeout = 10 * time.Second
	dialTimeout    = 5 * time.Second
	idleTimeout    = 30 * time.Second
	metadataTTL    = 2 * time.Second
)

// New returns a client; it connects when first used. Close it after all that
// uses it has returned.
func New(cfg Config, log *slog.Logger, meters metric.MeterProvider) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	codec, err := compression(cfg.Compression)
	if err != nil {
		return nil, err
	}
	batcher, err := newBatcher(codec)
	if err != nil {
		return nil, err
	}
	files, err := follow.NewWatch(log, meters)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	dial, err := cfg.secureDial(files)
	if err != nil {
		return nil, err
	}
	auth, err := cfg.saslMechanism(files)
	if err != nil {
		return nil, err
	}
	transport, dialer := cfg.transportTo(dial, auth)
	c := &Client{
		cfg: cfg, log: log, transport: transport, dialer: dialer, batcher: batcher, files: files,
		// Every call brings a deadline of its own, which is the nearer one.
		kafka:      &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Transport: transport, Timeout: slack},
		partitions: map[string]int{}, joined: map[string]bool{},
	}
	if c.metrics, err = newMetrics(meters.Meter("stormbell/bus")); err != nil {
		return nil, err
	}
	return c, nil
}

// Close lets connections go; it does not wait for requests under way.
func (c *Client) Close() {
	c.metrics.close()
	c.transport.CloseIdleConnections()
}

func (c *Client) full(topic string) string { return c.cfg.TopicPrefix + topic }

// Partitions is how many partitions a topic has.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	c.mu.Lock()
	n, ok := c.partitions[topic]
	c.mu.Unlock()
	if ok {
		return n, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProduceTimeout)
	defer cancel()
	err := c.retry(ctx, "count partitions of "+topic, func() (err error) {
		n, err = c.countPartitions(ctx, topic)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("partitions of %s: %w", topic, err)
	}
	c.mu.Lock()
	c.partitions[topic] = n // fixed for good, see EnsureTopics
	c.mu.Unlock()
	return n, nil
}

func (c *Client) countPartitions(ctx context.Context, topic string) (int, error) {
	res, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{c.full(topic)}})
	if err != nil {
		return 0, err
	}
	for _, t := range res.Topics {
		if t.Name != c.full(topic) {
			continue
		}
		if t.Error != nil {
			return 0, t.Error
		}
		return len(t.Partitions), nil
	}
	return 0, kafka.UnknownTopicOrPartition
}

// Healthy returns nil if a broker answers within 3 s.
func (c *Client) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err != nil {
		return fmt.Errorf("kafka does not answer: %w", err)
	}
	return nil
}
