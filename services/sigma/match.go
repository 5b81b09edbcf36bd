package sigma

import (
	"slices"
)

// Event is what is matched.
type Event struct {
	// Raw is one JSON object. It must be valid JSON: Match checks no more of it
	// than it needs to read.
	Raw []byte
	// LogSource is what the event's source asserts about it.
	LogSource LogSource
	// Strict says that the source asserts all three dimensions, empty ones too:
	// a rule applies only where each dimension that it names is equal. Otherwise
	// dimensions that the source leaves empty exclude nothing.
	Strict bool
	// Own says that the event's own fields tell its log source, where LogSource
	// leaves a dimension empty. They are read on the way: see
	// Options.LogSourceFields.
	Own bool
}

// Matcher matches events against its Set. It reuses its buffers, so it belongs
// to one goroutine.
type Matcher struct {
	set  *Set
	view view

	last    route // as asserted, not normalised
	program *program
	recent  map[route]*program

	epoch      uint32
	marked     []uint32 // by rule: epoch in which it became a candidate
	memo       []uint32 // by predicate: epoch<<1 | result
	scanned    []uint64 // predicates that are false unless look has noted otherwise
	candidates []int32
	streak     int    // events that had a text of keywords, up to the last
	unasked    int    // events to come that are not asked for one
	number     []byte // scratch for canonical numbers
	digits     []byte

	all      *paths
	asserted [3]map[string]assertion // by dimension and text
	said     [3]assertion            // by the last events

	other       view   // for Extract, so that Match's buffers stay as they are
	extractable []byte // the event that was matched last
	extracted   bool   // it has been read
	texts       []extracted
}

// Matcher returns scratch space for matching. One goroutine may use it at a time.
func (s *Set) Matcher() *Matcher {
	return &Matcher{set: s, recent: map[route]*program{}, marked: make([]uint32, len(s.rules)), memo: make([]uint32, s.preds)}
}

// maxRecent bounds the log sources that a Matcher remembers.
const maxRecent = 256

func (m *Matcher) route(src LogSource, strict bool) *program {
	r := route{src, strict}
	if m.program != nil && m.last == r {
		return m.program
	}
	p, ok := m.recent[r]
	if !ok {
		p = m.set.program(r.src, r.strict)
		if len(m.recent) >= maxRecent {
			clear(m.recent)
		}
		m.recent[r] = p
	}
	m.last, m.program = r, p
	return p
}

// maxMemoEpoch is where epochs no longer fit a memo with its result.
const maxMemoEpoch = 1<<31 - 1

// Match appends the rules that match the event to dst, in the set's order.
// Where Raw is not a JSON object nothing matches and Err says why.
func (m *Matcher) Match(ev Event, dst []*Rule) []*Rule {
	m.extractable, m.extracted = ev.Raw, false
	p := m.read(&ev)
	if p.rules == 0 || m.view.err != nil {
		return dst
	}
	if m.epoch++; m.epoch == maxMemoEpoch {
		clear(m.marked)
		clear(m.memo)
		m.epoch = 1
	}
	m.candidates, m.scanned = m.candidates[:0], p.scanned
	m.mark(p.always)
	if p.keywords && !m.search(p) {
		return dst
	}
	for _, s := range m.view.touched {
		if i := p.indexOf[s]; i >= 0 {
			m.look(&p.indexes[i])
		}
	}
	from := len(dst)
	for _, c := range m.candidates {
		if r := m.set.rules[c]; m.eval(r.expr) {
			dst = append(dst, r)
		}
	}
	if m.view.err != nil {
		return dst[:from]
	}
	if len(dst)-from > 1 {
		slices.SortFunc(dst[from:], func(a, b *Rule) int { return a.index - b.index })
	}
	return dst
}

// search collects the values for keywords, unless none of the texts that these
// look for is anywhere in the event. It is false if the event can't be read.
func (m *Matcher) search(p *program) bool {
	switch {
	case m.view.deep(), p.words == nil && p.indexOf[keywordSlot] >= 0:
	case p.indexOf[keywordSlot] < 0:
		return true // a rule that is asked for another reason collects them
	case m.unasked > 0:
		m.unasked--
	case !p.words.in(m.view.flat()):
		m.streak = 0
		return true
	default:
		if m.streak++; m.streak >= maxStreak {
			m.unasked = restStreak
		}
	}
	return m.view.scalars() == nil
}

// After so many events in a row that have a keyword's text, so many are not
// asked for one: events of a kind are alike.
const (
	maxStreak  = 8
	restStreak = 32
)

// Err is why the last event could not be read, or nil.
func (m *Matcher) Err() error { return m.view.err }

// mark makes rules candidates.
func (m *Matcher) mark(rules []int32) {
	for _, r := range rules {
		if m.marked[r] != m.epoch {
			m.marked[r] = m.epoch
			m.candidates = append(m.candidates, r)
		}
	}
}

// look marks the rules that the values of one field call for.
func (m *Matcher) look(f *fieldIndex) {
	v := &m.view
	i := v.first(f.slot)
	if i < 0 {
		return
	}
	m.mark(f.present)
	for ; i >= 0; i = v.values[i].next {
		switch kind := v.values[i].kind; kind {
		case kindArray, kindNull:
		case kindObject:
			m.lookObject(f, i)
		default:
			if f.exact != nil {
				m.mark(f.exact.find(v.foldOf(i)))
				if kind == kindNumber && !plainInteger(v.textOf(i)) {
					if canon, ok := m.canonical(v.textOf(i)); ok {
						m.mark(f.exact.find(canon))
					}
				}
			}
			if f.needles != nil {
				f.needles.scan(v.foldOf(i), m, true)
			}
		}
	}
}

// lookObject looks an object's text up, and the strings inside it.
func (m *Matcher) lookObject(f *fieldIndex, i int32) {
	v := &m.view
	if f.exactObject {
		m.mark(f.exact.find(v.foldOf(i)))
	}
	if f.needles == nil {
		return
	}
	f.needles.scan(v.foldOf(i), m, true)
	v.innerOf(i)
	for j := v.values[i].inner; j < v.values[i].innerEnd; j += 2 {
		f.needles.scan(v.inner[j+1], m, false)
	}
}

// canonical is a number's canonical text, valid until the next call.
func (m *Matcher) canonical(text []byte) ([]byte, bool) {
	d, ok := parseDecimal(text, m.digits)
	if !ok {
		return nil, false
	}
	m.digits = d.digits
	m.number = d.appendCanonical(m.number[:0])
	return m.number, true
}

func (m *Matcher) eval(e *expr) bool {
	switch e.op {
	case exprPred:
		p := e.pred
		if memo := m.memo[p.id]; memo>>1 == m.epoch {
			return memo&1 == 1
		}
		if m.scanned != nil && m.scanned[p.id>>6]>>(p.id&63)&1 == 1 {
			return false
		}
		holds := m.test(p)
		memo := m.epoch << 1
		if holds {
			memo |= 1
		}
		m.memo[p.id] = memo
		return holds
	case exprAnd:
		for _, k := range e.kids {
			if !m.eval(k) {
				return false
			}
		}
		return true
	case exprOr:
		for _, k := range e.kids { //nolint:modernize // a method value costs an allocation for each expression
			if m.eval(k) {
				return true
			}
		}
		return false
	case exprNot:
		return !m.eval(e.kids[0])
	default: // exprAtLeast
		n := e.n
		for _, k := range e.kids {
			if m.eval(k) {
				if n--; n == 0 {
					return true
				}
			}
		}
		return false
	}
}
