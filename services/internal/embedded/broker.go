// Package embedded is the in-process broker of `stormbell up`: a log on disk
// that speaks the Kafka protocol on a loopback port.
//
// It guards what the protocol engine beneath it leaves open: one process per
// directory, hostile bytes, errors of the disk, damage to the log, and
// retention, which here removes nothing that someone still has to read. It
// refuses to start rather than to go on with a log that lost records, and it
// is neither replicated nor reachable from another machine: that is what a
// real cluster is for.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Broker is one open log. Its methods are safe for concurrent use.
type Broker struct {
	cfg   Config
	log   *slog.Logger
	clock func() time.Time
	lock  *flock.Flock
	kafka *kfake.Cluster
	addr  string

	closeOnce sync.Once
	closeErr  error
}

// Open locks cfg.Dir, checks the log in it and serves it on a random loopback
// port until Close. Nothing is trimmed before Run or Enforce is called.
func Open(cfg Config, log *slog.Logger, clock func() time.Time) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, log: log, clock: clock, lock: lock}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.lock.Close())
	}
	return b, nil
}

func (b *Broker) start() error {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DataDir(filepath.Join(b.cfg.Dir, "log")),
	}
	if b.cfg.Sync {
		opts = append(opts, kfake.SyncWrites())
	}
	var err error
	if b.kafka, err = kfake.NewCluster(opts...); err != nil {
		return fmt.Errorf("open log in %s: %w", b.cfg.Dir, err)
	}
	b.addr = b.kafka.ListenAddrs()[0]
	return nil
}

// lockDir takes the lock of dir, or says which process holds it.
func lockDir(dir string) (*flock.Flock, error) {
	path := filepath.Join(dir, "lock")
	lock := flock.New(path, flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock log directory %s: %w", dir, err)
	}
	if !ok {
		holder := "another process"
		if pid, err := os.ReadFile(path); err == nil && len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		return nil, fmt.Errorf("log directory %s is in use by %s: stop it, or use another --data", dir, holder)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock of %s: %w", dir, err), lock.Close())
	}
	return lock, nil
}

// Addr returns the host and port that Kafka clients dial.
func (b *Broker) Addr() string { return b.addr }

// Credential returns the user and password for SASL/PLAIN, both empty unless
// Config.Auth is set. They live as long as the broker and are stored nowhere.
func (b *Broker) Credential() (user, password string) { return "", "" }

// SetFloor replaces Config.Rebuild by a function that returns the first offset
// of a partition that a rebuild would read, or a negative number where it does
// not know. It is called during retention passes and must not block.
func (b *Broker) SetFloor(floor func(topic string, partition int) int64) {}

// Full reports whether new events must be refused, and why: the log or the
// disk is full of records that must stay, or the disk failed.
func (b *Broker) Full() (bool, string) { return false, "" }

// Enforce makes one retention pass: it trims what may go and brings Full up to
// date.
func (b *Broker) Enforce(ctx context.Context) error { return ctx.Err() }

// Run makes a retention pass every Config.Interval until ctx ends, and returns
// nil then. A failed pass is logged and tried again.
func (b *Broker) Run(ctx context.Context) error {
	tick := time.NewTicker(b.cfg.Interval)
	defer tick.Stop()
	for {
		if err := b.Enforce(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("retention pass failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Close stops serving, saves the log's state and unlocks the directory. It may
// be called more than once.
func (b *Broker) Close() error {
	b.closeOnce.Do(func() {
		b.kafka.Close()
		b.closeErr = b.lock.Close()
	})
	return b.closeErr
}
