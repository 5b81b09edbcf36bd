package correlator

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/telemetry"
)

// folder folds one partition of `detections` for one owner, from its
// acquisition to its first refused write. What it holds is a copy of what the
// store has at applied; after any error of the store it is thrown away.
//
// It reads no clock: given the same records it makes the same calls.
type folder struct {
	cfg       Config
	store     Store
	plans     planner
	tracer    trace.Tracer
	counts    *counts
	fault     Fault
	partition int32
	upstreams int // partitions of `events`
	token     string
	// silent is the frontier at the start: what lies below it has been said
	// before, and is folded without a word.
	silent int64

	applied state.Position
	meta    meta
	seq     int64
	due     int64 // lower bound of the due index
	cache   *cache
	// attempts counts how often the fold of a record has failed.
	attempts map[int64]int
}

// planner resolves what a record is to be folded with: exactly the rules whose
// manifests it carries.
type planner interface {
	Get(ctx context.Context, all, tenant []byte) (*plan, error)
}

// open makes the folder the partition's owner.
func (f *folder) open(ctx context.Context) error {
	part, err := f.store.Acquire(ctx, f.partition, f.token)
	if err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	f.applied, f.seq, f.due = part.Applied, part.Seq, part.Due
	f.cache, f.attempts = newCache(f.cfg.CacheBytes), make(map[int64]int)
	f.meta, err = decodeMeta(part.Meta)
	return err
}

// item is a record of `detections`, decoded.
type item struct {
	rec    *Record
	schema string
	det    *detectionv1.Detection
	mark   *detectionv1.Watermark
	key    string // of the group
	cor    *correlation
	bad    string // why it can't be folded
}

// errRetry says that a fold failed on a record and that nothing was written;
// the same records are to be folded again.
var errRetry = errors.New("fold failed on a record")

// fold folds the first records of a fetch, writes the result in one call, and
// returns how many it took and what the outbox has got. Records lie behind
// applied, in order.
func (f *folder) fold(ctx context.Context, records []Record) (n int, entries []state.Entry, err error) {
	items, err := f.decode(ctx, records)
	if err != nil {
		return 0, nil, err
	}
	if err := f.load(ctx, items); err != nil {
		return 0, nil, err
	}
	step := &step{f: f, before: f.meta.clone(), seq: f.seq}
	for n < len(items) && !step.full() {
		if err := step.try(ctx, &items[n]); err != nil {
			f.attempts[items[n].rec.Offset]++
			step.rollback()
			return 0, nil, err
		}
		n++
		if step.drain {
			break
		}
	}
	last := items[n-1].rec.Offset
	next := state.Position{Offset: last + 1}
	if step.drain {
		// The watermark's own effects are in; what it closes follows in
		// bounded calls at the same offset.
		next = state.Position{Offset: last, Step: 1}
	}
	if err := step.write(ctx, next); err != nil {
		return 0, nil, err
	}
	clear(f.attempts)
	return n, step.entries, nil
}

// decode reads records and resolves their rules, until the bounds of a batch.
func (f *folder) decode(ctx context.Context, records []Record) ([]item, error) {
	items := make([]item, 0, min(len(records), f.cfg.BatchRecords))
	size := 0
	for i := range records {
		if len(items) == cap(items) || len(items) > 0 && size+len(records[i].Value) > f.cfg.BatchBytes {
			break
		}
		size += len(records[i].Value)
		it := item{rec: &records[i], schema: header(records[i].Headers, event.HeaderSchema)}
		if f.attempts[it.rec.Offset] >= f.cfg.Attempts {
			it.bad = "fold failed at every attempt"
		} else if err := f.read(ctx, &it); err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

func (f *folder) read(ctx context.Context, it *item) error {
	switch it.schema {
	case schemaDetection:
		it.det = new(detectionv1.Detection)
		if err := proto.Unmarshal(it.rec.Value, it.det); err != nil {
			it.bad = "malformed detection: " + err.Error()
			return nil
		}
		p, err := f.plans.Get(ctx, it.det.GetManifestAll(), it.det.GetManifestTenant())
		if err != nil {
			return fmt.Errorf("rules of offset %d: %w", it.rec.Offset, err)
		}
		c, ok := p.correlations[it.det.GetCorrelationId()]
		if !ok || c.Revision != it.det.GetCorrelationRevision() {
			it.bad = "its manifests hold no correlation " + it.det.GetCorrelationId() + " of revision " + it.det.GetCorrelationRevision()
			return nil
		}
		it.cor, it.key = c, stateKey(it.det)
	case schemaWatermark:
		it.mark = new(detectionv1.Watermark)
		if err := proto.Unmarshal(it.rec.Value, it.mark); err != nil {
			it.bad = "malformed watermark: " + err.Error()
		} else if p := it.mark.GetUpstreamPartition(); it.mark.GetLevel() > maxLevel || p < 0 || p >= maxUpstream {
			it.bad = fmt.Sprintf("watermark of level %d and partition %d", it.mark.GetLevel(), p)
		}
	case schemaRuling, schemaSignal:
		// Rules that fire at once need neither.
	default:
		it.bad = fmt.Sprintf("unknown schema %q", it.schema)
	}
	return nil
}

// load brings the groups of a batch into the cache.
func (f *folder) load(ctx context.Context, items []item) error {
	var missing []string
	asked := make(map[string]bool)
	for i := range items {
		if key := items[i].key; key != "" && !asked[key] && f.cache.get(key) == nil {
			asked[key] = true
			missing = append(missing, key)
		}
	}
	return f.loadKeys(ctx, missing)
}

func (f *folder) loadKeys(ctx context.Context, missing []string) error {
	if len(missing) == 0 || f.applied == state.Nowhere {
		return nil
	}
	got, err := f.store.Load(ctx, f.partition, missing)
	if err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	for i, fields := range got {
		g, ok, err := openGroup(missing[i], fields)
		if err != nil {
			return fmt.Errorf("group %s of partition %d: %w", missing[i], f.partition, err)
		}
		if ok {
			f.cache.put(g)
		}
	}
	return nil
}

// drainDue closes what the watermark has made due, one bounded call at a
// time, and returns once nothing is due. It is safe to repeat: what is closed
// has left the due index by the same call.
func (f *folder) drainDue(ctx context.Context) error {
	for {
		w := f.watermark()
		var (
			keys  []string
			least = f.due
			err   error
		)
		if w >= f.due {
			if keys, least, err = f.store.Due(ctx, f.partition, w, f.cfg.BatchRecords); err != nil {
				return err //nolint:wrapcheck // the store says what failed
			}
		}
		if len(keys) == 0 {
			f.due = least
			if f.applied.Step == 0 {
				return nil
			}
			return (&step{f: f, seq: f.seq}).write(ctx, state.Position{Offset: f.applied.Offset + 1})
		}
		if err := f.closeGroups(ctx, keys, w); err != nil {
			return err
		}
	}
}

func (f *folder) closeGroups(ctx context.Context, keys []string, w int64) error {
	var missing []string
	for _, key := range keys {
		if f.cache.get(key) == nil {
			missing = append(missing, key)
		}
	}
	if err := f.loadKeys(ctx, missing); err != nil {
		return err
	}
	s := &step{f: f, seq: f.seq}
	for _, key := range keys {
		g := f.cache.get(key)
		if g == nil {
			return fmt.Errorf("group %s of partition %d is due and does not exist: flush the store, the log rebuilds it", key, f.partition)
		}
		g.win.Advance(w)
		if !g.dirty {
			g.dirty = true
			s.dirty = append(s.dirty, g)
		}
	}
	return s.write(ctx, state.Position{Offset: f.applied.Offset, Step: f.applied.Step + 1})
}

// watermark is W of the partition: nothing is dropped before all levels allow
// it.
func (f *folder) watermark() int64 { return f.meta.marks.watermark(0, f.upstreams) }

// step is one call of the store in the making.
type step struct {
	f       *folder
	before  meta
	dirty   []*group
	entries []state.Entry
	seq     int64
	bytes   int
	records int
	drain   bool
}

// full says that the step must not take another record.
func (s *step) full() bool { return s.bytes > s.f.cfg.BatchBytes }

// try folds one record. A panic is turned into errRetry: a record must not
// take the others down with it.
func (s *step) try(ctx context.Context, it *item) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: offset %d: %v\n%s", errRetry, it.rec.Offset, r, debug.Stack())
		}
		var fault *faultError
		if err != nil && !errors.Is(err, errRetry) && !errors.As(err, &fault) {
			err = fmt.Errorf("%w: %w", errRetry, err)
		}
	}()
	if err := s.f.fault.at(PointFold, it.rec); err != nil {
		return err
	}
	s.records++
	switch {
	case it.bad != "":
		return s.bury(it)
	case it.det != nil:
		return s.detection(ctx, it)
	case it.mark != nil:
		u := upstream{it.mark.GetLevel(), it.mark.GetUpstreamPartition()}
		if s.f.meta.marks.raise(u, it.mark.GetNextOffset(), it.mark.GetWatermarkMs()) {
			s.drain = s.f.watermark() >= s.f.due
		}
	}
	return nil
}

// rollback leaves the folder where the store is.
func (s *step) rollback() {
	s.f.meta = s.before
	s.f.cache.clear()
}

// bury puts a record that can't be folded into the outbox, for `dlq`.
func (s *step) bury(it *item) error {
	s.f.counts.poison(stageCorrelate)
	if it.rec.Offset < s.f.silent {
		return nil
	}
	value, headers, err := deadLetter(it.rec, TopicDetections, stageCorrelate, it.bad, max(s.f.attempts[it.rec.Offset], 1))
	if err != nil {
		return fmt.Errorf("dead letter of offset %d: %w", it.rec.Offset, err)
	}
	s.say(it.rec.Offset, &message{kind: toDLQ, key: it.rec.Key, value: value, headers: headers})
	return nil
}

func (s *step) say(offset int64, m *message) {
	body := m.encode()
	s.seq++
	s.bytes += len(body)
	s.entries = append(s.entries, state.Entry{Seq: s.seq, Offset: offset, Body: body})
}

func (s *step) detection(ctx context.Context, it *item) error {
	d := it.det
	if d.GetUpstreamOffset() < s.f.meta.marks.next(upstream{0, d.GetUpstreamPartition()}) {
		s.f.counts.copied(1)
		return nil
	}
	g := s.f.cache.get(it.key)
	if g == nil {
		g = &group{key: it.key, spec: *it.cor.spec, due: state.Never, bytes: groupOverhead, name: identity(it.cor.spec, d)}
		g.win = window.New(&g.spec)
		s.f.cache.put(g)
		s.bytes += groupOverhead / 4
	}
	s.f.meta.lookBack = max(s.f.meta.lookBack, s.f.cfg.lookBack(&g.spec))
	if !g.dirty {
		g.dirty = true
		s.dirty = append(s.dirty, g)
	}
	s.bytes += len(it.rec.Value) + recordOverhead
	s.f.cache.grew(g, len(it.rec.Value)+recordOverhead)
	r := window.Record{
		EventID: d.GetEventId(), Time: d.GetTimeMs(), Ingest: d.GetIngestMs(), Rules: it.cor.mask(d.GetRuleIds()),
		Keep: append([]byte(nil), it.rec.Value...),
	}
	if len(it.cor.Field) > 0 {
		r.Value, r.HasValue = tuple(d.GetValues()), len(d.GetValues()) > 0
	}
	for _, firing := range g.win.Add(r) {
		if it.rec.Offset < s.f.silent {
			continue
		}
		if err := s.fire(ctx, it, &firing, g); err != nil {
			return err
		}
	}
	s.f.due = min(s.f.due, g.win.Next())
	return nil
}

// recordOverhead is about what a record takes beside its bytes.
const recordOverhead = 200

// mask has the bits of the referred rules that matched.
func (c *correlation) mask(rules []string) (bits uint64) {
	for _, id := range rules {
		bits |= c.bits[id]
	}
	return bits
}

// fire says that a bucket has fired, as a child of the record that made it so.
func (s *step) fire(ctx context.Context, it *item, firing *window.Firing, g *group) error {
	ctx, span := s.f.tracer.Start(telemetry.Extract(ctx, it.rec.Headers), "correlate fire",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attribute.String("stormbell.correlation_id", it.cor.ID), attribute.Int("stormbell.count", firing.Count)))
	defer span.End()
	d := it.det
	a := alert.New(s.finding(it, firing, span.SpanContext()))
	value, err := marshal(a)
	if err != nil {
		return fmt.Errorf("alert of offset %d: %w", it.rec.Offset, err)
	}
	headers := telemetry.Inject(ctx, newHeaders(schemaAlert, d.GetTenant()))
	s.say(it.rec.Offset, &message{kind: toAlerts, key: []byte(a.GetId()), value: value, headers: headers})
	s.f.counts.fired(1)
	return nil
}

func (s *step) finding(it *item, firing *window.Firing, sc trace.SpanContext) *alert.Finding {
	d, c := it.det, it.cor
	finding := &alert.Finding{
		ID:     alert.CorrelationID(d.GetTenant(), c.ID, c.Revision, d.GetGroup(), firing.Bucket),
		Tenant: d.GetTenant(), Rule: c.rule, TimeMS: firing.Time, IngestMS: d.GetIngestMs(),
		StartMS: firing.Start, EndMS: firing.End, Count: firing.Count, Total: firing.Total, AtLeast: firing.AtLeast,
		BaseURL: s.f.cfg.BaseURL,
	}
	if sc.HasTraceID() {
		finding.TraceID = sc.TraceID().String()
	}
	for i, v := range d.GetGroup() {
		if i < len(c.GroupBy) {
			finding.Group = append(finding.Group, &alertv1.GroupValue{Field: c.GroupBy[i], Value: v})
		}
	}
	for _, ref := range firing.Events {
		e := alert.Contribution{ID: ref.ID, TimeMS: ref.Time, RuleID: c.firstRule(ref.Rules)}
		var kept detectionv1.Detection
		if len(ref.Keep) > 0 && proto.Unmarshal(ref.Keep, &kept) == nil {
			e.Entities, e.Source, e.Raw = kept.GetEntities(), kept.GetSource(), kept.GetRaw()
		}
		finding.Events = append(finding.Events, e)
	}
	return finding
}

// firstRule is the first of the referred rules, in listed order, that matched.
func (c *correlation) firstRule(bits uint64) string {
	for i, id := range c.Rules {
		if bits&(1<<i) != 0 {
			return id
		}
	}
	return ""
}

// write commits the step. After an error the folder is of no use.
func (s *step) write(ctx context.Context, next state.Position) error {
	f := s.f
	if err := f.fault.at(PointFolded, nil); err != nil {
		return err
	}
	b := &state.Batch{Token: f.token, Prev: f.applied, Next: next, Meta: f.meta.encode(), Outbox: s.entries}
	b.Changes = make([]state.Change, 0, len(s.dirty))
	var scratch []window.Change
	for _, g := range s.dirty {
		scratch = g.win.Changes(scratch[:0])
		b.Changes = append(b.Changes, g.change(scratch))
	}
	if err := f.store.Commit(ctx, f.partition, b); err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	f.applied, f.seq = next, s.seq
	for i, g := range s.dirty {
		g.dirty = false
		g.stored, g.name = true, nil
		if b.Changes[i].Drop {
			f.cache.remove(g)
		} else if !b.Changes[i].SameDue {
			g.due = b.Changes[i].Due
		}
	}
	f.cache.shrink()
	return f.fault.at(PointApplied, nil)
}

// change says what the store must change of a group. Its identity comes with
// its first record, and is written before anything else.
func (g *group) change(parts []window.Change) state.Change {
	if g.win.Empty() {
		return state.Change{Key: g.key, Drop: true}
	}
	c := state.Change{Key: g.key, Due: g.win.Next(), Fields: make([]state.Field, 0, len(parts)+1)}
	c.SameDue = g.stored && c.Due == g.due
	if !g.stored {
		c.Fields = append(c.Fields, state.Field{Name: identityField, Value: g.name})
	}
	for _, p := range parts {
		c.Fields = append(c.Fields, state.Field{Name: p.Field, Value: p.Value})
	}
	return c
}

// backoff is how long to wait after n failures in a row.
func backoff(n int) time.Duration {
	return min(5*time.Second, 50*time.Millisecond<<min(n, 10))
}
