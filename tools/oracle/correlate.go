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
	of           signal
	score        score // of a risk
}

// A signal is an event of which a rule has said something, and the way that it
// came: the ids of whom that rule has it from, the detection's last.
type signal struct {
	record *Record
	doc    any
	way    []string
	alert  string // id of that to which it belongs, of a correlation
}

// A group is the hits of one correlation with the same group-by values.
type group struct {
	rule   *Rule
	tenant string
	values []string
	hits   []hit
}

// collect makes the groups of c of what the rules that it refers to have said.
func (p *plan) collect(c *Rule, said map[string][]signal) (map[string]*group, error) {
	groups := map[string]*group{}
	for _, ref := range c.refs {
		for _, s := range said[ref] {
			s.way = append([]string{ref}, s.way...)
			values, ok, err := p.texts(c, s, c.groupBy)
			if err != nil {
				return nil, fmt.Errorf("event %s: %w", s.record.ID, err)
			}
			if !ok {
				continue // a missing field is no group
			}
			key := fmt.Sprintf("%q", append([]string{s.record.Tenant}, values...))
			g := groups[key]
			if g == nil {
				g = &group{rule: c, tenant: s.record.Tenant, values: values}
				groups[key] = g
			}
			tuple, ok, err := p.texts(c, s, c.field)
			if err != nil {
				return nil, fmt.Errorf("event %s: %w", s.record.ID, err)
			}
			id := s.record.ID
			if len(s.way) > 1 { // what two rules say of one event are two things
				id = ref + " of " + id
			}
			h := hit{
				id: id, time: s.record.TimeMS, ingest: s.record.IngestMS, rule: ref,
				value: fmt.Sprintf("%q", tuple), hasValue: ok && len(c.field) > 0, of: s,
			}
			if c.kind == "risk" {
				if h.score, err = c.score(p.byID[ref], &s); err != nil {
					return nil, err
				}
				if h.score.points == 0 {
					continue
				}
			}
			g.hits = append(g.hits, h)
		}
	}
	return groups, nil
}

// texts are the values of fields, or of what the aliases of c, and of the rules
// on the way, say of them. It is false if one is missing or null.
func (p *plan) texts(c *Rule, s signal, fields []string) ([]string, bool, error) {
	var out []string
	for _, field := range fields {
		at := c
		for _, ref := range s.way {
			if of, ok := at.aliases[field]; ok {
				field = of[ref]
			}
			at = p.byID[ref]
		}
		values := lookup(s.doc, strings.Split(field, "."))
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
// record's, and the conditions only gain by more records: where all lie in one,
// it alone is tried.
func (c *Rule) qualifies(e hit, window []hit, spread int64) (bool, error) {
	earliest, latest := e.ingest, e.ingest
	for i := range window {
		earliest, latest = min(earliest, window[i].ingest), max(latest, window[i].ingest)
	}
	if latest-earliest <= spread {
		return c.holds(window, func(*hit) bool { return true })
	}
	tried := map[int64]bool{}
	for _, first := range window {
		from := first.ingest
		if tried[from] || from > e.ingest || e.ingest > from+spread {
			continue
		}
		tried[from] = true
		ok, err := c.holds(window, func(h *hit) bool { return from <= h.ingest && h.ingest <= from+spread })
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// holds says whether the records within a stretch satisfy the condition.
func (c *Rule) holds(window []hit, within func(*hit) bool) (bool, error) {
	if c.kind == "risk" || c.kind == "temporal_ordered" {
		var set []hit
		for i := range window {
			if within(&window[i]) {
				set = append(set, window[i])
			}
		}
		if c.kind == "risk" {
			return c.risky(set), nil
		}
		return c.inOrder(set)
	}
	distinct := map[string]bool{}
	for i := range window {
		h := &window[i]
		if !within(h) {
			continue
		}
		switch {
		case c.kind == "event_count":
			distinct[h.id] = true
		case c.kind == "value_count" && h.hasValue:
			distinct[h.value] = true
		case c.kind == "temporal":
			distinct[h.rule] = true
		}
		if len(distinct) >= c.least {
			return true, nil // more change nothing, and there may be 10,000
		}
	}
	return false, nil
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
