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

// extractor reads a correlation's fields from events of one referred rule.
type extractor struct {
	paths *paths
	slots int
	group []int
	field []int
}

func newExtractor(c *Correlation, rule string) *extractor {
	x := &extractor{slots: 1}
	fields := map[string]int{}
	add := func(name string) int {
		if of, ok := c.Aliases[name]; ok {
			name = of[rule]
		}
		if other, ok := c.renamed[rule][name]; ok {
			name = other
		}
		if _, ok := fields[name]; !ok {
			fields[name] = x.slots
			x.slots++
		}
		return fields[name]
	}
	for _, name := range c.GroupBy {
		x.group = append(x.group, add(name))
	}
	for _, name := range c.Field {
		x.field = append(x.field, add(name))
	}
	x.paths = newPaths(fields)
	return x
}

// Extract takes from raw what correlation c needs of an event for which the
// referred rule (an id in c.Rules) matched. It is false where a field of
// group-by is missing or null: such an event is not counted. Values are exact
// text; objects and arrays are compact JSON. A path through arrays that ends in
// several values gives them as a compact JSON array.
func (m *Matcher) Extract(raw []byte, c *Correlation, rule string) (Values, bool) {
	x := c.extractors[rule]
	if x == nil {
		return Values{}, false
	}
	v := &m.other
	if v.scan(x.paths, x.slots, raw, false) != nil {
		return Values{}, false
	}
	var out Values
	out.Group = make([]string, 0, len(x.group))
	for _, s := range x.group {
		text, ok := v.exact(s)
		if !ok {
			return Values{}, false
		}
		out.Group = append(out.Group, text)
	}
	for _, s := range x.field {
		text, ok := v.exact(s)
		if !ok {
			return Values{Group: out.Group, Incomplete: true}, true
		}
		out.Fields = append(out.Fields, text)
	}
	return out, true
}

// exact is a field's value as exact text; not if it is missing or null.
func (v *view) exact(s int) (string, bool) {
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
