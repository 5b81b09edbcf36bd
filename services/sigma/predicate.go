package sigma

import (
	"math"
	"net/netip"
	"regexp"
	"strconv"
)

type predKind uint8

const (
	predText    predKind = iota + 1 // any pattern matches
	predRegex                       // any expression matches
	predCIDR                        // any network contains the address
	predCompare                     // any bound holds
	predNull                        // absent or null
	predExists                      // present, or absent
	predRef                         // equals another field
)

// predicate is one test of one field: the unit that is evaluated at most once
// per event. A list of values is one predicate that any of them satisfies;
// under `all` each value is its own.
type predicate struct {
	id    int
	kind  predKind
	field string
	slot  int // number of the field in the Set; keywords have keywordSlot
	cased bool

	exact    *exactTable         // literals of exact patterns, if many
	numbers  map[string]struct{} // canonical numbers of exact patterns
	patterns []pattern           // those not in exact
	inner    bool                // some pattern or expression tests strings inside objects
	anyValue bool                // every value but null matches
	scanned  int                 // if finding its literals in a field's text decides it, the length of the shortest; else 0
	literals []literal           // one of them is in every value that matches; see index.go

	regexes []*regexp.Regexp
	nets    []netip.Prefix
	bounds  []numBound
	part    datePart
	exists  bool
	ref     refMatch

	key []byte // canonical encoding, for identity
}

// numBound is a comparison with a number.
type numBound struct {
	op  Op
	num decimal
}

// refMatch compares a field with another one.
type refMatch struct {
	field string
	slot  int
	kind  patternKind // exact, prefix, suffix or contains
}

// keywordSlot is the field that stands for every scalar of the event.
const keywordSlot = 0

// minScanned is from how many bytes on looking for a literal in every event costs
// less than testing it where a rule asks: shorter ones are everywhere. From
// minScannedToo on it costs less where it is looked for anyway.
const (
	minScanned    = 4
	minScannedToo = 3
)

// manyExact is from how many exact values on a hash beats comparing each.
const manyExact = 4

func newTextPredicate(field string, alternatives [][]token, cased bool) *predicate {
	p := &predicate{kind: predText, field: field, cased: cased}
	e := newEncoder("text").bool(cased).text(field)
	exact := 0
	for _, toks := range alternatives {
		pat := compilePattern(toks, cased)
		if pat.kind == patExact {
			exact++
		}
		if pat.kind == patAny {
			p.anyValue = true
		}
		p.inner = p.inner || pat.inner
		p.patterns = append(p.patterns, pat)
		e.pattern(&pat)
	}
	p.numbers = map[string]struct{}{}
	rest := p.patterns[:0:0]
	many := map[string][]int32{}
	for _, pat := range p.patterns {
		if pat.number != "" {
			p.numbers[pat.number] = struct{}{}
		}
		if pat.kind == patExact && exact >= manyExact {
			many[pat.lit] = nil
		} else {
			rest = append(rest, pat)
		}
		p.literals = append(p.literals, patternLiteral(&pat))
	}
	p.patterns = rest
	if len(many) > 0 {
		p.exact = newExactTable(many)
	}
	p.scanned = p.shortest()
	p.key = e.bytes()
	return p
}

// shortest is what scanned says.
func (p *predicate) shortest() int {
	if p.cased || p.exact != nil {
		return 0
	}
	least := math.MaxInt
	for i := range p.patterns {
		switch p.patterns[i].kind {
		case patContains, patPrefix, patSuffix:
			least = min(least, len(p.patterns[i].lit))
		default:
			return 0
		}
	}
	return least
}

func newRegexPredicate(field string, sources []string, regexes []*regexp.Regexp) *predicate {
	p := &predicate{kind: predRegex, field: field, regexes: regexes, inner: true}
	e := newEncoder("re").text(field)
	for i, s := range sources {
		e.text(s)
		p.literals = append(p.literals, regexLiteral(regexes[i].String()))
	}
	p.key = e.bytes()
	return p
}

func newCIDRPredicate(field string, nets []netip.Prefix) *predicate {
	p := &predicate{kind: predCIDR, field: field, nets: nets}
	e := newEncoder("cidr").text(field)
	for _, n := range nets {
		e.text(n.String())
	}
	p.key = e.bytes()
	return p
}

func newComparePredicate(field string, part datePart, bounds []numBound) *predicate {
	p := &predicate{kind: predCompare, field: field, part: part, bounds: bounds}
	e := newEncoder("compare").text(field).text(strconv.Itoa(int(part)))
	for _, b := range bounds {
		e.text(string(b.op)).text(string(b.num.appendCanonical(nil)))
	}
	p.key = e.bytes()
	return p
}

func newNullPredicate(field string) *predicate {
	return &predicate{kind: predNull, field: field, key: newEncoder("null").text(field).bytes()}
}

func newExistsPredicate(field string, exists bool) *predicate {
	return &predicate{kind: predExists, field: field, exists: exists, key: newEncoder("exists").bool(exists).text(field).bytes()}
}

func newRefPredicate(field, other string, kind patternKind, cased bool) *predicate {
	return &predicate{
		kind: predRef, field: field, cased: cased, ref: refMatch{field: other, kind: kind},
		key: newEncoder("ref").bool(cased).text(field).text(other).text(strconv.Itoa(int(kind))).bytes(),
	}
}

// cost ranks predicates by what testing one value takes.
func (p *predicate) cost() int {
	c := 1
	switch p.kind {
	case predText:
		for i := range p.patterns {
			switch p.patterns[i].kind {
			case patContains:
				c += 4
			case patGlob:
				c += 8
			default:
				c++
			}
		}
	case predRegex:
		c += 100 * len(p.regexes)
	case predCIDR, predCompare, predRef:
		c += 8
	}
	if p.slot == keywordSlot {
		c *= 20
	}
	return c
}
