package correlator

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/telemetry"
)

// touch notes that a group has to be written.
func (s *step) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		s.dirty = append(s.dirty, g)
		s.bytes += dirtyOverhead
	}
}

// dirtyOverhead is about what writing a group takes beside what is new: half a
// page of records.
const dirtyOverhead = 2 << 10

func (s *step) detection(ctx context.Context, it *item) (err error) {
	d := it.det
	if d.GetUpstreamOffset() < s.f.meta.marks.next(upstream{it.level, d.GetUpstreamPartition()}) {
		s.f.counts.copied(1)
		return nil
	}
	r := window.Record{
		EventID: it.name(), Time: d.GetTimeMs(), Ingest: d.GetIngestMs(), Rules: it.cor.mask(d.GetRuleIds()),
		Late: d.GetLate(), Early: d.GetEarly(),
	}
	var scores []string
	if it.cor.spec.Kind == window.Risk {
		r.Rules = 1
		if scores = it.scores(); len(scores) > 0 {
			r.Value, r.HasValue = scores[0], true
		}
	}
	if len(it.cor.Field) > 0 {
		r.Value, r.HasValue = it.cor.valueOf(d.GetValues()), len(d.GetValues()) > 0
	}
	g, spec := s.f.group(it), it.cor.spec
	if g != nil {
		spec = g.spec // the lateness of a source may have changed since the group began
	}
	if reason := spec.Judge(&r); reason != window.Counts {
		s.leaveOut(it, reason)
		return nil
	}
	if (g == nil || !g.counted) && s.f.tallies[s.f.tallyKey(it)].groups >= s.f.groups {
		return s.overflow(ctx, it)
	}
	if g == nil {
		g = &group{key: it.key, tally: s.f.tallyKey(it), spec: it.cor.spec, due: state.Never, bytes: groupOverhead}
		g.of = groupName{d.GetTenant(), d.GetCorrelationId(), d.GetCorrelationRevision(), d.GetGroup()}
		g.snap = newSnapshot(s.f.cfg.snapshotEvery(g.spec))
		g.win = window.New(g.spec)
		if s.f.local == nil {
			g.name = identity(it.cor.spec, d)
		}
		s.f.put(g, it)
	}
	s.f.meta.lookBack = max(s.f.meta.lookBack, it.cor.lookBack)
	s.chained(it)
	if g.snap.contains(it.rec.Offset, d.GetIngestMs()) {
		return nil
	}
	s.touch(g)
	s.bytes += len(it.rec.Value) + recordOverhead
	s.f.cache.grew(g, len(it.rec.Value)+recordOverhead)
	if s.f.local != nil && it.cor.spec.AtOnce() && !it.cor.spec.Updates && len(d.GetParents()) == 0 {
		if !s.f.local.brief {
			r.Object = it.event()
		}
	} else if r.Keep, err = it.keep(); err != nil {
		return err
	}
	if r.Carry, err = carry(d); err != nil {
		return err
	}
	if !it.cor.spec.AtOnce() {
		r.Trace = packTrace(header(it.rec.Headers, event.HeaderTraceparent))
	}
	fired := addAll(g.win, r, scores)
	for s.f.local != nil && g.win.Next() == window.Now { // no call is too large there
		fired = append(fired, g.win.Advance(window.Now)...)
	}
	s.drain = s.drain || g.win.Next() == window.Now
	if err := s.fullGroup(ctx, it, g); err != nil {
		return err
	}
	if g.win.Bulky() {
		s.compact(g)
	}
	if !g.counted && !g.win.Empty() {
		g.counted = true
		if len(s.f.named) < maxTallies {
			s.f.named[g.tally] = tenantRule{d.GetTenant(), it.cor.ID}
		}
		s.count(s.f.tallies[g.tally], 1)
	}
	for _, firing := range fired {
		if it.rec.Offset < s.f.silent {
			continue
		}
		if firing.Signal {
			err = s.signal(it.rec.Offset, d, uint32(it.cor.Depth), &firing)
		} else {
			err = s.fire(ctx, it, &firing)
		}
		if err != nil {
			return err
		}
	}
	if g.snap.every > 0 && !g.win.Empty() {
		g.snap.change(max(s.f.watermark(), d.GetIngestMs()-s.f.cfg.Slack.Milliseconds()))
	}
	s.f.due[g.spec.Level] = min(s.f.due[g.spec.Level], g.next())
	return nil
}

// compact lets a group go of what no alert to come needs. What is left is written
// anew.
func (s *step) compact(g *group) {
	held := g.win.Len()
	g.win.Compact(s.f.watermarkOf(g.spec.Level))
	left := g.win.Len()
	if left == held {
		return
	}
	s.bytes += left * recordOverhead
	s.f.cache.grew(g, -int(g.bytes*int64(held-left)/int64(held)))
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
// The other events that are kept whole are links.
func (s *step) fire(ctx context.Context, it *item, firing *window.Firing) error {
	if !firing.Update {
		s.f.counts.board.Tenant(it.det.GetTenant()).Rule(it.cor.ID).Hits.Add(1, s.f.counts.now())
	} else if it.cor.Shadow {
		return nil
	}
	if it.cor.Shadow {
		s.f.counts.shadowed(s.f.counts.board.Tenant(it.det.GetTenant()), it.cor.ID)
		return nil
	}
	if !it.cor.Alerts {
		return nil // it is a part of others, which say so
	}
	if l := s.f.local; l != nil && l.brief {
		return s.raise(ctx, it, alert.NewBrief(s.found(it, firing)))
	}
	kept := keptEvents(firing)
	if s.f.local != nil { // nobody would look at the span
		return s.raise(ctx, it, alert.New(s.finding(it, firing, kept, trace.SpanContext{})))
	}
	ctx, span := s.f.tracer.Start(telemetry.Extract(ctx, it.rec.Headers), "correlate fire",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links(ctx, kept, it.det.GetEventId())...), trace.WithAttributes(
			attribute.String("stormbell.correlation_id", it.cor.ID), attribute.Int("stormbell.count", firing.Count)))
	defer span.End()
	return s.raise(ctx, it, alert.New(s.finding(it, firing, kept, span.SpanContext())))
}

// raise puts an alert into the outbox, with the trace context of ctx.
func (s *step) raise(ctx context.Context, it *item, a *alertv1.Alert) error {
	if l := s.f.local; l != nil {
		l.said = append(l.said, said{offset: it.rec.Offset, alert: a})
	} else {
		value, err := marshal(a)
		if err != nil {
			return fmt.Errorf("alert of offset %d: %w", it.rec.Offset, err)
		}
		headers := telemetry.Inject(ctx, newHeaders(schemaAlert, a.GetTenant()))
		s.say(it.rec.Offset, &message{kind: toAlerts, key: []byte(a.GetId()), value: value, headers: headers})
	}
	if alert.TypeOf(a) == alert.TypeUpdated {
		s.f.counts.update(1)
		return nil
	}
	s.f.counts.fired(1)
	s.f.counts.board.Tenant(a.GetTenant()).Alerts.Add(1, s.f.counts.now())
	return nil
}

// keep is what a window keeps of a record that it shows whole: its trace
// context and its value.
func keep(r *Record) []byte {
	parent := header(r.Headers, event.HeaderTraceparent)
	b := make([]byte, 0, len(parent)+len(r.Value)+2)
	return append(protowire.AppendString(b, parent), r.Value...)
}

// kept is a record that a window has kept whole; of is nil where it has not.
type kept struct {
	parent string
	values []string // not of what is kept without a store: nobody asks
	of     *whole
}

// keptEvents decodes what a firing shows whole, by its place in firing.Events.
func keptEvents(firing *window.Firing) []kept {
	found := make([]kept, len(firing.Events))
	for i, ref := range firing.Events {
		if of, ok := ref.Object.(*whole); ok {
			found[i].of = of
			continue
		}
		parent, n := protowire.ConsumeString(ref.Keep)
		if n <= 0 {
			continue
		}
		d := new(detectionv1.Detection)
		if proto.Unmarshal(ref.Keep[n:], d) == nil {
			found[i] = kept{parent, d.GetValues(), wholeOf(d)}
		}
	}
	return found
}

// links are the trace contexts of all but one event, in order of their places.
func links(ctx context.Context, kept []kept, except string) (out []trace.Link) {
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	for _, k := range kept {
		if k.of == nil {
			continue
		}
		of := telemetry.Extract(ctx, []Header{{Key: event.HeaderTraceparent, Value: []byte(k.parent)}})
		if sc := trace.SpanContextFromContext(of); sc.IsValid() && k.of.id != except {
			out = append(out, trace.Link{SpanContext: sc})
		}
	}
	return out
}

// found is a finding without its events.
func (s *step) found(it *item, firing *window.Firing) *alert.Finding {
	d, c := it.det, it.cor
	finding := &alert.Finding{
		ID:     alertID(d, firing),
		Tenant: d.GetTenant(), Rule: c.rule, TimeMS: firing.Time, IngestMS: d.GetIngestMs(),
		StartMS: firing.Start, EndMS: firing.End, Count: firing.Count, Total: firing.Total, AtLeast: firing.AtLeast,
		Condition: c.Condition.String(), BaseURL: s.f.cfg.BaseURL,
	}
	if firing.Update {
		finding.Type = alert.TypeUpdated
	}
	finding.Group = c.valuesIn(d.GetGroup())
	return finding
}

// valuesIn are the values of a group with the fields that they are of.
func (c *correlation) valuesIn(group []string) (out []*alertv1.GroupValue) {
	for i, v := range group {
		if i < len(c.GroupBy) {
			out = append(out, &alertv1.GroupValue{Field: c.GroupBy[i], Value: v})
		}
	}
	return out
}

func (s *step) finding(it *item, firing *window.Firing, kept []kept, sc trace.SpanContext) *alert.Finding {
	c, finding := it.cor, s.found(it, firing)
	finding.How = c.how(firing, kept)
	if c.of != nil {
		finding.Risk, finding.Condition = c.madeOf(it.det, firing), c.conditionOf()
	}
	if sc.HasTraceID() {
		finding.TraceID = sc.TraceID().String()
	}
	finding.Events = make([]alert.Contribution, 0, len(firing.Events))
	for i, ref := range firing.Events {
		e := alert.Contribution{ID: eventOf(ref.ID), TimeMS: ref.Time, RuleID: c.firstRule(ref.Rules), Late: ref.Late}
		if score, ok := window.ParseScore(ref.Score); ok {
			e.RuleID = score.Rule
		}
		if of := kept[i].of; of != nil {
			e.Entities, e.Compact = of.who(&s.f.entities)
			e.Source, e.Raw = of.source, of.raw
		}
		finding.Events = append(finding.Events, e)
	}
	return finding
}

// alertID is the id of the alert to which a firing belongs.
func alertID(of *detectionv1.Detection, f *window.Firing) string {
	if f.ByEvent {
		return alert.OccurrenceID(of.GetTenant(), of.GetCorrelationId(), of.GetCorrelationRevision(), of.GetGroup(), f.EventID)
	}
	return alert.CorrelationID(of.GetTenant(), of.GetCorrelationId(), of.GetCorrelationRevision(), of.GetGroup(), f.Bucket)
}

// entities are who did what, by the event where its detection carries it.
func entities(d *detectionv1.Detection, reader *alert.EntityReader) *detectionv1.Entities {
	if d.GetEntities() == nil && len(d.GetRaw()) > 0 {
		return reader.Read(d.GetRaw())
	}
	return d.GetEntities()
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
