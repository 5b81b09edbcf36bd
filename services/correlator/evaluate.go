package correlator

import (
	"cmp"
	"context"
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
	items    []item
	records  []Record
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
			cfg: cfg, local: newLocal(), plans: rules, tracer: tracer, counts: counts,
			upstreams: 1, siblings: 1, groups: math.MaxInt64, token: "evaluation",
		},
	}
	return e, e.folder.open(ctx)
}

// Brief makes alerts of nothing but what alert.AppendBrief writes: no event is kept
// for them. It is to be called before all else.
func (e *Evaluation) Brief() { e.detector.brief, e.folder.local.brief = true, true }

// onePlan is a planner with one plan.
type onePlan struct{ *plan }

func (f onePlan) Get(context.Context, []byte, []byte) (*plan, error) { return f.plan, nil }

// Evaluator matches events. Each goroutine has its own.
type Evaluator struct {
	matching *matching
	found    int // detections of the list before, which are about as many
}

// Evaluator returns scratch space for matching.
func (e *Evaluation) Evaluator() *Evaluator {
	m := &matching{d: e.detector, ingest: unseen, alone: true} // there is no gate
	m.reset()
	return &Evaluator{matching: m}
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
	m.rendered = make([]func() error, 0, len(m.w.objects.alerts))
	for _, a := range m.w.objects.alerts {
		then, err := render(a)
		if err != nil {
			return err
		}
		m.rendered = append(m.rendered, then)
	}
	return nil
}

// tell calls alert for the i-th alert, or what was kept for it.
func (m *Matched) tell(i int, alert func(*alertv1.Alert) error) error {
	if m.rendered != nil {
		return m.rendered[i]()
	}
	return alert(m.w.objects.alerts[i])
}

type extent struct{ alerts, detections, dead int }

// Match matches events by themselves.
func (v *Evaluator) Match(ctx context.Context, events []event.Event) (*Matched, error) {
	room := &objects{detections: make([]detected, 0, v.found+v.found/8)}
	out := &Matched{w: &work{ingest: unseen, objects: room}, ends: make([]extent, len(events)), Hits: make(map[string]int)}
	r := &bus.Record{Topic: TopicEvents} // of each, had there been a log
	for i := range events {
		v.matching.hits = v.matching.hits[:0]
		if err := v.matching.event(ctx, r, &events[i], out.w); err != nil {
			return nil, err
		}
		for _, rule := range v.matching.hits {
			out.Hits[rule.ID]++
		}
		out.ends[i] = out.w.objects.extent()
		out.ends[i].dead = len(out.w.dead)
	}
	v.found = len(room.detections)
	return out, nil
}

// Fold says what the events add up to with all before them, and calls alert for
// each alert in the order of the events that it is for. failed gets the reasons
// why events were left out. Lists must be folded in the order of their events.
func (e *Evaluation) Fold(ctx context.Context, m *Matched, alert func(*alertv1.Alert) error, failed func(reason string)) error {
	first := e.next
	heard, err := e.fold(ctx, m.w.objects.detections)
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
		for len(heard) > 0 && heard[0].offset < first+int64(to.detections) {
			if heard[0].alert == nil {
				failed(reasonOf(heard[0].msg.value))
			} else if err := alert(heard[0].alert); err != nil {
				return err
			}
			heard = heard[1:]
		}
		from = to
	}
	return nil
}

// Close decides and closes all windows that wait for the watermark, and calls
// alert for each alert that they are, in the order in which their windows end.
// Nothing can be folded after it.
func (e *Evaluation) Close(ctx context.Context, alert func(*alertv1.Alert) error) (err error) {
	f := e.folder
	for level := uint32(0); level <= f.meta.levels; level++ {
		f.meta.marks.raise(upstream{level: level}, 0, afterAll)
		if err := f.drainDue(ctx, func([]state.Entry) error { return nil }); err != nil {
			return err
		}
		// What these signal belongs to windows of the next level.
		for all := f.local.take(); len(all) > 0; all = f.local.take() {
			e.begin(len(all))
			for _, s := range all {
				switch {
				case s.alert != nil:
					err = alert(s.alert)
				case s.msg.kind == toDetections:
					err = e.signal(ctx, s.msg)
				default:
					err = fmt.Errorf("window cannot be decided: %s", reasonOf(s.msg.value))
				}
				if err != nil {
					return err
				}
			}
			if err := f.foldLocal(ctx, e.items); err != nil {
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
func (e *Evaluation) fold(ctx context.Context, detections []detected) ([]said, error) {
	e.begin(len(detections))
	for i := range detections {
		d := &detections[i]
		it := e.add(Record{})
		if it.hit, it.cor = d, d.cor; !d.cor.simple() || len(d.parents) > 0 {
			it.det = d.record()
		}
	}
	var all []said
	var of map[int64]int64 // detections by the offsets of signals
	for len(e.items) > 0 {
		if err := e.folder.foldLocal(ctx, e.items); err != nil {
			return nil, err
		}
		heard := e.folder.local.take()
		e.begin(len(heard))
		for _, s := range heard {
			if from, ok := of[s.offset]; ok {
				s.offset = from
			}
			if s.alert != nil || s.msg.kind != toDetections {
				all = append(all, s)
				continue
			}
			if of == nil {
				of = make(map[int64]int64)
			}
			of[e.next] = s.offset
			if err := e.signal(ctx, s.msg); err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(all, func(a, b said) int { return cmp.Compare(a.offset, b.offset) })
	return all, nil
}

// begin makes room for n items.
func (e *Evaluation) begin(n int) {
	clear(e.items)
	clear(e.records)
	e.items, e.records = slices.Grow(e.items[:0], n), slices.Grow(e.records[:0], n)
}

// add gives a record the next offset; begin has made room for it.
func (e *Evaluation) add(r Record) *item {
	r.Topic, r.Offset = TopicDetections, e.next
	e.next++
	e.records = append(e.records, r)
	e.items = append(e.items, item{rec: &e.records[len(e.records)-1]})
	return &e.items[len(e.items)-1]
}

// signal adds what a correlation says to others.
func (e *Evaluation) signal(ctx context.Context, m *message) error {
	it := e.add(Record{Key: m.key, Value: m.value, Headers: m.headers})
	it.schema = header(m.headers, event.HeaderSchema)
	return e.folder.read(ctx, it)
}

func reasonOf(value []byte) string {
	d := new(dlqv1.DeadLetter)
	if err := proto.Unmarshal(value, d); err != nil {
		return err.Error()
	}
	return d.GetReason()
}
