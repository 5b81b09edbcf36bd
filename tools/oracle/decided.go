package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// earlyMS is how far ahead of its ingest an event may be.
const earlyMS = 5 * 60 * 1000

// A step is one event of a group, whose steps are taken in order.
type step struct {
	hit
	rules map[string]bool // that it matched
}

// counts says that a record is neither late nor early.
func (r *Rule) counts(e *Record) bool {
	return e.IngestMS-e.TimeMS <= r.lateness && e.TimeMS-e.IngestMS <= earlyMS
}

// steps are the events that count, each once, in order of their times. An event
// counts if any copy does, and is as the copy that was received first.
func (g *group) steps() ([]step, error) {
	byID := map[string]*step{}
	for _, h := range g.hits {
		switch s := byID[h.id]; {
		case len(h.of.way) > 1:
			return nil, fmt.Errorf("%s of what a correlation says: not supported", g.rule.kind)
		case !g.rule.counts(h.of.record) || len(g.rule.field) > 0 && !h.hasValue:
		case s == nil:
			byID[h.id] = &step{hit: h, rules: map[string]bool{h.rule: true}}
		case s.time != h.time || s.value != h.value:
			return nil, fmt.Errorf("event %s has two times or values: not supported in %s", h.id, g.rule.kind)
		default:
			if s.rules[h.rule] = true; h.ingest < s.ingest {
				s.hit = h
			}
		}
	}
	out := make([]step, 0, len(byID))
	for _, s := range byID {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b step) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.id, b.id)) })
	return out, nil
}

// decide tells by which events a rule fires once the watermark has passed them
// all.
func (g *group) decide(s Settings, found map[string]Alert, asked bool) (fired []signal, err error) {
	steps, err := g.steps()
	if err != nil {
		return nil, err
	}
	is := map[string]func([]step, int) bool{"absence": g.rule.absent, "new_value": g.rule.isNew}[g.rule.kind]
	for i, e := range steps {
		if !is(steps, i) {
			continue
		}
		bucket, label, of := int64(0), ofEvents, e.of.record.ID
		if g.rule.suppress > 0 {
			bucket = floorDiv(e.time, g.rule.suppress)
			label, of = ofBuckets, strconv.FormatInt(bucket, 10)
		}
		id := g.id(s, label, of)
		if _, known := found[id]; !known {
			found[id] = Alert{ID: id, Tenant: g.tenant, RuleID: g.rule.ID, Group: g.values, Bucket: bucket, EventID: e.of.record.ID}
		}
		if asked {
			fired = append(fired, e.of)
		}
	}
	return fired, nil
}

// absent says that what was to follow an event did not. The first rule is the one
// that is missing. If it is the only one, each event demands the next.
func (r *Rule) absent(steps []step, i int) bool {
	e, missing := steps[i], r.refs[0]
	if len(r.refs) == 1 {
		return i+1 == len(steps) || steps[i+1].time > e.time+r.timespan
	}
	if !e.rules[r.refs[1]] {
		return false
	}
	return !slices.ContainsFunc(steps, func(x step) bool {
		return x.rules[missing] && e.time < x.time && x.time <= e.time+r.timespan
	})
}

// isNew says that the group has not shown the event's value within the history
// before it, and is old enough. Its age is that of the first event since it last
// showed nothing for as long as the history.
func (r *Rule) isNew(steps []step, i int) bool {
	e, born := steps[i], steps[i].time
	for _, x := range slices.Backward(steps[:i]) {
		if born-x.time > r.own.history {
			break
		}
		if born = x.time; x.value == e.value && e.time-x.time <= r.own.history {
			return false
		}
	}
	return e.time-born >= r.own.learn
}
