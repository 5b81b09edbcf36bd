package sigma

import (
	"bytes"
	"slices"
)

// scalars collects, once, every scalar of the document into keywordSlot.
func (v *view) scalars() error {
	if v.err == nil && !v.searched {
		v.searched, v.keys = true, v.keys[:0]
		if !v.noting || v.nested || !v.scalarsNoted() {
			v.scalarsOf(skipSpace(v.data, 0), 0)
		}
	}
	return v.err
}

// scalarsNoted collects the scalars of a flat document, whose members have been
// noted, unless two of its keys are the same.
func (v *view) scalarsNoted() bool {
	if len(v.noted) > maxNoted {
		return false
	}
	known := uint64(0) // a bit for each key: most need no comparison
	for i, m := range v.noted {
		key := v.data[m.from+1 : m.to] // with the quote behind it
		bit := uint64(1) << (hashBytes(key) & 63)
		if known&bit != 0 && slices.ContainsFunc(v.noted[:i], func(o member) bool { return bytes.Equal(v.data[o.from+1:o.to], key) }) {
			return false
		}
		known |= bit
	}
	for _, m := range v.noted {
		v.add(keywordSlot, kindOf(v.data[m.value]), int(m.value))
		val := &v.values[len(v.values)-1]
		if val.kind == kindString { // it is decoded when it is asked for
			val.start, val.end = m.value+1, m.end-1
			continue
		}
		val.end, val.text, val.hasText = m.end, v.data[m.value:m.end], true
	}
	return true
}

// maxNoted is how many members are compared with each other.
const maxNoted = 64

// keyRef is a key of an object that is being read for scalars.
type keyRef struct {
	hash     uint64
	key      []byte
	from, to int32
}

// scalarsOf collects every scalar at or beneath pos into keywordSlot.
func (v *view) scalarsOf(pos, depth int) int {
	if depth > maxNesting {
		return v.fail(errDepth)
	}
	data := v.data
	if c := data[pos]; c != '{' && c != '[' {
		return v.scalar(keywordSlot, pos)
	}
	closing := data[pos] + 2 // the closing bracket of either kind in ASCII
	object := data[pos] == '{'
	base := len(v.keys)
	for pos = skipSpace(data, pos+1); pos < len(data) && data[pos] != closing; pos = skipSpace(data, pos) {
		if data[pos] == ',' {
			pos++
			continue
		}
		if !object {
			pos = v.scalarsOf(pos, depth+1)
			continue
		}
		if data[pos] != '"' {
			return v.fail(errSyntax)
		}
		end, escaped := stringEnd(data, pos+1)
		if end < 0 {
			return v.fail(errSyntax)
		}
		key := data[pos+1 : end]
		if escaped {
			key = v.decode(key)
		}
		pos = skipSpace(data, end+1)
		if pos >= len(data) || data[pos] != ':' {
			return v.fail(errSyntax)
		}
		if pos = skipSpace(data, pos+1); pos >= len(data) {
			return v.fail(errSyntax)
		}
		ref := v.keyOf(base, key)
		from := int32(len(v.values))
		pos = v.scalarsOf(pos, depth+1)
		v.keys[ref].from, v.keys[ref].to = from, int32(len(v.values))
	}
	v.keys = v.keys[:base]
	return pos + 1
}

// manyKeys is from how many keys on duplicates are no longer looked for by
// comparing with each: an object that wide would cost its square.
const manyKeys = 256

// keyOf finds or adds a key of the object whose keys begin at base; a duplicate's
// values die.
func (v *view) keyOf(base int, key []byte) int {
	h := hashBytes(key)
	keys := v.keys[base:]
	for i := max(0, len(keys)-manyKeys); i < len(keys); i++ {
		if keys[i].hash == h && bytes.Equal(keys[i].key, key) {
			v.kill(keys[i].from, keys[i].to)
			return base + i
		}
	}
	v.keys = append(v.keys, keyRef{hash: h, key: key})
	return len(v.keys) - 1
}
