package sigma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

// valueKind is the JSON type of a collected value.
type valueKind uint8

const (
	kindDead valueKind = iota // overruled by a later duplicate or a longer key
	kindString
	kindNumber
	kindTrue
	kindFalse
	kindNull
	kindObject
	kindArray // its elements follow as values of their own
)

// value is a collected value of a field. text and fold are made when first
// asked for.
type value struct {
	kind       valueKind
	hasText    bool
	hasFold    bool
	hasInner   bool
	slot       int32
	start, end int32 // in the document; of a string without its quotes
	next       int32 // value of the same slot, or −1
	inner      int32 // first of the strings inside an object, in view.inner
	innerEnd   int32
	text, fold []byte
}

// slot is the values of one field in the current document.
type slot struct {
	epoch       uint32
	ready       bool
	first, last int32
}

// claim is which key of an object gave a field's values.
type claim struct {
	instance uint64
	rank     int32
}

// sighting is when a key was last met, to find duplicates.
type sighting struct {
	instance uint64 // of the object
	from, to int32  // the values that it gave
}

// maxNesting bounds how deep collected arrays and objects may nest.
const maxNesting = 512

var (
	errSyntax = errors.New("not a JSON object")
	errDepth  = errors.New("nested deeper than 512 levels")
)

// view reads the fields that its paths name from one JSON document at a time,
// in one pass. The document must be valid JSON; what is skipped is not checked
// beyond its brackets and quotes. Of duplicate keys the last counts.
type view struct {
	data     []byte
	epoch    uint32
	instance uint64
	slots    []slot
	touched  []int32 // slots that have values
	values   []value
	seen     []sighting
	claims   []claim // by slot
	inner    [][]byte
	arena    []byte
	scratch  []byte
	keys     []keyRef
	searched bool // every scalar has been collected too
	noting   bool // members are noted
	nested   bool // some noted member is an object, a list, or within one
	noted    []member
	err      error
}

// member is where a key of the document is, quotes included, and the value of a
// member that is not nested.
type member struct{ from, to, value, end int32 }

// scan collects the values that p names. With members it notes where they are.
func (v *view) scan(p *paths, slots int, data []byte, members bool) error {
	if len(v.slots) < slots {
		v.slots = append(v.slots, make([]slot, slots-len(v.slots))...)
		v.claims = append(v.claims, make([]claim, slots-len(v.claims))...)
	}
	if len(v.seen) < p.edges {
		v.seen = append(v.seen, make([]sighting, p.edges-len(v.seen))...)
	}
	if v.epoch++; v.epoch == 0 {
		clear(v.slots)
		v.epoch = 1
	}
	v.data, v.err, v.searched = data, nil, false
	v.touched, v.noting, v.nested, v.noted = v.touched[:0], members, false, v.noted[:0]
	v.values, v.inner, v.arena = v.values[:0], v.inner[:0], v.arena[:0]
	pos := skipSpace(data, 0)
	if pos >= len(data) || data[pos] != '{' || len(data) > 1<<30 {
		v.err = errSyntax
		return v.err
	}
	end := v.object(p, &p.nodes[0], pos+1, 0)
	if v.err == nil && skipSpace(data, end) != len(data) {
		v.err = errSyntax
	}
	return v.err
}

// deep reports whether the document may be too deep for its scalars.
func (v *view) deep() bool {
	return len(v.data) > maxNesting && bytes.Count(v.data, []byte("{"))+bytes.Count(v.data, []byte("[")) > maxNesting
}

func (v *view) fail(err error) int {
	if v.err == nil {
		v.err = err
	}
	return len(v.data)
}

// object reads the members behind "{" and is the position behind "}".
func (v *view) object(p *paths, n *pathNode, pos, depth int) int {
	data := v.data
	v.instance++
	instance := v.instance
	groups, clash := uint64(0), false
	pos = skipSpace(data, pos)
	if pos < len(data) && data[pos] == '}' {
		return pos + 1
	}
	for {
		if pos >= len(data) || data[pos] != '"' {
			return v.fail(errSyntax)
		}
		end, escaped := stringEnd(data, pos+1)
		if end < 0 {
			return v.fail(errSyntax)
		}
		key := data[pos+1 : end]
		at := len(v.noted)
		if v.noting {
			v.noted = append(v.noted, member{from: int32(pos), to: int32(end + 1)})
		}
		if escaped {
			key, v.nested = v.decode(key), true // as if nested: such keys are compared decoded
		}
		if pos = skipSpace(data, end+1); pos >= len(data) || data[pos] != ':' {
			return v.fail(errSyntax)
		}
		if pos = skipSpace(data, pos+1); pos >= len(data) {
			return v.fail(errSyntax)
		}
		first := pos
		if e := n.find(key); e == nil {
			pos = v.skipValue(pos)
		} else {
			s := &v.seen[e.id]
			if s.instance == instance {
				v.kill(s.from, s.to)
			}
			from := int32(len(v.values))
			pos = v.value(p, &p.nodes[e.child], pos, depth+1)
			*s = sighting{instance, from, int32(len(v.values))}
			clash = clash || groups&e.group != 0
			groups |= e.group
		}
		if v.noting {
			v.noted[at].value, v.noted[at].end = int32(first), int32(pos)
			v.nested = v.nested || data[first] == '{' || data[first] == '['
		}
		if pos = skipSpace(data, pos); pos >= len(data) {
			return v.fail(errSyntax)
		}
		switch data[pos] {
		case ',':
			pos = skipSpace(data, pos+1)
		case '}':
			if clash {
				v.prefer(n, instance)
			}
			return pos + 1
		default:
			return v.fail(errSyntax)
		}
	}
}

// prefer keeps, of the values that one object gave a field by several keys,
// those of the longest key.
func (v *view) prefer(n *pathNode, instance uint64) {
	for rank, place := range n.rivals {
		s := v.seen[n.table[place].id]
		if s.instance != instance {
			continue
		}
		for i := s.from; i < s.to; i++ {
			val := &v.values[i]
			if val.kind == kindDead {
				continue
			}
			c := &v.claims[val.slot]
			if c.instance == instance && c.rank != int32(rank) {
				val.kind = kindDead
				continue
			}
			*c = claim{instance, int32(rank)}
		}
	}
}

// kill removes the values of an earlier duplicate.
func (v *view) kill(from, to int32) {
	for i := from; i < to; i++ {
		v.values[i].kind = kindDead
	}
}

// value collects what stands at pos for node n, and what lies beneath.
func (v *view) value(p *paths, n *pathNode, pos, depth int) int {
	if depth > maxNesting {
		return v.fail(errDepth)
	}
	switch v.data[pos] {
	case '{':
		at := v.add(n.slot, kindObject, pos)
		end := 0
		if n.table != nil {
			end = v.object(p, n, pos+1, depth)
		} else {
			end = v.skipContainer(pos)
		}
		v.close(at, end)
		return end
	case '[':
		at := v.add(n.slot, kindArray, pos)
		end := v.array(p, n, pos+1, depth)
		v.close(at, end)
		return end
	default:
		if n.slot < 0 {
			return v.skipValue(pos)
		}
		return v.scalar(n.slot, pos)
	}
}

func (v *view) array(p *paths, n *pathNode, pos, depth int) int {
	data := v.data
	pos = skipSpace(data, pos)
	if pos < len(data) && data[pos] == ']' {
		return pos + 1
	}
	for pos < len(data) {
		if pos = skipSpace(data, v.value(p, n, pos, depth+1)); pos >= len(data) {
			break
		}
		switch data[pos] {
		case ',':
			pos = skipSpace(data, pos+1)
		case ']':
			return pos + 1
		default:
			return v.fail(errSyntax)
		}
	}
	return v.fail(errSyntax)
}

// scalar collects a string, number, true, false or null.
func (v *view) scalar(s int32, pos int) int {
	if v.data[pos] == '"' {
		end, escaped := stringEnd(v.data, pos+1)
		if end < 0 {
			return v.fail(errSyntax)
		}
		at := v.add(s, kindString, pos+1)
		val := &v.values[at]
		val.end = int32(end)
		if !escaped {
			val.text, val.hasText = v.data[pos+1:end], true
		}
		return end + 1
	}
	end := literalEnd(v.data, pos)
	if end == pos {
		return v.fail(errSyntax)
	}
	at := v.add(s, kindOf(v.data[pos]), pos)
	val := &v.values[at]
	val.end = int32(end)
	val.text, val.hasText = v.data[pos:end], true
	return end
}

// kindOf is the kind of the scalar that begins with c.
func kindOf(c byte) valueKind {
	switch c {
	case '"':
		return kindString
	case 't':
		return kindTrue
	case 'f':
		return kindFalse
	case 'n':
		return kindNull
	default:
		return kindNumber
	}
}

// add appends a value to a slot; −1 collects nothing.
func (v *view) add(s int32, kind valueKind, pos int) int32 {
	if s < 0 {
		return -1
	}
	at := int32(len(v.values))
	v.values = append(v.values, value{kind: kind, slot: s, start: int32(pos), next: -1})
	sl := &v.slots[s]
	if sl.epoch != v.epoch {
		*sl = slot{epoch: v.epoch, first: at, last: at}
		v.touched = append(v.touched, s)
		return at
	}
	v.values[sl.last].next = at
	sl.last = at
	return at
}

func (v *view) close(at int32, end int) {
	if at >= 0 {
		v.values[at].end = int32(end)
	}
}

// first is the slot's first live value, or −1 where the field is absent.
func (v *view) first(s int) int32 {
	sl := &v.slots[s]
	if sl.epoch != v.epoch {
		return -1
	}
	if !sl.ready {
		v.settle(sl)
	}
	return sl.first
}

// settle drops dead values.
func (v *view) settle(sl *slot) {
	link := &sl.first
	for i := sl.first; i >= 0; i = v.values[i].next {
		if val := &v.values[i]; val.kind != kindDead {
			*link = i
			link = &val.next
		}
	}
	*link = -1
	sl.ready = true
}

func (v *view) skipValue(pos int) int {
	switch v.data[pos] {
	case '"':
		end, _ := stringEnd(v.data, pos+1)
		if end < 0 {
			return v.fail(errSyntax)
		}
		return end + 1
	case '{', '[':
		return v.skipContainer(pos)
	default:
		end := literalEnd(v.data, pos)
		if end == pos {
			return v.fail(errSyntax)
		}
		return end
	}
}

// skipContainer is the position behind the bracket that closes the one at pos.
func (v *view) skipContainer(pos int) int {
	data := v.data
	depth := 0
	for pos < len(data) {
		switch data[pos] {
		case '"':
			end, _ := stringEnd(data, pos+1)
			if end < 0 {
				return v.fail(errSyntax)
			}
			if v.noting && end+1 < len(data) && data[end+1] == ':' {
				v.noted = append(v.noted, member{from: int32(pos), to: int32(end + 1)})
			}
			pos = end + 1
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return pos + 1
			}
		}
		pos++
	}
	return v.fail(errSyntax)
}

func skipSpace(data []byte, pos int) int {
	for pos < len(data) && data[pos] <= ' ' && (data[pos] == ' ' || data[pos] == '\n' || data[pos] == '\t' || data[pos] == '\r') {
		pos++
	}
	return pos
}

// literalEnd is behind the number or word at pos.
func literalEnd(data []byte, pos int) int {
	for pos < len(data) {
		switch c := data[pos]; c {
		case ',', '}', ']', ' ', '\n', '\t', '\r', ':', '"', '{', '[':
			return pos
		}
		pos++
	}
	return pos
}

// stringEnd is the position of the quote that ends the string whose text begins
// at pos, or −1, and whether there are escapes before it.
func stringEnd(data []byte, pos int) (end int, escaped bool) {
	const quotes = '"' * ones
	for far := pos + 32; pos+8 <= len(data); {
		if pos >= far {
			return farStringEnd(data, pos, escaped)
		}
		x := binary.LittleEndian.Uint64(data[pos:])
		q, s := x^quotes, x^backslashes
		if m := ((q - ones) &^ q & tops) | ((s - ones) &^ s & tops); m != 0 {
			pos += bits.TrailingZeros64(m) >> 3
			if data[pos] == '"' {
				return pos, escaped
			}
			escaped = true
			pos += 2
			continue
		}
		pos += 8
	}
	for pos < len(data) {
		switch data[pos] {
		case '"':
			return pos, escaped
		case '\\':
			escaped = true
			pos++
		}
		pos++
	}
	return -1, escaped
}

// farStringEnd is stringEnd where the end is not near. No escape is open at pos.
func farStringEnd(data []byte, pos int, escaped bool) (int, bool) {
	for from := pos; ; {
		n := bytes.IndexByte(data[pos:], '"')
		if n < 0 {
			return -1, escaped
		}
		pos += n
		slashes := 0
		for pos-slashes > from && data[pos-slashes-1] == '\\' {
			slashes++
		}
		if slashes&1 == 0 {
			return pos, escaped || bytes.IndexByte(data[from:pos], '\\') >= 0
		}
		pos++
	}
}
