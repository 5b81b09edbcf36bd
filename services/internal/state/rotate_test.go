package state_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/internal/follow"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
)

func TestPasswordAndAuthorityFollowTheirFiles(t *testing.T) {
	opts := redistest.Options{TLS: true, User: "sb", Password: "first"}
	server := redistest.Start(t, opts)
	admin := server.Client(t)
	dir := t.TempDir()
	password, ca := filepath.Join(dir, "password"), filepath.Join(dir, "ca.pem")
	authority, err := os.ReadFile(server.CAFile)
	require.NoError(t, err)
	write := func(path string, text []byte, age time.Duration) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		when := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(path, when, when))
	}
	write(password, []byte("first\n"), 4*time.Hour)
	write(ca, authority, 4*time.Hour)
	files, err := follow.NewWatch(quiet(), noop.NewMeterProvider())
	require.NoError(t, err)
	cfg := config(server, opts)
	cfg.Password, cfg.PasswordFile, cfg.CAFile, cfg.Files = "", password, ca, files
	store, err := state.OpenRedis(t.Context(), cfg, quiet())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	acl := func(rule string) { require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "sb", rule).Err()) }
	cut := func() {
		require.NoError(t, admin.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes").Err())
	}

	acl(">second")
	write(password, []byte("second\n"), 3*time.Hour)
	files.Look(t.Context())
	acl("<first")
	require.NoError(t, store.Ping(t.Context()), "a connection that is open goes on")
	cut()
	require.NoError(t, store.Ping(t.Context()), "a new one has the new password")

	write(ca, []byte("none"), 3*time.Hour)
	files.Look(t.Context())
	cut()
	require.NoError(t, store.Ping(t.Context()), "the authority that was read before is in force")

	acl("<second")
	acl(">third")
	cut()
	require.ErrorContains(t, store.Ping(t.Context()), "WRONGPASS")
	write(password, []byte("third\n"), 2*time.Hour)
	files.Look(t.Context())
	require.NoError(t, store.Ping(t.Context()), "what was refused comes back by itself")
}
