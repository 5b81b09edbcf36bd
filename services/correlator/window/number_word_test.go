package window

import (
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNumbersOfOneWord compares whole numbers, which take a short way, with what
// math/big reads.
func TestNumbersOfOneWord(t *testing.T) {
	for digits := 1; digits <= 20; digits++ {
		for _, text := range []string{
			"1" + strings.Repeat("0", digits-1), strings.Repeat("9", digits), "-" + strings.Repeat("7", digits),
			"0" + strings.Repeat("3", digits), "1e" + strconv.Itoa(digits-1), strings.Repeat("5", digits) + ".0",
		} {
			want, ok := new(big.Rat).SetString(text)
			require.True(t, ok)
			want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(fracDigits), nil)))
			got, _, ok := parseNumber(text)
			require.True(t, ok, text)
			require.Equal(t, want.Num().String(), got.String(), text)
			require.True(t, want.IsInt())
		}
	}
}
