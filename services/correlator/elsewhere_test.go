package correlator

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/state"
)

// elsewhereRules are what the cases below are put to.
const elsewhereRules = `
title: A
name: a
id: rule-a
logsource: {product: test}
detection: {s: {action: a}, condition: s}
---
title: B
name: b
id: rule-b
logsource: {product: test}
detection: {s: {action: b}, condition: s}
---
title: Three in a minute
id: three
correlation: {type: event_count, rules: [a], group-by: [user], timespan: 60s, condition: {gte: 3}}
---
title: A then B
id: order
correlation: {type: temporal_ordered, rules: [a, b], group-by: [user], timespan: 60s}
---
title: A then B, never at once
id: strict
correlation: {type: temporal_ordered, rules: [a, b], group-by: [user], timespan: 60s}
stormbell: {ties: strict}
---
title: Large values
id: large
correlation: {type: value_percentile, rules: [b], group-by: [user], timespan: 60s, condition: {field: n, percentile: 95, gte: 1000000}}
---
title: Small values
id: small
correlation: {type: value_percentile, rules: [b], group-by: [user], timespan: 60s, condition: {field: n, percentile: 95, gte: 1}}
---
title: Quiet
id: quiet
correlation: {type: event_count, rules: [b], group-by: [host], timespan: 60s, condition: {lt: 2}}
`

// desk is both stages, one call at a time, over the partitions of a log.
type desk struct {
	t       *testing.T
	cfg     Config
	f       *folder
	l       *feed
	match   []*matching
	offsets []int64
	said    map[string]bool // rules of alerts
}

func newDesk(t *testing.T, partitions int) *desk {
	t.Helper()
	cfg := modelConfig()
	cfg.BatchRecords, cfg.BatchBytes = 500, 768<<10
	p := compile(t, cfg, elsewhereRules)
	d := &desk{t: t, cfg: cfg, l: &feed{p: p}, f: openFolder(t, cfg, p, 100, state.NewMemory()), offsets: make([]int64, partitions), said: make(map[string]bool)}
	d.f.upstreams = partitions
	for range partitions {
		m := newMatchingFor(t, cfg)
		m.d.plans = always{p}
		m.partition = len(d.match)
		d.match = append(d.match, m)
	}
	return d
}

// post accepts an event or a tick, and forwards the watermark of its partition.
func (d *desk) post(a accepted) {
	d.t.Helper()
	a.tenant = "t"
	schema, value := a.record()
	at := d.offsets[a.partition]
	d.offsets[a.partition]++
	w, err := d.match[a.partition].batch(d.t.Context(), []bus.Record{{
		Topic: TopicEvents, Partition: a.partition, Offset: at, Value: value, Headers: newHeaders(schema, a.tenant),
	}})
	require.NoError(d.t, err)
	require.Empty(d.t, w.dead)
	for _, msg := range w.detections {
		d.l.records = append(d.l.records, Record{Topic: TopicDetections, Offset: int64(len(d.l.records)), Key: msg.Key, Value: msg.Value, Headers: msg.Headers})
	}
	d.mark(a.partition, w.next, w.ingest-d.cfg.Slack.Milliseconds())
}

// mark lets a partition's owner say how far it is.
func (d *desk) mark(partition int, next, watermark int64) {
	d.t.Helper()
	d.l.put(schemaWatermark, &detectionv1.Watermark{UpstreamPartition: int32(partition), NextOffset: next, WatermarkMs: watermark})
	for _, a := range foldAll(d.t, d.f, d.l) {
		d.said[a.GetRule().GetId()] = true
	}
}

func (d *desk) rules() []string { return slices.Sorted(maps.Keys(d.said)) }

// orders are all orders of n things.
func orders(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, rest := range orders(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(rest), at, n-1))
		}
	}
	return all
}

// TestElsewhereWrong holds what other engines get wrong, each case in every
// order in which its events may come.
func TestElsewhereWrong(t *testing.T) {
	const second, day = 1000, 24 * 3_600_000
	event := func(id, action, user string, at int64) accepted {
		a := accepted{id: id, time: at, ingest: t0, fields: map[string]string{"action": action, "n": "1"}}
		if user != "" {
			a.fields["user"] = user
		}
		return a
	}
	for name, tc := range map[string]struct {
		events []accepted
		want   []string
	}{
		"an old event after new ones": {
			[]accepted{event("1", "a", "u", t0), event("2", "a", "u", t0+second), event("3", "a", "u", t0-day)}, nil,
		},
		"three in a minute, and one nine minutes later": {
			[]accepted{event("1", "a", "u", t0+600*second), event("2", "a", "u", t0+60*second), event("3", "a", "u", t0+70*second), event("4", "a", "u", t0+80*second)},
			[]string{"three"},
		},
		"events of 2023 that come today": {
			[]accepted{event("1", "a", "u", t0-1000*day), event("2", "a", "u", t0-1000*day+second), event("3", "a", "u", t0-1000*day+2*second)},
			[]string{"three"},
		},
		"exactly a minute apart":         {[]accepted{event("1", "a", "u", t0), event("2", "a", "u", t0+30*second), event("3", "a", "u", t0+60*second)}, []string{"three"}},
		"a millisecond more":             {[]accepted{event("1", "a", "u", t0), event("2", "a", "u", t0+30*second), event("3", "a", "u", t0+60*second+1)}, nil},
		"in order within a second":       {[]accepted{event("1", "a", "u", t0+200), event("2", "b", "u", t0+700)}, []string{"order", "small", "strict"}},
		"the other way round":            {[]accepted{event("1", "a", "u", t0+700), event("2", "b", "u", t0+200)}, []string{"small"}},
		"at the same time":               {[]accepted{event("1", "a", "u", t0), event("2", "b", "u", t0)}, []string{"order", "small"}},
		"without a field of group-by":    {[]accepted{event("1", "a", "", t0), event("2", "a", "", t0), event("3", "a", "", t0)}, nil},
		"one event three times":          {[]accepted{event("1", "a", "u", t0), event("1", "a", "u", t0), event("1", "a", "u", t0)}, nil},
		"a percentile and its predicate": {[]accepted{event("1", "b", "u", t0), event("2", "b", "u", t0), event("3", "b", "u", t0)}, []string{"small"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range orders(len(tc.events)) {
				d := newDesk(t, 1)
				for _, i := range order {
					d.post(tc.events[i])
				}
				d.post(accepted{tick: true, ingest: t0 + day}) // decides what is not decided at once
				require.Equal(t, tc.want, slices.Clip(d.rules()), "in the order %v", order)
			}
		})
	}
}

// TestWatermarkWaitsForAll: what the watermark decides is decided once every
// partition has come that far, by ticks alone where a source is idle, and not by
// what an owner says that has been away.
func TestWatermarkWaitsForAll(t *testing.T) {
	d := newDesk(t, 2)
	for p := range 2 {
		d.post(accepted{tick: true, partition: p, ingest: t0 - 60_000})
	}
	d.post(accepted{id: "1", time: t0, ingest: t0, fields: map[string]string{"action": "b", "host": "h"}})
	zombie := d.f.meta.marks[upstream{0, 1}]
	d.post(accepted{tick: true, ingest: t0 + 3_600_000})
	require.Empty(t, d.rules(), "the other partition is idle, and may bring another event")
	d.mark(1, zombie.next, zombie.watermark)
	require.Empty(t, d.rules(), "it has said nothing new")
	d.post(accepted{id: "2", partition: 1, time: t0 + 1, ingest: t0 + 500, fields: map[string]string{"action": "b", "host": "h"}})
	require.Empty(t, d.rules())
	d.post(accepted{tick: true, partition: 1, ingest: t0 + 3_600_000})
	require.Equal(t, []string{"quiet"}, d.rules(), "the first event was alone in its minute")
	before := len(d.said)
	d.mark(1, zombie.next, zombie.watermark)
	d.mark(0, 1, t0-60_000)
	require.Len(t, d.said, before)
	require.GreaterOrEqual(t, d.f.watermark(), int64(t0+3_600_000-60_000), "a watermark never falls")
}
