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
	out := []string{}
	for _, a := range alerts(t, rules, all) {
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
		all := records(t, d.events)
		for i := range all {
			all[i].Partition = i // so that no ingest time is raised
		}
		require.Equal(t, d.want, told(t, detections+d.rule, all), "in reverse")
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

func TestRate(t *testing.T) {
	rule := func(more string) string {
		return extended("rate", "rules: [rule_a], timespan: 1m, baseline: 4m, ratio: 2.5, min: 3, learn: 2m"+more)
	}
	// calls are so many events in each minute.
	calls := func(perMinute ...int) (out []ev) {
		for m, n := range perMinute {
			for i := range n {
				at := int64(m)*minute + int64(i)
				out = append(out, ev{id: fmt.Sprintf("%d.%d", m, i), action: "a", at: at, in: max(0, at-5*minute)})
			}
		}
		return out
	}
	plain := rule("")
	late := calls(1, 2, 2, 5)
	late[4].in = late[4].at + 20*minute + 1
	for _, tt := range []decided{
		{"two and a half times the mean", plain, calls(1, 2, 2, 5), []string{"[u]/3.4"}},
		{"just not", plain, calls(1, 2, 2, 4), []string{}},
		{"once in a period, at the event that does it", plain, calls(1, 2, 2, 9), []string{"[u]/3.4"}},
		{"in each period", plain, calls(1, 2, 2, 9, 12), []string{"[u]/3.4", "[u]/4.10"}},
		{"the first period does not count", plain, calls(9, 2, 2, 5), []string{"[u]/3.4"}},
		{"one whole period is too short to learn", plain, calls(1, 2, 9), []string{}},
		{"empty periods count", plain, calls(1, 4, 0, 0, 3), []string{}},
		{"empty periods count as nothing", plain, calls(1, 3, 0, 0, 3), []string{"[u]/4.2"}},
		{"at least so many", plain, calls(1, 0, 0, 2), []string{}},
		{"at least so many, and they are", plain, calls(1, 0, 0, 3), []string{"[u]/3.2"}},
		{"what lies before the baseline", plain, calls(1, 9, 1, 1, 1, 1, 3), []string{"[u]/6.2"}},
		{"what just lies in it", plain, calls(1, 9, 1, 1, 1, 3), []string{}},
		{"a group without events in a whole baseline", plain, calls(1, 1, 1, 0, 0, 0, 0, 9), []string{}},
		{"a group with one in it", plain, calls(1, 1, 1, 0, 0, 0, 9), []string{"[u]/6.2"}},
		{"median", rule(", average: median"), calls(1, 9, 1, 1, 3), []string{"[u]/4.2"}},
		{"median of an even number", rule(", average: median"), calls(1, 1, 2, 4), []string{"[u]/3.3"}},
		{"mean of the same", plain, calls(1, 9, 1, 1, 3), []string{}},
		{"one bucket, one alert", rule(", suppress: 10m"), calls(1, 2, 2, 9, 12), []string{"[u]/3.4"}},
		{
			"without learn it learns for its baseline", extended("rate", "rules: [rule_a], timespan: 1m, baseline: 4m, ratio: 2, min: 3"),
			calls(1, 1, 1, 1, 9, 20),
			[]string{"[u]/5.5"},
		},
		{"a late event does not count before it", plain, late, []string{"[u]/3.3"}},
	} {
		tt.run(t)
	}
}

func TestImpossibleTravel(t *testing.T) {
	rule := extended("impossible_travel", "rules: [rule_a], location: value")
	slow := extended("impossible_travel", "rules: [rule_a], location: value, max-speed: 3000, min-distance: 2000")
	dublin, frankfurt, sydney := "eu-west-1", "eu-central-1", "ap-southeast-2"
	for _, tt := range []decided{
		{"round the world in an hour", rule, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: sydney, at: 60 * minute, in: 60 * minute}}, []string{"[u]/2"}},
		{"to Frankfurt in an hour", rule, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: frankfurt, at: 60 * minute, in: 60 * minute}}, []string{"[u]/2"}},
		{"to Frankfurt in an hour and a half", rule, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: frankfurt, at: 90 * minute, in: 90 * minute}}, []string{}},
		{"it is near", slow, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: frankfurt, at: 1}}, []string{}},
		{"there and back", rule, []ev{
			{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: sydney, at: minute}, {id: "3", action: "a", value: dublin, at: 2 * minute},
		}, []string{"[u]/2", "[u]/3"}},
		{"only the one before", rule, []ev{
			{id: "1", action: "a", value: dublin},
			{id: "2", action: "a", value: frankfurt, at: 90 * minute, in: 90 * minute},
			{id: "3", action: "a", value: frankfurt, at: 91 * minute, in: 91 * minute},
		}, []string{}},
		{"at the same time", rule, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: sydney}}, []string{"[u]/2"}},
		{"of two groups", rule, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", value: sydney, user: "v"}}, []string{}},
		{"one of them is late", rule, []ev{{id: "1", action: "a", value: dublin, in: 20*minute + 1}, {id: "2", action: "a", value: sydney, at: minute, in: 20 * minute}}, []string{}},
		{"without a place", rule, []ev{{id: "1", action: "a", value: dublin}, {id: "2", action: "a", at: 1}}, []string{}},
	} {
		tt.run(t)
	}
}
