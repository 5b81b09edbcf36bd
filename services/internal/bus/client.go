package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
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
	// Time of the write.
	Time       time.Time
	Key, Value []byte
	Headers    []Header
}

// Header returns the value of the last header of that name, nil without one.
func (r *Record) Header(key string) []byte {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value
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
	codec     kafka.Compression
	metrics   metrics

	mu         sync.Mutex
	partitions map[string]int
}

type metrics struct {
	produce  metric.Float64Histogram
	records  metric.Int64Counter
	retries  metric.Int64Counter
	requeues metric.Int64Counter
}

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
	tlsConfig, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	auth, err := cfg.saslMechanism()
	if err != nil {
		return nil, err
	}
	transport := &kafka.Transport{
		ClientID: cfg.ClientID, TLS: tlsConfig, SASL: auth,
		DialTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second, MetadataTTL: 5 * time.Second,
	}
	c := &Client{
		cfg: cfg, log: log, transport: transport, codec: codec,
		kafka:      &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Transport: transport, Timeout: cfg.ProduceTimeout},
		dialer:     &kafka.Dialer{ClientID: cfg.ClientID, Timeout: 5 * time.Second, DualStack: true, TLS: tlsConfig, SASLMechanism: auth},
		partitions: map[string]int{},
	}
	if err := c.metrics.register(meters.Meter("stormbell/bus")); err != nil {
		return nil, err
	}
	return c, nil
}

func (m *metrics) register(meter metric.Meter) (err error) {
	var errs []error
	m.produce, err = meter.Float64Histogram("stormbell_bus_produce_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("Time from building a produce to its acknowledgement, retries included."))
	errs = append(errs, err)
	m.records, err = meter.Int64Counter("stormbell_bus_produced_records_total", metric.WithDescription("Acknowledged records."))
	errs = append(errs, err)
	m.retries, err = meter.Int64Counter("stormbell_bus_produce_retries_total", metric.WithDescription("Produces sent again after a fault that may pass."))
	errs = append(errs, err)
	m.requeues, err = meter.Int64Counter("stormbell_bus_handler_restarts_total", metric.WithDescription("Times a partition's handler returned an error and was started again."))
	return errors.Join(append(errs, err)...)
}

// Close lets idle connections go.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

func (c *Client) full(topic string) string { return c.cfg.TopicPrefix + topic }

// Produce writes messages to one partition in one request and returns the
// offset of the first once all in-sync replicas have them. Faults that may pass
// are tried again until ctx or the produce time-out ends: a message may then
// stand in the log twice. After an error the messages may still be written;
// every record carries an id by which readers recognise it.
func (c *Client) Produce(ctx context.Context, topic string, partition int, msgs []Message) (base int64, err error) {
	if len(msgs) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProduceTimeout)
	defer cancel()
	start := time.Now()
	records := make([]kafka.Record, len(msgs))
	for attempt := 0; ; attempt++ {
		fill(records, msgs, start)
		base, err = c.produceOnce(ctx, topic, partition, records)
		if err == nil {
			attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("topic", topic)))
			c.metrics.produce.Record(ctx, time.Since(start).Seconds(), attrs)
			c.metrics.records.Add(ctx, int64(len(msgs)), attrs)
			return base, nil
		}
		if !temporary(err) || !pause(ctx, attempt) {
			return 0, fmt.Errorf("produce %d records to %s/%d: %w", len(msgs), topic, partition, err)
		}
		c.metrics.retries.Add(ctx, 1)
	}
}

func (c *Client) produceOnce(ctx context.Context, topic string, partition int, records []kafka.Record) (int64, error) {
	res, err := c.kafka.Produce(ctx, &kafka.ProduceRequest{
		Topic: c.full(topic), Partition: partition, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(records...), Compression: c.codec,
	})
	if err != nil {
		return 0, err
	}
	if res.Error != nil {
		return 0, res.Error
	}
	for _, e := range res.RecordErrors {
		return 0, e
	}
	return res.BaseOffset, nil
}

func fill(records []kafka.Record, msgs []Message, now time.Time) {
	var last []Header
	var converted []kafka.Header
	for i, m := range msgs {
		// Messages of one request share their headers: convert them once.
		if len(m.Headers) > 0 && (len(last) != len(m.Headers) || &last[0] != &m.Headers[0]) {
			last, converted = m.Headers, make([]kafka.Header, len(m.Headers))
			for k, h := range m.Headers {
				converted[k] = kafka.Header{Key: h.Key, Value: h.Value}
			}
		}
		records[i] = kafka.Record{Time: now, Key: bytesOf(m.Key), Value: bytesOf(m.Value)}
		if len(m.Headers) > 0 {
			records[i].Headers = converted
		}
	}
}

func bytesOf(b []byte) protocol.Bytes {
	if b == nil {
		return nil
	}
	return protocol.NewBytes(b)
}

// ProduceKeyed writes messages to the partitions of their keys, one request a
// partition, and returns nil once all are acknowledged. Messages with the same
// key keep their order.
func (c *Client) ProduceKeyed(ctx context.Context, topic string, msgs []Message) error {
	n, err := c.Partitions(ctx, topic)
	if err != nil {
		return err
	}
	byPartition := map[int][]Message{}
	for _, m := range msgs {
		p := Partition(m.Key, n)
		byPartition[p] = append(byPartition[p], m)
	}
	g, ctx := errgroup.WithContext(ctx)
	for p, list := range byPartition {
		g.Go(func() error {
			for len(list) > 0 {
				k := chunk(list)
				if _, err := c.Produce(ctx, topic, p, list[:k]); err != nil {
					return err
				}
				list = list[k:]
			}
			return nil
		})
	}
	return g.Wait()
}

// maxRequest is the most that one produce carries, in bytes before compression:
// the default limit of brokers is 1 MiB.
const maxRequest = 900_000

func chunk(msgs []Message) int {
	size := 0
	for i := range msgs {
		if size += msgs[i].size(); size > maxRequest && i > 0 {
			return i
		}
	}
	return len(msgs)
}

func (m *Message) size() int {
	n := len(m.Key) + len(m.Value) + 24
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value) + 4
	}
	return n
}

// Partition is the partition of a key, as Java's default partitioner has it
// (murmur2).
func Partition(key []byte, n int) int {
	return int(murmur2(key)&0x7fffffff) % n
}

// Partitions is how many partitions a topic has.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	c.mu.Lock()
	n, ok := c.partitions[topic]
	c.mu.Unlock()
	if ok {
		return n, nil
	}
	for attempt := 0; ; attempt++ {
		n, err := c.countPartitions(ctx, topic)
		if err == nil {
			c.mu.Lock()
			c.partitions[topic] = n
			c.mu.Unlock()
			return n, nil
		}
		if !temporary(err) || !pause(ctx, attempt) {
			return 0, fmt.Errorf("partitions of %s: %w", topic, err)
		}
	}
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

// Healthy reports whether a broker answers.
func (c *Client) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err != nil {
		return fmt.Errorf("kafka does not answer: %w", err)
	}
	return nil
}

// temporary reports whether an error may pass by itself. A topic that a broker
// does not know yet is one: metadata takes a moment to spread.
func temporary(err error) bool {
	var k kafka.Error
	if errors.As(err, &k) {
		return k.Temporary() || k == kafka.UnknownTopicOrPartition
	}
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.DeadlineExceeded)
}

// pause waits a little longer each time and reports false once ctx is done.
func pause(ctx context.Context, attempt int) bool {
	d := min(time.Second, 10*time.Millisecond<<min(attempt, 7))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
