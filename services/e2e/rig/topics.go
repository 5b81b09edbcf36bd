package rig

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded"
)

// Records reads the topics of the log from beginning to end. An embedded
// deployment must have been stopped: its log is opened for that.
func (d *Deployment) Records(t testing.TB, topics ...string) map[string][]bus.Record {
	t.Helper()
	brokers := d.brokers
	if d.Kind == Embedded {
		cfg := embedded.DefaultConfig(d.LogDir())
		cfg.Auth, cfg.MinFreeBytes = false, 0
		b, err := embedded.Open(cfg, slog.New(slog.DiscardHandler), time.Now)
		require.NoError(t, err)
		defer func() { require.NoError(t, b.Close()) }()
		brokers = []string{b.Addr()}
	}
	client, err := bus.New(d.busConfig(brokers), slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	defer client.Close()
	all := map[string][]bus.Record{}
	for _, topic := range topics {
		n, err := client.Partitions(t.Context(), topic)
		require.NoError(t, err)
		for partition := range n {
			first, end, err := client.Offsets(t.Context(), topic, partition)
			require.NoError(t, err)
			err = client.Read(t.Context(), topic, partition, first, end, func(records []bus.Record) error {
				all[topic] = append(all[topic], records...)
				return nil
			})
			require.NoError(t, err)
		}
	}
	return all
}

// Produce appends records to a topic of a cluster, as somebody would who is
// none of its services.
func (d *Deployment) Produce(t testing.TB, topic string, partition int, msgs []bus.Message) {
	t.Helper()
	client, err := bus.New(d.busConfig(d.brokers), slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Produce(t.Context(), topic, partition, msgs)
	require.NoError(t, err)
}

// LogDir is where an embedded deployment keeps its log.
func (d *Deployment) LogDir() string { return d.Data() }
