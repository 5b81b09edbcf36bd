package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// TestRegexBounds holds that bounds of regular expressions lie in the rule
// alone: too much of one is refused at load, and no value is too long.
func TestRegexBounds(t *testing.T) {
	compile := func(re string) (*sigma.Set, []sigma.Problem) {
		docs, problems := sigma.Parse([]byte("title: t\nlogsource: {product: p}\ndetection:\n    sel: {f|re: '"+re+"'}\n    condition: sel\n"), "a.yml")
		set, more := sigma.Compile(docs, sigma.Options{})
		return set, append(problems, more...)
	}
	for re, says := range map[string]string{
		strings.Repeat("a", 8<<10+1): "a regular expression of 8193 bytes: at most 8192",
		"((a{100}){100}){100}":       "invalid repeat count",
	} {
		_, problems := compile(re)
		require.NotEmpty(t, problems)
		require.Contains(t, problems[0].String(), says)
	}
	set, problems := compile("x[0-9]$")
	require.Zero(t, sigma.Rejected(problems))
	long := `{"f":"` + strings.Repeat("y", 900_000)
	for text, matches := range map[string]int{long + `x7"}`: 1, long + `x"}`: 0} {
		got := set.Matcher().Match(sigma.Event{Raw: []byte(text), LogSource: sigma.LogSource{Product: "p"}}, nil)
		require.Len(t, got, matches)
	}
}
