package sigma

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// textOf is a value as text: a string decoded, a number or word as written, an
// object as compact JSON. Null and arrays have none.
func (v *view) textOf(i int32) []byte {
	val := &v.values[i]
	if !val.hasText {
		switch val.kind {
		case kindString:
			val.text = v.decode(v.data[val.start:val.end])
		case kindObject, kindArray:
			val.text = v.compact(int(val.start))
		}
		val.hasText = true
	}
	return val.text
}

// foldOf is textOf with case folded.
func (v *view) foldOf(i int32) []byte {
	val := &v.values[i]
	if val.hasFold {
		return val.fold
	}
	val.hasFold = true
	if val.kind == kindString && !val.hasText { // its text may not be asked for
		from := len(v.arena)
		v.arena = appendFoldedJSON(v.arena, v.data[val.start:val.end])
		val.fold = v.arena[from:len(v.arena):len(v.arena)]
		return val.fold
	}
	text := v.textOf(i)
	val = &v.values[i]
	val.fold = v.foldText(text)
	return val.fold
}

func (v *view) foldText(text []byte) []byte {
	if folded(text) {
		return text
	}
	from := len(v.arena)
	v.arena = appendFold(v.arena, text)
	return v.arena[from:len(v.arena):len(v.arena)]
}

// flat is the whole document with escapes resolved and case folded, but for keys
// that were noted: what foldOf gives for any scalar is somewhere in it.
func (v *view) flat() []byte {
	from, pos := len(v.arena), int32(0)
	v.arena = slices.Grow(v.arena, len(v.data)+8)
	out, at := v.arena[:cap(v.arena)], from
	for _, key := range v.noted {
		at = foldJSON(out, at, v.data[pos:key.from])
		pos = key.to
	}
	v.arena = out[:foldJSON(out, at, v.data[pos:])]
	return v.arena[from:len(v.arena):len(v.arena)]
}

// decode resolves the escapes of a JSON string. A surrogate without its partner
// becomes U+FFFD.
func (v *view) decode(s []byte) []byte {
	from := len(v.arena)
	v.arena = appendDecoded(v.arena, s)
	return v.arena[from:len(v.arena):len(v.arena)]
}

func appendDecoded(dst, s []byte) []byte {
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			return append(dst, s...)
		}
		r, n := escapeAt(s[i:])
		dst = append(dst, s[:i]...)
		if r < 0 {
			dst = append(dst, s[i+1])
		} else {
			dst = utf8.AppendRune(dst, r)
		}
		s = s[i+n:]
	}
	return dst
}

// appendFoldedJSON is appendDecoded and appendFold in one.
func appendFoldedJSON(dst, s []byte) []byte {
	dst = slices.Grow(dst, len(s)+8)
	out := dst[:cap(dst)]
	return out[:foldJSON(out, len(dst), s)]
}

// foldJSON is appendFoldedJSON to out at a place, where there is room for s, which
// does not grow by it, and eight bytes more. It is the place behind what it wrote.
func foldJSON(out []byte, at int, s []byte) int {
	for i := 0; i < len(s); {
		if i+8 <= len(s) {
			x := binary.LittleEndian.Uint64(s[i:])
			q := x ^ backslashes
			special := ((q-ones)&^q | x) & tops
			binary.LittleEndian.PutUint64(out[at:], x|upperBits(x)>>2)
			if special == 0 {
				i, at = i+8, at+8
				continue
			}
			n := bits.TrailingZeros64(special) >> 3
			i, at = i+n, at+n
		}
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			r, n := escapeAt(s[i:])
			if r < 0 {
				out[at] = lowerTable[s[i+1]]
				at++
			} else {
				at += utf8.EncodeRune(out[at:at+utf8.UTFMax], foldRune(r))
			}
			i += n
		case c < utf8.RuneSelf:
			out[at] = lowerTable[c]
			i, at = i+1, at+1
		default:
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n <= 1 {
				out[at] = c
				at++
			} else {
				at += utf8.EncodeRune(out[at:at+utf8.UTFMax], foldRune(r))
			}
			i += n
		}
	}
	return at
}

// escapeAt reads the escape that s begins with: its rune, or −1 where it stands
// for the byte behind the backslash, and its length. There is such a byte.
func escapeAt(s []byte) (rune, int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, rest := hexRune(s[2:])
		if utf16.IsSurrogate(r) {
			second, after := rune(-1), rest
			if len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
				second, after = hexRune(rest[2:])
			}
			if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
				rest = after
			}
		}
		return r, len(s) - len(rest)
	default: // " \ /
		return -1, 2
	}
}

// hexRune reads four hex digits.
func hexRune(s []byte) (rune, []byte) {
	if len(s) < 4 {
		return utf8.RuneError, nil
	}
	var r rune
	for _, c := range s[:4] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return utf8.RuneError, s[4:]
		}
		r = r<<4 | rune(c)
	}
	return r, s[4:]
}

// compact is the JSON at pos without blanks, with no more escapes than needed,
// in source order; of duplicate keys the last remains.
func (v *view) compact(pos int) []byte {
	from := len(v.arena)
	v.keys = v.keys[:0]
	v.compactAt(pos, 0)
	return v.arena[from:len(v.arena):len(v.arena)]
}

// compactAt appends to the arena and is the position behind the value. Beyond
// maxNesting the source is copied as it is.
func (v *view) compactAt(pos, depth int) int {
	data := v.data
	switch {
	case pos >= len(data):
		return pos
	case data[pos] == '"':
		return v.compactString(pos)
	case data[pos] != '{' && data[pos] != '[':
		end := max(literalEnd(data, pos), pos+1)
		v.arena = append(v.arena, data[pos:end]...)
		return end
	case depth > maxNesting:
		end := v.skipContainer(pos)
		v.arena = append(v.arena, data[pos:end]...)
		return end
	}
	open := data[pos]
	v.arena = append(v.arena, open)
	base, first := len(v.keys), len(v.arena)
	for pos = skipSpace(data, pos+1); pos < len(data) && data[pos] != open+2; pos = skipSpace(data, pos) {
		if data[pos] == ',' {
			pos++
			continue
		}
		if len(v.arena) > first {
			v.arena = append(v.arena, ',')
		}
		if open == '[' {
			pos = v.compactAt(pos, depth+1)
			continue
		}
		pos = v.compactMember(pos, base, depth)
	}
	v.keys = v.keys[:base]
	v.arena = append(v.arena, open+2)
	return pos + 1
}

// compactMember appends `"key":value`, taking out an earlier member of the key.
func (v *view) compactMember(pos, base, depth int) int {
	data := v.data
	from := len(v.arena)
	if data[pos] != '"' {
		return v.fail(errSyntax)
	}
	pos = skipSpace(data, v.compactString(pos))
	key := v.arena[from:len(v.arena)]
	h := hashBytes(key)
	dup := -1
	for i := max(base, len(v.keys)-manyKeys); i < len(v.keys); i++ {
		k := &v.keys[i]
		if k.hash == h && bytes.Equal(v.arena[k.from:k.from+int32(len(key))], key) {
			dup = i
			break
		}
	}
	if pos < len(data) && data[pos] == ':' {
		pos = skipSpace(data, pos+1)
	}
	v.arena = append(v.arena, ':')
	pos = v.compactAt(pos, depth+1)
	if dup < 0 {
		v.keys = append(v.keys, keyRef{hash: h, from: int32(from), to: int32(len(v.arena))})
		return pos
	}
	// Cut the earlier member and the comma behind it; everything later moves up.
	old := v.keys[dup]
	cut := old.to - old.from + 1
	v.arena = append(v.arena[:old.from], v.arena[old.to+1:]...)
	v.keys = append(v.keys[:dup], v.keys[dup+1:]...)
	for i := dup; i < len(v.keys); i++ {
		v.keys[i].from -= cut
		v.keys[i].to -= cut
	}
	v.keys = append(v.keys, keyRef{hash: h, from: int32(from) - cut, to: int32(len(v.arena))})
	return pos
}

// compactString appends the string at pos with its escapes made canonical.
func (v *view) compactString(pos int) int {
	end, escaped := stringEnd(v.data, pos+1)
	if end < 0 {
		return v.fail(errSyntax)
	}
	if !escaped {
		v.arena = append(v.arena, v.data[pos:end+1]...)
		return end + 1
	}
	v.arena = append(v.arena, '"')
	v.scratch = appendDecoded(v.scratch[:0], v.data[pos+1:end])
	v.arena = appendEscaped(v.arena, v.scratch)
	v.arena = append(v.arena, '"')
	return end + 1
}

// appendEscaped escapes what JSON demands and nothing else.
func appendEscaped(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// innerOf are the decoded strings inside an object, keys left out, folded or as
// they are: pairs in v.inner from the value's inner to innerEnd.
func (v *view) innerOf(i int32) {
	if v.values[i].hasInner {
		return
	}
	text := v.textOf(i)
	from := int32(len(v.inner))
	for pos := 0; pos < len(text); {
		if text[pos] != '"' {
			pos++
			continue
		}
		end, escaped := stringEnd(text, pos+1)
		if end < 0 {
			break
		}
		if end+1 < len(text) && text[end+1] == ':' {
			pos = end + 2
			continue
		}
		s := text[pos+1 : end]
		if escaped {
			s = v.decode(s)
		}
		v.inner = append(v.inner, s, v.foldText(s))
		pos = end + 1
	}
	val := &v.values[i]
	val.inner, val.innerEnd, val.hasInner = from, int32(len(v.inner)), true
}
