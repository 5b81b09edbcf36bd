package correlator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/telemetry"
	"github.com/stormbell/stormbell/services/sigma"
)

// matching is the ordered part of stage detect for one claim.
type matching struct {
	d         *detector
	partition int
	next      int64 // offset to read next; negative: not known
	ingest    int64 // greatest ingest time below next
	matchers  map[*plan]*sigma.Matcher
	hits      []*sigma.Rule
	entities  alert.EntityReader // scratch
	detected  []detected         // scratch
	ruled     map[string]*ruled  // by scope
	told      map[ruling]int64   // until when a manifest that rules no more was told to rule
	pending   []*detectionv1.Ruling
	levels    uint32 // see work
	failed    error
	probation *probation
	// blamed is the record that ends processes and is passed over, tries how
	// often it did; 0 where there is none.
	blamed int64
	tries  int
	alone  bool // nothing else happens in the process
	// rules are those of the last record of the batch, leave gives the gate back.
	rules struct {
		all, tenant []byte
		plan        *plan
	}
	looking looking
	leave   func()
}

type ruling struct{ scope, manifest string }

func newMatching(d *detector, c *claim) *matching {
	p, ok := parseProgress(c.Metadata)
	if c.Committed >= 0 && !ok {
		d.log.Warn("committed offset of events carries no ingest time: the watermark begins anew", "partition", c.Partition, "offset", c.Committed)
	}
	m := &matching{
		d: d, partition: c.Partition, next: c.Committed, ingest: p.ingest,
		probation: newProbation(c, p, d.cfg.Attempts, d.log.With("partition", c.Partition)),
	}
	m.reset()
	m.ruled, m.levels = readRuled(p.ruled), p.levels
	return m
}

// maxRemembered bounds what is remembered of manifests and matchers; beyond it
// the memory begins anew, which costs a repetition.
const maxRemembered = 4096

func (m *matching) reset() {
	m.matchers = make(map[*plan]*sigma.Matcher)
	m.ruled, m.told = make(map[string]*ruled), make(map[ruling]int64)
}

// batch matches the records of a fetch. After an error nothing has moved.
func (m *matching) batch(ctx context.Context, records []bus.Record) (*work, error) {
	if len(m.matchers) > m.d.cfg.RuleSets {
		clear(m.matchers)
	}
	if len(m.ruled) > maxRemembered || len(m.told) > maxRemembered {
		m.reset()
	}
	if !m.alone {
		m.leave = m.d.gate.share()
		defer func() { m.leave() }()
	}
	m.rules.plan = nil
	w := &work{ingest: m.ingest, rulings: m.pending, produced: make(chan struct{})}
	for i := range records {
		if err := m.record(ctx, &records[i], w); err != nil {
			m.pending = w.rulings // they are noted, and not noted again
			return nil, err
		}
	}
	m.pending = nil
	w.next, w.ruled, w.levels = records[len(records)-1].Offset+1, m.ruledText(), m.levels
	m.next, m.ingest = w.next, w.ingest
	return w, nil
}

// passes reports whether a record is passed over unread.
func (m *matching) passes(r *bus.Record) bool { return m.tries > 0 && r.Offset == m.blamed }

func (m *matching) record(ctx context.Context, r *bus.Record, w *work) error {
	if m.passes(r) {
		return m.bury(r, w, reasonEnded, m.tries)
	}
	switch schema := header(r.Headers, event.HeaderSchema); schema {
	case event.SchemaTick:
		ingest, err := event.DecodeTick(r.Value)
		if err != nil {
			return m.bury(r, w, err.Error(), 1)
		}
		w.ingest = max(w.ingest, ingest)
		return nil
	case event.SchemaEvent:
		e, err := event.Decode(r.Value)
		if err != nil {
			return m.bury(r, w, err.Error(), 1)
		}
		return m.event(ctx, r, &e, w)
	default:
		return m.bury(r, w, fmt.Sprintf("unknown schema %q", schema), 1)
	}
}

// raise keeps the promise of the watermark: what comes after it does not lie
// before it.
func (m *matching) raise(e *event.Event, w *work) {
	if w.ingest != unseen {
		if least := w.ingest - m.d.cfg.Slack.Milliseconds(); e.IngestMS < least {
			e.IngestMS = least
			e.Late, e.Early = event.Flags(e.TimeMS, e.IngestMS, e.LatenessMS)
			m.d.counts.raised(1)
		}
	}
	w.ingest = max(w.ingest, e.IngestMS)
}

func (m *matching) event(ctx context.Context, r *bus.Record, e *event.Event, w *work) error {
	before := w.ingest
	m.raise(e, w)
	p, err := m.plan(ctx, e)
	if err != nil {
		w.ingest = before
		return fmt.Errorf("rules of offset %d: %w", r.Offset, err)
	}
	m.ruling(e, r.Offset, w)
	m.levels = max(m.levels, p.levels)
	m.d.counts.read(1)
	var problem error
	for attempt := range m.d.cfg.Attempts {
		alerts, detections, dead := len(w.alerts), len(w.detections), len(w.dead)
		objects := w.objects.extent()
		if problem = m.try(ctx, r, e, p, w); problem == nil {
			return nil
		}
		w.alerts, w.detections, w.dead = w.alerts[:alerts], w.detections[:detections], w.dead[:dead]
		w.objects.cut(objects)
		delete(m.matchers, p) // what it was left in is not known
		if _, ok := errors.AsType[*faultError](problem); ok {
			return problem
		}
		m.d.log.Error("event could not be matched", "partition", m.partition, "offset", r.Offset, "attempt", attempt+1, "error", problem)
	}
	reason, _, _ := strings.Cut(problem.Error(), "\n")
	return m.bury(r, w, reason, m.d.cfg.Attempts)
}

// plan returns the rules of an event. Nobody waits at the gate while they are
// waited for.
func (m *matching) plan(ctx context.Context, e *event.Event) (*plan, error) {
	last := &m.rules
	if last.plan != nil && bytes.Equal(last.all, e.ManifestAll) && bytes.Equal(last.tenant, e.ManifestTenant) {
		return last.plan, nil
	}
	if !m.alone {
		m.leave()
		defer func() { m.leave = m.d.gate.share() }()
	}
	p, err := m.d.plans.Get(ctx, e.ManifestAll, e.ManifestTenant)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller names the offset
	}
	last.all, last.tenant, last.plan = e.ManifestAll, e.ManifestTenant, p
	return p, nil
}

// bury sends a record to `dlq` in place of what it would have said.
func (m *matching) bury(r *bus.Record, w *work, reason string, attempts int) error {
	m.d.counts.poison(stageDetect)
	m.d.counts.board.Tenant(header(r.Headers, event.HeaderTenant)).Dead.Add(1, m.d.counts.now())
	dead, err := bus.DeadLetter(r, stageDetect, reason, attempts)
	if err != nil {
		return err //nolint:wrapcheck // it names the record
	}
	w.dead = append(w.dead, dead)
	return nil
}

// try matches one event. A panic is returned as an error.
func (m *matching) try(ctx context.Context, r *bus.Record, e *event.Event, p *plan, w *work) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("match panicked: %v\n%s", v, debug.Stack())
		}
	}()
	if err := m.d.fault.at(PointMatch, r); err != nil {
		return err
	}
	matcher := m.matchers[p]
	if matcher == nil {
		matcher = p.set.Matcher()
		m.matchers[p] = matcher
	}
	m.hits = matcher.Match(sigma.Event{
		Raw: e.Raw, LogSource: sigma.LogSource{Product: e.Product, Service: e.Service, Category: e.Category}, Strict: e.StrictLogsource,
	}, m.hits[:0])
	if err := matcher.Err(); err != nil {
		return fmt.Errorf("event cannot be read: %w", err)
	}
	if m.d.look && m.looking.due(m.d.counts.board, e) {
		m.looking.into(e, p, matcher)
	}
	if len(m.hits) == 0 {
		return nil
	}
	return m.found(ctx, r, e, p, matcher, w)
}

// found turns hits into alerts and detections, in a span that is a child of
// the event's own request.
func (m *matching) found(ctx context.Context, r *bus.Record, e *event.Event, p *plan, matcher *sigma.Matcher, w *work) error {
	traceID := ""
	if w.objects == nil { // else there is no request, nor anyone who would look
		var span trace.Span
		ctx, span = m.d.tracer.Start(telemetry.Extract(ctx, r.Headers), "detect match",
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.Int("stormbell.rules", len(m.hits))))
		defer span.End()
		if sc := span.SpanContext(); sc.HasTraceID() {
			traceID = sc.TraceID().String()
		}
	}
	m.d.counts.matched(int64(len(m.hits)))
	tenant, now := m.d.counts.board.Tenant(e.Tenant), m.d.counts.now()
	tenant.Matched.Add(1, now)
	source := sourceOf(e)
	raw := e.Raw
	if w.objects != nil {
		raw = bytes.Clone(raw) // that of an event is only lent
	}
	var (
		headers  []Header
		entities *detectionv1.Entities // once an alert shows them
		compact  bool
	)
	for _, rule := range m.hits {
		tenant.Rule(rule.ID).Hits.Add(1, now)
		if !rule.Alerts {
			continue
		}
		if rule.Shadow {
			m.d.counts.shadowed(tenant, rule.ID)
			continue
		}
		finding := &alert.Finding{
			ID: alert.StandAloneID(e.Tenant, rule.ID, rule.Revision, e.ID), Tenant: e.Tenant, Rule: p.rules[rule.ID],
			TimeMS: e.TimeMS, IngestMS: e.IngestMS, StartMS: e.TimeMS, EndMS: e.TimeMS, Count: 1, Total: 1,
			TraceID: traceID, BaseURL: m.d.cfg.BaseURL,
		}
		form := alert.NewBrief
		if !m.d.brief {
			if entities == nil {
				entities, compact = m.entities.ReadCompact(e.Raw)
			}
			finding.Events = []alert.Contribution{{ID: e.ID, TimeMS: e.TimeMS, RuleID: rule.ID, Late: e.Late, Entities: entities, Source: source, Raw: raw, Compact: compact}}
			form = alert.New
		}
		a := form(finding)
		if w.objects != nil {
			w.objects.alerts = append(w.objects.alerts, a)
		} else {
			value, err := marshal(a)
			if err != nil {
				return fmt.Errorf("encode alert: %w", err)
			}
			if headers == nil {
				headers = telemetry.Inject(ctx, newHeaders(schemaAlert, e.Tenant))
			}
			w.alerts = append(w.alerts, bus.Message{Key: []byte(a.GetId()), Value: value, Headers: headers})
		}
		m.d.counts.fired(1)
		tenant.Alerts.Add(1, now)
	}
	found := m.detections(e, p, matcher)
	if len(found) == 0 {
		return nil
	}
	of := &whole{
		tenant: e.Tenant, id: e.ID, source: source, time: e.TimeMS, ingest: e.IngestMS, late: e.Late, early: e.Early,
		manifestAll: e.ManifestAll, manifestTenant: e.ManifestTenant, partition: int32(m.partition), offset: r.Offset,
	}
	if len(e.Raw) <= maxRaw {
		of.raw = raw // an alert reads from it who did what, should there be one
	} else {
		of.entities = m.entities.Read(e.Raw)
	}
	if w.objects == nil {
		headers = telemetry.Inject(ctx, newHeaders(schemaDetection, e.Tenant))
	}
	for i := range found {
		d := &found[i]
		d.of = of
		if w.objects.take(d) {
			continue
		}
		record := d.record()
		value, err := marshal(record)
		if err != nil {
			return fmt.Errorf("encode detection: %w", err)
		}
		if len(value) > maxDetection {
			// No broker would take it, and the partition must not wait for that.
			reason := fmt.Sprintf("its detection for correlation %s has %d bytes, at most %d fit into a record: group by a shorter field", d.cor.ID, len(value), maxDetection)
			if err := m.bury(r, w, reason, 1); err != nil {
				return err
			}
			continue
		}
		if w.objects != nil {
			w.objects.detections = append(w.objects.detections, *d)
			continue
		}
		w.detections = append(w.detections, bus.Message{Key: []byte(groupKey(e.Tenant, d.cor.ID, d.group)), Value: value, Headers: headers})
	}
	m.d.counts.detected(int64(len(found)))
	tenant.Detections.Add(int64(len(found)), now)
	return nil
}

// maxRaw is how large an event travels with its detection.
const maxRaw = 32 << 10

// maxDetection is how large a detection may be: brokers take one megabyte.
const maxDetection = 900_000

// detections gives one record per correlation, group and values, whichever of
// the correlation's rules matched. An event that lacks a field of group-by, or
// of a value that counts, or a place, is not counted.
func (m *matching) detections(e *event.Event, p *plan, matcher *sigma.Matcher) []detected {
	found := m.detected[:0]
	for _, rule := range m.hits {
		for _, sc := range rule.Correlations {
			c := p.correlations[sc.ID]
			if c == nil {
				continue
			}
			v, ok := m.values(e, matcher, c, rule.ID)
			if !ok {
				m.d.counts.ungrouped(1)
				m.d.counts.board.Tenant(e.Tenant).Rule(sc.ID).Ungrouped.Add(1, m.d.counts.now())
				continue
			}
			valid(v.Group)
			valid(v.Fields)
			links := m.links(e, p, matcher, sc, rule.ID)
			i := slices.IndexFunc(found, func(d detected) bool {
				return d.cor == c && slices.Equal(d.group, v.Group) && slices.Equal(d.values, v.Fields) && sameLinks(d.parents, links)
			})
			if i < 0 {
				found = append(found, detected{cor: c, group: v.Group, values: v.Fields, rules: c.only(rule.ID), parents: links})
			} else {
				found[i].rules = append(found[i].rules, rule.ID)
			}
		}
	}
	m.detected = found
	for _, d := range found {
		if len(d.rules) == 1 {
			continue
		}
		order := d.cor.Rules
		slices.SortFunc(d.rules, func(a, b string) int {
			return cmp.Compare(slices.Index(order, a), slices.Index(order, b))
		})
	}
	return found
}

// only is a list of one of the rules that c refers to.
func (c *correlation) only(rule string) []string {
	if i := slices.Index(c.Rules, rule); i >= 0 {
		return c.Rules[i : i+1 : i+1]
	}
	return []string{rule}
}

// values are what a correlation takes from an event that came to it by a way;
// false where the event is not counted.
func (m *matching) values(e *event.Event, matcher *sigma.Matcher, c *correlation, way ...string) (sigma.Values, bool) {
	v, ok := matcher.Extract(e.Raw, c.Correlation, way...)
	if ok && !v.Incomplete && c.spec.Kind == window.Travel {
		ok = m.located(e, &v)
	}
	return v, ok && (!v.Incomplete || len(c.Field) == 0)
}

// valid replaces bytes that are not UTF-8, which no record may hold.
func valid(values []string) {
	for i, v := range values {
		values[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
}

func sourceOf(e *event.Event) string {
	if e.Source != "" {
		return e.Source
	}
	if e.Product == "" && e.Service == "" {
		return e.Format
	}
	return e.Product + "/" + e.Service
}
