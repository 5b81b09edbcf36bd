package sigma

import (
	"slices"
)

// program is what runs for the events of one log source: the rules that apply,
// the fields that they read and the index that finds candidates among them.
type program struct {
	paths    *paths
	indexes  []fieldIndex
	indexOf  []int32  // by slot: its place in indexes, or −1
	always   []int32  // rules that no index can rule out
	keywords bool     // some rule searches every value
	words    *words   // without one of which no keyword need be looked for; may be nil
	scanned  []uint64 // predicates that the indexes decide
	rules    int
}

// route is what an event asserts, with values that no rule names made one.
type route struct {
	src    LogSource
	strict bool
}

// Bounds of what a Set caches for the log sources that events assert. Beyond
// them programs are built anew, which is slow but right.
const (
	maxPrograms = 512
	maxRoutes   = 8192
)

// unknownValue stands for every value of a dimension that no rule names.
const unknownValue = "\x00"

// program is the program for events that assert src.
func (s *Set) program(src LogSource, strict bool) *program {
	r := route{LogSource{s.dimension(0, src.Product), s.dimension(1, src.Service), s.dimension(2, src.Category)}, strict}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.routes[r]; ok {
		return p
	}
	applies := make([]byte, len(s.classes))
	for i, c := range s.classes {
		if c.appliesTo(r.src, strict) {
			applies[i] = 1
		}
	}
	p, ok := s.programs[string(applies)]
	if !ok {
		p = s.build(applies)
		if len(s.programs) < maxPrograms {
			s.programs[string(applies)] = p
		}
	}
	if len(s.routes) < maxRoutes {
		s.routes[r] = p
	}
	return p
}

// appliesTo: each dimension that the rule names must be equal; one that the
// event leaves open excludes nothing, unless its source is strict.
func (l LogSource) appliesTo(src LogSource, strict bool) bool {
	fits := func(rule, event string) bool {
		return rule == "" || rule == event || (event == "" && !strict)
	}
	return fits(l.Product, src.Product) && fits(l.Service, src.Service) && fits(l.Category, src.Category)
}

func (s *Set) build(applies []byte) *program {
	p := &program{}
	var rules []*Rule
	fields := map[string]int{}
	for _, r := range s.rules {
		if applies[r.class] == 0 {
			continue
		}
		rules = append(rules, r)
		r.expr.walk(func(q *predicate) {
			if q.slot == keywordSlot {
				p.keywords = true
			} else {
				fields[q.field] = q.slot
			}
			if q.kind == predRef {
				fields[q.ref.field] = q.ref.slot
			}
		})
	}
	p.rules = len(rules)
	p.paths = newPaths(fields)
	p.indexes, p.always, p.scanned = buildIndex(rules, s.preds)
	p.always = slices.Clip(p.always)
	p.indexOf = slices.Repeat([]int32{-1}, len(s.fields))
	for i := range p.indexes {
		if f := &p.indexes[i]; f.slot == keywordSlot {
			p.words = f.words()
		}
		p.indexOf[p.indexes[i].slot] = int32(i)
	}
	return p
}
