package window

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// rate counts events by periods, which lie next to each other, and fires once in
// a period, at the event by which its count comes to ratio times the baseline of
// the periods before it, empty ones included. The group's first period is not
// whole and does not count. It holds the first event of the period.
type rate struct {
	*sequence
	past  []period // those with events, in order
	now   period   // count 0: none has begun
	born  int64    // the first period
	need  int64    // how many of now fire; 0 is not known yet
	dirty bool     // past or born have changed
}

type period struct{ number, count int64 }

// maxCount is where the count of a period stops.
const maxCount = 100_000_000

func newRate(q *sequence) *rate { return &rate{sequence: q, born: math.MaxInt64} }

func (m *rate) take(e *entry) *Firing {
	b := floorDiv(e.time, m.spec.Timespan)
	if m.now.count > 0 && m.taken.id == e.id && m.taken.time == e.time {
		m.release(e)
		return nil
	}
	m.roll(b)
	if m.now.count == 0 {
		if m.born == math.MaxInt64 {
			m.born, m.dirty = b, true
		}
		m.now, m.need = period{number: b}, 0
	} else {
		defer m.release(e)
	}
	m.now.count = min(m.now.count+1, maxCount)
	if m.need == 0 {
		m.need = m.needed(b)
	}
	if m.now.count != m.need {
		return nil
	}
	shown := []*entry{m.held[0]}
	if m.held[0] != e {
		shown = append(shown, e)
	}
	f := m.firing(e, b*m.spec.Timespan, e.time, shown...)
	f.Bucket, f.ByEvent = b, false
	f.Count, f.Total = int(m.now.count), int(m.now.count)
	f.since = max(m.born, b-m.spec.periods()) * m.spec.Timespan
	f.Baseline = m.thousandths(b)
	return f
}

// roll closes the period that ends before b, and forgets what no baseline from
// b on reaches.
func (m *rate) roll(b int64) {
	if m.now.count > 0 && m.now.number < b {
		m.past = append(m.past, m.now)
		m.now = period{}
		m.dirty = true
		m.release(m.held[0])
	}
	if n := len(m.past); n > 0 && m.now.count == 0 && b-m.past[n-1].number > m.spec.periods() {
		m.past, m.born, m.dirty = nil, math.MaxInt64, true
	}
	gone := 0
	for gone < len(m.past) && m.past[gone].number < b-m.spec.periods() {
		gone++
	}
	m.past = m.past[gone:]
}

func (m *rate) pass(t int64) *Firing {
	m.roll(floorDiv(t, m.spec.Timespan))
	return nil
}

func (m *rate) due() int64 {
	switch n := len(m.past); {
	case m.now.count > 0:
		return (m.now.number + 1) * m.spec.Timespan
	case n > 0:
		return (m.past[n-1].number + m.spec.periods() + 1) * m.spec.Timespan
	default:
		return math.MaxInt64
	}
}

// baseline gives the counts of the periods before b that have events, and how
// many periods there are with those that have none.
func (m *rate) baseline(b int64) (counts []int64, periods int64) {
	first := max(m.born+1, b-m.spec.periods())
	for _, p := range m.past {
		if p.number >= first {
			counts = append(counts, p.count)
		}
	}
	return counts, b - first
}

// needed is how many events of period b fire.
func (m *rate) needed(b int64) int64 {
	counts, periods := m.baseline(b)
	if periods*m.spec.Timespan < m.spec.Extension.Learn {
		return math.MaxInt64
	}
	over, under := m.average(counts, periods)
	x := m.spec.Extension.Ratio
	return max(int64(m.spec.Min), (over*x+1000*under-1)/(1000*under))
}

// average is the mean or median as a fraction.
func (m *rate) average(counts []int64, periods int64) (over, under int64) {
	if !m.spec.Extension.Median {
		for _, c := range counts {
			over += c
		}
		return over, periods
	}
	slices.Sort(counts)
	at := func(i int64) int64 {
		if empty := periods - int64(len(counts)); i >= empty {
			return counts[i-empty]
		}
		return 0
	}
	return at((periods-1)/2) + at(periods/2), 2
}

// thousandths is the baseline of period b.
func (m *rate) thousandths(b int64) int64 {
	over, under := m.average(m.baseline(b))
	return over * 1000 / under
}

func (m *rate) size() int {
	if m.now.count > 0 {
		return len(m.past) + 1
	}
	return len(m.past)
}

func (m *rate) changes(dst []Change) []Change {
	b := binary.AppendVarint(nil, m.now.number)
	dst = append(dst, Change{Field: "sc", Value: binary.AppendVarint(b, m.now.count)})
	if !m.dirty {
		return dst
	}
	m.dirty = false
	b = binary.AppendVarint(nil, m.born)
	last := int64(0)
	for _, p := range m.past {
		b = binary.AppendVarint(b, p.number-last)
		b = binary.AppendVarint(b, p.count)
		last = p.number
	}
	return append(dst, Change{Field: "sb", Value: b})
}

func (m *rate) load(field string, value []byte) error {
	d := decoder{b: value}
	switch field {
	case "sc":
		m.now = period{d.varint(), d.varint()}
	case "sb":
		m.born = d.varint()
		last := int64(0)
		for len(d.b) > 0 && len(m.past) < maxPeriods {
			p := period{last + d.varint(), d.varint()}
			if n := len(m.past); p.count < 1 || n > 0 && p.number <= m.past[n-1].number {
				return fmt.Errorf("%w: field sb", errCorrupt)
			}
			m.past, last = append(m.past, p), p.number
		}
	default:
		return fmt.Errorf("%w: field %q", errCorrupt, field)
	}
	return d.end("field " + field)
}

// loaded checks what the fields say together.
func (m *rate) loaded() error {
	if m.now.count < 0 || m.now.count > 0 && (len(m.held) != 1 || m.born > m.now.number) {
		return fmt.Errorf("%w: a period without its first event", errCorrupt)
	}
	return nil
}
