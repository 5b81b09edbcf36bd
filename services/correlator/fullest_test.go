package correlator

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/state"
)

// TestFullestGroups keeps those that hold most, whatever comes after them, and
// lets go of what closes.
func TestFullestGroups(t *testing.T) {
	f := newFolder(t, 1000)
	l := &feed{p: f.plans.(always).plan}
	n := 0
	for user := range 3 * shownGroups {
		for range user%7 + 1 {
			l.detect("t", "count", fmt.Sprintf("user-%02d", user), fmt.Sprint(n), t0+int64(n), t0)
			n++
		}
	}
	foldAll(t, f, l)
	require.Len(t, f.full.lists, 1)
	for _, list := range f.full.lists {
		require.Equal(t, tenantRule{"t", "count"}, list.rule)
		require.Len(t, list.groups, shownGroups)
		for _, g := range list.groups {
			require.GreaterOrEqual(t, g.Count, int64(5), "%v: there are as many with more", g.Values)
			require.Equal(t, g.Events, g.Count)
			require.Greater(t, g.DueMS, int64(t0))
			require.LessOrEqual(t, g.FirstMS, g.LastMS)
		}
	}
	l.watermark(t0 + 24*hourMS)
	foldAll(t, f, l)
	require.Empty(t, f.cache.groups)
	for _, list := range f.full.lists {
		require.Empty(t, list.groups)
	}
	f.full.show(f.counts.board, 0, f.tallies)
	require.Empty(t, f.full.lists)
}

// TestSurvey has a new owner know the groups that it takes over before any changes.
func TestSurvey(t *testing.T) {
	f := newFolder(t, 1000)
	l := &feed{p: f.plans.(always).plan}
	for user := range shownGroups / 2 {
		for n := range user + 1 {
			l.detect("t", "count", fmt.Sprintf("user-%02d", user), fmt.Sprint(user, n), t0+int64(n), t0)
		}
	}
	foldAll(t, f, l)
	next := openFolder(t, f.cfg, f.plans.(always).plan, 1000, f.store)
	require.Empty(t, next.full.lists)
	next.survey(t.Context())
	require.Len(t, next.full.lists, 1)
	for tally, list := range next.full.lists {
		was := f.full.lists[tally]
		require.Equal(t, was.rule, list.rule)
		require.Equal(t, was.groups, list.groups)
		require.EqualValues(t, shownGroups/2, next.tallies[tally].groups)
		require.Equal(t, list.rule, next.named[tally])
	}

	broken := openFolder(t, f.cfg, f.plans.(always).plan, 1000, &failingLoads{Store: f.store})
	broken.survey(t.Context())
	require.Empty(t, broken.tallies, "what was not read is not taken for nothing")
	require.Empty(t, broken.cache.groups)
}

// failingLoads answers once, and then no more.
type failingLoads struct {
	Store
	answered bool
}

func (s *failingLoads) Load(ctx context.Context, partition int32, groups []string) ([][]state.Field, error) {
	if s.answered {
		return nil, errReply
	}
	s.answered = true
	return s.Store.Load(ctx, partition, groups)
}
