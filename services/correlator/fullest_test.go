package correlator

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
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
