package correlator

import (
	"context"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
)

// detected is a detection before it is a record. Where there is no log, most never
// are one.
type detected struct {
	cor           *correlation
	of            *whole
	group, values []string
	rules         []string // ids, in the order in which cor refers to them
	parents       []*detectionv1.Link
}

// whole is an event, which its detections share.
type whole struct {
	tenant, id, source          string
	time, ingest                int64
	late, early                 bool
	manifestAll, manifestTenant []byte
	partition                   int32
	offset                      int64
	raw                         []byte                // nil: too large
	entities                    *detectionv1.Entities // once they have been asked for, or raw is not there
	compact                     bool                  // raw is known to be compact JSON, once entities are there
}

// record is the detection as it is written.
func (d *detected) record() *detectionv1.Detection {
	e := d.of
	r := &detectionv1.Detection{
		Tenant: e.tenant, CorrelationId: d.cor.ID, CorrelationRevision: d.cor.Revision,
		RuleIds: d.rules, Group: d.group, Values: d.values, EventId: e.id, TimeMs: e.time, IngestMs: e.ingest, Late: e.late, Early: e.early,
		ManifestAll: e.manifestAll, ManifestTenant: e.manifestTenant, UpstreamPartition: e.partition, UpstreamOffset: e.offset,
		Source: e.source, Raw: e.raw, Parents: d.parents,
	}
	if e.raw == nil {
		r.Entities = e.entities
	}
	return r
}

// wholeOf is the event of a detection.
func wholeOf(d *detectionv1.Detection) *whole {
	return &whole{id: d.GetEventId(), source: d.GetSource(), raw: d.GetRaw(), entities: d.GetEntities()}
}

// who are who did what.
func (e *whole) who(reader *alert.EntityReader) (of *detectionv1.Entities, compact bool) {
	if e.entities == nil && len(e.raw) > 0 {
		e.entities, e.compact = reader.ReadCompact(e.raw)
	}
	return e.entities, e.compact
}

// simple reports whether it is decided at once and from single records, so that
// nothing of a detection need be encoded where there is no store.
func (c *correlation) simple() bool {
	return c.spec.AtOnce() && !c.spec.Updates && c.spec.Kind != window.Risk
}

// event is what a window without a store keeps whole of an item.
func (it *item) event() *whole {
	if it.hit != nil {
		return it.hit.of
	}
	return wholeOf(it.det) // a signal's
}

// hit is detection for what is simple, and of a group that is there: as nearly all
// that comes where there is no store. The rest is made a record for it.
func (s *step) hit(ctx context.Context, it *item) error {
	d, c, l := it.hit, it.cor, s.f.local
	r := window.Record{
		EventID: d.of.id, Time: d.of.time, Ingest: d.of.ingest, Rules: c.mask(d.rules), Late: d.of.late, Early: d.of.early,
	}
	if len(c.Field) > 0 {
		r.Value, r.HasValue = c.valueOf(d.values), len(d.values) > 0
	}
	g := l.group(c, d.of.tenant, d.group)
	if g == nil || !g.counted || c.spec.Judge(&r) != window.Counts {
		it.det = d.record()
		return s.detection(ctx, it)
	}
	s.touch(g)
	if !l.brief {
		r.Object = d.of
	}
	fired := g.win.Add(r)
	if g.win.Bulky() {
		s.compact(g)
	}
	for i := range fired {
		it.det = d.record()
		if err := s.fire(ctx, it, &fired[i]); err != nil {
			return err
		}
	}
	s.f.due[g.spec.Level] = min(s.f.due[g.spec.Level], g.next())
	return nil
}
