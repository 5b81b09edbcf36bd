package correlator

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// testRules hold every type of correlation that fires at once.
const testRules = `
title: A
id: rule-a
logsource: {product: test}
detection: {s: {action|contains: a}, condition: s}
---
title: B
id: rule-b
logsource: {product: test}
detection: {s: {action|contains: b}, condition: s}
---
title: C
id: rule-c
logsource: {product: test}
detection: {s: {action|contains: c}, condition: s}
---
title: Alone
id: rule-x
level: high
logsource: {product: test}
detection: {s: {action|contains: x}, condition: s}
---
title: Count
id: count
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 3}}
---
title: Values
id: values
correlation: {type: value_count, rules: [rule-a, rule-b], group-by: [user], timespan: 10s, condition: {gt: 1, field: ip}}
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
stormbell: {ties: strict, suppress: 1m}
---
title: All
id: all
correlation: {type: event_count, rules: [rule-c], timespan: 20s, condition: {gte: 2}}
stormbell: {suppress: 5m, lateness: 1m}
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
				if v, ok := a.fields["ip"]; missing || o.kind == "value_count" && (!ok || v == "null") {
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
				groups[g] = append(groups[g], oracleRecord{event: a.id, time: a.time, ingest: ingest, rules: met, value: a.fields["ip"]})
			}
		}
	}
	for g, recs := range groups {
		o := rules[g.rule].oracleRule
		if change != nil {
			change(&o)
		}
		maps.Copy(out, o.alerts(g.tenant, values[g], recs))
	}
	return out
}

type testRule struct {
	oracleRule
	refers []string
	group  []string
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
	for _, r := range list {
		r.revision = p.correlations[r.id].Revision
		out[r.id] = r
	}
	return out
}
