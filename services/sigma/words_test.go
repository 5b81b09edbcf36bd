package sigma

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzWords compares with looking for each of the texts.
func FuzzWords(f *testing.F) {
	f.Add("abcd,bcdef,xyz", "..abcd..")
	f.Add("needle", "a needle at an odd place")
	f.Add("needle", "anneedle")
	f.Add("needl,edlen", "needneedlneedle")
	f.Add("tail end", "text with its tail end")
	f.Add("ab,c", "xxxxxxxxxxxxxxab")
	f.Add("aaaaa,aaaab", strings.Repeat("a", 17))
	f.Add("\x00\x00\x00\x00", "abc")
	f.Fuzz(func(t *testing.T, list, text string) {
		var texts []string
		for word := range strings.SplitSeq(list, ",") {
			if word != "" {
				texts = append(texts, word)
			}
		}
		w := newWords(texts)
		for range 6 { // wherever its grams fall
			want := slices.ContainsFunc(texts, func(word string) bool { return strings.Contains(text, word) })
			require.Equal(t, want, w.in([]byte(text)), "%q in %q", texts, text)
			text = "\x01" + text
		}
	})
}

// TestWordsOfKinds holds that an event is searched for keywords whatever those
// before it had.
func TestWordsOfKinds(t *testing.T) {
	docs, _ := Parse([]byte("title: t\nid: r\nlogsource: {product: p}\ndetection:\n  k: [needle, ab]\n  condition: k\n"), "r.yml")
	set, problems := Compile(docs, Options{})
	require.Empty(t, problems)
	m := set.Matcher()
	for i := range 4 * (maxStreak + restStreak) {
		for event, want := range map[string]int{`{"a":{"b":["x \u004eeedle"]}}`: 1, `{"needle":"a"}`: 0, `{"a":"none"}`: 0, `{"a":"xAb"}`: 1} {
			if i < 2*(maxStreak+restStreak) && want == 0 {
				continue
			}
			require.Len(t, m.Match(Event{Raw: []byte(event)}, nil), want, "%s", event)
		}
	}
	deep := `{"a":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`
	require.Empty(t, m.Match(Event{Raw: []byte(deep)}, nil))
	require.ErrorIs(t, m.Err(), errDepth)
}
