package e2e_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

// faultCopies compares the ids of a clean run with those of one in which every
// event comes twice and a tenth of them out of order.
func faultCopies(t *testing.T, r *rig.Runner) string {
	clean := prepare(t, r, rig.Options{})
	events := newLoad(clean.seed, times(5000, 200_000), times(20, 800), clean.began).sent
	slices.SortFunc(events, func(a, b crashEvent) int { return cmp.Compare(a.id, b.id) })
	events = slices.CompactFunc(events, func(a, b crashEvent) bool { return a.id == b.id })
	slices.SortStableFunc(events, func(a, b crashEvent) int { return cmp.Compare(a.time, b.time) })
	for part := range slices.Chunk(events, batch) {
		require.NoError(t, clean.post(t.Context(), part))
	}
	first := clean.judge()

	random := rand.New(rand.NewPCG(clean.seed, 19))
	twice := slices.Concat(events, events)
	slices.SortStableFunc(twice, func(a, b crashEvent) int { return cmp.Compare(a.time, b.time) })
	for range len(twice) / 20 { // a swap moves two
		i := random.IntN(len(twice))
		j := min(max(i+random.IntN(2*farthest)-farthest, 0), len(twice)-1)
		twice[i], twice[j] = twice[j], twice[i]
	}
	unclean := prepare(t, r, rig.Options{})
	unclean.began = clean.began
	for part := range slices.Chunk(twice, batch) {
		require.NoError(t, unclean.post(t.Context(), part))
	}
	second := unclean.judge()
	require.Equal(t, clean.ids(), unclean.ids())
	return fmt.Sprintf("%d ids, the same; clean: %s; twice: %s", len(clean.ids()), first, second)
}
