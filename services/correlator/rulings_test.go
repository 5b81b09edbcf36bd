package correlator

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
)

// stamped is an event with the manifests that a gateway has stamped it with.
type stamped struct {
	all, own string
	ingest   int64
}

// rulingsOf are what a claim tells of events.
func rulingsOf(m *matching, events []stamped) (w *work) {
	w = &work{ingest: unseen}
	for i, s := range events {
		m.ruling(&event.Event{Tenant: "t", ManifestAll: []byte(s.all), ManifestTenant: []byte(s.own), IngestMS: t0 + s.ingest}, int64(i), w)
	}
	return w
}

func shown(rulings []*detectionv1.Ruling) (out []string) {
	for _, r := range rulings {
		text := fmt.Sprintf("%s%s from %d", strings.ReplaceAll(r.GetTenant()+":", "t:", "own "), r.GetManifest(), r.GetFromIngestMs()-t0)
		text = strings.TrimPrefix(text, ":")
		if r.GetPreviousUntilMs() != 0 {
			text += fmt.Sprintf(", %q until %d", r.GetPrevious(), r.GetPreviousUntilMs()-t0)
		}
		out = append(out, text)
	}
	return out
}

// TestRulings tells each change of the rules, also where two gateways disagree
// for a while.
func TestRulings(t *testing.T) {
	for name, tc := range map[string]struct {
		events []stamped
		want   []string
	}{
		"no rules":       {[]stamped{{"", "", 0}, {"", "", 5}}, nil},
		"one manifest":   {[]stamped{{"one", "", 10}, {"one", "", 5000}}, []string{"one from 0"}},
		"first rules":    {[]stamped{{"", "", 10}, {"one", "", 5000}}, []string{`one from 5000, "" until 999`}},
		"a change":       {[]stamped{{"one", "", 0}, {"one", "", 1500}, {"two", "", 4000}}, []string{"one from 0", `two from 4000, "one" until 1999`}},
		"older ingest":   {[]stamped{{"one", "", 5000}, {"one", "", 5500}, {"one", "", 3500}, {"one", "", 3000}}, []string{"one from 5000", "one from 3000"}},
		"a tenant's own": {[]stamped{{"one", "", 0}, {"one", "mine", 1000}}, []string{"one from 0", `own mine from 1000, "" until 999`}},
		"two gateways disagree": {
			[]stamped{{"one", "", 0}, {"two", "", 10}, {"one", "", 20}, {"two", "", 30}, {"one", "", 999}, {"one", "", 1100}, {"two", "", 1200}, {"two", "", 2300}, {"one", "", 1800}},
			[]string{"one from 0", `two from 0, "one" until 999`, `one from 1000, "two" until 999`, `two from 1000, "one" until 1999`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMatchingFor(t, DefaultConfig())
			require.Equal(t, tc.want, shown(rulingsOf(m, tc.events).rulings))
			require.Empty(t, rulingsOf(m, tc.events[len(tc.events)-1:]).rulings, "the same again is no news")
		})
	}
}

// TestRulingsOutliveAnOwner: the next owner of a partition knows from the
// commit what ruled before it.
func TestRulingsOutliveAnOwner(t *testing.T) {
	m := newMatchingFor(t, DefaultConfig())
	rulingsOf(m, []stamped{{"one", "mine", 0}, {"one", "mine", 3100}})
	p, ok := parseProgress(progress{ingest: 5, ruled: m.ruledText()}.String())
	require.True(t, ok)
	require.EqualValues(t, 5, p.ingest)
	next := newMatchingFor(t, DefaultConfig())
	next.ruled = readRuled(p.ruled)
	require.Equal(t, []string{`two from 90000, "one" until 3999`, `own yours from 90000, "mine" until 3999`},
		shown(rulingsOf(next, []stamped{{"two", "yours", 90_000}}).rulings))

	for i := range 200 {
		m.ruled[fmt.Sprint("tenant-", i)] = &ruled{"a manifest of thirty-two bytes...", t0, t0 + int64(i)}
	}
	text := m.ruledText()
	require.LessOrEqual(t, len(text), maxRuledText)
	require.Contains(t, readRuled(text), allTenants)
	require.Contains(t, readRuled(text), "tenant-199", "the latest are kept")
	require.Empty(t, readRuled("x,a:b,:!:1,:aa:!"))
}

// TestRulingsOfAFailedBatch are told with the next one.
func TestRulingsOfAFailedBatch(t *testing.T) {
	m := newMatchingFor(t, DefaultConfig())
	first := rulingsOf(m, []stamped{{"one", "", 0}, {"two", "", 2000}})
	m.pending = first.rulings
	w := rulingsOf(m, []stamped{{"one", "", 0}, {"two", "", 2000}, {"three", "", 4000}})
	require.Equal(t, []string{`three from 4000, "two" until 2999`}, shown(w.rulings))
}

// byName are rules by the manifest of all tenants and, behind a slash, the
// tenant's own.
type byName map[string]*plan

func (b byName) Get(_ context.Context, all, tenant []byte) (*plan, error) {
	p := b[strings.TrimSuffix(string(all)+"/"+string(tenant), "/")]
	if p == nil {
		return nil, fmt.Errorf("no rules %q %q", all, tenant)
	}
	return p, nil
}

func ruleWith(t testing.TB, atLeast string) *plan {
	return compile(t, modelConfig(), strings.Replace(testRules, "condition: {gte: 3}", "condition: {gte: "+atLeast+"}", 1))
}

// TestCut: a window is cut where rules without its rule ruled within it, and
// nowhere else.
func TestCut(t *testing.T) {
	three, four := ruleWith(t, "3"), ruleWith(t, "4")
	none := compile(t, modelConfig(), "title: N\nid: n\nlogsource: {product: test}\ndetection: {s: {a: b}, condition: s}")
	plans := byName{"three": three, "four": four, "retitled": three, "none": none, "": none, "none/three": three, "none/four": four}
	for name, tc := range map[string]struct {
		events     []stamped
		all, own   string
		revision   string
		start, end int64
		want       bool
	}{
		"no change":                   {[]stamped{{"three", "", 0}, {"three", "", 90_000}}, "three", "", "three", 0, 90_000, false},
		"other title":                 {[]stamped{{"three", "", 0}, {"retitled", "", 60_000}}, "retitled", "", "three", 0, 90_000, false},
		"new rule, across the change": {[]stamped{{"three", "", 0}, {"three", "", 50_000}, {"four", "", 60_000}}, "four", "", "four", 40_000, 90_000, true},
		"new rule, after it":          {[]stamped{{"three", "", 0}, {"three", "", 50_000}, {"four", "", 60_000}}, "four", "", "four", 51_000, 90_000, false},
		"old rule, before it":         {[]stamped{{"three", "", 0}, {"three", "", 50_000}, {"four", "", 60_000}}, "three", "", "three", 0, 59_999, false},
		"old rule, across it":         {[]stamped{{"three", "", 0}, {"three", "", 50_000}, {"four", "", 60_000}}, "three", "", "three", 0, 60_000, true},
		"old rule, long after":        {[]stamped{{"three", "", 0}, {"four", "", 60_000}}, "three", "", "three", 80_000, 90_000, true},
		"back and forth":              {[]stamped{{"three", "", 0}, {"four", "", 60_000}, {"three", "", 70_000}}, "three", "", "three", 65_000, 90_000, false},
		"within back and forth":       {[]stamped{{"three", "", 0}, {"four", "", 60_000}, {"three", "", 70_000}}, "three", "", "three", 50_000, 90_000, true},
		"disagreement":                {[]stamped{{"three", "", 0}, {"four", "", 60_000}, {"three", "", 60_500}, {"four", "", 70_000}, {"three", "", 69_000}}, "four", "", "four", 69_000, 90_000, true},
		"own, across the change":      {[]stamped{{"none", "three", 0}, {"none", "four", 60_000}}, "none", "four", "four", 0, 90_000, true},
		"own, after it":               {[]stamped{{"none", "three", 0}, {"none", "four", 60_000}}, "none", "four", "four", 30_000, 90_000, false},
		"own, first rules":            {[]stamped{{"none", "", 0}, {"none", "four", 60_000}}, "none", "four", "four", 500, 90_000, true},
		"first rules of all":          {[]stamped{{"", "", 0}, {"four", "", 60_000}}, "four", "", "four", 500, 90_000, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := openFolder(t, modelConfig(), three, 10, state.NewMemory())
			f.plans = plans
			l := &feed{p: three}
			for _, r := range rulingsOf(newMatchingFor(t, DefaultConfig()), tc.events).rulings {
				l.put(schemaRuling, r)
			}
			require.Empty(t, foldAll(t, f, l))
			rev := plans[tc.revision].correlations["count"].Revision
			asked := &detectionv1.Detection{Tenant: "t", CorrelationId: "count", CorrelationRevision: rev, ManifestAll: []byte(tc.all), ManifestTenant: []byte(tc.own)}
			for range 2 { // and once more after the state has been stored and read
				got, err := f.cut(t.Context(), asked, t0+tc.start, t0+tc.end)
				require.NoError(t, err)
				require.Equal(t, tc.want, got, "%+v", f.meta.reigns)
				require.NoError(t, f.open(t.Context()))
			}
			asked.Tenant = "another"
			got, err := f.cut(t.Context(), asked, t0+tc.start, t0+tc.end)
			require.NoError(t, err)
			require.Equal(t, tc.want && tc.own == "", got, "another tenant's rules are its own")
		})
	}
}

// TestRulingsAreFoldedOnce and forgotten once the watermark has passed them.
func TestRulingsAreFoldedOnce(t *testing.T) {
	f := newFolder(t, 10)
	l := &feed{p: f.plans.(always).plan}
	told := rulingsOf(newMatchingFor(t, DefaultConfig()), []stamped{{"one", "", 0}, {"two", "", 5000}, {"one", "", 9000}}).rulings
	for _, r := range told {
		l.put(schemaRuling, r)
	}
	mark := func(w int64) {
		l.put(schemaWatermark, &detectionv1.Watermark{NextOffset: 3, WatermarkMs: w})
	}
	mark(t0)
	foldAll(t, f, l)
	want := f.meta.clone().reigns
	require.Len(t, want, 3)
	for _, r := range told {
		l.put(schemaRuling, r) // another owner, from where the last one committed
	}
	foldAll(t, f, l)
	require.Equal(t, want, f.meta.reigns)

	mark(t0 + hourMS - 1)
	mark(t0 + hourMS + 6000)
	foldAll(t, f, l)
	require.Equal(t, want, f.meta.reigns, "windows that the last watermark decides may need them")
	mark(t0 + hourMS + 6001)
	foldAll(t, f, l)
	require.Len(t, f.meta.reigns, 1, "%+v", f.meta.reigns)
	mark(t0 + 3*hourMS)
	mark(t0 + 3*hourMS + 1)
	foldAll(t, f, l)
	require.Empty(t, f.meta.reigns)

	var rs reigns
	for i := range int64(3 * maxReigns) {
		rs = rs.tell(&detectionv1.Ruling{Tenant: "t", Manifest: []byte{byte(i), byte(i >> 8)}, FromIngestMs: t0 + i, Previous: []byte{byte(i - 1), byte((i - 1) >> 8)}, PreviousUntilMs: t0 + i})
	}
	require.LessOrEqual(t, len(rs), maxReigns+1)
	require.EqualValues(t, open, rs[len(rs)-1].until)
}

// TestMetaOfVersion1 is read.
func TestMetaOfVersion1(t *testing.T) {
	m := marks{upstream{0, 1}: {7, 8}}
	got, err := decodeMeta(m.append([]byte{1, 20}))
	require.NoError(t, err)
	require.Equal(t, meta{marks: m, lookBack: 10}, got)
	again, err := decodeMeta(got.encode())
	require.NoError(t, err)
	require.Equal(t, got, again)
	_, err = decodeMeta([]byte{9})
	require.ErrorContains(t, err, "version 9")
	_, err = decodeMeta([]byte{metaVersion, 0x78, 1})
	require.ErrorContains(t, err, "does not know")
}

// TestQuietPartitionCutsNothing: a partition without events since a change does
// not keep the rules before it in force.
func TestQuietPartitionCutsNothing(t *testing.T) {
	plans := byName{"three": ruleWith(t, "3"), "four": ruleWith(t, "4")}
	f := openFolder(t, modelConfig(), plans["three"], 10, state.NewMemory())
	f.plans = plans
	for p, events := range [][]stamped{{{"three", "", 0}}, {{"three", "", 0}, {"four", "", 60_000}}} {
		for _, r := range rulingsOf(newMatchingFor(t, DefaultConfig()), events).rulings {
			r.UpstreamPartition = int32(p)
			f.meta.reigns = f.meta.reigns.tell(r)
		}
	}
	for name, tc := range map[string]struct {
		rules      string
		start, end int64
		want       bool
	}{
		"new rule, after": {"four", 61_000, 90_000, false}, "new rule, across": {"four", 30_000, 90_000, true}, "old rule, after": {"three", 61_000, 90_000, true},
	} {
		got, err := f.cut(t.Context(), &detectionv1.Detection{
			Tenant: "t", CorrelationId: "count", CorrelationRevision: plans[tc.rules].correlations["count"].Revision, ManifestAll: []byte(tc.rules),
		}, t0+tc.start, t0+tc.end)
		require.NoError(t, err)
		require.Equal(t, tc.want, got, name)
	}
}

// TestCutChains: a window is cut, too, where other rules ruled while what it
// counts was decided, and nowhere beyond that.
func TestCutChains(t *testing.T) {
	const src = ruleA + ruleB + `
title: Gone
id: gone
stormbell: {type: absence, trigger: rule-a, missing: rule-b, group-by: [user], timespan: 40s}
---
title: Twice
id: twice
correlation: {type: event_count, rules: [gone], group-by: [user], timespan: 30s, condition: {gte: 1}}
---
title: Calm
id: calm
correlation: {type: event_count, rules: [twice], group-by: [user], timespan: 10s, condition: {lt: 3}}
`
	is, was := compile(t, modelConfig(), src), compile(t, modelConfig(), strings.Replace(src, "{lt: 3}", "{lt: 4}", 1))
	c := is.correlations["calm"]
	require.Equal(t, []int64{30_000, 40_000}, []int64{c.spec.Before, c.spec.After})
	first, last := int64(-10_000-30_000-5*60_000), int64(40_000+1000) // of the ingest times that count
	for name, tc := range map[string]struct {
		from, until int64 // of the other rules
		want        int
	}{
		"long before": {first - 9000, first - 2000, 1}, "before": {first - 9000, first + 1000, 0},
		"amid": {0, 1000, 0}, "after": {last - 1000, last + 9000, 0}, "long after": {last + 2000, last + 9000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := openFolder(t, modelConfig(), is, 10, state.NewMemory())
			f.plans = byName{"is": is, "was": was}
			l := &feed{p: is}
			told := rulingsOf(newMatchingFor(t, DefaultConfig()), []stamped{
				{"is", "", first - hourMS/10}, {"is", "", tc.from - 2000}, {"was", "", tc.from}, {"was", "", tc.until}, {"is", "", tc.until + 2000},
			})
			for _, r := range told.rulings {
				l.put(schemaRuling, r)
			}
			require.Empty(t, foldAll(t, f, l))
			near, err := marshal(&detectionv1.Detection{Tenant: "t", CorrelationId: "calm", CorrelationRevision: c.Revision, ManifestAll: []byte("is")})
			require.NoError(t, err)
			g := &group{spec: c.spec}
			g.win = window.New(g.spec)
			g.win.Add(window.Record{EventID: "e", Time: t0, Ingest: t0, Rules: 1, Keep: keep(&Record{Value: near})})
			fired, err := (&step{f: f}).advance(t.Context(), g, t0+hourMS)
			require.NoError(t, err)
			require.Len(t, fired, tc.want, "%+v", f.meta.reigns)
		})
	}
}
