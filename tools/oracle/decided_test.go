package oracle_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/oracle"
)

// extended is a rule of a kind that Sigma does not have.
func extended(kind, more string) string {
	return "id: k\nstormbell: {type: " + kind + ", group-by: [user], lateness: 20m, " + more + "}\n"
}

// told says by which events of which group values a rule fires.
func told(t *testing.T, rules string, all []oracle.Record) []string {
	t.Helper()
	parsed, err := oracle.Load([]byte(rules))
	require.NoError(t, err)
	found, err := oracle.Alerts(parsed, all, settings())
	require.NoError(t, err)
	out := []string{}
	for id, a := range found {
		require.Equal(t, id, a.ID)
		if a.RuleID == "k" {
			out = append(out, fmt.Sprintf("%s/%s", a.Group, a.EventID))
		}
	}
	slices.Sort(out)
	return out
}

type decided struct {
	name, rule string
	events     []ev
	want       []string
}

func (d *decided) run(t *testing.T) {
	t.Helper()
	t.Run(d.name, func(t *testing.T) {
		require.Equal(t, d.want, told(t, detections+d.rule, records(t, d.events)))
		slices.Reverse(d.events)
		require.Equal(t, d.want, told(t, detections+d.rule, records(t, d.events)), "in reverse")
	})
}

func TestAbsence(t *testing.T) {
	after := extended("absence", "trigger: rule_a, missing: b, timespan: 10m")
	beat := extended("absence", "missing: rule_a, timespan: 10m")
	for _, tt := range []decided{
		{"nothing follows", after, []ev{{id: "1", action: "a"}}, []string{"[u]/1"}},
		{"it follows at the last millisecond", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 10 * minute, in: 10 * minute}}, []string{}},
		{"a millisecond too late", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 10*minute + 1, in: 10 * minute}}, []string{"[u]/1"}},
		{"in the same millisecond is not after", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b"}}, []string{"[u]/1"}},
		{"before", after, []ev{{id: "1", action: "a", at: 1}, {id: "2", action: "b"}}, []string{"[u]/1"}},
		{"of another group", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 1, user: "v"}}, []string{"[u]/1"}},
		{"each has its own alert", after, []ev{{id: "1", action: "a"}, {id: "2", action: "a"}, {id: "3", action: "a", at: 1}}, []string{"[u]/1", "[u]/2", "[u]/3"}},
		{"one ends all that wait", after, []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: 1}, {id: "3", action: "b", at: 2}, {id: "4", action: "a", at: 3}}, []string{"[u]/4"}},
		{"one bucket, one alert", extended("absence", "trigger: rule_a, missing: b, timespan: 1m, suppress: 10m"), []ev{
			{id: "1", action: "a"}, {id: "2", action: "a", at: 9 * minute, in: 5 * minute}, {id: "3", action: "a", at: 10 * minute, in: 5 * minute},
		}, []string{"[u]/1", "[u]/3"}},
		{"what follows is late", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 1, in: 20*minute + 2}}, []string{"[u]/1"}},
		{"what follows is just not late", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 1, in: 20*minute + 1}}, []string{}},
		{"what came first is late", after, []ev{{id: "1", action: "a", in: 20*minute + 1}}, []string{}},
		{"a copy is late", after, []ev{{id: "1", action: "a"}, {id: "1", action: "a", in: 20*minute + 1}}, []string{"[u]/1"}},
		{"what follows is early", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 5*minute + 1}}, []string{"[u]/1"}},
		{"what follows is just not early", after, []ev{{id: "1", action: "a"}, {id: "2", action: "b", at: 5 * minute}}, []string{}},
		{"the last heartbeat", beat, []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: 10 * minute, in: 5 * minute}}, []string{"[u]/2"}},
		{"a heartbeat left out", beat, []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: 10*minute + 1, in: 6 * minute}}, []string{"[u]/1", "[u]/2"}},
		{"heartbeats of one millisecond", beat, []ev{{id: "1", action: "a"}, {id: "2", action: "a"}}, []string{"[u]/2"}},
		{"a heartbeat and its copy", beat, []ev{{id: "1", action: "a"}, {id: "1", action: "a", in: 1}}, []string{"[u]/1"}},
	} {
		tt.run(t)
	}
}

func TestNewValue(t *testing.T) {
	known := extended("new_value", "rules: [rule_a], field: value, history: 10m, learn: 2m")
	for _, tt := range []decided{
		{"the first of all", known, []ev{{id: "1", action: "a", value: "x"}}, []string{}},
		{"while it learns", known, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 2*minute - 1}}, []string{}},
		{"once it has", known, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 2 * minute}}, []string{"[u]/2"}},
		{"it has been shown", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 1}, {id: "3", action: "a", value: "y", at: 3 * minute},
		}, []string{}},
		{"it was shown just within the history", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: minute}, {id: "3", action: "a", value: "x", at: 10 * minute},
		}, []string{}},
		{"it is forgotten", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: minute}, {id: "3", action: "a", value: "x", at: 10*minute + 1},
		}, []string{"[u]/3"}},
		{"to show it again keeps it known", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "x", at: 9 * minute}, {id: "3", action: "a", value: "x", at: 18 * minute},
		}, []string{}},
		{"the group is forgotten", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 10*minute + 1}, {id: "3", action: "a", value: "z", at: 11 * minute},
		}, []string{}},
		{"the group is just not forgotten", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 10 * minute}, {id: "3", action: "a", value: "z", at: 11 * minute},
		}, []string{"[u]/2", "[u]/3"}},
		{"each once", known, []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 3 * minute}, {id: "3", action: "a", value: "y", at: 4 * minute},
		}, []string{"[u]/2"}},
		{"of another group", known, []ev{{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 3 * minute, user: "v"}}, []string{}},
		{"without a value", known, []ev{{id: "1", action: "a"}, {id: "2", action: "a", value: "y", at: 3 * minute}}, []string{}},
		{"late", known, []ev{{id: "1", action: "a", value: "x", in: 20*minute + 1}, {id: "2", action: "a", value: "y", at: 3 * minute}}, []string{}},
		{"without learn it learns for its history", extended("new_value", "rules: [rule_a], field: value, history: 10m"), []ev{
			{id: "1", action: "a", value: "x"}, {id: "2", action: "a", value: "y", at: 10*minute - 1}, {id: "3", action: "a", value: "z", at: 10 * minute},
		}, []string{"[u]/3"}},
	} {
		for i := range tt.events {
			tt.events[i].in += max(tt.events[i].at-5*minute, 0) // so that none is early
		}
		tt.run(t)
	}
}

// TestParentsOfDecided counts what the watermark has decided.
func TestParentsOfDecided(t *testing.T) {
	chain := `id: k
correlation: {type: event_count, rules: [rule], group-by: [user], timespan: 10m, condition: {gte: 2}}
---
id: rule
stormbell: {type: absence, trigger: rule_a, missing: b, group-by: [user], timespan: 1m, suppress: 10m, lateness: 20m}
`
	events := []ev{{id: "1", action: "a"}, {id: "2", action: "a", at: 5 * minute}, {id: "3", action: "b", at: 5*minute + 1, in: minute}}
	require.Empty(t, told(t, detections+chain, records(t, events)))
	require.Equal(t, []string{"[u]/2"}, told(t, detections+chain, records(t, events[:2])), "each event, whatever suppress makes of alerts")
}

// TestOccurrenceIDs holds an id against one that printf, sha256sum and base32
// made.
func TestOccurrenceIDs(t *testing.T) {
	rules, err := oracle.Load([]byte(detections + extended("absence", "missing: rule_a, timespan: 1m")))
	require.NoError(t, err)
	found, err := oracle.Alerts(rules, records(t, []ev{{id: "1", action: "a"}}), settings())
	require.NoError(t, err)
	require.Contains(t, found, "c4lj25j3o04g0js81vtkkpu8of3n3381")
	require.Len(t, found, 1)
}

func TestRefusesExtended(t *testing.T) {
	for name, rule := range map[string]string{
		"other type":      extended("session", "rules: [rule_a]"),
		"other key":       extended("absence", "missing: rule_a, timespan: 1m, forget: 1h"),
		"key of another":  extended("absence", "missing: rule_a, timespan: 1m, history: 1h"),
		"own lateness":    "id: k\nstormbell: {type: absence, missing: rule_a, timespan: 1m}",
		"nothing missing": extended("absence", "trigger: rule_a, timespan: 1m"),
		"no field":        extended("new_value", "rules: [rule_a], history: 1h"),
		"several fields":  extended("new_value", "rules: [rule_a], field: [a, b], history: 1h"),
		"of a detection":  "id: k\ndetection: {sel: {f: x}, condition: sel}\nstormbell: {suppress: 1m}",
		"a number":        correlation("event_count", "a", "gte: 2", "stormbell: {suppress: 1}"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := oracle.Load([]byte(rule))
			require.ErrorContains(t, err, "rule k: ")
		})
	}
	for name, rule := range map[string]string{
		"chains below": extended("absence", "missing: rule, timespan: 1m") +
			"\n---\nid: rule\ncorrelation: {type: event_count, rules: [a], group-by: [user], timespan: 1m, condition: {gte: 1}}\n",
		"two values": extended("new_value", "rules: [rule_a], field: value, history: 1h"),
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := oracle.Load([]byte(detections + rule))
			require.NoError(t, err)
			_, err = oracle.Alerts(rules, records(t, []ev{{id: "1", action: "a", value: "x"}, {id: "1", action: "a", value: "y"}}), settings())
			require.ErrorContains(t, err, "not supported")
		})
	}
}
