package history

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzCursor(f *testing.F) {
	for _, c := range []cursor{{}, {forward: true, query: [queryBytes]byte{1, 2}, positions: []int64{0, 1, 127, 128, 1 << 40}}} {
		f.Add(c.encode())
	}
	for _, text := range []string{"", "garbage", "AQAAAAAAAAAAAIAA", "AgAAAAAAAAAAAA"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decodeCursor(text)
		if err != nil {
			require.ErrorIs(t, err, ErrCursor)
			return
		}
		require.LessOrEqual(t, len(c.positions), maxPartitions)
		for _, p := range c.positions {
			require.GreaterOrEqual(t, p, int64(0))
		}
		require.Equal(t, text, c.encode(), "there is one way to write a cursor")
	})
}
