// Package controltest opens views of a real broker's topic for tests.
package controltest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
)

// NewLog sets the topics up on a broker without authentication, if they are
// missing, and returns its topic `control`. It ends with the test.
func NewLog(t testing.TB, addr string) control.Topic {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{addr}
	client, err := bus.New(cfg, slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(client.Close)
	topics := bus.DefaultTopicsConfig()
	topics.Partitions = 4
	_, err = client.EnsureTopics(t.Context(), topics)
	require.NoError(t, err)
	return control.OnBus(client)
}

// Open returns a view of the broker's topic that follows it until the test ends.
func Open(t testing.TB, addr string) *control.View {
	t.Helper()
	v := control.Open(control.DefaultConfig(), NewLog(t, addr), slog.New(slog.DiscardHandler), time.Now)
	Run(t, v)
	return v
}

// Run lets a view follow its log until the test ends, and returns once it is ready.
func Run(t testing.TB, v *control.View) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	require.NoError(t, v.AwaitReady(t.Context()))
}
