package correlator

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/state"
)

// holding is a store whose first commit waits for something, and then for what is
// done before it.
type holding struct {
	Store
	until  <-chan struct{}
	before func(ctx context.Context, s Store)
	held   int
}

func (h *holding) Commit(ctx context.Context, partition int32, b *state.Batch) error {
	if h.held++; h.held == 1 {
		select {
		case <-h.until:
		case <-ctx.Done():
			return ctx.Err()
		}
		h.before(ctx, h.Store)
	}
	return h.Store.Commit(ctx, partition, b)
}

// TestComputedAhead holds that a record is folded while the one before is written,
// that nothing of it is told where that write is refused or its outcome not known,
// and that whoever comes next finds what it would have found.
func TestComputedAhead(t *testing.T) {
	for name, tc := range map[string]struct {
		before  func(ctx context.Context, s Store)
		lost    bool
		commits int
		next    int64
	}{
		"written":    {before: func(context.Context, Store) {}, commits: 4, next: 4},
		"refused":    {before: func(ctx context.Context, s Store) { _, _ = s.Acquire(ctx, 0, "another") }, commits: 1},
		"reply lost": {before: func(context.Context, Store) {}, lost: true, commits: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScope(t, func() Store { return state.NewMemory() }).world()
			w.log.fetch = len(w.records)
			o := w.own()
			computed := make(chan struct{})
			var folded []int64
			w.folds = func(r *Record) {
				if folded = append(folded, r.Offset); r.Offset == 1 {
					close(computed)
				}
			}
			held := &holding{Store: w.store.Store, until: computed, before: tc.before}
			w.store.Store, w.store.dropReply = held, tc.lost
			records, _, err := w.log.Fetch(t.Context(), TopicDetections, 0, 0)
			require.NoError(t, err)
			err = o.batches(t.Context(), records)
			require.Nil(t, o.f.flight)
			require.Equal(t, tc.next, o.next)
			if tc.next > 0 {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
				require.Equal(t, name == "refused", state.IsRefused(err), "%v", err)
				require.Equal(t, []int64{0, 1}, folded, "nothing is folded once it is known")
				require.Equal(t, tc.commits, held.held)
				require.Zero(t, o.publisher.last)
				require.Empty(t, o.frontiers.points)
			}
			w.folds = nil
			w.settle()
			require.Empty(t, w.problems)
		})
	}
}
