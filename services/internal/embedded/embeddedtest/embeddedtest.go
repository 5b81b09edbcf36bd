// Package embeddedtest starts embedded brokers for tests.
package embeddedtest

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/embedded"
)

// Start opens a broker in a directory of its own that ends with the test. It
// neither authenticates nor syncs unless an option says so.
func Start(t testing.TB, options ...func(*embedded.Config)) *embedded.Broker {
	t.Helper()
	cfg := embedded.DefaultConfig(t.TempDir())
	cfg.Auth, cfg.Sync, cfg.MinFreeBytes = false, false, 0
	for _, option := range options {
		option(&cfg)
	}
	b, err := embedded.Open(cfg, slog.New(slog.DiscardHandler), time.Now)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
