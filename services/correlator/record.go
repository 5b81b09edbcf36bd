package correlator

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Values of the header schema, beside those of `events`.
const (
	schemaDetection = "stormbell.detection.v1.Detection"
	schemaWatermark = "stormbell.detection.v1.Watermark"
	schemaRuling    = "stormbell.detection.v1.Ruling"
	schemaSignal    = "stormbell.detection.v1.Signal"
	schemaAlert     = "stormbell.alert.v1.Alert"
)

// Labels of hashes. Two name a group: on the topic, where all revisions of
// a correlation share a partition, and in the store, where each has its own.
// The third stands for a long value.
const (
	groupLabel = "stormbell-group-1"
	stateLabel = "stormbell-state-1"
	valueLabel = "stormbell-value-1"
)

// groupKey is the key of a detection's record.
func groupKey(tenant, correlationID string, group []string) string {
	parts := make([]string, 0, len(group)+2)
	parts = append(parts, tenant, correlationID)
	return event.Hash(groupLabel, append(parts, group...)...)
}

// stateKey is the key of a group in the store. In the shadow a rule has a
// state of its own: which alerts there are must not depend on whether an event
// of the one time or of the other comes first.
func stateKey(d *detectionv1.Detection, shadow bool) string {
	var few [8]string
	parts := append(few[:0], d.GetTenant(), d.GetCorrelationId(), d.GetCorrelationRevision())
	parts = append(parts, d.GetGroup()...)
	if shadow {
		parts = append(parts, "shadow") // one more than the group has
	}
	return event.Hash(stateLabel, parts...)
}

// maxValue is how long a value is kept in a window as it is; a longer one is
// kept as its hash, so that a page of them fits into one call of the store.
const maxValue = 128

// tuple writes values so that different tuples differ; one short value stands
// for itself. All values of a correlation are tuples of the same length.
func tuple(values []string) string {
	var b []byte
	for _, v := range values {
		b = protowire.AppendString(b, v)
	}
	if len(b) > maxValue {
		return "#" + event.Hash(valueLabel, values...)
	}
	if len(values) == 1 {
		return "=" + values[0]
	}
	return "=" + string(b)
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m) //nolint:wrapcheck // callers say what it was
}

func header(headers []Header, key string) string {
	for _, h := range headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// newHeaders returns the headers of a record; the trace context goes on top.
func newHeaders(schema, tenant string) []Header {
	h := make([]Header, 0, 4)
	h = append(h, Header{Key: event.HeaderSchema, Value: []byte(schema)})
	if tenant != "" {
		h = append(h, Header{Key: event.HeaderTenant, Value: []byte(tenant)})
	}
	return h
}

// Kinds of outbox entries: where they are published.
const (
	toAlerts     = 1
	toDLQ        = 2
	toDetections = 3
	toState      = 4
)

// An outbox entry's body: the kind, then key, value and headers as fields.
const (
	fieldKey protowire.Number = iota + 1
	fieldValue
	fieldHeaderKey
	fieldHeaderValue
)

// message is one record on its way out.
type message struct {
	kind    byte
	key     []byte
	value   []byte
	headers []Header
}

func (m *message) encode() []byte {
	b := make([]byte, 1, 64+len(m.key)+len(m.value)+128*len(m.headers))
	b[0] = m.kind
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldKey, protowire.BytesType), m.key)
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldValue, protowire.BytesType), m.value)
	for _, h := range m.headers {
		b = protowire.AppendString(protowire.AppendTag(b, fieldHeaderKey, protowire.BytesType), h.Key)
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldHeaderValue, protowire.BytesType), h.Value)
	}
	return b
}

// decodeMessage reads an outbox entry. ok is false for bytes that no
// correlator wrote.
func decodeMessage(b []byte) (m message, ok bool) {
	if len(b) == 0 {
		return m, false
	}
	switch m.kind, b = b[0], b[1:]; m.kind {
	case toAlerts, toDLQ, toDetections, toState:
	default:
		return m, false
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.BytesType {
			return m, false
		}
		b = b[n:]
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return m, false
		}
		b = b[n:]
		switch {
		case num == fieldKey:
			m.key = v
		case num == fieldValue:
			m.value = v
		case num == fieldHeaderKey:
			m.headers = append(m.headers, Header{Key: string(v)})
		case num == fieldHeaderValue && len(m.headers) > 0:
			m.headers[len(m.headers)-1].Value = v
		}
	}
	return m, true
}
