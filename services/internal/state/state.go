// Package state remembers what stage correlate has computed: the groups of a
// partition of `detections`, the position up to which they are folded, and
// the outbox of what they say.
//
// Redis and Memory keep the same promises: one Commit takes effect whole or
// not at all, only for the owner whose token it carries, and only on top of
// the position it was computed from. Nothing here understands what it
// stores, computes a window or reads a clock, and nothing expires by itself:
// both may lose everything, and the log rebuilds it.
package state

import (
	"errors"
	"fmt"
	"math"
)

// Never is the due time of a group that no watermark touches.
const Never = math.MaxInt64

// Position says how far a partition is folded: everything below Offset, and
// the first Step calls of the work that the watermark caused there.
type Position struct {
	Offset, Step int64
}

// Nowhere is the position of a partition without state.
var Nowhere = Position{Offset: -1}

func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Offset, p.Step) }

// Less reports whether p lies before q.
func (p Position) Less(q Position) bool {
	return p.Offset < q.Offset || p.Offset == q.Offset && p.Step < q.Step
}

// Partition is what a new owner finds.
type Partition struct {
	// Applied is Nowhere if there is no state.
	Applied Position
	// Meta is what the last Commit stored.
	Meta []byte
	// Seq is the sequence number of the last outbox entry ever appended.
	Seq int64
	// First is that of the first entry still in the outbox; Seq + 1 where it is
	// empty.
	First int64
	// Due is the least due time of a group of level 0, or Never.
	Due int64
}

// MaxLevel is the highest level of a group. Each level has a due index of its
// own, since its watermark may lag behind others.
const MaxLevel = 16

// Field is one part of a group.
type Field struct {
	Name string
	// Value is nil where the field is to be removed.
	Value []byte
}

// Change is what one Commit does to one group.
type Change struct {
	// Key identifies the group in its partition: a hash, of at most
	// MaxKeyBytes bytes.
	Key string
	// Drop removes the group; Fields and Due are then ignored.
	Drop bool
	// Fields are set or removed; other fields stay.
	Fields []Field
	// Due is the watermark, Unix milliseconds, at which the group has
	// something to do; Never takes it out of the due index.
	Due int64
	// Level is that of the due index, the same for all changes of a group.
	Level uint32
	// SameDue leaves the group's place in the due index as it is; Due is then
	// ignored.
	SameDue bool
}

// Entry is one message of the outbox.
type Entry struct {
	// Seq grows by one with each entry of the partition.
	Seq int64
	// Offset is that of the record that caused the entry.
	Offset int64
	Body   []byte
}

// Batch is one atomic step.
type Batch struct {
	// Token is the owner's.
	Token string
	// Prev is the position that the batch was computed from; Next, always
	// behind it, is the one it leads to.
	Prev, Next Position
	Meta       []byte
	// Changes name each group at most once.
	Changes []Change
	// Outbox continues the sequence.
	Outbox []Entry
}

// Limits of one Batch. A larger one is refused before anything is sent.
const (
	MaxKeyBytes     = 64
	MaxBatchChanges = 2000
	MaxBatchFields  = 20000
	// MaxBatchBytes is several times what stage correlate aims at: one record, or
	// what the watermark does to one group, may carry a large group over it.
	MaxBatchBytes = 16 << 20
)

// RefusedError says that a Commit or Trim changed nothing, because another
// owner, or a store that lost its tail or everything, is no longer where the
// caller left it. The caller drops its cache and loads the partition anew.
type RefusedError struct {
	// Reason is "owner", "applied" or "sequence".
	Reason string
	// Applied is where the store is; it may be Nowhere.
	Applied Position
	// Foreign says that another owner holds the partition; otherwise the
	// token is missing, or the owner is still the caller.
	Foreign bool
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("state write refused: %s does not match, the store is at %s", e.Reason, e.Applied)
}

// IsRefused reports whether err holds a RefusedError.
func IsRefused(err error) bool {
	var r *RefusedError
	return errors.As(err, &r)
}

// ErrTooLarge is wrapped where a Batch exceeds the limits.
var ErrTooLarge = errors.New("batch exceeds the limits of one call")

// check refuses a batch that no store may apply.
func (b *Batch) check() error {
	if b.Token == "" {
		return errors.New("commit without an owner token")
	}
	if !b.Prev.Less(b.Next) {
		return fmt.Errorf("commit from %s to %s does not advance", b.Prev, b.Next)
	}
	for i := range b.Changes {
		if key := b.Changes[i].Key; key == "" || len(key) > MaxKeyBytes {
			return fmt.Errorf("group key of %d bytes: use 1 to %d", len(key), MaxKeyBytes)
		}
	}
	for i, e := range b.Outbox {
		if e.Seq != b.Outbox[0].Seq+int64(i) {
			return fmt.Errorf("outbox entry %d does not continue %d", e.Seq, b.Outbox[0].Seq)
		}
	}
	return b.Fits(MaxBatchBytes)
}

// Fits says, with an error that wraps ErrTooLarge, that the batch has more than
// most bytes, or exceeds another of the limits.
func (b *Batch) Fits(most int) error {
	fields, size := 0, len(b.Meta)
	for i := range b.Changes {
		fields += len(b.Changes[i].Fields)
		for _, f := range b.Changes[i].Fields {
			size += len(f.Name) + len(f.Value)
		}
	}
	for i := range b.Outbox {
		size += len(b.Outbox[i].Body)
	}
	if len(b.Changes) > MaxBatchChanges || fields > MaxBatchFields || size > most {
		return fmt.Errorf("%w: %d groups, %d fields, %d bytes", ErrTooLarge, len(b.Changes), fields, size)
	}
	return nil
}
