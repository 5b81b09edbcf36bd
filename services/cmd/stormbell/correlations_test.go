package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// signs are rules a, b and c, which match where the field of their name is 1.
func signs() string {
	var out strings.Builder
	for _, name := range []string{"a", "b", "c"} {
		fmt.Fprintf(&out, "title: %[1]s\nid: rule-%[1]s\nname: %[1]s\nlogsource: {product: app}\ndetection: {s: {%[1]s: 1}, condition: s}\n---\n", name)
	}
	return out.String()
}

// correlated is a correlation of those, in YAML's flow form.
func correlated(fields string) string {
	return signs() + "title: Corr\nid: corr\ncorrelation: {group-by: [user], timespan: 60s, " + fields + "}\n"
}

// signed is an event of a user at a time of a day in milliseconds.
func signed(user string, ms int, fields string) string {
	return fmt.Sprintf(`{"product":"app","user":%q,"time":%d,%s}`+"\n", user, 1_700_000_000_000+ms, fields)
}

// trailRecord is a CloudTrail record, whose id is its own.
func trailRecord(id string) string {
	return fmt.Sprintf(`{"eventVersion":"1.08","eventID":%q,"eventTime":"2026-01-02T03:04:05Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","awsRegion":"eu-west-1","userIdentity":{"type":"Root"},"user":"u","a":1}`+"\n", id)
}

// TestEvalCorrelations holds what correlations mean, where other engines differ
// among themselves.
func TestEvalCorrelations(t *testing.T) {
	count3 := correlated("type: event_count, rules: [a], condition: {gte: 3}")
	ordered := correlated("type: temporal_ordered, rules: [a, b]")
	temporal := correlated("type: temporal, rules: [a, b]")
	distinct := correlated("type: value_count, rules: [a], condition: {field: ip, gte: 2}")
	trail := strings.ReplaceAll(count3, "product: app", "product: aws")
	pairs := correlated("type: value_count, rules: [a], condition: {field: [ip, port], gte: 2}")
	for _, tc := range []struct {
		name, rules, events string
		want                []string // rule and group
	}{
		{"an event from before the window does not count", count3, signed("u", 100_000, `"a":1`) + signed("u", 101_000, `"a":1`) + signed("u", 10_000, `"a":1`), nil},
		{"an event that comes late into a window completes it", count3, signed("u", 100_000, `"a":1`) + signed("u", 101_000, `"a":1`) + signed("u", 41_000, `"a":1`), []string{"corr u"}},
		{"both ends are in, to the millisecond", count3, signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`) + signed("u", 60_000, `"a":1`), []string{"corr u"}},
		{"beyond the end by a millisecond", count3, signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`) + signed("u", 60_001, `"a":1`), nil},
		{"windows slide, they are not aligned", count3, signed("u", 59_000, `"a":1`) + signed("u", 61_000, `"a":1`) + signed("u", 62_000, `"a":1`), []string{"corr u"}},
		{"equal lines are events of their own", count3, strings.Repeat(signed("u", 0, `"a":1`), 3), []string{"corr u"}},
		{"a record that comes again counts once", trail, strings.Repeat(trailRecord("one"), 3) + trailRecord("two"), nil},
		{"three records", trail, trailRecord("one") + trailRecord("two") + trailRecord("three"), []string{"corr u"}},
		{"groups are apart", count3, signed("u", 0, `"a":1`) + signed("v", 1, `"a":1`) + signed("u", 2, `"a":1`), nil},
		{"groups are exact text", count3, signed("u", 0, `"a":1`) + signed("U", 1, `"a":1`) + signed("u", 2, `"a":1`), nil},
		{"no group: not counted", count3, strings.ReplaceAll(signed("u", 0, `"a":1`)+signed("u", 1, `"a":1`)+signed("u", 2, `"a":1`), `"user":"u",`, ""), nil},
		{"null as a group: not counted", count3, strings.ReplaceAll(signed("u", 0, `"a":1`)+signed("u", 1, `"a":1`)+signed("u", 2, `"a":1`), `"u"`, "null"), nil},
		{"empty text is a group", count3, signed("", 0, `"a":1`) + signed("", 1, `"a":1`) + signed("", 2, `"a":1`), []string{"corr "}},
		{"gt", correlated("type: event_count, rules: [a], condition: {gt: 1}"), signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`), []string{"corr u"}},
		{"gt at its number", correlated("type: event_count, rules: [a], condition: {gt: 2}"), signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`), nil},
		{"an event of two rules counts once", correlated("type: event_count, rules: [a, b], condition: {gte: 2}"), signed("u", 0, `"a":1,"b":1`), nil},
		{"events of two rules add up", correlated("type: event_count, rules: [a, b], condition: {gte: 2}"), signed("u", 0, `"a":1`) + signed("u", 1, `"b":1`), []string{"corr u"}},
		{"an event of two rules satisfies both", temporal, signed("u", 0, `"a":1,"b":1`), []string{"corr u"}},
		{"temporal in any order", temporal, signed("u", 1, `"a":1`) + signed("u", 0, `"b":1`), []string{"corr u"}},
		{"temporal of one user", temporal, signed("u", 0, `"a":1`) + signed("v", 1, `"b":1`), nil},
		{"temporal within the time span", temporal, signed("u", 0, `"a":1`) + signed("u", 60_001, `"b":1`), nil},
		{"two of three", correlated("type: temporal, rules: [a, b, c], condition: {gte: 2}"), signed("u", 0, `"a":1`) + signed("u", 1, `"c":1`), []string{"corr u"}},
		{"one of three", correlated("type: temporal, rules: [a, b, c], condition: {gte: 2}"), signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`), nil},
		{"in order", ordered, signed("u", 200, `"a":1`) + signed("u", 700, `"b":1`), []string{"corr u"}},
		{"in order, though read the other way", ordered, signed("u", 700, `"b":1`) + signed("u", 200, `"a":1`), []string{"corr u"}},
		{"out of order within a second", ordered, signed("u", 200, `"b":1`) + signed("u", 700, `"a":1`), nil},
		{"in order, another user", ordered, signed("u", 200, `"a":1`) + signed("v", 700, `"b":1`), nil},
		{"a tie counts as ordered", ordered, signed("u", 0, `"b":1`) + signed("u", 0, `"a":1`), []string{"corr u"}},
		{"a tie, strictly", ordered + "stormbell: {ties: strict}\n", signed("u", 0, `"b":1`) + signed("u", 0, `"a":1`), nil},
		{"in order by one event alone", ordered, signed("u", 0, `"a":1,"b":1`), nil},
		{"distinct values", distinct, signed("u", 0, `"a":1,"ip":"x"`) + signed("u", 1, `"a":1,"ip":"y"`), []string{"corr u"}},
		{"the same value", distinct, signed("u", 0, `"a":1,"ip":"x"`) + signed("u", 1, `"a":1,"ip":"x"`), nil},
		{"values are exact text", distinct, signed("u", 0, `"a":1,"ip":"x"`) + signed("u", 1, `"a":1,"ip":"X"`), []string{"corr u"}},
		{"no value", distinct, signed("u", 0, `"a":1,"ip":"x"`) + signed("u", 1, `"a":1`) + signed("u", 2, `"a":1,"ip":null`), nil},
		{"distinct tuples", pairs, signed("u", 0, `"a":1,"ip":"x","port":1`) + signed("u", 1, `"a":1,"ip":"x","port":2`), []string{"corr u"}},
		{"tuples are not joined texts", pairs, signed("u", 0, `"a":1,"ip":"x","port":1`) + signed("u", 1, `"a":1,"ip":"x","port":"1"`), nil},
		{"incomplete tuples", pairs, signed("u", 0, `"a":1,"ip":"x","port":1`) + signed("u", 1, `"a":1,"ip":"y"`), nil},
		{"aliases", correlated("type: temporal, rules: [a, b], aliases: {user: {a: user, b: actor}}"), signed("u", 0, `"a":1`) + strings.Replace(signed("u", 1, `"b":1`), "user", "actor", 1), []string{"corr u"}},
		{"silent by default", count3, signed("u", 0, `"a":1`), nil},
		{"generate", correlated("type: event_count, rules: [a], condition: {gte: 3}, generate: true"), signed("u", 0, `"a":1`), []string{"rule-a"}},
		{"few, told at the end", correlated("type: event_count, rules: [a], condition: {lt: 2}"), signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`) + signed("u", 60_002, `"a":1`), []string{"corr u", "corr u"}},
		{"eq, once more", correlated("type: event_count, rules: [a], condition: {eq: 2}"), signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`) + signed("u", 2, `"a":1`), []string{"corr u"}},
		{"a range", correlated("type: event_count, rules: [a], condition: {gt: 2, lt: 4}"), signed("u", 0, `"a":1`) + signed("u", 1, `"a":1`) + signed("v", 1, `"a":1`) + signed("u", 2, `"a":1`), []string{"corr u"}},
		{"a and not b", correlated("type: temporal, rules: [a, b], condition: a and not b"), signed("u", 0, `"a":1`) + signed("v", 0, `"b":1`) + signed("v", 1, `"a":1`), []string{"corr u"}},
		{"a and not b, though b comes later", correlated("type: temporal, rules: [a, b], condition: a and not b"), signed("u", 0, `"a":1`) + signed("u", 1, `"b":1`), []string{"corr u"}},
		{"a or b and c", correlated("type: temporal, rules: [a, b, c], condition: a or (b and c)"), signed("u", 0, `"b":1`) + signed("u", 1, `"c":1`) + signed("v", 0, `"b":1`), []string{"corr u"}},
		{"in order without c", correlated("type: temporal_ordered, rules: [a, b, c], condition: a and b and not c"), signed("u", 0, `"a":1`) + signed("u", 1, `"b":1`) + signed("v", 0, `"b":1`) + signed("v", 1, `"a":1`), []string{"corr u"}},
		{"a sum, exactly", correlated("type: value_sum, rules: [a], condition: {field: n, gte: 0.3}"), signed("u", 0, `"a":1,"n":0.1`) + signed("u", 1, `"a":1,"n":"0.2"`), []string{"corr u"}},
		{"a sum, not quite", correlated("type: value_sum, rules: [a], condition: {field: n, gt: 0.3}"), signed("u", 0, `"a":1,"n":0.1`) + signed("u", 1, `"a":1,"n":0.2`) + signed("u", 2, `"a":1,"n":-5`) + signed("u", 3, `"a":1,"n":"many"`), nil},
		{"a sum with what takes away", correlated("type: value_sum, rules: [a], condition: {field: n, lt: 0}"), signed("u", 0, `"a":1,"n":1`) + signed("u", 1, `"a":1,"n":-5`), []string{"corr u"}},
		{"a mean", correlated("type: value_avg, rules: [a], condition: {field: n, gt: 10}"), signed("u", 0, `"a":1,"n":1`) + signed("u", 1, `"a":1,"n":20`), []string{"corr u"}},
		{"a mean, not quite", correlated("type: value_avg, rules: [a], condition: {field: n, gt: 10.5}"), signed("u", 0, `"a":1,"n":1`) + signed("u", 1, `"a":1,"n":20`), nil},
		{"a percentile with its predicate", correlated("type: value_percentile, rules: [a], condition: {field: n, percentile: 95, gte: 1000000}"), signed("u", 0, `"a":1,"n":1`) + signed("u", 1, `"a":1,"n":1`), nil},
		{"a percentile between two", correlated("type: value_percentile, rules: [a], condition: {field: n, percentile: 75, eq: 7.75}"), signed("u", 0, `"a":1,"n":1`) + signed("u", 1, `"a":1,"n":10`), []string{"corr u"}},
		{"a rare value", correlated("type: value_percentile, rules: [a], condition: {field: ip, lte: 30}"), strings.Repeat(signed("u", 0, `"a":1,"ip":"x"`), 3) + signed("u", 1, `"a":1,"ip":"y"`) + signed("v", 1, `"a":1,"ip":"y"`), []string{"corr u"}},
		{"a median", correlated("type: value_median, rules: [a], condition: {field: n, eq: 2}"), signed("u", 0, `"a":1,"n":1`) + signed("u", 1, `"a":1,"n":9`) + signed("u", 2, `"a":1,"n":2`), []string{"corr u"}},
		{"windows next to each other", count3 + "stormbell: {window: tumbling}\n", signed("u", 39_999, `"a":1`) + signed("u", 40_000, `"a":1`) + signed("u", 41_000, `"a":1`), nil},
		{"within one of them", count3 + "stormbell: {window: tumbling}\n", signed("u", 40_000, `"a":1`) + signed("u", 41_000, `"a":1`) + signed("u", 99_999, `"a":1`), []string{"corr u"}},
		{"a session", count3 + "stormbell: {window: session, gap: 20s}\n", signed("u", 0, `"a":1`) + signed("u", 20_000, `"a":1`) + signed("u", 40_000, `"a":1`), []string{"corr u"}},
		{"a silence ends it", count3 + "stormbell: {window: session, gap: 20s}\n", signed("u", 0, `"a":1`) + signed("u", 20_000, `"a":1`) + signed("u", 40_001, `"a":1`), nil},
		{"what no correlation names alerts by itself", count3, signed("u", 0, `"c":1`), []string{"rule-c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := stormbell(t, tc.events, nil, "eval", "-r", writeFile(t, t.TempDir(), "rules.yml", tc.rules))
			require.Zero(t, r.code, r.err)
			var got []string
			for _, a := range alertsOf(t, r.out) {
				found := a.Rule.ID
				for _, v := range a.Group {
					found += " " + v
				}
				got = append(got, found)
			}
			require.Equal(t, tc.want, got, r.err)
		})
	}
}

// TestGroupsOfFormerRevisions says so of groups that count by another condition.
func TestGroupsOfFormerRevisions(t *testing.T) {
	var out strings.Builder
	(&openGroups{Title: "Corr", Condition: "gte 2", Revision: "new", OpenGroups: 2, Groups: []openGroup{
		{Group: map[string]string{"user": "a"}, Count: 1, Revision: "new"}, {Group: map[string]string{"user": "b"}, Count: 2, Revision: "old"},
	}}).write(&out)
	require.Contains(t, out.String(), "Corr gte 2: 2 open groups\n")
	require.Contains(t, out.String(), "user=a\n")
	require.Contains(t, out.String(), "user=b (former revision)\n")
}
