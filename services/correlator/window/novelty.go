package window

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// novelty remembers when the group has last shown each value. A value is new
// where it was not shown within the history; it is told where the group is old
// enough by then. A group that shows nothing for its history begins anew.
type novelty struct {
	*sequence
	born, last int64 // times of the first and the latest event
	slots      []shownValue
	at         map[string]int // of values, in slots
	free       []int
	oldest     int64 // time of the value shown longest ago, or before it
	dirty      map[int]struct{}
	aged       bool // born or last have changed
}

type shownValue struct {
	value string // empty: the slot is free
	last  int64
}

// slotsPerPage is how many values are stored in one field.
const slotsPerPage = 64

func newNovelty(q *sequence) *novelty {
	return &novelty{sequence: q, at: map[string]int{}, dirty: map[int]struct{}{}, born: math.MaxInt64, last: math.MinInt64, oldest: math.MaxInt64}
}

// knows reports whether an event's value is known already, so that it will not
// be new when its turn comes, whatever comes before.
func (m *novelty) knows(e *entry) bool {
	i, ok := m.at[e.value]
	return ok && m.slots[i].last >= e.time-m.spec.Extension.History
}

func (m *novelty) take(e *entry) *Firing {
	history := m.spec.Extension.History
	defer m.release(e)
	if len(m.at) == 0 {
		m.born = e.time
	}
	m.last, m.aged = e.time, true
	if m.knows(e) {
		m.show(e)
		return nil
	}
	if !m.show(e) || e.time-m.born < m.spec.Extension.Learn {
		return nil
	}
	return m.firing(e, max(m.born, e.time-history), e.time, e)
}

// show notes an event's value; false where there is no room for it.
func (m *novelty) show(e *entry) bool {
	i, ok := m.at[e.value]
	if !ok && len(m.at) >= MaxValues {
		m.expire(e.time - m.spec.Extension.History)
		if len(m.at) >= MaxValues {
			m.full = true
			return false
		}
	}
	if !ok {
		if n := len(m.free); n > 0 {
			i, m.free = m.free[n-1], m.free[:n-1]
		} else {
			i, m.slots = len(m.slots), append(m.slots, shownValue{})
		}
		m.at[e.value] = i
	}
	m.slots[i] = shownValue{e.value, e.time}
	m.oldest = min(m.oldest, e.time)
	m.dirty[i/slotsPerPage] = struct{}{}
	return true
}

// expire forgets the values that were last shown before t.
func (m *novelty) expire(t int64) {
	m.oldest = math.MaxInt64
	for i, s := range m.slots {
		switch {
		case s.value == "":
		case s.last < t:
			delete(m.at, s.value)
			m.slots[i] = shownValue{}
			m.free = append(m.free, i)
			m.dirty[i/slotsPerPage] = struct{}{}
		default:
			m.oldest = min(m.oldest, s.last)
		}
	}
	if len(m.at) == 0 {
		m.slots, m.free = nil, nil
		m.born, m.last, m.aged = math.MaxInt64, math.MinInt64, true
	}
}

// purgeAt is when values are looked through: late by a part of the history, so
// that each is looked at a bounded number of times.
func (m *novelty) purgeAt() int64 {
	history := m.spec.Extension.History
	return min(m.last+history, m.oldest+history+history/8) + 1
}

func (m *novelty) pass(t int64) *Firing {
	if len(m.at) == 0 {
		return nil
	}
	switch history := m.spec.Extension.History; {
	case m.last+history < t:
		m.expire(math.MaxInt64)
	case m.purgeAt() <= t:
		m.expire(t - history)
	}
	return nil
}

func (m *novelty) due() int64 {
	if len(m.at) == 0 {
		return math.MaxInt64
	}
	return m.purgeAt()
}

func (m *novelty) size() int { return len(m.at) }

func (m *novelty) changes(dst []Change) []Change {
	pages := make([]int, 0, len(m.dirty))
	for p := range m.dirty {
		pages = append(pages, p)
	}
	slices.Sort(pages)
	for _, p := range pages {
		c := Change{Field: "sv" + strconv.Itoa(p)}
		used := false
		for i := p * slotsPerPage; i < min((p+1)*slotsPerPage, len(m.slots)); i++ {
			s := &m.slots[i]
			c.Value = appendString(c.Value, s.value)
			if used = used || s.value != ""; s.value != "" {
				c.Value = binary.AppendVarint(c.Value, s.last)
			}
		}
		if !used {
			c.Value = nil
		}
		dst = append(dst, c)
	}
	clear(m.dirty)
	if m.aged {
		m.aged = false
		dst = append(dst, Change{Field: "sn", Value: binary.AppendVarint(binary.AppendVarint(nil, m.born), m.last)})
	}
	return dst
}

func (m *novelty) load(field string, value []byte) error {
	d := decoder{b: value}
	if field == "sn" {
		m.born, m.last = d.varint(), d.varint()
		return d.end("field sn")
	}
	p, err := strconv.Atoi(field[2:])
	if field[:2] != "sv" || err != nil || p < 0 || p > MaxValues/slotsPerPage {
		return fmt.Errorf("%w: field %q", errCorrupt, field)
	}
	for i := p * slotsPerPage; len(d.b) > 0 && i < (p+1)*slotsPerPage; i++ {
		s := shownValue{value: string(d.bytes())}
		if s.value == "" {
			continue
		}
		s.last = d.varint()
		if _, twice := m.at[s.value]; twice {
			return fmt.Errorf("%w: field %q has a value twice", errCorrupt, field)
		}
		for len(m.slots) <= i {
			m.slots = append(m.slots, shownValue{})
		}
		m.slots[i], m.at[s.value] = s, i
		m.oldest = min(m.oldest, s.last)
	}
	return d.end("field " + field)
}

// loaded finds the free slots, once all fields are there.
func (m *novelty) loaded() {
	for i, s := range m.slots {
		if s.value == "" {
			m.free = append(m.free, i)
		}
	}
}
