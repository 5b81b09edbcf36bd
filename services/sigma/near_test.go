package sigma_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

func TestNear(t *testing.T) {
	for name, tc := range map[string]struct {
		detection string
		event     string
		needs     []string
		near      bool
		lacks     []string
	}{
		"has all":             {"{sel: {a: 1, b: 2}, condition: sel}", `{"a":0,"b":2}`, []string{"a", "b"}, false, nil},
		"lacks one":           {"{sel: {a: 1, b.c: 2}, condition: sel}", `{"a":1,"b":{"d":2}}`, []string{"a", "b.c"}, true, []string{"b.c"}},
		"lacks one, no match": {"{sel: {a: 1, b: 2}, condition: sel}", `{"a":2}`, []string{"a", "b"}, false, []string{"b"}},
		"either will do":      {"{x: {a: 1}, y: {b: 2}, condition: x or y}", `{"c":1}`, nil, false, nil},
		"both need it":        {"{x: {a: 1, c: 1}, y: {b: 2, c: 2}, condition: x or y}", `{"a":1}`, []string{"c"}, true, []string{"c"}},
		"not":                 {"{x: {a: 1}, y: {b: 2}, condition: x and not y}", `{"a":1}`, []string{"a"}, false, nil},
		"not, and it holds":   {"{x: {a: 1}, y: {b: 2}, condition: x and not y}", `{"b":2}`, []string{"a"}, false, []string{"a"}},
		"null is enough":      {"{x: {a: null}, condition: x}", `{"b":2}`, nil, false, nil},
		"must exist":          {"{x: {a|exists: true}, condition: x}", `{"b":2}`, []string{"a"}, true, []string{"a"}},
		"must not exist":      {"{x: {a|exists: false}, condition: x}", `{"b":2}`, nil, false, nil},
		"two of three":        {"{x1: {a: 1}, x2: {a: 2}, x3: {b: 1}, condition: 1 of x*}", `{"c":2}`, nil, false, nil},
		"keywords":            {"{x: [word], condition: x}", `{"c":"other"}`, nil, false, nil},
		"regex":               {"{x: {a|re: 'b+'}, condition: x}", `{"c":"other"}`, []string{"a"}, true, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			docs, problems := sigma.Parse(fmt.Appendf(nil, "title: T\nid: r\nlogsource: {product: app}\ndetection: %s\n", tc.detection), "t.yml")
			require.Empty(t, problems)
			set, problems := sigma.Compile(docs, sigma.Options{})
			require.Zero(t, sigma.Rejected(problems), problems)
			r := set.Rules()[0]
			require.Equal(t, tc.needs, r.Needs())
			m := set.Matcher()
			hits := m.Match(sigma.Event{Raw: []byte(tc.event)}, nil)
			near, _, lacks := m.Near(r)
			require.Equal(t, tc.lacks, lacks)
			require.Equal(t, tc.near, near)
			if near {
				require.Empty(t, hits)
			}
		})
	}
}
