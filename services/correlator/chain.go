package correlator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// A chain. What a correlation says of an event goes back into `detections`, as
// a signal to those that refer to it, keyed by their groups. The event is not at
// hand there any more: what they take from it is read at stage detect, travels
// in the detection, and is kept with its record until the record qualifies.
//
// Level n are the signals of correlations of depth n. Each partition tells all
// partitions of each level how far its signals are acknowledged, and that none
// with an ingest time below its watermark follows. A signal has the ingest time
// of the event that it is for, which lies before its cause by at most the lag
// of the correlation that says it: by so much a level's watermark lags behind
// those of the levels below. A partition says nothing of levels before
// some event that reached it, or that detect has told of, was stamped with rules
// that have a chain. Until all partitions have, which takes as long as detect
// takes to forward, the level's watermark is −∞ and nothing that waits for it is
// decided or dropped.

// links are what the correlations that refer to sc take from an event that came
// to it by a way: the ids of what refers to what, the detection rule's last.
func (m *matching) links(e *event.Event, p *plan, matcher *sigma.Matcher, sc *sigma.Correlation, way ...string) []*detectionv1.Link {
	if len(sc.Parents) == 0 {
		return nil
	}
	var out []*detectionv1.Link
	way = append([]string{sc.ID}, way...)
	for _, parent := range sc.Parents {
		if p.correlations[parent.ID] == nil {
			continue
		}
		v, ok := m.values(e, matcher, p.correlations[parent.ID], way...)
		if !ok {
			m.d.counts.ungrouped(1)
			m.d.counts.board.Tenant(e.Tenant).Rule(parent.ID).Ungrouped.Add(1, m.d.counts.now())
			continue
		}
		valid(v.Group)
		valid(v.Fields)
		out = append(out, &detectionv1.Link{
			CorrelationId: parent.ID, CorrelationRevision: parent.Revision, Group: v.Group, Values: v.Fields,
			Parents: m.links(e, p, matcher, parent, way...),
		})
	}
	return out
}

func sameLinks(a, b []*detectionv1.Link) bool {
	return slices.EqualFunc(a, b, func(a, b *detectionv1.Link) bool { return proto.Equal(a, b) })
}

// carry is what is kept with a record whose correlation others refer to.
func carry(d *detectionv1.Detection) ([]byte, error) {
	if len(d.GetParents()) == 0 {
		return nil, nil
	}
	return marshal(&detectionv1.Detection{
		Late: d.GetLate(), Early: d.GetEarly(), ManifestAll: d.GetManifestAll(), ManifestTenant: d.GetManifestTenant(), Parents: d.GetParents(),
	})
}

// signalLabel is that of hashes that identify signals.
const signalLabel = "stormbell-signal-1"

// signal tells the correlations that refer to a group's that an event qualifies
// in it. cause is the offset of the record that made it so.
func (s *step) signal(cause int64, of *detectionv1.Detection, level uint32, firing *window.Firing) error {
	carried := new(detectionv1.Detection)
	if err := proto.Unmarshal(firing.Carry, carried); err != nil {
		return fmt.Errorf("what event %q carries: %w", firing.EventID, err)
	}
	var whole detectionv1.Detection
	headers := newHeaders(schemaSignal, of.GetTenant())
	parent, n := protowire.ConsumeString(firing.Keep)
	if n <= 0 || proto.Unmarshal(firing.Keep[n:], &whole) != nil {
		parent = unpackTrace(firing.Trace)
	}
	if parent != "" {
		headers = append(headers, Header{Key: event.HeaderTraceparent, Value: []byte(parent)})
	}
	id := eventOf(firing.EventID)
	for _, link := range carried.GetParents() {
		sig := &detectionv1.Signal{
			Tenant: of.GetTenant(), CorrelationId: link.GetCorrelationId(), CorrelationRevision: link.GetCorrelationRevision(),
			Group: link.GetGroup(), Values: link.GetValues(),
			RuleId: of.GetCorrelationId(), RuleRevision: of.GetCorrelationRevision(),
			SignalId: event.Hash(signalLabel, of.GetCorrelationId(), id), EventId: id,
			TimeMs: firing.Time, IngestMs: firing.Ingest, Late: carried.GetLate(), Early: carried.GetEarly(),
			Level: level, UpstreamPartition: s.f.partition, UpstreamOffset: cause,
			ManifestAll: carried.GetManifestAll(), ManifestTenant: carried.GetManifestTenant(),
			Source: whole.GetSource(), Entities: whole.GetEntities(), Raw: whole.GetRaw(),
			AlertId: alertID(of, firing),
			Parents: link.GetParents(),
		}
		if proto.Size(sig) > maxDetection {
			sig.Raw = nil // the rest is smaller than the detection that it came with
		}
		value, err := marshal(sig)
		if err != nil {
			return fmt.Errorf("signal of event %q: %w", id, err)
		}
		key := groupKey(sig.GetTenant(), sig.GetCorrelationId(), sig.GetGroup())
		s.say(cause, &message{kind: toDetections, key: []byte(key), value: value, headers: headers})
		s.f.counts.signaled(1)
	}
	return nil
}

// A window tells the signals of one event by different rules apart, and both
// from the event itself: it knows them by the place of the rule among those that
// the correlation refers to, and the event's id.
const signalPrefix = "\x00"

func signalName(place int, eventID string) string {
	return signalPrefix + strconv.Itoa(place) + ":" + eventID
}

// eventOf is the event that a window's name for a record is of.
func eventOf(name string) string {
	if rest, ok := cutSignal(name); ok {
		return rest
	}
	return name
}

func cutSignal(name string) (eventID string, ok bool) {
	if len(name) == 0 || name[:1] != signalPrefix {
		return "", false
	}
	for i := 1; i < len(name); i++ {
		if name[i] == ':' {
			return name[i+1:], true
		}
	}
	return "", false
}

// asDetection is a signal as its correlation sees it: a record like any other.
func asDetection(sig *detectionv1.Signal) *detectionv1.Detection {
	return &detectionv1.Detection{
		Tenant: sig.GetTenant(), CorrelationId: sig.GetCorrelationId(), CorrelationRevision: sig.GetCorrelationRevision(),
		RuleIds: []string{sig.GetRuleId()}, Group: sig.GetGroup(), Values: sig.GetValues(), EventId: sig.GetEventId(),
		TimeMs: sig.GetTimeMs(), IngestMs: sig.GetIngestMs(), Late: sig.GetLate(), Early: sig.GetEarly(),
		ManifestAll: sig.GetManifestAll(), ManifestTenant: sig.GetManifestTenant(),
		UpstreamPartition: sig.GetUpstreamPartition(), UpstreamOffset: sig.GetUpstreamOffset(),
		Source: sig.GetSource(), Entities: sig.GetEntities(), Raw: sig.GetRaw(), Parents: sig.GetParents(),
	}
}

// readSignal decodes a signal into the item.
func (it *item) readSignal() {
	sig := new(detectionv1.Signal)
	if err := proto.Unmarshal(it.rec.Value, sig); err != nil {
		it.bad = "malformed signal: " + err.Error()
		return
	}
	if p := sig.GetUpstreamPartition(); sig.GetLevel() < 1 || sig.GetLevel() > maxLevel || p < 0 || p >= maxUpstream {
		it.bad = fmt.Sprintf("signal of level %d and partition %d", sig.GetLevel(), p)
		return
	}
	it.det, it.level, it.alert = asDetection(sig), sig.GetLevel(), sig.GetAlertId()
}

// name is what the window calls the record.
func (it *item) name() string {
	if it.level == 0 || it.cor.spec.Kind == window.Risk { // what is scored is told apart by what says so
		return it.det.GetEventId()
	}
	return signalName(slices.Index(it.cor.Rules, it.det.GetRuleIds()[0]), it.det.GetEventId())
}

// keep is what the window keeps of the record if it shows it whole.
func (it *item) keep() ([]byte, error) {
	if it.level == 0 && it.rec.Value != nil {
		return keep(it.rec), nil
	}
	value, err := marshal(it.det)
	if err != nil {
		return nil, fmt.Errorf("detection of event %q: %w", it.det.GetEventId(), err)
	}
	return keep(&Record{Value: value, Headers: it.rec.Headers}), nil
}

// chained notes what folding a record says of chains.
func (s *step) chained(it *item) {
	if len(it.det.GetParents()) > 0 {
		s.f.meta.says(uint32(it.cor.Depth), it.cor.spec.Lag())
	}
	s.f.meta.levels = max(s.f.meta.levels, it.level)
}

// says notes that a correlation of a level may signal to others.
func (m *meta) says(level uint32, lag int64) {
	level = min(level, maxLevel)
	m.levels = max(m.levels, level)
	m.reach[level] = max(m.reach[level], lag)
}

// anyLevel is the level of what counts signals of all levels, however many
// there come to be.
const anyLevel = maxLevel

// watermarkOf is W for what counts signals up to a level: the least of all that
// may still send it something.
func (f *folder) watermarkOf(level uint32) int64 {
	if level == anyLevel {
		level = f.meta.levels
	}
	w := f.meta.marks.watermark(0, f.upstreams)
	for l := uint32(1); l <= level && w != unseen; l++ {
		w = min(w, f.meta.marks.watermark(l, f.siblings))
	}
	return w
}

// signals are, by chain level, what a partition's own signals have as watermark.
type signals [maxLevel + 1]int64

// signals are the watermarks of what this partition will say, as of applied.
func (f *folder) signals() (w signals) {
	for level := uint32(1); level <= f.meta.levels; level++ {
		if below := f.watermarkOf(level - 1); below != unseen {
			w[level] = below - f.meta.reach[level]
		}
	}
	return w
}

// forwarding is what a session has told all partitions of its signals.
type forwarding struct {
	told signals
	next int64
	at   time.Time
}

// forwards tells all partitions how far signals have come, as the frontier
// moves.
func (s *session) forwards(ctx context.Context) error {
	tick := time.NewTicker(s.c.cfg.Forward / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		case <-tick.C:
		}
		if now := s.c.clock(); now.Sub(s.forwarded.at) >= s.c.cfg.Forward {
			s.forwarded.at = now
			if err := s.forward(ctx); err != nil {
				return err
			}
		}
	}
}

// forward tells what is new, where there are chains. What it says holds whoever
// owns the partition meanwhile: all signals that causes below the frontier have
// are acknowledged.
func (s *session) forward(ctx context.Context) error {
	offset := s.publisher.frontier()
	if offset <= s.forwarded.next || offset < s.f.silent {
		return nil
	}
	p, ok := s.frontiers.at(offset)
	if !ok {
		return nil
	}
	var msgs []bus.Message
	for level := range p.signals {
		w := p.signals[level]
		if w == 0 || w <= s.forwarded.told[level] {
			continue // what was said before stands
		}
		value, err := marshal(&detectionv1.Watermark{
			Level: uint32(level), UpstreamPartition: int32(s.claim.Partition), NextOffset: offset, WatermarkMs: w,
		})
		if err != nil {
			return fmt.Errorf("encode watermark: %w", err)
		}
		msgs = append(msgs, bus.Message{Value: value, Headers: newHeaders(schemaWatermark, "")})
	}
	if len(msgs) == 0 {
		return nil
	}
	missing := make([]int, s.f.siblings)
	for i := range missing {
		missing[i] = i
	}
	err := retry(ctx, func(err error) { s.log.Warn("watermark of signals is not forwarded, trying again", "error", err) }, func() (err error) {
		missing, err = spread(ctx, s.c.producer, missing, msgs)
		return err
	})
	if err == nil {
		s.forwarded.told, s.forwarded.next = p.signals, offset
	}
	return err
}

// spread writes messages to partitions of `detections` and returns those that
// have not acknowledged them.
func spread(ctx context.Context, producer Producer, partitions []int, msgs []bus.Message) (failed []int, err error) {
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for _, p := range partitions {
		wg.Go(func() {
			if _, e := producer.Produce(ctx, TopicDetections, p, msgs); e != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, err = append(failed, p), errors.Join(err, e)
			}
		})
	}
	wg.Wait()
	slices.Sort(failed)
	return failed, err
}
