package correlator

import (
	"context"
	"fmt"
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
)

// riskRules score a chain of two levels, hits of detection rules, and nothing of
// what only others count.
const riskRules = ruleA + ruleX + `
title: Low
id: rule-c
level: low
tags: [attack.discovery, attack.collection]
logsource: {product: test}
detection: {s: {action|contains: c}, condition: s}
---
title: Unscored
id: rule-b
logsource: {product: test}
detection: {s: {action|contains: b}, condition: s}
stormbell: {risk: 0}
---
title: Burst
id: burst
level: medium
tags: [attack.execution]
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 2}}
---
title: Spread
id: spread
tags: [attack.impact]
correlation: {type: value_count, rules: [burst], group-by: [zone], timespan: 20s, generate: true, condition: {gte: 2, field: ip}}
stormbell: {risk: 31}
---
title: Danger
id: danger
stormbell: {type: risk, group-by: [user], timespan: 20s, condition: {gte: 56}, tactics: {gte: 2}}
---
title: Total
id: total
stormbell: {type: risk, group-by: [zone, tenancy], aliases: {tenancy: {rule-c: actor, rule-x: user, burst: ip, spread: ip}}, timespan: 10s, condition: {gt: 69}, lateness: 1m, suppress: 30s}
`

// riskOracle says again what a risk says.
type riskOracle struct {
	id                           string
	group                        func(ref string) []string
	timespan, lateness, suppress int64
	least                        int64
	tactics                      int
}

// scoredAs are points and tactics by rule; manifest 2 has other rules.
func scoredAs(manifest, ref string) (points int64, tactics []string) {
	switch ref {
	case "x":
		if manifest == "2" {
			return 30, []string{"stealth"}
		}
		return 50, nil
	case "c":
		if manifest == "2" {
			return 50, []string{"discovery"}
		}
		return 5, []string{"discovery", "collection"}
	case "burst":
		return 20, []string{"execution"}
	}
	return 31, []string{"impact"}
}

// changedRiskRules differ in what they score.
func changedRiskRules() string {
	return strings.NewReplacer("level: low\ntags: [attack.discovery, attack.collection]", "level: high\ntags: [attack.discovery]",
		"level: high\nlogsource", "level: high\ntags: [attack.stealth]\nlogsource", "{s: {action|contains: x}, condition: s}", "{s: {action|contains: x}, condition: s}\nstormbell: {risk: 30}").Replace(riskRules)
}

func riskOracles(cfg Config) []*riskOracle {
	return []*riskOracle{
		{id: "danger", group: func(string) []string { return []string{"user"} }, timespan: 20_000, lateness: cfg.Lateness.Milliseconds(), suppress: 20_000, least: 56, tactics: 2},
		{id: "total", group: func(ref string) []string {
			return []string{"zone", map[string]string{"c": "actor", "x": "user", "burst": "ip", "spread": "ip"}[ref]}
		}, timespan: 10_000, lateness: 60_000, suppress: 30_000, least: 70},
	}
}

// riskRecord is one thing that is scored, by one record.
type riskRecord struct {
	time, ingest int64
	of           string
	points       int64
	tactics      []string
}

// qualifies tries every stretch of ingest times that holds e.
func (o *riskOracle) qualifies(e riskRecord, recs []riskRecord) bool {
	reach := o.timespan + o.lateness + 5*60_000
	for _, begin := range recs {
		if begin.ingest > e.ingest || e.ingest > begin.ingest+reach {
			continue
		}
		points, tactics := map[string]int64{}, map[string]bool{}
		for _, x := range recs {
			if x.ingest < begin.ingest || x.ingest > begin.ingest+reach || x.time < e.time-o.timespan || x.time > e.time {
				continue
			}
			points[x.of] = max(points[x.of], x.points)
			for _, tactic := range x.tactics {
				tactics[tactic] = true
			}
		}
		sum := int64(0)
		for _, n := range points {
			sum += n
		}
		if sum >= o.least && len(tactics) >= o.tactics {
			return true
		}
	}
	return false
}

// riskExpected is what riskRules make of accepted events.
func riskExpected(cfg Config, p *plan, events []accepted) map[string]bool {
	late := cfg.Lateness.Milliseconds()
	list := []*chainOracle{
		{oracleRule{id: "burst", kind: "event_count", timespan: 10_000, min: 2, rules: 1}, []string{"a"}, []string{"user"}, true},
		{oracleRule{id: "spread", kind: "value_count", timespan: 20_000, min: 2, rules: 1}, []string{"burst"}, []string{"zone"}, true},
	}
	for _, r := range list {
		r.lateness, r.revision = late, p.correlations[r.id].Revision
	}
	out, said := chainSaid(cfg, list, events, nil)
	for _, letter := range []string{"x", "c", "b"} {
		for _, r := range said[letter] {
			out[oracleHash("stormbell-alert-1", r.of.tenant, "rule-"+letter, p.set.Rule("rule-"+letter).Revision, r.of.id)] = true
		}
	}
	for _, o := range riskOracles(cfg) {
		groups, values := map[string][]riskRecord{}, map[string][]string{}
		for _, ref := range []string{"x", "c", "burst", "spread"} {
			for _, r := range said[ref] {
				group, ok := []string{r.of.tenant}, true
				for _, name := range o.group(ref) {
					v, has := r.of.fields[name]
					group, ok = append(group, v), ok && has && v != "null"
				}
				if !ok {
					continue
				}
				rec := riskRecord{time: r.time, ingest: r.ingest, of: r.alert}
				if rec.of == "" {
					rec.of = fmt.Sprint(ref, " in ", oracleFloor(r.time, o.timespan))
				}
				rec.points, rec.tactics = scoredAs(r.of.manifest, ref)
				key := fmt.Sprintf("%q", group)
				groups[key], values[key] = append(groups[key], rec), group
			}
		}
		for key, recs := range groups {
			for _, e := range recs {
				if o.qualifies(e, recs) {
					bucket := strconv.FormatInt(oracleFloor(e.time, o.suppress), 10)
					out[oracleHash("stormbell-alert-1", slices.Concat(values[key][:1], []string{o.id, p.correlations[o.id].Revision}, values[key][1:], []string{bucket})...)] = true
				}
			}
		}
	}
	return out
}

// byManifest are the rules that an event is stamped with.
type byManifest map[string]*plan

func (f byManifest) Get(_ context.Context, all, _ []byte) (*plan, error) { return f[string(all)], nil }

func riskModel(rt *rapid.T, plans byManifest, counts *counts, store Store) *model {
	m := newModel(rt, plans["1"], counts, store)
	m.plans = plans
	m.manifest = func() string { return rapid.SampledFrom([]string{"1", "1", "2"}).Draw(rt, "manifest") }
	m.expect = func() map[string]bool { return riskExpected(m.cfg, m.plan, m.events) }
	m.adds = func([]Record) map[string]bool { return nil }
	return m
}

// riskPlans are two that differ in what rules score, and in nothing of the risks.
func riskPlans(t *testing.T) byManifest {
	t.Helper()
	plans := byManifest{"1": compile(t, modelConfig(), riskRules), "2": compile(t, modelConfig(), changedRiskRules())}
	for _, id := range []string{"danger", "total"} {
		require.Equal(t, plans["1"].correlations[id].Revision, plans["2"].correlations[id].Revision)
		require.Equal(t, plans["1"].correlations[id].spec, plans["2"].correlations[id].spec)
		require.NotEqual(t, plans["1"].correlations[id].Scores, plans["2"].correlations[id].Scores)
	}
	return plans
}

// TestModelOfRisk holds risks to the definition under every fault that the log and
// the store may bring, while what the rules score changes to and fro, and a
// backtest to the ids of the alerts that there were.
func TestModelOfRisk(t *testing.T) {
	plans := riskPlans(t)
	require.Equal(t, uint32(2), plans["1"].levels)
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := riskModel(rt, plans, counts, store)
		m.run(append(append(m.actions(), minutes(m)), m.faults(store)...))
		store.dropReply, store.fail = false, false
		m.settle()
		m.check()
		require.Empty(rt, m.problems)
		m.backtests(plans)
		m.seen["drop"] += store.dropped
		for k, n := range m.seen {
			seen[k] += n
		}
		for _, id := range []string{"danger", "total"} {
			for _, r := range m.log.all(TopicAlerts) {
				if strings.Contains(string(r.Value), plans["1"].correlations[id].Revision) {
					seen[id]++
				}
			}
		}
	})
	t.Log(seen)
	happened(t, seen, "alerts", "danger", "total", "signal", "level watermark", "tail lost", "flush", "rebuild", "drop", "owner ended", "crash", "panic")
}

// TestModelOfRiskNoticesDefects seeds defects and demands that the check finds
// them.
func TestModelOfRiskNoticesDefects(t *testing.T) {
	long(t)
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	both := func(change func(*correlation)) func(byManifest) {
		return func(plans byManifest) {
			for _, p := range plans {
				for _, id := range []string{"danger", "total"} {
					change(p.correlations[id])
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		plans  func(byManifest)
		defect func(*session)
		want   string
	}{
		"tactics are not asked for":      {plans: both(func(c *correlation) { c.spec.Extension.Tactics = 0 }), want: "spurious"},
		"one tactic more":                {plans: both(func(c *correlation) { c.spec.Extension.Tactics++ }), want: "missing"},
		"a point more":                   {plans: both(func(c *correlation) { c.spec.Min++ }), want: "missing"},
		"signals are no part of it":      {plans: both(func(c *correlation) { delete(c.Scores, "spread"); delete(c.Scores, "burst") }), want: "missing"},
		"it waits for detect alone":      {plans: both(func(c *correlation) { c.spec.Level = 0 }), want: "missing"},
		"a window of half a second less": {plans: both(func(c *correlation) { c.spec.Timespan -= 500 }), want: "missing"},
		"what is new counts as said":     {defect: func(s *session) { s.f.silent = 1 << 40 }, want: "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			plans := riskPlans(t)
			if tc.plans != nil {
				tc.plans(plans)
			}
			notices(t, 1500, tc.want, func(rt *rapid.T) *model {
				m := riskModel(rt, plans, counts, newLossy())
				m.defect = tc.defect
				m.run(append(m.actions(), minutes(m)))
				m.settle()
				return m
			})
		})
	}
}

// TestRiskSaysWhatItIsMadeOf evaluates a risk in memory and reads its alert.
func TestRiskSaysWhatItIsMadeOf(t *testing.T) {
	cfg := DefaultConfig()
	p := compile(t, cfg, riskRules)
	run, err := NewEvaluation(t.Context(), cfg, p.set)
	require.NoError(t, err)
	const t0 = 1_800_000_000_000
	var events []accepted
	var in []event.Event
	put := func(after int64, action string) {
		a := accepted{id: string(rune('a' + len(events))), tenant: "t", time: t0 + after, ingest: t0, fields: map[string]string{"user": "eve", "action": action}, manifest: "1"}
		events = append(events, a)
		_, value := a.record()
		e, err := event.Decode(value)
		require.NoError(t, err)
		in = append(in, e)
	}
	put(0, "c")
	put(1000, "c")
	put(2000, "c x")
	matched, err := run.Evaluator().Match(t.Context(), in)
	require.NoError(t, err)
	var risks []*alertv1.Alert
	ids := map[string]bool{}
	say := func(a *alertv1.Alert) error {
		ids[a.GetId()] = true
		if a.GetRisk() != nil {
			risks = append(risks, a)
		}
		return nil
	}
	require.NoError(t, run.Fold(t.Context(), matched, say, func(reason string) { require.Fail(t, reason) }))
	require.NoError(t, run.Close(t.Context(), say))
	require.Equal(t, riskExpected(cfg, p, events), ids)
	require.Empty(t, risks, "55 points are too few")

	put(3000, "a")
	put(4000, "a")
	run, err = NewEvaluation(t.Context(), cfg, p.set)
	require.NoError(t, err)
	matched, err = run.Evaluator().Match(t.Context(), in)
	require.NoError(t, err)
	require.NoError(t, run.Fold(t.Context(), matched, say, func(reason string) { require.Fail(t, reason) }))
	require.Len(t, risks, 1)
	a := risks[0]
	require.Equal(t, "eve did c, c x, a, a risk of 75 by 3 rules of 3 tactics within 20s: Danger.", a.GetSummary())
	require.Equal(t, []any{"risk", "high", uint64(75), "gte 56 of 2 tactics"}, []any{a.GetRule().GetType(), a.GetRule().GetLevel(), a.GetCount(), a.GetCondition()})
	require.Equal(t, []string{"execution", "discovery", "collection"}, a.GetRisk().GetTactics())
	require.EqualValues(t, 3, a.GetRisk().GetSignalsTotal())
	var parts []string
	for _, s := range a.GetRisk().GetSignals() {
		require.True(t, ids[s.GetAlertId()], "it is an alert of its own")
		parts = append(parts, fmt.Sprint(s.GetRuleId(), " ", s.GetTitle(), " ", s.GetLevel(), " ", s.GetScore(), " ", s.GetTactics(), " ", s.GetTimeMs()-t0))
	}
	require.Equal(t, []string{"rule-c Low low 5 [discovery collection] 0", "rule-x Alone high 50 [] 2000", "burst Burst medium 20 [execution] 4000"}, parts)
}
