package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/segmentio/kafka-go.(*connPool).discover"))
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

func TestOffsetOutsideTheLogIsAnError(t *testing.T) {
	c, _ := start(t, 1)
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(3))
	require.NoError(t, err)
	var out *bus.OutOfRangeError
	_, _, err = c.Fetch(t.Context(), bus.TopicEvents, 0, 7)
	require.ErrorAs(t, err, &out)
	require.EqualValues(t, 3, out.End)
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
	for _, d := range differs {
		require.NotContains(t, d, "partitions")
	}
	_, err = open(t, cfg).EnsureTopics(t.Context(), topics(3))
	require.ErrorContains(t, err, "has 2 partitions, configured are 3")
	other := topics(2)
	other.Retention = 100 * time.Hour
	differs, err = c.EnsureTopics(t.Context(), other)
	require.NoError(t, err)
	require.Contains(t, strings.Join(differs, "\n"), "retention.ms=604800000, wanted is 360000000")
}

func TestProducerGroupsAndBuildsLate(t *testing.T) {
	c, _ := start(t, 1)
	p := bus.NewProducer(c, bus.TopicEvents, bus.DefaultProducerConfig())
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range 200 {
		wg.Go(func() {
			errs <- p.Submit(t.Context(), 0, 10, func(dst []bus.Message) []bus.Message {
				return append(dst, bus.Message{Value: fmt.Append(nil, i)})
			})
		})
	}
	wg.Wait()
	p.Close()
	for range 200 {
		require.NoError(t, <-errs)
	}
	seen := map[string]bool{}
	require.NoError(t, c.Read(t.Context(), bus.TopicEvents, 0, 0, 200, func(r []bus.Record) error {
		for _, x := range r {
			seen[string(x.Value)] = true
		}
		return nil
	}))
	require.Len(t, seen, 200)
	require.Zero(t, p.Queued())
	require.ErrorIs(t, p.Submit(t.Context(), 0, 1, nil), bus.ErrClosed)
}

func TestProducerRefusesBeyondItsBound(t *testing.T) {
	c, _ := start(t, 1)
	cfg := bus.DefaultProducerConfig()
	cfg.MaxQueuedBytes = 100
	p := bus.NewProducer(c, bus.TopicEvents, cfg)
	defer p.Close()
	building, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- p.Submit(t.Context(), 0, 90, func(dst []bus.Message) []bus.Message {
			close(building)
			<-release
			return append(dst, bus.Message{Value: []byte("a")})
		})
	}()
	<-building
	require.ErrorIs(t, p.Submit(t.Context(), 0, 20, nil), bus.ErrQueueFull)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := p.Submit(ctx, 0, 5, func(dst []bus.Message) []bus.Message { return append(dst, bus.Message{Value: []byte("b")}) })
	require.ErrorIs(t, err, bus.ErrOutcomeUnknown)
	close(release)
	require.NoError(t, <-first)
}

func TestGroupKeepsMetadataAndRestartsHandlers(t *testing.T) {
	c, _ := start(t, 2)
	for p := range 2 {
		_, err := c.Produce(t.Context(), bus.TopicEvents, p, messages(4))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	failed, seen := false, map[int]int{}
	again := make(chan *bus.Claim, 8)
	err := c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
		offset, err := cl.Start(ctx)
		if err != nil {
			return err
		}
		for {
			recs, _, err := cl.Fetch(ctx, offset)
			if err != nil {
				return err
			}
			for _, r := range recs {
				offset = r.Offset + 1
				mu.Lock()
				seen[cl.Partition]++
				fail := cl.Partition == 0 && !failed && r.Offset == 1
				failed = failed || fail
				total := seen[0] + seen[1]
				mu.Unlock()
				if err := cl.Commit(ctx, offset, fmt.Sprintf("w=%d", offset)); err != nil {
					return err
				}
				if fail {
					return errors.New("boom")
				}
				if total == 8 {
					again <- cl
					cancel()
				}
			}
		}
	})
	require.NoError(t, err)
	require.Equal(t, map[int]int{0: 4, 1: 4}, seen, "the failed handler went on where it had committed")
	cl := <-again
	require.Error(t, cl.Commit(context.Background(), 1, ""), "backwards")

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	claims := make(chan bus.Claim, 2)
	require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
		claims <- bus.Claim{Partition: cl.Partition, Committed: cl.Committed, Metadata: cl.Metadata}
		if len(claims) == 2 {
			cancel()
		}
		<-ctx.Done()
		return nil
	}))
	for range 2 {
		cl := <-claims
		require.EqualValues(t, 4, cl.Committed)
		require.Equal(t, "w=4", cl.Metadata)
	}
}

func TestALateCommitOfAFormerOwnerIsRefused(t *testing.T) {
	c, cfg := start(t, 1)
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	group := bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}
	first := make(chan *bus.Claim, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = c.Consume(ctx, group, func(ctx context.Context, cl *bus.Claim) error {
			first <- cl
			<-ctx.Done()
			return nil
		})
	})
	old := <-first
	require.NoError(t, old.Commit(t.Context(), 0, "first"))
	cancel()
	wg.Wait()
	ctx, cancel = context.WithCancel(t.Context())
	second := make(chan *bus.Claim, 1)
	wg.Go(func() {
		_ = open(t, cfg).Consume(ctx, group, func(ctx context.Context, cl *bus.Claim) error {
			second <- cl
			<-ctx.Done()
			return nil
		})
	})
	owner := <-second
	require.ErrorIs(t, old.Commit(t.Context(), 1, "zombie"), bus.ErrNotOwner)
	require.NoError(t, owner.Commit(t.Context(), 1, "owner"))
	cancel()
	wg.Wait()
}

func TestDeadLetterIsWhole(t *testing.T) {
	c, _ := start(t, 1)
	rec := &bus.Record{Topic: bus.TopicEvents, Partition: 0, Offset: 42, Key: []byte("k"), Value: []byte{0xff, 0}, Headers: []bus.Header{{Key: "tenant", Value: []byte("acme")}}}
	require.NoError(t, c.DeadLetter(t.Context(), rec, "detect", strings.Repeat("x", 9000), 3))
	recs, _, err := c.Fetch(t.Context(), bus.TopicDLQ, 0, 0)
	require.NoError(t, err)
	var d dlqv1.DeadLetter
	require.NoError(t, proto.Unmarshal(recs[0].Value, &d))
	require.EqualValues(t, 42, d.GetOffset())
	require.Equal(t, rec.Value, d.GetValue())
	require.Equal(t, "acme", d.GetTenant())
	require.EqualValues(t, 3, d.GetAttempts())
	require.Len(t, d.GetReason(), 2000)
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*bus.Config)
		want   string
	}{
		"no broker":        {func(c *bus.Config) { c.Brokers = nil }, "kafka.brokers"},
		"slow produce":     {func(c *bus.Config) { c.ProduceTimeout = time.Minute }, "produce_timeout"},
		"codec":            {func(c *bus.Config) { c.Compression = "rar" }, "compression"},
		"half certificate": {func(c *bus.Config) { c.TLS.CertFile = "x" }, "go together"},
		"sasl in clear":    {func(c *bus.Config) { c.SASL.Mechanism = "plain" }, "without TLS"},
		"sasl unknown":     {func(c *bus.Config) { c.TLS.Enabled, c.SASL.Mechanism = true, "gssapi" }, "none of"},
	} {
		cfg := bus.DefaultConfig()
		require.NoError(t, cfg.Validate())
		tc.change(&cfg)
		require.ErrorContains(t, cfg.Validate(), tc.want, name)
	}
}

func BenchmarkProduce(b *testing.B) {
	for _, n := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			c, _ := start(b, 1)
			msgs := make([]bus.Message, n)
			for i := range msgs {
				msgs[i].Value = make([]byte, 1300)
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
