package sigma

import (
	"slices"
	"strings"
)

// needle is a text to be found in a value: anywhere, at its start or its end.
type needle struct {
	text string
	kind patternKind // patContains, patPrefix or patSuffix
}

// automaton finds all needles in one pass over a value (Aho and Corasick, 1975),
// as a table of transitions by byte class. ASCII letters share a class with
// their other case, so only text beyond ASCII has to be folded before.
type automaton struct {
	class   [256]uint8
	classes int
	next    []uint32 // state × class; hit is set where the new state has output
	outputs []output // by state: needles that end there
	found   []foundNeedle
}

const hit = 1 << 31

// output lists the needles that end at a state.
type output struct{ from, to int32 }

type foundNeedle struct {
	length int32
	kind   patternKind
	rules  []int32
}

// trieState is a state while the automaton is built.
type trieState struct {
	next map[uint8]int32
	fail int32
	out  []int32 // positions in sorted needles
}

func newAutomaton(postings map[needle][]int32) *automaton {
	needles := make([]needle, 0, len(postings))
	for n := range postings {
		needles = append(needles, n)
	}
	slices.SortFunc(needles, func(a, b needle) int {
		if c := strings.Compare(a.text, b.text); c != 0 {
			return c
		}
		return int(a.kind) - int(b.kind)
	})
	a := &automaton{classes: 1} // class 0: bytes in no needle
	for _, n := range needles {
		for i := range len(n.text) {
			if c := n.text[i]; a.class[c] == 0 {
				a.class[c] = uint8(a.classes)
				if 'a' <= c && c <= 'z' {
					a.class[c-'a'+'A'] = uint8(a.classes)
				}
				a.classes++
			}
		}
	}
	states := a.trie(needles)
	a.link(states)
	a.outputs = make([]output, len(states))
	for i := range states {
		from := int32(len(a.found))
		for _, n := range states[i].out {
			a.found = append(a.found, foundNeedle{int32(len(needles[n].text)), needles[n].kind, postings[needles[n]]})
		}
		a.outputs[i] = output{from, int32(len(a.found))}
	}
	return a
}

func (a *automaton) trie(needles []needle) []trieState {
	states := []trieState{{next: map[uint8]int32{}}}
	for i, n := range needles {
		at := int32(0)
		for j := range len(n.text) {
			c := a.class[n.text[j]]
			to, ok := states[at].next[c]
			if !ok {
				to = int32(len(states))
				states = append(states, trieState{next: map[uint8]int32{}})
				states[at].next[c] = to
			}
			at = to
		}
		states[at].out = append(states[at].out, int32(i))
	}
	return states
}

// link fills the table breadth first, so that a state's fallback is complete
// before the state is.
func (a *automaton) link(states []trieState) {
	a.next = make([]uint32, len(states)*a.classes)
	queue := []int32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for c := range a.classes {
			fallback := uint32(0)
			if at != 0 {
				fallback = a.next[int(states[at].fail)*a.classes+c]
			}
			to, ok := states[at].next[uint8(c)]
			if !ok {
				a.next[int(at)*a.classes+c] = fallback
				continue
			}
			states[to].fail = int32(fallback &^ hit)
			states[to].out = append(states[to].out, states[fallback&^hit].out...)
			entry := uint32(to)
			if len(states[to].out) > 0 {
				entry |= hit
			}
			a.next[int(at)*a.classes+c] = entry
			queue = append(queue, to)
		}
	}
}

// scan calls mark with the rules of each needle in text.
func (a *automaton) scan(text []byte, m *Matcher) {
	state := uint32(0)
	for i, c := range text {
		state = a.next[int(state)*a.classes+int(a.class[c])]
		if state&hit == 0 {
			continue
		}
		state &^= hit
		out := a.outputs[state]
		for j := out.from; j < out.to; j++ {
			n := &a.found[j]
			if n.kind == patPrefix && i+1 != int(n.length) || n.kind == patSuffix && i+1 != len(text) {
				continue
			}
			m.mark(n.rules)
		}
	}
}
