package oracle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/oracle"
)

// scored are rules that score: 20, 50 for persistence, 5 for persistence and
// impact, and 30 for an alert of a correlation, which is of impact.
const scored = `
id: a
level: medium
detection: {sel: {action: a}, condition: sel}
---
id: b
level: high
tags: [attack.persistence, attack.t1098]
detection: {sel: {action: b}, condition: sel}
---
id: c
level: high
tags: [attack.Persistence, attack.impact]
detection: {sel: {action: c}, condition: sel}
stormbell: {risk: 5}
---
id: n
level: informational
detection: {sel: {action: n}, condition: sel}
---
id: rule
level: critical
tags: [attack.impact]
correlation: {type: event_count, rules: [n], group-by: [value], timespan: 5m, condition: {gte: 2}}
stormbell: {risk: 30}
---
id: k
stormbell: {type: risk, group-by: [user], timespan: 10m, lateness: 30m, `

func TestRisk(t *testing.T) {
	const total70 = "condition: {gte: 70}}\n"
	spread := 10*minute + 30*minute + 5*minute
	tests := []struct {
		name, rule string
		events     []ev
		want       []string
	}{
		{"two rules", total70, []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}, []string{"[u]/0"}},
		{"gt is one more", "condition: {gt: 70}}\n", []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}, []string{}},
		{"of two users", total70, []ev{{id: "1", action: "a"}, {id: "2", action: "b", user: "v"}}, []string{}},
		{"of nobody", total70, []ev{{id: "1", action: "a", user: "absent"}, {id: "2", action: "b", user: "absent"}}, []string{}},
		{"both ends in", total70, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 10 * minute}}, []string{"[u]/1"}},
		{"a millisecond too wide", total70, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 10*minute + 1}}, []string{}},
		{"a rule counts once", total70, []ev{{id: "1", action: "b"}, {id: "2", action: "b", at: 10*minute - 1}}, []string{}},
		{"and once more in the next timespan", total70, []ev{{id: "1", action: "b", at: 1}, {id: "2", action: "b", at: 10 * minute}}, []string{"[u]/1"}},
		{"its own score", "condition: {gte: 6}}\n", []ev{{id: "1", action: "c"}}, []string{}},
		{"its own score suffices", "condition: {gte: 5}}\n", []ev{{id: "1", action: "c"}}, []string{"[u]/0"}},
		{"other scores by level", "scores: {medium: 70, high: 0}, condition: {gte: 70}}\n", []ev{{id: "1", action: "a"}, {id: "2", action: "b", user: "v"}}, []string{"[u]/0"}},
		{"scores of nothing", "scores: {high: 0}, condition: {gte: 21}}\n", []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}, []string{}},
		{"a correlation, grouped by something else", "condition: {gte: 50}}\n", []ev{
			{id: "1", action: "n", value: "h", user: "v"}, {id: "2", action: "n", value: "h", at: 1}, {id: "3", action: "a", at: 2},
		}, []string{"[u]/0"}},
		{"what does not alert by itself", "condition: {gte: 31}}\n", []ev{{id: "1", action: "n", value: "h"}, {id: "2", action: "n", value: "h", at: 1}}, []string{}},
		{"an alert counts once", "condition: {gte: 60}}\n", []ev{
			{id: "1", action: "n", value: "h"}, {id: "2", action: "n", value: "h", at: 1}, {id: "3", action: "n", value: "h", at: 2},
		}, []string{}},
		{"of two groups two", "condition: {gte: 60}}\n", []ev{
			{id: "1", action: "n", value: "h"},
			{id: "2", action: "n", value: "h", at: 1},
			{id: "3", action: "n", value: "i", at: 2},
			{id: "4", action: "n", value: "i", at: 3},
		}, []string{"[u]/0"}},
		{"of two buckets two", "condition: {gte: 60}}\n", []ev{
			{id: "1", action: "n", value: "h", at: minute}, {id: "2", action: "n", value: "h", at: 2 * minute}, {id: "3", action: "n", value: "h", at: 6 * minute},
		}, []string{"[u]/0"}},
		{"one tactic of two", "condition: {gte: 10}, tactics: {gte: 2}}\n", []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}, []string{}},
		{"two tactics", "condition: {gte: 10}, tactics: {gt: 1}}\n", []ev{{id: "1", action: "a"}, {id: "2", action: "c"}}, []string{"[u]/0"}},
		{"tactics of a correlation", "condition: {gte: 80}, tactics: {gte: 2}}\n", []ev{
			{id: "1", action: "b"}, {id: "2", action: "n", value: "h"}, {id: "3", action: "n", value: "h", at: 1},
		}, []string{"[u]/0"}},
		{"listed rules only", "rules: [a], condition: {gte: 21}}\n", []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}, []string{}},
		{"taken in just close enough", total70, []ev{{id: "1", action: "a"}, {id: "2", action: "b", in: spread}}, []string{"[u]/0"}},
		{"taken in too far apart", total70, []ev{{id: "1", action: "a"}, {id: "2", action: "b", in: spread + 1}}, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parsed, err := oracle.Load([]byte(scored + tt.rule))
			require.NoError(t, err)
			s := settings()
			s.Revisions["n"] = "rn"
			found, err := oracle.Alerts(parsed, records(t, tt.events), s)
			require.NoError(t, err)
			got := []string{}
			for _, a := range found {
				if a.RuleID == "k" {
					got = append(got, fmt.Sprintf("%s/%d", a.Group, a.Bucket-base/(10*minute)))
				}
			}
			slices.Sort(got)
			require.Equal(t, tt.want, got)
		})
	}
}

// TestRiskSilences only what it lists.
func TestRiskSilences(t *testing.T) {
	events := []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}
	for rule, want := range map[string]int{
		"condition: {gte: 99}}": 2, "rules: [a], condition: {gte: 99}}": 1, "rules: [a], generate: true, condition: {gte: 99}}": 2,
	} {
		parsed, err := oracle.Load([]byte(scored + rule))
		require.NoError(t, err)
		s := settings()
		s.Revisions["n"] = "rn"
		found, err := oracle.Alerts(parsed, records(t, events), s)
		require.NoError(t, err)
		require.Len(t, found, want, rule)
	}
	for _, more := range []string{"condition: {lt: 1}}", "condition: {gt: 1, gte: 2}}", "field: x, condition: {gte: 1}}", "condition: {gte: 1}, risk: 3}"} {
		_, err := oracle.Load([]byte(scored + more))
		require.ErrorContains(t, err, "rule k: ", more)
	}
	parsed, err := oracle.Load([]byte(strings.Replace(scored, "level: medium", "", 1) + "condition: {gte: 1}}"))
	require.NoError(t, err)
	s := settings()
	s.Revisions["n"] = "rn"
	_, err = oracle.Alerts(parsed, records(t, events), s)
	require.ErrorContains(t, err, "not supported", "a rule without a level")
}
