package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/stretchr/testify/require"
)

const (
	events  = "stormbell.events"
	control = "stormbell.control"
)

// testClock stands still unless moved.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logBuffer collects log lines for assertions.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// testConfig has small segments, no authentication and no floor on free space.
func testConfig(dir string) Config {
	cfg := DefaultConfig(dir)
	cfg.Auth, cfg.MinFreeBytes, cfg.SegmentBytes = false, 0, minSegmentBytes
	return cfg
}

func mustOpen(t testing.TB, cfg Config, clock func() time.Time) *Broker {
	t.Helper()
	b, err := Open(cfg, quiet(), clock)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// client returns a kafka-go client that authenticates if the broker asks.
func client(t testing.TB, b *Broker) *kafka.Client {
	t.Helper()
	transport := &kafka.Transport{DialTimeout: 5 * time.Second, MetadataTTL: time.Second}
	if name, password := b.Credential(); name != "" {
		transport.SASL = plain.Mechanism{Username: name, Password: password}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(b.Addr()), Timeout: 30 * time.Second, Transport: transport}
}

func createTopic(t testing.TB, c *kafka.Client, topic string, partitions int, configs ...kafka.ConfigEntry) {
	t.Helper()
	resp, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: configs,
	}}})
	require.NoError(t, err)
	require.NoError(t, resp.Errors[topic])
}

// produce writes values in one batch and returns the offset of the first.
func produce(ctx context.Context, c *kafka.Client, topic string, part int, values ...[]byte) (int64, error) {
	records := make([]kafka.Record, len(values))
	for i, v := range values {
		records[i] = kafka.Record{Value: kafka.NewBytes(v), Time: time.Now()}
	}
	resp, err := c.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: part, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err != nil {
		return 0, err
	}
	return resp.BaseOffset, resp.Error
}

func mustProduce(t testing.TB, c *kafka.Client, topic string, part int, values ...[]byte) int64 {
	t.Helper()
	offset, err := produce(t.Context(), c, topic, part, values...)
	require.NoError(t, err)
	return offset
}

// fill produces n records of size bytes, one batch each.
func fill(t testing.TB, c *kafka.Client, topic string, part, n, size int) {
	t.Helper()
	for i := range n {
		mustProduce(t, c, topic, part, append(fmt.Appendf(nil, "%08d", i), bytes.Repeat([]byte{'x'}, size-8)...))
	}
}

// offsets returns the first offset and the one after the last.
func offsets(t testing.TB, c *kafka.Client, topic string, part int) (first, next int64) {
	t.Helper()
	resp, err := c.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(part), kafka.LastOffsetOf(part)}},
	})
	require.NoError(t, err)
	require.Len(t, resp.Topics[topic], 1)
	require.NoError(t, resp.Topics[topic][0].Error)
	return resp.Topics[topic][0].FirstOffset, resp.Topics[topic][0].LastOffset
}

// setOffset commits an offset of partition 0 for a group without members.
func setOffset(t testing.TB, c *kafka.Client, group, topic string, offset int64) {
	t.Helper()
	require.NoError(t, commitOffset(t.Context(), c, group, topic, 0, offset))
}

func commitOffset(ctx context.Context, c *kafka.Client, group, topic string, part int, offset int64) error {
	resp, err := c.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: part, Offset: offset}}},
	})
	if err != nil {
		return err
	}
	return resp.Topics[topic][0].Error
}

// commitEnd commits, for a group without members, all that it can see.
func commitEnd(ctx context.Context, c *kafka.Client, group, topic string, part int) error {
	resp, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(part)}}})
	if err != nil {
		return err
	}
	return commitOffset(ctx, c, group, topic, part, resp.Topics[topic][0].LastOffset)
}

// groupOffset is what a group has committed of a partition of events.
func groupOffset(t testing.TB, c *kafka.Client, group string, part int) int64 {
	t.Helper()
	resp, err := c.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{events: {part}}})
	require.NoError(t, err)
	require.NoError(t, resp.Error)
	return resp.Topics[events][0].CommittedOffset
}

// readAll returns the values of a partition from offset to its end.
func readAll(t testing.TB, c *kafka.Client, topic string, part int, offset int64) (values []string) {
	t.Helper()
	_, next := offsets(t, c, topic, part)
	for offset < next {
		resp, err := c.Fetch(t.Context(), &kafka.FetchRequest{
			Topic: topic, Partition: part, Offset: offset, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 100 * time.Millisecond,
		})
		require.NoError(t, err)
		require.NoError(t, resp.Error)
		for {
			rec, err := resp.Records.ReadRecord()
			if err != nil {
				break
			}
			if rec.Offset < offset {
				continue
			}
			value, err := kafka.ReadAll(rec.Value)
			require.NoError(t, err)
			values = append(values, string(value))
			offset = rec.Offset + 1
		}
	}
	return values
}

// backdateCommits rewrites the entries of the engine's log of group offsets:
// length, CRC, version, JSON, all but the JSON little-endian.
func backdateCommits(t testing.TB, raw []byte, when time.Time) (out []byte, n int) {
	t.Helper()
	for len(raw) > 0 {
		size := binary.LittleEndian.Uint32(raw)
		var entry map[string]any
		require.NoError(t, json.Unmarshal(raw[10:8+size], &entry))
		if entry["type"] == "commit" {
			entry["lc"] = when.UnixMilli()
			n++
		}
		data, err := json.Marshal(entry)
		require.NoError(t, err)
		body := append(slices.Clone(raw[8:10]), data...)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(body)))
		out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(body, castagnoli()))
		out = append(out, body...)
		raw = raw[8+size:]
	}
	return out, n
}

// batch encodes a record batch of n records as it lies in a segment.
func batch(first int64, n int32, records []byte) []byte {
	raw := make([]byte, batchHeader, batchHeader+len(records))
	binary.BigEndian.PutUint64(raw, uint64(first))
	binary.BigEndian.PutUint32(raw[8:], uint32(batchHeader-lengthFixed+len(records)))
	raw[batchMagicAt] = 2
	binary.BigEndian.PutUint32(raw[23:], uint32(n-1))
	binary.BigEndian.PutUint32(raw[57:], uint32(n))
	raw = append(raw, records...)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[crcFrom:], castagnoli()))
	return raw
}
