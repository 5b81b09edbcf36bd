package sigma

import (
	"bytes"
	"strconv"
)

// decimal is an exact decimal number: ±0.d₁d₂… × 10^exp, without leading or
// trailing zero digits. Zero has no digits.
type decimal struct {
	neg    bool
	digits []byte
	exp    int64
}

// maxExponent bounds exponents so that sums of them can't overflow.
const maxExponent = 1 << 40

// parseDecimal reads a number as JSON writes it, also with a leading "+" and
// leading zeros. buf is reused for the digits where it is large enough.
func parseDecimal(s, buf []byte) (d decimal, ok bool) {
	i := 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		d.neg = s[i] == '-'
		i++
	}
	digits := buf[:0]
	seen := false
	for ; i < len(s) && isDigit(s[i]); i++ {
		seen = true
		if len(digits) > 0 || s[i] != '0' {
			digits = append(digits, s[i])
			d.exp++
		}
	}
	if !seen {
		return decimal{}, false
	}
	if i < len(s) && s[i] == '.' {
		start := i + 1
		for i++; i < len(s) && isDigit(s[i]); i++ {
			if len(digits) > 0 || s[i] != '0' {
				digits = append(digits, s[i])
			} else {
				d.exp--
			}
		}
		if i == start {
			return decimal{}, false
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		e, err := strconv.ParseInt(string(bytes.TrimPrefix(s[i+1:], []byte("+"))), 10, 64)
		if err != nil || e > maxExponent || e < -maxExponent {
			return decimal{}, false
		}
		d.exp += e
		i = len(s)
	}
	if i != len(s) {
		return decimal{}, false
	}
	for len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	d.digits = digits
	if len(digits) == 0 {
		return decimal{digits: digits}, true
	}
	return d, true
}

// decimalOf is a small whole number.
func decimalOf(n int) (decimal, bool) {
	var buf [20]byte
	return parseDecimal(strconv.AppendInt(buf[:0], int64(n), 10), nil)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// compare is −1, 0 or 1.
func (d decimal) compare(o decimal) int {
	switch {
	case len(d.digits) == 0 && len(o.digits) == 0:
		return 0
	case len(d.digits) == 0:
		return sign(!o.neg)
	case len(o.digits) == 0:
		return sign(d.neg)
	case d.neg != o.neg:
		return sign(d.neg)
	}
	c := 0
	switch {
	case d.exp != o.exp:
		c = sign(d.exp < o.exp)
	default:
		c = bytes.Compare(d.digits, o.digits)
	}
	if d.neg {
		c = -c
	}
	return c
}

func sign(less bool) int {
	if less {
		return -1
	}
	return 1
}

// appendCanonical appends a text that equal numbers share: plain digits for
// integers of at most 20 digits, else digits and exponent.
func (d decimal) appendCanonical(dst []byte) []byte {
	if len(d.digits) == 0 {
		return append(dst, '0')
	}
	if d.neg {
		dst = append(dst, '-')
	}
	dst = append(dst, d.digits...)
	if n := int64(len(d.digits)); d.exp >= n && d.exp <= 20 {
		for ; n < d.exp; n++ {
			dst = append(dst, '0')
		}
		return dst
	}
	dst = append(dst, 'e')
	return strconv.AppendInt(dst, d.exp-int64(len(d.digits)), 10)
}

// plainInteger reports whether a JSON number is its own canonical text.
func plainInteger(s []byte) bool {
	i := 0
	if len(s) > 0 && s[0] == '-' {
		i = 1
	}
	if len(s)-i > 20 || (i == 1 && len(s) == 2 && s[1] == '0') {
		return false
	}
	for ; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}
