package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"

	"github.com/stormbell/stormbell/services/internal/follow"
)

// dialFunc opens a connection to a broker.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// secureDial dials with the certificates that are in force at that moment; nil
// without TLS. The library's own TLS settings are fixed for good.
func (c *Config) secureDial(files *follow.Watch) (dialFunc, error) {
	if !c.TLS.Enabled {
		return nil, nil //nolint:nilnil // no TLS is a configuration
	}
	peer := &follow.Peer{ServerName: c.TLS.ServerName}
	var err error
	if c.TLS.CAFile != "" {
		if peer.Authorities, err = follow.Authorities(files, "kafka.tls.ca_file", c.TLS.CAFile); err != nil {
			return nil, err //nolint:wrapcheck // it names the setting
		}
	}
	if c.TLS.CertFile != "" {
		if peer.KeyPair, err = follow.KeyPair(files, "kafka.tls.cert_file", c.TLS.CertFile, c.TLS.KeyFile); err != nil {
			return nil, err //nolint:wrapcheck // it names the setting
		}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return peer.Dial(ctx, network, address, dialTimeout)
	}, nil
}

// saslMechanism authenticates with the password that is in force at that moment;
// nil without a mechanism.
func (c *Config) saslMechanism(files *follow.Watch) (sasl.Mechanism, error) {
	if c.SASL.Mechanism == "" {
		return nil, nil //nolint:nilnil // no mechanism is a mechanism
	}
	if c.SASL.PasswordFile == "" {
		return c.mechanismOf(c.SASL.Password)
	}
	current, err := follow.New(files, "kafka.sasl.password_file", func() (sasl.Mechanism, error) {
		b, err := os.ReadFile(c.SASL.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("kafka.sasl.password_file: %w", err)
		}
		return c.mechanismOf(strings.TrimRight(string(b), "\r\n"))
	}, c.SASL.PasswordFile)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the setting
	}
	return login{current}, nil
}

func (c *Config) mechanismOf(password string) (sasl.Mechanism, error) {
	if password == "" {
		return nil, errors.New("kafka.sasl: no password: set kafka.sasl.password_file, or the environment variable that ends in SASL_PASSWORD")
	}
	return mechanism(c.SASL, password)
}

// login is the mechanism in force.
type login struct {
	current *follow.Value[sasl.Mechanism]
}

// Name implements sasl.Mechanism.
func (l login) Name() string { return l.current.Get().Name() }

// Start implements sasl.Mechanism.
func (l login) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	return l.current.Get().Start(ctx)
}

// FollowFiles reads certificates and passwords again when their files change, until
// ctx ends. New connections use what was read last.
func (c *Client) FollowFiles(ctx context.Context) error { return c.files.Run(ctx) }

// transportTo returns what the library connects with.
func (c *Config) transportTo(dial dialFunc, auth sasl.Mechanism) (*kafka.Transport, *kafka.Dialer) {
	return &kafka.Transport{
			ClientID: c.ClientID, Dial: dial, SASL: auth,
			DialTimeout: dialTimeout, IdleTimeout: idleTimeout, MetadataTTL: metadataTTL,
		},
		&kafka.Dialer{ClientID: c.ClientID, Timeout: dialTimeout, DualStack: true, DialFunc: dial, SASLMechanism: auth}
}
