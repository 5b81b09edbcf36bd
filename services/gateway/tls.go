package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// certInterval is how often the certificate's files are looked at. Looking
// works on every file system, and with files that are replaced by a link.
const certInterval = 5 * time.Second

// A certificate serves what is in two files and follows their changes.
type certificate struct {
	files   TLS
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
	seen    string // state of the files at the last attempt
}

func loadCertificate(files TLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// watch reloads changed files until ctx ends. A pair that does not load leaves
// the one before in force.
func (c *certificate) watch(ctx context.Context, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		if c.state() == c.seen {
			continue
		}
		if err := c.reload(); err != nil {
			c.log.Error("changed certificate does not load, the one before stays in force", "error", err)
			continue
		}
		c.log.Info("certificate reloaded", "file", c.files.CertFile)
	}
}

func (c *certificate) reload() error {
	c.seen = c.state()
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return fmt.Errorf("load certificate %s with key %s: %w", c.files.CertFile, c.files.KeyFile, err)
	}
	c.current.Store(&pair)
	return nil
}

// state changes whenever one of the files does.
func (c *certificate) state() string {
	var text strings.Builder
	for _, path := range []string{c.files.CertFile, c.files.KeyFile} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&text, "%d %d\n", info.ModTime().UnixNano(), info.Size())
		}
	}
	return text.String()
}
