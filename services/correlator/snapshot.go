package correlator

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

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
		h.Write(fmt.Appendf(nil, "%d;", len(part))) // it returns no error
		for _, f := range part {
			h.Write(fmt.Appendf(nil, "%s:%d:", f.GetName(), len(f.GetValue())))
			h.Write(f.GetValue())
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
