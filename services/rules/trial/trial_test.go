package trial_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/rules/trial"
	"github.com/stormbell/stormbell/services/sigma"
)

func settings() trial.Settings {
	cfg := correlator.DefaultConfig()
	return trial.Settings{Sigma: sigma.Options{Accept: cfg.Accept}, Gateway: gateway.DefaultConfig(), Correlator: cfg}
}

const detection = `title: Login failed
id: r1
name: failed
logsource: {product: app}
detection:
    sel:
        action: login_failed
        user|startswith: [a, b]
    internal:
        address|cidr: 10.0.0.0/8
    condition: sel and not internal
`

const correlation = `title: Many
id: c1
correlation:
    type: event_count
    rules: [failed]
    group-by: [user]
    timespan: 5m
    condition: {gte: 3}
`

// run runs tests of the rule in a.yml and the correlation in c.yml.
func run(t *testing.T, file, tests string) *trial.Report {
	t.Helper()
	rules := []ruleset.File{{Name: "a.yml", Content: []byte(detection)}, {Name: "c.yml", Content: []byte(correlation)}}
	report, err := trial.Run(t.Context(), rules, nil, []ruleset.File{{Name: file, Content: []byte(tests)}}, settings())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	return report
}

const base = `base:
    login: {product: app, action: login_failed, user: bob, address: 203.0.113.7}
tests:
`

// TestEvents holds what events mean, by tests that pass.
func TestEvents(t *testing.T) {
	for name, tc := range map[string]struct{ file, test string }{
		"base":               {"a.test.yml", "{name: n, events: [{base: login}], expect: 1}"},
		"joined with a base": {"a.test.yml", "{name: n, events: [{base: login, event: {user: eve}}], expect: 0}"},
		"plain":              {"a.test.yml", "{name: n, events: [{event: {product: app, action: login_failed, user: ann}}], expect: 1}"},
		"JSON as text":       {"a.test.yml", `{name: n, events: [{event: '{"product":"app","action":"login_failed","user":"zoe","user":"ann"}'}], expect: 1}`},
		"repeated":           {"a.test.yml", "{name: n, events: [{base: login, repeat: 7}], expect: 7}"},
		"number of a copy":   {"a.test.yml", "{name: n, events: [{base: login, event: {address: '{n}.0.0.1'}, repeat: 10}], expect: 9}"},
		"negative":           {"a.test.yml", "{name: n, events: [{base: login, event: {address: 10.1.2.3}}], expect: []}"},
		"of another source":  {"a.test.yml", "{name: n, events: [{base: login, event: {product: linux}}], expect: 0}"},
		"by name":            {"a.test.yml", "{name: n, events: [{base: login}], expect: [{rule: failed}]}"},
		"of another file":    {"c.test.yml", "{name: n, events: [{base: login, repeat: 3}], expect: [{rule: c1, count: 3, group: {user: bob}}, {rule: failed, fires: 3}]}"},
		"groups":             {"c.test.yml", "{name: n, events: [{base: login, repeat: 3}, {base: login, event: {user: ann}, repeat: 4}], expect: [{rule: c1, group: {user: bob}}, {rule: c1, group: {user: ann}}, {rule: c1, fires: 2}]}"},
		"a second apart":     {"c.test.yml", "{name: n, events: [{base: login, repeat: 3, every: 150s}], expect: 1}"},
		"too far apart":      {"c.test.yml", "{name: n, events: [{base: login, repeat: 3, every: 151s}], expect: 0}"},
		"moved":              {"c.test.yml", "{name: n, events: [{base: login}, {base: login, at: 5m}, {base: login, at: 4m}], expect: 1}"},
		"moved too far":      {"c.test.yml", "{name: n, events: [{base: login}, {base: login, at: 5m}, {base: login, at: 301s}], expect: 0}"},
		"own time":           {"c.test.yml", "{name: n, events: [{base: login, event: {time: 2026-02-03T04:00:00Z}, repeat: 2}, {base: login, event: {time: 2026-02-03T03:00:00Z}, at: 1h}], expect: 1}"},
		"own time moved":     {"c.test.yml", "{name: n, events: [{base: login, event: {time: 2026-02-03T04:00:00Z}, repeat: 3, every: 151s}], expect: 0}"},
	} {
		t.Run(name, func(t *testing.T) {
			report := run(t, tc.file, base+"    - "+tc.test+"\n")
			require.Len(t, report.Results, 1)
			require.Empty(t, report.Results[0].Failures)
			require.Zero(t, report.Failed())
		})
	}
}

// TestFailures holds what is said of tests that fail.
func TestFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		file, test string
		line       int
		want       string
		why        []string
	}{
		"no match": {
			"a.test.yml", "{name: n, events: [{base: login, event: {user: eve}}], expect: 1}", 4, `"Login failed" matches 0 events, not 1`,
			[]string{`event 1 (line 4): sel: user|startswith: "a", "b" does not hold, the event has "eve"`},
		},
		"filtered": {
			"a.test.yml", "{name: n, events: [{base: login, event: {address: 10.0.0.1}}], expect: 1}", 4, `"Login failed" matches 0 events, not 1`,
			[]string{`event 1 (line 4): internal: address|cidr: "10.0.0.0/8" holds, and must not, the event has "10.0.0.1"`},
		},
		"field is missing": {
			"a.test.yml", "{name: n, events: [{event: {product: app, action: login_failed}}], expect: 1}", 4, `"Login failed" matches 0 events, not 1`,
			[]string{`event 1 (line 4): sel: user|startswith: "a", "b" does not hold, the event has nothing`},
		},
		"of another source": {
			"a.test.yml", "{name: n, events: [{base: login, event: {product: linux}}], expect: 1}", 4, `"Login failed" matches 0 events, not 1`,
			[]string{"event 1 (line 4): the rule is for the log source product=app, the event is of product=linux"},
		},
		"match": {
			"a.test.yml", "{name: n, events: [{base: login}], expect: 0}", 4, `"Login failed" matches 1 event, not 0`, []string{"event 1 (line 4) matches"},
		},
		"not named, so it must not fire": {
			"a.test.yml", "{name: n, events: [{base: login}], expect: []}", 4, `"Login failed" matches 1 event, not 0`, []string{"event 1 (line 4) matches"},
		},
		"correlation silent": {
			"c.test.yml", "{name: n, events: [{base: login, repeat: 2}], expect: 1}", 4, `"Many" fires 0 times, not 1`, []string{`"Login failed" matches 2 of 2 events`},
		},
		"correlation without matches": {
			"c.test.yml", "{name: n, events: [{base: login, event: {action: login}, repeat: 1}], expect: 1}", 4, `"Many" fires 0 times, not 1`,
			[]string{`"Login failed" matches 0 of 1 event`, `event 1 (line 4): sel: action: "login_failed" does not hold, the event has "login"`},
		},
		"correlation fires": {
			"c.test.yml", "{name: n, events: [{base: login, repeat: 3}], expect: 0}", 4, `"Many" fires 1 time, not 0`, []string{`alert: count 3, group {user: "bob"}`},
		},
		"other group": {
			"c.test.yml", "{name: n, events: [{base: login, repeat: 3}], expect: [{group: {user: ann}}]}", 4, `"Many" fires 0 times as described, not 1`,
			[]string{`alert: count 3, group {user: "bob"}`, `"Login failed" matches 3 of 3 events`},
		},
		"other count": {
			"c.test.yml", "{name: n, events: [{base: login, repeat: 3}], expect: [{count: 4}]}", 4, `"Many" fires 0 times as described, not 1`,
			[]string{`alert: count 3, group {user: "bob"}`, `"Login failed" matches 3 of 3 events`},
		},
		"unknown rule":     {"a.test.yml", "{name: n, events: [{base: login}], expect: [{rule: x}]}", 4, `there is no rule with the id or name "x"`, nil},
		"group of a match": {"a.test.yml", "{name: n, events: [{base: login}], expect: [{group: {user: bob}}]}", 4, `"Login failed" is a detection rule: it has no group and no count`, nil},
		"unknown source":   {"a.test.yml", "{name: n, events: [{base: login, source: x}], expect: 1}", 4, `unknown source "x": known are agent, or leave it out`, nil},
		"not of its source": {
			"a.test.yml", "{name: n, events: [{event: {a: b}, source: agent}], expect: 1}", 4, "the event is rejected: ", nil,
		},
		"no rules": {"b.test.yml", "{name: n, events: [{base: login}], expect: 1}", 4, "there is no rule to test: b.yml is not there, or none of its rules can be read", nil},
	} {
		t.Run(name, func(t *testing.T) {
			report := run(t, tc.file, base+"    - "+tc.test+"\n")
			require.Len(t, report.Results, 1)
			require.Len(t, report.Results[0].Failures, 1)
			f := report.Results[0].Failures[0]
			require.True(t, strings.HasPrefix(f.Message, tc.want), f.Message)
			require.Equal(t, tc.line, f.Line)
			require.Equal(t, tc.why, f.Why)
			require.Equal(t, 1, report.Failed())
		})
	}
}

// TestMistakes holds what is said of files that hold no tests.
func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line int
		want string
	}{
		"empty":              {"", 1, "is empty"},
		"not YAML":           {"tests: [", 1, "not valid YAML"},
		"list":               {"- x", 1, "the file must be a mapping"},
		"no tests":           {"base: {}\n", 1, "tests: must be a list of tests"},
		"second document":    {base + "    - {name: n, events: [{base: login}], expect: 1}\n---\na: b\n", 6, "a second document: put all tests into one"},
		"unknown key":        {"tests:\n    - name: n\n      event: {}\n", 3, `a test: "event" is not known here: name, events, expect are`},
		"twice":              {"tests:\n    - name: n\n      name: m\n", 3, `a test: "name" stands twice`},
		"no name":            {"tests:\n    - {events: [{event: {}}], expect: 1}\n", 2, "name: is missing"},
		"no events":          {"tests:\n    - {name: n, events: [], expect: 1}\n", 2, "events: must be a list of events"},
		"no expectation":     {"tests:\n    - {name: n, events: [{event: {}}]}\n", 2, "expect: is missing"},
		"odd expectation":    {"tests:\n    - {name: n, events: [{event: {}}], expect: many}\n", 2, "expect: must be a number from 0 to 10000"},
		"raw event":          {"tests:\n    - name: n\n      events:\n          - {eventName: x}\n      expect: 1\n", 4, `an event: "eventName" is not known here: event, base, source, at, repeat, every are`},
		"no event":           {"tests:\n    - {name: n, events: [{at: 1m}], expect: 1}\n", 2, "event: is missing"},
		"number for event":   {"tests:\n    - {name: n, events: [{event: 5}], expect: 1}\n", 2, "event: must be a mapping, or JSON as text"},
		"no such base":       {"tests:\n    - {name: n, events: [{base: x}], expect: 1}\n", 2, `base: "x" is not among those at the top of the file`},
		"odd duration":       {base + "    - {name: n, events: [{base: login, at: soon}], expect: 1}\n", 4, "at: must be a duration such as 500ms, 30s, 5m or 2h"},
		"too many":           {base + "    - {name: n, events: [{base: login, repeat: 9000}, {base: login, repeat: 9000}], expect: 1}\n", 4, "the test has more than 10000 events"},
		"text is repeated":   {"tests:\n    - {name: n, events: [{event: '{}', repeat: 2}], expect: 1}\n", 2, "repeat: an event that is text"},
		"odd number":         {"tests:\n    - {name: n, events: [{event: {a: 0x10}}], expect: 1}\n", 2, "0x10: JSON has no such number"},
		"not JSON":           {"tests:\n    - {name: n, events: [{event: '{'}], expect: 1}\n", 2, "the event is rejected: "},
		"merge key":          {"base:\n    a: &a {x: y}\n    b: {<<: *a}\ntests: []\n", 3, "<<: name a base instead"},
		"deep":               {"tests:\n    - {name: n, events: [{event: {a: " + strings.Repeat("[", 80) + strings.Repeat("]", 80) + "}}], expect: 1}\n", 2, "nested deeper than 64 levels"},
		"aliases that swell": {"base:\n    a: &a [" + strings.Repeat("x,", 999) + "x]\n    b: &b [" + strings.Repeat("*a,", 300) + "*a]\ntests: []\n", 2, "more than 200000 YAML nodes, aliases expanded"},
	} {
		t.Run(name, func(t *testing.T) {
			report := run(t, "a.test.yml", tc.text)
			require.Len(t, report.Results, 1)
			require.Len(t, report.Results[0].Failures, 1)
			require.Contains(t, report.Results[0].Failures[0].Message, tc.want)
			require.GreaterOrEqual(t, report.Results[0].Failures[0].Line, tc.line-1)
			require.LessOrEqual(t, report.Results[0].Failures[0].Line, tc.line)
		})
	}
}

func TestGaps(t *testing.T) {
	messages := func(tests string) (out []string) {
		for _, g := range run(t, "a.test.yml", tests).Gaps {
			out = append(out, g.File+": "+g.Message)
		}
		return out
	}
	fires, spares := "    - {name: n, events: [{base: login}], expect: 1}\n", "    - {name: n, events: [{base: login, event: {user: eve}}], expect: 0}\n"
	none := "c.yml: has no test: write c.test.yml"
	require.Equal(t, []string{none}, messages(base+fires+spares))
	require.Equal(t, []string{"a.yml: no test has events on which it must not fire", none}, messages(base+fires))
	require.Equal(t, []string{"a.yml: no test fires it", none}, messages(base+spares))
}

// TestRejectedRule holds that a rule that cannot be run fails its tests.
func TestRejectedRule(t *testing.T) {
	tests := []ruleset.File{{Name: "c.test.yml", Content: []byte("tests:\n    - {name: n, events: [{event: {a: b}}], expect: 0}\n")}}
	rules := []ruleset.File{{Name: "c.yml", Content: []byte(correlation)}}
	report, err := trial.Run(t.Context(), rules, nil, tests, settings())
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	require.Equal(t, 1, report.Failed())
	require.Contains(t, report.Results[0].Failures[0].Message, `the rule is rejected: c.yml:5: correlation.rules: there is no rule with the id or name "failed"`)

	// With the rule that it refers to all is well, and that one is no gap.
	report, err = trial.Run(t.Context(), rules, []ruleset.File{{Name: "a.yml", Content: []byte(detection)}}, tests, settings())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.Zero(t, report.Failed())
	require.Len(t, report.Gaps, 1)
}

// TestCloudTrail holds that a record needs no id and no time to be one.
func TestCloudTrail(t *testing.T) {
	rule := "title: T\nid: r\nlogsource: {product: aws, service: cloudtrail}\ndetection:\n    sel: {eventName: A, eventVersion: '1.11'}\n    condition: sel\n"
	count := "---\ntitle: C\nid: c\ncorrelation: {type: event_count, rules: [r], group-by: [user], timespan: 1m, condition: {gte: 3}}\n"
	tests := `tests:
    - name: three of them, a version without quotes
      events: [{event: {eventVersion: 1.11, eventName: A, user: u}, repeat: 3}]
      expect: [{rule: r, fires: 3}, {rule: c}]
    - name: an id, and copies
      events: [{event: {eventVersion: 1.11, eventName: A, user: u, eventID: x, eventTime: 2026-01-01T00:00:00Z}, repeat: 3, every: 30s}]
      expect: [{rule: r, fires: 3}, {rule: c}]
    - name: the same event thrice
      events:
          - {event: &e {eventVersion: 1.11, eventName: A, user: u, eventID: x, eventTime: 2026-01-01T00:00:00Z}}
          - {event: *e}
          - {event: *e}
      expect: [{rule: r, fires: 3}]
    - name: too slow
      events: [{event: {eventVersion: 1.11, eventName: A, user: u}, repeat: 3, every: 31s}]
      expect: [{rule: r, fires: 3}]
    - name: JSON with the same words is of any source, and so of this one
      events: [{event: {eventName: A, user: u}}]
      expect: []
`
	report, err := trial.Run(t.Context(), []ruleset.File{{Name: "x.yml", Content: []byte(rule + count)}}, nil, []ruleset.File{{Name: "x.test.yml", Content: []byte(tests)}}, settings())
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	for _, r := range report.Results {
		require.Empty(t, r.Failures, r.Name)
	}
	require.Len(t, report.Results, 5)
}

// FuzzRun runs whatever stands in a file of tests: nothing in it may end the
// process.
func FuzzRun(f *testing.F) {
	f.Add([]byte(base + "    - {name: n, events: [{base: login, at: 1m, repeat: 3, every: 1s}], expect: [{rule: failed, fires: 3}]}\n"))
	f.Add([]byte("tests:\n    - {name: n, events: [{event: '{\"a\":1}', source: agent}], expect: 0}\n"))
	f.Add([]byte("tests:\n    - {name: n, events: [{event: {eventVersion: 1.11, eventID: {a: b}, eventTime: [1]}, repeat: 2}], expect: 0}\n"))
	rules := []ruleset.File{{Name: "a.yml", Content: []byte(detection)}, {Name: "c.yml", Content: []byte(correlation)}}
	f.Fuzz(func(t *testing.T, tests []byte) {
		if strings.Contains(string(tests), "000") {
			t.Skip("thousands of events take their time")
		}
		for _, name := range []string{"a.test.yml", "c.test.yml"} {
			report, err := trial.Run(t.Context(), rules, nil, []ruleset.File{{Name: name, Content: tests}}, settings())
			require.NoError(t, err)
			require.NotEmpty(t, report.Results)
			for _, r := range report.Results {
				require.Positive(t, r.Line)
			}
		}
	})
}
