package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// namedRule is a rule that matches where the field of its name is 1.
func namedRule(name string, more ...string) string {
	return "title: " + name + "\nid: id-" + name + "\nname: " + name + "\n" + strings.Join(more, "\n") +
		"\nlogsource:\n    product: test\ndetection:\n    sel:\n        " + name + ": 1\n    condition: sel\n---\n"
}

// correlationOf is a correlation of rules a, b and c with these lines.
func correlationOf(lines string) string {
	return namedRule("a", "level: low") + namedRule("b", "level: high") + namedRule("c", "level: medium") +
		"title: Corr\nid: corr\ncorrelation:\n" + indent(lines)
}

const base = "rules: [a, b]\ngroup-by: [user]\ntimespan: 5m\n"

type correlationCase struct {
	name, lines string
	check       func(t *testing.T, c *sigma.Correlation)
}

func correlationCases() []correlationCase {
	bound := func(op sigma.Op, n int64, text string) sigma.Bound {
		return sigma.Bound{Op: op, Count: n, Number: text}
	}
	return []correlationCase{
		{"event_count", base + "type: event_count\ncondition:\n    gte: 10", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.EventCount, c.Type)
			require.Equal(t, []string{"id-a", "id-b"}, c.Rules)
			require.Equal(t, []string{"user"}, c.GroupBy)
			require.EqualValues(t, 300_000, c.Timespan)
			least, ok := c.Condition.AtOnce()
			require.True(t, ok)
			require.EqualValues(t, 10, least)
			require.False(t, c.Condition.Holds(9))
			require.True(t, c.Condition.Holds(10))
		}},
		{"greater than", base + "type: event_count\ncondition:\n    gt: 10", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			least, _ := c.Condition.AtOnce()
			require.EqualValues(t, 11, least)
			require.False(t, c.Condition.Holds(10))
		}},
		{"lt, at the watermark", base + "type: event_count\ncondition:\n    lt: 3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			_, ok := c.Condition.AtOnce()
			require.False(t, ok)
			require.True(t, c.Condition.Holds(2))
			require.False(t, c.Condition.Holds(3))
		}},
		{"lte", base + "type: event_count\ncondition:\n    lte: 3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.True(t, c.Condition.Holds(3))
			require.False(t, c.Condition.Holds(4))
		}},
		{"eq", base + "type: event_count\ncondition:\n    eq: 3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.True(t, c.Condition.Holds(3))
			require.False(t, c.Condition.Holds(2))
		}},
		{"neq", base + "type: event_count\ncondition:\n    neq: 3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.True(t, c.Condition.Holds(2))
			require.False(t, c.Condition.Holds(3))
		}},
		{"range in either order", base + "type: event_count\ncondition:\n    lte: 200\n    gt: 100", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []sigma.Bound{bound(sigma.GT, 100, "100"), bound(sigma.LTE, 200, "200")}, c.Condition.Bounds)
			require.False(t, c.Condition.Holds(100))
			require.True(t, c.Condition.Holds(200))
			require.False(t, c.Condition.Holds(201))
		}},
		{"value_count", base + "type: value_count\ncondition:\n    field: ip\n    gte: 3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []string{"ip"}, c.Field)
		}},
		{"value_count of tuples", base + "type: value_count\ncondition:\n    field: [ip, port]\n    gte: 3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []string{"ip", "port"}, c.Field)
		}},
		{"temporal: all by default", base + "type: temporal", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []sigma.Bound{bound(sigma.GTE, 2, "2")}, c.Condition.Bounds)
		}},
		{"temporal: two of three", "rules: [a, b, c]\ngroup-by: [user]\ntimespan: 5m\ntype: temporal\ncondition:\n    gte: 2", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.True(t, c.Condition.Holds(2))
		}},
		{"temporal_ordered", base + "type: temporal_ordered", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, sigma.TemporalOrdered, c.Type)
			require.False(t, c.StrictTies)
		}},
		{"temporal by expression", "rules: [a, b, id-c]\ngroup-by: [user]\ntimespan: 5m\ntype: temporal\ncondition: (a and  b) or id-c", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, "(a and b) or id-c", c.Condition.Expression)
			require.Empty(t, c.Condition.Bounds)
			require.True(t, c.Condition.Tree.Monotone())
			seen := func(ids ...string) bool {
				return c.Condition.Tree.Holds(func(r string) bool { return strings.Contains(strings.Join(ids, " "), r) })
			}
			require.True(t, seen("id-a", "id-b"))
			require.True(t, seen("id-c"))
			require.False(t, seen("id-a"))
			require.False(t, seen())
		}},
		{"temporal by expression with not", base + "type: temporal\ncondition: a and not b", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.False(t, c.Condition.Tree.Monotone())
			_, ok := c.Condition.AtOnce()
			require.False(t, ok)
		}},
		{"value_sum with a float", base + "type: value_sum\ncondition:\n    field: bytes\n    gt: 1.5e3", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, "1.5e3", c.Condition.Bounds[0].Number)
			require.Equal(t, []string{"bytes"}, c.Field)
		}},
		{"value_avg below zero", base + "type: value_avg\ncondition:\n    field: delta\n    lt: -0.25", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, "-0.25", c.Condition.Bounds[0].Number)
		}},
		{"value_median", base + "type: value_median\ncondition:\n    field: ms\n    gte: 100\n    lt: 200", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []sigma.Bound{bound(sigma.GTE, 100, "100"), bound(sigma.LT, 200, "200")}, c.Condition.Bounds)
		}},
		{"value_percentile", base + "type: value_percentile\ncondition:\n    field: ms\n    percentile: 99.5\n    gte: 1000000", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, "99.5", c.Percentile)
		}},
		{"value_percentile as a share", base + "type: value_percentile\ncondition:\n    field: image\n    lte: 1", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Empty(t, c.Percentile)
		}},
		{"references by id", "rules: [id-a]\ngroup-by: [user]\ntimespan: 1w\ntype: event_count\ncondition:\n    gte: 1", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, []string{"id-a"}, c.Rules)
			require.EqualValues(t, 7*24*3600*1000, c.Timespan)
		}},
		{"aliases by name and by id", base + "type: temporal\naliases:\n    user:\n        a: userName\n        id-b: account", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, map[string]map[string]string{"user": {"id-a": "userName", "id-b": "account"}}, c.Aliases)
		}},
		{"alias as a field", base + "type: value_count\naliases:\n    ip:\n        a: src\n        b: dst\ncondition:\n    field: ip\n    gte: 2", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, "dst", c.Aliases["ip"]["id-b"])
		}},
		{"level is the highest of the rules", base + "type: temporal", func(t *testing.T, c *sigma.Correlation) {
			t.Helper()
			require.Equal(t, "high", c.Level)
		}},
	}
}

func TestCorrelations(t *testing.T) {
	for _, c := range correlationCases() {
		t.Run(c.name, func(t *testing.T) {
			set := compile(t, correlationOf(c.lines), sigma.Options{})
			require.Len(t, set.Correlations(), 1)
			c.check(t, set.Correlation("corr"))
		})
	}
}

type correlationFault struct{ name, lines, want string }

func correlationFaults() []correlationFault {
	return []correlationFault{
		{"no type", base + "condition:\n    gte: 1", "correlation.type: is missing"},
		{"unknown type", base + "type: value_mode\ncondition:\n    gte: 1", "is none of event_count"},
		{"no rules", "type: event_count\ngroup-by: [u]\ntimespan: 1m\ncondition:\n    gte: 1", "correlation.rules: is missing"},
		{"empty rules", "rules: []\ntype: event_count\ngroup-by: [u]\ntimespan: 1m\ncondition:\n    gte: 1", "correlation.rules: is empty"},
		{"rule twice", "rules: [a, a]\ntype: temporal\ngroup-by: [u]\ntimespan: 1m", "stands twice"},
		{"rule twice by id and name", "rules: [a, id-a]\ntype: temporal\ngroup-by: [u]\ntimespan: 1m", "is listed already"},
		{"rule that is not there", "rules: [a, z]\ntype: temporal\ngroup-by: [u]\ntimespan: 1m", `no rule with the id or name "z"`},
		{"no condition", base + "type: event_count", "correlation.condition: is missing"},
		{"condition without operator", base + "type: event_count\ncondition: {}", "needs one of"},
		{"unknown operator", base + "type: event_count\ncondition:\n    ge: 1", "is not known"},
		{"three operators", base + "type: event_count\ncondition:\n    gt: 1\n    lt: 9\n    neq: 4", "a lower and an upper bound"},
		{"eq with a bound", base + "type: event_count\ncondition:\n    gt: 1\n    eq: 4", "a lower and an upper bound"},
		{"empty range", base + "type: event_count\ncondition:\n    gt: 9\n    lt: 9", "no count above zero"},
		{"nothing", base + "type: event_count\ncondition:\n    eq: 0", "no count above zero"},
		{"less than one", base + "type: event_count\ncondition:\n    lt: 1", "no count above zero"},
		{"always", base + "type: event_count\ncondition:\n    gte: 0", "holds without an event"},
		{"float count", base + "type: event_count\ncondition:\n    gte: 1.5", "whole number"},
		{"negative count", base + "type: event_count\ncondition:\n    gte: -1", "whole number"},
		{"text count", base + "type: event_count\ncondition:\n    gte: many", "whole number"},
		{"field of event_count", base + "type: event_count\ncondition:\n    field: x\n    gte: 1", "has no meaning for event_count"},
		{"value_count without field", base + "type: value_count\ncondition:\n    gte: 1", "condition.field: is missing"},
		{"value_sum without field", base + "type: value_sum\ncondition:\n    gte: 1", "condition.field: is missing"},
		{"value_avg of two fields", base + "type: value_avg\ncondition:\n    field: [x, y]\n    gte: 1", "must be a single field"},
		{"value_sum of text", base + "type: value_sum\ncondition:\n    field: x\n    gte: lots", "must be a number"},
		{"value_sum of a quoted number", base + "type: value_sum\ncondition:\n    field: x\n    gte: '5'", "must be a number"},
		{"value_sum of an empty range", base + "type: value_sum\ncondition:\n    field: x\n    gt: 2.5\n    lt: 2.5", "no number is between"},
		{"share above all", base + "type: value_percentile\ncondition:\n    field: x\n    lte: 101", "share in %"},
		{"percentile above all", base + "type: value_percentile\ncondition:\n    field: x\n    percentile: 100.1\n    lte: 1", "from 0 to 100"},
		{"percentile of value_avg", base + "type: value_avg\ncondition:\n    field: x\n    percentile: 10\n    lte: 1", "has no meaning for value_avg"},
		{"more than the rules", base + "type: temporal\ncondition:\n    gte: 3", "can't be satisfied by 2 rules"},
		{"expression of event_count", base + "type: event_count\ncondition: a and b", "must be a mapping"},
		{"expression with a stranger", base + "type: temporal\ncondition: a and c", `"c" is not among the rules`},
		{"expression with a pattern", base + "type: temporal\ncondition: 1 of a*", "patterns are not allowed"},
		{"expression that ends early", base + "type: temporal\ncondition: a and", "ends where"},
		{"expression that nothing satisfies", base + "type: temporal\ncondition: a and not a and b", "can't be satisfied"},
		{"expression of no event", base + "type: temporal\ncondition: not a and not b", "can't be satisfied"},
		{"no timespan", "rules: [a]\ntype: event_count\ngroup-by: [u]\ncondition:\n    gte: 1", "correlation.timespan: is missing"},
		{"month", "rules: [a]\ntype: event_count\ngroup-by: [u]\ntimespan: 1M\ncondition:\n    gte: 1", "must be a number and s, m, h, d or w"},
		{"year", "rules: [a]\ntype: event_count\ngroup-by: [u]\ntimespan: 1y\ncondition:\n    gte: 1", "must be a number and s, m, h, d or w"},
		{"zero", "rules: [a]\ntype: event_count\ngroup-by: [u]\ntimespan: 0s\ncondition:\n    gte: 1", "more than nothing"},
		{"modifier in group-by", "rules: [a]\ntype: event_count\ngroup-by: ['u|lower']\ntimespan: 1s\ncondition:\n    gte: 1", "modifiers are not allowed"},
		{"alias that misses a rule", base + "type: temporal\naliases:\n    user:\n        a: x", `has no field for rule "b"`},
		{"alias of a stranger", base + "type: temporal\naliases:\n    user:\n        a: x\n        b: y\n        c: z", `"c" is not among the rules`},
		{"alias by id and by name", base + "type: temporal\naliases:\n    user:\n        a: x\n        id-a: x\n        b: y", "has a field already"},
		{"unknown key", base + "type: temporal\nwindow: 5m", "is not known here"},
	}
}

// TestWindows reads how event times are cut into windows, and holds that the
// default is no new revision.
func TestWindows(t *testing.T) {
	rule := correlationOf(base + "type: event_count\ncondition:\n    gte: 2")
	plain := compile(t, rule, sigma.Options{}).Correlation("corr")
	seen := map[string]bool{plain.Revision: true}
	for _, c := range []struct {
		lines string
		want  sigma.Window
		gap   int64
		same  bool
	}{
		{"window: sliding", "", 0, true},
		{"window: tumbling", sigma.Tumbling, 0, false},
		{"{window: session, gap: 10s}", sigma.Session, 10_000, false},
		{"{window: session, gap: 11s}", sigma.Session, 11_000, false},
	} {
		lines := c.lines
		if lines[0] != '{' {
			lines = "{" + lines + "}"
		}
		corr := compile(t, rule+"stormbell: "+lines+"\n", sigma.Options{}).Correlation("corr")
		require.Equal(t, c.want, corr.Window)
		require.Equal(t, c.gap, corr.Gap)
		require.Equal(t, c.same, seen[corr.Revision], c.lines)
		seen[corr.Revision] = true
	}
	for lines, want := range map[string]string{
		"{window: hopping}":               "stormbell.window: must be sliding, tumbling or session",
		"{window: [tumbling]}":            "stormbell.window: must be sliding, tumbling or session",
		"{window: session}":               "stormbell.gap: is missing",
		"{gap: 1s}":                       "stormbell.gap: only means something to window: session",
		"{window: tumbling, gap: 1s}":     "stormbell.gap: only means something to window: session",
		"{window: session, gap: 9d}":      "stormbell.gap: must not be longer than the timespan",
		"{window: session, gap: a while}": "stormbell.gap: must be a number and s, m, h, d or w",
	} {
		require.Contains(t, strings.Join(reject(rule+"stormbell: "+lines+"\n", sigma.Options{}), "\n"), want)
	}
}

func TestCorrelationFaults(t *testing.T) {
	for _, c := range correlationFaults() {
		t.Run(c.name, func(t *testing.T) {
			found := reject(correlationOf(c.lines), sigma.Options{})
			require.NotEmpty(t, found)
			require.Contains(t, strings.Join(found, "\n"), c.want)
			require.Contains(t, found[0], "test.yml:")
		})
	}
}

func TestChains(t *testing.T) {
	child := "title: Child\nid: child\nname: child\ncorrelation:\n    type: event_count\n    rules: [a]\n    group-by: [host]\n    timespan: 1m\n    condition:\n        gte: 3\n---\n"
	parent := "title: Parent\nid: parent\ncorrelation:\n    type: temporal_ordered\n    rules: [child, b]\n    group-by: [user]\n    timespan: 10m\n"
	t.Run("to any depth, in any order", func(t *testing.T) {
		top := "title: Top\nid: top\ncorrelation:\n    type: event_count\n    rules: [parent]\n    group-by: [user]\n    timespan: 1d\n    condition:\n        gte: 2\n---\n"
		set := compile(t, top+parent+"---\n"+child+namedRule("a", "level: critical")+namedRule("b"), sigma.Options{})
		var order []string
		for _, c := range set.Correlations() {
			order = append(order, c.ID)
		}
		require.Equal(t, []string{"child", "parent", "top"}, order)
		require.Equal(t, 3, set.Correlation("top").Depth)
		require.Equal(t, "critical", set.Correlation("top").Level, "levels are inherited along the chain")
		require.Equal(t, set.Correlation("parent"), set.Correlation("child").Parents[0])
		require.False(t, set.Rule("id-a").Alerts)
		require.False(t, set.Correlation("child").Alerts)
		require.True(t, set.Correlation("top").Alerts)
	})
	t.Run("a rejected rule rejects what refers to it", func(t *testing.T) {
		found := reject(parent+"---\n"+strings.Replace(child, "gte", "ge", 1)+namedRule("a")+namedRule("b"), sigma.Options{})
		require.Len(t, found, 3, "%s", found)
	})
	t.Run("a cycle", func(t *testing.T) {
		found := reject(parent+"---\n"+strings.Replace(child, "rules: [a]", "rules: [parent]", 1)+namedRule("b"), sigma.Options{})
		require.Contains(t, found[0], `refers to itself by way of "child"`)
	})
}

func TestGenerate(t *testing.T) {
	corr := func(id, rules, generate string) string {
		return "title: C\nid: " + id + "\ncorrelation:\n    type: temporal\n    rules: " + rules + "\n    group-by: [u]\n    timespan: 1m\n" + generate + "---\n"
	}
	rules := namedRule("a") + namedRule("b") + namedRule("c")
	cases := []struct {
		name, src string
		alone     []bool // a, b, c alert by themselves
	}{
		{"no correlation", rules, []bool{true, true, true}},
		{"silent by default", rules + corr("x", "[a, b]", ""), []bool{false, false, true}},
		{"explicitly silent", rules + corr("x", "[a, b]", "    generate: false\n"), []bool{false, false, true}},
		{"generate", rules + corr("x", "[a, b]", "    generate: true\n"), []bool{true, true, true}},
		{"generate beside correlation", rules + corr("x", "[a, b]", "generate: true\n"), []bool{true, true, true}},
		{"one true wins over a false", rules + corr("x", "[a, b]", "    generate: false\n") + corr("y", "[b, c]", "    generate: true\n"), []bool{false, true, true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			set := compile(t, c.src, sigma.Options{})
			for i, id := range []string{"id-a", "id-b", "id-c"} {
				require.Equal(t, c.alone[i], set.Rule(id).Alerts, id)
			}
		})
	}
}

// TestExtract holds what a correlation takes from an event: who belongs to
// which group, and what does not count.
func TestExtract(t *testing.T) {
	const lines = base + `type: value_count
aliases:
    user:
        a: userIdentity.userName
        b: account
condition:
    field: [ip, port]
    gte: 2`
	set := compile(t, correlationOf(lines), sigma.Options{})
	c := set.Correlation("corr")
	cases := []struct {
		name, rule, event string
		want              sigma.Values
		counted           bool
	}{
		{"alias of rule a", "id-a", `{"userIdentity":{"userName":"eve"},"account":"x","ip":"1","port":2}`, sigma.Values{Group: []string{"eve"}, Fields: []string{"1", "2"}}, true},
		{"alias of rule b", "id-b", `{"userIdentity":{"userName":"eve"},"account":"x","ip":"1","port":2}`, sigma.Values{Group: []string{"x"}, Fields: []string{"1", "2"}}, true},
		{"text is exact", "id-b", `{"account":" Eve\u0021 ","ip":"1.0","port":1.0}`, sigma.Values{Group: []string{" Eve! "}, Fields: []string{"1.0", "1.0"}}, true},
		{"missing group: not counted", "id-b", `{"ip":"1","port":2}`, sigma.Values{}, false},
		{"null group: not counted", "id-b", `{"account":null,"ip":"1","port":2}`, sigma.Values{}, false},
		{"empty group is a value", "id-b", `{"account":"","ip":"1","port":2}`, sigma.Values{Group: []string{""}, Fields: []string{"1", "2"}}, true},
		{"incomplete tuple", "id-b", `{"account":"x","ip":"1"}`, sigma.Values{Group: []string{"x"}, Incomplete: true}, true},
		{"null in a tuple", "id-b", `{"account":"x","ip":"1","port":null}`, sigma.Values{Group: []string{"x"}, Incomplete: true}, true},
		{"object is compact JSON", "id-b", `{"account":{ "b" : 1, "a" : [ true ] },"ip":"1","port":2}`, sigma.Values{Group: []string{`{"b":1,"a":[true]}`}, Fields: []string{"1", "2"}}, true},
		{"array is compact JSON", "id-b", `{"account":[ "x", null, 1 ],"ip":"1","port":2}`, sigma.Values{Group: []string{`["x",null,1]`}, Fields: []string{"1", "2"}}, true},
		{"several values along a path", "id-a", `{"userIdentity":[{"userName":"x"},{"userName":"y"}],"ip":"1","port":2}`, sigma.Values{Group: []string{`["x","y"]`}, Fields: []string{"1", "2"}}, true},
		{"not JSON", "id-a", `{"userIdentity"`, sigma.Values{}, false},
		{"rule that the correlation does not refer to", "id-c", `{"account":"x","ip":"1","port":2}`, sigma.Values{}, false},
	}
	m := set.Matcher()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			got, counted := m.Extract([]byte(tt.event), c, tt.rule)
			require.Equal(t, tt.counted, counted)
			require.Equal(t, tt.want, got)
		})
	}
}

// TestAccept holds that a caller may refuse what it can't evaluate.
func TestAccept(t *testing.T) {
	found := reject(correlationOf(base+"type: value_sum\ncondition:\n    field: x\n    gt: 1"), sigma.Options{
		Accept: func(c *sigma.Correlation) error { return refusal(string(c.Type) + " is beyond me") },
	})
	require.Equal(t, []string{"test.yml:37: correlation: value_sum is beyond me"}, found)
}

type refusal string

func (e refusal) Error() string { return string(e) }
