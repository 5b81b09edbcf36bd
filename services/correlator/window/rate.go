package window

import (
	"cmp"
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
	ahead ahead
}

// ahead is what a full group has counted before its turn: the oldest of the events
// that wait, if another of its period does, which then fires in its place. The number
// is all that is left of it. An event before the last such can't be told from its copy:
// it is lost.
type ahead struct {
	counts []period
	last   *entry
	dirty  bool
}

type period struct{ number, count int64 }

// maxCount is where the count of a period stops.
const maxCount = 100_000_000

func newRate(q *sequence) *rate {
	return &rate{sequence: q, born: math.MaxInt64, ahead: ahead{last: &entry{}}}
}

func (m *rate) take(e *entry) *Firing {
	b := floorDiv(e.time, m.spec.Timespan)
	if m.now.count > 0 && m.taken.id == e.id && m.taken.time == e.time {
		m.release(e)
		return nil
	}
	m.roll(b)
	if m.now.count == 0 {
		m.begin(b)
		m.now, m.need = period{number: b}, 0
	} else {
		defer m.release(e)
	}
	was := m.now.count
	m.now.count = min(was+1+m.ahead.claim(b), maxCount)
	if m.need == 0 {
		m.need = m.needed(b)
	}
	if was >= m.need || m.now.count < m.need {
		return nil
	}
	shown := []*entry{m.held[0]}
	if m.held[0] != e {
		shown = append(shown, e)
	}
	f := m.firing(e, b*m.spec.Timespan, e.time, shown...)
	f.Bucket, f.ByEvent = b, false
	f.Count, f.Total, f.AtLeast = int(m.need), int(m.need), m.now.count > m.need
	f.since = max(m.born, b-m.spec.periods()) * m.spec.Timespan
	f.Baseline = m.thousandths(b)
	return f
}

// merge counts the first event ahead behind which another of its period waits; false
// where there is none.
func (m *rate) merge() bool {
	for i := range len(m.waiting) - 1 {
		e := m.waiting[i]
		if !m.follows(i) {
			continue
		}
		copied := func(x *entry) bool { return x.id == e.id && x.time == e.time }
		if !copied(m.waiting[i+1]) && !copied(m.taken) {
			m.ahead.count(floorDiv(e.time, m.spec.Timespan))
		}
		m.ahead.last, m.ahead.dirty = e, true
		copy(m.waiting[1:i+1], m.waiting[:i])
		m.waiting[0] = e
		m.unwait(0)
		return true
	}
	return false
}

// follows reports whether behind the waiting event at an index is one of its period.
func (m *rate) follows(i int) bool {
	next := m.around(i + 1)
	return next != nil && floorDiv(next.time, m.spec.Timespan) == floorDiv(m.waiting[i].time, m.spec.Timespan)
}

// overtaken reports whether an event comes before one that was counted ahead.
func (m *rate) overtaken(e *entry) bool {
	if m.ahead.last.id == "" || compareEntries(e, m.ahead.last) > 0 {
		return false
	}
	m.lost.Shed++
	m.lost.Cut++
	m.lose(e.time)
	return true
}

func (a *ahead) count(b int64) {
	i, ok := slices.BinarySearchFunc(a.counts, b, func(p period, b int64) int { return cmp.Compare(p.number, b) })
	if !ok {
		a.counts = slices.Insert(a.counts, i, period{number: b})
	}
	a.counts[i].count++
}

// next is the first period before b of which events were counted ahead.
func (a *ahead) next(b int64) (p period, ok bool) {
	if len(a.counts) == 0 || a.counts[0].number >= b {
		return period{}, false
	}
	p, a.counts, a.dirty = a.counts[0], a.counts[1:], true
	return p, true
}

// claim is how many of period b were, once those before it have gone.
func (a *ahead) claim(b int64) int64 {
	if len(a.counts) == 0 || a.counts[0].number != b {
		return 0
	}
	p, _ := a.next(b + 1)
	return p.count
}

func (a *ahead) append(b []byte) []byte {
	b = appendEntry(b, a.last)
	for _, p := range a.counts {
		b = binary.AppendVarint(binary.AppendVarint(b, p.number), p.count)
	}
	return b
}

// roll closes the periods that end before b, and forgets what no baseline from b on
// reaches.
func (m *rate) roll(b int64) {
	if m.now.count > 0 && m.now.number < b {
		m.now.count = min(m.now.count+m.ahead.claim(m.now.number), maxCount)
		m.past = append(m.past, m.now)
		m.now = period{}
		m.dirty = true
		m.release(m.held[0])
	}
	for p, ok := m.ahead.next(b); ok; p, ok = m.ahead.next(b) {
		m.lapse(p.number)
		m.begin(p.number)
		m.past, m.dirty = append(m.past, p), true
	}
	m.lapse(b)
	gone := 0
	for gone < len(m.past) && m.past[gone].number < b-m.spec.periods() {
		gone++
	}
	m.past = m.past[gone:]
}

// lapse forgets all where the group was silent for its baseline by period b.
func (m *rate) lapse(b int64) {
	if n := len(m.past); n > 0 && m.now.count == 0 && b-m.past[n-1].number > m.spec.periods() {
		m.past, m.born, m.dirty = nil, math.MaxInt64, true
	}
}

// begin notes the group's first period.
func (m *rate) begin(b int64) {
	if m.born == math.MaxInt64 {
		m.born, m.dirty = b, true
	}
}

func (m *rate) pass(t int64) *Firing {
	m.roll(floorDiv(t, m.spec.Timespan))
	return nil
}

func (m *rate) due() int64 {
	switch n := len(m.past); {
	case m.now.count > 0:
		return (m.now.number + 1) * m.spec.Timespan
	case len(m.ahead.counts) > 0:
		return (m.ahead.counts[0].number + 1) * m.spec.Timespan
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
	n := len(m.past) + len(m.ahead.counts)
	if m.now.count > 0 {
		n++
	}
	return n
}

func (m *rate) changes(dst []Change) []Change {
	b := binary.AppendVarint(nil, m.now.number)
	dst = append(dst, Change{Field: "sc", Value: binary.AppendVarint(b, m.now.count)})
	if m.ahead.dirty {
		m.ahead.dirty = false
		dst = append(dst, Change{Field: "se", Value: m.ahead.append(nil)})
	}
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
	case "se":
		m.ahead.last = d.entry()
		for len(d.b) > 0 {
			p := period{d.varint(), d.varint()}
			if n := len(m.ahead.counts); p.count < 1 || n > 0 && p.number <= m.ahead.counts[n-1].number {
				return fmt.Errorf("%w: field se", errCorrupt)
			}
			m.ahead.counts = append(m.ahead.counts, p)
		}
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
	left := m.waiting[:0]
	for i, e := range m.waiting {
		if m.ahead.last.id != "" && compareEntries(e, m.ahead.last) <= 0 && m.follows(i) {
			m.letGo(e) // it is counted
			continue
		}
		left = append(left, e)
	}
	m.waiting = left
	if m.now.count < 0 || m.now.count > 0 && (len(m.held) != 1 || m.born > m.now.number) {
		return fmt.Errorf("%w: a period without its first event", errCorrupt)
	}
	return nil
}
