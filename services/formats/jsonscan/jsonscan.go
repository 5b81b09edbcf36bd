// Package jsonscan checks JSON text and finds where its parts begin and end,
// in one pass and without building values.
//
// It is strict: RFC 8259, UTF-8 and nothing beyond. It keeps no numbers, no
// maps and no copies; duplicate names are let through, and every look-up
// answers with the last of them. Escaped surrogates without a partner are
// text in the sense of the grammar and let through as well.
package jsonscan

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is the nesting beyond which no text is read on. It is a limit of
// the scanner; a caller's own limit compares with Scanner.Depth.
const MaxDepth = 1024

// A Member is one name and its value in an object.
type Member struct {
	// Name is the decoded name.
	Name []byte
	// Value is the text of the value, without white space around it.
	Value []byte
}

// A SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	// Offset is the byte at which it was noticed.
	Offset int
	// Reason is a phrase without the offset.
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// A Scanner reads values of one text. The zero value is ready for use; it may
// be used again for another text, but not by two goroutines at a time.
type Scanner struct {
	// Members holds the members of the value that was read last, if that is
	// an object, in their order. The slice is reused by the next call.
	Members []Member
	// Depth is the nesting of the value that was read last: 0 for a scalar,
	// 1 for an object or array of scalars.
	Depth int
	// MaxMembers bounds Members, whose memory is many times that of a short
	// member's text; 0 is without limit. Beyond it a value is still checked to
	// its end, and its Members are the first ones.
	MaxMembers int
	// Crowded says that the value that was read last had more members.
	Crowded bool
}

// Value reads the value that begins at text[at:], after white space, and
// returns the offsets of its first byte and behind its last. Errors are
// *SyntaxError.
func (s *Scanner) Value(text []byte, at int) (from, to int, err error) {
	s.Members, s.Depth, s.Crowded = s.Members[:0], 0, false
	from = Space(text, at)
	to, err = s.scan(text, from)
	return from, to, err
}

// scan is a state machine rather than a recursion, so that hostile nesting
// costs a bit per level and no stack.
func (s *Scanner) scan(b []byte, i int) (int, error) {
	var (
		objects [MaxDepth/64 + 1]uint64 // one bit per level: it is an object
		depth   int
		name    []byte // of the member of the outermost object that is being read
		start   int    // of that member's value
		ok      bool
	)
value:
	i = Space(b, i)
	if depth == 1 {
		start = i
	}
	if i >= len(b) {
		return i, &SyntaxError{i, "unexpected end"}
	}
	switch c := b[i]; {
	case c == '"':
		var reason string
		if i, _, reason = scanString(b, i); reason != "" {
			return i, &SyntaxError{i, reason}
		}
	case c == '{' || c == '[':
		if depth == MaxDepth {
			return i, &SyntaxError{i, "nesting too deep"}
		}
		depth++
		s.Depth = max(s.Depth, depth)
		bit := uint64(1) << (depth & 63)
		i = Space(b, i+1)
		if c == '{' {
			objects[depth>>6] |= bit
			if i < len(b) && b[i] == '}' {
				i, depth = i+1, depth-1
				break
			}
			goto name
		}
		objects[depth>>6] &^= bit
		if i < len(b) && b[i] == ']' {
			i, depth = i+1, depth-1
			break
		}
		goto value
	case c == '-' || '0' <= c && c <= '9':
		if i, ok = scanNumber(b, i); !ok {
			return i, &SyntaxError{i, "malformed number"}
		}
	default:
		if i, ok = scanLiteral(b, i); !ok {
			return i, &SyntaxError{i, "unexpected character"}
		}
	}
next:
	if depth == 0 {
		return i, nil
	}
	if depth == 1 && name != nil {
		if s.MaxMembers > 0 && len(s.Members) >= s.MaxMembers {
			s.Crowded = true
		} else {
			s.Members = append(s.Members, Member{name, b[start:i:i]})
		}
	}
	i = Space(b, i)
	if i >= len(b) {
		return i, &SyntaxError{i, "unexpected end"}
	}
	if objects[depth>>6]>>(depth&63)&1 == 0 {
		switch b[i] {
		case ',':
			i++
			goto value
		case ']':
			i, depth = i+1, depth-1
			goto next
		}
		return i, &SyntaxError{i, "expected ',' or ']' in an array"}
	}
	switch b[i] {
	case ',':
		i = Space(b, i+1)
	case '}':
		i, depth = i+1, depth-1
		goto next
	default:
		return i, &SyntaxError{i, "expected ',' or '}' in an object"}
	}
name:
	if i >= len(b) || b[i] != '"' {
		return i, &SyntaxError{i, "expected a name in quotes"}
	}
	begin := i + 1
	var (
		escaped bool
		reason  string
	)
	if i, escaped, reason = scanString(b, i); reason != "" {
		return i, &SyntaxError{i, reason}
	}
	if depth == 1 {
		name = b[begin : i-1 : i-1]
		if escaped {
			name = appendUnescaped(nil, name)
		}
		if name == nil {
			name = []byte{}
		}
	}
	i = Space(b, i)
	if i >= len(b) || b[i] != ':' {
		return i, &SyntaxError{i, "expected ':' after a name"}
	}
	i++
	goto value
}

// Space returns the offset of the first byte at or after i that is not white
// space.
func Space(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// scanString reads the string whose quote is at b[i] and returns the offset
// behind it and whether it holds an escape; or a reason.
func scanString(b []byte, i int) (end int, escaped bool, reason string) {
	i++
	start, seen := i, uint64(0) // seen has a high bit set if a byte has
	for {
		// Eight bytes at a time, as long as none of them is a quote, a
		// backslash or a control character.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			quote, slash := w^(ones*'"'), w^(ones*'\\')
			stop := ((w-ones*0x20)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs
			if stop != 0 {
				// The lowest mark is exact: borrows only run upwards.
				n := bits.TrailingZeros64(stop) &^ 7
				seen |= w & (1<<n - 1)
				i += n / 8
				break
			}
			seen |= w
			i += 8
		}
		if i >= len(b) {
			return i, escaped, "unexpected end in a string"
		}
		switch c := b[i]; {
		case c == '"':
			if seen&highs != 0 && !utf8.Valid(b[start:i]) {
				return i, escaped, "string is not UTF-8"
			}
			return i + 1, escaped, ""
		case c == '\\':
			escaped = true
			n := escapeLen(b, i)
			if n == 0 {
				return i, escaped, "malformed escape"
			}
			i += n
		case c < 0x20:
			return i, escaped, "control character in a string"
		default:
			seen |= uint64(c)
			i++
		}
	}
}

// escapeLen returns the length of the escape at b[i], or 0.
func escapeLen(b []byte, i int) int {
	if i+1 >= len(b) {
		return 0
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if i+6 > len(b) {
			return 0
		}
		for _, c := range b[i+2 : i+6] {
			if _, ok := hexDigit(c); !ok {
				return 0
			}
		}
		return 6
	}
	return 0
}

func hexDigit(c byte) (rune, bool) {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0'), true
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10, true
	}
	return 0, false
}

func scanNumber(b []byte, i int) (int, bool) {
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	default:
		n := digits(b, i)
		if n == i {
			return i, false
		}
		i = n
	}
	if i < len(b) && b[i] == '.' {
		n := digits(b, i+1)
		if n == i+1 {
			return n, false
		}
		i = n
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		n := digits(b, i)
		if n == i {
			return n, false
		}
		i = n
	}
	return i, true
}

func digits(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

func scanLiteral(b []byte, i int) (int, bool) {
	rest := b[i:]
	switch {
	case len(rest) >= 4 && (string(rest[:4]) == "true" || string(rest[:4]) == "null"):
		return i + 4, true
	case len(rest) >= 5 && string(rest[:5]) == "false":
		return i + 5, true
	}
	return i, false
}
