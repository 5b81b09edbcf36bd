// Package eventtime reads the time that an event carries.
//
// It understands RFC 3339 and Unix time in seconds, milliseconds,
// microseconds or nanoseconds, told apart by magnitude. It guesses nothing
// else: no local times, no zone names, no other layouts.
package eventtime

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

// A Field is the path of a member in an event, outermost name first.
type Field []string

// DefaultFields returns the members that a JSON event's time is looked up in.
func DefaultFields() []Field {
	return []Field{{"eventTime"}, {"@timestamp"}, {"timestamp"}, {"time"}, {"event", "created"}}
}

// Find returns the time in the first field that holds one, in Unix
// milliseconds. A field of several names is also found as one member whose
// name is the names joined by dots.
func Find(members []jsonscan.Member, fields []Field) (ms int64, ok bool) {
	x := NewIndex(members)
	return x.Find(fields)
}

// An Index is the members of an object, for several look-ups. It knows of most
// names that none is called so without looking at them.
type Index struct {
	members []jsonscan.Member
	marks   uint64 // one of each name
}

// NewIndex returns an index of members, which must stay as they are.
func NewIndex(members []jsonscan.Member) Index {
	x := Index{members: members}
	for i := range members {
		if name := members[i].Name; len(name) > 0 {
			x.marks |= markOf(name[0], name[len(name)-1], len(name))
		}
	}
	return x
}

func markOf(first, last byte, length int) uint64 {
	return 1 << ((uint(first) + 3*uint(last) + 7*uint(length)) & 63)
}

// lacks reports whether no member is surely called so: by the first name, or by all
// with dots between.
func (x *Index) lacks(f Field) bool {
	first, last, length := f[0], f[len(f)-1], len(f)-1
	for _, name := range f {
		if length += len(name); name == "" {
			return false
		}
	}
	return x.marks&(markOf(first[0], first[len(first)-1], len(first))|markOf(first[0], last[len(last)-1], length)) == 0
}

// Lookup is the function Lookup.
func (x *Index) Lookup(f Field) []byte {
	if x.lacks(f) {
		return nil
	}
	return Lookup(x.members, f)
}

// Find is the function Find.
func (x *Index) Find(fields []Field) (ms int64, ok bool) {
	for _, f := range fields {
		if v := x.Lookup(f); v != nil {
			if ms, ok = Value(v); ok {
				return ms, true
			}
		}
	}
	return 0, false
}

// Lookup returns the value of a member, or nil: by its names one in another, or
// by all of them in one with dots between.
func Lookup(members []jsonscan.Member, f Field) []byte {
	if len(f) == 1 {
		return jsonscan.Find(members, f[0])
	}
	for _, member := range slices.Backward(members) {
		if joined(member.Name, f) {
			return member.Value
		}
	}
	for depth := range len(f) - 1 {
		v := jsonscan.Find(members, f[depth])
		if len(v) == 0 || v[0] != '{' {
			return nil
		}
		var s jsonscan.Scanner
		if _, _, err := s.Value(v, 0); err != nil {
			return nil
		}
		members = s.Members
	}
	return jsonscan.Find(members, f[len(f)-1])
}

// joined reports whether name is the names of f with dots between them.
func joined(name []byte, f Field) bool {
	for i, part := range f {
		if i > 0 {
			if len(name) == 0 || name[0] != '.' {
				return false
			}
			name = name[1:]
		}
		if len(name) < len(part) || string(name[:len(part)]) != part {
			return false
		}
		name = name[len(part):]
	}
	return len(name) == 0
}

// Value returns the time in a JSON value, a number or a string, in Unix
// milliseconds rounded down.
func Value(value []byte) (ms int64, ok bool) {
	text, isText := jsonscan.Text(value)
	if !isText {
		return Epoch(value)
	}
	if ms, ok = RFC3339(text); ok {
		return ms, true
	}
	return Epoch(text)
}

// The magnitudes at which one unit of Unix time gives way to the next. Seconds
// reach from 1973 to 5138, and each finer unit covers the same years.
const (
	leastEpoch   = 1e8
	leastMillis  = 1e11
	leastMicros  = 1e14
	leastNanos   = 1e17
	maxEpochText = 40
)

// Epoch reads Unix time from a decimal number with or without a fraction or an
// exponent. Numbers below 100,000,000 are no times: they are durations,
// counters or mistakes.
func Epoch(text []byte) (ms int64, ok bool) {
	if len(text) == 0 || len(text) > maxEpochText || text[0] < '0' || text[0] > '9' {
		return 0, false
	}
	whole, rest := number(text)
	if len(text)-len(rest) > 18 {
		return float(text)
	}
	fraction := int64(0)
	if len(rest) > 0 {
		if rest[0] != '.' {
			return float(text)
		}
		var digits int
		if fraction, digits, rest = thousandths(rest[1:]); digits == 0 {
			return 0, false
		}
		if len(rest) > 0 {
			return float(text)
		}
	}
	switch {
	case whole < leastEpoch:
		return 0, false
	case whole < leastMillis:
		return whole*1000 + fraction, true
	case whole < leastMicros:
		return whole, true
	case whole < leastNanos:
		return whole / 1000, true
	default:
		return whole / 1_000_000, true
	}
}

// float is the way for exponents and more digits than an integer holds.
func float(text []byte) (int64, bool) {
	v, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil || v < leastEpoch || v > math.MaxInt64:
		return 0, false
	case v < leastMillis:
		v *= 1000
	case v < leastMicros:
	case v < leastNanos:
		v /= 1000
	default:
		v /= 1_000_000
	}
	return int64(v), true
}

// number reads leading digits; the value is undefined beyond 18 of them.
func number(b []byte) (v int64, rest []byte) {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		v = v*10 + int64(b[0]-'0')
		b = b[1:]
	}
	return v, b
}

// thousandths reads the digits behind a decimal point and keeps three.
func thousandths(b []byte) (v int64, digits int, rest []byte) {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		if digits < 3 {
			v = v*10 + int64(b[0]-'0')
		}
		digits++
		b = b[1:]
	}
	for n := digits; n < 3; n++ {
		v *= 10
	}
	return v, digits, b
}

// RFC3339 reads a time of RFC 3339, section 5.6, in Unix milliseconds rounded
// down. As that section allows, "t" and "z" may be lower case, a space may
// stand for "T", and a second may be 60.
func RFC3339(b []byte) (ms int64, ok bool) {
	const layout = "0000-00-00T00:00:00"
	if len(b) < len(layout)+1 {
		return 0, false
	}
	var field [6]int
	for i, at := range [6][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}} {
		v, rest := number(b[at[0]:at[1]])
		if len(rest) > 0 {
			return 0, false
		}
		field[i] = int(v)
	}
	if b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' || bytes.IndexByte([]byte("Tt "), b[10]) < 0 {
		return 0, false
	}
	year, month, day := field[0], time.Month(field[1]), field[2]
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || field[3] > 23 || field[4] > 59 || field[5] > 60 {
		return 0, false
	}
	rest := b[len(layout):]
	fraction := int64(0)
	if rest[0] == '.' {
		var digits int
		if fraction, digits, rest = thousandths(rest[1:]); digits == 0 {
			return 0, false
		}
	}
	offset, ok := zone(rest)
	if !ok {
		return 0, false
	}
	seconds := daysSinceEpoch(year, month, day)*86400 + int64(field[3])*3600 + int64(field[4])*60 + int64(field[5])
	return (seconds-offset)*1000 + fraction, true
}

// zone returns the seconds that a numeric zone is ahead of UTC.
func zone(b []byte) (int64, bool) {
	if len(b) == 1 && b[0]|0x20 == 'z' {
		return 0, true
	}
	if len(b) != 6 || b[3] != ':' || (b[0] != '+' && b[0] != '-') {
		return 0, false
	}
	hours, restH := number(b[1:3])
	minutes, restM := number(b[4:6])
	if len(restH) > 0 || len(restM) > 0 || hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := hours*3600 + minutes*60
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true
}

func daysIn(year int, month time.Month) int {
	switch month {
	case time.April, time.June, time.September, time.November:
		return 30
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	default:
		return 31
	}
}

// daysSinceEpoch counts days from 1970-01-01 in the proleptic Gregorian
// calendar. Years begin in March here, so that the leap day is a year's last.
func daysSinceEpoch(year int, month time.Month, day int) int64 {
	y, m := int64(year), int64(month)
	if m <= 2 {
		y, m = y-1, m+12
	}
	y += 400 // year 0 in January lies in year −1: keep the divisions positive
	const before1970 = 719468 + 146097
	return 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + int64(day) - 1 - before1970
}
