package oracle_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/oracle"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
	// base is the start of a bucket of ten minutes and of one hour.
	base = 472_222 * hour
)

const detections = `
id: a
name: rule_a
logsource: {product: aws, service: cloudtrail}
detection:
  sel: {action: a}
  condition: sel
---
id: b
logsource: {product: aws, service: cloudtrail}
detection:
  sel: {action: [b, ab]}
  condition: sel
---
id: c
logsource: {product: aws, service: cloudtrail}
detection:
  sel: {action: [c, ab]}
  condition: sel
---
`

func correlation(kind, rules, condition, more string) string {
	text := "id: k\ncorrelation:\n  type: " + kind + "\n  rules: [" + rules + "]\n  group-by: [user]\n  timespan: 10m\n"
	if condition != "" {
		text += "  condition: {" + condition + "}\n"
	}
	return text + more
}

// ev is an event of user u at base + at, taken in at base + in.
type ev struct {
	id, action, value string
	at, in            int64
	user              any
}

func records(t *testing.T, events []ev) []oracle.Record {
	t.Helper()
	var out []oracle.Record
	for i, e := range events {
		doc := map[string]any{"action": e.action}
		if e.value != "" {
			doc["value"] = e.value
		}
		switch e.user {
		case nil:
			doc["user"] = "u"
		case "absent":
		case "null":
			doc["user"] = nil
		default:
			doc["user"] = e.user
		}
		raw, err := json.Marshal(doc)
		require.NoError(t, err)
		out = append(out, oracle.Record{
			Offset: int64(i), ID: e.id, Tenant: "t", Product: "aws", Service: "cloudtrail", StrictLogsource: true,
			TimeMS: base + e.at, IngestMS: base + e.in, Raw: raw,
		})
	}
	return out
}

func settings() oracle.Settings {
	return oracle.Settings{
		LatenessMS: 30 * minute, SlackMS: minute,
		Revisions: map[string]string{"a": "ra", "b": "rb", "c": "rc", "k": "rk", "rule": "rev"},
	}
}

// fired says which buckets of which group values fired, as "group/minute".
func fired(t *testing.T, rules string, all []oracle.Record) []string {
	t.Helper()
	out := []string{}
	for _, a := range alerts(t, rules, all) {
		if a.RuleID == "k" {
			out = append(out, fmt.Sprintf("%s/%d", a.Group, a.Bucket-base/(10*minute)))
		} else {
			out = append(out, a.RuleID+"/"+a.EventID)
		}
	}
	slices.Sort(out)
	return out
}

// alerts are those that rules give, in no order.
func alerts(t *testing.T, rules string, all []oracle.Record) []oracle.Alert {
	t.Helper()
	parsed, err := oracle.Load([]byte(rules))
	require.NoError(t, err)
	found, err := oracle.Alerts(parsed, all, settings())
	require.NoError(t, err)
	for id, a := range found {
		require.Equal(t, id, a.ID)
	}
	return slices.Collect(maps.Values(found))
}

func TestCorrelations(t *testing.T) {
	count3 := correlation("event_count", "rule_a", "gte: 3", "")
	values2 := correlation("value_count", "rule_a", "field: value, gte: 2", "")
	together := correlation("temporal", "rule_a, b, c", "", "")
	two := correlation("temporal", "rule_a, b, c", "gte: 2", "")
	ordered := correlation("temporal_ordered", "rule_a, b, c", "", "")
	tests := []struct {
		name, rule string
		events     []ev
		want       []string
	}{
		{"at the threshold", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a"}, {id: "3", action: "a"}}, []string{"[u]/0"}},
		{"below the threshold", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a"}}, []string{}},
		{"gt is one more", correlation("event_count", "a", "gt: 2", ""), []ev{{id: "1", action: "a"}, {id: "2", action: "a"}}, []string{}},
		{"copies count once", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a"}, {id: "2", action: "a"}, {id: "1", action: "a"}}, []string{}},
		{"both ends in", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: minute}, {id: "3", action: "a", at: 10 * minute}}, []string{"[u]/1"}},
		{"a millisecond too wide", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: minute}, {id: "3", action: "a", at: 10*minute + 1}}, []string{}},
		// RSigma alerts here: 100, 101, then 10 with a window of 60 s.
		{"old event alerts falsely", count3, []ev{{id: "1", action: "a", at: 40 * minute}, {id: "2", action: "a", at: 41 * minute}, {id: "3", action: "a"}}, []string{}},
		{"old event completes", count3, []ev{{id: "1", action: "a", at: 5 * minute}, {id: "2", action: "a", at: 6 * minute}, {id: "3", action: "a"}}, []string{"[u]/0"}},
		{"old event completes the next bucket", count3, []ev{{id: "1", action: "a", at: 9 * minute}, {id: "2", action: "a", at: 11 * minute}, {id: "3", action: "a", at: 8 * minute}}, []string{"[u]/1"}},
		{"burst across a boundary gives two", count3, []ev{{id: "1", action: "a", at: 7 * minute}, {id: "2", action: "a", at: 8 * minute}, {id: "3", action: "a", at: 9 * minute}, {id: "4", action: "a", at: 10 * minute}}, []string{"[u]/0", "[u]/1"}},
		{"one alert in a bucket", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a"}, {id: "3", action: "a"}, {id: "4", action: "a", at: minute}}, []string{"[u]/0"}},
		{"before 1970", count3, []ev{{id: "1", action: "a", at: -base - 1}, {id: "2", action: "a", at: -base - 1}, {id: "3", action: "a", at: -base - 1}}, []string{fmt.Sprintf("[u]/%d", -base/(10*minute)-1)}},
		{"suppress widens the bucket", correlation("event_count", "a", "gte: 1", "stormbell: {suppress: 1h}"), []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: 50 * minute}}, []string{fmt.Sprintf("[u]/%d", base/hour-base/(10*minute))}},

		// R = 10 + 30 + 5 minutes.
		{"ingest within R", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a", in: minute}, {id: "3", action: "a", in: 45 * minute}}, []string{"[u]/0"}},
		{"ingest beyond R", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a", in: minute}, {id: "3", action: "a", in: 45*minute + 1}}, []string{}},
		{"a copy comes within R", count3, []ev{{id: "1", action: "a"}, {id: "2", action: "a", in: minute}, {id: "1", action: "a", in: minute}, {id: "3", action: "a", in: 45*minute + 1}}, []string{"[u]/0"}},
		{"own lateness", correlation("event_count", "a", "gte: 2", "stormbell: {lateness: 1m}"), []ev{{id: "1", action: "a"}, {id: "2", action: "a", in: 16*minute + 1}}, []string{}},
		{"ingest is raised to the watermark", count3, []ev{{id: "0", action: "x", in: 50 * minute}, {id: "1", action: "a"}, {id: "2", action: "a", in: minute}, {id: "3", action: "a", in: 90 * minute}}, []string{"[u]/0"}},

		{"groups are apart", count3, []ev{{id: "1", action: "a", user: "v"}, {id: "2", action: "a"}, {id: "3", action: "a"}}, []string{}},
		{"missing and null are no group", count3, []ev{{id: "1", action: "a", user: "absent"}, {id: "2", action: "a", user: "absent"}, {id: "3", action: "a", user: "absent"}, {id: "4", action: "a", user: "null"}, {id: "5", action: "a", user: "null"}, {id: "6", action: "a", user: "null"}}, []string{}},
		{"empty is a value", count3, []ev{{id: "1", action: "a", user: ""}, {id: "2", action: "a", user: ""}, {id: "3", action: "a", user: ""}}, []string{"[]/0"}},
		{"text and number are one", count3, []ev{{id: "1", action: "a", user: 7}, {id: "2", action: "a", user: "7"}, {id: "3", action: "a", user: 7}}, []string{"[7]/0"}},

		{"two values", values2, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y"}}, []string{"[u]/0"}},
		{"one value twice", values2, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "x"}}, []string{}},
		{"values are exact text", values2, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "X"}}, []string{"[u]/0"}},
		{"no value does not count", values2, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a"}}, []string{}},

		{"all rules", together, []ev{{id: "1", action: "c"}, {id: "2", action: "b"}, {id: "3", action: "a", at: minute}}, []string{"[u]/0"}},
		{"one rule lacks", together, []ev{{id: "1", action: "c"}, {id: "2", action: "b"}, {id: "3", action: "b", at: minute}}, []string{}},
		{"one event for two rules", together, []ev{{id: "1", action: "ab"}, {id: "2", action: "a"}}, []string{"[u]/0"}},
		{"two rules of three", two, []ev{{id: "1", action: "c"}, {id: "2", action: "b"}}, []string{"[u]/0"}},
		{"together in one group", together, []ev{{id: "1", action: "c", user: "v"}, {id: "2", action: "b"}, {id: "3", action: "a"}}, []string{}},

		{"in order", ordered, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 1}, {id: "3", action: "c", at: 2}}, []string{"[u]/0"}},
		{"in order, arriving otherwise", ordered, []ev{{id: "3", action: "c", at: 2}, {id: "1", action: "a"}, {id: "2", action: "b", at: 1}}, []string{"[u]/0"}},
		{"out of order", ordered, []ev{{id: "1", action: "b"}, {id: "2", action: "a", at: 1}, {id: "3", action: "c", at: 2}}, []string{}},
		// Times are not cut to seconds.
		{"200 then 700 ms", ordered, []ev{{id: "1", action: "b", at: 200}, {id: "2", action: "a", at: 700}, {id: "3", action: "c", at: 800}}, []string{}},
		{"a tie counts as ordered", ordered, []ev{{id: "1", action: "c"}, {id: "2", action: "b"}, {id: "3", action: "a"}}, []string{"[u]/0"}},
		{"strict ties", correlation("temporal_ordered", "a, b, c", "", "stormbell: {ties: strict}"), []ev{{id: "1", action: "c"}, {id: "2", action: "b"}, {id: "3", action: "a"}}, []string{}},
		{"one event is not two", ordered, []ev{{id: "1", action: "a"}, {id: "2", action: "ab", at: 1}, {id: "2", action: "ab", at: 1}}, []string{}},
		{"two events, each for one rule", ordered, []ev{{id: "1", action: "a"}, {id: "2", action: "ab"}, {id: "3", action: "b"}}, []string{"[u]/0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := fired(t, detections+tt.rule, records(t, tt.events))
			alone := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s[0] == '[' })
			got = slices.DeleteFunc(got, func(s string) bool { return s[0] != '[' })
			require.Equal(t, tt.want, got)
			for _, a := range alone {
				require.NotEqual(t, byte('a'), a[0], "a rule that a correlation refers to alerts by itself")
			}
		})
	}
}

func TestAliases(t *testing.T) {
	rule := "id: k\ncorrelation:\n  type: temporal\n  rules: [rule_a, b]\n  group-by: [who]\n  timespan: 10m\n  aliases: {who: {rule_a: user, b: value}}\n"
	events := []ev{{id: "1", action: "a", user: "x"}, {id: "2", action: "b", value: "x"}, {id: "3", action: "b", user: "y", value: "z"}, {id: "4", action: "a", user: "y"}}
	require.Equal(t, []string{"[x]/0"}, slices.DeleteFunc(fired(t, detections+rule, records(t, events)), func(s string) bool { return s[0] != '[' }))
}

// TestChains counts what another correlation says of events: of each that
// qualifies, not of buckets, by fields of its own.
func TestChains(t *testing.T) {
	chain := `id: k
correlation:
  type: event_count
  rules: [rule]
  group-by: [what]
  aliases: {what: {rule: who}}
  timespan: 10m
  condition: {gte: 2}
---
id: rule
correlation:
  type: event_count
  rules: [a, b]
  group-by: [who]
  aliases: {who: {rule_a: user, b: value}}
  timespan: 10m
  condition: {gte: 2}
`
	events := []ev{{id: "1", action: "a", user: "x"}, {id: "2", at: 1, action: "b", value: "x"}, {id: "3", at: 2, action: "a", user: "y"}}
	groups := func(all []ev) []string {
		return slices.DeleteFunc(fired(t, detections+chain, records(t, all)), func(s string) bool { return s[0] != '[' })
	}
	require.Empty(t, groups(events), "one event qualifies")
	require.Equal(t, []string{"[x]/0"}, groups(append(events, ev{id: "4", at: 3, action: "a", user: "x"})))
	require.Empty(t, groups(append(events, ev{id: "2", at: 1, action: "b", value: "x"})), "a copy is no further event")
}

func TestGenerate(t *testing.T) {
	one := []ev{{id: "1", action: "a"}}
	silent := correlation("event_count", "a", "gte: 3", "")
	require.Empty(t, fired(t, detections+silent, records(t, one)))
	require.Equal(t, []string{"a/1"}, fired(t, detections+correlation("event_count", "a", "gte: 3", "")+"\n---\nid: rule\ncorrelation: {type: event_count, rules: [a], timespan: 1m, generate: true, condition: {gte: 9}}\n", records(t, one)))
	require.Equal(t, []string{"a/1"}, fired(t, strings.TrimSuffix(detections, "---\n"), records(t, one)))
}

func TestDetections(t *testing.T) {
	tests := []struct {
		name, detection, event string
		want                   bool
	}{
		{"case does not matter", "sel: {f: Abc}\n  condition: sel", `{"f":"aBC"}`, true},
		{"number as text", "sel: {f: 4625}\n  condition: sel", `{"f":"4625"}`, true},
		{"number as number", "sel: {f: 1}\n  condition: sel", `{"f":1.0}`, true},
		{"text is no number", "sel: {f: 1}\n  condition: sel", `{"f":"1.0"}`, false},
		{"true", "sel: {f: true}\n  condition: sel", `{"f":"TRUE"}`, true},
		{"null is absent", "sel: {f: null}\n  condition: sel", `{}`, true},
		{"null is null", "sel: {f: null}\n  condition: sel", `{"f":null}`, true},
		{"null is not empty", "sel: {f: null}\n  condition: sel", `{"f":""}`, false},
		{"path", "sel: {a.b: x}\n  condition: sel", `{"a":{"b":"x"}}`, true},
		{"literal key", "sel: {a.b: x}\n  condition: sel", `{"a.b":"x","a":{"b":"y"}}`, true},
		{"any element", "sel: {a.b: x}\n  condition: sel", `{"a":[{"b":"y"},{"b":["z","x"]}]}`, true},
		{"names are exact", "sel: {F: x}\n  condition: sel", `{"f":"x"}`, false},
		{"contains", "sel: {f|contains: [q, bc]}\n  condition: sel", `{"f":"abcd"}`, true},
		{"startswith", "sel: {f|startswith: bc}\n  condition: sel", `{"f":"abcd"}`, false},
		{"endswith", "sel: {f|endswith: CD}\n  condition: sel", `{"f":"abcd"}`, true},
		{"map is and", "sel: {f: x, g: y}\n  condition: sel", `{"f":"x","g":"z"}`, false},
		{"list of maps is or", "sel: [{f: x}, {g: y}]\n  condition: sel", `{"f":"z","g":"y"}`, true},
		{"and before or", "s: {f: x}\n  t: {g: y}\n  u: {h: z}\n  condition: s or t and u", `{"f":"x"}`, true},
		{"brackets", "s: {f: x}\n  t: {g: y}\n  u: {h: z}\n  condition: (s or t) and u", `{"f":"x"}`, false},
		{"not before and", "s: {f: x}\n  t: {g: y}\n  condition: not s AND t", `{"g":"y"}`, true},
		{"not of a whole selection", "s: {f: x}\n  t: {g: y, h: z}\n  condition: s and not t", `{"f":"x","g":"y"}`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := oracle.Record{ID: "1", Tenant: "t", Raw: []byte(tt.event)}
			got := fired(t, "id: rule\ndetection:\n  "+tt.detection, []oracle.Record{r})
			require.Equal(t, tt.want, len(got) == 1, "%s on %s", tt.detection, tt.event)
		})
	}
}

func TestLogsource(t *testing.T) {
	rule := "id: rule\nlogsource: {product: aws, service: cloudtrail}\ndetection:\n  sel: {f: x}\n  condition: sel"
	r := oracle.Record{ID: "1", Raw: []byte(`{"f":"x"}`)}
	for name, c := range map[string]struct {
		product, service string
		strict           bool
		want             int
	}{
		"both": {"aws", "cloudtrail", true, 1}, "other service": {"aws", "vpc", true, 0},
		"unset excludes nothing": {"aws", "", false, 1}, "unset but strict": {"aws", "", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r.Product, r.Service, r.StrictLogsource = c.product, c.service, c.strict
			require.Len(t, fired(t, rule, []oracle.Record{r}), c.want)
		})
	}
}

// TestIDs holds ids against ones that printf, sha256sum and base32 made.
func TestIDs(t *testing.T) {
	rules, err := oracle.Load([]byte("id: a\ndetection: {sel: {f: x}, condition: sel}\n---\nid: rule\ncorrelation: {type: event_count, rules: [a], group-by: [user], timespan: 1m, condition: {gte: 1}}"))
	require.NoError(t, err)
	found, err := oracle.Alerts(rules, []oracle.Record{{ID: "1", Tenant: "t", TimeMS: 28_333_333*minute + 59_999, Raw: []byte(`{"f":"x","user":"alice"}`)}}, settings())
	require.NoError(t, err)
	require.Contains(t, found, "qk2ipal4oqmukhcno3esjq9ob728lig0")
	require.Len(t, found, 1)
}

func TestRefuses(t *testing.T) {
	for name, rule := range map[string]string{
		"other type":      correlation("value_sum", "a", "field: x, gte: 2", ""),
		"other operator":  correlation("event_count", "a", "lte: 2", ""),
		"no bound":        correlation("event_count", "a", "", ""),
		"other extension": correlation("event_count", "a", "gte: 2", "stormbell: {window: session}"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := oracle.Load([]byte(rule))
			require.ErrorContains(t, err, "rule k: ")
		})
	}
	event := oracle.Record{ID: "1", Raw: []byte(`{"f":"x","o":{}}`)}
	for name, rule := range map[string]string{
		"wildcard":       "id: rule\ndetection: {sel: {f: x*}, condition: sel}",
		"modifier":       "id: rule\ndetection: {sel: {'f|re': x}, condition: sel}",
		"object":         "id: rule\ndetection: {sel: {o: x}, condition: sel}",
		"quantifier":     "id: rule\ndetection: {sel: {f: x}, condition: 1 of sel}",
		"keywords":       "id: rule\ndetection: {sel: [x], condition: sel}",
		"lost reference": "id: rule\ncorrelation: {type: temporal, rules: [zzz], timespan: 1m}",
		"no revision":    "id: other\ndetection: {sel: {f: x}, condition: sel}",
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := oracle.Load([]byte(rule))
			require.NoError(t, err)
			_, err = oracle.Alerts(rules, []oracle.Record{event}, settings())
			require.Error(t, err)
		})
	}
}

// BenchmarkAlerts is as large as the crash scenario: 200,000 events.
func BenchmarkAlerts(b *testing.B) {
	rules, err := oracle.Load([]byte(detections + correlation("event_count", "a", "gte: 20", "")))
	require.NoError(b, err)
	var all []oracle.Record
	for i := range 200_000 {
		all = append(all, oracle.Record{
			Offset: int64(i), ID: fmt.Sprint(i), Tenant: "t", Product: "aws", Service: "cloudtrail", TimeMS: base + int64(i), IngestMS: base,
			Raw: fmt.Appendf(nil, `{"action":%q,"user":"u%d"}`, []string{"a", "b", "c", "x"}[i%4], i%5000),
		})
	}
	for b.Loop() {
		_, err := oracle.Alerts(rules, all, settings())
		require.NoError(b, err)
	}
}
