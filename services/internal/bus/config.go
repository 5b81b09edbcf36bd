// Package bus is all that Stormbell's services do with Kafka: produce with
// acks=all, fetch, follow, consume in groups with one owner per partition, set
// topics up and dead-letter records. It always speaks the Kafka protocol; whether
// the broker is embedded or a cluster makes no difference to it.
//
// It refuses to hide what a log does: an offset outside the log is an error and
// never moved, an error of a produce means "outcome unknown", not "not written".
package bus

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Config says where the brokers are and how to speak to them.
type Config struct {
	// Brokers to bootstrap from, host:port.
	Brokers []string `yaml:"brokers" env:"BROKERS"`
	// ClientID that brokers log.
	ClientID string `yaml:"client_id" env:"CLIENT_ID"`
	// TopicPrefix stands before every topic's name.
	TopicPrefix string     `yaml:"topic_prefix" env:"TOPIC_PREFIX"`
	TLS         TLSConfig  `yaml:"tls" envPrefix:"TLS_"`
	SASL        SASLConfig `yaml:"sasl" envPrefix:"SASL_"`
	// Compression of produced batches: none, gzip, snappy, lz4, zstd.
	Compression string `yaml:"compression" env:"COMPRESSION"`
	// ProduceTimeout bounds a produce with its retries. It is at most half of the
	// watermark's slack of 60 s.
	ProduceTimeout time.Duration `yaml:"produce_timeout" env:"PRODUCE_TIMEOUT"`
	// SessionTimeout and RebalanceTimeout of consumer groups.
	SessionTimeout   time.Duration `yaml:"session_timeout" env:"SESSION_TIMEOUT"`
	RebalanceTimeout time.Duration `yaml:"rebalance_timeout" env:"REBALANCE_TIMEOUT"`
}

// TLSConfig turns on TLS to the brokers.
type TLSConfig struct {
	Enabled bool `yaml:"enabled" env:"ENABLED"`
	// CAFile holds the authorities to trust, PEM; empty: the system's.
	CAFile string `yaml:"ca_file" env:"CA_FILE"`
	// CertFile and KeyFile are the client's own certificate, PEM.
	CertFile string `yaml:"cert_file" env:"CERT_FILE"`
	KeyFile  string `yaml:"key_file" env:"KEY_FILE"`
	// ServerName to expect; empty: the broker's host.
	ServerName string `yaml:"server_name" env:"SERVER_NAME"`
}

// SASLConfig turns on authentication. Without TLS it is refused, since the
// password would cross the network in the clear or open to guessing.
type SASLConfig struct {
	// Mechanism: plain, scram-sha-256, scram-sha-512; empty: none.
	Mechanism string `yaml:"mechanism" env:"MECHANISM"`
	Username  string `yaml:"username" env:"USERNAME"`
	// PasswordFile is read at start, and again when it changes. The environment variable that stands for
	// Password is the other way; it has no key in the file.
	PasswordFile string `yaml:"password_file" env:"PASSWORD_FILE"`
	Password     string `yaml:"-" env:"PASSWORD" json:"-"`
	// AllowPlaintext permits SASL without TLS.
	AllowPlaintext bool `yaml:"allow_plaintext" env:"ALLOW_PLAINTEXT"`
}

const slack = 60 * time.Second

// DefaultConfig is for a broker on this host.
func DefaultConfig() Config {
	return Config{
		Brokers:          []string{"127.0.0.1:9092"},
		ClientID:         "stormbell",
		TopicPrefix:      "stormbell.",
		Compression:      "snappy",
		ProduceTimeout:   slack / 4,
		SessionTimeout:   6 * time.Second,
		RebalanceTimeout: 6 * time.Second,
	}
}

// Validate names the first key that can't work, and why.
func (c *Config) Validate() error {
	switch {
	case len(c.Brokers) == 0:
		return errors.New("kafka.brokers: at least one host:port is needed")
	case c.ProduceTimeout <= 0 || c.ProduceTimeout > slack/2:
		return fmt.Errorf("kafka.produce_timeout: %s must be above 0 and at most %s, half the watermark's slack", c.ProduceTimeout, slack/2)
	case c.SessionTimeout < time.Second || c.RebalanceTimeout < time.Second:
		return errors.New("kafka.session_timeout and kafka.rebalance_timeout: at least 1s")
	case c.SessionTimeout > time.Minute || c.RebalanceTimeout > time.Minute:
		return errors.New("kafka.session_timeout and kafka.rebalance_timeout: at most 1m, for so long the partitions of a dead member stand still")
	case !c.TLS.Enabled && c.TLS != TLSConfig{}:
		return errors.New("kafka.tls: files or a server name are set, but kafka.tls.enabled is not: nothing would be encrypted")
	case (c.TLS.CertFile == "") != (c.TLS.KeyFile == ""):
		return errors.New("kafka.tls: cert_file and key_file go together")
	case c.SASL.Mechanism != "" && !c.TLS.Enabled && !c.SASL.AllowPlaintext:
		return errors.New("kafka.sasl: refused without TLS: set kafka.tls.enabled, or kafka.sasl.allow_plaintext to send the password in the clear")
	case c.SASL.Mechanism != "" && c.SASL.Username == "":
		return errors.New("kafka.sasl.username: needed with a mechanism")
	case c.SASL.Password != "" && c.SASL.PasswordFile != "":
		return errors.New("kafka.sasl: set password_file or the environment variable, not both")
	}
	for _, b := range c.Brokers {
		if _, port, err := net.SplitHostPort(b); err != nil || port == "" {
			return fmt.Errorf("kafka.brokers: %q is not host:port", b)
		}
	}
	if _, err := compression(c.Compression); err != nil {
		return err
	}
	_, err := mechanism(c.SASL, "x")
	return err
}

func compression(name string) (kafka.Compression, error) {
	switch strings.ToLower(name) {
	case "", "none":
		return 0, nil
	case "gzip":
		return kafka.Gzip, nil
	case "snappy":
		return kafka.Snappy, nil
	case "lz4":
		return kafka.Lz4, nil
	case "zstd":
		return kafka.Zstd, nil
	}
	return 0, fmt.Errorf("kafka.compression: %q is none of none, gzip, snappy, lz4, zstd", name)
}

func mechanism(c SASLConfig, password string) (sasl.Mechanism, error) {
	switch strings.ToLower(c.Mechanism) {
	case "":
		return nil, nil //nolint:nilnil // no mechanism is a mechanism
	case "plain":
		return plain.Mechanism{Username: c.Username, Password: password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, c.Username, password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, c.Username, password)
	}
	return nil, fmt.Errorf("kafka.sasl.mechanism: %q is none of plain, scram-sha-256, scram-sha-512", c.Mechanism)
}
