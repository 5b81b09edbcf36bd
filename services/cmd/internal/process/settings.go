package process

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	correlatorsettings "github.com/stormbell/stormbell/services/correlator/settings"
	gatewaysettings "github.com/stormbell/stormbell/services/gateway/settings"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/config"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/follow"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/telemetry"
	notifiersettings "github.com/stormbell/stormbell/services/notifier/settings"
	"github.com/stormbell/stormbell/services/sigma"
)

// Settings are all settings of all processes. One file can serve a whole
// cluster: each process reads it whole and uses what concerns it.
type Settings struct {
	Telemetry  telemetry.Config          `yaml:"telemetry" envPrefix:"TELEMETRY_"`
	Kafka      bus.Config                `yaml:"kafka" envPrefix:"KAFKA_"`
	Topics     bus.TopicsConfig          `yaml:"topics" envPrefix:"TOPICS_"`
	Redis      Redis                     `yaml:"redis" envPrefix:"REDIS_"`
	Seal       Seal                      `yaml:"seal" envPrefix:"SEAL_"`
	Rules      Rules                     `yaml:"rules" envPrefix:"RULES_"`
	Gateway    gatewaysettings.Config    `yaml:"gateway" envPrefix:"GATEWAY_"`
	Correlator correlatorsettings.Config `yaml:"correlator" envPrefix:"CORRELATOR_"`
	Notifier   notifiersettings.Config   `yaml:"notifier" envPrefix:"NOTIFIER_"`
	Egress     egress.Config             `yaml:"egress" envPrefix:"EGRESS_"`
	Embedded   Embedded                  `yaml:"embedded" envPrefix:"EMBEDDED_"`

	pipelines []*sigma.Pipeline // see UsePipelines
}

// Redis says where the state of correlators and notifiers is.
type Redis struct {
	// Addrs are host:port: a server, or nodes of a Redis Cluster, of which one is
	// enough to find the others.
	Addrs []string `yaml:"addrs" env:"ADDRS"`
	// Username of an ACL user; without it the password is the default user's.
	Username string `yaml:"username" env:"USERNAME"`
	// PasswordFile holds the password, and is read again when it changes. The
	// environment variable of the password itself is the other way.
	PasswordFile string      `yaml:"password_file" env:"PASSWORD_FILE"`
	Password     seal.Secret `yaml:"password,omitempty" env:"PASSWORD"`
	// TLS encrypts connections and verifies the server.
	TLS bool `yaml:"tls" env:"TLS"`
	// CAFile holds the authorities to trust, PEM; empty: the system's.
	CAFile string `yaml:"ca_file" env:"CA_FILE"`
	// Timeout bounds one call, connecting included.
	Timeout time.Duration `yaml:"timeout" env:"TIMEOUT"`
	// Prefix begins every key. It must not contain braces.
	Prefix string `yaml:"prefix" env:"PREFIX"`
}

// Seal names the root key, which wraps the keys that seal secrets. `stormbell
// up` makes one in its data directory where none is named.
type Seal struct {
	// RootKeyFile holds the root key: 32 bytes in base64, one key per line, the
	// last one in use. Only its owner may read it.
	RootKeyFile string `yaml:"root_key_file" env:"ROOT_KEY_FILE"`
	// RootKey is the content of such a file. Use the environment variable.
	RootKey seal.Secret `yaml:"root_key,omitempty" env:"ROOT_KEY"`
}

// Rules says how rules are compiled.
type Rules struct {
	// Placeholders are the values of `%name%` in rules, by name. All processes
	// must agree on them.
	Placeholders map[string][]string `yaml:"placeholders"`
	// Pipelines change rules when they are put in force, and travel with them:
	// YAML files, or the built-in "windows-security", "aws-s3access",
	// "aws-elb" and "aws-vpcflow". Only the gateway and `stormbell up` read
	// them.
	Pipelines []string `yaml:"pipelines" env:"PIPELINES"`
}

// Embedded are settings of `stormbell up` alone.
type Embedded struct {
	// LogMaxBytes caps the log on disk. Where it is reached by events that must
	// stay, new ones are refused.
	LogMaxBytes int64 `yaml:"log_max_bytes" env:"LOG_MAX_BYTES"`
	// Sync acknowledges an event only once it is on stable storage. Without it
	// a power cut may take the last events; a crash of the process does not.
	Sync bool `yaml:"sync" env:"SYNC"`
	// AllowCorrupt starts with a damaged log, whose damaged records are lost.
	AllowCorrupt bool `yaml:"allow_corrupt" env:"ALLOW_CORRUPT"`
}

// Defaults are the settings of a cluster's processes.
func Defaults() Settings {
	r := state.DefaultConfig()
	return Settings{
		Telemetry:  telemetry.DefaultConfig(),
		Kafka:      bus.DefaultConfig(),
		Topics:     bus.DefaultTopicsConfig(),
		Redis:      Redis{Addrs: r.Addrs, Timeout: r.Timeout, Prefix: r.Prefix},
		Gateway:    gatewaysettings.Default(),
		Correlator: correlatorsettings.Default(),
		Notifier:   notifiersettings.Default(),
		Egress:     egress.DefaultConfig(),
		Embedded:   Embedded{LogMaxBytes: 1 << 30, Sync: true},
	}
}

// UpDefaults are the settings of `stormbell up`: it serves its own machine.
func UpDefaults() Settings {
	s := Defaults()
	s.Topics.Partitions, s.Topics.ReplicationFactor = 4, 1
	s.Egress = egress.LoopbackConfig()
	return s
}

// NarrowEgress takes back that webhooks may reach this machine where the API is
// open to others: what serves on loopback serves who is on this machine anyway,
// what serves beyond it must be told. Settings that someone made stay.
func (s *Settings) NarrowEgress() {
	host, _, err := net.SplitHostPort(s.Gateway.Listen)
	ip := net.ParseIP(host)
	if err == nil && (host == "localhost" || ip != nil && ip.IsLoopback()) {
		return
	}
	if reflect.DeepEqual(s.Egress, egress.LoopbackConfig()) {
		s.Egress = egress.DefaultConfig()
	}
}

// Unknown returns the variables of an environment that look like settings and are
// none, nor read by a command line.
func (s *Settings) Unknown(environ []string) ([]string, error) {
	others := []string{"STORMBELL_API_KEY", "STORMBELL_CONFIG", "STORMBELL_CRASH_AT", "STORMBELL_DATA", "STORMBELL_URL"}
	names, err := config.Unknown(s, environ)
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(others, name) }), err //nolint:wrapcheck // it says of what
}

// Load reads settings on top of what s holds: the file at path, if there is
// one, then the environment. Sources that the gateway knows and the
// correlator does not are made known to it.
func (s *Settings) Load(path string, environ []string) error {
	if err := config.Load(s, path, environ); err != nil {
		return err //nolint:wrapcheck // it names the file and the line
	}
	for _, src := range s.Gateway.Sources {
		if src.Lateness > s.Correlator.Lateness {
			s.Correlator.Sources = append(s.Correlator.Sources, correlatorsettings.Source{
				Product: src.Product, Service: src.Service, Category: src.Category, Lateness: src.Lateness,
			})
		}
	}
	return nil
}

// Validate reports the first group of settings with which a process of this
// kind ("up", "gateway", "correlator", "notifier") could not work. check is that
// of what is the kind's own.
func (s *Settings) Validate(kind string, check func(*Settings) error) error {
	checks := []func() error{s.Telemetry.Validate, s.Topics.Validate, s.Egress.Validate, s.retention}
	if kind == "up" {
		checks = append(checks, s.ownBroker)
	} else {
		checks = append(checks, s.Kafka.Validate)
	}
	for _, check := range append(checks, func() error { return check(s) }) {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settings) retention() error {
	if s.Correlator.Retention > s.Topics.Retention {
		return fmt.Errorf("correlator.retention: %s is longer than topics.retention, %s: rules would look back on what is gone", s.Correlator.Retention, s.Topics.Retention)
	}
	if s.Notifier.Retention > s.Topics.Retention {
		return fmt.Errorf("notifier.retention: %s is longer than topics.retention, %s: deliveries would look back on what is gone", s.Notifier.Retention, s.Topics.Retention)
	}
	if s.Gateway.Lateness > s.Correlator.Lateness {
		return fmt.Errorf("gateway.lateness: %s is longer than correlator.lateness, %s: events would count as in time that windows no longer wait for", s.Gateway.Lateness, s.Correlator.Lateness)
	}
	return nil
}

// ownBroker refuses settings of a cluster, which `up` would ignore.
func (s *Settings) ownBroker() error {
	d := Defaults()
	if strings.Join(s.Kafka.Brokers, ",") != strings.Join(d.Kafka.Brokers, ",") {
		return errors.New("kafka.brokers: `stormbell up` brings its own broker: remove the setting, or run gateway, correlator and notifier for a cluster")
	}
	if strings.Join(s.Redis.Addrs, ",") != strings.Join(d.Redis.Addrs, ",") {
		return errors.New("redis.addrs: `stormbell up` keeps its state in memory: remove the setting, or run gateway, correlator and notifier for a cluster")
	}
	return nil
}

// Validate reports what of them cannot work.
func (r Redis) Validate() error {
	if !r.Password.Empty() && r.PasswordFile != "" {
		return errors.New("redis: set password_file or the environment variable of the password, not both")
	}
	return state.Config{Addrs: r.Addrs, Timeout: r.Timeout, Prefix: r.Prefix, TLS: r.TLS, CAFile: r.CAFile}.Validate() //nolint:wrapcheck // it names its key
}

// State returns the settings of a store that follows its files.
func (r Redis) State(files *follow.Watch) state.Config {
	return state.Config{
		Addrs: r.Addrs, Username: r.Username, Password: r.Password.Reveal(), PasswordFile: r.PasswordFile,
		TLS: r.TLS, CAFile: r.CAFile, Timeout: r.Timeout, Prefix: r.Prefix, Files: files,
	}
}

// Validate reports what of them cannot work.
func (k Seal) Validate() error {
	if k.RootKeyFile != "" && !k.RootKey.Empty() {
		return errors.New("seal: set root_key_file or the environment variable of the root key, not both")
	}
	return nil
}

// Required is Validate for who cannot do without a root key.
func (k Seal) Required() error {
	if k.RootKeyFile == "" && k.RootKey.Empty() {
		return errors.New("seal.root_key_file: no root key: every gateway and notifier needs the same one. " +
			"Make it with `(umask 077; head -c 32 /dev/urandom | base64 > root-key)`")
	}
	return k.Validate()
}

// Root reads the root key.
func (k Seal) Root() (*seal.Root, error) {
	if k.RootKeyFile != "" {
		return seal.LoadRoot(k.RootKeyFile) //nolint:wrapcheck // it names the file
	}
	root, err := seal.ParseRoot(k.RootKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%sSEAL_ROOT_KEY: %w", config.EnvPrefix, err)
	}
	return root, nil
}

// Sigma are the options by which rules are compiled. Pipelines are among them
// once they are read; the correlator gets them with the rules.
func (s *Settings) Sigma() sigma.Options {
	return sigma.Options{Placeholders: s.Rules.Placeholders, Pipelines: s.pipelines}
}

// UsePipelines takes what the pipelines that are named hold.
func (s *Settings) UsePipelines(pipelines []*sigma.Pipeline) { s.pipelines = pipelines }

const maxSecretFile = 64 << 10

// ReadSecret returns what stands in a file, without the end of its line.
func ReadSecret(path string) (seal.Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return seal.Secret{}, err //nolint:wrapcheck // it names the file
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return seal.Secret{}, err //nolint:wrapcheck // it names the file
	}
	return seal.NewSecret(strings.TrimRight(string(text), "\r\n")), nil
}
