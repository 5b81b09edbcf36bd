package correlator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator/geo/geotest"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// backtest gives what the oracle calls a tenant's alerts, and what they came to,
// in a time, as Unix milliseconds.
func (m *model) backtest(tenant string, from, to int64, plans planner, rules *sigma.Set) map[string]bool {
	got, updates := make(map[string]bool), 0
	r := &replay{
		cfg: m.cfg, deps: BacktestDeps{Reader: m.log, Partitions: modelPartitions},
		of: Backtest{Tenant: tenant, Rules: rules, Updates: true}, plans: plans, counts: m.counts, from: from, to: to,
		rules: make(map[string]*BacktestRule), said: make(map[string]bool),
		alert: func(a *alertv1.Alert) error {
			require.Equal(m.t, tenant, a.GetTenant())
			value, err := proto.Marshal(a)
			require.NoError(m.t, err)
			name := nameOfAlert(m.t, value)
			require.False(m.t, got[name], "twice")
			if got[name] = true; alert.TypeOf(a) == alert.TypeUpdated {
				updates++
			}
			return nil
		},
		progress: func(int64, int64) error { return nil },
	}
	result, err := r.run(context.Background())
	require.NoError(m.t, err)
	require.EqualValues(m.t, len(got)-updates, result.Alerts)
	m.seen["backtest updates"] += updates
	require.Zero(m.t, result.Failed)
	return got
}

const (
	everBegan = 1_700_000_000_000
	everEnds  = 1_900_000_000_000
)

// backtests hold that a backtest gives the alerts that there have been, also
// where the time is cut in two.
func (m *model) backtests(plans planner) {
	m.log.fetch = rapid.IntRange(1, 9).Draw(m.t, "backtest fetches")
	all := make(map[string]bool)
	for _, tenant := range []string{"t1", "t2"} {
		whole := m.backtest(tenant, everBegan, everEnds, plans, nil)
		maps.Copy(all, whole)
		cut := m.log.now.UnixMilli() - rapid.Int64Range(0, 600_000).Draw(m.t, "cut")
		// A bucket may fire once more long after: it is then in both.
		both := m.backtest(tenant, everBegan, cut, plans, nil)
		maps.Copy(both, m.backtest(tenant, cut, everEnds, plans, nil))
		require.Equal(m.t, whole, both)
	}
	require.Equal(m.t, slices.Sorted(maps.Keys(m.said())), slices.Sorted(maps.Keys(all)))
}

// TestBacktestTriesOtherRules on events that were judged by none.
func TestBacktestTriesOtherRules(t *testing.T) {
	p := compile(t, modelConfig(), reloadRules)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(rt, p, noCounts(t), newLossy())
		m.plans = always{compile(t, modelConfig(), "title: N\nid: n\nlogsource: {product: test}\ndetection: {s: {a: b}, condition: s}")}
		for range 40 {
			m.accept()
			m.log.now = m.log.now.Add(time.Second)
		}
		all := make(map[string]bool)
		for _, tenant := range []string{"t1", "t2"} {
			maps.Copy(all, m.backtest(tenant, everBegan, everEnds, onePlan{p}, p.set))
		}
		for i := range m.events {
			m.events[i].manifest = "base"
		}
		require.Equal(rt, reloads(m.cfg, byName{"base": p}, m.events), all)
	})
}

// TestBacktestIsBounded refuses groups as the live path does: whoever may read
// must not fill a gateway's memory.
func TestBacktestIsBounded(t *testing.T) {
	cfg := modelConfig()
	cfg.Groups = 5
	p, log := compile(t, cfg, testRules), newMemLog(1)
	for i := range 50 {
		a := accepted{id: fmt.Sprint(i), tenant: "t", time: t0, ingest: t0, fields: map[string]string{"action": "a", "user": fmt.Sprint("user-", i)}}
		schema, value := a.record()
		log.append(TopicEvents, 0, []bus.Message{{Value: value, Headers: newHeaders(schema, a.tenant)}})
	}
	var rules []string
	_, err := Backtest{Tenant: "t", From: time.UnixMilli(t0 - 1000), To: time.UnixMilli(t0 + 1000), Rules: p.set}.Run(t.Context(), cfg,
		BacktestDeps{Reader: log, Partitions: 1},
		func(a *alertv1.Alert) error {
			rules = append(rules, a.GetRule().GetId())
			return nil
		}, func(int64, int64) error { return nil })
	require.NoError(t, err)
	require.Equal(t, []string{alert.OverflowRule, alert.OverflowRule, alert.OverflowRule}, rules, "one for each correlation that groups by user and takes an A")
}

// TestBacktestTimes refuses a time that ends before it begins.
func TestBacktestTimes(t *testing.T) {
	now := time.UnixMilli(t0)
	_, err := Backtest{From: now, To: now}.Run(t.Context(), DefaultConfig(), BacktestDeps{}, nil, nil)
	require.ErrorContains(t, err, "must be after")
}

// travelRules want to know where addresses are.
const travelRules = `
title: A
id: rule-a
logsource: {product: test}
detection: {s: {action: a}, condition: s}
---
title: Travel
id: travel
stormbell: {type: impossible_travel, rules: [rule-a], group-by: [user], location: ip}
`

// TestBacktestPlaces takes places from the file that the services take them from,
// without which there are none of addresses.
func TestBacktestPlaces(t *testing.T) {
	log := newMemLog(1)
	for i, ip := range []string{"198.51.100.7", "2001:db8::1"} { // Oslo, Tokyo
		at := int64(t0 + i*60_000)
		a := accepted{id: fmt.Sprint(i), tenant: "t", time: at, ingest: at, fields: map[string]string{"action": "a", "user": "u", "ip": ip}}
		schema, value := a.record()
		log.append(TopicEvents, 0, []bus.Message{{Value: value, Headers: newHeaders(schema, a.tenant)}})
	}
	at := int64(t0 + 10*3_600_000) // when the watermark decides
	log.append(TopicEvents, 0, []bus.Message{{Value: event.EncodeTick(nil, at), Headers: newHeaders(event.SchemaTick, "")}})
	for file, want := range map[string]int{"": 0, geotest.Database(t): 1} {
		cfg := modelConfig()
		cfg.GeoFile = file
		b := Backtest{Tenant: "t", From: time.UnixMilli(t0), To: time.UnixMilli(at), Rules: compile(t, cfg, travelRules).set}
		got := 0
		_, err := b.Run(t.Context(), cfg, BacktestDeps{Reader: log, Partitions: 1}, func(a *alertv1.Alert) error {
			if a.GetRule().GetId() == "travel" {
				got++
			}
			return nil
		}, func(int64, int64) error { return nil })
		require.NoError(t, err)
		require.Equal(t, want, got, "geo_file %q", file)
	}
}

// trimmed is a log that holds nothing below an offset any more.
type trimmed struct {
	*memLog
	first int64
}

func (l trimmed) Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	_, end, err = l.memLog.Offsets(ctx, topic, partition)
	return l.first, end, err
}

// TestBacktestSaysWhatIsGone where the log begins later than it would have to be
// read, and only there.
func TestBacktestSaysWhatIsGone(t *testing.T) {
	log, p := newMemLog(1), compile(t, modelConfig(), testRules)
	for i := range 10 {
		log.now = time.UnixMilli(int64(t0 + i*1000))
		a := accepted{id: fmt.Sprint(i), tenant: "t", time: t0, ingest: log.now.UnixMilli(), fields: map[string]string{"action": "a", "user": "u"}}
		schema, value := a.record()
		log.append(TopicEvents, 0, []bus.Message{{Value: value, Headers: newHeaders(schema, a.tenant)}})
	}
	for first, want := range map[int64]time.Time{0: {}, 3: time.UnixMilli(t0 + 3000)} {
		got, err := Backtest{Tenant: "t", From: time.UnixMilli(t0), To: time.UnixMilli(t0 + 100_000), Rules: p.set}.Run(t.Context(), modelConfig(),
			BacktestDeps{Reader: trimmed{log, first}, Partitions: 1}, func(*alertv1.Alert) error { return nil }, func(int64, int64) error { return nil })
		require.NoError(t, err)
		require.True(t, want.Equal(got.Since), "%s, not %s", got.Since, want)
	}
}

// TestModelDecided holds what the watermark decides to be a function of the
// log, whatever dies and is lost: a backtest, which none of that happens to,
// finds the same alerts.
func TestModelDecided(t *testing.T) {
	const few = "---\ntitle: Few\nid: few\ncorrelation: {type: event_count, rules: [rule-b], group-by: [user], timespan: 10s, condition: {lt: 3}}\n"
	const told = "---\ntitle: Told\nid: told\ncorrelation: {type: event_count, rules: [rule-a, rule-b], group-by: [user], timespan: 10s, condition: {gte: 2}}\nstormbell: {updates: true}\n"
	plans := byName{"base": compile(t, modelConfig(), reloadRules+few+told)}
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		m := reloadModel(rt, plans, plans, noCounts(t), func(m *model) {
			m.expect, m.adds = m.said, func([]bus.Record) map[string]bool { return nil }
		})
		require.Empty(rt, m.problems)
		m.backtests(plans)
		for _, r := range m.log.all(TopicAlerts) {
			a := new(alertv1.Alert)
			require.NoError(rt, proto.Unmarshal(r.Value, a))
			seen[a.GetRule().GetId()]++
		}
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	t.Log(seen)
	happened(t, seen, "few", "told", "updates", "backtest updates", "rebuild", "owner ended")
}
