package correlator

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// chainRules are a chain of three levels with branches.
const chainRules = ruleA + ruleB + ruleC + `
title: Burst
id: burst
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 2}}
---
title: Either
id: either
correlation:
  type: temporal
  rules: [rule-b, rule-c]
  group-by: [who]
  aliases: {who: {rule-b: actor, rule-c: user}}
  timespan: 10s
---
title: Spread
id: spread
level: high
correlation: {type: value_count, rules: [burst], group-by: [zone], timespan: 20s, generate: true, condition: {gte: 2, field: ip}}
---
title: Mixed
id: mixed
correlation:
  type: temporal
  rules: [either, rule-a]
  group-by: [name]
  aliases: {name: {either: who, rule-a: user}}
  timespan: 20s
---
title: Top
id: top
level: critical
correlation: {type: temporal_ordered, rules: [spread, mixed], timespan: 20s}
`

// chainOracle says again what chainRules say, in words of the oracle.
type chainOracle struct {
	oracleRule
	refers []string
	group  []string
	alerts bool
}

func chainOracles(cfg Config, p *plan) []*chainOracle {
	late := cfg.Lateness.Milliseconds()
	list := []*chainOracle{
		{oracleRule{id: "burst", kind: "event_count", timespan: 10_000, min: 2, rules: 1}, []string{"a"}, []string{"user"}, true},
		{oracleRule{id: "either", kind: "temporal", timespan: 10_000, min: 2, rules: 2}, []string{"b", "c"}, []string{"who"}, false},
		{oracleRule{id: "spread", kind: "value_count", timespan: 20_000, min: 2, rules: 1}, []string{"burst"}, []string{"zone"}, false},
		{oracleRule{id: "mixed", kind: "temporal", timespan: 20_000, min: 2, rules: 2}, []string{"either", "a"}, []string{"name"}, false},
		{oracleRule{id: "top", kind: "temporal_ordered", timespan: 20_000, min: 2, rules: 2}, []string{"spread", "mixed"}, nil, true},
	}
	for _, r := range list {
		r.lateness, r.revision = late, p.correlations[r.id].Revision
	}
	return list
}

// field is a field of an event that came to a rule by a way.
func (o *chainOracle) field(a *accepted, name string, way []string) (string, bool) {
	for i, ref := range way {
		at := o.id
		if i > 0 {
			at = way[i-1]
		}
		switch at + "." + name + "." + ref {
		case "mixed.name.either":
			name = "who"
		case "mixed.name.a", "either.who.c":
			name = "user"
		case "either.who.b":
			name = "actor"
		}
	}
	v, ok := a.fields[name]
	return v, ok && v != "null"
}

// chainRecord is one record of a group, and how it came there.
type chainRecord struct {
	oracleRecord
	of    *accepted
	way   []string // to the detection rule's letter
	alert string   // to which it belongs, of what a correlation says
}

// chainExpected is what chainRules make of accepted events: each correlation's
// records, those among them that qualify, and these as records of the next.
func chainExpected(cfg Config, p *plan, events []accepted, change func(*oracleRule)) map[string]bool {
	out, _ := chainSaid(cfg, chainOracles(cfg, p), events, change)
	return out
}

// chainSaid is what rules make of accepted events, and what each of them says, by
// its name.
func chainSaid(cfg Config, list []*chainOracle, events []accepted, change func(*oracleRule)) (out map[string]bool, said map[string][]chainRecord) {
	out, said = make(map[string]bool), make(map[string][]chainRecord)
	raised := raisedIngests(cfg, events)
	for i := range events {
		a := &events[i]
		for _, letter := range []string{"a", "b", "c", "x"} {
			if !a.tick && strings.Contains(a.fields["action"], letter) {
				said[letter] = append(said[letter], chainRecord{oracleRecord{event: a.id, time: a.time, ingest: raised[i]}, a, nil, ""})
			}
		}
	}
	for _, o := range list {
		if change != nil {
			change(&o.oracleRule)
		}
		groups, values := map[string][]chainRecord{}, map[string][]string{}
		for i, ref := range o.refers {
			for _, r := range said[ref] {
				r.way = append([]string{ref}, r.way...)
				group, ok := []string{r.of.tenant}, true
				for _, name := range o.group {
					v, has := o.field(r.of, name, r.way)
					group, ok = append(group, v), ok && has
				}
				if o.kind == "value_count" {
					v, has := o.field(r.of, "ip", r.way)
					r.value, ok = v, ok && has
				}
				if !ok {
					continue
				}
				if len(ref) > 1 {
					r.event = strconv.Itoa(i) + " of " + r.of.id
				}
				r.rules = map[int]bool{i: true}
				key := fmt.Sprintf("%q", group)
				groups[key], values[key] = append(groups[key], r), group
			}
		}
		for key, recs := range groups {
			plain := make([]oracleRecord, len(recs))
			for i, r := range recs {
				plain[i] = r.oracleRecord
			}
			if o.alerts {
				maps.Copy(out, o.oracleRule.alerts(values[key][0], values[key][1:], plain, math.MaxInt64))
			}
			for _, r := range recs {
				if o.qualifies(r.oracleRecord, plain) {
					r.alert = oracleHash("stormbell-alert-1", slices.Concat(values[key][:1], []string{o.id, o.revision}, values[key][1:], []string{strconv.FormatInt(o.bucket(r.time), 10)})...)
					said[o.id] = append(said[o.id], r)
				}
			}
		}
	}
	return out, said
}

// raisedIngests are the ingest times that count.
func raisedIngests(cfg Config, events []accepted) []int64 {
	greatest, out := make(map[int]int64), make([]int64, len(events))
	for i, a := range events {
		out[i] = a.ingest
		g, ok := greatest[a.partition]
		if ok {
			out[i] = max(a.ingest, g-cfg.Slack.Milliseconds())
		}
		if !ok || a.ingest > g {
			greatest[a.partition] = a.ingest
		}
	}
	return out
}

// chainBelow is what the records of one partition add up to, signals being
// records like others.
func (m *model) chainBelow(records []bus.Record) map[string]bool {
	type groupOf struct{ tenant, rule, group string }
	recs, values := make(map[groupOf][]oracleRecord), make(map[groupOf][]string)
	rules := map[string]*chainOracle{}
	for _, o := range chainOracles(m.cfg, m.plan) {
		rules[o.id] = o
	}
	for _, r := range records {
		var d *detectionv1.Detection
		level := ""
		switch header(r.Headers, event.HeaderSchema) {
		case schemaDetection:
			d = new(detectionv1.Detection)
			require.NoError(m.t, proto.Unmarshal(r.Value, d))
		case schemaSignal:
			var sig detectionv1.Signal
			require.NoError(m.t, proto.Unmarshal(r.Value, &sig))
			d, level = asDetection(&sig), sig.GetRuleId()
		default:
			continue
		}
		g := groupOf{d.GetTenant(), d.GetCorrelationId(), fmt.Sprintf("%q", d.GetGroup())}
		met := make(map[int]bool)
		for _, id := range d.GetRuleIds() {
			met[slices.Index(rules[g.rule].refers, strings.TrimPrefix(id, "rule-"))] = true
		}
		o := oracleRecord{event: level + d.GetEventId(), time: d.GetTimeMs(), ingest: d.GetIngestMs(), rules: met}
		if len(d.GetValues()) > 0 {
			o.value = d.GetValues()[0]
		}
		recs[g], values[g] = append(recs[g], o), d.GetGroup()
	}
	out := make(map[string]bool)
	for g := range recs {
		if rules[g.rule].alerts {
			maps.Copy(out, rules[g.rule].oracleRule.alerts(g.tenant, values[g], recs[g], math.MaxInt64))
		}
	}
	return out
}

func chainModel(rt *rapid.T, p *plan, counts *counts, store Store) *model {
	m := newModel(rt, p, counts, store)
	m.expect = func() map[string]bool { return chainExpected(m.cfg, m.plan, m.events, nil) }
	m.adds = m.chainBelow
	return m
}

// minutes bring events as far apart as signals may lag.
func minutes(m *model) action {
	return action{"minutes", 8, func(int) { m.log.now = m.log.now.Add(100 * time.Second) }}
}

// TestModelOfChains holds a chain of three levels over two partitions to the
// oracle, under every fault that the log and the store may bring.
func TestModelOfChains(t *testing.T) {
	p := compile(t, modelConfig(), chainRules)
	require.Equal(t, uint32(2), p.levels)
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	seen, tops := make(map[string]int), 0
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := chainModel(rt, p, counts, store)
		m.run(append(append(m.actions(), minutes(m)), m.faults(store)...))
		store.dropReply, store.fail = false, false
		m.settle()
		m.check()
		require.Empty(rt, m.problems)
		m.seen["drop"] += store.dropped
		for k, n := range m.seen {
			seen[k] += n
		}
		top := p.correlations["top"]
		for _, r := range m.log.all(TopicAlerts) {
			if strings.Contains(string(r.Value), top.Revision) {
				tops++
			}
		}
	})
	seen["top"] = tops
	t.Log(seen)
	happened(t, seen, "alerts", "top", "signal", "level watermark", "tail lost", "flush", "rebuild", "drop", "owner ended", "crash", "panic")
}

// TestModelOfChainsNoticesDefects seeds defects and demands that the check
// finds them.
func TestModelOfChainsNoticesDefects(t *testing.T) {
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
		"signals qualify with what is too far apart": {plan: func(p *plan) { p.correlations["burst"].spec.Lateness += 3_600_000 }, want: "spurious"},
		"signals count as said before":               {defect: func(s *session) { s.f.silent = 1 << 40 }, want: "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, modelConfig(), chainRules)
			if tc.plan != nil {
				tc.plan(p)
			}
			notices(t, 1500, tc.want, func(rt *rapid.T) *model {
				m := chainModel(rt, p, counts, newLossy())
				m.defect = tc.defect
				m.run(append(m.actions(), minutes(m)))
				m.settle()
				return m
			})
		})
	}
}

// hurry spoils the watermarks of signals: they do not lag.
func hurry(s *session) {
	for _, part := range s.c.reader.(*memLog).parts[TopicDetections] {
		for i := range part {
			var w detectionv1.Watermark
			if header(part[i].Headers, event.HeaderSchema) != schemaWatermark || proto.Unmarshal(part[i].Value, &w) != nil || w.GetLevel() == 0 {
				continue
			}
			w.WatermarkMs += 3_600_000
			if spoiled, err := marshal(&w); err == nil && len(part[i].Headers) == 1 {
				part[i].Value, part[i].Headers = spoiled, append(part[i].Headers, Header{Key: "spoiled"})
			}
		}
	}
}
