package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

func sourceRule(id, logsource string) string {
	return "title: " + id + "\nid: " + id + "\nlogsource: " + logsource + "\ndetection:\n    sel:\n        f: x\n    condition: sel\n---\n"
}

// TestRouting holds which rules apply to an event: every dimension that a rule
// names must be equal; what the event's source leaves open excludes nothing,
// unless it asserts all three.
func TestRouting(t *testing.T) {
	set := compile(t, sourceRule("aws", "{product: aws}")+
		sourceRule("trail", "{product: aws, service: cloudtrail}")+
		sourceRule("upper", "{product: AWS, service: CloudTrail}")+
		sourceRule("process", "{product: windows, category: process_creation}")+
		sourceRule("proxy", "{category: proxy}")+
		sourceRule("dns", "{service: dns, definition: 'whatever the log needs'}"), sigma.Options{})
	cases := []struct {
		name   string
		src    sigma.LogSource
		strict bool
		want   string
	}{
		{"all three asserted", sigma.LogSource{Product: "aws", Service: "cloudtrail"}, true, "aws trail upper"},
		{"case does not count", sigma.LogSource{Product: "Aws", Service: "CLOUDTRAIL"}, true, "aws trail upper"},
		{"another service", sigma.LogSource{Product: "aws", Service: "guardduty"}, true, "aws"},
		{"a service that no rule names", sigma.LogSource{Product: "aws", Service: "nothing"}, false, "aws proxy"},
		{"open dimensions exclude nothing", sigma.LogSource{Product: "aws"}, false, "aws trail upper proxy dns"},
		{"open dimensions exclude where all are asserted", sigma.LogSource{Product: "aws"}, true, "aws"},
		{"nothing asserted", sigma.LogSource{}, false, "aws trail upper process proxy dns"},
		{"nothing, strictly", sigma.LogSource{}, true, ""},
		{"category", sigma.LogSource{Category: "proxy"}, true, "proxy"},
		{"another product", sigma.LogSource{Product: "linux"}, false, "proxy dns"},
		{"product and category", sigma.LogSource{Product: "windows", Category: "process_creation"}, true, "process"},
	}
	m := set.Matcher()
	for range 2 { // from the caches too
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				var ids []string
				for _, r := range m.Match(sigma.Event{Raw: []byte(`{"f":"x"}`), LogSource: c.src, Strict: c.strict}, nil) {
					ids = append(ids, r.ID)
				}
				require.Equal(t, c.want, strings.Join(ids, " "))
			})
		}
	}
}

// TestOwnLogSource holds that an event is routed by what it says of itself.
func TestOwnLogSource(t *testing.T) {
	rules := sourceRule("trail", "{product: aws, service: cloudtrail}") + sourceRule("windows", "{product: windows}") +
		sourceRule("process", "{product: windows, category: process_creation}") + sourceRule("proxy", "{category: proxy}") +
		strings.Replace(sourceRule("other", "{product: other}"), "f: x", "deep: x", 1)
	deep := strings.Repeat("[", 600) + strings.Repeat("]", 600)
	cases := []struct {
		name, event, want string
		src               sigma.LogSource
		strict            bool
	}{
		{name: "nothing", event: `{"f":"x"}`, want: "trail windows process proxy"},
		{name: "nothing, strictly", event: `{"f":"x"}`, strict: true},
		{name: "product", event: `{"f":"x","product":"windows"}`, want: "windows process proxy"},
		{name: "behind what is matched, in another case", event: `{"f":"x","service":"CloudTrail","product":"\u0041WS"}`, want: "trail proxy"},
		{name: "the last of duplicates", event: `{"product":"aws","f":"x","product":"windows","category":"process_creation"}`, want: "windows process"},
		{name: "a value that no rule names", event: `{"f":"x","product":"` + strings.Repeat("long", 100) + `"}`, want: "proxy"},
		{name: "null", event: `{"f":"x","product":null,"category":"proxy"}`, want: "trail windows proxy"},
		{name: "asserted by the source", event: `{"f":"x","product":"windows","service":"cloudtrail"}`, src: sigma.LogSource{Product: "aws"}, want: "trail proxy"},
		{name: "too deep where no rule for it reads", event: `{"f":"x","product":"windows","deep":` + deep + `}`, want: "windows process proxy"},
	}
	set := compile(t, rules, sigma.Options{})
	renamed := compile(t, rules, sigma.Options{LogSourceFields: sigma.LogSource{Product: "os.name", Service: "log", Category: "kind"}})
	names := strings.NewReplacer(`"product"`, `"os.name"`, `"service"`, `"log"`, `"category"`, `"kind"`)
	m, other := set.Matcher(), renamed.Matcher()
	for range 2 { // from the caches too
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				for m, raw := range map[*sigma.Matcher]string{m: c.event, other: names.Replace(c.event)} {
					var ids []string
					for _, r := range m.Match(sigma.Event{Raw: []byte(raw), LogSource: c.src, Strict: c.strict, Own: true}, nil) {
						ids = append(ids, r.ID)
					}
					require.NoError(t, m.Err())
					require.Equal(t, c.want, strings.Join(ids, " "))
				}
			})
		}
	}
	for _, bad := range []string{`[1]`, `{"f":"x"`, ``} {
		require.Empty(t, m.Match(sigma.Event{Raw: []byte(bad), Own: true}, nil))
		require.Error(t, m.Err())
	}
}

// TestRevision holds what names a rule's decision: what decides, and nothing else.
func TestRevision(t *testing.T) {
	const rule = "title: T\nid: r\nlevel: low\nlogsource:\n    product: p\n    definition: d\ndetection:\n    sel:\n        f|expand: '%v%'\n        g: [1, 2]\n    condition: sel\n"
	opts := sigma.Options{Placeholders: map[string][]string{"v": {"a"}, "w": {"b"}}}
	revision := func(t *testing.T, src string, opts sigma.Options) string {
		t.Helper()
		return compile(t, src, opts).Rule("r").Revision
	}
	same := map[string]string{
		"title": strings.Replace(rule, "title: T", "title: U", 1), "level": strings.Replace(rule, "low", "high", 1),
		"definition": strings.Replace(rule, "definition: d", "definition: e", 1), "tags": rule + "tags: [attack.t1]\n",
		"order of fields": strings.Replace(rule, "        f|expand: '%v%'\n        g: [1, 2]\n", "        g: [1, 2]\n        f|expand: '%v%'\n", 1),
		"comment":         "# hello\n" + rule, "case of the log source": strings.Replace(rule, "product: p", "product: P", 1),
	}
	for name, src := range same {
		t.Run("same for another "+name, func(t *testing.T) {
			require.Equal(t, revision(t, rule, opts), revision(t, src, opts))
		})
	}
	other := map[string]string{
		"value": strings.Replace(rule, "[1, 2]", "[1, 3]", 1), "type of value": strings.Replace(rule, "[1, 2]", "[1, '2']", 1),
		"field": strings.Replace(rule, "g:", "h:", 1), "modifier": strings.Replace(rule, "g:", "g|contains:", 1),
		"condition": strings.Replace(rule, "condition: sel", "condition: not sel", 1),
		"product":   strings.Replace(rule, "product: p", "product: q", 1), "service": strings.Replace(rule, "product: p", "service: p", 1),
	}
	seen := map[string]string{revision(t, rule, opts): "the rule itself"}
	for name, src := range other {
		got := revision(t, src, opts)
		require.Empty(t, seen[got], "another %s", name)
		seen[got] = name
	}
	require.NotEqual(t, revision(t, rule, opts), revision(t, rule, sigma.Options{Placeholders: map[string][]string{"v": {"c"}}}), "placeholder's values")
	require.Equal(t, revision(t, rule, opts), revision(t, rule, sigma.Options{Placeholders: map[string][]string{"v": {"a"}}}), "a placeholder that is not used")
}

func TestCorrelationRevision(t *testing.T) {
	revision := func(t *testing.T, src string) string {
		t.Helper()
		return compile(t, src, sigma.Options{}).Correlation("corr").Revision
	}
	plain := correlationOf(base + "type: temporal\ncondition: a or b")
	require.Equal(t, revision(t, plain), revision(t, strings.Replace(plain, "title: Corr", "title: Other", 1)))
	require.Equal(t, revision(t, plain), revision(t, strings.Replace(plain, "condition: a or b", "condition: (id-a  OR b)", 1)), "how the expression is written")
	seen := map[string]bool{revision(t, plain): true}
	for _, change := range [][2]string{
		{"a or b", "a and b"},
		{"a or b", "a and not b"},
		{"5m", "6m"},
		{"[user]", "[user, host]"},
		{"type: temporal", "type: temporal_ordered"},
		{"rules: [a, b]", "rules: [b, a]"},
		{"        a: 1", "        a: 2"},
		{"    condition: a or b", "    aliases:\n        user:\n            a: x\n            b: y\n    condition: a or b"},
	} {
		got := revision(t, strings.Replace(plain, change[0], change[1], 1))
		require.False(t, seen[got], "%v", change)
		seen[got] = true
	}
}

// TestNoAllocations holds that an event which nothing matches costs no memory.
func TestNoAllocations(t *testing.T) {
	set := compile(t, selection("f|contains: needle\ng: [a, b, c, d, e]\nh|re: 'ab+c'\nn|gt: 5")+"---\n"+
		strings.Replace(ruleWith("k:\n    - word\ncondition: k"), "id: test", "id: test2", 1), sigma.Options{})
	m := set.Matcher()
	ev := sigma.Event{Raw: []byte(`{"f":"HAY\u0041 ünd Straw needle","g":{"x":["\"q\"",1.50]},"h":"xabd","n":12.5,"z":[{"y":"W\u00f6rd"}]}`)}
	var dst []*sigma.Rule
	require.Empty(t, m.Match(ev, dst))
	require.NoError(t, m.Err())
	require.Zero(t, testing.AllocsPerRun(100, func() { dst = m.Match(ev, dst[:0]) }))
	ev.Own = true
	require.Empty(t, m.Match(ev, dst))
	require.Zero(t, testing.AllocsPerRun(100, func() { dst = m.Match(ev, dst[:0]) }))
}
