// Package vpcflow reads the lines of AWS VPC flow logs.
package vpcflow

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/stormbell/stormbell/services/formats/accesslog"
)

// The log source that every line asserts.
const (
	Product = "aws"
	Service = "vpcflow"
)

// A Layout is the names of a line's fields in their order.
type Layout struct {
	names          []string
	start, end     int // places of fields; -1 where there is none
	status, action int
}

// A Record is one line.
type Record struct {
	// JSON is the event, with the field names of AWS.
	JSON []byte
	// TimeMS is the end of the flow in Unix milliseconds, or else its start,
	// if HasTime is set.
	TimeMS  int64
	HasTime bool
}

// Default returns the layout of logs that ask for none: version 2.
func Default() *Layout {
	l, _ := NewLayout(strings.Fields("version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"))
	return l
}

const maxName = 64

// NewLayout returns a layout of one's own.
func NewLayout(names []string) (*Layout, error) {
	if len(names) == 0 || len(names) > accesslog.MaxFields {
		return nil, fmt.Errorf("%d fields: use 1 to %d", len(names), accesslog.MaxFields)
	}
	l := &Layout{names: names, start: -1, end: -1, status: -1, action: -1}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		if !isName([]byte(name)) {
			return nil, fmt.Errorf("field %.80q: use the names of VPC flow logs, such as srcaddr", name)
		}
		if seen[name] {
			return nil, fmt.Errorf("field %q is there twice", name)
		}
		seen[name] = true
		switch name {
		case "start":
			l.start = i
		case "end":
			l.end = i
		case "log-status":
			l.status = i
		case "action":
			l.action = i
		}
	}
	return l, nil
}

// isName is true for lower-case words with hyphens: no value of a line that
// holds an address, a number or a status is one.
func isName(v []byte) bool {
	if len(v) == 0 || len(v) > maxName || v[0] < 'a' || v[0] > 'z' {
		return false
	}
	for _, c := range v {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// IsHeader reports whether a line names the fields of those that follow: all of
// its words are names, and one at least is known to be.
func IsHeader(line []byte) bool {
	known := false
	if len(line) > accesslog.MaxFields*(maxName+1) {
		return false
	}
	for word := range bytes.FieldsSeq(line) {
		if !isName(word) {
			return false
		}
		switch string(word) {
		case "version", "account-id", "interface-id", "srcaddr", "dstaddr", "pkt-srcaddr", "pkt-dstaddr", "srcport",
			"dstport", "log-status", "flow-direction", "vpc-id", "subnet-id", "instance-id":
			known = true
		}
	}
	return known
}

// Header returns the layout that a header line names.
func Header(line []byte) (*Layout, error) { return NewLayout(strings.Fields(string(line))) }

// Parse reads a line of the layout.
func (l *Layout) Parse(line []byte) (Record, error) {
	var fields [accesslog.MaxFields + 1][]byte
	n := 0
	for v := range bytes.FieldsSeq(line) {
		if n == len(fields) {
			break
		}
		fields[n] = v
		n++
	}
	if n != len(l.names) {
		return Record{}, fmt.Errorf("%d fields, not the %d that begin with %q: name them in a line ahead of these, or in the source's `fields`", n, len(l.names), l.names[0])
	}
	if err := l.check(fields[:n]); err != nil {
		return Record{}, err
	}
	var r Record
	for _, at := range []int{l.end, l.start} {
		if at < 0 || accesslog.Absent(fields[at]) || r.HasTime {
			continue
		}
		seconds, ok := accesslog.Integer(fields[at])
		if !ok || seconds > maxSeconds {
			return Record{}, fmt.Errorf("%s is no Unix time: %.40q", l.names[at], fields[at])
		}
		r.TimeMS, r.HasTime = seconds*1000, true
	}
	o := accesslog.NewObject(len(line) + 24*n)
	for i, name := range l.names {
		if isCount(name) {
			o.Value(name, fields[i])
		} else {
			o.Text(name, fields[i])
		}
	}
	r.JSON = o.JSON()
	return r, nil
}

// maxSeconds ends with the year 9999.
const maxSeconds = 253402300799

// check finds out lines of another layout that happen to have as many fields.
func (l *Layout) check(fields [][]byte) error {
	if l.status >= 0 {
		switch string(fields[l.status]) {
		case "OK", "NODATA", "SKIPDATA", "-":
		default:
			return fmt.Errorf("log-status is %.40q, not OK, NODATA or SKIPDATA: are the fields in this order?", fields[l.status])
		}
	}
	if l.action >= 0 {
		switch string(fields[l.action]) {
		case "ACCEPT", "REJECT", "-":
		default:
			return fmt.Errorf("action is %.40q, not ACCEPT or REJECT: are the fields in this order?", fields[l.action])
		}
	}
	if l.status < 0 && l.action < 0 && IsHeader(bytes.Join(fields, []byte(" "))) {
		return errors.New("this line names fields")
	}
	return nil
}

// isCount is true for the fields that are numbers; all else is text, with the
// zeros that an account id may begin with.
func isCount(name string) bool {
	switch name {
	case "version", "srcport", "dstport", "protocol", "packets", "bytes", "start", "end", "tcp-flags", "traffic-path":
		return true
	}
	return false
}
