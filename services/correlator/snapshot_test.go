package correlator

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	statev1 "github.com/stormbell/stormbell/proto/stormbell/state/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/state"
)

// longRules are testRules, some of which remember for hours.
func longRules(t testing.TB, cfg Config) *plan {
	t.Helper()
	return compile(t, cfg, strings.NewReplacer("timespan: 20s", "timespan: 1h", "suppress: 5m", "suppress: 2h").Replace(testRules))
}

func remembersLong(o *oracleRule) {
	if o.timespan == 20_000 {
		o.timespan = 3_600_000
	}
	if o.suppress == 300_000 {
		o.suppress = 7_200_000
	}
}

func longConfig() Config {
	cfg := modelConfig()
	cfg.SnapshotOver, cfg.SnapshotEvery = 2*time.Minute, 30*time.Second
	return cfg
}

// TestModelRemembersLong is TestModel on rules whose groups outlive what a
// rebuild reads of the log.
func TestModelRemembersLong(t *testing.T) {
	p := longRules(t, longConfig())
	require.Positive(t, longConfig().snapshotEvery(p.correlations["all"].spec))
	require.Less(t, longConfig().ownLookBack(p.correlations["order"].spec), int64(7*60_000), "an hour is not read back")
	seen, metrics := make(map[string]int), sdkmetric.NewManualReader()
	counts, err := newCounts(sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)).Meter(""), time.Now)
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := longModel(rt, p, counts, store)
		m.run(append(m.actions(), append(m.faults(store), action{"pass", 6, func(int) { m.log.now = m.log.now.Add(400 * time.Second) }})...))
		store.dropReply, store.fail = false, false
		m.settle()
		m.check()
		require.Empty(rt, m.problems)
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	seen["snapshots"] = int(counter(t, metrics, "stormbell_correlator_snapshots_total"))
	seen["restored"] = int(counter(t, metrics, "stormbell_correlator_restored_total"))
	t.Log(seen)
	happened(t, seen, "alerts", "tail lost", "flush", "rebuild", "owner ended", "crash", "snapshots", "restored")
}

func longModel(rt *rapid.T, p *plan, counts *counts, store Store) *model {
	m := newModel(rt, p, counts, store)
	m.cfg, m.change = longConfig(), remembersLong
	m.cfg.BatchBytes = rapid.SampledFrom([]int{64, minBatchBytes}).Draw(rt, "bytes of a call")
	return m
}

// TestRebuildNeedsSnapshots counts an event of half an hour ago after the store
// has lost everything, which a rebuild does not read any more; and does not
// without what it needs.
func TestRebuildNeedsSnapshots(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func([]bus.Record) []bus.Record
		want  int
	}{
		"as it was":            {func(r []bus.Record) []bus.Record { return r }, 1},
		"written twice":        {func(r []bus.Record) []bus.Record { return append(r, r...) }, 1},
		"nothing is there":     {func([]bus.Record) []bus.Record { return nil }, 0},
		"by an older version":  {func(r []bus.Record) []bus.Record { return resummed(t, r, len(r)) }, 1},
		"a part is of another": {func(r []bus.Record) []bus.Record { return resummed(t, r, 1) }, 0},
		"parts of another are among them": {func(r []bus.Record) []bus.Record {
			other := resummed(t, r, len(r))
			for i := range other { // of which the last is not there
				other[i].Value = fmt.Appendf(nil, "\x08%c", len(r))
			}
			return append([]bus.Record{r[0], other[0]}, r[1:]...)
		}, 1},
		"a part of another follows": {func(r []bus.Record) []bus.Record { return append(r, resummed(t, r[:1:1], 1)...) }, 1},
		"a part is missing":         {func(r []bus.Record) []bus.Record { return r[1:] }, 0},
		"an older one follows": {func(r []bus.Record) []bus.Record {
			old := r[0]
			old.Key, old.Value = snapshotKey(strings.Split(string(old.Key), ":")[0], 0, 0), []byte{8, 1}
			return append(r, old)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			log, store, cfg := newMemLog(1), newLossy(), longConfig()
			cfg.BatchRecords, cfg.BatchBytes = 500, 768<<10
			c := &correlator{
				cfg: cfg, reader: log, producer: log, store: store, plans: always{longRules(t, cfg)}, tracer: tracenoop.Tracer{}, counts: noCounts(t),
				log: slog.New(slog.DiscardHandler), clock: time.Now, events: 1, share: 10, owned: ownership.New[progress](),
			}
			log.onCommit = func(place, int64) {}
			l := &feed{p: c.plans.(always).plan}
			at, written := int64(t0), 0
			run := func() {
				for ; written < len(l.records); written++ {
					log.now = time.UnixMilli(at)
					r := l.records[written]
					log.append(TopicDetections, 0, []bus.Message{{Key: r.Key, Value: r.Value, Headers: r.Headers}})
				}
				c.owned.Enter(0, errOpening)
				s, err := c.open(t.Context(), log.claim(TopicDetections, 0))
				require.NoError(t, err)
				require.NoError(t, s.finish(t.Context()))
				for s.next < int64(written) {
					records, _, err := log.Fetch(t.Context(), TopicDetections, 0, s.next)
					require.NoError(t, err)
					require.NoError(t, s.batches(t.Context(), records))
				}
				for moved := (<-chan struct{})(nil); moved == nil; {
					moved, err = s.publisher.step(t.Context())
					require.NoError(t, err)
				}
				require.NoError(t, s.commit(t.Context()))
			}
			order := l.p.correlations["order"]
			step := func(rule, id int, when int64) {
				l.put(schemaDetection, &detectionv1.Detection{
					Tenant: "t", CorrelationId: "order", CorrelationRevision: order.Revision, RuleIds: order.Rules[rule : rule+1], Group: []string{"bob"},
					EventId: fmt.Sprintf("%032d", id), TimeMs: when, IngestMs: when, UpstreamOffset: int64(len(l.records)),
				})
			}
			for i := range 7500 { // more than a part holds
				step(0, i, t0)
			}
			run()
			for range 30 {
				at += 60_000
				l.watermark(at - 20_000)
				run()
			}
			require.Greater(t, len(log.parts[TopicState][0]), 1)
			before := len(log.parts[TopicAlerts][0])
			log.parts[TopicState][0] = tc.spoil(log.parts[TopicState][0])
			for i := range log.parts[TopicState][0] {
				log.parts[TopicState][0][i].Offset = int64(i)
			}
			store.rollback(0)
			step(1, 7500, at-1)
			step(2, 7501, at)
			run()
			require.Equal(t, tc.want, len(log.parts[TopicAlerts][0])-before)
		})
	}
}

// resummed are records of `state` of which the first have no sum.
func resummed(t *testing.T, records []bus.Record, n int) []bus.Record {
	t.Helper()
	records = slices.Clone(records)
	for i := range records[:n] {
		r, part := &records[i], new(statev1.Snapshot)
		require.NoError(t, proto.Unmarshal(r.Value, part))
		require.NotZero(t, part.GetSum())
		part.Sum = 0
		var err error
		r.Value, err = marshal(part)
		require.NoError(t, err)
	}
	return records
}

// TestSnapshots follows one group: some time after it has changed it is in
// `state` whole, in parts, once; the one before goes; and it goes with the group.
func TestSnapshots(t *testing.T) {
	cfg := longConfig()
	cfg.BatchRecords, cfg.BatchBytes = 500, 768<<10
	l := &feed{p: longRules(t, cfg)}
	f := openFolder(t, cfg, l.p, 10, state.NewMemory())
	const records = 9000 // more than a part holds
	for i := range int64(records) {
		l.detect("t", "order", "bob", fmt.Sprintf("%032d", i), t0+i, t0+i)
	}
	foldAll(t, f, l)
	type key struct {
		group        string
		offset, part int64
	}
	have := make(map[key]*statev1.Snapshot)
	at := func(w int64) (snapshots, gone int) {
		l.watermark(w)
		_, entries, err := f.fold(t.Context(), l.records[len(l.records)-1:])
		require.NoError(t, err)
		require.Empty(t, entries)
		if f.applied.Step == 0 {
			return 0, 0
		}
		for _, e := range drained(t, f) {
			require.EqualValues(t, len(l.records)-1, e.Offset)
			m, ok := decodeMessage(e.Body)
			require.True(t, ok)
			require.EqualValues(t, toState, m.kind)
			group, offset, part, ok := parseSnapshotKey(m.key)
			require.True(t, ok)
			k := key{group, offset, part}
			if len(m.value) == 0 {
				require.Contains(t, have, k)
				delete(have, k)
				gone++
				continue
			}
			have[k] = new(statev1.Snapshot)
			require.NoError(t, proto.Unmarshal(m.value, have[k]))
			require.LessOrEqual(t, len(m.value), partBytes+1000)
			snapshots++
		}
		return snapshots, gone
	}
	snapshots, gone := at(t0 + 9_000)
	require.Equal(t, []int{0, 0}, []int{snapshots, gone}, "30 seconds have not passed since what the slack allows")
	snapshots, gone = at(t0 + 48_000)
	require.Greater(t, snapshots, 1)
	require.Zero(t, gone)
	parts := snapshots
	for _, s := range have {
		require.EqualValues(t, parts, s.GetParts())
	}
	snapshots, gone = at(t0 + 600_000)
	require.Equal(t, []int{0, 0}, []int{snapshots, gone}, "nothing has changed")
	l.detect("t", "order", "bob", "one more", t0+600_000, t0+600_000)
	foldAll(t, f, l)
	snapshots, gone = at(t0 + 660_000)
	require.Equal(t, []int{parts, parts}, []int{snapshots, gone})
	require.Len(t, have, parts)
	for hour := range int64(48) {
		at(t0 + (hour+1)*3_600_000)
	}
	require.Empty(t, have, "the group has gone")
	require.Empty(t, f.cache.groups)
}

// TestRestoreGoesOn where an owner has died amid it, and counts each group once.
func TestRestoreGoesOn(t *testing.T) {
	cfg := longConfig()
	cfg.BatchRecords, cfg.BatchBytes = 500, minBatchBytes
	l := &feed{p: longRules(t, cfg)}
	log, store := newMemLog(1), newLossy()
	f := openFolder(t, cfg, l.p, 5000, store)
	const groups = 420
	for i := range int64(groups) {
		for e := range int64(2) {
			l.detect("t", "order", fmt.Sprint("user-", i), fmt.Sprint(i, "-", e), t0+i, t0+i)
		}
	}
	foldAll(t, f, l)
	l.watermark(t0 + 60_000)
	_, _, err := f.fold(t.Context(), l.records[len(l.records)-1:])
	require.NoError(t, err)
	for _, e := range drained(t, f) {
		m, _ := decodeMessage(e.Body)
		log.append(TopicState, 0, []bus.Message{{Key: m.key, Value: m.value}})
	}
	for _, r := range l.records {
		log.append(TopicDetections, 0, []bus.Message{{Key: r.Key, Value: r.Value, Headers: r.Headers}})
	}
	c := &correlator{
		cfg: cfg, reader: log, producer: log, store: store, plans: f.plans, tracer: f.tracer, counts: f.counts,
		log: slog.New(slog.DiscardHandler), clock: time.Now, events: 1, share: 5000, owned: ownership.New[progress](),
	}
	c.owned.Enter(0, errOpening)
	end := int64(len(l.records))
	held := func() int64 {
		store.rollback(0)
		// Each of the calls may be the last of an owner.
		died := 0
		for {
			cl := log.claim(TopicDetections, 0)
			cl.Committed, cl.Metadata = end, progress{watermark: t0 + 60_000, lookBack: 1000}.String()
			calls := len(store.history)
			s, err := c.open(t.Context(), cl)
			require.NoError(t, err)
			require.NoError(t, s.finish(t.Context()))
			require.EqualValues(t, -1, s.f.applied.Offset, "nothing is folded")
			require.Equal(t, end, s.next, "nothing is read back")
			var sum int64
			for _, tally := range s.f.tallies {
				sum += tally.groups
			}
			made := len(store.history) - calls
			require.Greater(t, made, 3, "else nothing dies amid it")
			if died++; died >= made {
				return sum
			}
			store.rollback(calls + died)
		}
	}
	require.EqualValues(t, groups, held())
	part, err := store.Acquire(t.Context(), 0, "look")
	require.NoError(t, err)
	require.EqualValues(t, -1, part.Applied.Offset)
	require.Less(t, part.Due, int64(state.Never))
}

// drained does all that the watermark has made due, and returns what it says.
func drained(t *testing.T, f *folder) (all []state.Entry) {
	t.Helper()
	require.NoError(t, f.drainDue(t.Context(), func(entries []state.Entry) error {
		all = append(all, entries...)
		return nil
	}))
	return all
}
