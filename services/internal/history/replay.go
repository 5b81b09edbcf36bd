package history

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

const schemaDetection = "stormbell.detection.v1.Detection"

// HeaderReplayOf names, in a record that was replayed, the one that died.
const HeaderReplayOf = "replay-of"

// NotReplayableError says why a record cannot be replayed.
type NotReplayableError struct{ Why string }

func (e *NotReplayableError) Error() string { return e.Why }

func refuse(format string, args ...any) error {
	return &NotReplayableError{fmt.Sprintf(format, args...)}
}

// Content is what a dead record holds.
type Content struct {
	// Kind is "event", "detection" or "alert"; ID the event's or the alert's.
	Kind, ID  string
	Event     *event.Event
	Detection *detectionv1.Detection
	Alert     *alertv1.Alert
}

// Content decodes a dead record. A *NotReplayableError says why it is none that
// a replay could help.
func (d *Dead) Content() (Content, error) {
	if !d.Whole {
		return Content{}, refuse("the record was too large to be kept here, and the log has removed it since: send the event again")
	}
	schema := d.Header(event.HeaderSchema)
	switch {
	case d.GetTopic() == bus.TopicEvents && schema == event.SchemaEvent:
		e, err := event.Decode(d.GetValue())
		if err != nil {
			return Content{}, refuse("the bytes do not decode (%v): a replay would end here again", err)
		}
		if e.Tenant != d.GetTenant() || e.ID == "" {
			return Content{}, refuse("the event has no id, or another tenant than its record says")
		}
		return Content{Kind: "event", ID: e.ID, Event: &e}, nil
	case d.GetTopic() == bus.TopicDetections && schema == schemaDetection:
		v := new(detectionv1.Detection)
		if proto.Unmarshal(d.GetValue(), v) != nil {
			return Content{}, refuse("the bytes do not decode: a replay would end here again")
		}
		if v.GetTenant() != d.GetTenant() || v.GetEventId() == "" {
			return Content{}, refuse("the detection has no event id, or another tenant than its record says")
		}
		return Content{Kind: "detection", ID: v.GetEventId(), Detection: v}, nil
	case d.GetTopic() == bus.TopicAlerts && schema == schemaAlert:
		a := new(alertv1.Alert)
		if proto.Unmarshal(d.GetValue(), a) != nil {
			return Content{}, refuse("the bytes do not decode: a replay would end here again")
		}
		if a.GetTenant() != d.GetTenant() || a.GetId() == "" || string(d.GetKey()) != a.GetId() {
			return Content{}, refuse("the alert has no id, another tenant than its record says, or does not stand under its id")
		}
		return Content{Kind: "alert", ID: a.GetId(), Alert: a}, nil
	}
	return Content{}, refuse("a record of the schema %q in %s is none that can be replayed", schema, d.GetTopic())
}

// noUpstream stands for the partition of `events` of a replayed detection: what
// detect says of its own partitions does not make it a copy.
const noUpstream = -1

// Replay returns a dead record anew, under its old id, to be appended to the
// partition it came from. The old one stays recorded as skipped. An event is
// taken in again: it is judged by the rules in force now, and has a new ingest
// time, like a detection, since nothing may enter the log behind its watermark.
func (d *Dead) Replay(nowMS int64, manifestAll, manifestTenant []byte) (bus.Message, error) {
	c, err := d.Content()
	if err != nil {
		return bus.Message{}, err
	}
	m := bus.Message{Key: d.GetKey(), Value: d.GetValue()}
	switch {
	case c.Event != nil:
		e := c.Event
		e.IngestMS, e.ManifestAll, e.ManifestTenant = nowMS, manifestAll, manifestTenant
		e.Late, e.Early = event.Flags(e.TimeMS, e.IngestMS, e.LatenessMS)
		m.Value = event.Encode(nil, e)
	case c.Detection != nil:
		v := c.Detection
		v.IngestMs, v.Early = nowMS, v.GetTimeMs() > nowMS+event.EarlyMS
		v.UpstreamPartition, v.UpstreamOffset = noUpstream, 0
		if m.Value, err = (proto.MarshalOptions{Deterministic: true}).Marshal(v); err != nil {
			return bus.Message{}, fmt.Errorf("encode detection: %w", err)
		}
	}
	for _, h := range d.GetHeaders() {
		if h.GetKey() != HeaderReplayOf {
			m.Headers = append(m.Headers, bus.Header{Key: h.GetKey(), Value: h.GetValue()})
		}
	}
	m.Headers = append(m.Headers, bus.Header{Key: HeaderReplayOf, Value: []byte(bus.DeadKey(d.GetTopic(), int(d.GetPartition()), d.GetOffset()))})
	return m, nil
}
