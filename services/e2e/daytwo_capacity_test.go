package e2e_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
)

// capacityEventsEnv is how many events the measurement of capacity posts.
const capacityEventsEnv = "STORMBELL_CAPACITY_EVENTS"

// choreCapacity measures what a cluster takes: processor time per event, alert
// and webhook of each service, bytes of Redis per group, bytes of Kafka per
// record. It asserts nothing but that all was counted.
func choreCapacity(t *testing.T, r *rig.Runner) string {
	n := 100_000
	if text := os.Getenv(capacityEventsEnv); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	o := prepare(t, r, rig.Options{Services: []string{"gateway", "notifier"}, Copies: 1})
	m := &meter{t: t, o: o, r: r, parts: map[string]*rig.Process{"gateway": o.of("gateway")[0], "notifier": o.of("notifier")[0]}}
	m.parts["detect"] = o.d.Join(t, "correlator", "detect", "--stages", "detect")
	m.parts["correlate"] = o.d.Join(t, "correlator", "correlate", "--stages", "correlate")
	return "\n" + m.events(n) + "\n" + m.alerts(n/20) + "\n" + m.groups()
}

// A meter measures a deployment of one process per stage.
type meter struct {
	t     *testing.T
	o     *ordeal
	r     *rig.Runner
	parts map[string]*rig.Process
}

// spent is the processor time of each part so far, in seconds.
func (m *meter) spent() map[string]float64 {
	const ticksPerSecond = 100 // USER_HZ, on every Linux
	out := map[string]float64{}
	for name, p := range m.parts {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
		require.NoError(m.t, err)
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, field := range fields[11:13] { // user and system
			ticks, err := strconv.ParseFloat(field, 64)
			require.NoError(m.t, err)
			out[name] += ticks / ticksPerSecond
		}
	}
	return out
}

// during says what each part spent on what do does.
func (m *meter) during(do func()) map[string]float64 {
	before := m.spent()
	do()
	require.NoError(m.t, m.o.d.AwaitDrained(within(m.t, 20*time.Minute)))
	after := m.spent()
	for name := range after {
		after[name] -= before[name]
	}
	return after
}

// kept are the records and bytes of a topic.
func (m *meter) kept(topic string) (records, size int64) {
	records, size, err := m.r.Kafka.Records(m.t.Context(), 0, m.o.d.Topic(topic), rig.Partitions)
	require.NoError(m.t, err)
	return records, size
}

// events posts a load of CloudTrail events in requests of 500.
func (m *meter) events(n int) string {
	topics := []string{bus.TopicEvents, bus.TopicDetections, bus.TopicAlerts, bus.TopicDeliveries}
	l := newLoad(m.o.seed, n, n/1000, m.o.began)
	raw := 0
	for _, e := range l.sent {
		raw += len(e.raw)
	}
	spent := m.during(func() {
		for part := range slices.Chunk(l.sent, 500) {
			require.NoError(m.t, m.o.post(m.t.Context(), part))
		}
	})
	rows := []string{"topic\trecords\tbytes\tbytes per record\tper event posted\tGB a day at 1,000 events/s"}
	count := map[string]int64{}
	for _, topic := range topics {
		records, size := m.kept(topic)
		count[topic] = records
		require.Positive(m.t, records)
		perEvent := float64(size) / float64(n)
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%.0f\t%.1f\t%.1f", topic, records, size, float64(size)/float64(records), perEvent, perEvent*86_400*1000/1e9))
	}
	cores := []string{"service\tCPU\tper CPU second"}
	for _, row := range []struct {
		part, what string
		n          int64
	}{{"gateway", "events", int64(n)}, {"detect", "events", int64(n)}, {"correlate", "detections", count[bus.TopicDetections]}} {
		cores = append(cores, fmt.Sprintf("%s\t%.1f s\t%.0f %s", row.part, spent[row.part], float64(row.n)/spent[row.part], row.what))
	}
	return fmt.Sprintf("%d events of %d bytes in the mean, in requests of 500\n%s\n%s", n, raw/n, table(cores), table(rows))
}

// alerts posts events each of which is an alert, and so a webhook.
func (m *meter) alerts(n int) string {
	a := &author{r: rand.New(rand.NewPCG(m.o.seed, 31)), base: m.o.began.UnixMilli() - spread - fiveMin, n: 700_000_000}
	before := len(ledger.Alerts(m.o.healthy.Deliveries()))
	spent := m.during(func() {
		for sent := 0; sent < n; sent += batch {
			var events []crashEvent
			for range batch {
				events = append(events, a.event(a.when(0), "root", "ConsoleLogin", map[string]any{"userIdentity": map[string]any{"type": "Root"}}))
			}
			require.NoError(m.t, m.o.post(m.t.Context(), events))
		}
		require.NoError(m.t, m.o.healthy.Await(within(m.t, 20*time.Minute), func(got []ledger.Delivery) bool {
			return len(got) >= before+n && len(ledger.Alerts(got)) >= before+n
		}))
	})
	return fmt.Sprintf("%d alerts, each to one webhook: notifier %.1f s of CPU, %.0f webhooks per CPU second; detect %.0f alerts per CPU second\n",
		n, spent["notifier"], float64(n)/spent["notifier"], float64(n)/spent["detect"])
}

// groups fills groups of each type with so many events and asks Redis what they
// take. Each event is of 700 bytes or so; a group shows ten of them whole.
func (m *meter) groups() string {
	sizes := []int{1, 4, 10, 100, 1000}
	const each = 20
	a := &author{r: rand.New(rand.NewPCG(m.o.seed, 37)), base: m.o.began.UnixMilli() - spread - fiveMin, n: 800_000_000}
	for kind, write := range m.kinds(a) {
		for _, size := range sizes {
			for i := range each {
				start := a.when(fiveMin)
				name := fmt.Sprintf("cap-%s-%d-%d-", kind, size, i)
				var events []crashEvent
				for j := range size {
					events = append(events, write(start+int64(j)*(fiveMin/2)/int64(size), name, j))
				}
				for part := range slices.Chunk(events, 500) {
					require.NoError(m.t, m.o.post(m.t.Context(), part))
				}
			}
		}
	}
	require.NoError(m.t, m.o.d.AwaitDrained(within(m.t, 20*time.Minute)))
	c := redis.NewClient(&redis.Options{Addr: m.o.d.Redis.Addr()})
	m.t.Cleanup(func() { require.NoError(m.t, c.Close()) })
	taken := map[string][]int64{}
	for keys := c.Scan(m.t.Context(), 0, "*:c:*}:g:*", 1000).Iterator(); keys.Next(m.t.Context()); {
		name, err := c.HGet(m.t.Context(), keys.Val(), "i").Result()
		if errors.Is(err, redis.Nil) {
			continue // its window has passed since
		}
		require.NoError(m.t, err)
		at := strings.Index(name, "cap-")
		if at < 0 {
			continue
		}
		parts := strings.SplitN(name[at:], "-", 5) // cap, kind, size, number, what follows
		require.Len(m.t, parts, 5)
		size, err := c.MemoryUsage(m.t.Context(), keys.Val(), 0).Result()
		require.NoError(m.t, err)
		of := parts[1] + "-" + parts[2]
		taken[of] = append(taken[of], size)
	}
	rows := []string{"type\tevents in the group\tgroups\tbytes of Redis per group\tper event"}
	for kind := range m.kinds(a) {
		for _, size := range sizes {
			all := taken[fmt.Sprintf("%s-%d", kind, size)]
			require.Len(m.t, all, each, "%s %d", kind, size)
			sum := int64(0)
			for _, one := range all {
				sum += one
			}
			rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%d", kind, size, each, sum/each, sum/each/int64(size)))
		}
	}
	slices.SortStableFunc(rows[1:], func(a, b string) int {
		return cmp.Compare(a[:strings.IndexByte(a, '\t')], b[:strings.IndexByte(b, '\t')])
	})
	return table(rows)
}

// kinds write the jth event of a group, by the correlation's type.
func (m *meter) kinds(a *author) map[string]func(at int64, group string, j int) crashEvent {
	bucket := func(j int) map[string]any {
		return map[string]any{"eventSource": "s3.amazonaws.com", "sourceIPAddress": fmt.Sprintf("198.51.%d.%d", j/250, j%250)}
	}
	failure := map[string]any{"eventSource": "signin.amazonaws.com", "responseElements": map[string]any{"ConsoleLogin": "Failure"}}
	return map[string]func(at int64, group string, j int) crashEvent{
		"event_count": func(at int64, group string, _ int) crashEvent { return a.event(at, group, "ConsoleLogin", failure) },
		"value_count": func(at int64, group string, j int) crashEvent { return a.event(at, group, "ListBuckets", bucket(j)) },
		"temporal": func(at int64, group string, j int) crashEvent {
			return a.event(at, "admin", []string{"StopLogging", "DeleteTrail", "DeleteDetector"}[j%3], map[string]any{"recipientAccountId": group})
		},
		"temporal_ordered": func(at int64, group string, j int) crashEvent {
			return a.event(at, "admin", []string{"CreateUser", "AttachUserPolicy", "CreateAccessKey"}[j%3], map[string]any{"requestParameters": map[string]any{"userName": group}})
		},
	}
}
