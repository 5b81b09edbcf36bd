package ruleset_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

func detection(id, name, title string) string {
	return "title: " + title + "\nid: " + id + "\nname: " + name + "\nlogsource: {product: p}\ndetection:\n    sel: {a: x}\n    condition: sel\n"
}

func TestReplaceBeside(t *testing.T) {
	defaults := []ruleset.File{
		{Name: "d:one.yml", Content: []byte(detection("d1", "one", "Default one"))},
		{Name: "d:two.yml", Content: []byte(detection("d2", "two", "Default two"))},
		{Name: "d:both.yml", Content: []byte("title: Both\nid: d3\ncorrelation: {type: temporal, rules: [one, two], group-by: [u], timespan: 1h}\n")},
	}
	file := func(text string) []ruleset.File { return []ruleset.File{{Name: "own.yml", Content: []byte(text)}} }
	broken := strings.Replace(detection("d1", "mine", "Own"), "a: x", "a|nonsense: x", 1)
	unreadable := detection("d1", "mine", "Own") + "  : ["
	good, _ := sigma.Parse([]byte(detection("d1", "one", "Own before")), "own.yml")
	shipped, _ := sigma.Parse(defaults[0].Content, "d:one.yml")
	pipeline := prefixed(t, "pipe", "pipe.")
	for name, tc := range map[string]struct {
		defaults           []ruleset.File
		before             []sigma.Document
		files              []ruleset.File
		opts               sigma.Options
		want               []string // titles in force
		replaced           []string
		ok, rejected, kept int
	}{
		"defaults alone":                 {defaults: defaults, want: []string{"Default one", "Default two", "Both"}, ok: 3},
		"none":                           {files: file(detection("o", "o", "Own")), want: []string{"Own"}, ok: 1},
		"beside":                         {defaults: defaults, files: file(detection("o", "o", "Own")), want: []string{"Own", "Default one", "Default two", "Both"}, ok: 4},
		"same id":                        {defaults: defaults[:2], files: file(detection("d1", "o", "Own")), want: []string{"Own", "Default two"}, replaced: []string{"Default one"}, ok: 2},
		"same name":                      {defaults: defaults, files: file(detection("o", "two", "Own")), want: []string{"Own", "Default one", "Both"}, replaced: []string{"Default two"}, ok: 3},
		"refers to a default":            {defaults: defaults[:1], files: file("title: C\nid: c\ncorrelation: {type: event_count, rules: [one], group-by: [u], timespan: 1h, condition: {gte: 2}}\n"), want: []string{"C", "Default one"}, ok: 2},
		"filters a default":              {defaults: defaults[:1], files: file("title: F\nid: f\nlogsource: {product: p}\nfilter:\n    rules: [d1]\n    sel: {u: known}\n    condition: not sel\n"), want: []string{"F", "Default one"}, ok: 2},
		"broken, the default stays":      {defaults: defaults[:1], files: file(broken), want: []string{"Default one"}, ok: 1, rejected: 1},
		"unreadable, the default stays":  {defaults: defaults[:1], files: file(unreadable), want: []string{"Default one"}, ok: 1, rejected: 1},
		"broken after it was good":       {defaults: defaults, before: append(shipped, good...), files: file(broken), want: []string{"Own before", "Default two", "Both"}, replaced: []string{"Default one"}, ok: 2, rejected: 1, kept: 1},
		"defaults before are no history": {before: shipped, files: file(detection("o", "o", "Own")), want: []string{"Own"}, ok: 1},
		"under pipelines":                {defaults: defaults[:1], opts: sigma.Options{Pipelines: []*sigma.Pipeline{pipeline}}, want: []string{"Default one", "pipeline"}, ok: 1},
	} {
		t.Run(name, func(t *testing.T) {
			plan, replaced := ruleset.ReplaceBeside(tc.defaults, tc.before, tc.files, tc.opts)
			require.Equal(t, tc.want, titles(plan.Documents))
			require.Equal(t, tc.replaced, replaced)
			require.Equal(t, []int{tc.ok, tc.rejected, tc.kept}, []int{plan.OK, plan.Rejected, plan.Kept}, "%v", plan.Problems)
		})
	}
}

func titles(docs []control.Document) []string {
	var out []string
	for _, d := range docs {
		if sigma.IsPipeline(d.Source) {
			out = append(out, "pipeline")
			continue
		}
		parsed, _ := sigma.Parse(d.Source, d.File)
		out = append(out, parsed[0].Title)
	}
	return out
}

func TestTestNames(t *testing.T) {
	for name, c := range map[string]struct {
		is    bool
		rules string
	}{
		"a/x.test.yml": {true, "a/x.yml"}, "x.test.YAML": {true, "x.YAML"}, "a/x.yml": {}, "a/xtest.yml": {}, "x.test.json": {}, "a.test/x.yml": {},
	} {
		require.Equal(t, c.is, ruleset.IsTest(name), name)
		if c.is {
			require.Equal(t, c.rules, ruleset.RuleFile(name))
			require.Equal(t, name, ruleset.TestFile(c.rules))
			require.True(t, ruleset.TestsOf(name, c.rules))
		}
	}
	require.True(t, ruleset.TestsOf("x.test.yml", "x.yaml"))
	require.False(t, ruleset.TestsOf("y.test.yml", "x.yml"))
}

func TestUnless(t *testing.T) {
	files := []ruleset.File{
		{Name: "one", Content: []byte(detection("d1", "one", "T"))},
		{Name: "two", Content: []byte(detection("d2", "two", "T"))},
	}
	require.Equal(t, files, ruleset.Unless(files, nil))
	require.Equal(t, files[1:], ruleset.Unless(files, []ruleset.File{{Content: []byte("id: 'd1' # theirs\n")}}))
	require.Equal(t, files[:1], ruleset.Unless(files, []ruleset.File{{Content: []byte("name: two\n")}}))
}
