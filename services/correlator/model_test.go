package correlator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/ownership"
)

// model is both stages over a log and a store that fail as drawn. It is what
// the service does, one step at a time and in any order of owners.
type model struct {
	t      *rapid.T
	cfg    Config
	plan   *plan
	log    *memLog
	store  Store
	counts *counts
	events []accepted
	at     []int64 // their offsets
	// The latest owners of each partition, a zombie before its successor.
	detectors map[int][]*modelDetector
	sessions  map[int][]*session
	crash     Point
	panics    int                           // at the n-th detection from now
	deadly    func(p Point, r *Record) bool // ends the process every time
	seen      map[string]int                // how often what happened
	problems  []string
	// Where rules change: the rules by manifest, what the next event is stamped
	// with, and what events and detections add up to.
	plans    planner
	manifest func() string
	expect   func() map[string]bool
	adds     func(records []bus.Record) map[string]bool
	// defect spoils what a session has folded, for the test of the test.
	defect func(*session)
	// change says in words of the oracle where rules differ from testRules.
	change func(*oracleRule)
}

type modelDetector struct {
	d *detector
	m *matching
	s *settling
}

const modelPartitions = 2

func modelConfig() Config {
	cfg := DefaultConfig()
	cfg.Slack, cfg.Lateness, cfg.BatchRecords, cfg.BatchBytes = 20*time.Second, time.Second, 3, minBatchBytes
	cfg.CacheBytes = 8 << 10
	return cfg
}

func newModel(t *rapid.T, p *plan, counts *counts, store Store) *model {
	m := &model{
		t: t, cfg: modelConfig(), plan: p, log: newMemLog(modelPartitions), store: store, counts: counts,
		detectors: make(map[int][]*modelDetector), sessions: make(map[int][]*session), seen: make(map[string]int),
	}
	m.log.onCommit = m.checkFrontier
	m.plans, m.manifest, m.adds = always{p}, func() string { return "" }, m.ofDetections
	m.expect = func() map[string]bool { return expected(m.cfg, m.plan, m.events, m.change) }
	return m
}

func (m *model) fault(p Point, r *Record) error {
	if r != nil && m.deadly != nil && m.deadly(p, r) {
		m.seen["deadly"]++
		return errors.New("the process has died")
	}
	if p == PointFold && m.panics > 0 {
		if m.panics--; m.panics == 0 {
			m.seen["panic"]++
			panic("rule")
		}
	}
	if p == m.crash && !m.condemns() {
		m.crash = ""
		m.seen["crash"]++
		m.seen["crash "+string(p)]++
		return errors.New("crash")
	}
	return nil
}

// condemns reports whether a crash would be the last of a record that is tried
// alone: that is no accident any more.
func (m *model) condemns() bool {
	for _, g := range m.log.groups {
		if at, _ := parseProgress(g.metadata); at.trial.size == 1 && at.trial.count >= int64(m.cfg.Attempts) {
			return true
		}
	}
	return false
}

func (m *model) detector() *detector {
	return &detector{
		cfg: m.cfg, reader: m.log, producer: m.log, plans: m.plans, tracer: tracenoop.Tracer{}, counts: m.counts, fault: m.fault,
		log: slog.New(slog.DiscardHandler), clock: func() time.Time { return m.log.now }, detections: modelPartitions,
	}
}

func (m *model) correlator() *correlator {
	return &correlator{
		cfg: m.cfg, reader: m.log, producer: m.log, store: m.store, plans: m.plans, tracer: tracenoop.Tracer{}, counts: m.counts,
		fault: m.fault, log: slog.New(slog.DiscardHandler), clock: func() time.Time { return m.log.now }, events: modelPartitions, siblings: modelPartitions,
		share: math.MaxInt64, owned: ownership.New[progress](),
	}
}

// call gives an operation a context that ends where a produce fails.
func (m *model) call(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.log.died = cancel
	return f(ctx)
}

// accept appends an event, with an ingest time of before its write.
func (m *model) accept() {
	t, now := m.t, m.log.now.UnixMilli()
	a := accepted{partition: rapid.IntRange(0, modelPartitions-1).Draw(t, "partition")}
	a.ingest = now - rapid.SampledFrom([]int64{0, 0, 0, 1000, 15_000, 45_000}).Draw(t, "delay")
	a.manifest = m.manifest()
	a.tick = rapid.IntRange(0, 5).Draw(t, "tick") == 0
	if !a.tick {
		a.id = fmt.Sprintf("e%02d", len(m.events))
		a.tenant = rapid.SampledFrom([]string{"t1", "t1", "t2"}).Draw(t, "tenant")
		a.time = rapid.SampledFrom([]int64{a.ingest, 1_800_000_000_000, 1_700_000_000_000, now + 600_000, -5_000}).Draw(t, "base") +
			rapid.SampledFrom([]int64{0, 0, 1, 9_999, 10_000, 10_001, 20_000, -10_000}).Draw(t, "time")
		a.fields = map[string]string{"action": rapid.SampledFrom([]string{"a", "b", "c", "ab", "bc", "abc", "x", "none"}).Draw(t, "action")}
		for _, f := range []string{"user", "actor", "ip", "zone"} {
			switch v := rapid.SampledFrom([]string{"1", "1", "1", "1", "2", "null", "absent", ""}).Draw(t, f); v {
			case "absent":
			default:
				a.fields[f] = v
			}
		}
	}
	m.put(a)
	// Copies that carry their own time: further records of one event.
	for !a.tick && rapid.IntRange(0, 7).Draw(t, "copy") == 0 {
		a.partition = rapid.IntRange(0, modelPartitions-1).Draw(t, "copy partition")
		m.put(a)
	}
}

func (m *model) put(a accepted) {
	schema, value := a.record()
	m.events = append(m.events, a)
	m.at = append(m.at, int64(len(m.log.parts[TopicEvents][a.partition])))
	m.log.append(TopicEvents, a.partition, []bus.Message{{Value: value, Headers: newHeaders(schema, a.tenant)}})
}

// owners keeps a new owner and, perhaps, the one before it as a zombie.
func owners[T any](t *rapid.T, list []T, o T) []T {
	if len(list) > 0 && rapid.Bool().Draw(t, "zombie") {
		return []T{list[len(list)-1], o}
	}
	return []T{o}
}

func pick[T any](t *rapid.T, list []T) (T, bool) {
	if len(list) == 0 {
		var none T
		return none, false
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(t, "owner")], true
}

func (m *model) openDetector(p int) {
	d := &modelDetector{d: m.detector()}
	d.m = newMatching(d.d, m.log.claim(TopicEvents, p))
	require.NoError(m.t, m.call(func(ctx context.Context) error { return d.d.begin(ctx, d.m) }))
	d.s = newSettling(d.d, d.m)
	m.detectors[p] = owners(m.t, m.detectors[p], d)
}

// detect takes one fetch through stage detect. It dies where a step fails.
func (m *model) detect(p int) {
	if len(m.detectors[p]) == 0 {
		m.openDetector(p)
	}
	d, ok := pick(m.t, m.detectors[p])
	if !ok {
		return
	}
	err := m.call(func(ctx context.Context) error {
		if d.m.probation.careful() {
			m.seen["careful"]++
			return d.d.prove(ctx, d.m, d.s)
		}
		w, err := d.d.step(ctx, d.m)
		if err != nil || w == nil {
			return errors.Join(err, d.m.failed)
		}
		if err := d.d.produce(ctx, d.d.log, w); err != nil {
			return err
		}
		if err := d.d.fault.at(PointProduced, nil); err != nil {
			return err
		}
		d.s.took(w)
		if rapid.Bool().Draw(m.t, "forward") || len(d.s.rulings) > 0 { // as tell does
			if err := d.s.forward(ctx); err != nil {
				return err
			}
		}
		if err := d.m.probation.commit(ctx, d.s.next, d.s.progress()); errors.Is(err, bus.ErrNotOwner) {
			return err
		}
		return nil
	})
	if err != nil {
		d.m.probation.leave(context.Background(), err)
		m.detectors[p] = slices.DeleteFunc(m.detectors[p], func(x *modelDetector) bool { return x == d })
	}
}

func (m *model) openSession(p int) {
	c := m.correlator()
	c.owned.Enter(p, errOpening)
	err := m.call(func(ctx context.Context) error {
		s, err := c.open(ctx, m.log.claim(TopicDetections, p))
		if err != nil {
			return err
		}
		if err := s.finish(ctx); err != nil {
			return err
		}
		if s.claim.Committed >= 0 && s.next < s.claim.Committed {
			m.seen["rebuild"]++
		}
		m.sessions[p] = owners(m.t, m.sessions[p], s)
		return nil
	})
	if err != nil && !m.broken(err) {
		require.NoError(m.t, err)
	}
}

// broken reports errors that a store or log that fails may cause.
func (m *model) broken(err error) bool {
	var fault *faultError
	return errors.Is(err, context.Canceled) || errors.As(err, &fault) || errors.Is(err, errReply) || errors.Is(err, errOutcome)
}

func (m *model) session(p int, f func(ctx context.Context, s *session) error) {
	if len(m.sessions[p]) == 0 {
		m.openSession(p)
	}
	s, ok := pick(m.t, m.sessions[p])
	if !ok {
		return
	}
	if err := m.call(func(ctx context.Context) error { return f(ctx, s) }); err != nil {
		s.probation.leave(context.Background(), err)
		m.seen["owner ended"]++
		m.sessions[p] = slices.DeleteFunc(m.sessions[p], func(x *session) bool { return x == s })
	}
}

func (m *model) fold(p int) {
	m.session(p, func(ctx context.Context, s *session) error {
		records, _, err := m.log.Fetch(ctx, TopicDetections, p, s.next)
		if err != nil {
			return err
		}
		err = s.batches(ctx, records)
		if m.defect != nil {
			m.defect(s)
		}
		return err
	})
}

func (m *model) publish(p int) {
	m.session(p, func(ctx context.Context, s *session) error {
		_, err := s.publisher.step(ctx)
		return err
	})
}

func (m *model) commit(p int) {
	m.session(p, func(ctx context.Context, s *session) error { return s.commit(ctx) })
}

func (m *model) forward(p int) {
	m.session(p, func(ctx context.Context, s *session) error { return s.forward(ctx) })
}

// checkFrontier holds every commit to its promise, by the oracle: what the
// records below it add up to is in `alerts`.
func (m *model) checkFrontier(p place, offset int64) {
	if p.topic != TopicDetections {
		return
	}
	said := m.said()
	for id := range m.adds(m.log.parts[TopicDetections][p.partition][:offset]) {
		if !said[id] {
			m.problems = append(m.problems, fmt.Sprintf("frontier of partition %d is %d and alert %s is not acknowledged", p.partition, offset, id))
		}
	}
}

// ofDetections is what the records of a partition of `detections` add up to.
func (m *model) ofDetections(records []bus.Record) map[string]bool {
	type groupOf struct{ tenant, rule, group string }
	recs, values := make(map[groupOf][]oracleRecord), make(map[groupOf][]string)
	rules := oracleRules(m.cfg, m.plan)
	upstreams := make(map[int32]int64)
	for _, r := range records {
		if header(r.Headers, event.HeaderSchema) == schemaWatermark {
			var w detectionv1.Watermark
			require.NoError(m.t, proto.Unmarshal(r.Value, &w))
			if was, ok := upstreams[w.GetUpstreamPartition()]; !ok || was < w.GetWatermarkMs() {
				upstreams[w.GetUpstreamPartition()] = w.GetWatermarkMs()
			}
		}
		if header(r.Headers, event.HeaderSchema) != schemaDetection {
			continue
		}
		var d detectionv1.Detection
		require.NoError(m.t, proto.Unmarshal(r.Value, &d))
		g := groupOf{d.GetTenant(), d.GetCorrelationId(), fmt.Sprintf("%q", d.GetGroup())}
		met := make(map[int]bool)
		for _, id := range d.GetRuleIds() {
			met[slices.Index(rules[g.rule].refers, id[len("rule-"):])] = true
		}
		o := oracleRecord{event: d.GetEventId(), time: d.GetTimeMs(), ingest: d.GetIngestMs(), late: d.GetLate(), early: d.GetEarly(), rules: met}
		if len(d.GetValues()) > 0 {
			o.value = d.GetValues()[0]
		}
		recs[g], values[g] = append(recs[g], o), d.GetGroup()
	}
	watermark := int64(math.MinInt64)
	if len(upstreams) == modelPartitions {
		watermark = slices.Min(slices.Collect(maps.Values(upstreams)))
	}
	out := make(map[string]bool)
	for g := range recs {
		rule := rules[g.rule].oracleRule
		if m.change != nil {
			m.change(&rule)
		}
		maps.Copy(out, rule.alerts(g.tenant, values[g], recs[g], watermark))
	}
	return out
}

func (m *model) said() map[string]bool {
	out := make(map[string]bool)
	for _, r := range m.log.all(TopicAlerts) {
		out[nameOfAlert(m.t, r.Value)] = true
	}
	return out
}

// nameOfAlert is what the oracle calls a record of `alerts`.
func nameOfAlert(t require.TestingT, value []byte) string {
	a := new(alertv1.Alert)
	require.NoError(t, proto.Unmarshal(value, a))
	if a.GetType() != alert.TypeUpdated {
		return a.GetId()
	}
	return fmt.Sprintf("%s updated, %d events from %d to %d", a.GetId(), a.GetEventsTotal(), a.GetFirstTimeMs(), a.GetLastTimeMs())
}

// settle ends all faults and lets the stages come to rest.
func (m *model) settle() {
	m.crash, m.panics, m.log.outcome, m.log.fetch = "", 0, written, 100
	ctx := context.Background()
	// The watermark passes everything.
	for p := range modelPartitions {
		m.put(accepted{partition: p, tick: true, ingest: m.log.now.Add(4 * time.Hour).UnixMilli()})
	}
	for p := range modelPartitions {
		m.openDetector(p)
		d := m.detectors[p][len(m.detectors[p])-1]
		require.NoError(m.t, d.d.goCarefully(ctx, d.m, d.s))
		for int(d.m.next) < len(m.log.parts[TopicEvents][p]) {
			w, err := d.d.step(ctx, d.m)
			require.NoError(m.t, err)
			require.NoError(m.t, d.d.produce(ctx, d.d.log, w))
			d.s.took(w)
			require.NoError(m.t, d.s.forward(ctx))
		}
		if d.s.next > d.s.forwarded { // what went carefully waits for the time to forward
			require.NoError(m.t, d.s.forward(ctx))
		}
	}
	var sessions []*session
	for p := range modelPartitions {
		c := m.correlator()
		c.owned.Enter(p, errOpening)
		s, err := c.open(ctx, m.log.claim(TopicDetections, p))
		require.NoError(m.t, err)
		require.NoError(m.t, s.finish(ctx))
		sessions = append(sessions, s)
	}
	// What one partition signals makes others go on.
	for moved := true; moved; {
		moved = false
		for p, s := range sessions {
			moved = moved || int(s.next) < len(m.log.parts[TopicDetections][p])
			m.rest(ctx, s)
		}
	}
}

// rest lets a session take all that is there.
func (m *model) rest(ctx context.Context, s *session) {
	p := s.claim.Partition
	for int(s.next) < len(m.log.parts[TopicDetections][p]) {
		records, _, err := m.log.Fetch(ctx, TopicDetections, p, s.next)
		require.NoError(m.t, err)
		require.NoError(m.t, s.batches(ctx, records))
	}
	for moved := (<-chan struct{})(nil); moved == nil; {
		var err error
		moved, err = s.publisher.step(ctx)
		require.NoError(m.t, err)
	}
	require.NoError(m.t, s.commit(ctx))
	if s.next > 0 {
		require.Equal(m.t, s.next, m.log.groups[place{TopicDetections, p}].offset)
	}
	require.NoError(m.t, s.c.owned.Problem())
	require.NoError(m.t, s.forward(ctx))
}

// check compares the ids in `alerts` with the oracle's.
func (m *model) check() {
	want := m.expect()
	m.seen["alerts"] += len(want)
	for id := range want {
		if strings.Contains(id, " updated") {
			m.seen["updates"]++
		}
	}
	said := m.said()
	for id := range want {
		if !said[id] {
			m.problems = append(m.problems, "missing "+id)
		}
	}
	for id := range said {
		if !want[id] {
			m.problems = append(m.problems, "spurious "+id)
		}
	}
	for _, r := range m.log.all(TopicDetections) {
		var w detectionv1.Watermark
		switch schema := header(r.Headers, event.HeaderSchema); {
		case schema == schemaSignal:
			m.seen["signal"]++
		case schema == schemaWatermark && proto.Unmarshal(r.Value, &w) == nil && w.GetLevel() > 0:
			m.seen["level watermark"]++
		}
	}
	if (m.plan == nil || m.plan.levels == 0) && m.seen["signal"]+m.seen["level watermark"] > 0 {
		m.problems = append(m.problems, "records of chains, where there is none")
	}
	for _, r := range m.log.all(TopicDLQ) {
		m.problems = append(m.problems, fmt.Sprintf("dead letter %q", r.Value))
	}
}

// An action is one thing that may happen next, as likely as its weight says.
type action struct {
	name   string
	weight int
	do     func(p int)
}

func (m *model) actions() []action {
	return []action{
		{"accept", 12, func(int) { m.accept() }},
		{"accept more", 6, func(int) { m.accept(); m.accept(); m.accept() }},
		{"time", 5, func(int) {
			m.log.now = m.log.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second, time.Minute, 400 * time.Second}).Draw(m.t, "by"))
		}},
		{"own events", 1, m.openDetector},
		{"detect", 14, m.detect},
		{"own", 2, m.openSession},
		{"fold", 14, m.fold},
		{"publish", 10, m.publish},
		{"commit", 10, m.commit},
		{"signal", 4, m.forward},
		{"fetch", 1, func(int) { m.log.fetch = rapid.IntRange(1, 8).Draw(m.t, "records") }},
		{"outcome", 3, func(int) {
			m.log.outcome = rapid.SampledFrom([]outcome{lost, unknown, half, commitLost, commitUnknown}).Draw(m.t, "outcome")
		}},
		{"panic", 1, func(int) { m.panics = rapid.IntRange(1, 4).Draw(m.t, "at") }},
		{"crash", 4, func(int) {
			m.crash = rapid.SampledFrom([]Point{PointMatch, PointProduced, PointFold, PointFolded, PointApplied, PointPublished, PointTrimmed}).Draw(m.t, "point")
		}},
	}
}

// run does actions as drawn.
func (m *model) run(actions []action) {
	var by []int
	for i, a := range actions {
		by = append(by, slices.Repeat([]int{i}, a.weight)...)
	}
	for range rapid.IntRange(40, 250).Draw(m.t, "steps") {
		a := actions[rapid.SampledFrom(by).Draw(m.t, "action")]
		m.t.Log(a.name)
		a.do(rapid.IntRange(0, modelPartitions-1).Draw(m.t, "p"))
	}
}

// faults are what a store in memory may bring.
func (m *model) faults(store *lossy) []action {
	return []action{
		{"lost reply", 2, func(int) { store.dropReply = true }},
		{"failed commit", 1, func(int) { store.fail = true }},
		{"tail lost", 2, func(int) {
			n := len(store.history)
			store.rollback(n - min(n, rapid.IntRange(1, 12).Draw(m.t, "calls")))
			m.seen["tail lost"]++
		}},
		{"flush", 1, func(int) {
			store.rollback(0)
			m.seen["flush"]++
		}},
	}
}

// counter is the value of a counter.
func counter(t *testing.T, r *sdkmetric.ManualReader, name string) (sum int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, r.Collect(t.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if data, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
				for _, p := range data.DataPoints {
					sum += p.Value
				}
			}
		}
	}
	return sum
}

// TestModel holds both stages to the oracle under every fault that the log and
// the store may bring, in any order.
func TestModel(t *testing.T) {
	plans := []*plan{compile(t, modelConfig(), testRules), compile(t, modelConfig(), decidedRules)}
	seen, metrics := make(map[string]int), sdkmetric.NewManualReader()
	counts, err := newCounts(sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)).Meter(""), time.Now)
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := newModel(rt, rapid.SampledFrom(plans).Draw(rt, "rules"), counts, store)
		m.run(append(m.actions(), m.faults(store)...))
		store.dropReply, store.fail = false, false
		m.settle()
		m.check()
		require.Empty(rt, m.problems)
		m.seen["drop"] += store.dropped
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	seen["copies"] = int(counter(t, metrics, "stormbell_correlator_copies_total"))
	seen["raised"] = int(counter(t, metrics, "stormbell_correlator_raised_total"))
	seen["ungrouped"] = int(counter(t, metrics, "stormbell_correlator_ungrouped_total"))
	t.Log(seen)
	happened(t, seen, "alerts", "updates", "tail lost", "flush", "rebuild", "drop", "copies", "raised", "ungrouped", "owner ended", "crash", "panic")
}

// long leaves a test out of -short runs.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long: run it without -short")
	}
}

// happened demands that a run has met all that it is to show. The fewer draws
// of -short cannot promise that.
func happened(t *testing.T, seen map[string]int, all ...string) {
	t.Helper()
	for _, what := range all {
		if !testing.Short() {
			require.Positive(t, seen[what], "%s has not happened: the test shows nothing", what)
		}
	}
}

// notices demands that the problems of some drawn run, of a model that has
// settled, say what a seeded defect leads to.
func notices(t *testing.T, tries int, want string, run func(rt *rapid.T) *model) {
	t.Helper()
	drawn := rapid.Custom(func(rt *rapid.T) string {
		m := run(rt)
		m.check()
		return strings.Join(m.problems, "\n")
	})
	found := ""
	for seed := 0; seed < tries && !strings.Contains(found, want); seed++ {
		found = drawn.Example(seed)
	}
	require.Contains(t, found, want)
}

// TestModelNoticesDefects seeds defects into the window and demands that the
// check finds them: one that finds nothing there would find nothing anywhere.
func TestModelNoticesDefects(t *testing.T) {
	long(t)
	counts, err := newCounts(metricnoop.Meter{}, time.Now)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		rules  string // testRules if empty
		plan   func(*plan)
		defect func(*session)
		want   string
	}{
		"late events count where the watermark decides": {rules: decidedRules, plan: func(p *plan) {
			for _, c := range p.correlations {
				c.spec.AnyAge = true
			}
		}, want: "spurious"},
		"the watermark decides before late events have come": {rules: decidedRules, defect: func(s *session) {
			for _, g := range s.f.cache.groups {
				g.win.Advance(s.f.watermark() + 30_000)
			}
		}, want: "missing"},
		"sessions end too late": {rules: decidedRules, plan: func(p *plan) { p.correlations["session"].spec.Gap += 5000 }, want: "missing"},
		"ingest times may lie any distance apart": {plan: func(p *plan) {
			for _, c := range p.correlations {
				c.spec.Lateness += 3_600_000
			}
		}, want: "spurious"},
		"events are dropped by the greatest event time": {defect: func(s *session) {
			greatest := int64(0)
			for _, r := range s.c.reader.(*memLog).parts[TopicDetections][s.claim.Partition][:s.next] {
				var d detectionv1.Detection
				if header(r.Headers, event.HeaderSchema) == schemaDetection && proto.Unmarshal(r.Value, &d) == nil {
					greatest = max(greatest, d.GetTimeMs())
				}
			}
			for _, g := range s.f.cache.groups {
				g.win.Advance(greatest + g.spec.Reach() + g.spec.Width())
			}
		}, want: "missing"},
		"windows are half a second short": {plan: func(p *plan) {
			for _, c := range p.correlations {
				c.spec.Timespan -= 500
			}
		}, want: "missing"},
		"ties count as ordered where they must not": {plan: func(p *plan) { p.correlations["strict"].spec.StrictTies = false }, want: "spurious"},
		"what is new counts as said before":         {defect: func(s *session) { s.f.silent = math.MaxInt64 }, want: "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, modelConfig(), cmp.Or(tc.rules, testRules))
			if tc.plan != nil {
				tc.plan(p)
			}
			notices(t, 300, tc.want, func(rt *rapid.T) *model {
				store := newLossy()
				m := newModel(rt, p, counts, store)
				m.defect = tc.defect
				m.run(m.actions())
				m.settle()
				return m
			})
		})
	}
}
