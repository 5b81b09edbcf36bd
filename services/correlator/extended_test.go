package correlator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// extendedRules hold every type that `stormbell: type` adds.
const extendedRules = ruleA + ruleB + `
title: Gone
id: gone
level: high
stormbell: {type: absence, trigger: rule-a, missing: rule-b, group-by: [user], timespan: 20s}
---
title: Silent
id: silent
stormbell: {type: absence, missing: rule-a, group-by: [user], timespan: 30s, forget: 2m}
---
title: New
id: new
stormbell: {type: new_value, rules: [rule-a, rule-b], group-by: [user], field: ip, history: 2m, learn: 10s}
---
title: Fast
id: fast
stormbell: {type: impossible_travel, rules: [rule-a, rule-b], group-by: [user], location: zone, suppress: 1m}
---
title: More
id: more
stormbell: {type: rate, rules: [rule-a], group-by: [user], timespan: 10s, baseline: 40s, learn: 20s, ratio: 1.5, min: 2}
`

// extendedExpected is what extendedRules make of accepted events, each by the
// definition of its type and no code of the window.
func extendedExpected(m *model) map[string]bool {
	type groupOf struct{ tenant, rule, user string }
	greatest, groups := make(map[int]int64), make(map[groupOf][]oracleRecord)
	for _, a := range m.events {
		ingest := a.ingest
		if g, ok := greatest[a.partition]; ok {
			ingest = max(ingest, g-m.cfg.Slack.Milliseconds())
		}
		greatest[a.partition] = max(greatest[a.partition], a.ingest)
		inTime := ingest-a.time <= 1000 && a.time-ingest <= 5*60_000
		if user, ok := a.fields["user"]; a.tick || !ok || user == "null" || !inTime {
			continue
		}
		met := map[int]bool{0: strings.Contains(a.fields["action"], "a"), 1: strings.Contains(a.fields["action"], "b")}
		for rule, value := range map[string]string{"gone": "user", "silent": "user", "new": "ip", "fast": "zone", "more": "user"} {
			v, ok := a.fields[value]
			only := rule == "silent" || rule == "more"
			if !ok || v == "null" || rule == "fast" && v != "eu-north-1" && v != "ap-southeast-2" || only && !met[0] || !met[0] && !met[1] {
				continue
			}
			g := groupOf{a.tenant, rule, a.fields["user"]}
			known := slices.ContainsFunc(groups[g], func(r oracleRecord) bool { return r.event == a.id })
			if !known {
				groups[g] = append(groups[g], oracleRecord{event: a.id, time: a.time, ingest: ingest, rules: met, value: v})
			}
		}
	}
	out := make(map[string]bool)
	for g, recs := range groups {
		slices.SortFunc(recs, func(a, b oracleRecord) int {
			if a.time != b.time {
				return int(a.time - b.time)
			}
			return strings.Compare(a.event, b.event)
		})
		for i := range recs {
			label, last, ok := extendedFires(g.rule, recs, i)
			if ok {
				out[oracleHash(label, g.tenant, g.rule, m.plan.correlations[g.rule].Revision, g.user, last)] = true
			}
		}
	}
	return out
}

// extendedFires says whether the event at i fires, and the end of its alert's id.
func extendedFires(rule string, recs []oracleRecord, i int) (label, last string, ok bool) {
	e := recs[i]
	label, last = "stormbell-occurrence-1", e.event
	switch rule {
	case "gone":
		follows := slices.ContainsFunc(recs, func(b oracleRecord) bool { return b.rules[1] && e.time < b.time && b.time <= e.time+20_000 })
		return label, last, e.rules[0] && !follows
	case "silent":
		return label, last, i+1 == len(recs) || recs[i+1].time > e.time+30_000
	case "new":
		born := i
		for born > 0 && recs[born].time-recs[born-1].time <= 120_000 {
			born--
		}
		known := slices.ContainsFunc(recs[born:i], func(o oracleRecord) bool { return o.value == e.value && e.time-o.time <= 120_000 })
		return label, last, !known && e.time-recs[born].time >= 10_000
	case "fast":
		// The places are so far apart that no time of the test suffices.
		apart := i > 0 && recs[i-1].value != e.value && e.time-recs[i-1].time < 3_600_000
		return "stormbell-alert-1", strconv.FormatInt(e.time/60_000, 10), apart
	}
	b, rank, counts := e.time/10_000, 0, map[int64]int{}
	born := b
	for k := i; k >= 0 && born-recs[k].time/10_000 <= 4; k-- {
		born = recs[k].time / 10_000
		counts[born]++
		if born == b {
			rank++
		}
	}
	sum, n := 0, 0
	for p := max(born+1, b-4); p < b; p++ {
		sum, n = sum+counts[p], n+1
	}
	fires := func(count int) bool { return count >= 2 && float64(count) >= 1.5*float64(sum)/float64(n) }
	return "stormbell-alert-1", strconv.FormatInt(b, 10), n >= 2 && fires(rank) && !fires(rank-1)
}

// acceptExtended appends an event near its time, with copies.
func (m *model) acceptExtended() {
	t, now := m.t, m.log.now.UnixMilli()
	a := accepted{partition: rapid.IntRange(0, modelPartitions-1).Draw(t, "partition"), id: fmt.Sprintf("e%02d", len(m.events)), tenant: "t1"}
	a.ingest = now - rapid.SampledFrom([]int64{0, 0, 0, 1000, 15_000}).Draw(t, "delay")
	a.time = a.ingest - rapid.SampledFrom([]int64{0, 0, 500, 1000, 1001, -4000}).Draw(t, "age")
	a.fields = map[string]string{"action": rapid.SampledFrom([]string{"a", "a", "b", "ab", "none"}).Draw(t, "action")}
	a.fields["user"] = rapid.SampledFrom([]string{"1", "1", "1", "2", "null"}).Draw(t, "user")
	a.fields["ip"] = rapid.SampledFrom([]string{"x", "y", "z", "null"}).Draw(t, "ip")
	a.fields["zone"] = rapid.SampledFrom([]string{"eu-north-1", "ap-southeast-2", "eu-north-1", "nowhere", "cloudtrail.amazonaws.com"}).Draw(t, "zone")
	m.put(a)
	for rapid.IntRange(0, 7).Draw(t, "copy") == 0 {
		a.partition = rapid.IntRange(0, modelPartitions-1).Draw(t, "copy partition")
		m.put(a)
	}
}

// tickAll lets the watermark of all partitions pass what any rule waits for.
func (m *model) tickAll() {
	m.log.now = m.log.now.Add(time.Hour)
	for p := range modelPartitions {
		m.put(accepted{partition: p, tick: true, ingest: m.log.now.UnixMilli()})
	}
}

// TestExtendedModel holds what the watermark decides in order to the oracle
// under every fault that the log and the store may bring: idle sources too, whose
// ticks let absence fire.
func TestExtendedModel(t *testing.T) {
	p := compile(t, modelConfig(), extendedRules)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := newModel(rt, p, noCounts(t), store)
		m.adds = func([]Record) map[string]bool { return nil } // what is below a frontier may be undecided
		m.expect = func() map[string]bool { return extendedExpected(m) }
		actions := append(m.actions(), m.faults(store)...)
		for i := range actions {
			switch actions[i].name {
			case "accept", "accept more":
				actions[i].do = func(int) { m.acceptExtended() }
			case "time":
				actions[i].do = func(int) {
					m.log.now = m.log.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 10 * time.Second, 31 * time.Second, time.Minute}).Draw(m.t, "by"))
				}
			}
		}
		actions = append(actions, action{"tick", 3, func(p int) { m.put(accepted{partition: p, tick: true, ingest: m.log.now.UnixMilli()}) }})
		m.run(actions)
		store.dropReply, store.fail = false, false
		m.tickAll()
		m.settle()
		m.check()
		require.Empty(rt, m.problems)
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	t.Log(seen)
	happened(t, seen, "alerts", "tail lost", "flush", "rebuild", "owner ended", "crash")
}

// TestExtendedEval evaluates each type over events in memory, and reads what
// the alerts say.
func TestExtendedEval(t *testing.T) {
	cfg := DefaultConfig()
	docs, problems := sigma.Parse([]byte(extendedRules), "test.yml")
	require.Empty(t, sigma.Rejected(problems))
	set, problems := sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
	require.Empty(t, sigma.Rejected(problems))
	run, err := NewEvaluation(t.Context(), cfg, set)
	require.NoError(t, err)
	const start = 1_800_000_000_000
	var events []event.Event
	put := func(id string, at int64, action, ip, zone string) {
		a := accepted{id: id, tenant: "t", time: start + at, ingest: start, fields: map[string]string{"user": "eve", "action": action, "ip": ip, "zone": zone}}
		_, value := a.record()
		e, err := event.Decode(value)
		require.NoError(t, err)
		events = append(events, e)
	}
	put("e1", 0, "a", "198.51.100.7", "eu-north-1")
	put("e2", 5_000, "b", "198.51.100.7", "ap-southeast-2")
	put("e3", 30_000, "a", "203.0.113.9", "ap-southeast-2")
	for i := range 4 {
		put(fmt.Sprint("f", i), 41_000+int64(i), "a", "203.0.113.9", "nowhere")
	}
	matched, err := run.Evaluator().Match(t.Context(), events)
	require.NoError(t, err)
	summaries := map[string][]string{}
	say := func(a *alertv1.Alert) error {
		summaries[a.GetRule().GetId()] = append(summaries[a.GetRule().GetId()], a.GetSummary())
		return nil
	}
	failed := func(reason string) { require.Fail(t, reason) }
	require.NoError(t, run.Fold(t.Context(), matched, say, failed))
	require.Empty(t, summaries, "nothing is decided before the watermark comes")
	require.NoError(t, run.Close(t.Context(), say))
	require.Equal(t, map[string][]string{
		"gone":   slices.Repeat([]string{`eve did a from 203.0.113.9, and "B" did not follow within 20s: Gone.`}, 5),
		"silent": {"eve did a from 203.0.113.9, and nothing more within 30s: Silent."},
		"new":    {"eve did a from 203.0.113.9, the first time with ip 203.0.113.9 in 2m: New."},
		"fast":   {"eve did a, b from 198.51.100.7, at Stockholm (eu-north-1) and Sydney (ap-southeast-2), 15596 km apart, within 5s: Fast."},
		"more":   {"eve did a from 203.0.113.9, 2 times within 10s, where 0.33 is usual: More."},
	}, summaries)
}

// TestExtensionThatLooksBackTooFarIsRefused names both figures; what goes to the
// topic state is accepted.
func TestExtensionThatLooksBackTooFarIsRefused(t *testing.T) {
	cfg := DefaultConfig()
	c := &sigma.Correlation{
		Type: sigma.NewValue, Rules: []string{"a"}, Field: []string{"ip"}, Timespan: 14 * 86_400_000, Lateness: -1, Depth: 1,
		Extension: sigma.Extension{History: 14 * 86_400_000, Learn: 7 * 86_400_000},
	}
	require.NoError(t, cfg.Accept(c))
	cfg.SnapshotOver = 30 * 24 * time.Hour
	err := cfg.Accept(c)
	require.ErrorContains(t, err, "it has to look back 504h36m0s", "21 days, 30 min late, 5 min early, 1 min of slack")
	require.ErrorContains(t, err, "detections are kept for 168h0m0s")
}
