package jsonscan

import (
	"bytes"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// Find returns the value of the last member with the given name, or nil.
func Find(members []Member, name string) []byte {
	for _, member := range slices.Backward(members) {
		if string(member.Name) == name {
			return member.Value
		}
	}
	return nil
}

// Text returns the decoded text of a value that Scanner has read, and whether
// it is a string at all. The result is a part of value unless value holds
// escapes. A surrogate without a partner becomes U+FFFD.
func Text(value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, true
	}
	return appendUnescaped(nil, inner), true
}

// appendUnescaped decodes the inside of a string that scanString has accepted.
func appendUnescaped(dst, b []byte) []byte {
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			dst = append(dst, b[i])
			i++
			continue
		}
		switch c := b[i+1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hexRune(b[i+2:])
			if utf16.IsSurrogate(r) {
				if i+12 <= len(b) && b[i+6] == '\\' && b[i+7] == 'u' {
					if pair := utf16.DecodeRune(r, hexRune(b[i+8:])); pair != utf8.RuneError {
						dst = utf8.AppendRune(dst, pair)
						i += 12
						continue
					}
				}
				r = utf8.RuneError
			}
			dst = utf8.AppendRune(dst, r)
			i += 6
			continue
		default:
			dst = append(dst, c)
		}
		i += 2
	}
	return dst
}

func hexRune(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		d, _ := hexDigit(c)
		r = r<<4 | d
	}
	return r
}
