package sigma

import (
	"encoding/binary"
	"unicode"
	"unicode/utf8"
)

// foldRune maps the runes that differ only by case to one: the lower-case ASCII
// letter where there is one, else the smallest.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// appendFold appends text with case folded. Bytes that are not UTF-8 stay.
func appendFold(dst, text []byte) []byte {
	for len(text) >= 8 {
		x := binary.LittleEndian.Uint64(text)
		if x&tops != 0 {
			break
		}
		dst = binary.LittleEndian.AppendUint64(dst, x|upperBits(x)>>2)
		text = text[8:]
	}
	for i, c := range text {
		if c >= utf8.RuneSelf {
			return appendFoldSlow(dst, text[i:])
		}
		dst = append(dst, lowerTable[c])
	}
	return dst
}

const (
	ones = 0x0101010101010101
	tops = 0x8080808080808080

	backslashes = '\\' * ones
)

// upperBits has the top bit of each of eight ASCII bytes that is A to Z.
func upperBits(x uint64) uint64 {
	return ((x + (0x80-'A')*ones) ^ (x + (0x7f-'Z')*ones)) & tops
}

func appendFoldSlow(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size <= 1 {
			dst = append(dst, text[0])
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		text = text[size:]
	}
	return dst
}

// folded reports whether text is its own folding: no upper case, ASCII only.
func folded(text []byte) bool {
	for len(text) >= 8 {
		x := binary.LittleEndian.Uint64(text)
		if x&tops != 0 || upperBits(x) != 0 {
			return false
		}
		text = text[8:]
	}
	for _, c := range text {
		if lowerTable[c] != c || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func foldString(s string) string { return string(appendFold(nil, []byte(s))) }

// lowerTable maps ASCII letters to lower case and other bytes to themselves. It
// is a constant in all but syntax.
var lowerTable = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()
