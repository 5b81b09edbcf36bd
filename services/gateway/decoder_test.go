package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/gateway"
)

// TestDecoderAgain holds that what a decoder has read before leaves nothing behind
// in what it reads again.
func TestDecoderAgain(t *testing.T) {
	d, err := gateway.NewDecoder(gateway.DefaultConfig(), "acme", "")
	require.NoError(t, err)
	again := d.At(0)
	for i, lines := range []string{
		strings.Repeat(`{"time":"2026-01-02T03:04:05Z","category":"a"}`+"\n", 5),
		`{"n":1}` + "\n" + `{"n":1}` + "\n[1]\n",
		`{"time":"2026-01-02T03:04:05Z","category":"a"}` + "\n",
		fmt.Sprintf(`{"eventVersion":"1.08","eventID":"e","eventTime":"2026-01-02T03:04:05Z","eventName":%q}`, "x"),
		"",
	} {
		want, rejected, err := d.At(10 * i).Lines([]byte(lines))
		require.NoError(t, err)
		again.Again(10 * i)
		got, alsoRejected, err := again.Lines([]byte(lines))
		require.NoError(t, err)
		require.Equal(t, rejected, alsoRejected)
		require.Len(t, got, len(want))
		for k := range want {
			require.Equal(t, want[k], got[k])
		}
	}
}
