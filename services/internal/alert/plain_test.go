package alert

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestBytesAtATime compares what looks at eight bytes at a time with what looks at
// one.
func TestBytesAtATime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := bytes.Repeat([]byte("x"), rapid.IntRange(0, 40).Draw(rt, "n"))
		for range rapid.IntRange(0, 3).Draw(rt, "odd") {
			if len(text) > 0 {
				text[rapid.IntRange(0, len(text)-1).Draw(rt, "at")] = rapid.SampledFrom([]byte{0, 1, 0x1f, ' ', ' ' + 1, '!', '"', '#', '[', '\\', ']', 0x7f, 0x80, 0xdc, 0xff}).Draw(rt, "byte")
			}
		}
		plain, space := true, false
		for _, c := range text {
			plain = plain && c != '\\' && c < 0x80
			space = space || c <= ' '
		}
		require.Equal(rt, plain, isPlain(text), "%q", text)
		if plain {
			require.Equal(rt, space, hasSpace(text), "%q", text)
		}
		verbatim := !bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r >= 0x80 })
		require.Equal(rt, verbatim, isVerbatim(string(text)), "%q", text)
	})
}
