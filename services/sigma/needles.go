package sigma

import (
	"encoding/binary"
	"slices"
	"strings"
)

// needle is a text to be found in a value: anywhere, at its start or its end.
type needle struct {
	text string
	kind patternKind // patContains, patPrefix or patSuffix
}

// needles finds all of a set of needles in a text. Each needle is looked up by
// one gram, four of its bytes, the rarest among the set: the text's grams are
// asked of a bitmap, and few get further. Grams do not depend on one another as
// an automaton's states do, and their tables stay in the processor's caches.
type needles struct {
	found []foundNeedle
	four  *grams
	three *grams
	two   *grams // with needles of three bytes too, where there are some of two
	one   *grams
	empty []int32 // rules of the needle that is in every text

	// near has, where there are needles of three bytes, the first three of each gram
	// of four too: one pass asks for both.
	near      []uint64
	nearShift uint // of the hash, to a place in near
}

type foundNeedle struct {
	text  string
	kind  patternKind
	rules []int32 // that may match where it is found
	preds []int32 // that are true where it is found
}

// grams are what needles are looked up by, all of one width.
type grams struct {
	width int
	shift uint // of the hash, to a place in bits
	bits  []uint64
	mask  uint32
	table []gramSlot
	uses  []gramUse
}

// gramSlot lists the uses of one gram; free if from and to are equal.
type gramSlot struct {
	gram     uint32
	from, to int32
}

// gramUse is a needle and where in it the gram stands.
type gramUse struct {
	needle int32
	offset int32
}

func newNeedles(postings, preds map[needle][]int32) *needles {
	list := make([]needle, 0, len(postings)+len(preds))
	for n := range postings {
		list = append(list, n)
	}
	for n := range preds {
		if _, ok := postings[n]; !ok {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b needle) int {
		if c := strings.Compare(a.text, b.text); c != 0 {
			return c
		}
		return int(a.kind) - int(b.kind)
	})
	s := &needles{}
	byWidth := map[int][]int32{}
	for _, n := range list {
		width := min(len(n.text), 4)
		if width == 0 {
			s.empty = append(s.empty, postings[n]...)
			continue
		}
		byWidth[width] = append(byWidth[width], int32(len(s.found)))
		s.found = append(s.found, foundNeedle{n.text, n.kind, postings[n], preds[n]})
	}
	if len(byWidth[2]) > 0 {
		byWidth[2], byWidth[3] = append(byWidth[2], byWidth[3]...), nil
	}
	s.four, s.three, s.two, s.one = s.grams(4, byWidth[4]), s.grams(3, byWidth[3]), s.grams(2, byWidth[2]), s.grams(1, byWidth[1])
	s.join()
	return s
}

// firstThree are the first three bytes of a gram.
const firstThree = 1<<24 - 1

// join makes near.
func (s *needles) join() {
	if s.three == nil {
		return
	}
	used := slices.Clone(s.three.table)
	if s.four != nil {
		used = append(used, s.four.table...)
	}
	used = slices.DeleteFunc(used, func(g gramSlot) bool { return g.from == g.to })
	size := bitsFor(len(used))
	s.nearShift, s.near = uint(32-size), make([]uint64, 1<<(size-6))
	for _, g := range used {
		h := g.gram & firstThree * gramHash >> s.nearShift
		s.near[h>>6] |= 1 << (h & 63)
	}
}

// bitsFor is the size of a bitmap, as a power of two: sixteen bits for each of n.
func bitsFor(n int) int {
	size := 8
	for 1<<size < 16*n {
		size++
	}
	return size
}

// gramAt is the gram of some width at the text's start.
func gramAt(text string, width int) uint32 {
	g := uint32(0)
	for i := range width {
		g |= uint32(text[i]) << (8 * i)
	}
	return g
}

const gramHash = 0x9E3779B1

// grams chooses a gram for each of the needles.
func (s *needles) grams(width int, of []int32) *grams {
	if len(of) == 0 {
		return nil
	}
	popular := map[uint32]int{}
	for _, n := range of {
		text := s.found[n].text
		for i := 0; i+width <= len(text); i++ {
			popular[gramAt(text[i:], width)]++
		}
	}
	uses := map[uint32][]gramUse{}
	for _, n := range of {
		text := s.found[n].text
		best, at := gramAt(text, width), 0
		for i := 1; i+width <= len(text); i++ {
			if g := gramAt(text[i:], width); popular[g] < popular[best] {
				best, at = g, i
			}
		}
		uses[best] = append(uses[best], gramUse{n, int32(at)})
	}
	g := &grams{width: width}
	size := bitsFor(len(uses))
	g.shift, g.bits = uint(32-size), make([]uint64, 1<<(size-6))
	g.table = make([]gramSlot, 1<<(size-3))
	g.mask = uint32(len(g.table) - 1)
	order := make([]uint32, 0, len(uses))
	for gram := range uses {
		order = append(order, gram)
	}
	slices.Sort(order)
	for _, gram := range order {
		h := gram * gramHash
		g.bits[h>>g.shift>>6] |= 1 << (h >> g.shift & 63)
		at := h >> 7 & g.mask
		for g.table[at].from != g.table[at].to {
			at = (at + 1) & g.mask
		}
		from := int32(len(g.uses))
		g.uses = append(g.uses, uses[gram]...)
		g.table[at] = gramSlot{gram, from, int32(len(g.uses))}
	}
	return g
}

// scan marks the rules of each needle in text, whose case is folded, and notes
// the predicates that it makes true. A text that is not whole is a string inside
// an object: what must stand at the start or end of a value is not decided there.
func (s *needles) scan(text []byte, m *Matcher, whole bool) {
	m.mark(s.empty)
	if s.three != nil {
		s.scanThree(text, m, whole)
	} else if g := s.four; g != nil && len(text) >= 4 {
		s.scanFour(g, text, m, whole)
	}
	if g := s.two; g != nil && len(text) >= 2 {
		bits, shift := g.bits, g.shift&31
		gram := uint32(text[0]) << 8
		for i, c := range text[1:] {
			gram = gram>>8 | uint32(c)<<8
			if h := gram * gramHash >> shift; bits[h>>6]>>(h&63)&1 != 0 {
				s.look(g, gram, i, text, m, whole)
			}
		}
	}
	if g := s.one; g != nil {
		for i, c := range text {
			s.ask(g, uint32(c), i, text, m, whole)
		}
	}
}

// scanFour asks for each four bytes of text. Five grams are in eight bytes; the
// last eight are read again from where they begin.
func (s *needles) scanFour(g *grams, text []byte, m *Matcher, whole bool) {
	bits, shift := g.bits, g.shift&31
	if len(text) < 8 {
		for i := 0; i+4 <= len(text); i++ {
			s.ask(g, binary.LittleEndian.Uint32(text[i:]), i, text, m, whole)
		}
		return
	}
	for i, end := 0, len(text)-8; ; i = min(i+5, end) {
		x := binary.LittleEndian.Uint64(text[i:])
		for j := range 5 {
			h := uint32(x) * gramHash >> shift
			if bits[h>>6]>>(h&63)&1 != 0 {
				s.look(g, uint32(x), i+j, text, m, whole)
			}
			x >>= 8
		}
		if i == end {
			return
		}
	}
}

// scanThree asks for each three bytes of text, and so for each four. Six grams are
// in eight bytes.
func (s *needles) scanThree(text []byte, m *Matcher, whole bool) {
	bits, shift := s.near, s.nearShift&31
	i := 0
	for ; i+8 <= len(text); i += 6 {
		x := binary.LittleEndian.Uint64(text[i:])
		for j := range 6 {
			h := uint32(x) & firstThree * gramHash >> shift
			if bits[h>>6]>>(h&63)&1 != 0 {
				s.around(i+j, text, m, whole)
			}
			x >>= 8
		}
	}
	for ; i+3 <= len(text); i++ {
		h := gramAt(viewString(text[i:]), 3) * gramHash >> shift
		if bits[h>>6]>>(h&63)&1 != 0 {
			s.around(i, text, m, whole)
		}
	}
}

// around asks for the grams of three and four bytes at a place.
func (s *needles) around(at int, text []byte, m *Matcher, whole bool) {
	gram := gramAt(viewString(text[at:]), 3)
	s.ask(s.three, gram, at, text, m, whole)
	if s.four != nil && at+4 <= len(text) {
		s.ask(s.four, gram|uint32(text[at+3])<<24, at, text, m, whole)
	}
}

func (s *needles) ask(g *grams, gram uint32, at int, text []byte, m *Matcher, whole bool) {
	if h := gram * gramHash >> g.shift; g.bits[h>>6]>>(h&63)&1 != 0 {
		s.look(g, gram, at, text, m, whole)
	}
}

// look marks the rules of the needles that are around a gram.
func (s *needles) look(g *grams, gram uint32, pos int, text []byte, m *Matcher, whole bool) {
	for at := gram * gramHash >> 7 & g.mask; ; at = (at + 1) & g.mask {
		slot := &g.table[at]
		if slot.from == slot.to {
			return
		}
		if slot.gram != gram {
			continue
		}
		for _, use := range g.uses[slot.from:slot.to] {
			n := &s.found[use.needle]
			start := pos - int(use.offset)
			end := start + len(n.text)
			if start < 0 || end > len(text) || (n.kind == patPrefix && start > 0) || (n.kind == patSuffix && end < len(text)) {
				continue
			}
			if string(text[start:end]) != n.text {
				continue
			}
			m.mark(n.rules)
			if whole || n.kind == patContains {
				for _, p := range n.preds {
					m.memo[p] = m.epoch<<1 | 1
				}
			}
		}
		return
	}
}
