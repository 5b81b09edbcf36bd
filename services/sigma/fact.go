package sigma

import (
	"slices"
	"strings"
)

// fact is a test with the outcome that it must have.
type fact struct {
	pred  *predicate
	holds bool
}

// decide adds a fact to others, and says in what it contradicts them.
func decide(facts []fact, f fact) ([]fact, string) {
	var same []fact
	for _, g := range facts {
		if g.pred.slot != f.pred.slot {
			continue
		}
		if g.pred == f.pred {
			if g.holds == f.holds {
				return facts, ""
			}
			return nil, named(f.pred.field) + " contradict each other"
		}
		same = append(same, g)
	}
	facts = append(facts, f)
	if f.pred.slot == keywordSlot {
		return facts, implied(f, same)
	}
	same = append(same, f)
	if clash := absence(same); clash != "" {
		return nil, clash
	}
	if clash := implied(f, same); clash != "" {
		return nil, clash
	}
	return facts, values(same)
}

// absence: what must be absent has no value, and is not what is present or null.
func absence(facts []fact) string {
	absent := slices.ContainsFunc(facts, func(f fact) bool { return f.pred.kind == predExists && f.pred.exists != f.holds })
	if !absent {
		return ""
	}
	for _, f := range facts {
		var valued bool
		switch f.pred.kind {
		case predExists:
			valued = f.pred.exists == f.holds
		case predNull:
			valued = !f.holds
		default:
			valued = f.holds
		}
		if valued {
			return named(f.pred.field) + " demand that it is absent and that it has a value"
		}
	}
	return ""
}

// implied: every value that satisfies one test satisfies another, which must
// not hold.
func implied(f fact, others []fact) string {
	for _, g := range others {
		yes, no := f, g
		if !yes.holds {
			yes, no = g, f
		}
		if yes.holds && !no.holds && yes.pred.implies(no.pred) {
			return named(f.pred.field) + " exclude all that they demand"
		}
	}
	return ""
}

// implies reports whether each pattern of p lies within one of q.
func (p *predicate) implies(q *predicate) bool {
	if p.kind != predText || q.kind != predText || p.anyValue || p.exact != nil || (q.cased && !p.cased) {
		return false
	}
	return !slices.ContainsFunc(p.patterns, func(a pattern) bool {
		return !slices.ContainsFunc(q.patterns, func(b pattern) bool { return a.within(&b, p.cased && !q.cased) })
	})
}

// within reports whether what matches p matches q too. Of a number other
// spellings match too, so it lies within nothing.
func (p *pattern) within(q *pattern, fold bool) bool {
	if p.kind == patGlob || p.kind == patAny || p.number != "" {
		return false
	}
	lit := p.lit
	if fold {
		lit = foldString(lit)
	}
	switch q.kind {
	case patContains:
		return strings.Contains(lit, q.lit)
	case patPrefix:
		return (p.kind == patExact || p.kind == patPrefix) && strings.HasPrefix(lit, q.lit)
	case patSuffix:
		return (p.kind == patExact || p.kind == patSuffix) && strings.HasSuffix(lit, q.lit)
	case patExact:
		return p.kind == patExact && lit == q.lit
	default:
		return false
	}
}

// values: one of the tests allows a list of values, and the others leave none
// of them.
func values(facts []fact) string {
	for i, f := range facts {
		list, ok := f.pred.listed()
		if !f.holds || !ok {
			continue
		}
		list = slices.DeleteFunc(list, func(v string) bool {
			for j, g := range facts {
				if out := g.pred.outcome(v, f.pred.cased); j != i && out != perhaps && (out == yes) != g.holds {
					return true
				}
			}
			return false
		})
		if len(list) > 0 {
			continue
		}
		return named(f.pred.field) + " leave no value, unless it is a list that satisfies each by another element"
	}
	return ""
}

// listed are the values that satisfy a test, if it names them all.
func (p *predicate) listed() ([]string, bool) {
	if p.kind != predText || p.anyValue {
		return nil, false
	}
	var out []string
	for i := range p.patterns {
		if p.patterns[i].kind != patExact {
			return nil, false
		}
		out = append(out, p.patterns[i].lit)
	}
	if p.exact != nil {
		for _, e := range p.exact.entries {
			if e.used {
				out = append(out, e.key)
			}
		}
	}
	return out, true
}

// outcome is what is known of a test.
type outcome uint8

const (
	perhaps outcome = iota
	yes
	no
)

func outcomeOf(holds bool) outcome {
	if holds {
		return yes
	}
	return no
}

// outcome is what a test says of a value, in any case of its letters unless
// cased, and in any spelling of a number.
func (p *predicate) outcome(v string, cased bool) outcome {
	d, number := parseDecimal([]byte(v), nil)
	spelt := number || strings.HasPrefix(v, "{")
	lettered := !cased && strings.ToUpper(v) != strings.ToLower(v)
	switch p.kind {
	case predExists:
		return outcomeOf(p.exists)
	case predNull:
		return no
	case predCIDR:
		return outcomeOf(inNets(p.nets, v))
	case predCompare:
		switch {
		case p.part != partNone || (!number && strings.HasPrefix(v, "{")):
			return perhaps
		case !number:
			return no
		}
		return outcomeOf(slices.ContainsFunc(p.bounds, func(b numBound) bool { return b.holds(d) }))
	case predText:
		return p.textOutcome(v, spelt, lettered)
	case predRegex:
		for _, re := range p.regexes {
			if spelt || lettered {
				return perhaps
			}
			if re.MatchString(v) {
				return yes
			}
		}
		return no
	default:
		return perhaps
	}
}

func (p *predicate) textOutcome(v string, spelt, lettered bool) outcome {
	switch {
	case p.anyValue:
		return yes
	case p.cased && lettered:
		return perhaps
	case !p.cased:
		v = foldString(v)
	}
	list, all := p.listed()
	if slices.Contains(list, v) {
		return yes
	}
	if spelt {
		if d, ok := parseDecimal([]byte(v), nil); ok && all {
			_, same := p.numbers[string(d.appendCanonical(nil))]
			return map[bool]outcome{true: perhaps, false: no}[same]
		}
		return perhaps
	}
	return outcomeOf(slices.ContainsFunc(p.patterns, func(q pattern) bool { return q.match([]byte(v)) }))
}
