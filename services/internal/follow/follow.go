// Package follow keeps what was read from files as new as the files are:
// certificates, authorities, passwords, root keys.
//
// It looks at times and sizes, which works on every file system and with files
// that are replaced by a link. What does not load leaves in force what was
// there before, and a log line and a metric say so. It never reads a file
// that has not changed, and knows nothing of what is in one.
package follow

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Interval is how often Run looks at the files.
const Interval = 5 * time.Second

// A Watch looks at the files of its values. Its methods are safe for
// concurrent use; a nil Watch loads values once and looks at nothing.
type Watch struct {
	log     *slog.Logger
	reloads metric.Int64Counter

	mu     sync.Mutex
	values []followed // only ever appended to
}

// followed is a Value of any type.
type followed interface {
	look(ctx context.Context)
	observe(o metric.Observer, stale, expiry metric.Int64Observable)
}

// NewWatch returns a watch without values. The caller runs Run.
func NewWatch(log *slog.Logger, meters metric.MeterProvider) (*Watch, error) {
	meter := meters.Meter("stormbell/follow")
	w := &Watch{log: log}
	var err error
	if w.reloads, err = meter.Int64Counter("stormbell_files_reloads_total",
		metric.WithDescription("Files of keys and certificates that were read again after a change, by outcome.")); err != nil {
		return nil, fmt.Errorf("follow files: %w", err)
	}
	stale, err := meter.Int64ObservableGauge("stormbell_files_stale",
		metric.WithDescription("Is 1 while changed files of keys or certificates do not load and what was read before is in force."))
	if err != nil {
		return nil, fmt.Errorf("follow files: %w", err)
	}
	expiry, err := meter.Int64ObservableGauge("stormbell_files_certificate_expiry_timestamp_seconds", metric.WithUnit("s"),
		metric.WithDescription("When the certificate in force ends, in Unix time."))
	if err != nil {
		return nil, fmt.Errorf("follow files: %w", err)
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, v := range w.all() {
			v.observe(o, stale, expiry)
		}
		return nil
	}, stale, expiry)
	if err != nil {
		return nil, fmt.Errorf("follow files: %w", err)
	}
	return w, nil
}

func (w *Watch) all() []followed {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.values
}

// Run looks every Interval until ctx ends, and returns nil then.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.Look(ctx)
		}
	}
}

// Look looks at all files once and loads those that have changed.
func (w *Watch) Look(ctx context.Context) {
	for _, v := range w.all() {
		v.look(ctx)
	}
}

// A Value is what was read last from its files.
type Value[T any] struct {
	watch *Watch
	name  string
	paths []string
	load  func() (T, error)
	// expires is when the value ends by itself; may be nil.
	expires func(T) time.Time

	current atomic.Pointer[T]
	stale   atomic.Bool

	mu   sync.Mutex // one look at a time
	seen string     // of the files at the last attempt
}

// New loads a value and has watch follow its files. name is the setting that
// names them, and the label of the metrics: a watch has one value of a name, and
// who asks again gets that one. An error of load is returned as it is and must
// name its file.
func New[T any](watch *Watch, name string, load func() (T, error), paths ...string) (*Value[T], error) {
	return follow(&Value[T]{watch: watch, name: name, paths: paths, load: load})
}

func follow[T any](v *Value[T]) (*Value[T], error) {
	if v.watch != nil {
		v.watch.mu.Lock()
		defer v.watch.mu.Unlock()
		for _, known := range v.watch.values {
			if known, ok := known.(*Value[T]); ok && known.name == v.name {
				return known, nil
			}
		}
	}
	v.seen = state(v.paths) // before the read: a change in between is seen next time
	first, err := v.load()
	if err != nil {
		return nil, err
	}
	v.current.Store(&first)
	if v.watch != nil {
		v.watch.values = append(v.watch.values, v)
	}
	return v, nil
}

// Get returns the value in force.
func (v *Value[T]) Get() T { return *v.current.Load() }

// look loads changed files, and again those that did not load.
func (v *Value[T]) look(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := state(v.paths)
	changed := now != v.seen
	if !changed && !v.stale.Load() {
		return
	}
	v.seen = now
	fresh, err := v.load()
	if err == nil {
		v.current.Store(&fresh)
		v.stale.Store(false)
		v.watch.log.InfoContext(ctx, "changed files are in force", "setting", v.name)
		v.count(ctx, "ok")
		return
	}
	if changed {
		v.watch.log.ErrorContext(ctx, "changed files do not load, what was read before stays in force", "setting", v.name, "error", err)
		v.count(ctx, "failed")
	}
	v.stale.Store(true)
}

func (v *Value[T]) count(ctx context.Context, outcome string) {
	v.watch.reloads.Add(ctx, 1, metric.WithAttributes(attribute.String("files", v.name), attribute.String("outcome", outcome)))
}

func (v *Value[T]) observe(o metric.Observer, stale, expiry metric.Int64Observable) {
	label := metric.WithAttributes(attribute.String("files", v.name))
	is := int64(0)
	if v.stale.Load() {
		is = 1
	}
	o.ObserveInt64(stale, is, label)
	if v.expires != nil {
		o.ObserveInt64(expiry, v.expires(v.Get()).Unix(), label)
	}
}

// state changes whenever one of the files does.
func state(paths []string) string {
	var text strings.Builder
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&text, "%d %d\n", info.ModTime().UnixNano(), info.Size())
		} else {
			text.WriteString("missing\n")
		}
	}
	return text.String()
}
