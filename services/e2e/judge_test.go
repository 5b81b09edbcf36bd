package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/oracle"
)

// rulesOf reads a directory for the oracle, with the revisions that the engine
// gives: a revision is only a name, which the oracle has no way to derive.
func rulesOf(t *testing.T, dir string) ([]oracle.Rule, oracle.Settings) {
	t.Helper()
	rules, err := oracle.LoadDir(dir)
	require.NoError(t, err)
	paths, err := filepath.Glob(filepath.Join(dir, "*.yml"))
	require.NoError(t, err)
	var docs []sigma.Document
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		more, problems := sigma.Parse(text, path)
		require.Zero(t, sigma.Rejected(problems))
		docs = append(docs, more...)
	}
	set, problems := sigma.Compile(docs, sigma.Options{})
	require.Zero(t, sigma.Rejected(problems), "%v", problems)
	s := oracle.Settings{ // the defaults of the correlator
		LatenessMS: (30 * time.Minute).Milliseconds(), SlackMS: time.Minute.Milliseconds(), Revisions: map[string]string{},
	}
	for _, r := range set.Rules() {
		s.Revisions[r.ID] = r.Revision
	}
	for _, c := range set.Correlations() {
		s.Revisions[c.ID] = c.Revision
	}
	return rules, s
}

// accepted reads the topic `events` as the oracle wants it.
func accepted(t *testing.T, records []bus.Record) []oracle.Record {
	t.Helper()
	var out []oracle.Record
	for i := range records {
		r := &records[i]
		one := oracle.Record{Partition: r.Partition, Offset: r.Offset}
		if string(r.Header(event.HeaderSchema)) == event.SchemaTick {
			ms, err := event.DecodeTick(r.Value)
			require.NoError(t, err)
			one.Tick, one.IngestMS = true, ms
			out = append(out, one)
			continue
		}
		e, err := event.Decode(r.Value)
		require.NoError(t, err)
		one.ID, one.Tenant = e.ID, e.Tenant
		one.Product, one.Service, one.Category, one.StrictLogsource = e.Product, e.Service, e.Category, e.StrictLogsource
		one.TimeMS, one.IngestMS, one.Raw = e.TimeMS, e.IngestMS, e.Raw
		out = append(out, one)
	}
	return out
}

// A verdict is what is known at the end of a run.
type verdict struct {
	rules    []oracle.Rule
	settings oracle.Settings
	// told are the ids that clients were told are accepted, events what the
	// topic holds.
	told   []string
	events []oracle.Record
	// alerts are the ids in the topic, with repetitions.
	alerts     []string
	deliveries []ledger.Delivery
	// want is what the oracle says, where it has been asked.
	want map[string]oracle.Alert
}

// judge returns one line per anomaly.
func (v *verdict) judge() ([]string, error) {
	var found []string
	kept := map[string]bool{}
	for i := range v.events {
		kept[v.events[i].ID] = true
	}
	for _, id := range v.told {
		if !kept[id] {
			found = append(found, "lost: accepted event "+id)
		}
	}
	want := v.want
	if want == nil {
		var err error
		if want, err = oracle.Alerts(v.rules, v.events, v.settings); err != nil {
			return nil, fmt.Errorf("ask the oracle: %w", err)
		}
	}
	made := map[string]bool{}
	for _, id := range v.alerts {
		made[id] = true
		if _, ok := want[id]; !ok && id != "" {
			found = append(found, "spurious: alert in the topic "+id)
		}
	}
	for id, a := range want {
		if !made[id] {
			found = append(found, fmt.Sprintf("lost: alert in the topic %s of rule %s, group %q, event %s", id, a.RuleID, a.Group, a.EventID))
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	return append(found, ledger.Judge(v.deliveries, slices.Collect(maps.Keys(want)))...), nil
}

// alertIDs reads the topic `alerts`.
func alertIDs(t *testing.T, records []bus.Record) []string {
	t.Helper()
	var ids []string
	for i := range records {
		var a alertv1.Alert
		require.NoError(t, proto.Unmarshal(records[i].Value, &a))
		require.Equal(t, string(records[i].Key), a.GetId())
		ids = append(ids, a.GetId())
	}
	return ids
}

// counts says which partitions have how many records.
func counts(records []bus.Record) map[int]int {
	out := map[int]int{}
	for i := range records {
		out[records[i].Partition]++
	}
	return out
}

// offline is a run as it ought to be, without any process: what the oracle
// finds is what was made and delivered.
func offline(t *testing.T) *verdict {
	t.Helper()
	rules, settings := rulesOf(t, "testdata/rules/crash")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := newLoad(1, 1500, 24, now, decided()...)
	v := &verdict{rules: rules, settings: settings, told: slices.Collect(maps.Keys(l.ids)), events: l.records(now)}
	want, err := oracle.Alerts(v.rules, v.events, v.settings)
	require.NoError(t, err)
	l.requireSound(t, want)
	for id := range want {
		v.alerts = append(v.alerts, id)
		v.deliveries = append(v.deliveries, ledger.Delivery{WebhookID: "msg_" + id, AlertID: id, BodyHash: id, Status: 204})
	}
	return v
}

// records is what the topic would hold if everything was taken in at once.
func (l *load) records(now time.Time) []oracle.Record {
	out := make([]oracle.Record, 0, len(l.sent))
	for i, e := range l.sent {
		out = append(out, oracle.Record{
			Offset: int64(i), ID: e.id, Tenant: "default", Product: "aws", Service: "cloudtrail", StrictLogsource: true,
			TimeMS: e.time, IngestMS: now.UnixMilli(), Raw: e.raw,
		})
	}
	return out
}

// chainIDs is how the ids of rules begin that count what others say.
const chainIDs = "6f1f6d2e-c"

// requireSound holds the oracle against what the stories were written to give.
func (l *load) requireSound(t *testing.T, want map[string]oracle.Alert) {
	t.Helper()
	fired, alone := map[string]bool{}, 0
	chained := map[string]bool{}
	for _, a := range want {
		if strings.HasPrefix(a.RuleID, chainIDs) { // what stories add up to together
			chained[a.RuleID] = true
			continue
		}
		if strings.HasPrefix(a.RuleID, pulseIDs) {
			continue
		}
		if len(a.Group) == 0 {
			alone++
			continue
		}
		fired[a.Group[0][max(0, lastSlash(a.Group[0])):]] = true
	}
	require.Len(t, chained, 3, "each level of the chain fires")
	require.Equal(t, l.roots, alone)
	require.Equal(t, l.positives, fired, "groups that fire are those whose stories say so")
	for name := range l.negatives {
		require.NotContains(t, fired, name)
	}
}

// lastSlash is where a user's name begins in an ARN.
func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i + 1
		}
	}
	return 0
}

// TestTheJudgeNotices shows that a run in which something went wrong fails.
func TestTheJudgeNotices(t *testing.T) {
	tests := []struct {
		name   string
		defect func(t *testing.T, v *verdict)
		want   string
	}{
		{"nothing is wrong", func(*testing.T, *verdict) {}, ""},
		{"an accepted event is lost", func(_ *testing.T, v *verdict) {
			id := v.events[0].ID
			v.events = slices.DeleteFunc(v.events, func(r oracle.Record) bool { return r.ID == id })
		}, "lost: accepted event"},
		{"an alert is not made", func(_ *testing.T, v *verdict) { v.alerts = v.alerts[1:] }, "lost: alert in the topic"},
		{"an alert is made up", func(_ *testing.T, v *verdict) { v.alerts = append(v.alerts, "x") }, "spurious: alert in the topic x"},
		{"an alert is not delivered", func(_ *testing.T, v *verdict) { v.deliveries = v.deliveries[1:] }, "lost: alert"},
		{"a delivery was refused", func(_ *testing.T, v *verdict) { v.deliveries[0].Status = 500 }, "lost: alert"},
		{"a second webhook-id", func(_ *testing.T, v *verdict) {
			again := v.deliveries[0]
			again.WebhookID = "msg_other"
			v.deliveries = append(v.deliveries, again)
		}, "two webhook-ids"},
		{"a second body", func(_ *testing.T, v *verdict) {
			again := v.deliveries[0]
			again.BodyHash = "other"
			v.deliveries = append(v.deliveries, again)
		}, "two bodies"},
		{"a threshold is off by one", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "gte: 5", "gte: 4")
		}, "lost: alert in the topic"},
		{"one value too many is asked for", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "gte: 4, field", "gte: 5, field")
		}, "spurious: alert in the topic"},
		{"order is ignored", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "temporal_ordered", "temporal")
		}, "lost: alert in the topic"},
		{"an absence lasts a second longer", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "timespan: 5m, lateness", "timespan: 301s, lateness")
		}, "spurious: alert in the topic"},
		{"a value stays known for a second less", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "history: 10m", "history: 599s")
		}, "lost: alert in the topic"},
		{"a group learns for a second longer", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "learn: 5m", "learn: 301s")
		}, "spurious: alert in the topic"},
		{"a rate must be a little higher", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "ratio: 3,", "ratio: 3.001,")
		}, "spurious: alert in the topic"},
		{"one event more is a rate", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "ratio: 3,", "ratio: 2.5,")
		}, "lost: alert in the topic"},
		{"a risk is a little less", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "risk: 40", "risk: 39")
		}, "spurious: alert in the topic"},
		{"one tactic is enough, and half the risk", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "condition: {gte: 90}\n    tactics: {gte: 2}", "condition: {gte: 50}")
		}, "lost: alert in the topic"},
		{"places are farther apart", func(t *testing.T, v *verdict) {
			t.Helper()
			v.rules = mutated(t, "min-distance: 500", "min-distance: 2000")
		}, "spurious: alert in the topic"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := offline(t)
			tt.defect(t, v)
			found, err := v.judge()
			require.NoError(t, err)
			if tt.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Contains(t, found[0], tt.want)
		})
	}
}

// mutated are the rules of the crash scenario with one thing replaced.
func mutated(t *testing.T, old, by string) []oracle.Rule {
	t.Helper()
	text, err := os.ReadFile("testdata/rules/crash/crash.yml")
	require.NoError(t, err)
	changed := replaceOnce(string(text), old, by)
	require.NotEqual(t, string(text), changed)
	rules, err := oracle.Load([]byte(changed))
	require.NoError(t, err)
	return rules
}
