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
	// muted is the time up to which values may be known only by an event that was
	// taken before its turn, and of which nothing was said.
	muted int64
	// unknown has of each value that waits and is not known the first and the last
	// event that do.
	unknown map[string][2]*entry
}

type shownValue struct {
	value string // empty: the slot is free
	last  int64
}

// slotsPerPage is how many values are stored in one field.
const slotsPerPage = 64

func newNovelty(q *sequence) *novelty {
	return &novelty{sequence: q, at: map[string]int{}, dirty: map[int]struct{}{}, unknown: map[string][2]*entry{}, muted: never, born: math.MaxInt64, last: math.MinInt64, oldest: math.MaxInt64}
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
	delete(m.unknown, e.value)
	m.shows(e.time)
	if m.knows(e) {
		m.mute(e)
		m.show(e)
		return nil
	}
	if !m.show(e) {
		return nil
	}
	if e.time < m.born { // of which something was taken before its turn
		m.lost.Cut++
		return nil
	}
	if e.time-m.born < m.spec.Extension.Learn {
		return nil
	}
	return m.firing(e, max(m.born, e.time-history), e.time, e)
}

// shows notes that the group shows something.
func (m *novelty) shows(t int64) {
	history := m.spec.Extension.History
	if m.born == math.MaxInt64 || m.last < t-history || t < m.born && m.born-t <= history {
		m.born = t
	}
	m.last, m.aged, m.pages.meta = max(m.last, t), true, true
}

// early takes an event before its turn where its value is known, so that the group
// need not keep it. That makes no difference: it does not fire, and what comes before
// it with its value does not either. For of the events by which a value stays known
// each lies within the history of the one before, and the first of them was taken in
// its turn; one that is still to be taken comes between two of these, or behind.
// Nor has the group been silent for so long before it.
func (m *novelty) early(e *entry) bool {
	if !m.knows(e) {
		m.lost.Full = m.lost.Full || len(m.at) >= m.room
		return false
	}
	m.mute(e)
	m.shows(e.time)
	m.show(e)
	return true
}

// mute counts an event that may be known by another only of which nothing was said.
func (m *novelty) mute(e *entry) {
	if e.time <= m.muted {
		m.lost.Cut++
	}
}

// between is, now that e waits, whose value is not known, an event that waits between
// two others of its value that lie within the history of each other; nil if there is
// none. It does not fire, since the first of the two is shown by then, and whatever
// knows its value, or that the group was not silent, by it knows so by one of the two.
func (m *novelty) between(e *entry) (mid *entry) {
	at := m.unknown[e.value]
	first, last := at[0], at[1]
	switch {
	case first == nil:
		at = [2]*entry{e, e}
	case compareEntries(e, first) < 0:
		if at[0] = e; first != last && last.time-e.time <= m.spec.Extension.History {
			mid = first
		}
	case compareEntries(e, last) > 0:
		if at[1] = e; first != last && e.time-first.time <= m.spec.Extension.History {
			mid = last
		}
	case last.time-first.time <= m.spec.Extension.History:
		mid = e
	}
	m.unknown[e.value] = at
	return mid
}

// remember takes an event before its turn for want of room: nothing is said of it,
// nor, since its value is known from then on, of another in its place.
func (m *novelty) remember(e *entry) {
	delete(m.unknown, e.value)
	m.muted = max(m.muted, e.time)
	m.shows(e.time)
	m.show(e)
}

// review lets go of what need not wait, as it did when it came.
func (m *novelty) review() {
	left := m.waiting[:0]
	for _, e := range m.waiting {
		if m.early(e) {
			m.letGo(e)
			continue
		}
		left = append(left, e)
		if mid := m.between(e); mid != nil {
			i, _ := slices.BinarySearchFunc(left, mid, compareEntries)
			m.letGo(mid)
			left = slices.Delete(left, i, i+1)
		}
	}
	m.waiting = left
}

// show notes an event's value; false where there is no room for it: then nothing is
// said for as long as it might have been known.
func (m *novelty) show(e *entry) bool {
	i, ok := m.at[e.value]
	if !ok && len(m.at) >= m.room {
		m.expire(e.time - m.spec.Extension.History)
		if len(m.at) >= m.room {
			m.lost.Shed++
			m.lost.Cut++
			m.lose(e.time)
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
	last := e.time
	if ok { // it may have been shown before its turn
		last = max(last, m.slots[i].last)
	}
	m.slots[i] = shownValue{e.value, last}
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
		m.born, m.last, m.aged = math.MaxInt64, math.MinInt64, true
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
		b := binary.AppendVarint(binary.AppendVarint(nil, m.born), m.last)
		if m.muted > never {
			b = binary.AppendVarint(b, m.muted)
		}
		dst = append(dst, Change{Field: "sn", Value: b})
	}
	return dst
}

func (m *novelty) load(field string, value []byte) error {
	d := decoder{b: value}
	if field == "sn" {
		if m.born, m.last = d.varint(), d.varint(); len(d.b) > 0 {
			m.muted = d.varint()
		}
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
