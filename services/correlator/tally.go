package correlator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
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
	// said is the hour of ingest time in which the last refusal was told, saidFull
	// that in which a group was last told to be full.
	said, saidFull int64
	stored, dirty  bool
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

func newTally(key string) *tally { return &tally{key: key, said: unseen, saidFull: unseen} }

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
		t.groups, t.said, t.saidFull, t.stored = groups, said, unseen, true
		if rest := f.Value[n+m:]; len(rest) > 0 {
			full, n := binary.Varint(rest)
			if n <= 0 {
				return errTally
			}
			t.saidFull = full
		}
	}
	return nil
}

func (t *tally) change() state.Change {
	if t.groups <= 0 {
		return state.Change{Key: t.key, Drop: true}
	}
	b := binary.AppendVarint(nil, t.groups)
	b = binary.AppendVarint(b, t.said)
	if t.saidFull != unseen {
		b = binary.AppendVarint(b, t.saidFull)
	}
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
	return s.meta(ctx, it, hour, &alert.Finding{
		Count: int(s.f.groups),
		Rule:  &alertv1.Rule{Id: alert.OverflowRule, Title: "Too many groups"},
		Group: []*alertv1.GroupValue{{Field: "correlation", Value: it.cor.ID}},
		Summary: fmt.Sprintf("Correlation %q has reached its limit of groups (%d in this partition): events of further groups are not counted until others end.",
			it.cor.Title, s.f.groups),
	})
}

// meta says something of a correlation, as of an hour of ingest time, unless it has
// been said before.
func (s *step) meta(ctx context.Context, it *item, hour int64, f *alert.Finding) error {
	if it.rec.Offset < s.f.silent {
		return nil
	}
	d := it.det
	ctx, span := s.f.tracer.Start(telemetry.Extract(ctx, it.rec.Headers), "correlate overflow",
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.String("stormbell.correlation_id", it.cor.ID)))
	defer span.End()
	f.Rule.Level, f.Rule.Tags, f.Rule.Revision, f.Rule.Type = "high", []string{"stormbell.meta"}, it.cor.Revision, "meta"
	f.ID = alert.CorrelationID(d.GetTenant(), f.Rule.GetId(), it.cor.Revision, []string{it.cor.ID}, hour)
	f.Tenant, f.TimeMS, f.IngestMS = d.GetTenant(), d.GetTimeMs(), d.GetIngestMs()
	f.StartMS, f.EndMS, f.Total, f.AtLeast, f.BaseURL = hour*hourMS, (hour+1)*hourMS-1, 1, true, s.f.cfg.BaseURL
	f.Events = []alert.Contribution{{
		ID: d.GetEventId(), TimeMS: d.GetTimeMs(), RuleID: it.cor.firstRule(it.cor.mask(d.GetRuleIds())), Late: d.GetLate(),
		Entities: entities(d, &s.f.entities), Source: d.GetSource(), Raw: d.GetRaw(),
	}}
	if sc := span.SpanContext(); sc.HasTraceID() {
		f.TraceID = sc.TraceID().String()
	}
	return s.raise(ctx, it, alert.New(f))
}

// lost counts what a group has lost at an offset because it is full.
func (s *step) lost(offset int64, of tenantRule, lost window.Lost) {
	if offset < s.f.silent {
		return
	}
	rule, now := s.f.counts.board.Tenant(of.tenant).Rule(of.rule), s.f.counts.now()
	s.f.counts.shedding(int64(lost.Shed))
	rule.Shed.Add(int64(lost.Shed), now)
	rule.Cut.Add(int64(lost.Cut), now)
}

// fullGroup counts what a group has lost by a record because it is full, and says so
// once an hour for each correlation.
func (s *step) fullGroup(ctx context.Context, it *item, g *group) error {
	lost := g.win.Lost()
	if lost == (window.Lost{}) {
		return nil
	}
	d := it.det
	s.lost(it.rec.Offset, tenantRule{d.GetTenant(), it.cor.ID}, lost)
	t, hour := s.f.tallies[g.tally], d.GetIngestMs()/hourMS
	if s.f.local != nil || t == nil || t.saidFull != unseen && hour <= t.saidFull { // see load
		return nil
	}
	t.saidFull = hour
	s.changed(t)
	return s.meta(ctx, it, hour, &alert.Finding{
		Count: window.MaxRecords,
		Rule:  &alertv1.Rule{Id: alert.FullRule, Title: "A group is full"},
		Group: append([]*alertv1.GroupValue{{Field: "correlation", Value: it.cor.ID}}, it.cor.valuesIn(d.GetGroup())...),
		Summary: fmt.Sprintf("A group of correlation %q has reached its limit of %d records: the oldest go. ", it.cor.Title, window.MaxRecords) +
			fullMeans(it.cor.spec),
	})
}

// fullMeans is what a rule may miss whose group is full.
func fullMeans(spec *window.Spec) string {
	if spec.AtOnce() {
		return "It counts what is left: alerts may be missing that need older events, which who fills the group can push out."
	}
	return "Windows that events may lack in are left undecided where that could matter, and counted as cut: alerts may be missing. " +
		"A lateness of the rule's own, or a narrower group-by, takes more events."
}
