package correlator

import (
	"context"

	"github.com/stormbell/stormbell/services/internal/state"
)

// An Owner admits one writer per partition.
//
// Acquire makes token, which must be new, the only one whose writes are taken
// from now on, and returns what is stored. Commit applies a batch whole, or
// fails with a state.RefusedError and changes nothing. A repetition of the
// batch that was applied last succeeds. After any other error the outcome is
// unknown: the caller acquires anew.
type Owner interface {
	Acquire(ctx context.Context, partition int32, token string) (state.Partition, error)
	Commit(ctx context.Context, partition int32, b *state.Batch) error
}

// Groups reads what owners have committed. It is not fenced: what a former
// owner reads is judged when it commits.
//
// Load returns the fields of each key, sorted by name, none where there is no
// group. Due returns at most limit keys of a level whose due time is at most
// watermark, in order of (due, key), and the least due time of the level.
type Groups interface {
	Load(ctx context.Context, partition int32, keys []string) ([][]state.Field, error)
	Due(ctx context.Context, partition int32, level uint32, watermark int64, limit int) (keys []string, least int64, err error)
}

// Outbox holds what the fold has said and nobody has acknowledged.
//
// Outbox returns at most limit entries with a sequence number above after, in
// order. Trim removes those up to and including upTo; it is fenced like
// Commit, since sequence numbers begin anew in a partition that lost all.
type Outbox interface {
	Outbox(ctx context.Context, partition int32, after int64, limit int) ([]state.Entry, error)
	Trim(ctx context.Context, partition int32, token string, upTo int64) error
}

// Store is what stage correlate needs to remember. It may lose its tail or
// everything at any time; the log brings it back. Its methods are safe for
// concurrent use. The package statetest holds implementations to this.
type Store interface {
	Owner
	Groups
	Outbox
}
