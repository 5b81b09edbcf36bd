// Package body finds the records in the body of a request: one JSON object, an
// array of objects, a file of the form {"Records":[…]}, or lines of objects.
//
// It copies nothing and builds no values: records are parts of the body. A
// body that is one JSON value is taken whole or refused whole; lines are
// judged one by one. What a record means is not its business.
package body

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

// Codes of a Problem.
const (
	// CodeMalformed is a line that is not JSON.
	CodeMalformed = "malformed"
	// CodeNotObject is JSON, but not an object.
	CodeNotObject = "not_object"
	// CodeTooDeep is an object that is nested deeper than Limits.Depth.
	CodeTooDeep = "too_deep"
	// CodeTooManyMembers is an object of more members than Limits.Members.
	CodeTooManyMembers = "too_many_members"
)

// ErrTooMany is returned for a body of more than Limits.Records records.
var ErrTooMany = errors.New("too many records")

// ErrScalar is returned for a body that is JSON, but neither an object nor an
// array.
var ErrScalar = errors.New("the body is neither a JSON object nor an array of objects")

// Limits bound what is found. All must be positive.
type Limits struct {
	Records int
	// Depth is the deepest nesting of one record; {} is 1.
	Depth int
	// Members bounds those of one record's outermost object.
	Members int
}

// A Problem says why a record cannot be taken.
type Problem struct {
	Code, Detail string
}

// A Record is one element of a body.
type Record struct {
	// Index counts the records of a body from 0, good and bad ones.
	Index int
	// Raw is the text of the record without white space around it.
	Raw []byte
	// Members are those of the object. They are valid during the call only.
	Members []jsonscan.Member
	// Enveloped says that the record was an element of {"Records":[…]}.
	Enveloped bool
	// Problem is nil for an object that may be taken.
	Problem *Problem
}

// A Sink takes the records of a body in their order.
type Sink interface {
	// Record takes the next one. It must not keep r or r.Members.
	Record(r *Record)
	// Reset forgets all records so far: the body turned out to have another
	// shape, and its records follow anew.
	Reset()
}

// JSON reads a body that is one JSON value. After an error the records that
// were passed to the sink must be discarded. Errors are *jsonscan.SyntaxError,
// ErrTooMany or ErrScalar.
func JSON(text []byte, limits Limits, sink Sink) error {
	s := newSplitter(text, limits, sink)
	at := jsonscan.Space(text, bom(text))
	if at >= len(text) {
		return &jsonscan.SyntaxError{Offset: at, Reason: "empty body"}
	}
	switch text[at] {
	case '[':
		end, err := s.array(at)
		if err != nil {
			return err
		}
		return s.end(end)
	case '{':
		if file := recordsArray(text, at); file >= 0 {
			whole, err := s.file(file)
			if whole || err != nil {
				return err
			}
			sink.Reset()
			s.record = Record{}
		}
		end, err := s.value(at)
		if err != nil {
			return err
		}
		if err = s.end(end); err != nil {
			return err
		}
		return s.emit()
	default:
		var scan jsonscan.Scanner
		_, end, err := scan.Value(text, at)
		if err == nil {
			err = s.end(end)
		}
		if err == nil {
			err = ErrScalar
		}
		return err
	}
}

// Lines reads a body of one JSON object per line. Blank lines are passed over
// and not counted. The only error is ErrTooMany.
func Lines(text []byte, limits Limits, sink Sink) error {
	s := newSplitter(text, limits, sink)
	at := bom(text)
	for line := 1; at < len(text); line++ {
		end := len(text)
		if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
			end = at + n
		}
		if jsonscan.Space(text[:end], at) < end {
			s.text = text[:end:end]
			s.line(at, line)
			if err := s.emit(); err != nil {
				return err
			}
		}
		at = end + 1
	}
	return nil
}

type splitter struct {
	text   []byte
	limits Limits
	sink   Sink
	scan   jsonscan.Scanner
	record Record // that is read next; its Index is kept up to date
}

func newSplitter(text []byte, limits Limits, sink Sink) *splitter {
	return &splitter{text: text, limits: limits, sink: sink, scan: jsonscan.Scanner{MaxMembers: limits.Members}}
}

// line reads the value that is all of the line from byte at to the end of
// s.text. Every failure is the record's problem.
func (s *splitter) line(at, number int) {
	end, err := s.value(at)
	if err == nil {
		err = s.end(end)
	}
	if err == nil {
		return
	}
	if syntax, ok := errors.AsType[*jsonscan.SyntaxError](err); ok {
		err = &jsonscan.SyntaxError{Offset: syntax.Offset - at, Reason: syntax.Reason}
	}
	s.record.Raw, s.record.Members = s.text[at:], nil
	s.record.Problem = &Problem{CodeMalformed, fmt.Sprintf("line %d: %v", number, err)}
}

// value reads the value at or after byte at into s.record.
func (s *splitter) value(at int) (end int, err error) {
	from, end, err := s.scan.Value(s.text, at)
	if err != nil {
		return end, err
	}
	s.record.Raw, s.record.Members, s.record.Problem = s.text[from:end:end], s.scan.Members, nil
	switch {
	case s.text[from] != '{':
		s.record.Problem = &Problem{CodeNotObject, "not a JSON object"}
	case s.scan.Depth > s.limits.Depth:
		s.record.Problem = &Problem{CodeTooDeep, fmt.Sprintf("nested %d deep: at most %d is taken", s.scan.Depth, s.limits.Depth)}
	case s.scan.Crowded:
		s.record.Problem = &Problem{CodeTooManyMembers, fmt.Sprintf("more than %d members: nest them", s.limits.Members)}
	}
	return end, nil
}

func (s *splitter) emit() error {
	if s.record.Index >= s.limits.Records {
		return ErrTooMany
	}
	s.sink.Record(&s.record)
	s.record.Index++
	return nil
}

// array reads the array whose bracket is at byte at and returns the offset
// behind it.
func (s *splitter) array(at int) (end int, err error) {
	at = jsonscan.Space(s.text, at+1)
	if at < len(s.text) && s.text[at] == ']' {
		return at + 1, nil
	}
	for {
		if at, err = s.value(at); err != nil {
			return at, err
		}
		if err = s.emit(); err != nil {
			return at, err
		}
		at = jsonscan.Space(s.text, at)
		switch {
		case at >= len(s.text):
			return at, &jsonscan.SyntaxError{Offset: at, Reason: "unexpected end"}
		case s.text[at] == ']':
			return at + 1, nil
		case s.text[at] != ',':
			return at, &jsonscan.SyntaxError{Offset: at, Reason: "expected ',' or ']' in an array"}
		}
		at++
	}
}

// file reads the array of {"Records":[…]} and reports whether the object holds
// nothing else.
func (s *splitter) file(bracket int) (whole bool, err error) {
	s.record.Enveloped = true
	at, err := s.array(bracket)
	if err != nil {
		return false, err
	}
	at = jsonscan.Space(s.text, at)
	if at < len(s.text) && s.text[at] == '}' {
		return true, s.end(at + 1)
	}
	return false, nil
}

// recordsArray returns the offset of the bracket if the object at byte at
// begins like {"Records":[{ or {"Records":[], and else a negative number.
func recordsArray(text []byte, at int) int {
	const name = `"Records"`
	at = jsonscan.Space(text, at+1)
	if !bytes.HasPrefix(text[at:], []byte(name)) {
		return -1
	}
	at = jsonscan.Space(text, at+len(name))
	if at >= len(text) || text[at] != ':' {
		return -1
	}
	bracket := jsonscan.Space(text, at+1)
	if bracket >= len(text) || text[bracket] != '[' {
		return -1
	}
	first := jsonscan.Space(text, bracket+1)
	if first >= len(text) || (text[first] != '{' && text[first] != ']') {
		return -1
	}
	return bracket
}

// end checks that nothing but white space follows.
func (s *splitter) end(at int) error {
	if at = jsonscan.Space(s.text, at); at < len(s.text) {
		return &jsonscan.SyntaxError{Offset: at, Reason: "text after the value"}
	}
	return nil
}

// bom returns the length of a UTF-8 byte order mark, which some tools write
// and RFC 8259 lets a parser ignore.
func bom(text []byte) int {
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		return 3
	}
	return 0
}
