package bus_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
)

func TestValidateNamesTheKey(t *testing.T) {
	tests := []struct {
		name   string
		change func(*bus.Config)
		want   string
	}{
		{"no broker", func(c *bus.Config) { c.Brokers = nil }, "kafka.brokers"},
		{"no port", func(c *bus.Config) { c.Brokers = []string{"kafka"} }, `kafka.brokers: "kafka" is not host:port`},
		{"slow produce", func(c *bus.Config) { c.ProduceTimeout = 31 * time.Second }, "kafka.produce_timeout"},
		{"no time to produce", func(c *bus.Config) { c.ProduceTimeout = 0 }, "kafka.produce_timeout"},
		{"short session", func(c *bus.Config) { c.SessionTimeout = 0 }, "kafka.session_timeout"},
		{"long rebalance", func(c *bus.Config) { c.RebalanceTimeout = time.Hour }, "at most 1m"},
		{"codec", func(c *bus.Config) { c.Compression = "rar" }, "kafka.compression"},
		{"half certificate", func(c *bus.Config) { c.TLS = bus.TLSConfig{Enabled: true, CertFile: "x"} }, "go together"},
		{"authority without tls", func(c *bus.Config) { c.TLS.CAFile = "x" }, "nothing would be encrypted"},
		{"sasl in clear", func(c *bus.Config) { c.SASL = bus.SASLConfig{Mechanism: "plain", Username: "u"} }, "refused without TLS"},
		{"sasl unknown", func(c *bus.Config) {
			c.TLS.Enabled, c.SASL = true, bus.SASLConfig{Mechanism: "gssapi", Username: "u"}
		}, "kafka.sasl.mechanism"},
		{"sasl without user", func(c *bus.Config) { c.TLS.Enabled, c.SASL.Mechanism = true, "plain" }, "kafka.sasl.username"},
		{"two passwords", func(c *bus.Config) {
			c.TLS.Enabled = true
			c.SASL = bus.SASLConfig{Mechanism: "plain", Username: "u", Password: "canary", PasswordFile: "f"}
		}, "not both"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := bus.DefaultConfig()
			require.NoError(t, cfg.Validate())
			tt.change(&cfg)
			err := cfg.Validate()
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestNewRefusesFilesThatAreNotWhatTheyShouldBe(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	tests := []struct {
		name   string
		change func(*bus.Config)
		want   string
	}{
		{"no authority", func(c *bus.Config) { c.TLS = bus.TLSConfig{Enabled: true, CAFile: empty} }, "kafka.tls.ca_file: no certificate in"},
		{"authority missing", func(c *bus.Config) { c.TLS = bus.TLSConfig{Enabled: true, CAFile: empty + "x"} }, "kafka.tls.ca_file"},
		{"no certificate", func(c *bus.Config) {
			c.TLS = bus.TLSConfig{Enabled: true, CertFile: empty, KeyFile: empty}
		}, "kafka.tls.cert_file"},
		{"password missing", func(c *bus.Config) {
			c.SASL = bus.SASLConfig{Mechanism: "plain", Username: "u", PasswordFile: empty + "x", AllowPlaintext: true}
		}, "kafka.sasl.password_file"},
		{"password empty", func(c *bus.Config) {
			c.SASL = bus.SASLConfig{Mechanism: "plain", Username: "u", PasswordFile: empty, AllowPlaintext: true}
		}, "kafka.sasl: no password"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := bus.DefaultConfig()
			tt.change(&cfg)
			_, err := bus.New(cfg, nil, noop.NewMeterProvider())
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestTopicsConfigIsHeldToItsLimits(t *testing.T) {
	tests := []struct {
		name   string
		change func(*bus.TopicsConfig)
		want   string
	}{
		{"no partition", func(c *bus.TopicsConfig) { c.Partitions = 0 }, "topics.partitions"},
		{"short retention", func(c *bus.TopicsConfig) { c.Retention = time.Hour }, "topics.retention"},
		{"no replica", func(c *bus.TopicsConfig) { c.ReplicationFactor = 0 }, "topics.replication_factor"},
		{"more in sync than there are", func(c *bus.TopicsConfig) { c.ReplicationFactor, c.MinInSyncReplicas = 1, 2 }, "topics.min_in_sync_replicas"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := bus.DefaultTopicsConfig()
			require.NoError(t, cfg.Validate())
			tt.change(&cfg)
			require.ErrorContains(t, cfg.Validate(), tt.want)
			_, err := open(t, bus.DefaultConfig()).EnsureTopics(t.Context(), cfg)
			require.ErrorContains(t, err, tt.want, "before any broker is asked")
		})
	}
}
