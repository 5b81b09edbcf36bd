// Package accesslog has what the text formats of AWS share: lines of fields
// between single spaces, of which some are in quotes or brackets, "-" for what
// is absent, and the JSON object that an event is made of.
package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxFields bounds the fields of a line. The longest format has 34.
const MaxFields = 128

// maxNumber is up to how many digits a number stays one: more are an identity,
// which readers of JSON would round.
const maxNumber = 15

// Split returns the fields of a line without their quotes and brackets; they
// refer to it. A quote ends where a space or the line's end follows, so one
// inside a field does no harm unless the text goes on with a space.
func Split(line []byte) ([][]byte, error) {
	fields, rest, err := SplitN(line, MaxFields)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("more than %d fields", MaxFields)
	case len(fields) == 0:
		return nil, errors.New("empty line")
	}
	return fields, nil
}

// SplitN returns the first n fields, and what follows them.
func SplitN(line []byte, n int) (fields [][]byte, rest []byte, err error) {
	fields = make([][]byte, 0, min(n, 40))
	for at := 0; at < len(line); {
		if line[at] == ' ' {
			at++
			continue
		}
		if len(fields) == n {
			return fields, line[at:], nil
		}
		from, end, next := at, 0, 0
		switch mark := line[at]; {
		case mark == '"':
			from++
			end = closing(line, from, '"')
			next = end + 1
		case mark == '[' && !isAddress(line[at:]):
			from++
			end = closing(line, from, ']')
			next = end + 1
		default:
			if end = bytes.IndexByte(line[at:], ' '); end < 0 {
				end = len(line) - at
			}
			end += at
			next = end
		}
		if end < 0 {
			return nil, nil, fmt.Errorf("field %d at byte %d is not closed", len(fields)+1, at)
		}
		fields = append(fields, line[from:end:end])
		at = next
	}
	return fields, nil, nil
}

// isAddress is true for [2001:db8::1]:443.
func isAddress(v []byte) bool {
	word, _, _ := bytes.Cut(v, []byte(" "))
	return bytes.Contains(word, []byte("]:"))
}

// closing returns where the mark is that ends a field, or a negative number.
func closing(line []byte, from int, mark byte) int {
	escaped := false
	for i := from; i < len(line); i++ {
		switch {
		case escaped:
			escaped = false
		case line[i] == '\\':
			escaped = true
		case line[i] == mark && (i+1 == len(line) || line[i+1] == ' '):
			return i
		}
	}
	return -1
}

// Absent reports whether a field says that there is nothing.
func Absent(v []byte) bool { return len(v) == 0 || (len(v) == 1 && v[0] == '-') }

// Integer reads a field of 1 to 15 digits.
func Integer(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > maxNumber {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// HostPort parts host:port, also of IPv6 with and without brackets.
func HostPort(v []byte) (host, port []byte) {
	i := bytes.LastIndexByte(v, ':')
	if i < 0 {
		return v, nil
	}
	if _, ok := Integer(v[i+1:]); !ok {
		return v, nil
	}
	host, port = v[:i], v[i+1:]
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	return host, port
}

// An Object is JSON in the making. The zero value is an empty one.
type Object struct{ text []byte }

// NewObject returns an object with room for so many bytes.
func NewObject(room int) *Object { return &Object{make([]byte, 0, room)} }

// JSON ends the object and returns it.
func (o *Object) JSON() []byte {
	if len(o.text) == 0 {
		return []byte("{}")
	}
	return append(o.text, '}')
}

func (o *Object) name(name string) {
	if len(o.text) == 0 {
		o.text = append(o.text, '{')
	} else {
		o.text = append(o.text, ',')
	}
	o.text = append(appendText(o.text, []byte(name)), ':')
}

// Text adds a member unless the field is absent.
func (o *Object) Text(name string, v []byte) {
	if Absent(v) {
		return
	}
	o.name(name)
	o.text = appendText(o.text, v)
}

// Value adds a member unless the field is absent: a number if it can be written
// as one without a change, else text.
func (o *Object) Value(name string, v []byte) {
	if Absent(v) {
		return
	}
	o.name(name)
	if isNumber(v) {
		o.text = append(o.text, v...)
		return
	}
	o.text = appendText(o.text, v)
}

// Texts adds a member that is a list unless there are none.
func (o *Object) Texts(name string, all [][]byte) {
	if len(all) == 0 {
		return
	}
	o.name(name)
	for i, v := range all {
		if i == 0 {
			o.text = append(o.text, '[')
		} else {
			o.text = append(o.text, ',')
		}
		o.text = appendText(o.text, v)
	}
	o.text = append(o.text, ']')
}

// isNumber is true for what JSON writes the same way.
func isNumber(v []byte) bool {
	if len(v) > 0 && v[0] == '-' {
		v = v[1:]
	}
	whole, fraction, point := bytes.Cut(v, []byte("."))
	if _, ok := Integer(whole); !ok || (len(whole) > 1 && whole[0] == '0') {
		return false
	}
	_, ok := Integer(fraction)
	return ok || !point
}

// appendText appends a JSON string. Bytes that are no UTF-8 become U+FFFD.
func appendText(dst, v []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(v) > 0 {
		c := v[0]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRune(v)
			dst = utf8.AppendRune(dst, r)
			v = v[n:]
			continue
		}
		v = v[1:]
	}
	return append(dst, '"')
}
