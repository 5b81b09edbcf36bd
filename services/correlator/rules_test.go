package correlator

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// Rules that match an action with their letter in it.
const (
	ruleA = `
title: A
id: rule-a
logsource: {product: test}
detection: {s: {action|contains: a}, condition: s}
---
`
	ruleB = `
title: B
id: rule-b
logsource: {product: test}
detection: {s: {action|contains: b}, condition: s}
---
`
	ruleC = `
title: C
id: rule-c
logsource: {product: test}
detection: {s: {action|contains: c}, condition: s}
---
`
	ruleX = `
title: Alone
id: rule-x
level: high
logsource: {product: test}
detection: {s: {action|contains: x}, condition: s}
---
`
)

// testRules hold every type of correlation that fires at once.
const testRules = ruleA + ruleB + ruleC + ruleX + `
title: Count
id: count
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 3}}
---
title: Values
id: values
correlation: {type: value_count, rules: [rule-a, rule-b], group-by: [user], timespan: 10s, condition: {gt: 1, field: ip}}
stormbell: {updates: true}
---
title: Both
id: both
correlation:
  type: temporal
  rules: [rule-a, rule-b]
  group-by: [who, zone]
  timespan: 10s
  aliases: {who: {rule-a: user, rule-b: actor}}
---
title: Order
id: order
correlation: {type: temporal_ordered, rules: [rule-a, rule-b, rule-c], group-by: [user], timespan: 20s}
---
title: Strict
id: strict
correlation: {type: temporal_ordered, rules: [rule-a, rule-b], group-by: [user], timespan: 10s}
stormbell: {ties: strict, suppress: 1m, updates: true}
---
title: All
id: all
correlation: {type: event_count, rules: [rule-c], timespan: 20s, condition: {gte: 2}}
stormbell: {suppress: 5m, lateness: 1m, updates: true}
`

// decidedRules are those that testRules lack: every type that the watermark
// decides, and the other shapes of windows.
const decidedRules = ruleA + ruleB + ruleC + ruleX + `
title: Few
id: few
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {lt: 2}}
---
title: Range
id: range
correlation: {type: value_count, rules: [rule-a, rule-b], group-by: [user], timespan: 10s, condition: {gte: 2, lte: 3, field: ip}}
stormbell: {suppress: 30s}
---
title: Unlike
id: unlike
correlation: {type: temporal, rules: [rule-a, rule-b], group-by: [zone], timespan: 10s, condition: {eq: 1}}
stormbell: {window: tumbling, lateness: 5s}
---
title: Without
id: without
correlation: {type: temporal, rules: [rule-a, rule-b, rule-c], group-by: [user], timespan: 10s, condition: rule-a and not rule-b and not rule-c}
---
title: Either
id: either
correlation: {type: temporal, rules: [rule-a, rule-b, rule-c], group-by: [user], timespan: 10s, condition: rule-a and (rule-b or rule-c)}
stormbell: {updates: true}
---
title: Steps
id: steps
correlation: {type: temporal_ordered, rules: [rule-a, rule-b], group-by: [user], timespan: 10s, condition: {lt: 2}}
---
title: Sum
id: sum
correlation: {type: value_sum, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gt: 2, field: ip}}
stormbell: {updates: true}
---
title: Small sum
id: small
correlation: {type: value_sum, rules: [rule-b], group-by: [user], timespan: 20s, condition: {lte: 2, field: zone}}
stormbell: {window: session, gap: 9s}
---
title: Average
id: average
correlation: {type: value_avg, rules: [rule-a, rule-b], group-by: [user], timespan: 10s, condition: {gt: 1.3, field: ip}}
---
title: Percentile
id: percentile
correlation: {type: value_percentile, rules: [rule-b], group-by: [user], timespan: 20s, condition: {gte: 1.2, field: ip, percentile: 90}}
---
title: Share
id: share
correlation: {type: value_percentile, rules: [rule-c], group-by: [user], timespan: 20s, condition: {lt: 50, field: ip}}
---
title: Median
id: median
correlation: {type: value_median, rules: [rule-c], group-by: [user], timespan: 20s, condition: {neq: 1, field: ip}}
---
title: Session
id: session
correlation: {type: event_count, rules: [rule-b], group-by: [user], timespan: 20s, condition: {gte: 2}}
stormbell: {window: session, gap: 10s}
---
title: Next to each other
id: tumbling
correlation: {type: event_count, rules: [rule-c], group-by: [user], timespan: 10s, condition: {gte: 2}}
stormbell: {window: tumbling, updates: true}
`

func compile(t testing.TB, cfg Config, src string) *plan {
	t.Helper()
	docs, problems := sigma.Parse([]byte(src), "test.yml")
	require.Zero(t, sigma.Rejected(problems), problems)
	set, problems := sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
	require.Zero(t, sigma.Rejected(problems), problems)
	return cfg.newPlan(set)
}

// always are the same rules for every record.
type always struct{ plan *plan }

func (f always) Get(context.Context, []byte, []byte) (*plan, error) { return f.plan, nil }

// accepted is an event as the gateway has accepted it, in the order of its
// partition.
type accepted struct {
	partition    int
	tick         bool
	id, tenant   string
	time, ingest int64
	fields       map[string]string // "null" is null
	manifest     string            // of all tenants
}

func (a *accepted) raw() []byte {
	m := make(map[string]any)
	for k, v := range a.fields {
		if m[k] = v; v == "null" {
			m[k] = nil
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func (a *accepted) record() (schema string, value []byte) {
	if a.tick {
		return event.SchemaTick, event.EncodeTick(nil, a.ingest)
	}
	e := event.Event{ID: a.id, Tenant: a.tenant, Format: "json", Product: "test", TimeMS: a.time, OwnTime: true, IngestMS: a.ingest, LatenessMS: 1000, Raw: a.raw()}
	e.ManifestAll = []byte(a.manifest)
	e.Late, e.Early = event.Flags(e.TimeMS, e.IngestMS, e.LatenessMS)
	return event.SchemaEvent, event.Encode(nil, &e)
}

// expected is what testRules make of accepted events, by the oracle.
func expected(cfg Config, p *plan, events []accepted, change func(*oracleRule)) map[string]bool {
	type groupOf struct{ tenant, rule, group string }
	var (
		out      = make(map[string]bool)
		greatest = make(map[int]int64)
		groups   = make(map[groupOf][]oracleRecord)
		values   = make(map[groupOf][]string)
		slack    = cfg.Slack.Milliseconds()
	)
	rules := oracleRules(cfg, p)
	for _, a := range events {
		ingest := a.ingest
		if g, ok := greatest[a.partition]; ok {
			ingest = max(ingest, g-slack)
			greatest[a.partition] = max(g, a.ingest)
		} else {
			greatest[a.partition] = a.ingest
		}
		if a.tick {
			continue
		}
		action := a.fields["action"]
		if strings.Contains(action, "x") {
			out[oracleHash("stormbell-alert-1", a.tenant, "rule-x", p.set.Rule("rule-x").Revision, a.id)] = true
		}
		for _, o := range rules {
			perGroup := make(map[groupOf]map[int]bool)
			for i, name := range o.refers {
				if !strings.Contains(action, name) {
					continue
				}
				var group []string
				missing := false
				for _, f := range o.group {
					if f == "who" {
						f = map[string]string{"a": "user", "b": "actor"}[name]
					}
					v, ok := a.fields[f]
					missing = missing || !ok || v == "null"
					group = append(group, v)
				}
				v, ok := a.fields[o.values()]
				if missing || strings.HasPrefix(o.kind, "value_") && (!ok || v == "null") {
					continue
				}
				g := groupOf{a.tenant, o.id, strings.Join(group, "\x00")}
				if perGroup[g] == nil {
					perGroup[g] = make(map[int]bool)
				}
				perGroup[g][i] = true
				values[g] = group
			}
			for g, met := range perGroup {
				groups[g] = append(groups[g], oracleRecord{
					event: a.id, time: a.time, ingest: ingest, late: ingest-a.time > 1000, early: a.time-ingest > 5*60_000,
					rules: met, value: a.fields[o.values()],
				})
			}
		}
	}
	for g, recs := range groups {
		o := rules[g.rule].oracleRule
		if change != nil {
			change(&o)
		}
		maps.Copy(out, o.alerts(g.tenant, values[g], recs, math.MaxInt64))
	}
	return out
}

type testRule struct {
	oracleRule
	refers []string
	group  []string
}

// values is the field whose values count.
func (r *testRule) values() string {
	if r.id == "small" {
		return "zone"
	}
	return "ip"
}

// oracleRules say again, in words of the oracle, what testRules say.
func oracleRules(cfg Config, p *plan) map[string]*testRule {
	late := cfg.Lateness.Milliseconds()
	list := []*testRule{
		{oracleRule{id: "count", kind: "event_count", timespan: 10_000, lateness: late, min: 3, rules: 1}, []string{"a"}, []string{"user"}},
		{oracleRule{id: "values", kind: "value_count", timespan: 10_000, lateness: late, min: 2, rules: 2}, []string{"a", "b"}, []string{"user"}},
		{oracleRule{id: "both", kind: "temporal", timespan: 10_000, lateness: late, min: 2, rules: 2}, []string{"a", "b"}, []string{"who", "zone"}},
		{oracleRule{id: "order", kind: "temporal_ordered", timespan: 20_000, lateness: late, min: 3, rules: 3}, []string{"a", "b", "c"}, []string{"user"}},
		{oracleRule{id: "strict", kind: "temporal_ordered", timespan: 10_000, lateness: late, suppress: 60_000, min: 2, rules: 2, strict: true}, []string{"a", "b"}, []string{"user"}},
		{oracleRule{id: "all", kind: "event_count", timespan: 20_000, lateness: 60_000, suppress: 300_000, min: 2, rules: 1}, []string{"c"}, nil},
	}
	out := make(map[string]*testRule)
	for _, r := range append(list, decidedOracles(late)...) {
		if c := p.correlations[r.id]; c != nil {
			r.revision, r.updates = c.Revision, c.Updates
			out[r.id] = r
		}
	}
	return out
}

// decidedOracles say again what decidedRules say.
func decidedOracles(late int64) []*testRule {
	user := []string{"user"}
	bound := func(op, n string) []oracleBound { return []oracleBound{{op, n}} }
	return []*testRule{
		{oracleRule{id: "few", kind: "event_count", timespan: 10_000, lateness: late, rules: 1, bounds: bound("lt", "2")}, []string{"a"}, user},
		{oracleRule{id: "range", kind: "value_count", timespan: 10_000, lateness: late, suppress: 30_000, rules: 2, bounds: []oracleBound{{"gte", "2"}, {"lte", "3"}}}, []string{"a", "b"}, user},
		{oracleRule{id: "unlike", kind: "temporal", timespan: 10_000, lateness: 5000, own: true, rules: 2, bounds: bound("eq", "1"), window: "tumbling"}, []string{"a", "b"}, []string{"zone"}},
		{oracleRule{id: "without", kind: "temporal", timespan: 10_000, lateness: late, rules: 3, expr: func(r map[int]bool) bool { return r[0] && !r[1] && !r[2] }}, []string{"a", "b", "c"}, user},
		{oracleRule{id: "either", kind: "temporal", timespan: 10_000, lateness: late, rules: 3, once: true, expr: func(r map[int]bool) bool { return r[0] && (r[1] || r[2]) }}, []string{"a", "b", "c"}, user},
		{oracleRule{id: "steps", kind: "temporal_ordered", timespan: 10_000, lateness: late, rules: 2, bounds: bound("lt", "2")}, []string{"a", "b"}, user},
		{oracleRule{id: "sum", kind: "value_sum", timespan: 10_000, lateness: late, rules: 1, once: true, bounds: bound("gt", "2")}, []string{"a"}, user},
		{oracleRule{id: "small", kind: "value_sum", timespan: 20_000, lateness: late, rules: 1, bounds: bound("lte", "2"), window: "session", gap: 9000}, []string{"b"}, user},
		{oracleRule{id: "average", kind: "value_avg", timespan: 10_000, lateness: late, rules: 2, bounds: bound("gt", "1.3")}, []string{"a", "b"}, user},
		{oracleRule{id: "percentile", kind: "value_percentile", percentile: "90", timespan: 20_000, lateness: late, rules: 1, bounds: bound("gte", "1.2")}, []string{"b"}, user},
		{oracleRule{id: "share", kind: "value_percentile", timespan: 20_000, lateness: late, rules: 1, bounds: bound("lt", "50")}, []string{"c"}, user},
		{oracleRule{id: "median", kind: "value_median", timespan: 20_000, lateness: late, rules: 1, bounds: bound("neq", "1")}, []string{"c"}, user},
		{oracleRule{id: "session", kind: "event_count", timespan: 20_000, lateness: late, min: 2, rules: 1, window: "session", gap: 10_000}, []string{"b"}, user},
		{oracleRule{id: "tumbling", kind: "event_count", timespan: 10_000, lateness: late, min: 2, rules: 1, window: "tumbling"}, []string{"c"}, user},
	}
}
