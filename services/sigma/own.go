package sigma

import "strings"

// read collects the fields that the rules for an event's log source read, and
// is their program.
func (m *Matcher) read(ev *Event) *program {
	v := &m.view
	v.err = nil
	src := ev.LogSource
	if ev.Own {
		if m.all == nil {
			m.all = m.set.everything()
		}
		if v.scan(m.all, len(m.set.fields), ev.Raw, m.set.keywords) == nil {
			return m.route(m.own(src), ev.Strict)
		}
		// What is too deep may be in a field that none of its rules reads.
		if v.scan(m.set.sources, len(m.set.fields), ev.Raw, false) != nil {
			return m.route(src, ev.Strict)
		}
		src = m.own(src)
	}
	p := m.route(src, ev.Strict)
	if p.rules > 0 {
		_ = v.scan(p.paths, len(m.set.fields), ev.Raw, p.keywords)
	}
	return p
}

// own completes a log source by what the event that is being read says.
func (m *Matcher) own(src LogSource) LogSource {
	for dim, of := range [...]*string{&src.Product, &src.Service, &src.Category} {
		if *of == "" {
			*of = m.dimension(dim)
		}
	}
	return src
}

// Bounds of what a Matcher remembers of the log sources that events name.
const (
	maxAsserted = 1024
	maxNamed    = 256 // bytes
)

// dimension is what the event says of one, normalised.
func (m *Matcher) dimension(dim int) string {
	text := m.view.one(m.set.sourceSlots[dim])
	if len(text) == 0 {
		return ""
	}
	if last := &m.said[dim]; last.text == string(text) {
		return last.value
	}
	if v, ok := m.asserted[dim][string(text)]; ok {
		m.said[dim] = v
		return v.value
	}
	v := assertion{string(text), m.set.dimension(dim, string(text))}
	if len(text) <= maxNamed {
		if len(m.asserted[dim]) >= maxAsserted {
			clear(m.asserted[dim])
		}
		if m.asserted[dim] == nil {
			m.asserted[dim] = map[string]assertion{}
		}
		m.asserted[dim][v.text], m.said[dim] = v, v
	}
	return v.value
}

// assertion is what an event says of a dimension, and what that is, normalised.
type assertion struct{ text, value string }

// dimension is a value of a dimension as rules write it, or the one that stands
// for all that no rule names.
func (s *Set) dimension(dim int, v string) string {
	if v = strings.ToLower(v); v == "" || s.known[dim][v] {
		return v
	}
	return unknownValue
}

// everything are the paths of all fields that rules read, and of those that
// hold the log source.
func (s *Set) everything() *paths {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		fields := map[string]int{}
		for slot, name := range s.fields {
			if slot != keywordSlot {
				fields[name] = slot
			}
		}
		s.all = newPaths(fields)
	}
	return s.all
}
