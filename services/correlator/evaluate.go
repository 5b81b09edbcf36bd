package correlator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/correlator/geo"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/sigma"
)

// Evaluation is both stages over events in memory, without a log: the same
// code that runs behind it, on the rules of one set, for events that have one
// ingest time, of which none is late or early. The watermark stays at −∞ until
// Close, and then passes all of them.
type Evaluation struct {
	detector *detector
	folder   *folder
	next     int64 // offset of the next detection
}

// NewEvaluation returns an evaluation of rules on no events yet.
func NewEvaluation(ctx context.Context, cfg Config, set *sigma.Set) (*Evaluation, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	places, err := geo.Open(cfg.GeoFile)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	counts, err := newCounts(metricnoop.Meter{}, func() time.Time { return time.Time{} })
	if err != nil {
		return nil, err
	}
	// Everything is in one partition, which so has the groups of all of them.
	cfg.BatchRecords, cfg.BatchBytes = maxBatchRecords, maxBatchBytes
	rules, tracer := onePlan{cfg.newPlan(set)}, tracenoop.Tracer{}
	for _, c := range rules.correlations {
		c.spec.AnyAge = true
	}
	cfg.SnapshotOver = math.MaxInt64 // it has no log
	e := &Evaluation{
		detector: &detector{cfg: cfg, plans: rules, tracer: tracer, counts: counts, places: places, log: slog.New(slog.DiscardHandler)},
		folder: &folder{
			cfg: cfg, store: state.NewMemory(), plans: rules, tracer: tracer, counts: counts,
			upstreams: 1, siblings: 1, groups: math.MaxInt64, token: "evaluation",
		},
	}
	return e, e.folder.open(ctx)
}

// onePlan is a planner with one plan.
type onePlan struct{ *plan }

func (f onePlan) Get(context.Context, []byte, []byte) (*plan, error) { return f.plan, nil }

// Evaluator matches events. Each goroutine has its own.
type Evaluator struct{ matching *matching }

// Evaluator returns scratch space for matching.
func (e *Evaluation) Evaluator() *Evaluator {
	m := &matching{d: e.detector, ingest: unseen, alone: true} // there is no gate
	m.reset()
	return &Evaluator{m}
}

// Matched is what a list of events says by itself.
type Matched struct {
	w *work
	// Of the i-th event are the alerts, detections and dead letters from
	// ends[i−1] to ends[i].
	ends []extent
	// Hits counts the events that each detection rule matched, by the rule's
	// id, those too that only a correlation counts.
	Hits map[string]int

	rendered []func() error // instead of the alerts; nil: not rendered
}

// Render calls render for each alert that the events are by themselves, and
// keeps what it returns for Fold to call in place of its own function for alerts:
// render does what needs no order, and that the rest.
func (m *Matched) Render(render func(*alertv1.Alert) (func() error, error)) error {
	m.rendered = make([]func() error, 0, len(m.w.alerts))
	for _, msg := range m.w.alerts {
		err := say(msg.Value, func(a *alertv1.Alert) error {
			then, err := render(a)
			m.rendered = append(m.rendered, then)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tell calls alert for the i-th alert, or what was kept for it.
func (m *Matched) tell(i int, alert func(*alertv1.Alert) error) error {
	if m.rendered != nil {
		return m.rendered[i]()
	}
	return say(m.w.alerts[i].Value, alert)
}

type extent struct{ alerts, detections, dead int }

// Match matches events by themselves.
func (v *Evaluator) Match(ctx context.Context, events []event.Event) (*Matched, error) {
	out := &Matched{w: &work{ingest: unseen}, ends: make([]extent, len(events)), Hits: make(map[string]int)}
	for i := range events {
		v.matching.hits = v.matching.hits[:0]
		if err := v.matching.event(ctx, &bus.Record{Topic: TopicEvents}, &events[i], out.w); err != nil {
			return nil, err
		}
		for _, rule := range v.matching.hits {
			out.Hits[rule.ID]++
		}
		out.ends[i] = extent{len(out.w.alerts), len(out.w.detections), len(out.w.dead)}
	}
	return out, nil
}

// Fold says what the events add up to with all before them, and calls alert for
// each alert in the order of the events that it is for. failed gets the reasons
// why events were left out. Lists must be folded in the order of their events.
func (e *Evaluation) Fold(ctx context.Context, m *Matched, alert func(*alertv1.Alert) error, failed func(reason string)) error {
	first := e.next
	entries, err := e.fold(ctx, m.w.detections)
	if err != nil {
		return err
	}
	var from extent
	for _, to := range m.ends {
		for i := from.alerts; i < to.alerts; i++ {
			if err := m.tell(i, alert); err != nil {
				return err
			}
		}
		for _, msg := range m.w.dead[from.dead:to.dead] {
			failed(reasonOf(msg.Value))
		}
		for len(entries) > 0 && entries[0].Offset < first+int64(to.detections) {
			msg, ok := decodeMessage(entries[0].Body)
			switch {
			case !ok:
				return errors.New("outbox entry is damaged")
			case msg.kind == toDLQ:
				failed(reasonOf(msg.value))
			default:
				if err := say(msg.value, alert); err != nil {
					return err
				}
			}
			entries = entries[1:]
		}
		from = to
	}
	return nil
}

// Close decides and closes all windows that wait for the watermark, and calls
// alert for each alert that they are, in the order in which their windows end.
// Nothing can be folded after it.
func (e *Evaluation) Close(ctx context.Context, alert func(*alertv1.Alert) error) error {
	f := e.folder
	for level := uint32(0); level <= f.meta.levels; level++ {
		f.meta.marks.raise(upstream{level: level}, 0, afterAll)
		var all []state.Entry
		err := f.drainDue(ctx, func(entries []state.Entry) error {
			all = append(all, entries...)
			return nil
		})
		if err != nil {
			return err
		}
		// What these signal belongs to windows of the next level.
		for len(all) > 0 {
			var signals []Record
			for _, entry := range all {
				msg, ok := decodeMessage(entry.Body)
				switch {
				case !ok:
					return errors.New("outbox entry is damaged")
				case msg.kind == toDetections:
					signals = append(signals, e.record(bus.Message{Key: msg.key, Value: msg.value, Headers: msg.headers}))
				case msg.kind == toAlerts:
					if err := say(msg.value, alert); err != nil {
						return err
					}
				}
			}
			if err := f.store.Trim(ctx, f.partition, f.token, f.seq); err != nil {
				return err //nolint:wrapcheck // the store says what failed
			}
			if all, err = e.batches(ctx, signals); err != nil {
				return err
			}
		}
	}
	return nil
}

// afterAll is a watermark behind every window, and far from overflow.
const afterAll = math.MaxInt64 / 4

// fold folds detections, each at an offset of its own, and the signals that come
// of them behind these. What is said has the offset of the detection that it
// comes of in the end.
func (e *Evaluation) fold(ctx context.Context, detections []bus.Message) ([]state.Entry, error) {
	records := make([]Record, 0, len(detections))
	for _, d := range detections {
		records = append(records, e.record(d))
	}
	var all []state.Entry
	of := make(map[int64]int64) // detections by the offsets of signals
	for len(records) > 0 {
		entries, err := e.batches(ctx, records)
		if err != nil {
			return nil, err
		}
		records = nil
		for _, entry := range entries {
			if from, ok := of[entry.Offset]; ok {
				entry.Offset = from
			}
			if m, ok := decodeMessage(entry.Body); ok && m.kind == toDetections {
				of[e.next] = entry.Offset
				records = append(records, e.record(bus.Message{Key: m.key, Value: m.value, Headers: m.headers}))
				continue
			}
			all = append(all, entry)
		}
	}
	slices.SortStableFunc(all, func(a, b state.Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	return all, nil
}

// record gives a message the next offset.
func (e *Evaluation) record(m bus.Message) Record {
	e.next++
	return Record{Topic: TopicDetections, Offset: e.next - 1, Key: m.Key, Value: m.Value, Headers: m.Headers}
}

// batches folds records and returns what is said of them.
func (e *Evaluation) batches(ctx context.Context, records []Record) ([]state.Entry, error) {
	var all []state.Entry
	for len(records) > 0 {
		n, entries, err := e.folder.fold(ctx, records)
		if errors.Is(err, errRetry) {
			continue // it is put aside after some attempts
		}
		if err != nil {
			return nil, err
		}
		all, records = append(all, entries...), records[n:]
	}
	if len(all) == 0 {
		return nil, nil
	}
	// What is said is said: nobody reads the outbox.
	return all, e.folder.store.Trim(ctx, e.folder.partition, e.folder.token, e.folder.seq)
}

func say(value []byte, alert func(*alertv1.Alert) error) error {
	a := new(alertv1.Alert)
	if err := proto.Unmarshal(value, a); err != nil {
		return fmt.Errorf("decode alert: %w", err)
	}
	return alert(a)
}

func reasonOf(value []byte) string {
	d := new(dlqv1.DeadLetter)
	if err := proto.Unmarshal(value, d); err != nil {
		return err.Error()
	}
	return d.GetReason()
}
