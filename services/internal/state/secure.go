package state

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/stormbell/stormbell/services/internal/follow"
)

// secure sets how new connections are encrypted and authenticated: by what is
// in the files at that moment. It is no method of Config, lest packages that see
// settings have much of the client library compiled into them.
func secure(c Config, opts *redis.UniversalOptions) error {
	if err := authenticate(c, opts); err != nil || !c.TLS {
		return err
	}
	peer := &follow.Peer{}
	if c.CAFile != "" {
		var err error
		if peer.Authorities, err = follow.Authorities(c.Files, "redis.ca_file", c.CAFile); err != nil {
			return err //nolint:wrapcheck // it names the setting
		}
	}
	opts.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		return peer.Dial(ctx, network, address, c.Timeout)
	}
	return nil
}

func authenticate(c Config, opts *redis.UniversalOptions) error {
	if c.PasswordFile == "" {
		opts.Username, opts.Password = c.Username, c.Password
		return nil
	}
	password, err := follow.New(c.Files, "redis.password_file", func() (string, error) {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("redis.password_file: %w", err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}, c.PasswordFile)
	if err != nil {
		return err //nolint:wrapcheck // it names the setting
	}
	opts.CredentialsProviderContext = func(context.Context) (string, string, error) {
		return c.Username, password.Get(), nil
	}
	return nil
}
