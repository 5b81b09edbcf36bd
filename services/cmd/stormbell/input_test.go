package main

import (
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// TestEvents holds that lines come whole, wherever they lie in the buffer that
// they are read by.
func TestEvents(t *testing.T) {
	line := func(n int) string { return `{"a":"` + strings.Repeat("x", n) + `"}` }
	for name, lines := range map[string][]string{
		"short":                       {line(1), line(2), line(3)},
		"longer than the buffer":      {line(1), line(70_000), line(2), line(200_000), line(3)},
		"ends with the buffer":        {line(1<<16 - 9), line(1), line(1<<16 - 8), line(2), line(1<<16 - 10), line(3)},
		"crosses the buffer":          {line(40_000), line(40_000), line(40_000), line(1)},
		"last one longer than it":     {line(1), line(100_000)},
		"many that cross it somehow":  {line(999), line(9_999), line(33_333), line(44_444), line(55_555), line(999)},
		"the first longer than it is": {line(100_000), line(1)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, text := range []string{strings.Join(lines, "\n"), "\n " + strings.Join(lines, " \r\n\n") + "\n"} {
				var got []string
				keep := func(event []byte) error { got = append(got, string(event)); return nil }
				require.NoError(t, events(strings.NewReader(text), keep))
				require.Equal(t, lines, got)
				got = nil
				require.NoError(t, events(iotest.HalfReader(strings.NewReader(text)), keep))
				require.Equal(t, lines, got)
			}
		})
	}
}
