package sigma_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// TestShadow: a detection and a correlation may be in the shadow, which is no
// part of their revisions.
func TestShadow(t *testing.T) {
	const detection = "title: D\nid: d\nlogsource: {product: p}\ndetection: {s: {f: v}, condition: s}\n"
	const counted = "---\ntitle: C\nid: c\ncorrelation: {type: event_count, rules: [d], group-by: [g], timespan: 1m, condition: {gte: 2}}\n"
	light := compile(t, detection+counted, sigma.Options{})
	dark := compile(t, detection+"stormbell: {shadow: true}\n"+counted+"stormbell: {shadow: true}\n", sigma.Options{})
	require.False(t, light.Rule("d").Shadow || light.Correlation("c").Shadow)
	require.True(t, dark.Rule("d").Shadow && dark.Correlation("c").Shadow)
	require.Equal(t, light.Rule("d").Revision, dark.Rule("d").Revision)
	require.Equal(t, light.Correlation("c").Revision, dark.Correlation("c").Revision)
	require.True(t, compile(t, detection+"---\ntitle: C\nid: c\nstormbell: {type: new_value, rules: d, group-by: g, field: f, history: 1d, shadow: true}\n", sigma.Options{}).Correlation("c").Shadow)

	for _, bad := range []string{"{shadow: maybe}", "{lateness: 1m}", "true"} {
		_, problems := sigma.Parse([]byte(detection+"stormbell: "+bad+"\n"), "f")
		require.Equal(t, 1, sigma.Rejected(problems), bad)
	}
}
