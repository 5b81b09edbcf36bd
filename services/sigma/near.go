package sigma

import (
	"maps"
	"slices"
)

// Applies reports whether a rule for this log source is for an event of src;
// strict is as in Event.
func (l LogSource) Applies(src LogSource, strict bool) bool { return l.appliesTo(src, strict) }

// Needs returns the fields without which the rule cannot match, sorted.
func (r *Rule) Needs() []string { return slices.Sorted(maps.Keys(r.expr.needs())) }

// needs are the fields, by name with their slots, without which an expression
// cannot hold.
func (e *expr) needs() map[string]int {
	switch e.op {
	case exprPred:
		if p := e.pred; p.slot != keywordSlot && p.needsField() {
			return map[string]int{p.field: p.slot}
		}
		return nil
	case exprNot:
		return nil // what must not hold needs nothing
	}
	least := len(e.kids) // so many kids must hold
	switch e.op {
	case exprOr:
		least = 1
	case exprAtLeast:
		least = e.n
	}
	count, slots := make(map[string]int), make(map[string]int)
	for _, k := range e.kids {
		for field, slot := range k.needs() {
			count[field]++
			slots[field] = slot
		}
	}
	// Without the field, so many kids may still hold as do not need it.
	maps.DeleteFunc(slots, func(field string, _ int) bool { return len(e.kids)-count[field] >= least })
	return slots
}

// needsField reports whether a test fails where its field is absent.
func (p *predicate) needsField() bool {
	return p.kind != predNull && (p.kind != predExists || p.exists)
}

// Near says of a rule, for the event that Match was called with last and that
// the rule applies to, which of the fields that it needs the event has and which
// it lacks; near is true if it lacks some and would match but for them.
func (m *Matcher) Near(r *Rule) (near bool, has, lacks []string) {
	if m.program == nil || m.program.rules == 0 || m.view.err != nil {
		return false, nil, nil
	}
	for field, slot := range r.expr.needs() {
		if m.view.first(slot) < 0 {
			lacks = append(lacks, field)
		} else {
			has = append(has, field)
		}
	}
	if len(lacks) == 0 {
		return false, has, nil
	}
	slices.Sort(lacks)
	return m.fits(r.expr), has, lacks
}

// fits is eval where a test holds whose field the event lacks.
func (m *Matcher) fits(e *expr) bool {
	least := len(e.kids)
	switch e.op {
	case exprPred:
		return m.eval(e) || e.pred.slot != keywordSlot && e.pred.needsField() && m.view.first(e.pred.slot) < 0
	case exprNot:
		return !m.eval(e.kids[0])
	case exprOr:
		least = 1
	case exprAtLeast:
		least = e.n
	}
	for _, k := range e.kids {
		if m.fits(k) {
			least--
		}
	}
	return least <= 0
}
