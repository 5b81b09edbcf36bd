package correlator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"pgregory.net/rapid"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// uponRules refer to each type that `stormbell: type` adds, and to one that the
// watermark decides: from types that fire at once, from those that the watermark
// decides, and from one another, up to the fourth level.
const uponRules = ruleA + ruleB + `
title: Gone
id: gone
stormbell: {type: absence, trigger: rule-a, missing: rule-b, group-by: [user], timespan: 20s, risk: 40}
---
title: Silent
id: silent
stormbell: {type: absence, missing: rule-a, group-by: [user], timespan: 10s, forget: 2m}
---
title: New
id: new
stormbell: {type: new_value, rules: [rule-a, rule-b], group-by: [user], field: ip, history: 2m, learn: 2s, suppress: 30s, risk: 25}
---
title: Fast
id: fast
stormbell: {type: impossible_travel, rules: [rule-a, rule-b], group-by: [user], location: zone}
---
title: More
id: more
stormbell: {type: rate, rules: [rule-a], group-by: [user], timespan: 10s, baseline: 20s, learn: 10s, ratio: 1, min: 1}
---
title: Few
id: few
correlation: {type: event_count, rules: [rule-b], group-by: [ip], timespan: 10s, condition: {lt: 2}}
---
title: Lost
id: lost
correlation: {type: event_count, rules: [gone, fast], group-by: [ip], timespan: 1m, condition: {gte: 2}}
stormbell: {risk: 35}
---
title: Again
id: again
stormbell: {type: absence, trigger: gone, missing: new, group-by: [user], timespan: 40s}
---
title: First
id: first
stormbell: {type: new_value, rules: [silent, more, few], group-by: [user], field: zone, history: 5m, learn: 1s}
---
title: Jump
id: jump
stormbell: {type: impossible_travel, rules: [new, first], group-by: [user], location: zone}
---
title: Seldom
id: seldom
correlation: {type: event_count, rules: [again, rule-b], group-by: [zone], timespan: 30s, condition: {lt: 3}}
stormbell: {window: tumbling}
---
title: Surge
id: surge
stormbell: {type: rate, rules: [few, lost], group-by: [user], timespan: 10s, baseline: 20s, learn: 10s, ratio: 1, min: 1}
---
title: Hazard
id: hazard
stormbell: {type: risk, rules: [gone, new, lost], generate: true, group-by: [user], timespan: 1m, condition: {gte: 65}}
---
title: Top
id: top
correlation: {type: temporal, rules: [seldom, surge, jump], group-by: [user], timespan: 1m, condition: {gte: 2}}
`

// uponOracle says again what one of uponRules says.
type uponOracle struct {
	oracleRule
	refers []string
	group  []string
	field  string
	// fires, of a type that takes events in order, says whether the i-th fires;
	// each is a bucket by itself where every is 0.
	fires  func(recs []oracleRecord, i int) bool
	every  int64
	silent bool // it only speaks to others
}

func uponOracles(p *plan) []*uponOracle {
	user, ip, zone := []string{"user"}, []string{"ip"}, []string{"zone"}
	absent := func(span int64) func([]oracleRecord, int) bool {
		return func(recs []oracleRecord, i int) bool {
			return recs[i].rules[0] && !slices.ContainsFunc(recs, func(b oracleRecord) bool {
				return b.rules[1] && recs[i].time < b.time && b.time <= recs[i].time+span
			})
		}
	}
	unseen := func(history, learn int64) func([]oracleRecord, int) bool {
		return func(recs []oracleRecord, i int) bool {
			e, born := recs[i], i
			for born > 0 && recs[born].time-recs[born-1].time <= history {
				born--
			}
			known := slices.ContainsFunc(recs[born:i], func(o oracleRecord) bool { return o.value == e.value && e.time-o.time <= history })
			return !known && e.time-recs[born].time >= learn
		}
	}
	// The places are so far apart that no time of the test suffices.
	apart := func(recs []oracleRecord, i int) bool {
		return i > 0 && recs[i-1].value != recs[i].value && recs[i].time-recs[i-1].time < 3_600_000
	}
	list := []*uponOracle{
		{oracleRule: oracleRule{id: "gone"}, refers: []string{"a", "b"}, group: user, fires: absent(20_000)},
		{oracleRule: oracleRule{id: "silent"}, refers: []string{"a"}, group: user, silent: true, fires: func(recs []oracleRecord, i int) bool {
			return i+1 == len(recs) || recs[i+1].time > recs[i].time+10_000
		}},
		{oracleRule: oracleRule{id: "new"}, refers: []string{"a", "b"}, group: user, field: "ip", fires: unseen(120_000, 2000), every: 30_000},
		{oracleRule: oracleRule{id: "fast"}, refers: []string{"a", "b"}, group: user, field: "place", fires: apart, silent: true},
		{oracleRule: oracleRule{id: "more"}, refers: []string{"a"}, group: user, fires: moreThanBefore, every: 10_000, silent: true},
		{oracleRule: oracleRule{id: "few", kind: "event_count", timespan: 10_000, bounds: []oracleBound{{"lt", "2"}}}, refers: []string{"b"}, group: ip, silent: true},
		{oracleRule: oracleRule{id: "lost", kind: "event_count", timespan: 60_000, min: 2}, refers: []string{"gone", "fast"}, group: ip},
		{oracleRule: oracleRule{id: "again"}, refers: []string{"gone", "new"}, group: user, fires: absent(40_000), silent: true},
		{oracleRule: oracleRule{id: "first"}, refers: []string{"silent", "more", "few"}, group: user, field: "zone", fires: unseen(300_000, 1000), silent: true},
		{oracleRule: oracleRule{id: "jump"}, refers: []string{"new", "first"}, group: user, field: "place", fires: apart, silent: true},
		{oracleRule: oracleRule{id: "seldom", kind: "event_count", timespan: 30_000, bounds: []oracleBound{{"lt", "3"}}, window: "tumbling"}, refers: []string{"again", "b"}, group: zone, silent: true},
		{oracleRule: oracleRule{id: "surge"}, refers: []string{"few", "lost"}, group: user, fires: moreThanBefore, every: 10_000, silent: true},
		{oracleRule: oracleRule{id: "top", kind: "temporal", timespan: 60_000, min: 2, rules: 3}, refers: []string{"seldom", "surge", "jump"}, group: user},
	}
	for _, o := range list {
		o.lateness, o.revision = 1000, p.correlations[o.id].Revision
	}
	return list
}

// moreThanBefore: as many in a period of ten seconds as in the one or two before
// it on average, and one; once in a period.
func moreThanBefore(recs []oracleRecord, i int) bool {
	b, rank, counts := oracleFloor(recs[i].time, 10_000), 0, map[int64]int{}
	born := b
	for k := i; k >= 0 && born-oracleFloor(recs[k].time, 10_000) <= 2; k-- {
		born = oracleFloor(recs[k].time, 10_000)
		counts[born]++
		if born == b {
			rank++
		}
	}
	sum, n := 0, 0
	for p := max(born+1, b-2); p < b; p++ {
		sum, n = sum+counts[p], n+1
	}
	fires := func(count int) bool { return count >= 1 && count*n >= sum }
	return n >= 1 && fires(rank) && !fires(rank-1)
}

// uponField is what a correlation takes from an event by a field.
func uponField(a *accepted, name string) (string, bool) {
	if name == "place" {
		v := a.fields["zone"]
		return v, v == "eu-north-1" || v == "ap-southeast-2"
	}
	v, ok := a.fields[name]
	return v, ok && v != "null"
}

// records are the records of each group of a correlation: hits of detection
// rules, and what other correlations have said of events.
func (o *uponOracle) records(said map[string][]chainRecord) (groups map[string][]chainRecord, values map[string][]string) {
	groups, values = map[string][]chainRecord{}, map[string][]string{}
	for i, ref := range o.refers {
	each:
		for _, r := range said[ref] {
			group := []string{r.of.tenant}
			for _, name := range o.group {
				v, ok := uponField(r.of, name)
				if !ok {
					continue each
				}
				group = append(group, v)
			}
			if r.value = ""; o.field != "" {
				v, ok := uponField(r.of, o.field)
				if !ok {
					continue
				}
				r.value = v
			}
			if r.event = r.of.id; len(ref) > 1 {
				r.event = "\x00" + strconv.Itoa(i) + ":" + r.of.id
			}
			key := fmt.Sprintf("%q", group)
			values[key] = group
			same := slices.IndexFunc(groups[key], func(x chainRecord) bool {
				return x.of == r.of && x.event == r.event && x.ingest == r.ingest && x.time == r.time
			})
			if r.rules = map[int]bool{i: true}; same >= 0 {
				maps.Copy(groups[key][same].rules, r.rules)
				continue
			}
			groups[key] = append(groups[key], r)
		}
	}
	return groups, values
}

// spoken are the records of a group of which the correlation says something.
func (o *uponOracle) spoken(recs []chainRecord) (out []chainRecord) {
	plain := make([]oracleRecord, len(recs))
	for i, r := range recs {
		plain[i] = r.oracleRecord
	}
	if o.fires == nil && !o.decided() {
		for _, r := range recs {
			if o.qualifies(r.oracleRecord, plain) {
				out = append(out, r)
			}
		}
		return out
	}
	var timely []chainRecord
	for _, r := range recs {
		if !r.late && !r.early && r.ingest-r.time <= o.lateness {
			timely = append(timely, r)
		}
	}
	slices.SortStableFunc(timely, func(a, b chainRecord) int {
		return cmp.Or(cmp.Compare(a.time, b.time), strings.Compare(a.event, b.event), cmp.Compare(a.ingest, b.ingest))
	})
	// Copies are one event, received when the first was.
	timely = slices.CompactFunc(timely, func(a, b chainRecord) bool { return a.event == b.event && a.time == b.time })
	plain = plain[:0]
	for _, r := range timely {
		plain = append(plain, r.oracleRecord)
	}
	for i, r := range timely {
		if o.fires != nil {
			if o.fires(plain, i) {
				out = append(out, r)
			}
			continue
		}
		if set, _, _ := o.set(r.oracleRecord, plain); o.holds(set, r.oracleRecord) {
			out = append(out, r)
		}
	}
	return out
}

// alert is the id of the alert to which what is said of an event belongs.
func (o *uponOracle) alert(group []string, r chainRecord) string {
	label, last := "stormbell-alert-1", ""
	switch {
	case o.every > 0:
		last = strconv.FormatInt(oracleFloor(r.time, o.every), 10)
	case o.fires != nil:
		label, last = "stormbell-occurrence-1", r.event
	default:
		last = strconv.FormatInt(o.bucket(r.time), 10)
	}
	return oracleHash(label, slices.Concat(group[:1], []string{o.id, o.revision}, group[1:], []string{last})...)
}

// uponExpected is what uponRules make of accepted events, level by level.
func uponExpected(cfg Config, p *plan, events []accepted) map[string]bool {
	out, said := make(map[string]bool), make(map[string][]chainRecord)
	raised := raisedIngests(cfg, events)
	for i := range events {
		a := &events[i]
		late, early := raised[i]-a.time > 1000, a.time-raised[i] > 5*60_000
		for _, letter := range []string{"a", "b"} {
			if !a.tick && strings.Contains(a.fields["action"], letter) {
				said[letter] = append(said[letter], chainRecord{oracleRecord{time: a.time, ingest: raised[i], late: late, early: early}, a, nil, ""})
			}
		}
	}
	for _, o := range uponOracles(p) {
		groups, values := o.records(said)
		for key, recs := range groups {
			for _, r := range o.spoken(recs) {
				r.alert = o.alert(values[key], r)
				if said[o.id] = append(said[o.id], r); !o.silent {
					out[r.alert] = true
				}
			}
		}
	}
	maps.Copy(out, hazards(p, said))
	return out
}

// hazards are the alerts of the risk among uponRules.
func hazards(p *plan, said map[string][]chainRecord) map[string]bool {
	o := &riskOracle{id: "hazard", timespan: 60_000, lateness: 1000, least: 65}
	groups, out := map[[2]string][]riskRecord{}, map[string]bool{}
	for ref, points := range map[string]int64{"gone": 40, "new": 25, "lost": 35} {
		for _, r := range said[ref] {
			if user, ok := uponField(r.of, "user"); ok {
				g := [2]string{r.of.tenant, user}
				groups[g] = append(groups[g], riskRecord{time: r.time, ingest: r.ingest, of: r.alert, points: points})
			}
		}
	}
	for g, recs := range groups {
		for _, e := range recs {
			if o.qualifies(e, recs) {
				bucket := strconv.FormatInt(oracleFloor(e.time, o.timespan), 10)
				out[oracleHash("stormbell-alert-1", g[0], o.id, p.correlations[o.id].Revision, g[1], bucket)] = true
			}
		}
	}
	return out
}

// uponModel is a model of events near their times, of which the watermark moves
// as far as levels lag.
func uponModel(rt *rapid.T, p *plan, counts *counts, store Store) (*model, []action) {
	m := newModel(rt, p, counts, store)
	m.adds = func([]Record) map[string]bool { return nil } // what is below a frontier may be undecided
	m.expect = func() map[string]bool { return uponExpected(m.cfg, m.plan, m.events) }
	actions := m.actions()
	for i := range actions {
		switch actions[i].name {
		case "accept", "accept more":
			actions[i].do = func(int) { m.acceptExtended() }
		case "time":
			actions[i].do = func(int) {
				m.log.now = m.log.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 10 * time.Second, 31 * time.Second}).Draw(m.t, "by"))
			}
		}
	}
	tick := func(p int) { m.put(accepted{partition: p, tick: true, ingest: m.log.now.UnixMilli()}) }
	return m, append(actions, action{"tick", 3, tick}, action{"minutes", 2, func(p int) {
		m.log.now = m.log.now.Add(rapid.SampledFrom([]time.Duration{100 * time.Second, 6 * time.Minute, 7 * time.Minute}).Draw(m.t, "by"))
		tick(p)
	}})
}

// TestModelOfChainsUponOwnTypes holds chains upon what the watermark decides to
// the definition, under every fault that the log and the store may bring, and a
// backtest to the ids of the alerts that there were.
func TestModelOfChainsUponOwnTypes(t *testing.T) {
	p := compile(t, modelConfig(), uponRules)
	require.Equal(t, uint32(3), p.levels)
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m, actions := uponModel(rt, p, counts, store)
		m.run(append(actions, m.faults(store)...))
		store.dropReply, store.fail = false, false
		m.tickAll()
		m.settle()
		m.check()
		require.Empty(rt, m.problems)
		m.backtests(m.plans)
		m.seen["drop"] += store.dropped
		for k, n := range m.seen {
			seen[k] += n
		}
		for _, r := range m.log.all(TopicAlerts) {
			for id, c := range p.correlations {
				if strings.Contains(string(r.Value), c.Revision) {
					seen[id]++
				}
			}
		}
	})
	t.Log(seen)
	happened(t, seen, "alerts", "gone", "new", "lost", "hazard", "top", "signal", "level watermark", "tail lost", "flush", "rebuild", "drop", "owner ended", "crash")
}

// TestModelOfChainsUponOwnTypesNoticesDefects seeds defects and demands that the
// check finds them.
func TestModelOfChainsUponOwnTypesNoticesDefects(t *testing.T) {
	long(t)
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		plan   func(*plan)
		defect func(*session)
		want   string
	}{
		"levels do not lag behind what they wait for": {defect: hurry, want: "missing"},
		"parents do not wait for their level": {plan: func(p *plan) {
			for _, c := range p.correlations {
				c.spec.Level = 0
			}
		}, want: "missing"},
		"absences are said too early":       {plan: func(p *plan) { p.correlations["again"].spec.Timespan -= 15_000 }, want: "spurious"},
		"nothing is said of what is new":    {plan: func(p *plan) { p.correlations["new"].spec.Extension.Learn += 5000 }, want: "missing"},
		"what signals count as said before": {defect: func(s *session) { s.f.silent = 1 << 40 }, want: "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, modelConfig(), uponRules)
			if tc.plan != nil {
				tc.plan(p)
			}
			notices(t, 1500, tc.want, func(rt *rapid.T) *model {
				m, actions := uponModel(rt, p, counts, newLossy())
				m.defect = tc.defect
				m.run(actions)
				m.tickAll()
				m.settle()
				return m
			})
		})
	}
}

// TestEvaluationOfChainsUponOwnTypes gives what the definition gives, and says
// which child each part of an alert is of.
func TestEvaluationOfChainsUponOwnTypes(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Lateness = time.Second
	p := compile(t, cfg, uponRules)
	fired := 0
	rapid.Check(t, func(rt *rapid.T) {
		run, err := NewEvaluation(t.Context(), cfg, p.set)
		require.NoError(rt, err)
		var events []accepted
		var in []event.Event
		at := int64(1_800_000_000_000)
		for i := range rapid.IntRange(1, 40).Draw(rt, "events") {
			at += rapid.SampledFrom([]int64{0, 1, 1000, 5000, 10_001, 21_000}).Draw(rt, "after")
			a := accepted{id: fmt.Sprintf("e%02d", i), tenant: "t", time: at, ingest: at, fields: map[string]string{
				"action": rapid.SampledFrom([]string{"a", "a", "b", "ab", "none"}).Draw(rt, "action"),
				"user":   rapid.SampledFrom([]string{"1", "1", "2"}).Draw(rt, "user"), "ip": rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "ip"),
				"zone": rapid.SampledFrom([]string{"eu-north-1", "ap-southeast-2"}).Draw(rt, "zone"),
			}}
			events = append(events, a)
			_, value := a.record()
			e, err := event.Decode(value)
			require.NoError(rt, err)
			in = append(in, e)
		}
		matched, err := run.Evaluator().Match(t.Context(), in)
		require.NoError(rt, err)
		got := map[string]bool{}
		say := func(a *alertv1.Alert) error {
			require.False(rt, got[a.GetId()], "twice")
			got[a.GetId()] = true
			for _, e := range a.GetEvents() {
				require.Regexp(rt, "^e[0-9]+$", e.GetId())
				require.NotEmpty(rt, e.GetRuleId())
			}
			return nil
		}
		require.NoError(rt, run.Fold(t.Context(), matched, say, func(reason string) { require.Fail(rt, reason) }))
		require.NoError(rt, run.Close(t.Context(), say))
		want := uponExpected(cfg, p, events)
		require.Equal(rt, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
		fired += len(got)
	})
	require.Positive(t, fired)
}

// TestChainsUponOwnTypesAreTaken, and what is not is said with its reason.
func TestChainsUponOwnTypesAreTaken(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Retention = 60 * time.Hour
	long := "title: Long\nid: long\nstormbell: {type: absence, trigger: rule-a, missing: rule-b, group-by: [user], timespan: 23h}\n---\n"
	parent := func(child string) string {
		return "title: Parent\nid: parent\ncorrelation: {type: event_count, rules: [" + child + "], group-by: [user], timespan: 23h, condition: {gte: 2}}\n"
	}
	for src, want := range map[string]string{
		uponRules + "---\n" + parent("again"):  "",
		ruleA + ruleB + long + parent("long"):  "it has to look back",
		uponRules + "---\n" + parent("hazard"): "is counted by none",
	} {
		docs, problems := sigma.Parse([]byte(src), "test.yml")
		require.Zero(t, sigma.Rejected(problems), problems)
		_, problems = sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
		if want == "" {
			require.Zero(t, sigma.Rejected(problems), problems)
			continue
		}
		require.Equal(t, 1, sigma.Rejected(problems), problems)
		require.Contains(t, fmt.Sprint(problems), want)
	}
}
