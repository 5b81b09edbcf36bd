package rig

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
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

// LogDir is where an embedded deployment keeps its log.
func (d *Deployment) LogDir() string { return d.Data() }

// firstKey puts the first API key of a cluster into `control`, as an operator
// with access to Kafka would.
func (d *Deployment) firstKey(t testing.TB) string {
	t.Helper()
	client, err := bus.New(d.busConfig(d.brokers), slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	defer client.Close()
	view := control.Open(control.DefaultConfig(), control.OnBus(client), slog.New(slog.DiscardHandler), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = view.Run(ctx) // ends with ctx
	}()
	defer func() {
		cancel()
		<-ended
	}()
	require.NoError(t, view.AwaitReady(ctx))
	plain, record, err := control.NewAPIKey(control.NewKey{
		Tenant: "default", Name: "e2e", Scopes: []string{control.ScopeIngest, control.ScopeRead, control.ScopeManage},
	}, time.Now())
	require.NoError(t, err)
	require.NoError(t, view.Put(ctx,
		&controlv1.Control{Object: &controlv1.Control_Tenant{Tenant: &controlv1.Tenant{Id: "default", CreatedMs: time.Now().UnixMilli()}}},
		&controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: record}},
	))
	return plain
}
