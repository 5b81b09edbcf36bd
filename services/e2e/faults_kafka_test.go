package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/program"
	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/tools/kafka"
)

// faultKafkaKills ends the only broker. While it is away nobody is told that an
// event is kept.
func faultKafkaKills(t *testing.T, r *rig.Runner) string {
	o := begin(t, r, rig.Options{})
	n := times(1, 10)
	for range n {
		o.progress()
		require.NoError(t, r.Kafka.Kill(0))
		resp, err := o.d.Call(t.Context(), 0, o.d.Key, http.MethodPost, "/v1/events", "application/json", []byte(`{"action":"none"}`))
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, resp.Status, "%s", resp.Body)
		require.NoError(t, r.Kafka.Restart(t.Context(), 0))
	}
	o.progress()
	return fmt.Sprintf("%d times; answers %v; %s", n, o.client.Statuses(), o.judge())
}

// faultKafkaRolling ends one broker of three after the other.
func faultKafkaRolling(t *testing.T, _ *rig.Runner) string {
	three := &rig.Runner{Kind: rig.Cluster, Kafka: kafka.ForTest(t, func(o *kafka.Options) { o.Nodes = 3 })}
	o := begin(t, three, rig.Options{})
	n := times(1, 3)
	for range n {
		for node := range 3 {
			o.progress()
			require.NoError(t, three.Kafka.Kill(node))
			o.progress() // two of three go on
			require.NoError(t, three.Kafka.Restart(t.Context(), node))
		}
	}
	o.progress()
	return fmt.Sprintf("%d times around; answers %v; %s", n, o.client.Statuses(), o.judge())
}

// faultAlertsDown has the topic `alerts` refuse every record until the outbox is
// full, and longer. The fold then waits, and nothing is lost.
func faultAlertsDown(t *testing.T, r *rig.Runner) string {
	const step = 500 // of the fold: it looks at the bound between two
	bound := int64(times(20, 2000))
	o := prepare(t, r, rig.Options{Settings: map[string]string{"correlator": fmt.Sprintf("outbox_entries: %d", bound)}})
	o.without = alone // stage detect would wait for its own alerts
	o.load(pace)
	o.progress()
	c := redis.NewClient(&redis.Options{Addr: o.d.Redis.Addr()})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	const maxMessage = "max.message.bytes"
	topic := o.d.Topic(bus.TopicAlerts)
	require.NoError(t, r.Kafka.SetTopic(t.Context(), topic, maxMessage, "1"))
	began := time.Now()
	longest := int64(0)
	look := func() int64 {
		most := longestOutbox(t, c)
		longest = max(longest, most)
		return most
	}
	require.NoError(t, rig.Every(within(t, 2*patience), "the outbox is full", func() bool { return look() >= bound }))
	o.more(times(1000, 20_000)) // each partition has something that is not said
	before := committedOf(t, r, o)
	o.more(times(1000, 20_000))
	require.NoError(t, rig.Every(within(t, 20*time.Minute), "it has been away for long enough", func() bool {
		look()
		return time.Since(began) > time.Duration(times(0, 600))*time.Second
	}))
	require.LessOrEqual(t, longest, bound+step)
	told := program.Fleet{Processes: o.of("correlator")}.Sum(t.Context(), "stormbell_correlator_outbox_entries")
	require.GreaterOrEqual(t, told, float64(bound), "operators see it")
	require.Equal(t, before, committedOf(t, r, o), "offsets stand")
	require.NoError(t, r.Kafka.SetTopic(t.Context(), topic, maxMessage, "1048588"))
	away := time.Since(began)
	require.NoError(t, rig.Every(within(t, 2*patience), "the outbox is empty and offsets go on", func() bool {
		return look() == 0 && committedOf(t, r, o) > before
	}))
	return fmt.Sprintf("%s; outbox of a partition up to %d, bound %d; %s", away.Round(time.Second), longest, bound, o.judge())
}

// longestOutbox is the greatest number of entries of a partition.
func longestOutbox(t *testing.T, c *redis.Client) (most int64) {
	t.Helper()
	keys, err := c.Keys(t.Context(), "*:c:*}:outbox").Result()
	require.NoError(t, err)
	for _, key := range keys {
		n, err := c.XLen(t.Context(), key).Result()
		require.NoError(t, err)
		most = max(most, n)
	}
	return most
}

// committedOf adds up what stage correlate has committed.
func committedOf(t *testing.T, r *rig.Runner, o *ordeal) int64 {
	t.Helper()
	sum, err := r.Kafka.Committed(t.Context(), o.d.Topic("correlate"), o.d.Topic(bus.TopicDetections), rig.Partitions)
	require.NoError(t, err)
	return sum
}

// faultPoison appends records that are none to `events` and `detections`, one
// for each hundred events.
func faultPoison(t *testing.T, r *rig.Runner) string {
	o := begin(t, r, rig.Options{})
	n := times(40, 4000)
	for i := 0; i < n; i += 2 {
		o.await(100 * i)
		for topic, schema := range map[string]string{bus.TopicEvents: event.SchemaEvent, bus.TopicDetections: "stormbell.detection.v1.Detection"} {
			o.d.Produce(t, topic, i/2%rig.Partitions, []bus.Message{{
				Value: fmt.Appendf(nil, "\xff\x00 poison %d", i), Headers: []bus.Header{
					{Key: event.HeaderSchema, Value: []byte(schema)}, {Key: poisonHeader, Value: []byte("1")},
				},
			}})
		}
	}
	o.progress()
	o.dead = n
	return fmt.Sprintf("%d records in dlq; %s", n, o.judge())
}
