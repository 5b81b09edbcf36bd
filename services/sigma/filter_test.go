package sigma_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const filteredRules = `title: Process
id: process
name: process_name
logsource: {product: windows, category: process_creation}
detection:
    selection: {a: 1}
    condition: selection
---
title: Other process
id: other
logsource: {product: windows, category: process_creation}
detection:
    selection: {a: 2}
    condition: selection
---
title: Trail
id: trail
logsource: {product: aws}
detection:
    selection: {a: 1}
    condition: selection
---
title: Corr
id: corr
correlation:
    type: event_count
    rules: [process]
    group-by: [user]
    timespan: 1m
    condition: {gte: 1}
---
`

func filterOf(logsource, rules, rest string) string {
	return "title: Filter\nid: filter\nlogsource: " + logsource + "\nfilter:\n    rules: " + rules + "\n" + indent(rest)
}

const administrators = "selection:\n    user|startswith: adm_\ncondition: not selection"

func found(t *testing.T, src, ev string, opts sigma.Options) string {
	t.Helper()
	set := compile(t, src, opts)
	var ids []string
	for _, r := range set.Matcher().Match(sigma.Event{Raw: []byte(ev)}, nil) {
		ids = append(ids, r.ID)
	}
	return strings.Join(ids, " ")
}

const windows = "{product: windows, category: process_creation}"

type filterCase struct{ name, filter, event, want string }

func filterCases() []filterCase {
	return []filterCase{
		{"no filter", "", `{"a":1,"user":"adm_x"}`, "process trail"},
		{"suppresses by not", filterOf(windows, "[process]", administrators), `{"a":1,"user":"adm_x"}`, "trail"},
		{"lets others pass", filterOf(windows, "[process]", administrators), `{"a":1,"user":"eve"}`, "process trail"},
		{"by name", filterOf(windows, "[process_name]", administrators), `{"a":1,"user":"adm_x"}`, "trail"},
		{"not for rules that it does not list", filterOf(windows, "[other]", administrators), `{"a":1,"user":"adm_x"}`, "process trail"},
		{"any: all of the log source", filterOf(windows, "any", administrators), `{"a":2,"user":"adm_x"}`, ""},
		{"any leaves other log sources", filterOf(windows, "any", administrators), `{"a":1,"user":"adm_x"}`, "trail"},
		{"empty list is any", filterOf(windows, "[]", administrators), `{"a":1,"user":"adm_x"}`, "trail"},
		{"a wider log source contains", filterOf("{product: windows}", "any", administrators), `{"a":1,"user":"adm_x"}`, "trail"},
		{"a narrower one does not", filterOf("{product: windows, category: process_creation, service: sysmon}", "any", administrators), `{"a":1,"user":"adm_x"}`, "process trail"},
		{"as written, without not", filterOf(windows, "[process]", "selection:\n    user: bob\ncondition: selection"), `{"a":1,"user":"eve"}`, "trail"},
		{"as written, without not, holds", filterOf(windows, "[process]", "selection:\n    user: bob\ncondition: selection"), `{"a":1,"user":"bob"}`, "process trail"},
		{"names are its own", filterOf(windows, "[process]", "selection:\n    a: 2\nx:\n    b: 1\ncondition: not (selection or 1 of x*)"), `{"a":1,"b":2}`, "process trail"},
		{"brackets round both sides", filterOf(windows, "[process]", "x:\n    b: 1\ny:\n    c: 1\ncondition: x or y"), `{"c":1}`, ""},
		{"two filters", filterOf(windows, "[process]", administrators) + "---\n" + strings.Replace(filterOf(windows, "any", "s:\n    host: build\ncondition: not s"), "id: filter", "id: filter2", 1), `{"a":1,"user":"eve","host":"build"}`, "trail"},
		{"with a placeholder", filterOf(windows, "[process]", "s:\n    user|expand: '%admins%'\ncondition: not s"), `{"a":1,"user":"ALICE"}`, "trail"},
	}
}

func TestFilters(t *testing.T) {
	for _, c := range filterCases() {
		t.Run(c.name, func(t *testing.T) {
			opts := sigma.Options{Placeholders: map[string][]string{"admins": {"alice"}}}
			require.Equal(t, c.want, found(t, filteredRules+c.filter, c.event, opts))
			require.Equal(t, c.want, found(t, c.filter+"\n---\n"+filteredRules, c.event, opts), "order does not count")
		})
	}
	set := compile(t, filteredRules+filterOf(windows, "any", administrators), sigma.Options{})
	require.Len(t, set.Filters(), 1)
	require.Equal(t, []string{"process", "other"}, set.Filters()[0].Rules)
	require.Len(t, set.Rules(), 3)
}

func TestFilterRevision(t *testing.T) {
	revisions := func(filter string) (process, other, corr string) {
		set := compile(t, filteredRules+filter, sigma.Options{})
		return set.Rule("process").Revision, set.Rule("other").Revision, set.Correlation("corr").Revision
	}
	p0, o0, c0 := revisions("")
	p1, o1, c1 := revisions(filterOf(windows, "[process]", administrators))
	require.NotEqual(t, p0, p1, "a filter decides")
	require.NotEqual(t, c0, c1, "also for correlations of the rule")
	require.Equal(t, o0, o1, "not for rules that it leaves alone")
	p2, _, _ := revisions(strings.Replace(filterOf(windows, "any", administrators), "title: Filter", "title: Another", 1))
	require.Equal(t, p1, p2, "neither its title nor how it names the rule")
	p3, _, _ := revisions(filterOf(windows, "[process]", strings.Replace(administrators, "adm_", "root", 1)))
	require.NotEqual(t, p1, p3)
	a := filterOf(windows, "[process]", administrators)
	b := strings.Replace(filterOf(windows, "[process]", "s:\n    x: 1\ncondition: not s"), "id: filter", "id: second", 1)
	ab, _, _ := revisions(a + "---\n" + b)
	ba, _, _ := revisions(b + "---\n" + a)
	require.Equal(t, ab, ba, "nor their order")
}

type filterFault struct{ name, filter, want string }

func filterFaults() []filterFault {
	return []filterFault{
		{"no rules", strings.Replace(filterOf(windows, "x", administrators), "    rules: x\n", "", 1), "test.yml:36: filter.rules: is missing"},
		{"null rules", filterOf(windows, "", administrators), "test.yml:36: filter.rules: is empty"},
		{"unknown rule", filterOf(windows, "[nothing]", administrators), `test.yml:36: filter.rules: there is no rule with the id or name "nothing"`},
		{"correlation", filterOf(windows, "[corr]", administrators), "is no detection rule"},
		{"itself", filterOf(windows, "[filter]", administrators), "is no detection rule"},
		{"another log source", filterOf(windows, "[trail]", administrators), "is for another log source"},
		{"listed twice", filterOf(windows, "[process, process_name]", administrators), "is listed already"},
		{"no log source", strings.Replace(filterOf(windows, "any", administrators), "logsource: "+windows+"\n", "", 1), "logsource: is missing"},
		{"no condition", filterOf(windows, "any", "s:\n    f: x"), "filter: needs a condition"},
		{"no selection", filterOf(windows, "any", "condition: not s"), "filter: needs a search identifier"},
		{"unknown identifier", filterOf(windows, "any", "s:\n    f: x\ncondition: not selection"), "test.yml:39: filter.condition"},
		{"unknown modifier", filterOf(windows, "any", "s:\n    f|nonsense: x\ncondition: not s"), "test.yml:38: filter.s.f|nonsense"},
		{"filter and detection", filterOf(windows, "any", administrators) + "detection:\n    s: {f: x}\n    condition: s\n", "not both"},
		{"correlation of a filter", filterOf(windows, "any", administrators) + "---\ntitle: C\nid: c\ncorrelation:\n    type: event_count\n    rules: [filter]\n    group-by: [u]\n    timespan: 1m\n    condition: {gte: 1}\n", "is a filter"},
		{"unresolved placeholder", filterOf(windows, "[process]", "s:\n    f|expand: '%nobody%'\ncondition: not s"), "the filter in test.yml:38: filter.s.f|expand: placeholder %nobody% has no configured values"},
	}
}

func TestFilterFaults(t *testing.T) {
	for _, c := range filterFaults() {
		t.Run(c.name, func(t *testing.T) {
			got := reject(filteredRules+c.filter, sigma.Options{})
			require.NotEmpty(t, got)
			require.Contains(t, got[0], c.want)
		})
	}
	docs, problems := sigma.Parse([]byte(filteredRules+filterOf("{product: nothing}", "any", "s:\n    f: x\ncondition: s")), "test.yml")
	_, more := sigma.Compile(docs, sigma.Options{})
	said := strings.Join(warningsOf(append(problems, more...)), "\n")
	require.Contains(t, said, "test.yml:39: filter.condition: warning: is required of an event as it stands")
	require.Contains(t, said, "no rule of this set has a log source that the filter applies to")
}
