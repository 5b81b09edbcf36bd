package correlator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/stormbell/stormbell/proto/stormbell/state/v1"
	"github.com/stormbell/stormbell/services/internal/state"
)

// restore loads into an empty store what `state` has. It is done in calls at no
// offset: an owner that dies amid them leaves the store as empty as it was.
func (s *session) restore(ctx context.Context) error {
	found, gone, err := s.findSnapshots(ctx)
	if err != nil {
		return err
	}
	began := s.c.clock()
	r := &restoring{f: s.f, found: found, parts: make(map[string][][]*statev1.Field), again: s.f.applied.Step > 0}
	if r.again {
		if err := r.drop(ctx, gone); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	err = s.eachSnapshot(ctx, func(group string, offset, part int64, snap *statev1.Snapshot) error {
		if c, ok := found[group]; !ok || snap == nil || c.offset != offset || c.sum != snap.GetSum() {
			return nil
		}
		return r.take(ctx, group, part, snap)
	})
	if err != nil {
		return err
	}
	if err := r.write(ctx); err != nil {
		return err
	}
	s.c.counts.restored(int64(r.groups))
	s.log.Info("groups with a long memory are restored", "groups", r.groups, "took", s.c.clock().Sub(began).Round(time.Millisecond))
	return nil
}

// latest is the last snapshot of a group that is there whole.
type latest struct {
	offset, parts, asOf int64
	sum                 uint64
}

// findSnapshots finds the latest snapshot of each group that is there whole, and
// the groups of which none is.
func (s *session) findSnapshots(ctx context.Context) (found map[string]latest, gone []string, err error) {
	type name struct {
		offset int64
		sum    uint64
	}
	type version struct {
		latest
		seen map[int64]bool
	}
	versions := make(map[string]map[name]*version)
	err = s.eachSnapshot(ctx, func(group string, offset, part int64, snap *statev1.Snapshot) error {
		if versions[group] == nil {
			versions[group] = make(map[name]*version, 1)
		}
		if snap == nil {
			for n, v := range versions[group] {
				if n.offset != offset {
					continue
				}
				if delete(v.seen, part); len(v.seen) == 0 {
					delete(versions[group], n)
				}
			}
			return nil
		}
		n := name{offset, snap.GetSum()}
		v := versions[group][n]
		if v == nil {
			v = &version{latest: latest{offset, int64(snap.GetParts()), snap.GetWatermarkMs(), n.sum}, seen: make(map[int64]bool, 1)}
			versions[group][n] = v
		}
		v.seen[part] = true
		return nil
	})
	found = make(map[string]latest, len(versions))
	for group, all := range versions {
		for _, v := range all {
			best, ok := found[group]
			if int64(len(v.seen)) == v.parts && (!ok || cmp.Or(cmp.Compare(v.offset, best.offset), cmp.Compare(v.sum, best.sum)) > 0) {
				found[group] = v.latest
			}
		}
		if _, ok := found[group]; !ok {
			gone = append(gone, group)
		}
	}
	slices.Sort(gone)
	return found, gone, err
}

// eachSnapshot reads the partition's snapshots to their end. snap is nil where
// a part is taken away.
func (s *session) eachSnapshot(ctx context.Context, do func(group string, offset, part int64, snap *statev1.Snapshot) error) error {
	next, end, err := s.c.reader.Offsets(ctx, TopicState, s.claim.Partition)
	if err != nil {
		return err //nolint:wrapcheck // the bus says what failed
	}
	for next < end {
		records, _, err := s.c.reader.Fetch(ctx, TopicState, s.claim.Partition, next)
		if err != nil {
			return err //nolint:wrapcheck // the bus says what failed
		}
		if len(records) == 0 && ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
		for i := range records {
			next = records[i].Offset + 1
			group, offset, part, ok := parseSnapshotKey(records[i].Key)
			if !ok {
				s.log.Error("record of state has a key that no correlator wrote", "offset", records[i].Offset)
				continue
			}
			var snap *statev1.Snapshot
			if len(records[i].Value) > 0 {
				snap = new(statev1.Snapshot)
				if err := proto.Unmarshal(records[i].Value, snap); err != nil {
					return fmt.Errorf("snapshot at offset %d of state: %w", records[i].Offset, err)
				}
			}
			if err := do(group, offset, part, snap); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoring writes snapshots into the store, some in each call.
type restoring struct {
	f       *folder
	found   map[string]latest
	parts   map[string][][]*statev1.Field // of snapshots of which a part is missing yet
	batch   []*group
	changes []state.Change
	bytes   int
	fields  int
	groups  int
	again   bool // an owner has died amid this
}

func (r *restoring) take(ctx context.Context, key string, part int64, snap *statev1.Snapshot) error {
	c := r.found[key]
	parts := r.parts[key]
	if parts == nil {
		parts = make([][]*statev1.Field, c.parts)
		r.parts[key] = parts
	}
	if part >= c.parts {
		return fmt.Errorf("snapshot of group %s has a part %d of %d", key, part, c.parts)
	}
	parts[part] = snap.GetFields()
	var fields []state.Field
	for _, p := range parts {
		if p == nil {
			return nil
		}
		fields = join(fields, p)
	}
	delete(r.parts, key)
	delete(r.found, key) // a repetition of it says nothing new
	return r.open(ctx, key, fields, c)
}

// open decodes a group, as whoever folds it will.
func (r *restoring) open(ctx context.Context, key string, fields []state.Field, c latest) error {
	g, ok, err := r.f.common.openGroup(key, fields)
	if err != nil || !ok {
		return fmt.Errorf("snapshot of group %s at offset %d: %w", key, c.offset, errors.Join(err, errIdentity))
	}
	g.snap = snapshot{every: r.f.cfg.snapshotEvery(g.spec), offset: c.offset, parts: c.parts, asOf: c.asOf, changed: state.Never}
	fields = append(fields, state.Field{Name: snapshotField, Value: g.snap.encode()})
	r.f.meta.lookBack = max(r.f.meta.lookBack, r.f.cfg.ownLookBack(g.spec))
	if g.win.Carries() {
		r.f.meta.says(g.spec.Level+1, g.spec.Lag())
	}
	size := sizeOf(fields)
	if len(r.batch) > 0 && (r.bytes+size > r.f.cfg.BatchBytes || r.fields+len(fields) > maxClosedFields || len(r.batch) >= state.MaxBatchChanges/2) {
		if err := r.write(ctx); err != nil {
			return err
		}
	}
	r.bytes, r.fields, r.groups = r.bytes+size, r.fields+len(fields), r.groups+1
	r.batch = append(r.batch, g)
	r.changes = append(r.changes, state.Change{Key: key, Level: g.spec.Level, Due: g.next(), Fields: fields})
	return nil
}

func (r *restoring) write(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	f := r.f
	if err := r.clean(ctx); err != nil {
		return err
	}
	s := &step{f: f, seq: f.seq}
	for _, g := range r.batch {
		if f.tallies[g.tally] == nil { // what an owner that died amid this has counted does not count
			f.tallies[g.tally] = newTally(g.tally)
		}
		s.count(f.tallies[g.tally], 1)
		f.due[g.spec.Level] = min(f.due[g.spec.Level], g.next())
	}
	if len(r.changes) == 1 { // else they are as many as fit
		for c := &r.changes[0]; len(c.Fields) > 1 && (sizeOf(c.Fields) > f.cfg.BatchBytes || len(c.Fields) > maxClosedFields); {
			some := *c
			some.Fields, c.Fields = cutFields(c.Fields, f.cfg.BatchBytes)
			if err := r.commit(ctx, []state.Change{some}); err != nil {
				return err
			}
		}
	}
	for _, t := range s.tallies {
		r.changes = append(r.changes, t.change())
	}
	if err := r.commit(ctx, r.changes); err != nil {
		return err
	}
	for _, t := range s.tallies {
		t.dirty, t.stored = false, true
	}
	r.batch, r.changes, r.bytes, r.fields = nil, nil, 0, 0
	return nil
}

// cutFields takes as many of the fields as fit into one call, but one at least.
func cutFields(fields []state.Field, most int) (some, rest []state.Field) {
	n := 1
	for size := sizeOf(fields[:1]); n < len(fields) && n < maxClosedFields; n++ {
		if size += sizeOf(fields[n : n+1]); size > most {
			break
		}
	}
	return fields[:n], fields[n:]
}

func (r *restoring) commit(ctx context.Context, changes []state.Change) error {
	f := r.f
	b := &state.Batch{Token: f.token, Prev: f.applied, Next: state.Position{Offset: -1, Step: f.applied.Step + 1}, Meta: f.meta.encode(), Changes: changes}
	if err := f.store.Commit(ctx, f.partition, b); err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	f.applied = b.Next
	return nil
}

// drop takes away groups of which an owner that died amid this may have written a
// part, and whose snapshots are there no more.
func (r *restoring) drop(ctx context.Context, groups []string) error {
	for some := range slices.Chunk(groups, state.MaxBatchChanges/2) {
		changes := make([]state.Change, len(some))
		for i, key := range some {
			changes[i] = state.Change{Key: key, Drop: true}
		}
		if err := r.commit(ctx, changes); err != nil {
			return err
		}
	}
	return nil
}

// clean takes away what an owner that died amid this has left of other
// snapshots of the same groups.
func (r *restoring) clean(ctx context.Context) error {
	if !r.again {
		return nil
	}
	keys := make([]string, len(r.batch))
	for i, g := range r.batch {
		keys[i] = g.key
	}
	left, err := r.f.store.Load(ctx, r.f.partition, keys)
	if err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	for i := range r.changes {
		c := &r.changes[i]
		for _, f := range left[i] {
			if !slices.ContainsFunc(c.Fields, func(n state.Field) bool { return n.Name == f.Name }) {
				c.Fields = append(c.Fields, state.Field{Name: f.Name})
			}
		}
	}
	return nil
}
