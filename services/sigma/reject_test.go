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

// rejection is a rule that is refused; noRule is what is not even a document
// of Sigma.
type rejection struct {
	name, rule, want string
	noRule           bool
}

// changed is a good rule and a good correlation of it, after replacements.
func changed(change ...string) string {
	return selection("f: x") + "---\n" + strings.NewReplacer(change...).Replace(correlated)
}

func rejections() []rejection {
	with := changed
	var out []rejection
	for _, c := range []struct{ name, rule, want string }{
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
		{"modifier twice", selection("f|contains|contains: x"), "stands twice"},
		{"re that is not first", selection("f|contains|re: x"), "must be the first"},
		{"i without re", selection("f|contains|i: x"), "only follows re"},
		{"re with windash", selection("f|re|windash: x"), "can't stand with re"},
		{"re of a number", selection("f|re: 5"), "put it in quotes"},
		{"re i cased", selection("f|re|i|cased: x"), "contradict"},
		{"lookbehind", selection("f|re: '(?<=a)b'"), "RE2"},
		{"backreference", selection(`f|re: '(a)\1'`), "RE2"},
		{"base64 of a number", selection("f|base64: 5"), "needs text, not int"},
		{"windash of true", selection("f|windash: true"), "needs text, not bool"},
		{"wide alone", selection("f|wide: x"), "only base64 or base64offset"},
		{"wide after base64", selection("f|base64|wide: x"), "before base64"},
		{"base64 twice over", selection("f|base64|base64offset: x"), "can't stand together"},
		{"gt of text", selection("f|gt: x"), "a number without quotes"},
		{"gt of a quoted number", selection("f|gt: '5'"), "a number without quotes"},
		{"gt and lt", selection("f|gt|lt: 5"), "can't stand together"},
		{"gt contains", selection("f|gt|contains: 5"), "needs text"},
		{"gt cased", selection("f|gt|cased: 5"), "needs text"},
		{"hour that no day has", selection("f|hour: 24"), "no date has hour 24"},
		{"half an hour", selection("f|hour: 3.5"), "no date has hour 3.5"},
		{"two parts of a date", selection("f|hour|minute: 3"), "can't stand together"},
		{"cidr of text", selection("f|cidr: x"), "neither a network nor an address"},
		{"cidr of a list with null", selection("f|cidr: [10.0.0.0/8, null]"), "null can't be in a list"},
		{"cidr contains", selection("f|cidr|contains: 10.0.0.0/8"), "needs text"},
		{"exists of text", selection("f|exists: 'true'"), "takes true or false"},
		{"exists of a list", selection("f|exists: [true, false]"), "takes true or false"},
		{"exists with another", selection("f|exists|neq: true"), "must stand alone"},
		{"fieldref of a number", selection("f|fieldref: 5"), "takes the name of a field"},
		{"fieldref with base64", selection("f|fieldref|base64: g"), "can't stand with fieldref"},
		{"fieldref twice anchored", selection("f|fieldref|contains|startswith: g"), "can't stand together"},
		{"keyword fieldref", ruleWith("sel:\n    '|fieldref': g\ncondition: sel"), "needs a field"},
		{"keyword cidr", ruleWith("sel:\n    '|cidr': 10.0.0.0/8\ncondition: sel"), "needs a field"},
		{"keyword gt", ruleWith("sel:\n    '|gt': 1\ncondition: sel"), "needs a field"},
		{"keyword exists", ruleWith("sel:\n    '|exists': true\ncondition: sel"), "needs a field"},
		{"expand without a placeholder", selection("f|expand: x"), "there is none"},
		{"contains null", selection("f|contains: null"), "null must stand alone"},
		{"empty list", selection("f: []"), "is an empty list"},
		{"mapping as a value", selection("f:\n    g: x"), "write the path with dots"},
		{"list in a list", selection("f: [[x]]"), "not a list"},
		{"empty modifier", selection("f|: x"), "unknown modifier"},
		{"empty keyword", ruleWith("sel: ['']\ncondition: sel"), "must not be empty"},
		{"no identifiers", ruleWith("condition: sel"), "needs a search identifier"},
		{"reserved name", ruleWith("not:\n    f: x\ncondition: 1 of them"), "a search identifier is one word"},
		{"timeframe", ruleWith("sel:\n    f: x\ntimeframe: 5m\ncondition: sel"), "write a correlation rule"},
		{"field twice", selection("f: x\nf: y"), "stands here and in line 7"},
		{"no log source", "title: t\nid: test\ndetection:\n    sel:\n        f: x\n    condition: sel\n", "logsource: is missing"},
		{"log source of nothing", "title: t\nid: test\nlogsource:\n    definition: x\ndetection:\n    sel:\n        f: x\n    condition: sel\n", "names no product"},
		{"no title", strings.Replace(selection("f: x"), "title: Test\n", "", 1), "title: is missing"},
		{"level that is not one", selection("f: x") + "level: severe\n", "is none of informational"},
		{"detection and correlation", selection("f: x") + "correlation:\n    type: temporal\n", "not both"},
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
	} {
		out = append(out, rejection{c.name, c.rule, c.want, c.name == "alias bomb" || c.name == "field twice"})
	}
	return out
}

// TestRejects holds that what is not supported is refused where rules are
// loaded, with its file and line, and is never a rule that cannot match.
func TestRejects(t *testing.T) {
	for _, c := range rejections() {
		t.Run(c.name, func(t *testing.T) {
			found := reject(c.rule, sigma.Options{})
			require.NotEmpty(t, found, "%s", c.rule)
			require.Contains(t, found[0], c.want)
		})
	}
	require.Empty(t, reject(changed(), sigma.Options{}), "what all correlations here are made from")
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
