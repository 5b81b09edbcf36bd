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
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Broker is one open log. Its methods are safe for concurrent use.
type Broker struct {
	cfg    Config
	log    *slog.Logger
	clock  func() time.Time
	lock   *flock.Flock
	kafka  *kfake.Cluster
	guard  *guard
	admin  *admin
	sync   *syncer
	engine *engineLog

	floor       atomic.Pointer[func(string, int) int64]
	produced    atomic.Int64 // bytes since Open
	trimmed     atomic.Int64
	writeFailed atomic.Bool
	kick        chan struct{} // asks Run for a pass; one is enough

	pass     sync.Mutex // held for a retention pass
	durable  ledger
	recorded []byte

	state    sync.Mutex // never taken before pass is released or inside sync
	used     int64
	measured int64 // of produced, when used was
	free     int64
	heldBy   string
	told     string

	closeOnce sync.Once
	closeErr  error
}

// Open locks cfg.Dir, checks the log in it and serves it on a random loopback
// port until Close. It reads the whole log first and reports progress when
// that takes more than a second. Nothing is trimmed before Run or Enforce.
//
// An error names what is wrong and what to do: another process holds the
// directory, the log is damaged, or a consumer group is ahead of it.
func Open(cfg Config, log *slog.Logger, clock func() time.Time) (*Broker, error) {
	return open(cfg, log, clock, nil)
}

// open lets tests change the engine's settings.
func open(cfg Config, log *slog.Logger, clock func() time.Time, engine map[string]string) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, log: log, clock: clock, kick: make(chan struct{}, 1), free: -1}
	if err := os.MkdirAll(b.root(), 0o700); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	var err error
	if b.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := b.start(engine); err != nil {
		return nil, errors.Join(err, b.lock.Close())
	}
	return b, nil
}

// root is the engine's directory.
func (b *Broker) root() string { return filepath.Join(b.cfg.Dir, "log") }

func (b *Broker) start(engine map[string]string) error {
	var err error
	if b.durable, err = readLedger(b.cfg.Dir); err != nil {
		return err
	}
	v := verifier{
		cfg: b.cfg, root: b.root(), log: b.log, clock: b.clock,
		table: castagnoli(), known: b.durable.ends(),
	}
	if err := v.verify(); err != nil {
		return err
	}
	// Members of a process that is gone would hold up every group until
	// their session times out.
	if err := os.Remove(filepath.Join(b.root(), "session_state.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the sessions of the last run: %w", err)
	}
	b.sync = newSyncer(b.root(), b.cfg.Sync)
	b.guard = &guard{
		log: b.log, versions: protocol(), limit: b.cfg.MaxFrameBytes, sync: b.sync,
		produced: b.count, check: b.stored,
	}
	if b.cfg.Auth {
		b.guard.password = rand.Text()
	}
	b.engine = &engineLog{log: b.log, clock: b.clock, failed: b.writeError, last: make(map[string]time.Time), held: make(map[string]int)}
	if err := b.guard.listen(); err != nil {
		return err
	}
	if err := b.load(v.total, engine); err != nil {
		return errors.Join(err, b.guard.Close())
	}
	b.admin = &admin{dial: b.guard.dial, versions: protocol()}
	go b.sync.run()
	if err := b.ready(); err != nil {
		return errors.Join(err, b.shutdown())
	}
	b.guard.admit()
	return nil
}

// load starts the engine and says once a second that it is still loading.
func (b *Broker) load(size int64, engine map[string]string) error {
	began, done := b.clock(), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				b.log.Info("loading the log", "total_bytes", size, "elapsed", b.clock().Sub(began).String())
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	configs := engineConfig(b.cfg)
	maps.Copy(configs, engine)
	var err error
	b.kafka, err = kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ClusterID("stormbell"),
		kfake.DataDir(b.root()),
		kfake.MaxVersions(protocol()),
		kfake.WithLogger(b.engine),
		kfake.BrokerConfigs(configs),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return b.guard, nil }),
	)
	if err != nil {
		return fmt.Errorf("open log in %s: %w", b.cfg.Dir, err)
	}
	return nil
}

// engineConfig switches off all that the engine would delete by itself.
func engineConfig(cfg Config) map[string]string {
	return map[string]string{
		"log.retention.ms":    "-1",
		"log.retention.bytes": "-1",
		// Ten years in milliseconds: the timer also applies the settings of
		// single topics, and the age of seven days where they have none.
		"log.cleaner.backoff.ms": "315360000000",
		// A hundred years. The engine counts them in nanoseconds, and the
		// largest number allowed would overflow and expire all at once.
		"offsets.retention.minutes": "52560000",
		"log.segment.bytes":         strconv.FormatInt(cfg.segmentBytes(), 10),
		"message.max.bytes":         strconv.FormatInt(cfg.MaxFrameBytes, 10),
	}
}

// ready makes the checks that need the running engine, then the first
// measurement.
func (b *Broker) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	if err := b.reconcile(ctx, b.durable); err != nil {
		return err
	}
	// A directory that is new, or whose list of topics was just rewritten.
	if err := syncDir(b.root()); err != nil {
		return fmt.Errorf("sync log directory: %w", err)
	}
	used, err := diskUsage(b.root())
	if err != nil {
		return fmt.Errorf("measure log: %w", err)
	}
	return b.judge(used, 0, hold{})
}

// lockWait is how long a holder may take to be gone: a killed process holds
// its files until the kernel has cleared it away.
const lockWait = time.Second

// lockDir takes the lock of dir, or says which process holds it.
func lockDir(dir string) (*flock.Flock, error) {
	path := filepath.Join(dir, "lock")
	lock := flock.New(path, flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	ok, err := lock.TryLockContext(ctx, lockWait/50)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("lock log directory %s: %w", dir, err)
	}
	if !ok {
		holder := "another process"
		if pid, err := os.ReadFile(path); err == nil && len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		return nil, fmt.Errorf("log directory %s is in use by %s: stop it, or use another --data", dir, holder)
	}
	// The number serves only the message above; a full disk must not keep us
	// from starting.
	_ = os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
	return lock, nil
}

// count notes produced bytes and asks for a pass when a sixty-fourth of the
// cap has come in since the last one.
func (b *Broker) count(n int) {
	total := b.produced.Add(int64(n))
	if step := b.cfg.LogMaxBytes / 64; total/step != (total-int64(n))/step {
		b.hurry()
	}
}

func (b *Broker) hurry() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// writeError is told of writes that failed inside the engine.
func (b *Broker) writeError(err error, final bool) {
	if final {
		b.sync.fail(err)
	}
	if !b.writeFailed.Swap(true) {
		b.hurry()
	}
}

// stored makes sure that new topics are on disk before they are acknowledged.
func (b *Broker) stored(request) error {
	if err := b.sync.failure(); err != nil || !b.cfg.Sync {
		return err
	}
	return syncDir(b.root())
}

// Addr returns the host and port that Kafka clients dial.
func (b *Broker) Addr() string { return b.guard.tcp.Addr().String() }

// Credential returns the user and password for SASL/PLAIN, both empty unless
// Config.Auth is set. They live as long as the broker and are stored nowhere.
func (b *Broker) Credential() (name, password string) {
	if b.guard.password == "" {
		return "", ""
	}
	return user, b.guard.password
}

// SetFloor replaces Config.Rebuild by a function that returns the first offset
// of a partition that a rebuild would read, or a negative number where it does
// not know. It is called during retention passes and must not block.
func (b *Broker) SetFloor(floor func(topic string, partition int) int64) { b.floor.Store(&floor) }

// Run makes a retention pass every Config.Interval, and sooner when much was
// written, until ctx ends; it returns nil then. A failed pass is logged and
// tried again.
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
		case <-b.kick:
		}
	}
}

// Close stops serving, saves the log's state, syncs it and unlocks the
// directory. It may be called more than once.
func (b *Broker) Close() error {
	b.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
		defer cancel()
		b.pass.Lock()
		defer b.pass.Unlock()
		_, err := b.record(ctx)
		if err != nil {
			err = fmt.Errorf("record what is durable: %w", err)
		}
		b.closeErr = errors.Join(err, b.shutdown(), b.lock.Close())
	})
	return b.closeErr
}

func (b *Broker) shutdown() error {
	err := b.admin.close()
	b.kafka.Close()
	err = errors.Join(err, b.guard.Close())
	b.sync.stop()
	if b.cfg.Sync {
		if serr := syncTree(b.root()); serr != nil {
			err = errors.Join(err, fmt.Errorf("sync log: %w", serr))
		}
	}
	return err
}
