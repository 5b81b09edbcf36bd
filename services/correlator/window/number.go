package window

import (
	"math/big"
	"strings"
)

// Numbers are exact decimals: float addition depends on its order, and what a
// window adds up to must not. One is held as a whole number of 10^−38; up to 38
// digits stand before the point and 38 behind it. What does not fit is no number
// to a correlation.
const (
	wholeDigits = 38
	fracDigits  = 38
	maxNumber   = 128 // bytes of its text
)

// scanned is a number as written: 0.d₁d₂… × 10^exp, without leading and trailing
// zero digits; zero has none.
type scanned struct {
	neg    bool
	digits []byte
	exp    int
}

// scanNumber reads a number as JSON writes it, also with a leading plus or zeros.
func scanNumber(s string, buf []byte) (n scanned, ok bool) {
	if len(s) == 0 || len(s) > maxNumber {
		return n, false
	}
	i := 0
	if s[0] == '-' || s[0] == '+' {
		n.neg = s[0] == '-'
		i++
	}
	n.digits = buf[:0]
	i, whole := n.scan(s, i, true)
	if whole == 0 {
		return n, false
	}
	if i < len(s) && s[i] == '.' {
		var frac int
		if i, frac = n.scan(s, i+1, false); frac == 0 {
			return n, false
		}
	}
	if i < len(s) {
		e, good := scanExponent(s[i:])
		if !good {
			return n, false
		}
		n.exp += e
	}
	for k := len(n.digits); k > 0 && n.digits[k-1] == '0'; k-- {
		n.digits = n.digits[:k-1]
	}
	if len(n.digits) == 0 {
		return scanned{}, true
	}
	return n, n.exp <= wholeDigits && len(n.digits)-n.exp <= fracDigits
}

// scan takes digits, before the point or behind it, and says where they end and
// how many they are.
func (n *scanned) scan(s string, i int, whole bool) (end, count int) {
	begin := i
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		switch {
		case len(n.digits) > 0 || s[i] != '0':
			n.digits = append(n.digits, s[i])
			if whole {
				n.exp++
			}
		case !whole:
			n.exp--
		}
	}
	return i, i - begin
}

// scanExponent reads an exponent that could still make a number that fits.
func scanExponent(s string) (e int, ok bool) {
	if s[0] != 'e' && s[0] != 'E' {
		return 0, false
	}
	s = s[1:]
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	if s == "" || len(s) > 4 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		e = 10*e + int(s[i]-'0')
	}
	if neg {
		e = -e
	}
	return e, true
}

// text is the same for equal numbers.
func (n *scanned) text() string {
	if len(n.digits) == 0 {
		return "0"
	}
	var b strings.Builder
	if n.neg {
		b.WriteByte('-')
	}
	if n.exp <= 0 {
		b.WriteString("0." + strings.Repeat("0", -n.exp))
		b.Write(n.digits)
		return b.String()
	}
	for i := range max(n.exp, len(n.digits)) {
		if i == n.exp {
			b.WriteByte('.')
		}
		if i < len(n.digits) {
			b.WriteByte(n.digits[i])
		} else {
			b.WriteByte('0')
		}
	}
	return b.String()
}

func (n *scanned) int() *big.Int {
	if n.exp <= 18 && len(n.digits) <= n.exp { // a whole number of one word
		var whole uint64
		for i := range n.exp {
			if whole *= 10; i < len(n.digits) {
				whole += uint64(n.digits[i] - '0')
			}
		}
		half := new(big.Int).SetUint64(1e19) // 10^(fracDigits/2)
		x := new(big.Int).SetUint64(whole)
		if x.Mul(x, half).Mul(x, half); n.neg {
			x.Neg(x)
		}
		return x
	}
	zeros := fracDigits + n.exp - len(n.digits)
	x, _ := new(big.Int).SetString("0"+string(n.digits)+strings.Repeat("0", zeros), 10)
	if n.neg {
		x.Neg(x)
	}
	return x
}

// parseNumber gives a number and the text that equal ones share.
func parseNumber(s string) (x *big.Int, text string, ok bool) {
	n, ok := scanNumber(s, make([]byte, 0, maxNumber))
	if !ok {
		return nil, "", false
	}
	return n.int(), n.text(), true
}

// isNumber reports whether a text is a number, and whether it is below zero.
func isNumber(s string) (ok, negative bool) {
	var buf [maxNumber]byte
	n, ok := scanNumber(s, buf[:0])
	return ok, n.neg
}

// formatNumber writes a number with at most so many digits behind the point,
// the rest cut off.
func formatNumber(x *big.Int, frac int) string {
	s := new(big.Int).Abs(x).String()
	if len(s) <= fracDigits {
		s = strings.Repeat("0", fracDigits+1-len(s)) + s
	}
	whole, behind := s[:len(s)-fracDigits], s[len(s)-fracDigits:]
	behind = strings.TrimRight(behind[:min(frac, fracDigits)], "0")
	if behind != "" {
		whole += "." + behind
	}
	if x.Sign() < 0 && strings.Trim(whole, "0.") != "" {
		whole = "-" + whole
	}
	return whole
}
