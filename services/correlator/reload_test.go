package correlator

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// reloadRules are what the rules of TestModelReload are at first.
const reloadRules = ruleA + ruleB + `
title: Alone
id: rule-x
logsource: {product: test}
detection: {s: {action|contains: x}, condition: s}
---
title: Count
id: count
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 3}}
---
title: Order
id: order
correlation: {type: temporal_ordered, rules: [rule-a, rule-b], group-by: [user], timespan: 10s}
`

// version is a rule set as the oracle knows it: what A matches and how
// many events Count wants, 0 where it is gone.
type version struct {
	text  string
	a     string // letters that A matches
	least int
	// shadow: Count and Alone are in the shadow.
	shadow bool
}

func versions() map[string]version {
	docs := strings.Split(reloadRules, "---\n")
	other := make([]string, len(docs))
	for i, d := range docs {
		other[len(docs)-1-i] = "# other words\n" + strings.Replace(strings.TrimSpace(d), "title: ", "title: Another ", 1) + "\nlevel: low\n"
	}
	wider := strings.Replace(reloadRules, "action|contains: a}", "action|contains: [a, c]}", 1)
	shadow := strings.Replace(reloadRules, "condition: {gte: 3}}\n", "condition: {gte: 3}}\nstormbell: {shadow: true}\n", 1)
	shadow = strings.Replace(shadow, "action|contains: x}, condition: s}\n", "action|contains: x}, condition: s}\nstormbell: {shadow: true}\n", 1)
	return map[string]version{
		"base":     {text: reloadRules, a: "a", least: 3},
		"retitled": {text: strings.Join(other, "---\n"), a: "a", least: 3},
		"two":      {text: strings.Replace(reloadRules, "gte: 3", "gte: 2", 1), a: "a", least: 2},
		"gone":     {text: strings.Join(slices.Delete(slices.Clone(docs), 3, 4), "---\n"), a: "a"},
		"shadow":   {text: shadow, a: "a", least: 3, shadow: true},
		"wider":    {text: wider, a: "ac", least: 3},
	}
}

// reloads expects, by the oracle, what events add up to that were stamped with
// different rules. Rules of versions that decide alike share their state.
func reloads(cfg Config, plans byName, events []accepted) map[string]bool {
	type groupOf struct{ tenant, rule, what, user string }
	var (
		out      = make(map[string]bool)
		greatest = make(map[int]int64)
		groups   = make(map[groupOf][]oracleRecord)
		rules    = make(map[groupOf]oracleRule)
		all      = versions()
	)
	for _, a := range events {
		ingest := a.ingest
		if g, ok := greatest[a.partition]; ok {
			ingest = max(ingest, g-cfg.Slack.Milliseconds())
		}
		greatest[a.partition] = max(greatest[a.partition], a.ingest)
		if a.tick {
			continue
		}
		v, action := all[a.manifest], a.fields["action"]
		if strings.Contains(action, "x") && !v.shadow {
			out[oracleHash("stormbell-alert-1", a.tenant, "rule-x", plans["base"].set.Rule("rule-x").Revision, a.id)] = true
		}
		user, ok := a.fields["user"]
		if !ok || user == "null" {
			continue
		}
		met := make(map[int]bool)
		if strings.ContainsAny(action, v.a) {
			met[0] = true
		}
		rec := oracleRecord{event: a.id, time: a.time, ingest: ingest, rules: met}
		late := cfg.Lateness.Milliseconds()
		if met[0] && v.least > 0 && !v.shadow {
			g := groupOf{a.tenant, "count", fmt.Sprint(v.a, v.least), user}
			groups[g] = append(groups[g], rec)
			rules[g] = oracleRule{id: "count", revision: plans[a.manifest].correlations["count"].Revision, kind: "event_count", timespan: 10_000, lateness: late, min: v.least, rules: 1}
		}
		rec.rules = maps.Clone(met)
		if strings.Contains(action, "b") {
			rec.rules[1] = true
		}
		if len(rec.rules) > 0 {
			g := groupOf{a.tenant, "order", v.a, user}
			groups[g] = append(groups[g], rec)
			rules[g] = oracleRule{id: "order", revision: plans[a.manifest].correlations["order"].Revision, kind: "temporal_ordered", timespan: 10_000, lateness: late, min: 2, rules: 2}
		}
	}
	for g, recs := range groups {
		r := rules[g]
		maps.Copy(out, r.alerts(g.tenant, []string{g.user}, recs, math.MaxInt64))
	}
	return out
}

// TestModelReload holds both stages to the oracle while rules change under them
// and gateways disagree about which are in force.
func TestModelReload(t *testing.T) {
	plans := make(byName)
	for name, v := range versions() {
		plans[name] = compile(t, modelConfig(), v.text)
	}
	require.Equal(t, plans["base"].correlations["count"].Revision, plans["retitled"].correlations["count"].Revision)
	require.Equal(t, plans["base"].correlations["count"].Revision, plans["shadow"].correlations["count"].Revision)
	require.Equal(t, plans["base"].correlations["order"].Revision, plans["gone"].correlations["order"].Revision)
	require.NotEqual(t, plans["base"].correlations["count"].Revision, plans["wider"].correlations["count"].Revision)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		m := reloadModel(rt, plans, plans, noCounts(t))
		require.Empty(rt, m.problems)
		m.backtests(plans)
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	t.Log(seen)
	happened(t, seen, "alerts", "reload", "rebuild", "tail lost", "owner ended")

	// And a stage that takes the rules that it likes is noticed.
	found := ""
	wrong := rapid.Custom(func(rt *rapid.T) string {
		return strings.Join(reloadModel(rt, plans, always{plans["base"]}, noCounts(t)).problems, "\n")
	})
	for seed := 0; seed < 300 && found == ""; seed++ {
		found = wrong.Example(seed)
	}
	require.NotEmpty(t, found)
}

// reloadModel runs a model under drawn faults and reloads to its end.
func reloadModel(rt *rapid.T, known byName, used planner, counts *counts, change ...func(*model)) *model {
	names, store := slices.Sorted(maps.Keys(known)), newLossy()
	m := newModel(rt, nil, counts, store)
	current, before := "base", "base"
	m.plans = used
	m.manifest = func() string {
		if rapid.IntRange(0, 3).Draw(rt, "lagging gateway") == 0 {
			return before
		}
		return current
	}
	m.expect = func() map[string]bool { return reloads(m.cfg, known, m.events) }
	m.adds = func(records []bus.Record) map[string]bool { return addsUp(rt, m.cfg, records) }
	for _, f := range change {
		f(m)
	}
	m.run(append(append(m.actions(), m.faults(store)...), action{"reload", 3, func(int) {
		before, current = current, rapid.SampledFrom(names).Draw(rt, "rules")
		m.seen["reload"]++
	}}))
	store.dropReply, store.fail = false, false
	for p := range modelPartitions { // so that the last watermarks are told
		m.put(accepted{partition: p, tick: true, ingest: m.log.now.UnixMilli()})
	}
	m.settle()
	m.check()
	return m
}

// addsUp is what detections of one partition add up to, by the oracle.
func addsUp(t require.TestingT, cfg Config, records []bus.Record) map[string]bool {
	type groupOf struct{ tenant, rule, revision, user string }
	recs := make(map[groupOf][]oracleRecord)
	rules := map[string]oracleRule{
		"count": {id: "count", kind: "event_count", timespan: 10_000, lateness: cfg.Lateness.Milliseconds(), min: 3, rules: 1},
		"order": {id: "order", kind: "temporal_ordered", timespan: 10_000, lateness: cfg.Lateness.Milliseconds(), min: 2, rules: 2},
	}
	least := make(map[groupOf]int)
	for _, r := range records {
		if header(r.Headers, event.HeaderSchema) != schemaDetection {
			continue
		}
		var d detectionv1.Detection
		require.NoError(t, proto.Unmarshal(r.Value, &d))
		if d.GetCorrelationId() == "count" && versions()[string(d.GetManifestAll())].shadow {
			continue // it has a state of its own, which says nothing
		}
		g := groupOf{d.GetTenant(), d.GetCorrelationId(), d.GetCorrelationRevision(), d.GetGroup()[0]}
		met := make(map[int]bool)
		for _, id := range d.GetRuleIds() {
			met[map[string]int{"rule-a": 0, "rule-b": 1}[id]] = true
		}
		recs[g] = append(recs[g], oracleRecord{event: d.GetEventId(), time: d.GetTimeMs(), ingest: d.GetIngestMs(), rules: met})
		least[g] = max(versions()[string(d.GetManifestAll())].least, 2)
	}
	out := make(map[string]bool)
	for g, list := range recs {
		r := rules[g.rule]
		r.revision = g.revision
		if g.rule == "count" {
			r.min = least[g]
		}
		maps.Copy(out, r.alerts(g.tenant, []string{g.user}, list, math.MaxInt64))
	}
	return out
}
