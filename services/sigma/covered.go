package sigma

import (
	"cmp"
	"slices"
)

// Source is where events come from and what it asserts about them.
type Source struct {
	Name string
	// LogSource is what all its events assert. What it leaves empty each of
	// them may assert by itself, unless Strict.
	LogSource LogSource
	Strict    bool
}

// Coverage is how many rules are for a log source, and who gives it.
type Coverage struct {
	LogSource LogSource
	Rules     int
	// Sources are the names of those whose events the rules can apply to,
	// sorted.
	Sources []string
}

// Coverage tells the detection rules by log source, as pipelines leave it, in
// order of product, category and service.
func (s *Set) Coverage(sources []Source) []Coverage {
	rules := make([]int, len(s.classes))
	for _, r := range s.rules {
		rules[r.class]++
	}
	var out []Coverage
	for i, l := range s.classes {
		c := Coverage{LogSource: l, Rules: rules[i]}
		for _, src := range sources {
			if l.appliesTo(src.LogSource, src.Strict) {
				c.Sources = append(c.Sources, src.Name)
			}
		}
		slices.Sort(c.Sources)
		c.Sources = slices.Compact(c.Sources)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Coverage) int {
		return cmp.Or(cmp.Compare(a.LogSource.Product, b.LogSource.Product), cmp.Compare(a.LogSource.Category, b.LogSource.Category), cmp.Compare(a.LogSource.Service, b.LogSource.Service))
	})
	return out
}
