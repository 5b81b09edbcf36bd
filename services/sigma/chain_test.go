package sigma_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const chainRules = `
title: A
id: rule-a
logsource: {product: test}
detection: {s: {action: a}, condition: s}
---
title: B
id: rule-b
logsource: {product: test}
detection: {s: {action: b}, condition: s}
---
title: Child
name: child
id: c1
correlation:
  type: event_count
  rules: [rule-a, rule-b]
  group-by: [who]
  aliases: {who: {rule-a: user, rule-b: actor}}
  timespan: 10s
  condition: {gte: 2}
---
title: Parent
id: p1
correlation:
  type: temporal
  rules: [child, rule-b]
  group-by: [person, zone]
  aliases: {person: {child: who, rule-b: name}}
  timespan: 10s
---
title: Grandparent
id: g1
correlation: {type: value_count, rules: [p1], group-by: [zone], timespan: 10s, condition: {gte: 2, field: person}}
`

func TestFieldsAlongAChain(t *testing.T) {
	docs, problems := sigma.Parse([]byte(chainRules), "chain.yml")
	require.Zero(t, sigma.Rejected(problems), problems)
	set, problems := sigma.Compile(docs, sigma.Options{})
	require.Zero(t, sigma.Rejected(problems), problems)
	parent, grand := set.Correlation("p1"), set.Correlation("g1")
	require.Equal(t, []int{1, 2, 3}, []int{set.Correlation("c1").Depth, parent.Depth, grand.Depth})
	require.Equal(t, []*sigma.Correlation{set.Correlation("c1")}, parent.Children)
	raw := []byte(`{"user":"u","actor":"x","name":"n","zone":"z","who":"w","person":"p"}`)
	m := set.Matcher()
	for _, tc := range []struct {
		c    *sigma.Correlation
		way  []string
		want sigma.Values
	}{
		{parent, []string{"c1", "rule-a"}, sigma.Values{Group: []string{"u", "z"}}},
		{parent, []string{"c1", "rule-b"}, sigma.Values{Group: []string{"x", "z"}}},
		{parent, []string{"rule-b"}, sigma.Values{Group: []string{"n", "z"}}},
		{grand, []string{"p1", "c1", "rule-a"}, sigma.Values{Group: []string{"z"}, Fields: []string{"u"}}},
		{grand, []string{"p1", "c1", "rule-b"}, sigma.Values{Group: []string{"z"}, Fields: []string{"x"}}},
		{grand, []string{"p1", "rule-b"}, sigma.Values{Group: []string{"z"}, Fields: []string{"n"}}},
	} {
		got, ok := m.Extract(raw, tc.c, tc.way...)
		require.True(t, ok)
		require.Equal(t, tc.want, got, "%s by way of %v", tc.c.ID, tc.way)
	}
	_, ok := m.Extract(raw, grand, "c1", "rule-a")
	require.False(t, ok, "not a way")
}
