// Package control is every process's view of the compacted topic `control`:
// tenants, API keys, subscriptions, silences, rules and the manifests that say
// which rules are in force.
//
// A View follows the topic into memory, and reads of it take no lock. It
// writes too, and a write returns only once the view that made it shows it. It
// neither seals nor opens secrets, does not judge rules, and keeps nothing on
// disk: the topic is the truth.
package control

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// Config bounds how a View uses the log.
type Config struct {
	// SyncTimeout bounds one read to the end of the log.
	SyncTimeout time.Duration
	// LookupInterval is the least time between two reads to the end that
	// unknown API keys cause.
	LookupInterval time.Duration
	// RetryInterval is the pause after a failed read.
	RetryInterval time.Duration
}

// DefaultConfig returns the settings that every service uses.
func DefaultConfig() Config {
	return Config{SyncTimeout: 5 * time.Second, LookupInterval: 50 * time.Millisecond, RetryInterval: 200 * time.Millisecond}
}

// View is the state of the topic as far as it has been read. Its methods are
// safe for concurrent use. Objects that it returns are shared and must not be
// changed: clone them first.
type View struct {
	cfg   Config
	log   Log
	slog  *slog.Logger
	clock func() time.Time

	snap    atomic.Pointer[snapshot]
	corrupt atomic.Int64
	syncs   *rounds
	lookups *rounds

	mu      sync.Mutex
	next    int64 // offset to read next; everything below it is in snap
	target  int64 // end of the log when it was opened; negative: not known
	ready   bool
	moved   chan struct{} // closed when next moves
	changed chan struct{} // closed when snap changes
}

// Open returns a view that is empty until Run has read the log.
func Open(cfg Config, log Log, logger *slog.Logger, clock func() time.Time) *View {
	v := &View{
		cfg: cfg, log: log, slog: logger, clock: clock, target: -1,
		moved: make(chan struct{}), changed: make(chan struct{}),
	}
	v.snap.Store(new(snapshot))
	v.syncs = newRounds(0, v.readToEnd)
	v.lookups = newRounds(cfg.LookupInterval, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, cfg.SyncTimeout)
		defer cancel()
		return v.Sync(ctx)
	})
	return v
}

// Run follows the log until ctx ends, and returns nil then. A log that fails
// is tried again for ever; what was read before stays readable meanwhile.
func (v *View) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { v.syncs.run(ctx) })
	wg.Go(func() { v.lookups.run(ctx) })
	failing := false
	for ctx.Err() == nil {
		err := v.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && failing:
			failing = false
			v.slog.Info("control log answers again", "offset", v.Offset())
		case err != nil:
			if !failing {
				failing = true
				v.slog.Warn("control log cannot be read, trying again", "offset", v.Offset(), "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(v.cfg.RetryInterval):
			}
		}
	}
	return nil
}

// step reads and applies one batch.
func (v *View) step(ctx context.Context) error {
	if err := v.aim(ctx); err != nil {
		return err
	}
	from := v.Offset()
	records, next, err := v.log.Read(ctx, from)
	if errors.Is(err, ErrOutOfRange) {
		return v.restart(ctx, from)
	}
	if err != nil {
		return fmt.Errorf("read control from offset %d: %w", from, err)
	}
	d := newDraft(v.snap.Load())
	v.fold(d, records)
	v.publish(d, next)
	return nil
}

// aim learns once where the log ended when the view was opened.
func (v *View) aim(ctx context.Context) error {
	v.mu.Lock()
	known := v.target >= 0
	v.mu.Unlock()
	if known {
		return nil
	}
	start, end, err := v.log.Offsets(ctx)
	if err != nil {
		return fmt.Errorf("ask for the start and end of control: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next, v.target = start, end
	v.ready = start >= end
	v.wakeLocked()
	return nil
}

// restart reads a log anew whose offsets no longer continue ours: it was
// restored or replaced. The old state stays in force until the new one is
// complete.
func (v *View) restart(ctx context.Context, from int64) error {
	v.slog.Error("control log does not hold the offset that was read last, reading it anew", "offset", from)
	next, end, err := v.log.Offsets(ctx)
	if err != nil {
		return fmt.Errorf("ask for the start and end of control: %w", err)
	}
	d := newDraft(new(snapshot))
	for next < end {
		var records []Record
		if records, next, err = v.log.Read(ctx, next); err != nil {
			return fmt.Errorf("read control anew: %w", err)
		}
		v.fold(d, records)
	}
	d.changed = true
	v.publish(d, next)
	return nil
}

// fold applies records to a draft. A record that cannot be read is reported
// and skipped: one bad record must not hide the good ones behind it.
func (v *View) fold(d *draft, records []Record) {
	for _, r := range records {
		if r.Value == nil {
			d.remove(r.Key)
			continue
		}
		object, err := Decode(r.Key, r.Value)
		if err != nil {
			v.corrupt.Add(1)
			v.slog.Error("control record skipped", "offset", r.Offset, "error", err)
			continue
		}
		d.put(object, r.Offset)
	}
}

func (v *View) publish(d *draft, next int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if d.changed {
		fresh := d.snapshot
		v.snap.Store(&fresh)
		close(v.changed)
		v.changed = make(chan struct{})
	}
	v.next = next
	v.ready = v.ready || next >= v.target
	v.wakeLocked()
}

// wakeLocked wakes all that wait for the view to move. v.mu is held.
func (v *View) wakeLocked() {
	close(v.moved)
	v.moved = make(chan struct{})
}

// readToEnd takes the end of the log and waits until the view has read that far.
func (v *View) readToEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.SyncTimeout)
	defer cancel()
	_, end, err := v.log.Offsets(ctx)
	if err != nil {
		return fmt.Errorf("ask for the end of control: %w", err)
	}
	for {
		v.mu.Lock()
		reached, moved := v.target >= 0 && v.next >= end, v.moved
		v.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("read control up to offset %d: %w", end, ctx.Err())
		}
	}
}

// Sync returns nil once the view holds everything that was acknowledged
// before the call. It takes at most Config.SyncTimeout, needs Run to be
// running, and concurrent callers share one read. Errors wrap ErrUnavailable.
func (v *View) Sync(ctx context.Context) error {
	// Twice: a run that is under way is waited for before ours begins.
	if err := v.syncs.wait(ctx, 2*v.cfg.SyncTimeout); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Ready reports whether the view has once held all that the log held when the
// view was opened.
func (v *View) Ready() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ready
}

// AwaitReady returns nil once Ready holds, or the error of ctx.
func (v *View) AwaitReady(ctx context.Context) error {
	for {
		v.mu.Lock()
		ready, moved := v.ready, v.moved
		v.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for control to be read: %w", ctx.Err())
		}
	}
}

// Offset returns the offset that is read next: all below it is in the view.
func (v *View) Offset() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.next
}

// Corrupt returns how many records were skipped because they could not be read.
func (v *View) Corrupt() int64 { return v.corrupt.Load() }

// Changed returns a channel that is closed at the next change. Take it before
// reading what is to be watched, and take a new one after each change.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// Put writes objects in their order and returns once the log has acknowledged
// them and the view holds them. After an error some of them may be in force.
func (v *View) Put(ctx context.Context, objects ...*controlv1.Control) error {
	records := make([]Record, 0, len(objects))
	for _, object := range objects {
		r, err := encode(object)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	return v.write(ctx, records)
}

// Delete removes the objects under the given record keys, as Put writes them.
func (v *View) Delete(ctx context.Context, keys ...string) error {
	records := make([]Record, 0, len(keys))
	for _, key := range keys {
		if key == "" {
			return errors.New("delete from control: empty key")
		}
		records = append(records, Record{Key: key})
	}
	return v.write(ctx, records)
}

// maxAppendBytes bounds one append; more is written in several.
const maxAppendBytes = 512 << 10

func (v *View) write(ctx context.Context, records []Record) error {
	for len(records) > 0 {
		n := fitting(records)
		if err := v.log.Append(ctx, records[:n]...); err != nil {
			return fmt.Errorf("%w: write %s: %w", ErrUnavailable, records[0].Key, err)
		}
		records = records[n:]
	}
	return v.Sync(ctx)
}

// Tenant returns a tenant.
func (v *View) Tenant(id string) (*controlv1.Tenant, bool) {
	t, ok := v.snap.Load().tenants[id]
	return t, ok
}

// Tenants returns all tenants, sorted by id.
func (v *View) Tenants() []*controlv1.Tenant { return sortedValues(v.snap.Load().tenants) }

// TenantKey returns one version of a tenant's key-encryption key.
func (v *View) TenantKey(tenant string, version uint32) (*controlv1.TenantKey, bool) {
	k, ok := v.snap.Load().keks[tenant][version]
	return k, ok
}

// TenantKeys returns all versions of all tenants' key-encryption keys, sorted by
// tenant and time.
func (v *View) TenantKeys() []*controlv1.TenantKey {
	var all []*controlv1.TenantKey
	for _, versions := range v.snap.Load().keks {
		all = slices.AppendSeq(all, maps.Values(versions))
	}
	slices.SortFunc(all, func(a, b *controlv1.TenantKey) int {
		return cmp.Or(cmp.Compare(a.GetTenant(), b.GetTenant()), cmp.Compare(a.GetCreatedMs(), b.GetCreatedMs()), cmp.Compare(a.GetVersion(), b.GetVersion()))
	})
	return all
}

// NewestTenantKey returns the key-encryption key of a tenant that was created
// last. Versions are names without an order, so that two processes that each
// make a tenant's first key do not overwrite each other's.
func (v *View) NewestTenantKey(tenant string) (*controlv1.TenantKey, bool) {
	var newest *controlv1.TenantKey
	for _, k := range v.snap.Load().keks[tenant] {
		if newest == nil || cmp.Or(cmp.Compare(k.GetCreatedMs(), newest.GetCreatedMs()), cmp.Compare(k.GetVersion(), newest.GetVersion())) > 0 {
			newest = k
		}
	}
	return newest, newest != nil
}

// Keys returns the API keys of a tenant, sorted by id.
func (v *View) Keys(tenant string) []*controlv1.APIKey {
	all := make(map[string]*controlv1.APIKey)
	for id, k := range v.snap.Load().keys {
		if k.GetTenant() == tenant {
			all[id] = k.APIKey
		}
	}
	return sortedValues(all)
}

// Key returns an API key of a tenant; one of another tenant is not found.
func (v *View) Key(tenant, id string) (*controlv1.APIKey, bool) {
	k, ok := v.snap.Load().keys[id]
	if !ok || k.GetTenant() != tenant {
		return nil, false
	}
	return k.APIKey, true
}

// Subscriptions returns the subscriptions of a tenant, sorted by id, disabled
// and expired ones included. The slice must not be changed.
func (v *View) Subscriptions(tenant string) []*controlv1.Subscription {
	return v.snap.Load().subscriptions[tenant]
}

// Subscription returns one subscription of a tenant.
func (v *View) Subscription(tenant, id string) (*controlv1.Subscription, bool) {
	for _, s := range v.snap.Load().subscriptions[tenant] {
		if s.GetId() == id {
			return s, true
		}
	}
	return nil, false
}

// Silences returns the silences of a tenant, sorted by id. The slice must not
// be changed.
func (v *View) Silences(tenant string) []*controlv1.Silence {
	return v.snap.Load().silences[tenant]
}

// Rule returns a rule by the hash of its source.
func (v *View) Rule(hash []byte) (*controlv1.Rule, bool) {
	r, ok := v.snap.Load().rules[string(hash)]
	return r, ok
}

// Manifest returns a manifest by its hash, whether or not it is in force.
func (v *View) Manifest(hash []byte) (*controlv1.Manifest, bool) {
	m, ok := v.snap.Load().byHash[string(hash)]
	return m, ok
}

// Manifests returns the hashes of the manifests in force for all tenants and
// for one tenant; nil where there is none. They must not be changed.
func (v *View) Manifests(tenant string) (all, own []byte) {
	s := v.snap.Load()
	all = s.manifests[""].current().GetHash()
	if tenant != "" {
		own = s.manifests[tenant].current().GetHash()
	}
	return all, own
}

// Current returns the manifest in force of a scope, or nil.
func (v *View) Current(scope string) *controlv1.Manifest {
	return v.snap.Load().manifests[scope].current()
}

// AwaitManifest returns nil once the view holds a manifest and all its rules,
// or the error of ctx. The hash of no manifest, which is empty, is always held.
func (v *View) AwaitManifest(ctx context.Context, hash []byte) error {
	for {
		changed := v.Changed()
		if len(hash) == 0 || v.complete(hash) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for rule manifest %x: %w", hash[:min(len(hash), 6)], ctx.Err())
		}
	}
}

func (v *View) complete(hash []byte) bool {
	s := v.snap.Load()
	m, ok := s.byHash[string(hash)]
	if !ok || !bytes.Equal(m.GetHash(), hash) {
		return false
	}
	for _, e := range m.GetEntries() {
		if _, ok := s.rules[string(e.GetRule())]; !ok {
			return false
		}
	}
	return true
}
