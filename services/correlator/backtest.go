package correlator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/geo"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/sigma"
)

// Backtest asks what rules make of the events in the log, by the code of both
// stages on a memory of its own.
type Backtest struct {
	// Tenant whose events they are.
	Tenant string
	// From and To bound the ingest times of the events that alerts are for; To
	// is out.
	From, To time.Time
	// Rules are put to the events; nil puts to each those that it was stamped
	// with, and gives the alerts that there have been.
	Rules *sigma.Set
	// Updates tells too what alerts came to at the close of their buckets.
	Updates bool
}

// BacktestDeps are what a backtest works with.
type BacktestDeps struct {
	Reader     Reader
	Partitions int // of `events`
	Control    ruleset.Control
	Rules      sigma.Options
}

// BacktestResult is what a backtest has found, beside the alerts.
type BacktestResult struct {
	// Events in the time, and those of them that could not be processed.
	Events, Failed int64
	Alerts         int64
	Rules          []BacktestRule // by id
	// Since is the ingest time of the first event there is, where the log no longer
	// holds some that would have been read: alerts soon after it may lack events.
	// Zero: nothing was missing.
	Since time.Time
}

// BacktestRule is what a backtest says of a rule that matched.
type BacktestRule struct {
	ID, Title string
	// Hits are events in the time that a detection rule matched. Shadowed are
	// alerts of a rule in the shadow, at any time that was read.
	Hits, Alerts, Shadowed int64
}

// replay is a backtest as it runs.
type replay struct {
	cfg      Config
	deps     BacktestDeps
	of       Backtest
	plans    planner
	counts   *counts
	places   *geo.Locator
	parts    []*replayed
	folder   *folder
	next     int64 // offset of the next record to fold
	from, to int64

	alert    func(*alertv1.Alert) error
	progress func(done, total int64) error
	signals  []bus.Message // heard, and not yet folded
	told     signals
	done     int64
	total    int64
	result   BacktestResult
	rules    map[string]*BacktestRule
	said     map[string]bool
}

// replayed is one partition of `events`.
type replayed struct {
	m     *matching
	at    int64
	end   int64
	ahead []bus.Record
}

// maxReplayedAlerts bounds the alerts of one backtest.
const maxReplayedAlerts = 1_000_000

// replayChunk is how many events of a partition are taken in turn.
const replayChunk = 500

// Run reads the log from as far before From as the rules look back, up to where
// the last window is decided that an event before To is in, and calls alert for
// each alert once, in the order in which they are found.
func (b Backtest) Run(ctx context.Context, cfg Config, deps BacktestDeps, alert func(*alertv1.Alert) error, progress func(done, total int64) error) (*BacktestResult, error) {
	r := &replay{
		cfg: cfg, deps: deps, of: b, from: b.From.UnixMilli(), to: b.To.UnixMilli(), alert: alert, progress: progress,
		rules: make(map[string]*BacktestRule), said: make(map[string]bool),
	}
	if r.from >= r.to {
		return nil, errors.New("backtest: its end must be after its begin")
	}
	var err error
	if r.places, err = geo.Open(cfg.GeoFile); err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	if r.counts, err = newCounts(metricnoop.Meter{}, func() time.Time { return time.Time{} }); err != nil {
		return nil, err
	}
	if b.Rules != nil {
		r.plans = onePlan{cfg.newPlan(b.Rules)}
	} else {
		opts := ruleset.Options{Limit: cfg.RuleSets, Options: deps.Rules}
		r.plans = ruleset.NewCache(deps.Control, opts, slog.New(slog.DiscardHandler), cfg.newPlan)
	}
	return r.run(ctx)
}

func (r *replay) run(ctx context.Context) (*BacktestResult, error) {
	before, after, err := r.reach(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx, r.from-before); err != nil {
		return nil, err
	}
	for _, limit := range []int64{r.from, r.to, r.to + after} {
		if err := r.upTo(ctx, limit); err != nil {
			return nil, err
		}
	}
	if err := r.passed(ctx); err != nil {
		return nil, err
	}
	return r.summary(), r.progress(r.total, r.total)
}

// reach is how far before and behind its time a backtest has to read. The rules
// that events were stamped with are known once these have been read.
func (r *replay) reach(ctx context.Context) (before, after int64, err error) {
	see := func(p *plan) {
		for _, c := range p.correlations {
			back := c.memory // it has no snapshots
			// What others are told of an event may be told by a later one.
			if before = max(before, back); !c.spec.AtOnce() || c.spec.Updates || len(c.Parents) > 0 {
				after = max(after, back)
			}
		}
	}
	slack := 2 * r.cfg.Slack.Milliseconds()
	if r.of.Rules != nil {
		p, err := r.plans.Get(ctx, nil, nil)
		if err == nil {
			see(p)
		}
		return before + slack, after + slack, err
	}
	if err := r.open(ctx, r.from); err != nil {
		return 0, 0, err
	}
	r.total *= 2
	seen := make(map[[2]string]bool)
	for _, part := range r.parts {
		for {
			rec, err := r.peek(ctx, part)
			if err != nil || rec == nil {
				if err != nil {
					return 0, 0, err
				}
				break
			}
			e, ingest := r.decode(rec)
			if ingest >= r.to+slack {
				break
			}
			part.take()
			if e == nil {
				continue
			}
			pair := [2]string{string(e.ManifestAll), string(e.ManifestTenant)}
			if seen[pair] {
				continue
			}
			seen[pair] = true
			p, err := r.plans.Get(ctx, e.ManifestAll, e.ManifestTenant)
			if err != nil {
				return 0, 0, fmt.Errorf("rules of an event at offset %d of partition %d: %w", rec.Offset, part.m.partition, err)
			}
			see(p)
		}
	}
	return before + slack, after + slack, nil
}

// open begins at the first event that was written at a time, on an empty store.
func (r *replay) open(ctx context.Context, at int64) error {
	cfg := r.cfg
	cfg.BatchRecords, cfg.BatchBytes = maxBatchRecords, maxBatchBytes
	d := &detector{cfg: cfg, plans: r.plans, tracer: tracenoop.Tracer{}, counts: r.counts, places: r.places, log: slog.New(slog.DiscardHandler)}
	r.parts, r.done, r.total = make([]*replayed, r.deps.Partitions), 0, 0
	for p := range r.parts {
		first, end, err := r.deps.Reader.Offsets(ctx, TopicEvents, p)
		if err != nil {
			return err //nolint:wrapcheck // the bus says what failed
		}
		// An event is written after its ingest; clocks differ.
		offset, err := r.deps.Reader.OffsetAtTime(ctx, TopicEvents, p, time.UnixMilli(at).Add(-r.cfg.Slack))
		if err != nil {
			return err //nolint:wrapcheck // the bus says what failed
		}
		m := &matching{d: d, partition: p, ingest: unseen, alone: true} // there is no gate
		m.reset()
		r.parts[p] = &replayed{m: m, at: max(first, min(offset, end)), end: end}
		if first > 0 && r.parts[p].at == first {
			if err := r.lacks(ctx, r.parts[p], at); err != nil {
				return err
			}
		}
		r.total += end - r.parts[p].at
	}
	r.next, r.signals, r.told = 0, nil, signals{}
	r.folder = &folder{
		cfg: cfg, store: state.NewMemory(), plans: r.plans, tracer: d.tracer, counts: r.counts,
		upstreams: len(r.parts), siblings: 1, groups: max(1, cfg.Groups), token: "backtest",
	}
	return r.folder.open(ctx)
}

// lacks notes where a partition begins that has lost events which would have been
// read from a time on.
func (r *replay) lacks(ctx context.Context, part *replayed, from int64) error {
	rec, err := r.peek(ctx, part)
	if err != nil || rec == nil {
		return err
	}
	if _, ingest := r.decode(rec); ingest >= from && ingest > r.result.Since.UnixMilli() {
		r.result.Since = time.UnixMilli(ingest)
	}
	return nil
}

// peek returns the next record of a partition, nil at what was its end.
func (r *replay) peek(ctx context.Context, part *replayed) (*bus.Record, error) {
	for len(part.ahead) == 0 {
		if part.at >= part.end {
			return nil, nil //nolint:nilnil // there is none
		}
		records, _, err := r.deps.Reader.Fetch(ctx, TopicEvents, part.m.partition, part.at)
		if gap, ok := errors.AsType[*bus.OutOfRangeError](err); ok && gap.First > part.at {
			part.at = gap.First // removed while it was read
			continue
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // the bus says what failed
		}
		if len(records) == 0 {
			part.at = part.end
			return nil, nil //nolint:nilnil // nothing is left
		}
		part.ahead = records
		if err := r.progress(min(r.done, r.total), r.total); err != nil {
			return nil, err
		}
	}
	if part.ahead[0].Offset >= part.end {
		return nil, nil //nolint:nilnil // it came after the backtest had begun
	}
	return &part.ahead[0], nil
}

func (part *replayed) take() {
	part.at = part.ahead[0].Offset + 1
	part.ahead = part.ahead[1:]
}

// decode reads the ingest time of a record, and the event if it is the tenant's.
// What cannot be read has none.
func (r *replay) decode(rec *bus.Record) (e *event.Event, ingest int64) {
	switch header(rec.Headers, event.HeaderSchema) {
	case event.SchemaTick:
		if ingest, err := event.DecodeTick(rec.Value); err == nil {
			return nil, ingest
		}
	case event.SchemaEvent:
		if e, err := event.Decode(rec.Value); err == nil {
			if e.Tenant != r.of.Tenant {
				return nil, e.IngestMS
			}
			return &e, e.IngestMS
		}
	}
	return nil, unseen
}

// upTo takes all events, of all partitions in turn, up to the first of each
// that has this ingest time or a later one.
func (r *replay) upTo(ctx context.Context, limit int64) error {
	for moved := true; moved; {
		moved = false
		for _, part := range r.parts {
			w := &work{ingest: part.m.ingest}
			n := 0
			for ; n < replayChunk; n++ {
				rec, err := r.peek(ctx, part)
				if err != nil {
					return err
				}
				if rec == nil {
					break
				}
				e, ingest := r.decode(rec)
				if ingest >= limit {
					break
				}
				if err := r.event(ctx, part.m, rec, e, ingest, w); err != nil {
					return err
				}
				part.take()
			}
			if n == 0 {
				continue
			}
			moved = true
			r.done += int64(n)
			w.next, part.m.ingest = part.at, w.ingest
			if err := r.took(ctx, part, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// passed lets the first event of each partition that is not taken any more tell
// how far time has gone there: long, where events are far apart.
func (r *replay) passed(ctx context.Context) error {
	for _, part := range r.parts {
		rec, err := r.peek(ctx, part)
		if err != nil {
			return err
		}
		if rec == nil {
			continue
		}
		_, ingest := r.decode(rec)
		if err := r.took(ctx, part, &work{ingest: max(part.m.ingest, ingest), next: part.at}); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) event(ctx context.Context, m *matching, rec *bus.Record, e *event.Event, ingest int64, w *work) error {
	if e == nil {
		w.ingest = max(w.ingest, ingest)
		return nil
	}
	m.hits = m.hits[:0]
	m.rules.plan = nil
	if err := m.event(ctx, rec, e, w); err != nil {
		return err
	}
	if ingest < r.from || ingest >= r.to {
		return nil
	}
	r.result.Events++
	for _, rule := range m.hits {
		r.rule(rule.ID, rule.Title).Hits++
	}
	return nil
}

func (r *replay) rule(id, title string) *BacktestRule {
	if r.rules[id] == nil {
		r.rules[id] = &BacktestRule{ID: id}
	}
	r.rules[id].Title = cmp.Or(title, r.rules[id].Title)
	return r.rules[id]
}

// took folds what events of a partition became, and lets its watermark decide,
// as stage detect would have told it.
func (r *replay) took(ctx context.Context, part *replayed, w *work) error {
	r.result.Failed += int64(len(w.dead))
	for _, msg := range w.alerts {
		if err := r.say(msg.Value); err != nil {
			return err
		}
	}
	records := make([]Record, 0, len(w.detections)+len(w.rulings)+1)
	add := func(msg bus.Message) {
		records = append(records, Record{Topic: TopicDetections, Offset: r.next, Key: msg.Key, Value: msg.Value, Headers: msg.Headers})
		r.next++
	}
	for _, msg := range w.detections {
		add(msg)
	}
	if r.of.Rules == nil {
		for _, ruling := range w.rulings {
			value, err := marshal(ruling)
			if err != nil {
				return fmt.Errorf("encode ruling: %w", err)
			}
			add(bus.Message{Value: value, Headers: newHeaders(schemaRuling, ruling.GetTenant())})
		}
	}
	if w.ingest != unseen {
		value, err := marshal(&detectionv1.Watermark{
			UpstreamPartition: int32(part.m.partition), NextOffset: w.next, WatermarkMs: w.ingest - r.cfg.Slack.Milliseconds(),
		})
		if err != nil {
			return fmt.Errorf("encode watermark: %w", err)
		}
		add(bus.Message{Value: value, Headers: newHeaders(schemaWatermark, "")})
	}
	if err := r.fold(ctx, records); err != nil {
		return err
	}
	return r.chains(ctx)
}

// chains folds what correlations have signaled to others, and how far that goes,
// as partitions would have told each other.
func (r *replay) chains(ctx context.Context) error {
	for {
		var records []Record
		add := func(msg bus.Message) {
			records = append(records, Record{Topic: TopicDetections, Offset: r.next, Key: msg.Key, Value: msg.Value, Headers: msg.Headers})
			r.next++
		}
		next, now := r.next, r.folder.signals()
		for _, msg := range r.signals {
			add(msg)
		}
		r.signals = nil
		for level, w := range now {
			if w == 0 || w <= r.told[level] {
				continue
			}
			value, err := marshal(&detectionv1.Watermark{Level: uint32(level), NextOffset: next, WatermarkMs: w})
			if err != nil {
				return fmt.Errorf("encode watermark: %w", err)
			}
			add(bus.Message{Value: value, Headers: newHeaders(schemaWatermark, "")})
		}
		r.told = now
		if len(records) == 0 {
			return nil
		}
		if err := r.fold(ctx, records); err != nil {
			return err
		}
	}
}

func (r *replay) fold(ctx context.Context, records []Record) error {
	f := r.folder
	for len(records) > 0 {
		n, entries, err := f.fold(ctx, records)
		if errors.Is(err, errRetry) {
			continue // it is put aside after some attempts
		}
		if err != nil {
			return err
		}
		records = records[n:]
		if err := r.heard(entries); err != nil {
			return err
		}
		if f.applied.Step > 0 {
			if err := f.drainDue(ctx, r.heard); err != nil {
				return err
			}
		}
		// What is said is said: nobody reads the outbox.
		if err := f.store.Trim(ctx, f.partition, f.token, f.seq); err != nil {
			return err //nolint:wrapcheck // the store says what failed
		}
	}
	return nil
}

func (r *replay) heard(entries []state.Entry) error {
	for _, entry := range entries {
		msg, ok := decodeMessage(entry.Body)
		switch {
		case !ok:
			return errors.New("outbox entry is damaged")
		case msg.kind == toDLQ:
			r.result.Failed++
		case msg.kind == toDetections:
			r.signals = append(r.signals, bus.Message{Key: msg.key, Value: msg.value, Headers: msg.headers})
		case msg.kind == toAlerts:
			if err := r.say(msg.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// say tells an alert that is for an event in the time, once.
func (r *replay) say(value []byte) error {
	a := new(alertv1.Alert)
	if err := proto.Unmarshal(value, a); err != nil {
		return fmt.Errorf("decode alert: %w", err)
	}
	updated := alert.TypeOf(a) == alert.TypeUpdated
	name := a.GetId() + a.GetType()
	if a.GetIngestMs() < r.from || a.GetIngestMs() >= r.to || r.said[name] || updated && !r.of.Updates {
		return nil
	}
	if len(r.said) >= maxReplayedAlerts {
		return fmt.Errorf("backtest: more than %d alerts: choose a shorter time, or fewer rules", maxReplayedAlerts)
	}
	if r.said[name] = true; updated {
		return r.alert(a)
	}
	r.result.Alerts++
	r.rule(a.GetRule().GetId(), a.GetRule().GetTitle()).Alerts++
	return r.alert(a)
}

func (r *replay) summary() *BacktestResult {
	board := r.counts.board.Tenant(r.of.Tenant)
	for id, rule := range r.rules {
		rule.Shadowed = board.Rule(id).Shadowed.Value()
		r.result.Rules = append(r.result.Rules, *rule)
	}
	slices.SortFunc(r.result.Rules, func(a, b BacktestRule) int { return cmp.Compare(a.ID, b.ID) })
	return &r.result
}
