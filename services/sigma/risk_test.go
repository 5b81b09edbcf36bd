package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const (
	risk = "type: risk\ngroup-by: [user]\ntimespan: 24h\ncondition: {gte: 100}\n"

	scored = `title: Silent
id: silent
level: low
tags: [attack.discovery]
logsource: {product: p}
detection: {s: {f: v}, condition: s}
---
title: Medium
id: medium
level: medium
tags: [attack.initial-access, attack.t1078, attack.credential_access]
logsource: {product: p}
detection: {s: {f: w}, condition: s}
---
title: Rated
id: rated
logsource: {product: p}
detection: {s: {f: x}, condition: s}
stormbell: {risk: 70}
---
title: Shadow
id: shadow
level: critical
logsource: {product: p}
detection: {s: {f: y}, condition: s}
stormbell: {shadow: true}
---
title: Many
id: many
correlation: {type: event_count, rules: [silent], group-by: [user], timespan: 1m, condition: {gte: 2}}
stormbell: {risk: 33}
---
title: Nothing
id: nothing
level: high
logsource: {product: p}
detection: {s: {f: z}, condition: s}
stormbell: {risk: 0}
---
`
)

// riskOf is a risk with these lines, after the rules that it may score.
func riskOf(lines string) string {
	return scored + "title: Risk\nid: risk\nstormbell:\n    " + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n    ") + "\n"
}

func compiledRisk(t *testing.T, lines string) *sigma.Correlation {
	t.Helper()
	return compile(t, riskOf(lines), sigma.Options{}).Correlation("risk")
}

// TestRiskScoresWhatAlerts holds which rules count, and with what.
func TestRiskScoresWhatAlerts(t *testing.T) {
	access := uint64(1<<2 | 1<<7)
	set := compile(t, riskOf(risk), sigma.Options{})
	c := set.Correlation("risk")
	require.Equal(t, sigma.Risk, c.Type)
	require.Equal(t, "high", c.Level)
	require.Equal(t, "gte 100", c.Condition.String())
	require.Equal(t, 24*60*minute, c.Timespan)
	require.Equal(t, map[string]sigma.Score{"medium": {20, access}, "rated": {70, 0}, "many": {33, 0}}, c.Scores, "what alerts by itself and has a score")
	require.Equal(t, []string{"medium", "rated", "many"}, c.Rules)
	require.Equal(t, []string{"initial-access", "credential-access"}, sigma.TacticNames(access))
	require.Equal(t, 2, c.Depth)
	require.Equal(t, []*sigma.Correlation{c}, set.Rule("medium").Correlations)
	require.Equal(t, []*sigma.Correlation{c}, set.Correlation("many").Parents)
	require.True(t, set.Rule("medium").Alerts && set.Correlation("many").Alerts, "it silences nothing")
	require.Empty(t, set.Rule("nothing").Correlations)

	c = compiledRisk(t, risk+"scores: {medium: 0, informational: 7}\ntactics: {gt: 1}\nlateness: 1h\nsuppress: 2d\nshadow: true")
	require.Equal(t, map[string]sigma.Score{"rated": {70, 0}, "many": {33, 0}}, c.Scores)
	require.Equal(t, sigma.Extension{Tactics: 2, Scores: [5]int64{7, 5, 0, 50, 100}}, c.Extension)
	require.Equal(t, []int64{60 * minute, 2 * day}, []int64{c.Lateness, c.Suppress})
	require.True(t, c.Shadow)

	t.Run("listed", func(t *testing.T) {
		set := compile(t, riskOf(risk+"rules: [silent, medium, shadow]"), sigma.Options{})
		require.Equal(t, map[string]sigma.Score{"silent": {5, 1 << 8}, "medium": {20, access}, "shadow": {100, 0}}, set.Correlation("risk").Scores)
		require.False(t, set.Rule("medium").Alerts, "as with every correlation")
		require.True(t, set.Rule("rated").Alerts)
		require.True(t, compile(t, riskOf(risk+"rules: [medium]\ngenerate: true"), sigma.Options{}).Rule("medium").Alerts)
	})
	t.Run("aliases", func(t *testing.T) {
		set := compile(t, riskOf(risk+"aliases: {user: {medium: actor.name}}"), sigma.Options{})
		m := set.Matcher()
		c := set.Correlation("risk")
		for rule, raw := range map[string]string{"medium": `{"actor":{"name":"eve"},"user":"bob"}`, "rated": `{"actor":{"name":"bob"},"user":"eve"}`} {
			v, ok := m.Extract([]byte(raw), c, rule)
			require.True(t, ok)
			require.Equal(t, []string{"eve"}, v.Group)
		}
		v, ok := m.Extract([]byte(`{"user":"eve"}`), c, "many", "silent")
		require.True(t, ok)
		require.Equal(t, []string{"eve"}, v.Group)
		_, ok = m.Extract([]byte(`{"user":null}`), c, "rated")
		require.False(t, ok)
	})
	t.Run("nothing", func(t *testing.T) {
		docs, problems := sigma.Parse([]byte("title: R\nid: r\nstormbell: {type: risk, group-by: [user], timespan: 1h, condition: {gte: 1}}\n"), "test.yml")
		require.Empty(t, problems)
		set, problems := sigma.Compile(docs, sigma.Options{})
		require.Len(t, problems, 1)
		require.Contains(t, problems[0].String(), "test.yml:3: stormbell: warning: adds nothing up")
		require.Empty(t, set.Correlation("r").Rules)
	})
}

// TestRiskRevision is of what the risk says itself: rules come, go and change
// while totals go on.
func TestRiskRevision(t *testing.T) {
	plain := compiledRisk(t, risk).Revision
	other := strings.NewReplacer("level: medium", "level: high", "f: x", "f: xx", "{risk: 33}", "{risk: 34}", "attack.discovery", "attack.impact").Replace(riskOf(risk))
	require.Equal(t, plain, compile(t, other, sigma.Options{}).Correlation("risk").Revision)
	require.Equal(t, plain, compiledRisk(t, risk+"scores: {low: 5}").Revision, "what is the default changes nothing")
	seen := map[string]string{}
	for _, lines := range []string{
		risk, strings.Replace(risk, "24h", "23h", 1), strings.Replace(risk, "gte: 100", "gte: 101", 1), strings.Replace(risk, "gte: 100", "gt: 100", 1),
		strings.Replace(risk, "[user]", "[user, ip]", 1), risk + "tactics: {gte: 2}", risk + "scores: {low: 6}", risk + "rules: [medium]", risk + "rules: [medium, rated]",
		risk + "aliases: {user: {medium: a}}", risk + "lateness: 1h", risk + "suppress: 2d",
	} {
		revision := compiledRisk(t, lines).Revision
		require.Empty(t, seen[revision], lines)
		seen[revision] = lines
	}
}

func TestRiskFaults(t *testing.T) {
	const schemaAccepts = true
	schema := compiledSchema(t)
	for _, c := range []struct {
		name, lines, want string
		schemaAccepts     bool
	}{
		{"no entity", strings.Replace(risk, "group-by: [user]\n", "", 1), "stormbell.group-by: is missing: fields of the entity", false},
		{"empty entity", strings.Replace(risk, "[user]", "[]", 1), "stormbell.group-by: names no field", false},
		{"no timespan", strings.Replace(risk, "timespan: 24h\n", "", 1), "stormbell.timespan: is missing: within which scores add up", false},
		{"no condition", strings.Replace(risk, "condition: {gte: 100}\n", "", 1), "stormbell.condition: is missing: the total that fires", false},
		{"lower than", strings.Replace(risk, "gte", "lt", 1), `stormbell.condition: "lt" is not possible here: scores only ever add up, use gt or gte`, false},
		{"two bounds", strings.Replace(risk, "{gte: 100}", "{gte: 100, lt: 200}", 1), "stormbell.condition: must be one lower bound, for example gte: 2", false},
		{"a number", strings.Replace(risk, "{gte: 100}", "100", 1), "stormbell.condition: must be one lower bound", false},
		{"nothing", strings.Replace(risk, "100", "0", 1), "stormbell.condition.gte: must be a whole number from 1 to 1000000000", false},
		{"half", strings.Replace(risk, "100", "0.5", 1), "stormbell.condition.gte: must be a whole number", false},
		{"all tactics and more", risk + "tactics: {gte: 17}", "stormbell.tactics.gte: must be a whole number from 1 to 16", false},
		{"tactics from above", risk + "tactics: {lte: 2}", `stormbell.tactics: "lte" is not possible here`, false},
		{"scores of no level", risk + "scores: {severe: 10}", `stormbell.scores: "severe" is none of informational, low`, false},
		{"scores below zero", risk + "scores: {low: -1}", "stormbell.scores.low: must be a whole number from 0 to 10000", false},
		{"scores in a list", risk + "scores: [1, 2]", "stormbell.scores: must give levels their scores, not a list", false},
		{"no rules", risk + "rules: []", "stormbell.rules: is empty", false},
		{"a rule that is not there", risk + "rules: [gone]", `stormbell.rules: there is no rule with the id or name "gone"`, schemaAccepts},
		{"itself", risk + "rules: [risk]", `is of type risk, which adds up what others say`, schemaAccepts},
		{"generate without rules", risk + "generate: true", "stormbell.generate: only means something with rules", schemaAccepts},
		{"alias for a rule that is not there", risk + "aliases: {user: {gone: actor}}", `stormbell.aliases.user: "gone" is not among the rules`, schemaAccepts},
		{"short suppress", risk + "suppress: 1h", "stormbell.suppress: must not be shorter than the timespan", schemaAccepts},
		{"score of a risk", risk + "risk: 10", "stormbell.risk: is not known here", false},
		{"field", risk + "field: ip", "stormbell.field: is not known here", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := riskOf(c.lines)
			found := reject(src, sigma.Options{})
			require.NotEmpty(t, found)
			require.Contains(t, strings.Join(found, "\n"), c.want)
			require.Contains(t, found[0], "test.yml:")
			err := schema.Validate(lastDocument(t, src))
			require.Equal(t, c.schemaAccepts, err == nil, "%v", err)
		})
	}
	require.NoError(t, schema.Validate(lastDocument(t, riskOf(risk+"rules: medium\ntactics: {gt: 1}\nscores: {low: 3}"))))
	t.Run("a score that is none", func(t *testing.T) {
		for _, score := range []string{"high", "-1", "10001", "1.5"} {
			found := reject(strings.Replace(scored, "risk: 70", "risk: "+score, 1)+"title: X\nlogsource: {product: p}\ndetection: {s: {f: q}, condition: s}\n", sigma.Options{})
			require.Contains(t, strings.Join(found, "\n"), "test.yml:19: stormbell.risk: must be a whole number from 0 to 10000")
		}
	})
	t.Run("counted by a correlation", func(t *testing.T) {
		found := reject(riskOf(risk)+"---\ntitle: Up\nid: up\ncorrelation: {type: event_count, rules: [risk], group-by: [user], timespan: 1m, condition: {gte: 2}}\n", sigma.Options{})
		require.Contains(t, strings.Join(found, "\n"), `correlation.rules: "risk" (test.yml:40) is of type risk`)
	})
}
