package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/spans"
)

// newCollector is what processes export to until the test ends.
func newCollector(t *testing.T) *spans.Collector {
	t.Helper()
	c, err := spans.Listen(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// requirePath asserts that a span descends from the span with the id root, and
// returns the names on the way, the span's own last.
func requirePath(t *testing.T, all map[string]spans.Span, id, root string) []string {
	t.Helper()
	var names []string
	for at := id; at != root; at = all[at].Parent {
		s, ok := all[at]
		require.True(t, ok, "span %s, an ancestor of %q, was not exported or has another trace id; there are %v", at, all[id].Name, all)
		require.Less(t, len(names), len(all), "spans run in a circle")
		names = append([]string{s.Name}, names...)
	}
	return names
}
