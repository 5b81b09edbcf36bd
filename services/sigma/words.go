package sigma

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// words tells whether any of a set of texts is in a document: most have none of
// those that keyword rules look for, and then no value need be looked at. Every
// second gram of the document is asked for, so each text is known by two grams
// that stand side by side in it.
type words struct {
	few   []string // too short for two grams
	bytes uint32   // mask of a gram's bytes
	table *[1 << wordBits]uint8
	mask  uint32
	grams []gramSlot
	uses  []gramUse
	texts []string
}

// wordBits is the size of the table that is asked first, as a power of two.
const wordBits = 15

func newWords(texts []string) *words {
	w := &words{bytes: 1<<32 - 1, table: new([1 << wordBits]uint8)}
	width := 4
	for _, t := range texts {
		switch {
		case len(t) < 4:
			w.few = append(w.few, t)
			continue
		case len(t) == 4:
			width, w.bytes = 3, 1<<24-1
		}
		w.texts = append(w.texts, t)
	}
	popular := map[uint32]int{}
	for _, t := range w.texts {
		for i := 0; i+width <= len(t); i++ {
			popular[gramAt(t[i:], width)]++
		}
	}
	uses := map[uint32][]gramUse{}
	for n, t := range w.texts {
		best, least := 0, 0
		for i := 0; i+1+width <= len(t); i++ {
			if c := popular[gramAt(t[i:], width)] + popular[gramAt(t[i+1:], width)]; i == 0 || c < least {
				best, least = i, c
			}
		}
		for i := best; i <= best+1; i++ {
			g := gramAt(t[i:], width)
			uses[g] = append(uses[g], gramUse{int32(n), int32(i)})
		}
	}
	w.fill(uses)
	return w
}

func (w *words) fill(uses map[uint32][]gramUse) {
	order := make([]uint32, 0, len(uses))
	for gram := range uses {
		order = append(order, gram)
	}
	slices.SortFunc(order, cmp.Compare[uint32])
	size := 4
	for size < 4*len(uses) {
		size *= 2
	}
	w.grams, w.mask = make([]gramSlot, size), uint32(size-1)
	for _, gram := range order {
		w.table[gram*gramHash>>(32-wordBits)] = 1
		at := gram * gramHash >> 7 & w.mask
		for w.grams[at].from != w.grams[at].to {
			at = (at + 1) & w.mask
		}
		from := int32(len(w.uses))
		w.uses = append(w.uses, uses[gram]...)
		w.grams[at] = gramSlot{gram, from, int32(len(w.uses))}
	}
}

// in reports whether one of the texts is in another, whose case is folded.
func (w *words) in(text []byte) bool {
	for _, t := range w.few {
		if containsText(text, t) {
			return true
		}
	}
	table, bytes := w.table, w.bytes
	i := 0
	for ; i+8 <= len(text); i += 6 {
		x := binary.LittleEndian.Uint64(text[i:])
		a, b, c := uint32(x)&bytes, uint32(x>>16)&bytes, uint32(x>>32)&bytes
		if table[a*gramHash>>(32-wordBits)]|table[b*gramHash>>(32-wordBits)]|table[c*gramHash>>(32-wordBits)] != 0 &&
			(w.at(a, i, text) || w.at(b, i+2, text) || w.at(c, i+4, text)) {
			return true
		}
	}
	var last [8]byte
	copy(last[:], text[i:])
	x := binary.LittleEndian.Uint64(last[:])
	return w.at(uint32(x)&bytes, i, text) || w.at(uint32(x>>16)&bytes, i+2, text) || w.at(uint32(x>>32)&bytes, i+4, text)
}

// at reports whether one of the texts is around a gram at pos.
func (w *words) at(gram uint32, pos int, text []byte) bool {
	if w.table[gram*gramHash>>(32-wordBits)] == 0 {
		return false
	}
	for at := gram * gramHash >> 7 & w.mask; ; at = (at + 1) & w.mask {
		slot := &w.grams[at]
		if slot.from == slot.to {
			return false
		}
		if slot.gram != gram {
			continue
		}
		for _, use := range w.uses[slot.from:slot.to] {
			t, start := w.texts[use.needle], pos-int(use.offset)
			if start >= 0 && start+len(t) <= len(text) && strings.HasPrefix(viewString(text[start:]), t) {
				return true
			}
		}
		return false
	}
}
