package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// linted are the warnings of Lint for a rule that is accepted.
func linted(t *testing.T, src string) []string {
	t.Helper()
	docs, problems := sigma.Parse([]byte(src), "test.yml")
	_, more := sigma.Compile(docs, sigma.Options{})
	require.Empty(t, errorsOf(append(problems, more...)), "%s", src)
	said := sigma.Lint(docs, sigma.Options{})
	require.Empty(t, errorsOf(said))
	return warningsOf(said)
}

// TestLintUnreachable holds what is certain to match nothing, and that nothing
// else is said to: for each of the others an event is given that matches.
func TestLintUnreachable(t *testing.T) {
	two := func(a, b, condition string) string {
		return ruleWith("a:\n" + indent(a) + "b:\n" + indent(b) + "condition: " + condition)
	}
	cases := []struct{ name, rule, event, want string }{
		{"one value and not it", two("f: x", "f: X", "a and not b"), "", `no event can match this rule: the conditions on "f" contradict each other`},
		{"one value and another", two("f: x", "f: y", "a and b"), "", `the conditions on "f" leave no value, unless it is a list`},
		{"one value or another", two("f: x", "f: y", "a or b"), `{"f":"y"}`, ""},
		{"a value that is filtered out", two("f: [1, 2]", "f: [1, 2, 3]", "a and not b"), "", "leave no value"},
		{"a value that is not", two("f: [1, 4]", "f: [1, 2, 3]", "a and not b"), `{"f":4}`, ""},
		{"another field", two("f: x", "g: y", "a and b"), `{"f":"x","g":"y"}`, ""},
		{"three lists without a common value", ruleWith("a:\n  f: [x, y]\nb:\n  f: [y, z]\nc:\n  f: [z, x]\ncondition: all of them"), "", "leave no value"},
		{"a value that no pattern lets in", two("f: abc", "f|startswith: b", "a and b"), "", "leave no value"},
		{"a value that a pattern lets in", two("f: abc", "f|startswith: A", "a and b"), `{"f":"abc"}`, ""},
		{"suffix and not its suffix", two(`f|endswith: '\a.exe'`, `f|endswith: ['.exe', '.dll']`, "a and not b"), "", "exclude all that they demand"},
		{"suffix and not another", two(`f|endswith: '.exe'`, `f|endswith: '\a.exe'`, "a and not b"), `{"f":"b.exe"}`, ""},
		{"prefix and not a part of it", two("f|startswith: abc", "f|contains: BC", "a and not b"), "", "exclude all that they demand"},
		{"cased within uncased", two("f|contains|cased: aBc", "f|contains: bc", "a and not b"), "", "exclude all that they demand"},
		{"uncased is not within cased", two("f|contains: bc", "f|contains|cased: bc", "a and not b"), `{"f":"BC"}`, ""},
		{"numbers that exclude each other", two("f: 3", "f|gt: 5", "a and b"), "", "leave no value"},
		{"numbers that do not", two("f: 7", "f|gt: 5", "a and b"), `{"f":7}`, ""},
		{"text under a comparison", two("f: x", "f|gt: 5", "a and b"), "", "leave no value"},
		{"another spelling of a number", two("f: 5", "f|contains: '.'", "a and b"), `{"f":5.0}`, ""},
		{"another spelling that is not filtered", two("f: 5", "f|re: '^5$'", "a and not b"), `{"f":5.0}`, ""},
		{"an address of no network", two("f: 10.0.0.1", "f|cidr: 11.0.0.0/8", "a and b"), "", "leave no value"},
		{"an address of a network", two("f: 10.0.0.1", "f|cidr: 10.0.0.0/8", "a and b"), `{"f":"10.0.0.1"}`, ""},
		{"an expression that knows letters", two("f: abc", "f|re: '^ABC$'", "a and b"), `{"f":"ABC"}`, ""},
		{"an expression that refuses", two("f: '1-2'", "f|re: '^[a-z]+$'", "a and b"), "", "leave no value"},
		{"absent and a value", two("f|exists: false", "f: x", "a and b"), "", "absent and that it has a value"},
		{"absent and present", two("f|exists: false", "f|exists: true", "a and b"), "", "absent and that it has a value"},
		{"absent and not null", two("f|exists: false", "f: null", "a and not b"), "", "absent and that it has a value"},
		{"absent and null", two("f|exists: false", "f: null", "a and b"), `{}`, ""},
		{"null or a value", two("f: null", "f: x", "a or b"), `{}`, ""},
		{"null and a value", two("f: null", "f: x", "a and b"), "", "leave no value"},
		{"not present and not null", two("f|exists: true", "f: null", "not a and not b"), "", "absent and that it has a value"},
		{"keywords and not them", ruleWith("a: [word]\nb: [or]\ncondition: a and not b"), "", "the keywords exclude"},
		{"neq of the only value", two("f: x", "f|neq: [x, y]", "a and b"), "", "exclude all that they demand"},
		{"one part is out of reach", two("f: x", "g: 1\nh: 2", "a or (b and not b)"), `{"f":"x"}`, ""},
		{"one selection is out of reach", two("f: x", "g: 1\ng|gt: 2", "a or b"), `{"f":"x"}`, `test.yml:8: detection.b: warning: no event can satisfy this: the conditions on "g" leave no value`},
		{"a list is one value by one", two("f|all: [x, y]", "g: 1", "a and b"), "", "unless it is a list"},
		{"all of two patterns", two("f|contains|all: [x, y]", "g: 1", "a and b"), `{"f":"yx","g":1}`, ""},
		{"not of a whole", two("f: x\ng: y", "f: x", "b and not a"), `{"f":"x","g":"z"}`, ""},
		{"a count is not looked into", ruleWith("a:\n  f: x\nb:\n  f: y\nc:\n  f: z\ncondition: 2 of them"), `{"f":["x","z"]}`, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			said := linted(t, c.rule)
			if c.event != "" {
				require.True(t, matches(t, compile(t, c.rule, sigma.Options{}), c.event), "the event of this case matches")
			}
			if c.want == "" {
				require.NotEmpty(t, c.event)
				require.Empty(t, said)
				return
			}
			require.Len(t, said, 1)
			require.Contains(t, said[0], c.want)
		})
	}
}

func TestLintJoins(t *testing.T) {
	contrary := filterOf(windows, "[process]", "s: {a: 1}\ncondition: not s")
	require.Contains(t, strings.Join(linted(t, filteredRules+contrary), "\n"), `test.yml:6: detection: warning: no event can match this rule`)
	require.Empty(t, linted(t, filteredRules+filterOf(windows, "[process]", administrators)))
	silent := namedRule("a", "generate: false") + namedRule("b", "generate: true")
	require.Equal(t, []string{"test.yml:4: generate: warning: belongs into a correlation: none refers to this rule, so it alerts by itself"}, linted(t, silent))
	require.Empty(t, linted(t, silent+"title: C\nid: c\ncorrelation:\n    type: temporal\n    rules: [a, b]\n    group-by: [u]\n    timespan: 1m\n"))
}

// TestLintGivesUp holds that what would take too long is not said.
func TestLintGivesUp(t *testing.T) {
	parts, names := "base:\n  m: 1\nthis:\n  m: 2\nthat:\n  m: 3\n", "base"
	require.Len(t, linted(t, ruleWith(parts+"condition: base and (this or that)")), 1)
	for i := range 24 {
		n := string(rune('a' + i))
		parts += "x" + n + ":\n  " + n + ": 1\nz" + n + ":\n  " + n + ": 2\n"
		names += " and (x" + n + " or z" + n + ")"
	}
	require.Empty(t, linted(t, ruleWith(parts+"condition: "+names+" and (this or that)")))
}

// TestLintPublicRules holds that no public rule is said to be out of reach.
func TestLintPublicRules(t *testing.T) {
	var docs []sigma.Document
	eachRule(t, corpora(t, "sigmahq", "rules"), func(name string, src []byte) {
		d, _ := sigma.Parse(src, name)
		docs = append(docs, d...)
	})
	require.Empty(t, sigma.Lint(docs, sigma.Options{}))
}

func TestCoverage(t *testing.T) {
	set := compile(t, sourceRule("one", "{product: aws, service: CloudTrail}")+sourceRule("two", "{product: aws, service: cloudtrail}")+
		sourceRule("any", "{category: proxy}")+sourceRule("win", "{product: windows, category: process_creation}")+sourceRule("none", "{product: okta}"), sigma.Options{})
	got := set.Coverage([]sigma.Source{
		{Name: "trail", LogSource: sigma.LogSource{Product: "aws", Service: "cloudtrail"}, Strict: true},
		{Name: "hosts", LogSource: sigma.LogSource{Product: "windows"}},
		{Name: "hosts", LogSource: sigma.LogSource{Product: "linux"}},
	})
	require.Equal(t, []sigma.Coverage{
		{LogSource: sigma.LogSource{Category: "proxy"}, Rules: 1, Sources: []string{"hosts"}},
		{LogSource: sigma.LogSource{Product: "aws", Service: "cloudtrail"}, Rules: 2, Sources: []string{"trail"}},
		{LogSource: sigma.LogSource{Product: "okta"}, Rules: 1},
		{LogSource: sigma.LogSource{Product: "windows", Category: "process_creation"}, Rules: 1, Sources: []string{"hosts"}},
	}, got)
}
