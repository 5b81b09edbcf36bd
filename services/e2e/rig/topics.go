package rig

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Records reads the topics of the log from beginning to end. An embedded
// deployment must have been stopped: its log is opened for that.
func (d *Deployment) Records(t testing.TB, topics ...string) map[string][]bus.Record {
	t.Helper()
	client, done := d.log(t)
	defer done()
	all := map[string][]bus.Record{}
	for _, topic := range topics {
		all[topic] = read(t, client, topic)
	}
	return all
}

// log opens the log; of an embedded deployment, which must have been stopped, by
// a broker of its own.
func (d *Deployment) log(t testing.TB) (client *bus.Client, done func()) {
	t.Helper()
	brokers, closeBroker := d.brokers, func() {}
	if d.Kind == Embedded {
		cfg := embedded.DefaultConfig(d.LogDir())
		cfg.Auth, cfg.MinFreeBytes = false, 0
		b, err := embedded.Open(cfg, slog.New(slog.DiscardHandler), time.Now)
		require.NoError(t, err)
		brokers, closeBroker = []string{b.Addr()}, func() { require.NoError(t, b.Close()) }
	}
	client, err := bus.New(d.busConfig(brokers), slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	return client, func() {
		client.Close()
		closeBroker()
	}
}

func read(t testing.TB, client *bus.Client, topic string) (all []bus.Record) {
	t.Helper()
	n, err := client.Partitions(t.Context(), topic)
	require.NoError(t, err)
	for partition := range n {
		first, end, err := client.Offsets(t.Context(), topic, partition)
		require.NoError(t, err)
		err = client.Read(t.Context(), topic, partition, first, end, func(records []bus.Record) error {
			all = append(all, records...)
			return nil
		})
		require.NoError(t, err)
	}
	return all
}

// Produce appends records to a topic of a cluster, as somebody would who is
// none of its services.
func (d *Deployment) Produce(t testing.TB, topic string, partition int, msgs []bus.Message) {
	t.Helper()
	client, done := d.log(t)
	defer done()
	_, err := client.Produce(t.Context(), topic, partition, msgs)
	require.NoError(t, err)
}

// Pass lets the watermark come to a time, as ticks would if everything had been
// silent until then, and returns what `events` held before. An embedded
// deployment is killed for that and starts again.
func (d *Deployment) Pass(t testing.TB, to time.Time) []bus.Record {
	t.Helper()
	if d.Kind == Embedded {
		require.NoError(t, d.Processes[0].Kill())
		defer func() { require.NoError(t, d.Processes[0].Start(t.Context())) }()
	}
	client, done := d.log(t)
	defer done()
	events := read(t, client, bus.TopicEvents)
	tick := bus.Message{
		Value:   event.EncodeTick(nil, to.UnixMilli()),
		Headers: []bus.Header{{Key: event.HeaderSchema, Value: []byte(event.SchemaTick)}},
	}
	for partition := range Partitions {
		_, err := client.Produce(t.Context(), bus.TopicEvents, partition, []bus.Message{tick})
		require.NoError(t, err)
	}
	return events
}

// LogDir is where an embedded deployment keeps its log.
func (d *Deployment) LogDir() string { return d.Data() }
