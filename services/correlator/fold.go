package correlator

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
)

// folder folds one partition of `detections` for one owner, from its
// acquisition to its first refused write. What it holds is a copy of what the
// store has at applied; after any error of the store it is thrown away.
//
// It reads no clock: given the same records it makes the same calls.
type folder struct {
	cfg       Config
	store     Store
	local     *local // in its place, where there is one
	plans     planner
	tracer    trace.Tracer
	counts    *counts
	fault     Fault
	partition int32
	upstreams int   // partitions of `events`
	siblings  int   // partitions of `detections`
	groups    int64 // that a tenant's correlation may have in this partition
	token     string
	// silent is the frontier at the start: what lies below it has been said
	// before, and is folded without a word.
	silent int64

	// applied is the position of the last call that was made of the store, or is
	// under way; see flight.
	applied state.Position
	flight  *flight
	meta    meta
	seq     int64
	first   int64                     // in the outbox, when this owner began
	due     [state.MaxLevel + 1]int64 // lower bounds of the due index, by level
	cache   *cache
	common  *names
	// named are the correlations of tallies, for displays: those of which this
	// owner has seen a new group.
	named   map[string]tenantRule
	tallies map[string]*tally // by their keys in the store
	full    *fullest
	// long is the snapshot that is being written, where one takes several calls.
	long *longSnapshot
	// attempts counts how often the fold of a record has failed.
	attempts map[int64]int
	// skipped are records that `dlq` has: they are skipped again, silently.
	skipped map[int64]bool
	// blamed is the record that ends processes and is passed over, tries how
	// often it did; 0 where there is none.
	blamed int64
	tries  int
	gate   *gate
	alone  bool // nothing else happens in the process
	limit  int  // bytes of one call of the store

	entities alert.EntityReader // scratch
}

// passes reports whether a record is passed over unread.
func (f *folder) passes(offset int64) bool {
	return f.tries > 0 && offset == f.blamed || f.skipped[offset]
}

// planner resolves what a record is to be folded with: exactly the rules whose
// manifests it carries.
type planner interface {
	Get(ctx context.Context, all, tenant []byte) (*plan, error)
}

// open makes the folder the partition's owner.
func (f *folder) open(ctx context.Context) error {
	part := state.Partition{Applied: state.Nowhere, Due: state.Never}
	if f.local == nil {
		var err error
		if part, err = f.store.Acquire(ctx, f.partition, f.token); err != nil {
			return err //nolint:wrapcheck // the store says what failed
		}
	}
	f.limit = state.MaxBatchBytes
	f.applied, f.seq, f.first = part.Applied, part.Seq, part.First
	for level := range f.due {
		f.due[level] = unseen // not known
	}
	f.due[0] = part.Due
	f.named, f.full = make(map[string]tenantRule), newFullest()
	f.common = newNames()
	f.cache, f.attempts, f.tallies = newCache(f.cfg.CacheBytes), make(map[int64]int), make(map[string]*tally)
	var err error
	f.meta, err = decodeMeta(part.Meta)
	return err
}

// tenantRule is a tenant's rule.
type tenantRule struct{ tenant, rule string }

// item is a record of `detections`, decoded.
type item struct {
	rec    *Record
	schema string
	det    *detectionv1.Detection
	mark   *detectionv1.Watermark
	ruling *detectionv1.Ruling
	key    string // of the group
	tally  string // of its correlation; see tallyKey
	cor    *correlation
	bad    string    // why it can't be folded
	level  uint32    // of a signal's chain; 0: of a detection
	alert  string    // to which a signal's event belongs
	skip   bool      // as before
	large  bool      // its effect does not fit into a call of the store
	hit    *detected // what it is, or was made of, where there is no store
}

// errRetry says that a fold failed on a record and that nothing was written;
// the same records are to be folded again.
var errRetry = errors.New("fold failed on a record")

// fold folds the first records of a fetch, writes the result in one call, and
// returns how many it took and what the outbox has got. Records lie behind
// applied, in order.
func (f *folder) fold(ctx context.Context, records []Record) (n int, entries []state.Entry, err error) {
	n, w, err := f.compute(ctx, records)
	if err != nil {
		return 0, nil, err
	}
	if err := f.launch(ctx, w, nil); err != nil {
		return 0, nil, err
	}
	if err := f.land(); err != nil {
		return 0, nil, err
	}
	return n, w.batch.Outbox, nil
}

// compute folds the first records of a fetch and returns what is to be written for
// them. The call before may still be under way: where this needs the store, or
// fails, it waits for that.
//
// What is not written as it comes is bounded by the size of the records. Where it
// is too large all the same, fewer are taken; and a record that by itself is goes
// to `dlq`: no repetition makes it smaller.
func (f *folder) compute(ctx context.Context, records []Record) (n int, w *write, err error) {
	items, err := f.decode(ctx, records)
	if err != nil {
		return 0, nil, err
	}
	if !f.alone {
		defer f.gate.share()()
	}
	for {
		n, w, err = f.computeSome(ctx, items)
		if !errors.Is(err, state.ErrTooLarge) {
			return n, w, err
		}
		if n > 1 {
			items = items[:n/2]
			continue
		}
		it := &items[0]
		if it.large { // it is not the record
			return 0, nil, err
		}
		it.bad, it.large = "what it changes does not fit into one write: "+err.Error(), true
	}
}

// computeSome is compute. Where its call is too large it says how many records are
// in it, and leaves the folder where the store is.
func (f *folder) computeSome(ctx context.Context, items []item) (n int, w *write, err error) {
	if err := f.load(ctx, items); err != nil {
		return 0, nil, err
	}
	step := &step{f: f, before: f.meta.clone(), seq: f.seq}
	for n < len(items) && !step.full() {
		if err := step.try(ctx, &items[n]); err != nil {
			if lost := f.land(); lost != nil {
				return 0, nil, lost
			}
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
		// The record's own effects are in; what a watermark closes, and what is
		// left of many signals, follows in bounded calls at the same offset.
		next = state.Position{Offset: last, Step: 1}
	}
	b := step.batch(next)
	if err := b.Fits(f.limit); err != nil {
		if lost := f.land(); lost != nil {
			return 0, nil, lost
		}
		step.rollback()
		return n, nil, fmt.Errorf("records from offset %d on: %w", items[0].rec.Offset, err)
	}
	return n, step.finish(b), nil
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
		if f.skipped[it.rec.Offset] {
			it.skip = true
		} else if f.passes(it.rec.Offset) {
			it.bad = reasonEnded
		} else if f.attempts[it.rec.Offset] >= f.cfg.Attempts {
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
	case schemaDetection, schemaSignal:
		if it.schema == schemaSignal {
			it.readSignal()
		} else {
			it.det = new(detectionv1.Detection)
			if err := proto.Unmarshal(it.rec.Value, it.det); err != nil {
				it.bad = "malformed detection: " + err.Error()
			}
		}
		if it.bad != "" {
			return nil
		}
		return f.resolve(ctx, it)
	case schemaWatermark:
		it.mark = new(detectionv1.Watermark)
		if err := proto.Unmarshal(it.rec.Value, it.mark); err != nil {
			it.bad = "malformed watermark: " + err.Error()
		} else if p := it.mark.GetUpstreamPartition(); it.mark.GetLevel() > maxLevel || p < 0 || p >= maxUpstream {
			it.bad = fmt.Sprintf("watermark of level %d and partition %d", it.mark.GetLevel(), p)
		}
	case schemaRuling:
		it.ruling = new(detectionv1.Ruling)
		if err := proto.Unmarshal(it.rec.Value, it.ruling); err != nil {
			it.bad = "malformed ruling: " + err.Error()
		} else if p := it.ruling.GetUpstreamPartition(); p < 0 || p >= maxUpstream ||
			max(len(it.ruling.GetManifest()), len(it.ruling.GetPrevious())) > maxManifest {
			it.bad = fmt.Sprintf("ruling of partition %d and a manifest of %d bytes", p, len(it.ruling.GetManifest()))
		}
	default:
		it.bad = fmt.Sprintf("unknown schema %q", it.schema)
	}
	return nil
}

// resolve finds the correlation and the group of a detection.
func (f *folder) resolve(ctx context.Context, it *item) error {
	p, err := f.plans.Get(ctx, it.det.GetManifestAll(), it.det.GetManifestTenant())
	if err != nil {
		return fmt.Errorf("rules of offset %d: %w", it.rec.Offset, err)
	}
	c, ok := p.correlations[it.det.GetCorrelationId()]
	if !ok || c.Revision != it.det.GetCorrelationRevision() {
		it.bad = "its manifests hold no correlation " + it.det.GetCorrelationId() + " of revision " + it.det.GetCorrelationRevision()
		return nil
	}
	if it.level > 0 && !slices.Contains(c.Rules, it.det.GetRuleIds()[0]) {
		it.bad = "correlation " + c.ID + " does not refer to " + it.det.GetRuleIds()[0]
		return nil
	}
	if it.cor = c; f.local == nil {
		it.key = stateKey(it.det, c.Shadow)
	}
	return nil
}

// load brings the groups of a batch into the cache, and how many each of their
// correlations has, where one may be new.
func (f *folder) load(ctx context.Context, items []item) error {
	var groups, tallies []string
	asked := make(map[string]bool)
	for i := range items {
		it := &items[i]
		if it.key == "" || asked[it.key] {
			continue
		}
		if g := f.cache.use(it.key); g != nil {
			if f.tallies[g.tally] == nil && !asked[g.tally] && g.win.Crowded(len(items)) { // of which something may be said
				asked[g.tally] = true
				tallies = append(tallies, g.tally)
			}
			continue
		}
		asked[it.key] = true
		groups = append(groups, it.key)
		if tally := f.tallyKey(it); f.tallies[tally] == nil && !asked[tally] {
			asked[tally] = true
			tallies = append(tallies, tally)
		}
	}
	return f.loadKeys(ctx, groups, tallies)
}

func (f *folder) loadKeys(ctx context.Context, groups, tallies []string) error {
	if len(groups)+len(tallies) == 0 {
		return nil
	}
	for _, key := range tallies {
		f.tallies[key] = newTally(key)
	}
	if err := f.land(); err != nil { // it may be of the same groups
		return err
	}
	if f.applied == state.Nowhere {
		return nil
	}
	got, err := f.store.Load(ctx, f.partition, slices.Concat(groups, tallies))
	if err != nil {
		return err //nolint:wrapcheck // the store says what failed
	}
	for i, key := range groups {
		g, ok, err := f.common.openGroup(key, got[i])
		if err != nil {
			return fmt.Errorf("group %s of partition %d: %w", key, f.partition, err)
		}
		if ok {
			g.snap.every = f.cfg.snapshotEvery(g.spec)
			f.cache.put(g)
		}
	}
	for i, key := range tallies {
		if err := f.tallies[key].decode(got[len(groups)+i]); err != nil {
			return fmt.Errorf("tally %s of partition %d: %w", key, f.partition, err)
		}
	}
	return nil
}

// watermark is W of the partition: the least of all levels that are in use.
func (f *folder) watermark() int64 { return f.watermarkOf(f.meta.levels) }

// closes reports whether the watermarks may let something be closed.
func (f *folder) closes() bool {
	for level, due := range f.due {
		if w := f.watermarkOf(uint32(level)); w != unseen && w >= due {
			return true
		}
	}
	return false
}

// step is one call of the store in the making.
type step struct {
	f       *folder
	before  meta
	dirty   []*group
	tallies []*tally // that have changed
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
		if err == nil || errors.Is(err, errRetry) {
			return
		}
		if _, ok := errors.AsType[*faultError](err); !ok {
			err = fmt.Errorf("%w: %w", errRetry, err)
		}
	}()
	s.records++
	if it.skip {
		return nil
	}
	if it.bad != "" {
		return s.bury(it)
	}
	if err := s.f.fault.at(PointFold, it.rec); err != nil {
		return err
	}
	switch {
	case it.det != nil:
		return s.detection(ctx, it)
	case it.hit != nil:
		return s.hit(ctx, it)
	case it.mark != nil:
		u := upstream{it.mark.GetLevel(), it.mark.GetUpstreamPartition()}
		s.forgetRulings(s.f.watermark())
		s.f.meta.levels = max(s.f.meta.levels, min(it.mark.GetLevels(), maxLevel))
		if s.f.meta.marks.raise(u, it.mark.GetNextOffset(), it.mark.GetWatermarkMs()) {
			s.drain = s.f.closes()
		}
	case it.ruling != nil:
		s.ruling(it.ruling)
	}
	return nil
}

// rollback leaves the folder where the store is.
func (s *step) rollback() {
	s.f.meta = s.before
	s.f.cache.clear()
	clear(s.f.tallies)
}

// bury puts a record that can't be folded into the outbox, for `dlq`.
func (s *step) bury(it *item) error {
	s.f.counts.poison(stageCorrelate)
	s.f.counts.board.Tenant(header(it.rec.Headers, event.HeaderTenant)).Dead.Add(1, s.f.counts.now())
	attempts := max(s.f.attempts[it.rec.Offset], 1)
	if s.f.passes(it.rec.Offset) {
		// It may have been folded before: what is passed over is said all the same,
		// so that the next rebuild knows. So is what is too large.
		attempts = s.f.tries
	} else if it.rec.Offset < s.f.silent && !it.large {
		return nil
	}
	dead, err := bus.DeadLetter(it.rec, stageCorrelate, it.bad, attempts)
	if err != nil {
		return err //nolint:wrapcheck // it names the record
	}
	s.say(it.rec.Offset, &message{kind: toDLQ, key: dead.Key, value: dead.Value, headers: dead.Headers})
	return nil
}

func (s *step) say(offset int64, m *message) {
	if l := s.f.local; l != nil {
		l.said = append(l.said, said{offset: offset, msg: m})
		return
	}
	body := m.encode()
	s.seq++
	s.bytes += len(body)
	s.entries = append(s.entries, state.Entry{Seq: s.seq, Offset: offset, Body: body})
}

// change says what the store must change of a group. Its identity comes with
// its first record, and is written before anything else.
func (g *group) change(parts []window.Change) state.Change {
	if g.win.Empty() {
		return state.Change{Key: g.key, Drop: true}
	}
	c := state.Change{Key: g.key, Level: g.spec.Level, Due: g.next(), Fields: make([]state.Field, 0, len(parts)+1)}
	c.SameDue = g.stored && c.Due == g.due
	if !g.stored {
		c.Fields = append(c.Fields, state.Field{Name: identityField, Value: g.name})
	}
	if g.snap.stale {
		g.snap.stale = false
		c.Fields = append(c.Fields, state.Field{Name: snapshotField, Value: g.snap.encode()})
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
