package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
)

// ErrTooLarge says that the broker takes no record of that size: trying again
// is useless.
var ErrTooLarge = errors.New("records are larger than the broker takes (max.message.bytes of the topic)")

// Produce writes messages to one partition in one request and returns the
// offset of the first once all in-sync replicas have them. Faults that may pass
// are tried again until ctx or the produce time-out ends: a message may then
// stand in the log twice. After an error the messages may still be written, now
// or later; every record carries an id by which readers recognise it. What the
// messages point to is not read after the return.
func (c *Client) Produce(ctx context.Context, topic string, partition int, msgs []Message) (base int64, err error) {
	if len(msgs) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProduceTimeout)
	defer cancel()
	size := 0
	for i := range msgs {
		size += msgs[i].size()
		if msgs[i].Key == nil && compacted(topic) {
			return 0, fmt.Errorf("produce to %s/%d: record %d has no key, which compaction needs", topic, partition, i)
		}
	}
	if size > maxUncompressed {
		return 0, fmt.Errorf("produce %d bytes to %s/%d: %w", size, topic, partition, ErrTooLarge)
	}
	records := c.batcher.encode(msgs)
	start, attempts := time.Now(), int64(0)
	err = c.retry(ctx, "produce to "+topic, func() (err error) {
		attempts++
		base, err = c.produceOnce(ctx, topic, partition, records)
		return err
	})
	attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("topic", topic)))
	if attempts > 1 {
		c.metrics.retries.Add(ctx, attempts-1, attrs)
	}
	if err != nil {
		c.metrics.failures.Add(ctx, 1, attrs)
		if errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge) {
			err = fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		// A request that has been given up may still read the records.
		return 0, fmt.Errorf("produce %d records to %s/%d: %w", len(msgs), topic, partition, err)
	}
	if attempts == 1 {
		c.batcher.release(records)
	}
	c.metrics.produce.Record(ctx, time.Since(start).Seconds(), attrs)
	c.metrics.batch.Record(ctx, int64(len(msgs)), attrs)
	c.metrics.records.Add(ctx, int64(len(msgs)), attrs)
	return base, nil
}

func (c *Client) produceOnce(ctx context.Context, topic string, partition int, records batch) (int64, error) {
	res, err := c.kafka.RawProduce(ctx, &kafka.RawProduceRequest{
		Topic: c.full(topic), Partition: partition, RequiredAcks: kafka.RequireAll,
		RawRecords: protocol.RawRecordSet{Reader: c.batcher.request(records, time.Now())},
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

// ProduceKeyed writes messages to the partitions of their keys, one request a
// partition (more where they exceed 900 kB), and returns nil once all are
// acknowledged. Messages with the same key keep their order. After an error
// some may be written.
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
		g.Go(func() error { return c.produceAll(ctx, topic, p, list) })
	}
	return g.Wait()
}

// produceAll writes messages in order, in as many requests as it takes.
func (c *Client) produceAll(ctx context.Context, topic string, partition int, msgs []Message) error {
	for len(msgs) > 0 {
		n := chunk(msgs)
		_, err := c.Produce(ctx, topic, partition, msgs[:n])
		if topic == TopicDLQ && errors.Is(err, ErrTooLarge) {
			err = c.produceDead(ctx, partition, msgs[:n])
		}
		if err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// maxRequest is the most that one produce carries, in bytes before compression:
// the default limit of brokers is 1 MiB.
const maxRequest = 900_000

// compacted is true for the topics whose records Kafka refuses without a key.
// The embedded engine takes them: a mistake must show on both.
func compacted(topic string) bool { return topic == TopicControl || topic == TopicState }

// maxUncompressed is far beyond what any broker takes: a connection that it
// closes over the size would look like a fault that may pass.
const maxUncompressed = 8 << 20

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

// Partition is the partition of a key among n, as Java's default partitioner
// has it (murmur2).
func Partition(key []byte, n int) int {
	return int(murmur2(key)&0x7fffffff) % n
}
