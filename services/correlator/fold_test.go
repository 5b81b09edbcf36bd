package correlator

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/sigma"
)

func noCounts(t testing.TB) *counts {
	t.Helper()
	c, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	return c
}

// newFolder returns a folder on an empty store that has one upstream and takes
// so many groups.
func newFolder(t testing.TB, groups int64) *folder {
	t.Helper()
	cfg := modelConfig()
	cfg.BatchRecords, cfg.BatchBytes, cfg.CacheBytes = 500, 768<<10, 64<<20
	return openFolder(t, cfg, compile(t, cfg, testRules), groups, state.NewMemory())
}

func openFolder(t testing.TB, cfg Config, p *plan, groups int64, store Store) *folder {
	t.Helper()
	f := &folder{
		cfg: cfg, store: store, plans: always{p}, tracer: tracenoop.Tracer{}, counts: noCounts(t),
		upstreams: 1, groups: groups, token: fmt.Sprintf("%p", t),
	}
	require.NoError(t, f.open(t.Context()))
	return f
}

// feed is a log of detections in the making.
type feed struct {
	p       *plan
	records []Record
}

func (l *feed) put(schema string, m proto.Message) {
	value, err := marshal(m)
	if err != nil {
		panic(err)
	}
	l.records = append(l.records, Record{Topic: TopicDetections, Offset: int64(len(l.records)), Value: value, Headers: newHeaders(schema, "t")})
}

func (l *feed) detect(tenant, correlation, group, id string, at, ingest int64) {
	c := l.p.correlations[correlation]
	l.put(schemaDetection, &detectionv1.Detection{
		Tenant: tenant, CorrelationId: c.ID, CorrelationRevision: c.Revision, RuleIds: c.Rules[:1], Group: []string{group},
		EventId: id, TimeMs: at, IngestMs: ingest, UpstreamOffset: int64(len(l.records)), Raw: []byte(`{"action":"a"}`),
	})
}

func (l *feed) watermark(w int64) {
	l.put(schemaWatermark, &detectionv1.Watermark{NextOffset: int64(len(l.records)), WatermarkMs: w})
}

// foldAll folds what of the feed is not folded yet, which buries nothing, and
// returns what it says.
func foldAll(t testing.TB, f *folder, l *feed) (alerts []*alertv1.Alert) {
	t.Helper()
	take := func(entries []state.Entry) error {
		for _, e := range entries {
			m, ok := decodeMessage(e.Body)
			require.True(t, ok)
			require.EqualValues(t, toAlerts, m.kind)
			alerts = append(alerts, new(alertv1.Alert))
			require.NoError(t, proto.Unmarshal(m.value, alerts[len(alerts)-1]))
		}
		return nil
	}
	for at := max(f.applied.Offset, 0); at < int64(len(l.records)); at = f.applied.Offset {
		_, entries, err := f.fold(t.Context(), l.records[at:])
		require.NoError(t, err)
		require.NoError(t, take(entries))
		if f.applied.Step > 0 {
			require.NoError(t, f.drainDue(t.Context(), take))
		}
	}
	return alerts
}

const t0 = 1_800_000_000_000

// TestGroupsAreCapped refuses groups beyond the cap, says so once an hour, and
// lets go of none that is there.
func TestGroupsAreCapped(t *testing.T) {
	f := newFolder(t, 3)
	l := &feed{p: f.plans.(always).plan}
	for i := range int64(5) {
		l.detect("t", "count", fmt.Sprint("user-", i), fmt.Sprint("a", i), t0, t0)
	}
	l.detect("u", "count", "another tenant", "b", t0, t0)
	l.detect("t", "values", "another rule", "c", t0, t0)
	alerts := foldAll(t, f, l)
	require.Len(t, alerts, 1)
	meta := alerts[0]
	require.Equal(t, alert.OverflowRule, meta.GetRule().GetId())
	require.Equal(t, "t", meta.GetTenant())
	require.Equal(t, "count", meta.GetGroup()[0].GetValue())
	require.Contains(t, meta.GetSummary(), "limit of groups (3")
	require.EqualValues(t, 3, f.tallies[tallyKey("t", "count", l.p.correlations["count"].Revision)].groups)
	require.EqualValues(t, 1, f.tallies[tallyKey("u", "count", l.p.correlations["count"].Revision)].groups)

	// The groups that are there go on, one that was refused does not.
	for i := range int64(5) {
		for n := range 2 {
			l.detect("t", "count", fmt.Sprint("user-", i), fmt.Sprint("d", n, i), t0, t0)
		}
	}
	alerts = foldAll(t, f, l)
	var groups []string
	for _, a := range alerts {
		groups = append(groups, a.GetGroup()[0].GetValue())
	}
	require.Equal(t, []string{"user-0", "user-1", "user-2"}, groups)

	// A new owner counts on.
	f = openFolder(t, f.cfg, l.p, 3, f.store)
	l.detect("t", "count", "user-9", "e", t0, t0+3_600_000)
	alerts = foldAll(t, f, l)
	require.Len(t, alerts, 1, "an hour later it is said again")
	require.NotEqual(t, meta.GetId(), alerts[0].GetId())

	// Once the watermark has closed the old ones, there is room.
	l.watermark(t0 + 10*3_600_000)
	for i := range 3 {
		l.detect("t", "count", "user-9", fmt.Sprint("f", i), t0, t0+10*3_600_000)
	}
	alerts = foldAll(t, f, l)
	require.Len(t, alerts, 1)
	require.Equal(t, "count", alerts[0].GetRule().GetId())
	require.EqualValues(t, 1, f.tallies[tallyKey("t", "count", l.p.correlations["count"].Revision)].groups)
}

// TestOverflowIsPure folds the same records in other batches, by other owners
// and silently: the same groups are refused.
func TestOverflowIsPure(t *testing.T) {
	f := newFolder(t, 2)
	l := &feed{p: f.plans.(always).plan}
	for i := range int64(40) {
		l.detect("t", "count", fmt.Sprint("user-", i%7), fmt.Sprint("a", i), t0+i, t0+i*60_000)
		if i%5 == 4 {
			l.watermark(t0 + i*60_000)
		}
	}
	want := foldAll(t, f, l)
	require.NotEmpty(t, want)
	ids := func(list []*alertv1.Alert) (out []string) {
		for _, a := range list {
			out = append(out, a.GetId())
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	cfg := f.cfg
	cfg.BatchRecords, cfg.CacheBytes = 1, 1
	store := state.NewMemory()
	var got []*alertv1.Alert
	small := &feed{p: l.p}
	for i := range l.records {
		small.records = l.records[:i+1]
		alerts := foldAll(t, openFolder(t, cfg, l.p, 2, store), small)
		got = append(got, alerts...)
	}
	require.Equal(t, ids(want), ids(got))
	silent := openFolder(t, f.cfg, l.p, 2, state.NewMemory())
	silent.silent = int64(len(l.records))
	none := foldAll(t, silent, l)
	require.Empty(t, none, "below the frontier nothing is said")
}

// TestRuleThatLooksBackTooFarIsRefused demands both figures.
func TestRuleThatLooksBackTooFarIsRefused(t *testing.T) {
	rule := strings.Replace(testRules, "timespan: 10s", "timespan: 8d", 1)
	docs, problems := sigma.Parse([]byte(rule), "test.yml")
	require.Zero(t, sigma.Rejected(problems))
	cfg := DefaultConfig()
	_, problems = sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
	require.Zero(t, sigma.Rejected(problems), "its groups go to the topic state: %v", problems)
	cfg.SnapshotOver = 30 * 24 * time.Hour
	set, problems := sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
	require.Equal(t, 1, sigma.Rejected(problems))
	require.Nil(t, set.Correlation("count"))
	text := fmt.Sprint(problems)
	require.Contains(t, text, "look back 384h36m0s", "timespan and bucket of 8 days, 30 min late, 5 min early, 1 min of slack")
	require.Contains(t, text, "kept for 168h0m0s")
	require.Len(t, cfg.newPlan(set).correlations, 5, "the others run")
	cfg.Retention = 20 * 24 * time.Hour
	_, problems = sigma.Compile(docs, sigma.Options{Accept: cfg.Accept})
	require.Zero(t, sigma.Rejected(problems), problems)
}

// TestManyLargeGroupsCloseInBoundedCalls has more to close than one call takes.
func TestManyLargeGroupsCloseInBoundedCalls(t *testing.T) {
	cfg, store := modelConfig(), newLossy()
	cfg.BatchRecords, cfg.BatchBytes, cfg.CacheBytes = 500, 768<<10, 1<<30
	l := &feed{p: compile(t, cfg, testRules)}
	f := openFolder(t, cfg, l.p, 1000, store)
	const groups, records = 30, 8000
	for i := range int64(groups * records) {
		ingest := int64(t0)
		if i >= groups*records*3/4 {
			ingest += 4_000_000
		}
		l.detect("t", "both", fmt.Sprint("user-", i%groups), fmt.Sprint(i), t0+i*1000, ingest)
	}
	foldAll(t, f, l)
	l.watermark(t0 + 4_000_000)
	_, entries, err := f.fold(t.Context(), l.records[len(l.records)-1:])
	require.NoError(t, err)
	require.Empty(t, entries)
	calls := len(store.history)
	require.NoError(t, f.drainDue(t.Context(), func([]state.Entry) error { return nil }))
	require.Zero(t, f.applied.Step)
	require.Greater(t, len(store.history)-calls, 2, "one call and the last step would be two")
	held := 0
	for _, g := range f.cache.groups {
		held += g.win.Len()
	}
	require.Equal(t, groups*records/4, held)
}

// TestLongValuesAndGroupsStayApart counts long values by what they are, and does
// not keep them.
func TestLongValuesAndGroupsStayApart(t *testing.T) {
	long := strings.Repeat("v", 500_000)
	require.NotEqual(t, tuple([]string{long}), tuple([]string{long + "w"}))
	require.Less(t, len(tuple([]string{long, long})), 100)
	require.NotEqual(t, tuple([]string{"a", "bc"}), tuple([]string{"ab", "c"}))
	require.NotEqual(t, tuple([]string{""}), tuple([]string{"", ""}))
	short := tuple([]string{long})
	require.NotEqual(t, short, tuple([]string{short}), "what looks like a hash is a value")
}

func newMatchingFor(t *testing.T, cfg Config) *matching {
	t.Helper()
	d := &detector{cfg: cfg, plans: always{compile(t, cfg, testRules)}, tracer: tracenoop.Tracer{}, counts: noCounts(t), log: slog.New(slog.DiscardHandler)}
	return newMatching(d, &claim{Committed: -1})
}

// TestTooLargeForALogIsSaidAndPassedOver does not hold up its partition.
func TestTooLargeForALogIsSaidAndPassedOver(t *testing.T) {
	m := newMatchingFor(t, modelConfig())
	big := strings.Repeat("z", 460_000)
	a := accepted{id: "e", tenant: "t", time: t0, ingest: t0, fields: map[string]string{"action": "abx", "user": big, "ip": big}}
	schema, value := a.record()
	w, err := m.batch(t.Context(), []Record{{Topic: TopicEvents, Value: value, Headers: newHeaders(schema, "t")}})
	require.NoError(t, err)
	require.Len(t, w.alerts, 1, "the rule that stands alone alerts all the same")
	require.Len(t, w.dead, 1)
	require.Less(t, len(w.dead[0].Value), bus.MaxDead+1)
	var dead dlqv1.DeadLetter
	require.NoError(t, proto.Unmarshal(w.dead[0].Value, &dead))
	require.Contains(t, dead.GetReason(), "for correlation values")
	require.Contains(t, dead.GetReason(), "too large to keep")
	for _, d := range w.detections {
		require.LessOrEqual(t, len(d.Value), maxDetection)
	}
}

// TestOutcomeOfPublishIsUnknown publishes again what nobody has acknowledged,
// under the same owner.
func TestOutcomeOfPublishIsUnknown(t *testing.T) {
	f := newFolder(t, 10)
	l := &feed{p: f.plans.(always).plan}
	for i := range 3 {
		l.detect("t", "count", "u", fmt.Sprint(i), t0, t0)
	}
	log := newMemLog(1)
	p := newPublisher(f, log, slog.New(slog.DiscardHandler))
	_, entries, err := f.fold(t.Context(), l.records)
	require.NoError(t, err)
	p.add(f.applied.Offset, entries)
	require.EqualValues(t, 2, p.frontier(), "what is said is not acknowledged")
	open := gauge{gaugeOutbox, stageCorrelate, 0}
	require.EqualValues(t, 1, f.counts.gauges[open])
	log.outcome = writtenOnce
	_, err = p.step(t.Context())
	require.NoError(t, err)
	alerts := log.all(TopicAlerts)
	require.Len(t, alerts, 2)
	require.Equal(t, alerts[0].Key, alerts[1].Key)
	require.EqualValues(t, 3, p.frontier())
	require.Zero(t, f.counts.gauges[open])
	left, err := f.store.Outbox(t.Context(), 0, 0, 10)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestLogThatLostItsEndIsNotFolded says what is wrong and waits for someone to
// mend it.
func TestLogThatLostItsEndIsNotFolded(t *testing.T) {
	cfg := modelConfig()
	store, log := state.NewMemory(), newMemLog(1)
	_, err := store.Acquire(t.Context(), 0, "x")
	require.NoError(t, err)
	require.NoError(t, store.Commit(t.Context(), 0, &state.Batch{Token: "x", Prev: state.Nowhere, Next: state.Position{Offset: 9}}))
	c := &correlator{
		cfg: cfg, reader: log, producer: log, store: store, plans: always{}, tracer: tracenoop.Tracer{}, counts: noCounts(t),
		log: slog.New(slog.DiscardHandler), clock: time.Now, events: 1, share: 1, owned: ownership.New[progress](),
	}
	_, err = c.open(t.Context(), &claim{Committed: -1})
	require.ErrorContains(t, err, "folded up to offset 9 and the log of detections ends at 0")
	log.append(TopicDetections, 0, make([]bus.Message, 9))
	_, err = c.open(t.Context(), &claim{Committed: -1})
	require.NoError(t, err, "mended")
}

const upperRules = ruleA + `
title: Few of them
id: few
level: high
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {lt: 3}}
`

// TestOneTickDecidesManyGroups decides many groups by one watermark, in calls
// that stay within the bounds, and each once, though owners end between them.
func TestOneTickDecidesManyGroups(t *testing.T) {
	groups := int64(10_000)
	if text := os.Getenv("STORMBELL_MODEL_GROUPS"); text != "" { // `make model` takes 100,000
		var err error
		groups, err = strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
	}
	cfg, store := DefaultConfig(), state.NewMemory()
	cfg.BatchRecords = 1000
	p := compile(t, cfg, upperRules)
	open := func(silent int64) *folder {
		f := openFolder(t, cfg, p, groups, store)
		f.silent = silent
		return f
	}
	f, l := open(0), &feed{p: p}
	for i := range groups {
		l.detect("t", "few", fmt.Sprint("user-", i), fmt.Sprint("e", i), t0, t0)
	}
	require.Empty(t, foldAll(t, f, l))
	l.watermark(t0 + cfg.Lateness.Milliseconds() + 1)
	at := int64(len(l.records)) - 1
	_, _, err := f.fold(t.Context(), l.records[at:])
	require.NoError(t, err)
	said, calls := make(map[string]int), 0
	ended := errors.New("the owner ends")
	for f.applied.Step > 0 {
		err := f.drainDue(t.Context(), func(entries []state.Entry) error {
			size := 0
			for _, e := range entries {
				require.Equal(t, at, e.Offset)
				size += len(e.Body)
				m, ok := decodeMessage(e.Body)
				require.True(t, ok)
				said[string(m.key)]++
			}
			require.Less(t, size, maxBatchBytes)
			if calls++; calls%5 == 0 {
				return ended
			}
			return nil
		})
		if errors.Is(err, ended) {
			f = open(0)
			continue
		}
		require.NoError(t, err)
	}
	require.Greater(t, calls, int(groups)/1000)
	require.Len(t, said, int(groups))
	for id, n := range said {
		require.Equal(t, 1, n, id)
	}

	// A rebuild decides the same below the frontier, silently, and never again.
	store = state.NewMemory()
	silent := open(at + 1)
	require.Empty(t, foldAll(t, silent, l))
	l.watermark(t0 + cfg.Lateness.Milliseconds() + 2)
	require.Empty(t, foldAll(t, silent, l))
}

// TestOneRecordMakesManyEventsQualify: the record that completes a large count is told
// to whoever refers to it in calls that stay within the bounds, and each event once,
// though owners end between them.
func TestOneRecordMakesManyEventsQualify(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := state.DefaultConfig()
	cfg.Addrs = []string{server.Addr}
	redis, err := state.OpenRedis(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, redis.Close()) })
	for name, store := range map[string]Store{"memory": state.NewMemory(), "redis": redis} {
		t.Run(name, func(t *testing.T) { manyQualify(t, store) })
	}
}

func manyQualify(t *testing.T, store Store) {
	t.Helper()
	const n = 6000 // far more than one call may take
	p := compile(t, DefaultConfig(), ruleA+fmt.Sprintf(`
title: Many
id: many
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: %d}}
---
title: Above
id: above
correlation: {type: event_count, rules: [many], group-by: [user], timespan: 1h, condition: {gte: 1}}
`, n))
	many, above := p.correlations["many"], p.correlations["above"]
	open := func(silent int64) *folder {
		f := openFolder(t, DefaultConfig(), p, 10, store)
		f.silent = silent
		return f
	}
	l := &feed{p: p}
	put := func(i int) {
		l.put(schemaDetection, &detectionv1.Detection{
			Tenant: "t", CorrelationId: many.ID, CorrelationRevision: many.Revision, RuleIds: many.Rules[:1], Group: []string{"u"},
			EventId: fmt.Sprintf("cccccccc-%027d", i), TimeMs: t0, IngestMs: t0, UpstreamOffset: int64(len(l.records)), Raw: []byte(`{"action":"a"}`),
			Parents: []*detectionv1.Link{{CorrelationId: above.ID, CorrelationRevision: above.Revision, Group: []string{"u"}}},
		})
	}
	for i := range n {
		put(i)
	}
	f, said, calls := open(0), make(map[string]int), 0
	take := func(entries []state.Entry) {
		size := 0
		for _, e := range entries {
			size += len(e.Body)
			m, ok := decodeMessage(e.Body)
			require.True(t, ok)
			if m.kind == toDetections {
				sig := new(detectionv1.Signal)
				require.NoError(t, proto.Unmarshal(m.value, sig))
				said[sig.GetEventId()]++
				require.Equal(t, []any{"t", "above", "many", many.Revision, uint32(1), int64(n - 1)},
					[]any{sig.GetTenant(), sig.GetCorrelationId(), sig.GetRuleId(), sig.GetRuleRevision(), sig.GetLevel(), sig.GetUpstreamOffset()})
			}
		}
		require.Less(t, size, maxBatchBytes)
	}
	for f.applied.Offset < n {
		if f.applied.Step == 0 {
			at := max(f.applied.Offset, 0)
			_, entries, err := f.fold(t.Context(), l.records[at:min(at+1000, n)])
			require.NoError(t, err)
			take(entries)
			continue
		}
		_, entries, err := f.drainSome(t.Context())
		require.NoError(t, err)
		take(entries)
		if calls++; calls%5 == 0 {
			f = open(0) // which knows from the store what is left
		}
	}
	require.Greater(t, calls, n/window.MaxSignals)
	require.Len(t, said, n)
	for id, times := range said {
		require.Equal(t, 1, times, id)
	}

	// A rebuild tells none again, nor does a copy of the last.
	store = state.NewMemory()
	f = open(n)
	put(n - 1)
	require.Empty(t, foldAll(t, f, l))
	require.EqualValues(t, n+1, f.applied.Offset)
	require.Zero(t, f.seq)
}

// TestOwnLatenessIsInPlaceOfTheSources lets an event come 15 minutes late, which
// is late for its source: it counts for the rule alone that waits for it itself.
func TestOwnLatenessIsInPlaceOfTheSources(t *testing.T) {
	rules := strings.TrimSuffix(strings.TrimSpace(ruleA), "---")
	for id, more := range map[string]string{"sources": "", "longer": "stormbell: {lateness: 20m}\n", "shorter": "stormbell: {lateness: 5m}\n"} {
		rules += "---\ntitle: Few\nid: " + id + "\ncorrelation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {lt: 3}}\n" + more
	}
	p := compile(t, DefaultConfig(), rules)
	l := &feed{p: p}
	for _, id := range []string{"sources", "longer", "shorter"} {
		c := p.correlations[id]
		l.put(schemaDetection, &detectionv1.Detection{
			Tenant: "t", CorrelationId: c.ID, CorrelationRevision: c.Revision, RuleIds: c.Rules[:1], Group: []string{"u"},
			EventId: "e", TimeMs: t0, IngestMs: t0 + 15*60_000, Late: true, UpstreamOffset: int64(len(l.records)), Raw: []byte(`{"action":"a"}`),
		})
	}
	l.watermark(t0 + 3_600_000)
	alerts := foldAll(t, openFolder(t, DefaultConfig(), p, 3, state.NewMemory()), l)
	require.Len(t, alerts, 1)
	require.Equal(t, "longer", alerts[0].GetRule().GetId())
	require.True(t, alerts[0].GetEvents()[0].GetLate(), "it says so all the same")
}

// TestRaisedLatenessIsOfGroupsThatBeginThen: a group keeps the lateness with which
// it began. What that leaves out is counted, what a shorter one would is not.
func TestRaisedLatenessIsOfGroupsThatBeginThen(t *testing.T) {
	for name, tc := range map[string]struct{ before, since time.Duration }{
		"raised":  {10 * time.Minute, 30 * time.Minute},
		"lowered": {30 * time.Minute, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, store := DefaultConfig(), state.NewMemory()
			open := func(lateness time.Duration) (*folder, *feed) {
				cfg.Lateness = lateness
				p := compile(t, cfg, upperRules)
				return openFolder(t, cfg, p, 10, store), &feed{p: p}
			}
			f, l := open(tc.before)
			l.detect("t", "few", "old", "e", t0, t0)
			require.Empty(t, foldAll(t, f, l))
			records := l.records
			f, l = open(tc.since)
			l.records = records
			l.detect("t", "few", "old", "f", t0+20_000, t0+20_000+20*60_000)
			l.detect("t", "few", "new", "g", t0+20_000, t0+20_000+20*60_000)
			l.watermark(t0 + 2*3_600_000)
			fired := make(map[string]int)
			for _, a := range foldAll(t, f, l) {
				fired[a.GetGroup()[0].GetValue()]++
			}
			want := map[string]int{"old": 1, "new": 1}
			if tc.before > tc.since {
				want = map[string]int{"old": 2}
			}
			require.Equal(t, want, fired)
			require.EqualValues(t, 1, f.counts.board.Tenant("t").Rule("few").Late.Value())
		})
	}
}

// TestDecidedAlertNamesItsRuleAndTrace has all that an alert at once has.
func TestDecidedAlertNamesItsRuleAndTrace(t *testing.T) {
	cfg := modelConfig()
	p := compile(t, cfg, upperRules)
	f, l := openFolder(t, cfg, p, 10, state.NewMemory()), &feed{p: p}
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for i := range int64(3) {
		l.detect("t", "few", "u", fmt.Sprint(i), t0+i*20_000, t0+i*20_000)
	}
	l.records[1].Headers = append(l.records[1].Headers, Header{Key: event.HeaderTraceparent, Value: []byte(parent)})
	l.watermark(t0 + 21_001)
	alerts := foldAll(t, f, l)
	require.Len(t, alerts, 2, "the third is not decided")
	a := alerts[1]
	require.Equal(t, "Few of them", a.GetRule().GetTitle())
	require.Equal(t, "high", a.GetRule().GetLevel())
	require.Equal(t, "user", a.GetGroup()[0].GetField())
	require.EqualValues(t, t0+20_000, a.GetTimeMs())
	require.EqualValues(t, 1, a.GetCount())
	require.JSONEq(t, `{"action":"a"}`, string(a.GetEvents()[0].GetEvent()))
	require.Equal(t, parent, unpackTrace(packTrace(parent)))
	require.Empty(t, packTrace("00-zz"))
}
