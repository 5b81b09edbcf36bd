package ruleset_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

func TestDiff(t *testing.T) {
	const base = `
title: A
id: a
logsource: {product: p}
detection: {s: {f: v}, condition: s}
---
title: B
id: b
logsource: {product: p}
detection: {s: {f: w}, condition: s}
---
title: C
id: c
correlation: {type: event_count, rules: [a], group-by: [g], timespan: 1m, condition: {gte: 2}}
---
title: G
id: g
logsource: {product: p}
detection: {s: {f: z}, condition: s}
`
	const other = `
title: B, said better
id: b
logsource: {product: p}
detection: {s: {f: w}, condition: s}
stormbell: {shadow: true}
---
title: C
id: c
correlation: {type: event_count, rules: [a], group-by: [g], timespan: 1m, condition: {gte: 2}}
---
title: A
id: a
logsource: {product: p}
detection: {s: {f: other}, condition: s}
---
title: N
id: n
logsource: {product: p}
detection: {s: {f: n}, condition: s}
`
	parse := func(text string) []sigma.Document {
		docs, problems := sigma.Parse([]byte(text), "r.yml")
		require.Empty(t, sigma.Rejected(problems), problems)
		return docs
	}
	differ, same := ruleset.Diff(nil, parse(base), parse(other), sigma.Options{})
	require.Zero(t, same)
	got := make(map[string]string)
	for _, d := range differ {
		got[d.ID] = d.Change
		require.Equal(t, d.ID == "b", d.ShadowAfter)
		require.Equal(t, d.Change == ruleset.Changed, d.Before != "" && d.After != "" && d.Before != d.After, "%+v", d)
	}
	require.Equal(t, map[string]string{
		"a": ruleset.Changed, "b": ruleset.Reworded, "c": ruleset.Changed, "g": ruleset.Removed, "n": ruleset.Added,
	}, got, "a correlation changes with a rule that it refers to")
	differ, same = ruleset.Diff(nil, parse(base), parse(base), sigma.Options{})
	require.Empty(t, differ)
	require.Equal(t, 4, same)
}
