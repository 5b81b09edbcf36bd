package correlator

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/stormbell/stormbell/proto/stormbell/state/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/state"
)

// A group with a long memory cannot be rebuilt from `detections`, which are not
// kept that long. Some time after it has changed, by the watermark, all that
// the store has of it goes to `state`, with the offset up to which records are
// in it. It takes its way through the outbox, behind all that those records had
// to say, and the frontier waits for it as for an alert: below the frontier no
// change is older than SnapshotEvery and not in `state`. A rebuild loads what is
// there, reads the log back by SnapshotEvery instead of by the group's memory,
// and leaves out of the records those that are in the group already.
//
// Why nothing is missed: let the frontier be at watermark F and a record have
// changed the group at watermark W. If the last snapshot lacks it, none was due,
// so F < W + SnapshotEvery and its share of delay; and the record was written at
// W or later, since every watermark lies before its own write. Why nothing is
// counted twice: the snapshot says which offsets are in it, and a copy behind
// them has an ingest time below its watermark, which no first record has.
//
// The keys of a snapshot hold its offset, so that what a zombie writes late
// never takes the place of what came after it.

const (
	snapshotField   = "s"
	snapshotVersion = 1
	// partBytes is about how large a part of a snapshot is at most.
	partBytes = 256 << 10
)

// snapshot is what a group remembers of its snapshots.
type snapshot struct {
	// every is how long after a change one is due; 0 where the group has none.
	every int64
	// offset is that of the last, −1 where there is none, parts how many it has
	// and asOf its watermark.
	offset, parts, asOf int64
	// changed is when, by the watermark, the group changed first since; Never
	// where it has not.
	changed int64
	stale   bool // is to be written
}

func newSnapshot(every int64) snapshot {
	return snapshot{every: every, offset: -1, asOf: unseen, changed: state.Never}
}

// contains reports whether a record is in the group by its last snapshot, or a
// copy of one that is.
func (s *snapshot) contains(offset, ingest int64) bool {
	return s.offset >= 0 && (offset <= s.offset || ingest < s.asOf)
}

// change notes that the group has changed at a watermark.
func (s *snapshot) change(watermark int64) {
	if s.every > 0 && s.changed == state.Never {
		s.changed, s.stale = watermark, true
	}
}

// due is the watermark at which a snapshot is due. Groups that changed together
// are not all due at once.
func (s *snapshot) due(key string) int64 {
	if s.every == 0 || s.changed == state.Never {
		return state.Never
	}
	return s.changed + s.every + int64(crc32.ChecksumIEEE([]byte(key)))%(s.every/snapshotSpread+1)
}

// snapshotSpread is which part of SnapshotEvery snapshots may be late.
const snapshotSpread = 4

func (s *snapshot) encode() []byte {
	b := []byte{snapshotVersion}
	for _, v := range []int64{s.offset, s.parts, s.asOf, s.changed} {
		b = binary.AppendVarint(b, v)
	}
	return b
}

func (s *snapshot) decode(b []byte) error {
	if len(b) == 0 || b[0] != snapshotVersion {
		return errIdentity
	}
	b = b[1:]
	for _, to := range []*int64{&s.offset, &s.parts, &s.asOf, &s.changed} {
		v, n := binary.Varint(b)
		if n <= 0 {
			return errIdentity
		}
		*to, b = v, b[n:]
	}
	return nil
}

// snapshotEvery is how long after a change a group of a rule goes to `state`, in
// milliseconds; 0 where it does not.
func (c Config) snapshotEvery(s *window.Spec) int64 {
	if max(s.Memory(), s.Width()) <= c.SnapshotOver.Milliseconds() {
		return 0
	}
	return c.SnapshotEvery.Milliseconds()
}

// snapshots puts groups into the outbox, as many as fit into one call, as the
// store has them. What the watermark has let them forget it has not written yet:
// it does so again whenever a group is read. A group that does not fit by itself
// follows in calls of its own; see longSnapshot.
func (s *step) snapshots(ctx context.Context, groups []*group, w int64) error {
	f := s.f
	var keys []string
	for size := int64(0); len(keys) < len(groups) && size <= f.cfg.CacheBytes/4; size += groups[len(keys)-1].bytes {
		keys = append(keys, groups[len(keys)].key)
	}
	if len(keys) == 0 {
		return nil
	}
	stored, err := f.store.Load(ctx, f.partition, keys)
	if err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	for i, fields := range stored {
		if i > 0 && s.full() {
			break // the rest stays due
		}
		if sizeOf(fields) > f.cfg.BatchBytes {
			f.long = &longSnapshot{key: groups[i].key, watermark: w}
			break
		}
		parts, err := s.parts(groups[i].key, fields, w)
		if err != nil {
			return err
		}
		for _, m := range parts {
			s.say(f.applied.Offset, m)
		}
		s.snapshotted(groups[i], int64(len(parts)), w)
	}
	return nil
}

// longSnapshot is one that takes several calls. They come one after the other, with
// nothing between them, and the group stays due until the last. It begins behind
// the call that has found it due, which writes what the watermark has changed: from
// then on the group is the same for all calls at the offset. So an owner that takes
// over amid them finds the group due, and begins anew with the same parts.
type longSnapshot struct {
	key       string
	watermark int64
	parts     []*message // all of them; nil before the first call
	said      int
}

// snapshotOn writes as much of a long snapshot as fits into one call, but one part
// at least.
func (f *folder) snapshotOn(ctx context.Context) ([]state.Entry, error) {
	s, l := &step{f: f, seq: f.seq}, f.long
	if l.parts == nil {
		stored, err := f.store.Load(ctx, f.partition, []string{l.key})
		if err != nil {
			return nil, err //nolint:wrapcheck // the store says what failed
		}
		if l.parts, err = s.parts(l.key, stored[0], l.watermark); err != nil {
			return nil, err
		}
	}
	for l.said < len(l.parts) && !s.full() {
		s.say(f.applied.Offset, l.parts[l.said])
		l.parts[l.said] = nil
		l.said++
	}
	if l.said == len(l.parts) {
		groups, err := f.closing(ctx, []string{l.key})
		if err != nil {
			return nil, err
		}
		s.snapshotted(groups[0], int64(len(l.parts)), l.watermark)
		f.long = nil
	}
	return s.entries, s.write(ctx, state.Position{Offset: f.applied.Offset, Step: f.applied.Step + 1})
}

// parts are the records of a snapshot of what the store has of a group.
func (s *step) parts(key string, fields []state.Field, w int64) ([]*message, error) {
	parts := split(fields, min(partBytes, s.f.cfg.BatchBytes))
	sum := sumOf(parts)
	messages := make([]*message, len(parts))
	for i, part := range parts {
		value, err := marshal(&statev1.Snapshot{Parts: uint32(len(parts)), WatermarkMs: w, Fields: part, Sum: sum})
		if err != nil {
			return nil, fmt.Errorf("snapshot of group %s: %w", key, err)
		}
		messages[i] = &message{kind: toState, key: snapshotKey(key, s.f.applied.Offset, int64(i)), value: value}
	}
	return messages, nil
}

// snapshotted notes that the last part of a snapshot is said.
func (s *step) snapshotted(g *group, parts, w int64) {
	s.forget(g)
	g.snap.offset, g.snap.parts, g.snap.asOf, g.snap.changed, g.snap.stale = s.f.applied.Offset, parts, w, state.Never, true
	s.touch(g)
	s.f.counts.snapshot(1)
}

// forget takes the last snapshot of a group away.
func (s *step) forget(g *group) {
	for i := range g.snap.parts {
		s.say(s.f.applied.Offset, &message{kind: toState, key: snapshotKey(g.key, g.snap.offset, i)})
	}
}

// split divides fields into parts of about so many bytes. A field that does not fit
// into a record by itself continues in the next part.
func split(fields []state.Field, bytes int) (parts [][]*statev1.Field) {
	size := bytes
	add := func(name string, value []byte) {
		if size += len(name) + len(value); size >= bytes {
			parts, size = append(parts, nil), len(name)+len(value)
		}
		last := &parts[len(parts)-1]
		*last = append(*last, &statev1.Field{Name: name, Value: value})
	}
	for _, f := range fields {
		if f.Name == snapshotField {
			continue // it is of the snapshot before
		}
		rest := f.Value
		for ; len(rest) > maxDetection; rest = rest[maxDetection:] {
			add(f.Name, rest[:maxDetection])
		}
		add(f.Name, rest)
	}
	return parts
}

// join adds the fields of a part to those of the parts before it.
func join(fields []state.Field, part []*statev1.Field) []state.Field {
	for _, f := range part {
		if n := len(fields); n > 0 && fields[n-1].Name == f.GetName() {
			fields[n-1].Value = slices.Concat(fields[n-1].Value, f.GetValue())
			continue
		}
		fields = append(fields, state.Field{Name: f.GetName(), Value: f.GetValue()})
	}
	return fields
}

// sumOf tells snapshots of a group at one offset apart. Where a store that has lost
// its tail folds the same records in other batches, it may lay them out otherwise:
// parts of the one are worth nothing to the other.
func sumOf(parts [][]*statev1.Field) uint64 {
	h := fnv.New64a()
	for _, part := range parts {
		fmt.Fprintf(h, "%d;", len(part))
		for _, f := range part {
			fmt.Fprintf(h, "%s:%d:", f.GetName(), len(f.GetValue()))
			h.Write(f.GetValue()) // it returns no error
		}
	}
	return h.Sum64()
}

func sizeOf(fields []state.Field) (size int) {
	for _, f := range fields {
		size += len(f.Name) + len(f.Value)
	}
	return size
}

func snapshotKey(group string, offset, part int64) []byte {
	return fmt.Appendf(nil, "%s:%d:%d", group, offset, part)
}

func parseSnapshotKey(key []byte) (group string, offset, part int64, ok bool) {
	of := strings.Split(string(key), ":")
	if len(of) != 3 || of[0] == "" || len(of[0]) > state.MaxKeyBytes {
		return "", 0, 0, false
	}
	offset, err1 := strconv.ParseInt(of[1], 10, 64)
	part, err2 := strconv.ParseInt(of[2], 10, 64)
	return of[0], offset, part, err1 == nil && err2 == nil && offset >= 0 && part >= 0 && part < maxParts
}

// maxParts bounds the parts of a snapshot: a group of a gigabyte.
const maxParts = 4096

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
			f.tallies[g.tally] = &tally{key: g.tally, said: unseen}
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
