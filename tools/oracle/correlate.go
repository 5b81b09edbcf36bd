package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// A hit is one record with one of a correlation's rules that it matched.
type hit struct {
	id           string
	time, ingest int64
	rule         string
	value        string
	hasValue     bool
}

// A group is the hits of one correlation with the same group-by values.
type group struct {
	rule   *Rule
	tenant string
	values []string
	hits   []hit
}

// collect adds the record to the groups of c, once for each rule that matched
// it: with aliases these may be different groups.
func (c *Rule) collect(groups map[string]*group, r *Record, doc any, matched []string) error {
	for _, ref := range c.refs {
		if !slices.Contains(matched, ref) {
			continue
		}
		values, ok, err := c.texts(doc, ref, c.groupBy)
		if err != nil {
			return err
		}
		if !ok {
			continue // a missing field is no group
		}
		key := fmt.Sprintf("%q", append([]string{c.ID, r.Tenant}, values...))
		g := groups[key]
		if g == nil {
			g = &group{rule: c, tenant: r.Tenant, values: values}
			groups[key] = g
		}
		tuple, ok, err := c.texts(doc, ref, c.field)
		if err != nil {
			return err
		}
		g.hits = append(g.hits, hit{
			id: r.ID, time: r.TimeMS, ingest: r.IngestMS, rule: ref,
			value: fmt.Sprintf("%q", tuple), hasValue: ok && len(c.field) > 0,
		})
	}
	return nil
}

// texts are the values of fields, or of what the aliases say of them for the
// rule ref. It is false if one is missing or null.
func (c *Rule) texts(doc any, ref string, fields []string) ([]string, bool, error) {
	var out []string
	for _, field := range fields {
		if of, ok := c.aliases[field]; ok {
			field = of[ref]
		}
		values := lookup(doc, strings.Split(field, "."))
		if len(values) > 1 {
			return nil, false, fmt.Errorf("%s has several values: not supported", field)
		}
		if len(values) == 0 || values[0] == nil {
			return nil, false, nil
		}
		text, ok := scalar(values[0])
		if !ok {
			return nil, false, fmt.Errorf("%s is an object or an array: not supported", field)
		}
		out = append(out, text)
	}
	return out, true, nil
}

// qualifies says whether some set of the window's records that contains e
// satisfies the condition with all ingest times within spread of each other.
// Every such set lies in one of the stretches of ingest times that begin at a
// record's, and the conditions only gain by more records.
func (c *Rule) qualifies(e hit, window []hit, spread int64) (bool, error) {
	tried := map[int64]bool{}
	for _, first := range window {
		from := first.ingest
		if tried[from] || from > e.ingest || e.ingest > from+spread {
			continue
		}
		tried[from] = true
		var set []hit
		whole := true
		for _, h := range window {
			if from <= h.ingest && h.ingest <= from+spread {
				set = append(set, h)
			} else {
				whole = false
			}
		}
		ok, err := c.holds(set)
		if ok || whole || err != nil { // no other stretch has more than the whole
			return ok, err
		}
	}
	return false, nil
}

func (c *Rule) holds(set []hit) (bool, error) {
	distinct := map[string]bool{}
	for _, h := range set {
		switch {
		case c.kind == "event_count":
			distinct[h.id] = true
		case c.kind == "value_count" && h.hasValue:
			distinct[h.value] = true
		case c.kind == "temporal":
			distinct[h.rule] = true
		}
	}
	if c.kind == "temporal_ordered" {
		return c.inOrder(set)
	}
	return len(distinct) >= c.least, nil
}

// inOrder says whether distinct events satisfy the rules in listed order. Times
// follow each other; the events of one millisecond have no known order, so they
// may satisfy the next rules in any, each event one of them. To have come
// further is never a disadvantage, so each millisecond is taken as far as it
// goes.
func (c *Rule) inOrder(set []hit) (bool, error) {
	times := map[string]int64{}
	next := 0
	for at := 0; at < len(set); {
		rulesOf := map[string][]string{} // by event id, of one millisecond
		now := set[at].time
		for ; at < len(set) && set[at].time == now; at++ {
			h := set[at]
			if was, ok := times[h.id]; ok && was != h.time {
				return false, fmt.Errorf("event %s has two times: not supported in temporal_ordered", h.id)
			}
			times[h.id] = h.time
			rulesOf[h.id] = append(rulesOf[h.id], h.rule)
		}
		most := len(c.refs)
		if c.strictTies {
			most = min(next+1, most)
		}
		next += assign(c.refs[next:most], rulesOf)
	}
	return next == len(c.refs), nil
}

// assign returns how many of the rules, from the first on, can each have an
// event of its own.
func assign(rules []string, rulesOf map[string][]string) int {
	taken := map[string]int{} // event id → rule
	var place func(rule int, seen map[string]bool) bool
	place = func(rule int, seen map[string]bool) bool {
		for id, of := range rulesOf {
			if seen[id] || !slices.Contains(of, rules[rule]) {
				continue
			}
			seen[id] = true
			if other, ok := taken[id]; !ok || place(other, seen) {
				taken[id] = rule
				return true
			}
		}
		return false
	}
	for n := range rules {
		if !place(n, map[string]bool{}) {
			return n
		}
	}
	return len(rules)
}
