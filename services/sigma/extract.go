package sigma

import (
	"slices"
	"strings"
)

// Values are what a correlation takes from an event.
type Values struct {
	// Group are the values in the order of GroupBy.
	Group []string
	// Fields are the values of the correlation's Field, one tuple.
	Fields []string
	// Incomplete says that a value of Field is missing or null: the event's
	// tuple does not count.
	Incomplete bool
}

// extractor says which of the extracted fields a correlation takes from events of
// one referred rule.
type extractor struct {
	group []int
	field []int
}

// extraction is all fields that any correlation takes: an event is read once for
// all of them.
type extraction struct {
	slots map[string]int
	paths *paths
}

// size is one more than the greatest slot: the first is for keywords.
func (e *extraction) size() int { return keywordSlot + 1 + len(e.slots) }

// extracted is a field's value in the event that was extracted from last.
type extracted struct {
	epoch uint32
	ok    bool
	text  string
}

// maxWays is in how many ways a correlation may come to detection rules.
const maxWays = 4096

// A way leads from a correlation to a detection rule: the ids of what each
// refers to, the detection rule's last.
type way []string

func (w way) key() string { return strings.Join(w, "\x00") }

func mostWays(c *Correlation) int {
	if c.Type == Risk {
		return maxRiskWays
	}
	return maxWays
}

// ways are all ways from a correlation to detection rules, nil where there are
// more than mostWays.
func (s *Set) ways(c *Correlation) []way {
	var out []way
	for _, id := range c.Rules {
		child := s.corrByID[id]
		if child == nil {
			out = append(out, way{id})
			continue
		}
		for _, w := range child.ways {
			out = append(out, append(way{id}, w...))
		}
		if len(out) > mostWays(c) {
			return nil
		}
	}
	return out
}

// named is what a field of a correlation is called in events that come this
// way: by its own alias for what it refers to, then by that one's.
func (s *Set) named(c *Correlation, name string, w way) string {
	for i, id := range w {
		if of, ok := c.Aliases[name]; ok && of[id] != "" {
			name = of[id]
		}
		if i < len(w)-1 {
			c = s.corrByID[id]
		}
	}
	return name
}

// extract prepares the reading of a correlation's fields, whichever way events
// come. Ways on which they are called alike share what reads them.
func (s *Set) extract(c *Correlation) {
	alike := map[string]*extractor{}
	for _, w := range c.ways {
		as := map[string]string{}
		e := newEncoder("")
		for _, name := range slices.Concat(c.GroupBy, c.Field) {
			as[name] = s.named(c, name, w)
			if other, ok := c.renamed[w.key()][as[name]]; ok {
				as[name] = other
			}
			e.text(as[name])
		}
		x := alike[string(e.b)]
		if x == nil {
			x = s.extraction.extractor(c, as)
			alike[string(e.b)] = x
		}
		c.extractors[w.key()] = x
	}
}

// extractor takes the fields of c, which events call as says.
func (e *extraction) extractor(c *Correlation, as map[string]string) *extractor {
	x := new(extractor)
	add := func(name string) int {
		name = as[name]
		if _, ok := e.slots[name]; !ok {
			e.slots[name] = e.size()
		}
		return e.slots[name]
	}
	for _, name := range c.GroupBy {
		x.group = append(x.group, add(name))
	}
	for _, name := range c.Field {
		x.field = append(x.field, add(name))
	}
	return x
}

// Extract takes from raw what correlation c needs of an event for which the
// referred rule (an id in c.Rules) matched. It is false where a field of
// group-by is missing or null: such an event is not counted. Values are exact
// text; objects and arrays are compact JSON. A path through arrays that ends in
// several values gives them as a compact JSON array.
//
// Where c refers to the rule by way of other correlations, these come before
// it: the one in c.Rules first.
//
// An event is read once if it is the one that was matched last: until the next
// call of Match its bytes must stay as they are.
func (m *Matcher) Extract(raw []byte, c *Correlation, rule ...string) (Values, bool) {
	x := c.extractors[way(rule).key()]
	if x == nil || !m.extract(raw) {
		return Values{}, false
	}
	var out Values
	out.Group = make([]string, len(x.group))
	for i, s := range x.group {
		var ok bool
		if out.Group[i], ok = m.exact(s); !ok {
			return Values{}, false
		}
	}
	for _, s := range x.field {
		text, ok := m.exact(s)
		if !ok {
			return Values{Group: out.Group, Incomplete: true}, true
		}
		out.Fields = append(out.Fields, text)
	}
	return out, true
}

// extract reads what correlations take from an event, unless that has been done.
func (m *Matcher) extract(raw []byte) bool {
	v, from := &m.other, &m.set.extraction
	if len(raw) > 0 && len(m.extractable) == len(raw) && &m.extractable[0] == &raw[0] {
		if !m.extracted {
			m.extracted = true
			_ = v.scan(from.paths, from.size(), raw, false)
		}
		return v.err == nil
	}
	m.extractable, m.extracted = nil, false
	return v.scan(from.paths, from.size(), raw, false) == nil
}

// exact is view.exact, remembered.
func (m *Matcher) exact(s int) (string, bool) {
	if m.texts == nil {
		m.texts = make([]extracted, m.set.extraction.size())
	}
	t := &m.texts[s]
	if t.epoch != m.other.epoch {
		t.text, t.ok = m.other.exact(s)
		t.epoch = m.other.epoch
	}
	return t.text, t.ok
}

// exact is a field's value as exact text; not if it is missing or null.
func (v *view) exact(s int) (string, bool) {
	if i := v.first(s); i >= 0 && v.values[i].next < 0 { // as nearly always
		if v.values[i].kind == kindNull {
			return "", false
		}
		return string(v.textOf(i)), true
	}
	var tops []int32
	end := int32(-1)
	for i := v.first(s); i >= 0; i = v.values[i].next {
		if v.values[i].start < end {
			continue // an element of an array that is taken whole
		}
		tops = append(tops, i)
		end = v.values[i].end
	}
	switch {
	case len(tops) == 0:
		return "", false
	case len(tops) == 1:
		if v.values[tops[0]].kind == kindNull {
			return "", false
		}
		return string(v.textOf(tops[0])), true
	}
	tops = slices.DeleteFunc(tops, func(i int32) bool { return v.values[i].kind == kindNull })
	if len(tops) == 0 {
		return "", false
	}
	var b strings.Builder
	for n, i := range tops {
		b.WriteByte("[,"[min(n, 1)])
		if v.values[i].kind == kindString {
			b.WriteByte('"')
			b.Write(appendEscaped(nil, v.textOf(i)))
			b.WriteByte('"')
		} else {
			b.Write(v.textOf(i))
		}
	}
	b.WriteByte(']')
	return b.String(), true
}
