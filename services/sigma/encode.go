package sigma

import (
	"encoding/base64"
	"encoding/binary"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// encodeText recodes or encodes a value: one result, or three for base64offset.
func encodeText(name, s string) []string {
	switch name {
	case "utf16le":
		return []string{recode(binary.LittleEndian, s)}
	case "utf16be":
		return []string{recode(binary.BigEndian, s)}
	case "utf16":
		return []string{"\xff\xfe" + recode(binary.LittleEndian, s)}
	case "base64":
		return []string{base64.StdEncoding.EncodeToString([]byte(s))}
	default: // base64offset
		return base64Offsets(s)
	}
}

func recode(order binary.AppendByteOrder, s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

// base64Offsets are the parts of the three encodings of s, shifted by zero to
// two bytes, that do not depend on what stands before or after it.
func base64Offsets(s string) []string {
	var out []string
	for shift := range 3 {
		padded := append(make([]byte, shift), s...)
		enc := base64.StdEncoding.EncodeToString(padded)
		start := [...]int{0, 2, 3}[shift]
		end := len(enc) - [...]int{0, 3, 2}[len(padded)%3]
		if start < end {
			out = append(out, enc[start:end])
		}
	}
	return out
}

// windash replaces each dash before a word, that does not follow a word, by a
// class: the characters that Windows tools take for one another.
func windash(toks []token) []token {
	var out []token
	for _, t := range toks {
		if t.kind != tokLiteral {
			out = append(out, t)
			continue
		}
		before := rune(-1)
		start := 0
		for i := 0; i < len(t.text); {
			r, size := utf8.DecodeRuneInString(t.text[i:])
			next, _ := utf8.DecodeRuneInString(t.text[i+size:])
			if dashLen(t.text[i:]) > 0 && !wordRune(before) && i+size < len(t.text) && wordRune(next) {
				if start < i {
					out = append(out, token{tokLiteral, t.text[start:i]})
				}
				out = append(out, token{kind: tokDash})
				start = i + size
			}
			before = r
			i += size
		}
		if start < len(t.text) {
			out = append(out, token{tokLiteral, t.text[start:]})
		}
	}
	return out
}

func wordRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
