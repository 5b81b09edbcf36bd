package correlator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/telemetry"
)

// tally counts the groups that a revision of a tenant's correlation has in the
// partition. It is part of the folded state: which group is refused depends on
// the records alone.
type tally struct {
	key    string
	groups int64
	// said is the hour of ingest time in which the last refusal was told.
	said          int64
	stored, dirty bool
}

const (
	tallyLabel = "stormbell-tally-1"
	tallyField = "t"
	// maxTallies bounds those that are remembered; the others are read again.
	maxTallies = 10_000
	hourMS     = 3_600_000
)

func tallyKey(tenant, correlationID, revision string) string {
	return event.Hash(tallyLabel, tenant, correlationID, revision)
}

// tallyKey is computed where a group may be new only.
func (f *folder) tallyKey(it *item) string {
	if it.tally == "" {
		it.tally = f.common.tallyKey(it.det.GetTenant(), it.cor.ID, it.cor.Revision)
	}
	return it.tally
}

var errTally = errors.New("damaged count of groups in the store: flush it, the log rebuilds it")

func (t *tally) decode(fields []state.Field) error {
	for _, f := range fields {
		if f.Name != tallyField {
			continue
		}
		groups, n := binary.Varint(f.Value)
		if n <= 0 || groups < 0 {
			return errTally
		}
		said, m := binary.Varint(f.Value[n:])
		if m <= 0 {
			return errTally
		}
		t.groups, t.said, t.stored = groups, said, true
	}
	return nil
}

func (t *tally) change() state.Change {
	if t.groups <= 0 {
		return state.Change{Key: t.key, Drop: true}
	}
	b := binary.AppendVarint(nil, t.groups)
	b = binary.AppendVarint(b, t.said)
	return state.Change{Key: t.key, Due: state.Never, SameDue: t.stored, Fields: []state.Field{{Name: tallyField, Value: b}}}
}

// count adds to a tally.
func (s *step) count(t *tally, by int64) {
	t.groups += by
	s.changed(t)
}

func (s *step) changed(t *tally) {
	if !t.dirty {
		t.dirty = true
		s.tallies = append(s.tallies, t)
	}
}

// overflow refuses a record whose group would be one too many, and says so
// once an hour: nothing that is there is given up for it.
func (s *step) overflow(ctx context.Context, it *item) error {
	s.f.counts.overflow(1)
	t, d := s.f.tallies[s.f.tallyKey(it)], it.det
	s.f.counts.board.Tenant(d.GetTenant()).Rule(it.cor.ID).Refused.Add(1, s.f.counts.now())
	hour := d.GetIngestMs() / hourMS
	if t.said != unseen && hour <= t.said {
		return nil
	}
	t.said = hour
	s.changed(t)
	if it.rec.Offset < s.f.silent {
		return nil
	}
	ctx, span := s.f.tracer.Start(telemetry.Extract(ctx, it.rec.Headers), "correlate overflow",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.String("stormbell.correlation_id", it.cor.ID)))
	defer span.End()
	finding := &alert.Finding{
		ID:     alert.CorrelationID(d.GetTenant(), alert.OverflowRule, it.cor.Revision, []string{it.cor.ID}, hour),
		Tenant: d.GetTenant(), TimeMS: d.GetTimeMs(), IngestMS: d.GetIngestMs(),
		StartMS: hour * hourMS, EndMS: (hour+1)*hourMS - 1, Count: int(s.f.groups), Total: 1, AtLeast: true,
		Rule:  &alertv1.Rule{Id: alert.OverflowRule, Title: "Too many groups", Level: "high", Tags: []string{"stormbell.meta"}, Revision: it.cor.Revision, Type: "meta"},
		Group: []*alertv1.GroupValue{{Field: "correlation", Value: it.cor.ID}},
		Summary: fmt.Sprintf("Correlation %q has reached its limit of groups (%d in this partition): events of further groups are not counted until others end.",
			it.cor.Title, s.f.groups),
		Events:  []alert.Contribution{{ID: d.GetEventId(), TimeMS: d.GetTimeMs(), RuleID: it.cor.firstRule(it.cor.mask(d.GetRuleIds())), Late: d.GetLate(), Entities: entities(d, &s.f.entities), Source: d.GetSource(), Raw: d.GetRaw()}},
		BaseURL: s.f.cfg.BaseURL,
	}
	if sc := span.SpanContext(); sc.HasTraceID() {
		finding.TraceID = sc.TraceID().String()
	}
	return s.raise(ctx, it, alert.New(finding))
}
