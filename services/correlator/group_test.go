package correlator

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCacheKeepsSomeOfManyThatTakeTurns has half as much room again as is there:
// most of what is there stays until its turn comes.
func TestCacheKeepsSomeOfManyThatTakeTurns(t *testing.T) {
	const room, groups = 1000, 1500
	c := newCache(room)
	use := func(key string) (known bool) {
		g := c.use(key)
		if g == nil {
			c.put(&group{key: key, bytes: 1})
		}
		c.shrink()
		require.LessOrEqual(t, c.used, int64(room))
		require.EqualValues(t, len(c.groups), c.used)
		require.Equal(t, len(c.groups), c.fresh.Len()+c.proven.Len())
		require.EqualValues(t, c.fresh.Len(), c.tried)
		return g != nil
	}
	for range 2 { // while there is room, all are used again
		for i := range room {
			use(strconv.Itoa(i))
		}
	}
	hits := 0
	for range 5 {
		hits = 0
		for i := range groups {
			if use(strconv.Itoa(i)) {
				hits++
			}
		}
	}
	require.GreaterOrEqual(t, hits, room/2)

	// What is used all the time takes the place of what is not.
	for i := range 10 * groups {
		use("new-" + strconv.Itoa(i%100))
		use("once-" + strconv.Itoa(i))
	}
	for i := range 100 {
		require.NotNil(t, c.get("new-"+strconv.Itoa(i)))
	}
	for _, g := range c.groups {
		c.grew(g, 1)
	}
	c.shrink()
	require.LessOrEqual(t, c.used, int64(room))
	for _, g := range c.groups {
		c.remove(g)
	}
	require.Zero(t, c.used)
	require.Zero(t, c.tried)
}

// TestNamesAreThoseOfIdentities reads an identity as it is, whether one like it has
// been read before or not.
func TestNamesAreThoseOfIdentities(t *testing.T) {
	f := newFolder(t, 10)
	l := &feed{p: f.plans.(always).plan}
	n := newNames()
	for i, correlation := range []string{"count", "values", "count", "order", "values"} {
		l.detect("t", correlation, "user-"+strconv.Itoa(i), "e", t0, t0)
		items, err := f.decode(t.Context(), l.records[i:])
		require.NoError(t, err)
		b := identity(items[0].cor.spec, items[0].det)
		want, name, err := parseIdentity(b)
		require.NoError(t, err)
		spec, got, err := n.identity(b)
		require.NoError(t, err)
		require.Equal(t, want, *spec)
		require.Equal(t, name, got)
		again, _, err := n.identity(b)
		require.NoError(t, err)
		require.Same(t, spec, again)
		_, _, err = n.identity(b[:len(b)-1])
		require.Error(t, err)
		_, _, err = n.identity(append(b, 0xff, 0x7f))
		require.Error(t, err, "what is not known is refused")
	}
	require.Len(t, n.specs, 3)
}
