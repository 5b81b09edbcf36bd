package sigma

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzNeedles compares with looking for each of the needles, whatever widths
// there are of.
func FuzzNeedles(f *testing.F) {
	f.Add("abcd,bcd,cde", "..abcde..")
	f.Add("abc", "ababc")
	f.Add("abc,ab,a", "xxabc")
	f.Add("abc,longer one", "a longer one, abc")
	f.Add("^abc,abc$,^abcd,bcd$,^a,d$", "abcd")
	f.Add("aaa,aaaa", strings.Repeat("a", 17))
	f.Add("dir,show clock", "executed: show clock")
	f.Add("dir", "di")
	f.Add(",abc", "")
	f.Fuzz(func(t *testing.T, list, text string) {
		postings, preds := map[needle][]int32{}, map[needle][]int32{}
		var all []needle
		for word := range strings.SplitSeq(list, ",") {
			n := needle{word, patContains}
			if before, ok := strings.CutSuffix(word, "$"); ok {
				n = needle{before, patSuffix}
			} else if after, ok := strings.CutPrefix(word, "^"); ok {
				n = needle{after, patPrefix}
			}
			if n.text == "" {
				n.kind = patContains
			}
			if !slices.Contains(all, n) {
				id := int32(len(all))
				postings[n], preds[n] = []int32{id}, []int32{id}
				all = append(all, n)
			}
		}
		s := newNeedles(postings, preds)
		for range 8 { // wherever its grams fall
			m := &Matcher{epoch: 1, marked: make([]uint32, len(all)), memo: make([]uint32, len(all))}
			s.scan([]byte(text), m, true)
			for i, n := range all {
				p := pattern{kind: n.kind, lit: n.text}
				want := p.match([]byte(text))
				require.Equal(t, want, slices.Contains(m.candidates, int32(i)), "%q of %q in %q", n.text, list, text)
				require.Equal(t, want && n.text != "", m.memo[i] == m.epoch<<1|1, "%q of %q in %q, noted", n.text, list, text)
			}
			text = "\x01" + text
		}
	})
}
