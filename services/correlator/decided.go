package correlator

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// advance lets the watermark decide a group. Windows that are cut are counted
// and left undecided.
func (s *step) advance(ctx context.Context, g *group, w int64) (fired []window.Firing, err error) {
	if g.spec.AtOnce() && !g.spec.Updates || len(s.f.meta.reigns) == 0 {
		return g.win.Advance(w), nil
	}
	fired = g.win.AdvanceUnless(func(firing *window.Firing) bool {
		near, failed := nearest(firing)
		if err != nil || failed != nil {
			err = errors.Join(err, failed)
			return true
		}
		// Of this time of ingest are all events that count in the window, and those by
		// which it was decided that they do.
		cut, failed := s.f.cut(ctx, near, firing.Start-g.spec.Before-window.EarlyAllowance, firing.End+g.spec.After+g.spec.Lateness)
		if err = failed; err != nil || !cut {
			return err != nil
		}
		if s.f.applied.Offset >= s.f.silent {
			s.f.counts.board.Tenant(near.GetTenant()).Rule(near.GetCorrelationId()).Cut.Add(1, s.f.counts.now())
		}
		return true
	}, w)
	return fired, err
}

// decided says what the watermark has decided, as a child of the event that the
// alert is for. What the rule says of itself is that of the rules under which an
// event near it was detected.
func (s *step) decided(ctx context.Context, g *group, firing *window.Firing) error {
	if s.f.applied.Offset < s.f.silent {
		return nil
	}
	if firing.Signal && g.spec.AtOnce() { // what was left when its record was folded
		of := &detectionv1.Detection{
			Tenant: g.of.tenant, CorrelationId: g.of.correlation, CorrelationRevision: g.of.revision, Group: g.of.group,
		}
		return s.signal(s.f.applied.Offset, of, g.spec.Level+1, firing)
	}
	near, err := nearest(firing)
	if err != nil {
		return fmt.Errorf("group %s of partition %d: %w", g.key, s.f.partition, err)
	}
	if firing.Signal {
		return s.signal(s.f.applied.Offset, near, g.spec.Level+1, firing)
	}
	p, err := s.f.plans.Get(ctx, near.GetManifestAll(), near.GetManifestTenant())
	if err != nil {
		return fmt.Errorf("rules of group %s: %w", g.key, err)
	}
	c := p.correlations[near.GetCorrelationId()]
	if c == nil || c.Revision != near.GetCorrelationRevision() {
		// Its records were folded with it; only another configuration refuses it now.
		c = &correlation{
			Correlation: &sigma.Correlation{ID: near.GetCorrelationId(), Revision: near.GetCorrelationRevision(), Alerts: true},
			rule:        &alertv1.Rule{Id: near.GetCorrelationId(), Revision: near.GetCorrelationRevision(), Type: "correlation"},
		}
	}
	it := &item{cor: c, rec: &Record{Offset: s.f.applied.Offset}, det: &detectionv1.Detection{
		Tenant: near.GetTenant(), CorrelationId: near.GetCorrelationId(), CorrelationRevision: near.GetCorrelationRevision(),
		Group: near.GetGroup(), EventId: firing.EventID, TimeMs: firing.Time, IngestMs: firing.Ingest,
	}}
	parent := unpackTrace(firing.Trace)
	if firing.Update {
		parent, _ = protowire.ConsumeString(firing.Near)
	}
	if parent != "" {
		it.rec.Headers = []Header{{Key: event.HeaderTraceparent, Value: []byte(parent)}}
	}
	return s.fire(ctx, it, firing)
}

// nearest is the detection that is kept nearest to what fires.
func nearest(firing *window.Firing) (*detectionv1.Detection, error) {
	_, n := protowire.ConsumeString(firing.Near)
	if n <= 0 {
		return nil, errIdentity
	}
	d := new(detectionv1.Detection)
	if err := proto.Unmarshal(firing.Near[n:], d); err != nil {
		return nil, fmt.Errorf("%w: %w", errIdentity, err)
	}
	return d, nil
}

// packTrace gives a trace context of W3C's version 0 in 25 bytes; nothing for
// what is none.
func packTrace(parent string) string {
	parts := strings.Split(parent, "-")
	if len(parts) != 4 || parts[0] != "00" || len(parts[1]) != 32 || len(parts[2]) != 16 || len(parts[3]) != 2 {
		return ""
	}
	b, err := hex.DecodeString(parts[1] + parts[2] + parts[3])
	if err != nil {
		return ""
	}
	return string(b)
}

func unpackTrace(packed string) string {
	if len(packed) != 25 {
		return ""
	}
	h := hex.EncodeToString([]byte(packed))
	return "00-" + h[:32] + "-" + h[32:48] + "-" + h[48:]
}

// leaveOut counts a record that its rule leaves out.
func (s *step) leaveOut(it *item, reason window.Reason) {
	if it.rec.Offset < s.f.silent {
		return
	}
	rule, now := s.f.counts.board.Tenant(it.det.GetTenant()).Rule(it.cor.ID), s.f.counts.now()
	switch reason {
	case window.IsLate:
		rule.Late.Add(1, now)
	case window.IsEarly:
		rule.Early.Add(1, now)
	default:
		rule.Skipped.Add(1, now)
	}
}
