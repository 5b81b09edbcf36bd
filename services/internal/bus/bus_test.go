package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// config is for the broker that STORMBELL_TEST_KAFKA names, else for an
// embedded one. Topics get a prefix of the test's own.
func config(t testing.TB) bus.Config {
	t.Helper()
	cfg := bus.DefaultConfig()
	if list := os.Getenv("STORMBELL_TEST_KAFKA"); list != "" {
		cfg.Brokers = strings.Split(list, ",")
	} else {
		cfg.Brokers = []string{embeddedtest.Start(t).Addr()}
	}
	cfg.TopicPrefix = fmt.Sprintf("t%d.", time.Now().UnixNano())
	return cfg
}

func open(t testing.TB, cfg bus.Config) *bus.Client {
	t.Helper()
	c, err := bus.New(cfg, slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func topics(partitions int) bus.TopicsConfig {
	t := bus.DefaultTopicsConfig()
	t.Partitions, t.ReplicationFactor = partitions, 1
	return t
}

func start(t testing.TB, partitions int) (*bus.Client, bus.Config) {
	t.Helper()
	cfg := config(t)
	c := open(t, cfg)
	_, err := c.EnsureTopics(t.Context(), topics(partitions))
	require.NoError(t, err)
	return c, cfg
}

func messages(n int) []bus.Message {
	var out []bus.Message
	for i := range n {
		out = append(out, bus.Message{Value: fmt.Append(nil, i)})
	}
	return out
}

func TestProduceAndFetch(t *testing.T) {
	c, _ := start(t, 2)
	headers := []bus.Header{{Key: "traceparent", Value: []byte("00-x")}, {Key: "tenant", Value: []byte("a")}}
	before := time.Now().Add(-time.Second)
	base, err := c.Produce(t.Context(), bus.TopicEvents, 1, []bus.Message{
		{Key: []byte("k"), Value: []byte("v"), Headers: headers}, {Key: []byte("gone")}, {Value: []byte{}},
	})
	require.NoError(t, err)
	require.Zero(t, base)
	recs, end, err := c.Fetch(t.Context(), bus.TopicEvents, 1, 0)
	require.NoError(t, err)
	require.EqualValues(t, 3, end)
	require.Len(t, recs, 3)
	require.Equal(t, bus.TopicEvents, recs[0].Topic)
	require.Equal(t, headers, recs[0].Headers)
	require.Equal(t, "a", string(recs[0].Header("tenant")))
	require.Nil(t, recs[1].Value, "a tombstone is nil")
	require.NotNil(t, recs[2].Value)
	require.WithinRange(t, recs[0].Time, before, time.Now().Add(time.Second))

	recs, _, err = c.Fetch(t.Context(), bus.TopicEvents, 1, 2)
	require.NoError(t, err)
	require.Len(t, recs, 1, "a batch that begins earlier is cut")
	recs, _, err = c.Fetch(t.Context(), bus.TopicEvents, 1, 3)
	require.NoError(t, err)
	require.Empty(t, recs)
}

func TestOffsetOutsideTheLogIsAnErrorAndNeverMoved(t *testing.T) {
	cfg := config(t)
	if os.Getenv("STORMBELL_TEST_KAFKA") == "" { // the embedded broker lets no one else delete
		port := freePort(t)
		fake(t, t.TempDir(), port)
		cfg = at(port)
	}
	c := open(t, cfg)
	_, err := c.EnsureTopics(t.Context(), topics(1))
	require.NoError(t, err)
	for range 10 {
		_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
		require.NoError(t, err)
	}
	trim(t, cfg, bus.TopicEvents, 4)
	first, end, err := c.Offsets(t.Context(), bus.TopicEvents, 0)
	require.NoError(t, err)
	require.Equal(t, []int64{4, 10}, []int64{first, end})
	for name, offset := range map[string]int64{"below the start": 3, "at nought": 0, "beyond the end": 11, "last": -1, "first": -2} {
		var out *bus.OutOfRangeError
		_, _, err := c.Fetch(t.Context(), bus.TopicEvents, 0, offset)
		require.ErrorAs(t, err, &out, name)
		require.Equal(t, bus.OutOfRangeError{Topic: bus.TopicEvents, Offset: offset, First: 4, End: 10}, *out, name)
		err = c.Follow(t.Context(), bus.TopicEvents, 0, offset, func([]bus.Record) error { return nil })
		require.ErrorAs(t, err, &out, name)
		err = c.Read(t.Context(), bus.TopicEvents, 0, offset, 12, func([]bus.Record) error { return nil })
		require.ErrorAs(t, err, &out, name)
	}
	require.Len(t, values(t, c), 6)
}

func TestReadDoesNotWaitForATailThatIsLost(t *testing.T) {
	c, _ := start(t, 1)
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(3))
	require.NoError(t, err)
	n := 0
	err = c.Read(t.Context(), bus.TopicEvents, 0, 0, 5, func(r []bus.Record) error { n += len(r); return nil })
	var out *bus.OutOfRangeError
	require.ErrorAs(t, err, &out)
	require.Equal(t, bus.OutOfRangeError{Topic: bus.TopicEvents, Offset: 4, First: 0, End: 3}, *out)
	require.Equal(t, 3, n)
}

// trim deletes what stands below an offset of partition 0.
func trim(t *testing.T, cfg bus.Config, topic string, before int64) {
	t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...))
	require.NoError(t, err)
	defer k.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	at := kmsg.NewDeleteRecordsRequestTopic()
	at.Topic = cfg.TopicPrefix + topic
	at.Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: before}}
	req.Topics = append(req.Topics, at)
	req.TimeoutMillis = 5000
	res, err := req.RequestWith(t.Context(), k)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode))
}

func TestOffsetAtTime(t *testing.T) {
	c, _ := start(t, 1)
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	recs, _, err := c.Fetch(t.Context(), bus.TopicEvents, 0, 0)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		at   time.Time
		want int64
	}{"before": {recs[0].Time.Add(-time.Hour), 0}, "at": {recs[0].Time, 0}, "after": {recs[0].Time.Add(time.Hour), 1}} {
		got, err := c.OffsetAtTime(t.Context(), bus.TopicEvents, 0, tc.at)
		require.NoError(t, err)
		require.Equal(t, tc.want, got, name)
	}
}

func TestKeyedLandsWhereJavaPutsIt(t *testing.T) {
	for _, key := range []string{"", "a", "21", "abc", "abcd", "foobar", "\xff\x80\x81"} {
		require.Equal(t, kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(key)}, 0, 1, 2, 3, 4, 5, 6), bus.Partition([]byte(key), 7), "%q", key)
	}
	c, _ := start(t, 5)
	var msgs []bus.Message
	for i := range 100 {
		msgs = append(msgs, bus.Message{Key: fmt.Append(nil, i%10), Value: fmt.Append(nil, i)})
	}
	require.NoError(t, c.ProduceKeyed(t.Context(), bus.TopicDetections, msgs))
	seen := 0
	for p := range 5 {
		recs, _, err := c.Fetch(t.Context(), bus.TopicDetections, p, 0)
		require.NoError(t, err)
		last := map[string]string{}
		for _, r := range recs {
			require.Equal(t, p, bus.Partition(r.Key, 5))
			if was, ok := last[string(r.Key)]; ok {
				require.Less(t, len(was)*100, len(r.Value)*100+1, "order of a key")
			}
			last[string(r.Key)] = string(r.Value)
		}
		seen += len(recs)
	}
	require.Equal(t, 100, seen)
}

func TestReadStopsAtItsEnd(t *testing.T) {
	c, _ := start(t, 1)
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(10))
	require.NoError(t, err)
	n := 0
	require.NoError(t, c.Read(t.Context(), bus.TopicEvents, 0, 2, 7, func(r []bus.Record) error { n += len(r); return nil }))
	require.Equal(t, 5, n)
}

func TestFollowSeesWhatComes(t *testing.T) {
	c, _ := start(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := errors.New("seen enough")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 20 {
			if _, err := c.Produce(ctx, bus.TopicEvents, 0, []bus.Message{{Value: fmt.Append(nil, i)}}); err != nil {
				return
			}
		}
	})
	var got []string
	err := c.Follow(ctx, bus.TopicEvents, 0, 0, func(r []bus.Record) error {
		for _, x := range r {
			got = append(got, string(x.Value))
		}
		if len(got) == 20 {
			return done
		}
		return nil
	})
	require.ErrorIs(t, err, done)
	require.Equal(t, "19", got[19])
	cancel()
	wg.Wait()
}

func TestTopicsAreHeldToTheirCount(t *testing.T) {
	c, cfg := start(t, 2)
	differs, err := c.EnsureTopics(t.Context(), topics(2))
	require.NoError(t, err)
	require.Empty(t, differs, "what we made is as we want it")
	_, err = open(t, cfg).EnsureTopics(t.Context(), topics(3))
	require.ErrorContains(t, err, "has 2 partitions, configured are 3")
	other := topics(2)
	other.Retention = 100 * time.Hour
	differs, err = c.EnsureTopics(t.Context(), other)
	require.NoError(t, err)
	require.Contains(t, strings.Join(differs, "\n"), "retention.ms=604800000, wanted is 360000000")
}

func TestProcessesThatStartTogetherAgreeOnTopics(t *testing.T) {
	cfg := config(t)
	var wg sync.WaitGroup
	var errs [4]error
	for i := range errs {
		wg.Go(func() { _, errs[i] = open(t, cfg).EnsureTopics(t.Context(), topics(2)) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	c := open(t, cfg)
	for p := range 2 {
		_, err := c.Produce(t.Context(), bus.TopicState, p, []bus.Message{{Key: []byte("k")}})
		require.NoError(t, err)
		_, err = c.Produce(t.Context(), bus.TopicState, p, messages(1))
		require.ErrorContains(t, err, "record 0 has no key", "whether the broker minds or not")
	}
}

func TestDeadLetterIsWhole(t *testing.T) {
	c, _ := start(t, 1)
	rec := &bus.Record{
		Topic: bus.TopicEvents, Partition: 3, Offset: 42, Time: time.UnixMilli(1_700_000_000_123), Key: []byte("k"), Value: []byte{0xff, 0},
		Headers: []bus.Header{{Key: "schema", Value: []byte("x")}, {Key: "tenant", Value: []byte("acme")}, {Key: "traceparent", Value: []byte("00-1")}},
	}
	m, err := bus.DeadLetter(rec, "detect", strings.Repeat("x", 9000), 3)
	require.NoError(t, err)
	again, err := bus.DeadLetter(rec, "detect", strings.Repeat("x", 9000), 3)
	require.NoError(t, err)
	require.Equal(t, m, again, "however often it is written")
	require.Equal(t, "events/3/42", string(m.Key))
	require.NoError(t, c.ProduceKeyed(t.Context(), bus.TopicDLQ, []bus.Message{m, {Key: m.Key, Value: m.Value}}))
	recs, _, err := c.Fetch(t.Context(), bus.TopicDLQ, 0, 0)
	require.NoError(t, err)
	require.Len(t, recs, 2)
	require.Equal(t, "acme", string(recs[0].Header("tenant")))
	require.Equal(t, "00-1", string(recs[0].Header("traceparent")), "it stays in its trace")
	d, whole, ok := bus.ReadDeadLetter(&recs[0])
	require.True(t, ok)
	require.True(t, whole)
	require.Equal(t, rec.Value, d.GetValue())
	require.Equal(t, rec.Key, d.GetKey())
	require.Len(t, d.GetHeaders(), 3)
	require.Equal(t, []any{"events", int32(3), int64(42), "detect", "acme", uint32(3), int64(1_700_000_000_123)},
		[]any{d.GetTopic(), d.GetPartition(), d.GetOffset(), d.GetStage(), d.GetTenant(), d.GetAttempts(), d.GetTimeMs()})
	require.Len(t, d.GetReason(), 2000)
	_, _, ok = bus.ReadDeadLetter(&recs[1])
	require.False(t, ok, "a record of another schema")
}

// TestDeadLetterIsOfForeignBytes: what is buried may hold anything.
func TestDeadLetterIsOfForeignBytes(t *testing.T) {
	rec := &bus.Record{Topic: bus.TopicAlerts, Headers: []bus.Header{{Key: "\xff", Value: []byte{0xfe}}, {Key: "tenant", Value: []byte("a\xffb")}}}
	m, err := bus.DeadLetter(rec, "notify", "bad \xff bytes", -1)
	require.NoError(t, err)
	d, whole, ok := bus.ReadDeadLetter(&bus.Record{Value: m.Value, Headers: m.Headers})
	require.True(t, ok && whole)
	require.Equal(t, "bad \uFFFD bytes", d.GetReason())
	require.Equal(t, "a\uFFFDb", d.GetTenant())
	require.Zero(t, d.GetAttempts())

	rec.Value = make([]byte, bus.MaxDead)
	m, err = bus.DeadLetter(rec, "notify", "too much", 1)
	require.NoError(t, err)
	require.Less(t, len(m.Value), 1000)
	d, whole, ok = bus.ReadDeadLetter(&bus.Record{Value: m.Value, Headers: m.Headers})
	require.True(t, ok)
	require.False(t, whole)
	require.Contains(t, d.GetReason(), "too large to keep")
}

// text compresses about as well as events do.
func text(n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		b = fmt.Appendf(b, `"field%d":"%x",`, len(b)%7, rand.Uint64())
	}
	return b[:n]
}

func BenchmarkProduce(b *testing.B) {
	for _, n := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			c, _ := start(b, 1)
			msgs := make([]bus.Message, n)
			for i := range msgs {
				msgs[i].Value = text(1300)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Produce(b.Context(), bus.TopicEvents, 0, msgs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkFetch(b *testing.B) {
	c, _ := start(b, 1)
	const n = 5000
	msgs := make([]bus.Message, 500)
	for i := range msgs {
		msgs[i].Value = text(1300)
	}
	for range n / len(msgs) {
		_, err := c.Produce(b.Context(), bus.TopicEvents, 0, msgs)
		require.NoError(b, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(b.Context(), bus.TopicEvents, 0, 0, n, func([]bus.Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
