package ownership_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/ownership"
)

func TestPartitions(t *testing.T) {
	opening := errors.New("opening")
	o := ownership.New[string]()
	require.NoError(t, o.Problem())
	_, _, ok := o.Last(1)
	require.False(t, ok, "no owner")

	o.Enter(2, opening)
	o.Enter(1, opening)
	require.ErrorIs(t, o.Problem(), opening)
	require.EqualError(t, o.Problem(), "partition 1: opening", "the least is named")
	o.Set(1, nil)
	require.True(t, o.Ready(1))
	require.EqualError(t, o.Problem(), "partition 2: opening")
	_, _, ok = o.Last(1)
	require.False(t, ok, "nothing committed")

	o.Commit(1, 7, "seven")
	o.Enter(1, opening) // the next owner, before the former has left
	o.Leave(1)
	require.False(t, o.Ready(1), "the next owner is still opening")
	offset, progress, ok := o.Last(1)
	require.True(t, ok)
	require.EqualValues(t, 7, offset)
	require.Equal(t, "seven", progress)
	o.Leave(1)
	_, _, ok = o.Last(1)
	require.False(t, ok, "no owner is left")
}
