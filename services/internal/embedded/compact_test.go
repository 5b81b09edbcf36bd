package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// keyed is a record of a compacted topic.
type keyed struct {
	offset     int64
	key, value string
	tombstone  bool
}

// readKeyed reads a partition with the client that consumers use.
func readKeyed(t *testing.T, c *kafka.Client, topic string) (records []keyed) {
	t.Helper()
	offset, next := offsets(t, c, topic, 0)
	for offset < next {
		resp, err := c.Fetch(t.Context(), &kafka.FetchRequest{
			Topic: topic, Offset: offset, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 100 * time.Millisecond,
		})
		require.NoError(t, err)
		require.NoError(t, resp.Error)
		for {
			rec, err := resp.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if rec.Offset < offset {
				continue
			}
			k := keyed{offset: rec.Offset, tombstone: rec.Value == nil}
			key, err := kafka.ReadAll(rec.Key)
			require.NoError(t, err)
			k.key = string(key)
			if rec.Value != nil {
				value, err := kafka.ReadAll(rec.Value)
				require.NoError(t, err)
				k.value = string(value)
			}
			records = append(records, k)
			offset = rec.Offset + 1
		}
	}
	return records
}

func TestCompactionKeepsTheLastOfEachKey(t *testing.T) {
	for _, codec := range []kafka.Compression{0, kafka.Zstd, kafka.Lz4, kafka.Snappy, kafka.Gzip} {
		t.Run(codec.String(), func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Sync = false
			b := mustOpen(t, cfg, time.Now)
			c := client(t, b)
			createTopic(t, c, control, 1, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"})
			latest := make(map[string]keyed)
			random := rand.New(rand.NewPCG(1, 2))
			old := time.Now().Add(-8 * day)
			var next int64
			for range 300 {
				var records []kafka.Record
				for range 1 + random.IntN(5) {
					k := keyed{offset: next, key: fmt.Sprint("key", random.IntN(40))}
					rec := kafka.Record{Key: kafka.NewBytes([]byte(k.key)), Time: time.Now()}
					if k.tombstone = random.IntN(10) == 0; k.tombstone {
						rec.Time = old
					} else {
						k.value = fmt.Sprint(next, string(bytes.Repeat([]byte{byte(random.IntN(256))}, 10)), randomText(random, 700))
						rec.Value = kafka.NewBytes([]byte(k.value))
					}
					latest[k.key] = k
					next++
					records = append(records, rec)
				}
				resp, err := c.Produce(t.Context(), &kafka.ProduceRequest{
					Topic: control, RequiredAcks: kafka.RequireAll, Compression: codec, Records: kafka.NewRecordReader(records...),
				})
				require.NoError(t, err)
				require.NoError(t, resp.Error)
			}
			want := readKeyed(t, c, control)
			require.Len(t, want, int(next))
			before := totalSize(segmentsOf(t, b, control))
			require.NoError(t, b.Close())

			for range 2 { // the second time there is nothing left to do
				b = mustOpen(t, cfg, time.Now)
				c = client(t, b)
				segments := segmentsOf(t, b, control)
				require.Less(t, totalSize(segments), before/2)
				active := segments[len(segments)-1].base
				var expect []keyed
				for _, k := range want {
					if k.offset >= active || (latest[k.key].offset == k.offset && !k.tombstone) {
						expect = append(expect, k)
					}
				}
				require.Equal(t, expect, readKeyed(t, c, control))
				_, end := offsets(t, c, control, 0)
				require.Equal(t, next, end)
				require.NoError(t, b.Close())
			}

			b = mustOpen(t, cfg, time.Now)
			require.Equal(t, next, mustProduce(t, client(t, b), control, 0, []byte("next")))
			require.Equal(t, slices.Sorted(maps.Keys(latest)), slices.Sorted(maps.Keys(lastByKey(want))))
			conn, err := kafka.DialLeader(t.Context(), "tcp", b.Addr(), control, 0)
			require.NoError(t, err)
			defer conn.Close()
			first, _ := offsets(t, client(t, b), control, 0)
			_, err = conn.Seek(first, kafka.SeekAbsolute)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
			for offset := first; offset < next; {
				m, err := conn.ReadMessage(1 << 20)
				require.NoError(t, err)
				require.GreaterOrEqual(t, m.Offset, offset)
				offset = m.Offset + 1
			}
		})
	}
}

func lastByKey(records []keyed) map[string]keyed {
	last := make(map[string]keyed)
	for _, k := range records {
		last[k.key] = k
	}
	return last
}

// randomText does not compress below the size of a segment.
func randomText(random *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.IntN(256))
	}
	return string(b)
}

func segmentsOf(t *testing.T, b *Broker, topic string) []segment {
	t.Helper()
	segments, err := listSegments(partitionDir(b.root(), partition{topic, 0}))
	require.NoError(t, err)
	return segments
}

// Only topics that say so are compacted, and a young tombstone stays.
func TestCompactionLeavesTheRest(t *testing.T) {
	for name, tc := range map[string]struct {
		topic, policy string
		left          int
	}{
		"compacted":                  {control, "compact", 1},
		"kept but not compacted":     {control, "delete", 150},
		"compacted but not ours":     {events, "compact", 150},
		"neither kept nor compacted": {events, "delete", 150},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Sync = false
			b := mustOpen(t, cfg, time.Now)
			c := client(t, b)
			createTopic(t, c, tc.topic, 1, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: tc.policy})
			for i := range 150 {
				rec := kafka.Record{Key: kafka.NewBytes([]byte("same")), Value: kafka.NewBytes(make([]byte, 1000)), Time: time.Now()}
				if i == 0 {
					rec.Key, rec.Value = kafka.NewBytes([]byte("gone")), nil
				}
				resp, err := c.Produce(t.Context(), &kafka.ProduceRequest{
					Topic: tc.topic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(rec),
				})
				require.NoError(t, err)
				require.NoError(t, resp.Error)
			}
			require.NoError(t, b.Close())
			b = mustOpen(t, cfg, time.Now)
			segments := segmentsOf(t, b, tc.topic)
			records := readKeyed(t, client(t, b), tc.topic)
			sealed := 0
			for _, k := range records {
				if k.offset < segments[len(segments)-1].base {
					sealed++
				}
			}
			if tc.left == 1 {
				require.Equal(t, 1, sealed, "the tombstone")
				require.True(t, records[0].tombstone)
			} else {
				require.Len(t, records, tc.left)
			}
		})
	}
}
