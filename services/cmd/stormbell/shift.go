package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stormbell/stormbell/services/formats/eventtime"
)

// shifter moves the times of events by the same span, and gives those with an
// id of their own another, so that they are not taken for copies.
type shifter struct {
	by  time.Duration
	run string
}

// newShifter reads all events once to find the newest.
func newShifter(ctx context.Context, in *inputs, run string, now time.Time) (*shifter, error) {
	if slices.Contains(in.paths, "-") {
		if err := in.keep(); err != nil {
			return nil, err
		}
	}
	newest, found := int64(0), false
	err := in.each(ctx, func(event []byte, _ place) error {
		o, err := parseObject(event)
		if err != nil {
			return nil //nolint:nilerr // the gateway says what is wrong with it
		}
		if _, ms, ok := o.time(); ok && (!found || ms > newest) {
			newest, found = ms, true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New("no event has a time: leave out --shift-to-now")
	}
	// Whole seconds, because some formats have no smaller unit.
	return &shifter{by: now.Sub(time.UnixMilli(newest)).Truncate(time.Second), run: run}, nil
}

// shift returns the event with its time moved. What is not a JSON object, or
// has no time, stays as it is.
func (s *shifter) shift(event []byte) ([]byte, error) {
	o, err := parseObject(event)
	if err != nil {
		return event, nil //nolint:nilerr // the gateway says what is wrong with it
	}
	at, ms, ok := o.time()
	if !ok {
		return event, nil
	}
	moved, err := s.move(*at, ms)
	if err != nil {
		return nil, err
	}
	*at = moved
	for i := range o {
		if o[i].name == "eventID" && len(o[i].value) > 2 {
			o[i].value = s.newID(o[i].value)
		}
	}
	return o.encode(), nil
}

// move returns a time in the notation that it had.
func (s *shifter) move(value json.RawMessage, ms int64) (json.RawMessage, error) {
	var text string
	if json.Unmarshal(value, &text) == nil {
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			layout := time.RFC3339
			if dot := bytes.IndexByte([]byte(text), '.'); dot > 0 {
				digits := 0
				for dot+1+digits < len(text) && text[dot+1+digits] >= '0' && text[dot+1+digits] <= '9' {
					digits++
				}
				layout = "2006-01-02T15:04:05." + "000000000"[:min(digits, 9)] + "Z07:00"
			}
			return json.Marshal(t.Add(s.by).Format(layout))
		}
		moved, err := s.number(text, ms)
		if err != nil {
			return nil, err
		}
		return json.Marshal(moved)
	}
	moved, err := s.number(string(value), ms)
	return json.RawMessage(moved), err
}

// number moves Unix time in the unit that it is in.
func (s *shifter) number(text string, ms int64) (string, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "", fmt.Errorf("its time %q cannot be moved", printable(text))
		}
		unit := time.Duration(float64(time.Millisecond) * float64(ms) / f).Round(time.Microsecond)
		return strconv.FormatFloat(f+float64(s.by)/float64(max(unit, time.Nanosecond)), 'f', -1, 64), nil
	}
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond, time.Nanosecond} {
		perMS := int64(time.Millisecond / max(unit, 1))
		if unit == time.Second && n == ms/1000 || unit != time.Second && n/max(perMS, 1) == ms {
			return strconv.FormatInt(n+int64(s.by/unit), 10), nil
		}
	}
	return "", fmt.Errorf("its time %q cannot be moved", printable(text))
}

// newID derives an id from the old one, so that copies stay copies.
func (s *shifter) newID(old json.RawMessage) json.RawMessage {
	sum := sha256.Sum256([]byte(s.run + string(old)))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // a UUID of version 8
	return fmt.Appendf(nil, `"%x-%x-%x-%x-%x"`, b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// object is a JSON object that keeps the order of its members.
type object []member

type member struct {
	name  string
	value json.RawMessage
	inner object // parsed when a time within it was asked for
}

func parseObject(text []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var o object
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("read member: %w", err)
		}
		m := member{name: name.(string)} //nolint:forcetypeassert // keys of objects are strings
		if err := d.Decode(&m.value); err != nil {
			return nil, fmt.Errorf("read member: %w", err)
		}
		o = append(o, m)
	}
	_, err := d.Token()
	return o, err
}

func (o object) encode() []byte {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		name, _ := json.Marshal(m.name) // a string
		out.Write(name)
		out.WriteByte(':')
		if m.inner != nil {
			m.value = m.inner.encode()
		}
		out.Write(m.value)
	}
	out.WriteByte('}')
	return out.Bytes()
}

// time finds the event's time as the gateway does, with the place to change it.
func (o object) time() (at *json.RawMessage, ms int64, ok bool) {
	for _, field := range eventtime.DefaultFields() {
		if at := o.find(field); at != nil {
			if ms, ok := eventtime.Value(*at); ok {
				return at, ms, true
			}
		}
	}
	return nil, 0, false
}

func (o object) find(path []string) *json.RawMessage {
	for i := len(o) - 1; i >= 0; i-- { // of members with the same name the last counts
		if o[i].name != path[0] {
			continue
		}
		if len(path) == 1 {
			return &o[i].value
		}
		inner, err := parseObject(o[i].value)
		if err != nil {
			return nil
		}
		if at := inner.find(path[1:]); at != nil {
			o[i].inner = inner
			return at
		}
	}
	return nil
}
