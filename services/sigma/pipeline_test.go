package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const piped = `title: Piped
id: piped
name: piped
tags: [attack.execution]
logsource: {product: windows, category: process_creation}
detection:
    sel:
        Image|endswith: '\cmd.exe'
        CommandLine|contains: 'a'
        Ref|fieldref: Image
    filter:
        User: null
    condition: sel and not filter
---
title: Other
id: other
logsource: {product: linux}
detection:
    sel:
        Image: x
    condition: sel
---
title: Corr
id: corr
correlation:
    type: value_count
    rules: [piped]
    group-by: [User]
    timespan: 5m
    condition: {field: CommandLine, gte: 2}
`

// pipelines reads pipelines of which each is good.
func pipelines(tb testing.TB, src string) []*sigma.Pipeline {
	tb.Helper()
	out, problems := sigma.ParsePipelines([]byte(src), "pipe.yml")
	require.Empty(tb, errorsOf(problems), "%s", src)
	return out
}

func steps(list string) string { return "name: Test\ntransformations:\n" + indent(list) }

func TestPipelines(t *testing.T) {
	rules, _, _ := strings.Cut(piped, "---\ntitle: Corr")
	const plain = `{"Image":"C:\\cmd.exe","CommandLine":"xax","Ref":"c:\\CMD.exe","User":"u"}`
	const source = "rule_conditions:\n      - {type: logsource, product: windows}\n"
	cases := []struct {
		name, pipeline string
		yes, no        []string
	}{
		{"none", "", []string{plain}, []string{`{"Image":"cmd.exe"}`}},
		{
			"field_name_mapping", steps("- type: field_name_mapping\n  mapping: {Image: process.executable, CommandLine: process.args, User: user.name}"),
			[]string{`{"process":{"executable":"C:\\cmd.exe","args":["b","xax"]},"Ref":"C:\\cmd.exe","user":{"name":"u"}}`},
			[]string{plain, `{"process":{"executable":"C:\\cmd.exe","args":"xax"},"Ref":"C:\\cmd.exe"}`},
		},
		{
			"mapping to several fields", steps("- type: field_name_mapping\n  mapping: {Image: [exe, path], Ref: [r, s], User: [u, v]}"),
			[]string{`{"exe":"\\cmd.exe","CommandLine":"a","r":"\\cmd.exe","u":1,"v":2}`, `{"path":"\\cmd.exe","CommandLine":"a","s":"\\cmd.exe","u":1}`},
			[]string{`{"exe":"\\cmd.exe","CommandLine":"a","r":"\\cmd.exe"}`, `{"exe":"\\cmd.exe","CommandLine":"a","r":"x","s":"y","u":1,"v":1}`},
		},
		{
			"mappings one after the other", steps("- type: field_name_mapping\n  mapping: {Image: I, Ref: R}\n- type: field_name_mapping\n  mapping: {I: exe}"),
			[]string{`{"exe":"\\cmd.exe","CommandLine":"a","R":"\\cmd.exe","User":"u"}`},
			[]string{plain},
		},
		{
			"field_name_prefix", steps("- type: field_name_prefix\n  prefix: win."),
			[]string{`{"win":{"Image":"\\cmd.exe","CommandLine":"a","Ref":"\\cmd.exe","User":"u"}}`},
			[]string{plain},
		},
		{
			"field_name_suffix", steps("- type: field_name_suffix\n  suffix: .keyword\n  field_name_conditions:\n    - {type: include_fields, fields: [Image]}"),
			[]string{`{"Image":{"keyword":"\\cmd.exe"},"CommandLine":"a","Ref":"\\cmd.exe","User":"u"}`},
			[]string{plain},
		},
		{
			"exclude_fields by expression", steps("- type: field_name_prefix\n  prefix: win.\n  field_name_conditions:\n    - {type: exclude_fields, fields: ['(Im|Com|Re)', Us], mode: re}"),
			[]string{plain},
			nil,
		},
		{
			"field_name_prefix_mapping", steps("- type: field_name_prefix_mapping\n  mapping: {Comm: c., Im: [i., j.]}"),
			[]string{`{"j":{"age":"\\cmd.exe"},"c":{"andLine":"a"},"Ref":"\\cmd.exe","User":"u"}`},
			[]string{plain},
		},
		{
			"drop_detection_item", steps("- type: drop_detection_item\n  field_name_conditions:\n    - {type: include_fields, fields: [Ref, User]}"),
			[]string{`{"Image":"\\cmd.exe","CommandLine":"a"}`},
			[]string{`{"Image":"\\cmd.exe"}`},
		},
		{
			"drop by value", steps("- type: drop_detection_item\n  detection_item_conditions:\n    - {type: match_string, cond: any, pattern: 'cmd\\.exe$'}\n- type: drop_detection_item\n  field_name_conditions:\n    - {type: include_fields, fields: [Ref]}"),
			[]string{`{"CommandLine":"a","User":"u"}`},
			[]string{`{"CommandLine":"b","User":"u"}`},
		},
		{
			"add_condition", steps("- type: add_condition\n  conditions: {EventID: [1, 4688], Channel|startswith: Sec}"),
			[]string{strings.Replace(plain, "{", `{"EventID":4688,"Channel":"Security",`, 1)},
			[]string{plain, strings.Replace(plain, "{", `{"EventID":2,"Channel":"Security",`, 1)},
		},
		{
			"add_condition negated", steps("- type: add_condition\n  negated: true\n  conditions: {EventID: 5}"),
			[]string{plain},
			[]string{strings.Replace(plain, "{", `{"EventID":5,`, 1)},
		},
		{
			"what is added is changed by what follows only", steps("- type: field_name_prefix\n  prefix: a.\n- type: add_condition\n  conditions: {EventID: 1}\n- type: field_name_mapping\n  mapping: {EventID: id, a.Ref: r}"),
			[]string{`{"a":{"Image":"\\cmd.exe","CommandLine":"a","User":"u"},"r":"\\cmd.exe","id":1}`},
			[]string{`{"a":{"Image":"\\cmd.exe","CommandLine":"a","User":"u","EventID":1},"r":"\\cmd.exe"}`},
		},
		{
			"replace_string", steps("- type: replace_string\n  regex: '^\\\\(cmd)\\.exe$'\n  replacement: '\\1$'"),
			[]string{`{"Image":"xcmd$","CommandLine":"a","Ref":"xcmd$","User":"u"}`},
			[]string{plain},
		},
		{
			"change_logsource", steps("- type: change_logsource\n  product: edr"),
			[]string{plain},
			nil,
		},
		{
			"rule condition that holds", steps("- type: field_name_prefix\n  prefix: win.\n  " + source), nil, []string{plain},
		},
		{
			"rule condition that does not hold", steps("- type: field_name_prefix\n  prefix: win.\n  rule_cond_not: true\n  " + source), []string{plain}, nil,
		},
		{
			"rule conditions by or", steps("- type: field_name_prefix\n  prefix: win.\n  rule_cond_op: or\n  rule_conditions:\n    - {type: logsource, product: aws}\n    - {type: tag, tag: attack.execution}"), nil, []string{plain},
		},
		{
			"rule conditions by and", steps("- type: field_name_prefix\n  prefix: win.\n  rule_conditions:\n    - {type: logsource, product: aws}\n    - {type: tag, tag: attack.execution}"), []string{plain}, nil,
		},
		{
			"a condition sees the log source as it is by then", steps("- type: change_logsource\n  product: edr\n- type: field_name_prefix\n  prefix: win.\n  " + source), []string{plain}, nil,
		},
		{
			"processing_item_applied", steps("- id: first\n  type: change_logsource\n  product: edr\n- type: drop_detection_item\n  field_name_conditions:\n    - {type: include_fields, fields: [Ref]}\n  rule_conditions:\n    - {type: processing_item_applied, processing_item_id: first}"),
			[]string{`{"Image":"\\cmd.exe","CommandLine":"a","User":"u"}`},
			nil,
		},
		{
			"by priority", "priority: 20\n" + steps("- type: field_name_mapping\n  mapping: {I: exe}") + "---\npriority: 10\n" + steps("- type: field_name_mapping\n  mapping: {Image: I, Ref: R}"),
			[]string{`{"exe":"\\cmd.exe","CommandLine":"a","R":"\\cmd.exe","User":"u"}`},
			nil,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			opts := sigma.Options{Pipelines: pipelines(t, c.pipeline)}
			for _, e := range c.yes {
				require.Equal(t, "piped", found(t, rules, e, opts), e)
			}
			for _, e := range c.no {
				require.Empty(t, found(t, rules, e, opts), e)
			}
		})
	}
}

func TestPipelinePlaceholders(t *testing.T) {
	const rule = "title: T\nid: t\nlogsource: {product: p}\ndetection:\n    s:\n        u|expand: '%admins%'\n    condition: s\n"
	vars := "vars:\n    admins: [root, 'adm*']\n    other: [x]\n"
	given := sigma.Options{Pipelines: pipelines(t, vars+steps("- type: value_placeholders"))}
	require.Equal(t, "t", found(t, rule, `{"u":"Adm7"}`, given))
	require.Empty(t, found(t, rule, `{"u":"eve"}`, given))
	excluded := sigma.Options{Pipelines: pipelines(t, vars+steps("- type: value_placeholders\n  exclude: [admins]"))}
	require.Contains(t, reject(rule, excluded)[0], "has no configured values")
	excluded.Placeholders = map[string][]string{"admins": {"eve"}}
	require.Equal(t, "t", found(t, rule, `{"u":"eve"}`, excluded), "the deployment's own")
	wild := sigma.Options{Pipelines: pipelines(t, steps("- type: wildcard_placeholders"))}
	require.Equal(t, "t", found(t, rule, `{"u":"anyone"}`, wild))
	require.Empty(t, found(t, rule, `{}`, wild))
	require.NotEqual(t, compile(t, rule, given).Rule("t").Revision, compile(t, rule, wild).Rule("t").Revision)
}

func TestPipelineRefusals(t *testing.T) {
	rule := sigma.Options{Pipelines: pipelines(t, steps("- type: rule_failure\n  message: not for us\n  rule_conditions:\n    - {type: logsource, product: windows}"))}
	require.Equal(t, "test.yml:1: is refused by the pipeline in pipe.yml:3: not for us", reject(piped, rule)[0])
	item := sigma.Options{Pipelines: pipelines(t, steps("- type: detection_item_failure\n  message: no users\n  field_name_conditions:\n    - {type: include_fields, fields: [User]}"))}
	require.Equal(t, "test.yml:12: detection.filter.User: is refused by the pipeline in pipe.yml:3: no users", reject(piped, item)[0])
	all := sigma.Options{Pipelines: pipelines(t, steps("- type: drop_detection_item"))}
	require.Contains(t, reject(piped, all)[0], "pipelines drop all of it")
	added := sigma.Options{Pipelines: pipelines(t, steps("- type: add_condition\n  conditions: {x|expand: '%nobody%'}"))}
	require.Contains(t, reject(piped, added)[0], "the pipeline in pipe.yml:4: add_condition.x|expand: placeholder %nobody%")
}

// TestPipelineRevision holds that a pipeline is part of a revision by what it
// changes, for rules and for correlations.
func TestPipelineRevision(t *testing.T) {
	revisions := func(pipeline string) [3]string {
		set := compile(t, piped, sigma.Options{Pipelines: pipelines(t, pipeline)})
		return [3]string{set.Rule("piped").Revision, set.Rule("other").Revision, set.Correlation("corr").Revision}
	}
	none := revisions("")
	require.Equal(t, none, revisions(steps("- type: field_name_mapping\n  mapping: {Nothing: x}")), "nothing changes")
	one := revisions(steps("- type: field_name_mapping\n  mapping: {CommandLine: args}"))
	require.NotEqual(t, none[0], one[0])
	require.Equal(t, none[1], one[1], "the other rule has no such field")
	require.NotEqual(t, none[2], one[2])
	require.Equal(t, one, revisions("name: x\npriority: 7\n"+strings.TrimPrefix(steps("- type: field_name_mapping\n  mapping: {Nothing: x}\n- type: field_name_mapping\n  mapping: {CommandLine: args, More: y}"), "name: Test\n")), "only the outcome counts")
	seen := map[string]string{none[0]: "none", one[0]: "one"}
	for _, p := range []string{
		"- type: field_name_mapping\n  mapping: {Image: [exe, path]}", "- type: field_name_prefix\n  prefix: w.",
		"- type: drop_detection_item\n  field_name_conditions:\n    - {type: include_fields, fields: [User]}", "- type: add_condition\n  conditions: {x: 1}",
		"- type: add_condition\n  negated: true\n  conditions: {x: 1}", "- type: replace_string\n  regex: cmd\n  replacement: sh", "- type: change_logsource\n  product: edr",
	} {
		got := revisions(steps(p))[0]
		require.Empty(t, seen[got], p)
		seen[got] = p
	}
}

// TestPipelineExtracts holds that a correlation reads the fields by the names
// that its rule's events have.
func TestPipelineExtracts(t *testing.T) {
	set := compile(t, piped, sigma.Options{Pipelines: pipelines(t, steps("- type: field_name_mapping\n  mapping: {CommandLine: args, User: user.name}"))})
	values, ok := set.Matcher().Extract([]byte(`{"user":{"name":"eve"},"args":"x","User":"no","CommandLine":"no"}`), set.Correlation("corr"), "piped")
	require.True(t, ok)
	require.Equal(t, sigma.Values{Group: []string{"eve"}, Fields: []string{"x"}}, values)
	several := sigma.Options{Pipelines: pipelines(t, steps("- type: field_name_mapping\n  mapping: {User: [a, b]}"))}
	require.Contains(t, reject(piped, several)[0], `give the field "User" of rule "piped" several names`)
}

func TestPipelineLogSource(t *testing.T) {
	set := compile(t, piped, sigma.Options{Pipelines: pipelines(t, steps("- type: change_logsource\n  product: EDR\n  rule_conditions:\n    - {type: logsource, product: linux}"))})
	require.Equal(t, sigma.LogSource{Product: "edr"}, set.Rule("other").LogSource)
	require.Len(t, set.Matcher().Match(sigma.Event{Raw: []byte(`{"Image":"x"}`), LogSource: sigma.LogSource{Product: "edr"}}, nil), 1)
	require.Empty(t, set.Matcher().Match(sigma.Event{Raw: []byte(`{"Image":"x"}`), LogSource: sigma.LogSource{Product: "linux"}}, nil))
}

func TestPipelineFaults(t *testing.T) {
	cases := []struct{ name, pipeline, want string }{
		{"not YAML", "a: [", "pipe.yml:1: not valid YAML"},
		{"not a mapping", "- a", "pipe.yml:1: a pipeline must be a mapping"},
		{"no transformations", "name: x", "pipe.yml:1: transformations: is missing"},
		{"unknown key", "name: x\nfinalizers: []\ntransformations: []", "pipe.yml:2: finalizers: is not known here"},
		{"priority that is none", "priority: high\ntransformations: []", "pipe.yml:1: priority: must be a whole number"},
		{"unknown type", steps("- type: nonsense"), `pipe.yml:3: transformations.1.type: "nonsense" is none of add_condition`},
		{"no type", steps("- id: x"), "pipe.yml:3: transformations.1.type"},
		{"unknown parameter", steps("- type: field_name_prefix\n  prefix: x\n  suffix: y"), "pipe.yml:5: transformations.1.suffix: is not known here"},
		{"no mapping", steps("- type: field_name_mapping"), "pipe.yml:3: transformations.1.mapping: is missing"},
		{"mapping to nothing", steps("- type: field_name_mapping\n  mapping: {a: []}"), "pipe.yml:4: transformations.1.mapping.a: must be the name"},
		{"no value", steps("- type: set_value"), "pipe.yml:3: transformations.1.value: is missing"},
		{"value is a list", steps("- type: set_value\n  value: [a]"), "pipe.yml:4: transformations.1.value: must be a text"},
		{"expression", steps("- type: replace_string\n  regex: '(?=x)'\n  replacement: y"), "pipe.yml:4: transformations.1.regex: not a regular expression"},
		{"log source of nothing", steps("- type: change_logsource"), "names no product"},
		{"unknown rule condition", steps("- type: drop_detection_item\n  rule_conditions:\n    - {type: full_moon}"), "pipe.yml:5: transformations.1.rule_conditions.1.type"},
		{"id that is not there", steps("- type: drop_detection_item\n  rule_conditions:\n    - {type: processing_item_applied, processing_item_id: x}"), "has the id \"x\""},
		{"unknown field condition", steps("- type: drop_detection_item\n  field_name_conditions:\n    - {type: fields}"), "is none of include_fields"},
		{"unknown mode", steps("- type: drop_detection_item\n  field_name_conditions:\n    - {type: include_fields, fields: [a], mode: glob}"), "mode: must be plain or re"},
		{"unknown value condition", steps("- type: drop_detection_item\n  detection_item_conditions:\n    - {type: is_null}"), "is not match_string"},
		{"condition with an unknown modifier", steps("- type: add_condition\n  conditions: {'a|nonsense': x}"), "pipe.yml:4: transformations.1.conditions.a|nonsense: unknown modifier"},
		{"rule_cond_op", steps("- type: drop_detection_item\n  rule_cond_op: xor"), "rule_cond_op: must be and or or"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, problems := sigma.ParsePipelines([]byte(c.pipeline), "pipe.yml")
			require.Empty(t, out)
			require.NotEmpty(t, errorsOf(problems))
			require.Contains(t, errorsOf(problems)[0], c.want)
		})
	}
	good, problems := sigma.ParsePipelines([]byte(steps("- type: nonsense")+"---\n"+steps("- type: drop_detection_item")), "pipe.yml")
	require.Len(t, good, 1, "the others run")
	require.Len(t, problems, 1)
}

// TestSetValue holds that values are set for the fields and values that are
// asked for, and for later transformations.
func TestSetValue(t *testing.T) {
	const rule = "title: T\nid: r\nlogsource: {product: windows}\ndetection:\n    sel:\n        EventID: [4625, 4626]\n        LogonType: 4625\n    condition: sel\n"
	const set = "- type: set_value\n  value: failure\n  field_name_conditions: [{type: include_fields, fields: [EventID]}]\n  detection_item_conditions: [{type: match_string, cond: all, pattern: '^462[56]$'}]\n"
	const rename = "- type: field_name_mapping\n  mapping: {EventID: Outcome}\n  detection_item_conditions: [{type: match_string, pattern: '^failure$'}]\n"
	for name, c := range map[string]struct {
		steps, event string
		want         bool
	}{
		"set":            {set, `{"EventID":"failure","LogonType":4625}`, true},
		"not as before":  {set, `{"EventID":4625,"LogonType":4625}`, false},
		"other field":    {set, `{"EventID":"failure","LogonType":"failure"}`, false},
		"then renamed":   {set + rename, `{"Outcome":"failure","LogonType":4625}`, true},
		"not all values": {strings.Replace(set, "462[56]", "4625", 1), `{"EventID":4626,"LogonType":4625}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := compile(t, rule, sigma.Options{Pipelines: pipelines(t, steps(c.steps))}).Matcher()
			require.Equal(t, c.want, len(m.Match(sigma.Event{Raw: []byte(c.event)}, nil)) == 1)
		})
	}
}

// TestPipelinesOfADocument holds that rules of one set may have pipelines of
// their own, and that their order plays no part.
func TestPipelinesOfADocument(t *testing.T) {
	rules, _, _ := strings.Cut(piped, "---\ntitle: Corr")
	docs, problems := sigma.Parse([]byte(rules), "r.yml")
	require.Empty(t, errorsOf(problems))
	a := pipelines(t, "name: a\ntransformations:\n- {type: field_name_prefix, prefix: a.}\n")[0]
	b := pipelines(t, "name: b\ntransformations:\n- {type: field_name_prefix, prefix: b.}\n")[0]
	docs[1].Pipelines = []*sigma.Pipeline{b, a}
	set, problems := sigma.Compile(docs, sigma.Options{})
	require.Empty(t, errorsOf(problems))
	found := func(event string) (ids []string) {
		for _, r := range set.Matcher().Match(sigma.Event{Raw: []byte(event)}, nil) {
			ids = append(ids, r.ID)
		}
		return ids
	}
	require.Equal(t, []string{"other"}, found(`{"b.a.Image":"x"}`))
	require.Empty(t, found(`{"a.b.Image":"x"}`))
	require.Empty(t, found(`{"Image":"x"}`))
	require.Equal(t, []string{"piped"}, found(`{"Image":"C:\\cmd.exe","CommandLine":"a","Ref":"c:\\cmd.exe","User":"u"}`), "other rules are as they were")

	revision := set.Rule("other").Revision
	docs[1].Pipelines = []*sigma.Pipeline{a, b}
	set, _ = sigma.Compile(docs, sigma.Options{})
	require.Equal(t, revision, set.Rule("other").Revision)
	docs[1].Pipelines = nil
	set, _ = sigma.Compile(docs, sigma.Options{Pipelines: []*sigma.Pipeline{a, b}})
	require.Equal(t, revision, set.Rule("other").Revision, "it is the same by Options")
	docs[1].Pipelines = []*sigma.Pipeline{}
	none, _ := sigma.Compile(docs, sigma.Options{Pipelines: []*sigma.Pipeline{a, b}})
	require.NotEqual(t, revision, none.Rule("other").Revision, "none of its own is none")
	docs[1].Pipelines = []*sigma.Pipeline{a}
	set, _ = sigma.Compile(docs, sigma.Options{})
	require.NotEqual(t, revision, set.Rule("other").Revision)
}

func TestIsPipeline(t *testing.T) {
	require.True(t, sigma.IsPipeline([]byte("name: a\ntransformations: []\n")))
	for _, no := range []string{piped, "", "- transformations", "transformations: {", "detection: {}\ntransformations: []", "description: transformations:"} {
		require.False(t, sigma.IsPipeline([]byte(no)), no)
	}
	p, _ := sigma.ParsePipelinesAt([]byte("name: a\ntransformations:\n- {type: field_name_suffix, suffix: x}\n"), "f", 7)
	require.Len(t, p, 1)
	require.Equal(t, 7, p[0].Line)
	require.True(t, sigma.IsPipeline(p[0].Raw))
}
