package sigma_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// TestUpdatesKey holds which rules may say `updates`, and that it is a part of
// their revision only where it is true.
func TestUpdatesKey(t *testing.T) {
	const rule = "title: a\nid: a\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: s}\n---\ntitle: c\nid: c\ncorrelation: "
	compiled := func(text string) (*sigma.Correlation, []sigma.Problem) {
		docs, problems := sigma.Parse([]byte(rule+text), "c.yml")
		set, bad := sigma.Compile(docs, sigma.Options{})
		return set.Correlation("c"), append(problems, bad...)
	}
	const count = "{type: event_count, rules: [a], group-by: [u], timespan: 5m, condition: {gte: 3}}\n"
	without, problems := compiled(count)
	require.Empty(t, problems)
	require.False(t, without.Updates)
	with, problems := compiled(count + "stormbell: {updates: true}")
	require.Empty(t, problems)
	require.True(t, with.Updates)
	require.NotEqual(t, without.Revision, with.Revision)
	same, _ := compiled(count + "stormbell: {updates: false}")
	require.Equal(t, without.Revision, same.Revision)
	for name, text := range map[string]string{
		"sum":        "{type: value_sum, rules: [a], group-by: [u], timespan: 5m, condition: {gt: 1.5, field: n}}\nstormbell: {updates: true}",
		"values":     "{type: value_count, rules: [a], group-by: [u], timespan: 5m, condition: {gt: 1, field: n}}\nstormbell: {updates: true, window: tumbling}",
		"temporal":   "{type: temporal, rules: [a], group-by: [u], timespan: 5m}\nstormbell: {updates: true}",
		"expression": "{type: temporal, rules: [a], group-by: [u], timespan: 5m, condition: a}\nstormbell: {updates: true}",
	} {
		c, problems := compiled(text)
		require.Zero(t, sigma.Rejected(problems), name)
		require.True(t, c.Updates, name)
	}
	for name, text := range map[string]string{
		"upper bound": "{type: event_count, rules: [a], group-by: [u], timespan: 5m, condition: {lt: 3}}\nstormbell: {updates: true}",
		"range":       "{type: event_count, rules: [a], group-by: [u], timespan: 5m, condition: {gte: 1, lt: 3}}\nstormbell: {updates: true}",
		"session":     "{type: event_count, rules: [a], group-by: [u], timespan: 5m, condition: {gte: 3}}\nstormbell: {updates: true, window: session, gap: 1m}",
		"average":     "{type: value_avg, rules: [a], group-by: [u], timespan: 5m, condition: {gt: 1, field: n}}\nstormbell: {updates: true}",
		"not":         "{type: temporal, rules: [a], group-by: [u], timespan: 5m, condition: not a}\nstormbell: {updates: true}",
	} {
		c, problems := compiled(text)
		require.Nil(t, c, name)
		require.Contains(t, fmt.Sprint(problems), "stormbell.updates: only means something to rules that fire at once", name)
	}
}
