package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const correlated = `title: Correlated
id: correlated
correlation:
    type: event_count
    rules: [test]
    group-by: [user]
    timespan: 5m
    condition:
        gte: 3
`

// TestRejects holds that what is not supported is refused where rules are
// loaded, with its file and line, and is never a rule that cannot match.
func TestRejects(t *testing.T) {
	with := func(change ...string) string {
		return selection("f: x") + "---\n" + strings.NewReplacer(change...).Replace(correlated)
	}
	cases := []struct{ name, rule, want string }{
		{"unknown modifier", selection("f|nonsense: x"), "test.yml:7"},
		{"modifier for another type", selection("f|gt: x"), "test.yml:7"},
		{"expression that RE2 has not", selection("f|re: '(?=a)b'"), "test.yml:7"},
		{"no network", selection("f|cidr: 10.0.0.1/8"), "test.yml:7"},
		{"base64 of a wildcard", selection("f|base64: 'a*'"), "test.yml:7"},
		{"placeholder without values", selection("f|expand: '%users%'"), "test.yml:7"},
		{"null in a list", selection("f: [a, null]"), "test.yml:7"},
		{"empty selection", ruleWith("sel: {}\ncondition: sel"), "test.yml:6"},
		{"unknown name", ruleWith("sel:\n    f: x\ncondition: sel and other"), "test.yml:8"},
		{"pattern of no name", ruleWith("sel:\n    f: x\ncondition: 1 of other_*"), "test.yml:8"},
		{"pipe aggregation", ruleWith("sel:\n    f: x\ncondition: sel | count() > 5"), "test.yml:8"},
		{"condition that ends early", ruleWith("sel:\n    f: x\ncondition: sel and"), "test.yml:8"},
		{"no condition", ruleWith("sel:\n    f: x"), "test.yml:6: detection: needs a condition"},
		{"no detection", "title: t\nid: test\nlogsource:\n    product: test\n", "neither detection nor correlation"},
		{"alias bomb", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", "more than 10000 YAML nodes"},
		{"unknown rule", with("[test]", "[missing]"), "test.yml:14"},
		{"cycle", with("[test]", "[correlated]"), "refers to itself"},
		{"unknown type", with("event_count", "event_sum"), "test.yml:13"},
		{"unit that is not one", with("5m", "5M"), "test.yml:16"},
		{"no timespan", with("    timespan: 5m\n", ""), "correlation.timespan: is missing"},
		{"two operators of one side", with("gte: 3", "gte: 3\n        gt: 2"), "test.yml:18"},
		{"value_count without a field", with("event_count", "value_count"), "condition.field: is missing"},
		{"alias without a rule", with("    timespan", "    aliases:\n        user:\n            missing: userName\n    timespan"), "test.yml:17"},
		{"unknown key", with("    timespan", "    timespam: 5m\n    timespan"), "test.yml:16"},
		{"id that is used twice", selection("f: x") + "---\n" + selection("f: y"), "is taken by the rule in test.yml:1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			found := reject(c.rule, sigma.Options{})
			require.NotEmpty(t, found, "%s", c.rule)
			require.Contains(t, found[0], c.want)
		})
	}
	require.Empty(t, reject(with(), sigma.Options{}), "what all correlations here are made from")
}

// TestWarns holds that what is suspicious and works is said and loaded.
func TestWarns(t *testing.T) {
	cases := []struct{ name, rule, want string }{
		{"all of one value", selection("f|contains|all: x"), "test.yml:7"},
		{"no group", selection("f: x") + "---\n" + strings.Replace(correlated, "    group-by: [user]\n", "", 1), "all events are one group"},
		{"one rule in order", selection("f: x") + "---\n" + strings.NewReplacer("event_count", "temporal", "gte: 3", "gte: 1").Replace(correlated), "one rule alone"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			docs, problems := sigma.Parse([]byte(c.rule), "test.yml")
			_, more := sigma.Compile(docs, sigma.Options{})
			problems = append(problems, more...)
			require.Empty(t, errorsOf(problems))
			require.Contains(t, strings.Join(warningsOf(problems), "\n"), c.want)
		})
	}
}
