package sigma

import (
	"regexp/syntax"
	"slices"
)

// literal is a text that is in every value which satisfies a pattern, folded.
type literal struct {
	kind patternKind // patExact, patPrefix, patSuffix or patContains
	text string
	none bool // there is no such text: the field is present, no more is known
}

func patternLiteral(p *pattern) literal {
	switch p.kind {
	case patExact, patPrefix, patSuffix, patContains:
		return literal{kind: p.kind, text: foldString(p.lit), none: p.kind != patExact && p.lit == ""}
	default:
		text := foldString(p.longestLiteral())
		return literal{kind: patContains, text: text, none: text == ""}
	}
}

// minRegexLiteral is the shortest text of an expression worth looking for.
const minRegexLiteral = 3

// regexLiteral is the longest text that every match of the expression contains.
// One that is too short to be looked for in every event still tells, before the
// expression is run, that it can't match.
func regexLiteral(src string) literal {
	re, err := syntax.Parse(src, syntax.Perl)
	if err != nil {
		return literal{none: true}
	}
	text := foldString(mandatory(re.Simplify()))
	return literal{kind: patContains, text: text, none: len(text) < minRegexLiteral}
}

func mandatory(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCapture, syntax.OpPlus:
		return mandatory(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return mandatory(re.Sub[0])
		}
		return ""
	case syntax.OpConcat:
		best := ""
		for _, sub := range re.Sub {
			if s := mandatory(sub); len(s) > len(best) {
				best = s
			}
		}
		return best
	default:
		return ""
	}
}

// atom is something that an event must have for a rule to match: a literal in a
// field, or the field itself.
type atom struct {
	slot int
	lit  literal
}

// selector finds the atoms by which a rule is looked up. Popular ones tell
// little: every CloudTrail rule on IAM names the same eventSource.
type selector struct {
	popular map[atom]int
	rules   int
}

func newSelector(rules []*Rule) *selector {
	s := &selector{popular: map[atom]int{}, rules: len(rules)}
	for _, r := range rules {
		seen := map[atom]bool{}
		r.expr.walk(func(p *predicate) {
			for _, l := range p.literals {
				if a := (atom{p.slot, l}); !l.none && !seen[a] {
					seen[a] = true
					s.popular[a]++
				}
			}
		})
	}
	return s
}

// necessary is a set of atoms of which every matching event has one, with an
// estimate of how often an event has one; no set if there is none.
func (s *selector) necessary(e *expr) (atoms []atom, cost float64) {
	switch e.op {
	case exprPred:
		return s.ofPredicate(e.pred)
	case exprAnd:
		for _, k := range e.kids {
			if a, c := s.necessary(k); a != nil && (atoms == nil || c < cost) {
				atoms, cost = a, c
			}
		}
		return atoms, cost
	case exprOr, exprAtLeast:
		for _, k := range e.kids {
			a, c := s.necessary(k)
			if a == nil {
				return nil, 0
			}
			atoms = append(atoms, a...)
			cost += c
		}
		return atoms, cost
	default:
		return nil, 0
	}
}

func (s *selector) ofPredicate(p *predicate) (atoms []atom, cost float64) {
	present := []atom{{slot: p.slot, lit: literal{none: true}}}
	const presence = 0.3
	switch p.kind {
	case predText, predRegex:
		for _, l := range p.literals {
			if l.none {
				if p.slot == keywordSlot {
					return nil, 0
				}
				return present, presence
			}
			a := atom{p.slot, l}
			atoms = append(atoms, a)
			cost += s.cost(a)
		}
		return atoms, cost
	case predCIDR, predCompare, predRef:
		return present, presence
	case predExists:
		if p.exists {
			return present, presence
		}
	}
	return nil, 0
}

func (s *selector) cost(a atom) float64 {
	c := 0.2 * float64(s.popular[a]) / float64(s.rules)
	n := float64(len(a.lit.text))
	switch {
	case a.lit.kind == patExact && slices.Contains([]string{"", "true", "false", "0", "1"}, a.lit.text):
		c += 0.3
	case a.lit.kind == patExact:
		c += 0.005
	default:
		c += 0.01 + min(0.5, 1/(n*n))
	}
	if a.slot == keywordSlot {
		c += 0.05
	}
	return c
}

// fieldIndex finds rules by the values of one field.
type fieldIndex struct {
	slot    int
	present []int32 // rules that need the field, no more
	exact   *exactTable
	// exactObject: some exact literal could be an object's text.
	exactObject bool
	needles     *needles
}

// words are the texts of which an event that the index knows has one; nil if
// more than texts is looked up.
func (f *fieldIndex) words() *words {
	if f.needles == nil || f.exact != nil || len(f.present)+len(f.needles.empty) > 0 {
		return nil
	}
	var texts []string
	for _, n := range f.needles.found {
		texts = append(texts, n.text)
	}
	return newWords(texts)
}

// exactTable finds rules by a whole value.
type exactTable struct {
	mask    uint32
	entries []exactEntry
	lengths uint64 // bit min(length, 63) is set for each key
}

type exactEntry struct {
	used  bool
	key   string
	rules []int32
}

func newExactTable(postings map[string][]int32) *exactTable {
	size := 4
	for size < 2*len(postings) {
		size *= 2
	}
	t := &exactTable{mask: uint32(size - 1), entries: make([]exactEntry, size)}
	for _, key := range sortedKeys(postings) {
		at := uint32(hashBytes([]byte(key))) & t.mask
		for t.entries[at].used {
			at = (at + 1) & t.mask
		}
		t.entries[at] = exactEntry{used: true, key: key, rules: postings[key]}
		t.lengths |= 1 << min(len(key), 63)
	}
	return t
}

func (t *exactTable) find(key []byte) []int32 {
	if e := t.entry(key); e != nil {
		return e.rules
	}
	return nil
}

func (t *exactTable) has(key []byte) bool { return t.entry(key) != nil }

func (t *exactTable) entry(key []byte) *exactEntry {
	if t.lengths&(1<<min(len(key), 63)) == 0 {
		return nil
	}
	for at := uint32(hashBytes(key)) & t.mask; ; at = (at + 1) & t.mask {
		e := &t.entries[at]
		if !e.used {
			return nil
		}
		if e.key == string(key) {
			return e
		}
	}
}

// indexBuilder gathers postings by field.
type indexBuilder struct {
	exact   map[int]map[string][]int32
	needles map[int]map[needle][]int32
	preds   map[int]map[needle][]int32 // predicates that finding the needle makes true
	present map[int][]int32
}

// buildIndex also gives the set of predicates that the index decides.
func buildIndex(rules []*Rule, preds int) (indexes []fieldIndex, always []int32, scanned []uint64) {
	b := &indexBuilder{map[int]map[string][]int32{}, map[int]map[needle][]int32{}, map[int]map[needle][]int32{}, map[int][]int32{}}
	s := newSelector(rules)
	for _, r := range rules {
		atoms, _ := s.necessary(r.expr)
		if atoms == nil {
			always = append(always, int32(r.index))
			continue
		}
		for _, a := range atoms {
			b.add(a, int32(r.index))
		}
	}
	scanned = make([]uint64, preds/64+1)
	for _, r := range rules {
		r.expr.walk(func(p *predicate) { b.scan(p, scanned) })
	}
	slots := map[int]bool{}
	for s := range b.exact {
		slots[s] = true
	}
	for s := range b.needles {
		slots[s] = true
	}
	for s := range b.present {
		slots[s] = true
	}
	order := make([]int, 0, len(slots))
	for s := range slots {
		order = append(order, s)
	}
	slices.Sort(order)
	for _, s := range order {
		indexes = append(indexes, b.field(s))
	}
	return indexes, always, scanned
}

// scan adds the literals of a predicate to those that are looked for in its
// field, if some are anyway.
func (b *indexBuilder) scan(p *predicate, scanned []uint64) {
	bit := uint64(1) << (p.id & 63)
	looked := b.needles[p.slot]
	if p.scanned < minScannedToo || looked == nil || scanned[p.id>>6]&bit != 0 {
		return
	}
	if p.scanned < minScanned && slices.ContainsFunc(p.patterns, func(pat pattern) bool {
		return len(pat.lit) < minScanned && looked[needle{pat.lit, pat.kind}] == nil
	}) {
		return
	}
	scanned[p.id>>6] |= bit
	if b.preds[p.slot] == nil {
		b.preds[p.slot] = map[needle][]int32{}
	}
	for i := range p.patterns {
		n := needle{p.patterns[i].lit, p.patterns[i].kind}
		b.preds[p.slot][n] = append(b.preds[p.slot][n], int32(p.id))
	}
}

func (b *indexBuilder) add(a atom, rule int32) {
	post := func(list []int32) []int32 {
		if len(list) > 0 && list[len(list)-1] == rule {
			return list
		}
		return append(list, rule)
	}
	switch {
	case a.lit.none:
		b.present[a.slot] = post(b.present[a.slot])
	case a.lit.kind == patExact:
		if b.exact[a.slot] == nil {
			b.exact[a.slot] = map[string][]int32{}
		}
		m := b.exact[a.slot]
		m[a.lit.text] = post(m[a.lit.text])
		if d, ok := parseDecimal([]byte(a.lit.text), nil); ok {
			canon := string(d.appendCanonical(nil))
			m[canon] = post(m[canon])
		}
	default:
		if b.needles[a.slot] == nil {
			b.needles[a.slot] = map[needle][]int32{}
		}
		n := needle{a.lit.text, a.lit.kind}
		b.needles[a.slot][n] = post(b.needles[a.slot][n])
	}
}

func (b *indexBuilder) field(s int) fieldIndex {
	f := fieldIndex{slot: s, present: b.present[s]}
	if m := b.exact[s]; m != nil {
		f.exact = newExactTable(m)
		for key := range m {
			f.exactObject = f.exactObject || (key != "" && key[0] == '{')
		}
	}
	if m := b.needles[s]; m != nil {
		f.needles = newNeedles(m, b.preds[s])
	}
	return f
}
