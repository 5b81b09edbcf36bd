package notifier

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Values of the header schema.
const (
	schemaAlert   = "stormbell.alert.v1.Alert"
	schemaRouted  = "stormbell.delivery.v1.Routed"
	schemaAttempt = "stormbell.delivery.v1.Attempt"
)

const stageNotify = "notify"

// A notice is one alert, ready to be sent.
type notice struct {
	alert  *alertv1.Alert
	body   []byte
	record *bus.Record
}

// readNotice decodes a record of `alerts` and writes its body, which is the
// same whenever it is written. An error, or a panic, means that the record
// cannot be delivered, now or later.
func readNotice(r *bus.Record) (n *notice, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = nil, fmt.Errorf("alert panicked: %v", v)
		}
	}()
	if schema := string(r.Header(event.HeaderSchema)); schema != schemaAlert {
		return nil, fmt.Errorf("unknown schema %q", schema)
	}
	a := new(alertv1.Alert)
	if err := proto.Unmarshal(r.Value, a); err != nil {
		return nil, errors.New("not an alert: the bytes do not decode")
	}
	if a.GetId() == "" || a.GetTenant() == "" {
		return nil, errors.New("alert without id or tenant")
	}
	if string(r.Key) != a.GetId() {
		return nil, errors.New("alert under a key that is not its id")
	}
	body, err := alert.Body(a)
	if err != nil {
		return nil, fmt.Errorf("body cannot be written: %w", err)
	}
	return &notice{alert: a, body: body, record: r}, nil
}

// task is what the queue keeps for one delivery, beside the body.
type task struct {
	Tenant    string `json:"t"`
	WebhookID string `json:"w"`
	// Attempts is how many were made.
	Attempts int `json:"n,omitempty"`
	// Traceparent and Tracestate are those of the alert's record.
	Traceparent string `json:"p,omitempty"`
	Tracestate  string `json:"s,omitempty"`
	// First is the traceparent of the first attempt's span.
	First     string `json:"f,omitempty"`
	WrittenMS int64  `json:"c"`
	IngestMS  int64  `json:"i,omitempty"`
	// Once: there is no second attempt.
	Once bool `json:"o,omitempty"`
}

// name is what the notice is called by the queue and the ledger: an update of an
// alert is another than the alert.
func (n *notice) name() string { return noticeName(n.alert.GetId(), n.kind()) }

// kind is the webhook's type, where it is not that of alerts, as decisions and
// attempts have it.
func (n *notice) kind() string {
	if alert.TypeOf(n.alert) == alert.TypeUpdated {
		return alert.TypeUpdated
	}
	return ""
}

// updatedSuffix is in no id.
const updatedSuffix = "/updated"

func noticeName(id, kind string) string {
	if kind == alert.TypeUpdated {
		return id + updatedSuffix
	}
	return id
}

// ofName is what noticeName was of.
func ofName(name string) (id, kind string) {
	if id, ok := strings.CutSuffix(name, updatedSuffix); ok {
		return id, alert.TypeUpdated
	}
	return name, ""
}

func (n *notice) task() task {
	return task{
		Tenant: n.alert.GetTenant(), WebhookID: alert.WebhookID(n.alert), Once: alert.TypeOf(n.alert) == alert.TypeTest,
		Traceparent: string(n.record.Header(event.HeaderTraceparent)), Tracestate: string(n.record.Header(event.HeaderTracestate)),
		WrittenMS: n.record.Time.UnixMilli(), IngestMS: n.alert.GetIngestMs(),
	}
}

func (t *task) encode() []byte {
	b, _ := json.Marshal(t) // strings and numbers
	return b
}

func decodeTask(b []byte) (task, error) {
	var t task
	if err := json.Unmarshal(b, &t); err != nil {
		return t, errors.New("the queue's state of this delivery is damaged")
	}
	return t, nil
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m) //nolint:wrapcheck // callers say what it was
}

// newHeaders returns the headers of a record with a trace context, if there is
// one.
func newHeaders(schema, tenant, traceparent, tracestate string) []bus.Header {
	h := []bus.Header{
		{Key: event.HeaderSchema, Value: []byte(schema)},
		{Key: event.HeaderTenant, Value: []byte(tenant)},
	}
	if traceparent != "" {
		h = append(h, bus.Header{Key: event.HeaderTraceparent, Value: []byte(traceparent)})
		if tracestate != "" {
			h = append(h, bus.Header{Key: event.HeaderTracestate, Value: []byte(tracestate)})
		}
	}
	return h
}

// routedMessage is a decision as a record.
func routedMessage(r *deliveryv1.Routed, n *notice) (bus.Message, error) {
	value, err := marshal(r)
	if err != nil {
		return bus.Message{}, fmt.Errorf("encode decision on alert %s: %w", r.GetAlertId(), err)
	}
	headers := newHeaders(schemaRouted, r.GetTenant(), string(n.record.Header(event.HeaderTraceparent)), string(n.record.Header(event.HeaderTracestate)))
	return bus.Message{Key: []byte(r.GetAlertId()), Value: value, Headers: headers}, nil
}

// attemptMessage is an attempt, as it left the queue's outbox, as a record.
func attemptMessage(value []byte) (bus.Message, error) {
	a := new(deliveryv1.Attempt)
	if err := proto.Unmarshal(value, a); err != nil {
		return bus.Message{}, errors.New("an entry of the outbox is damaged: flush the queue, the log rebuilds it")
	}
	return bus.Message{
		Key: []byte(a.GetAlertId()), Value: value,
		Headers: newHeaders(schemaAttempt, a.GetTenant(), traceparentOf(a.GetTraceId(), a.GetSpanId()), ""),
	}, nil
}

// traceparentOf is empty without a trace.
func traceparentOf(traceID, spanID string) string {
	if traceID == "" || spanID == "" {
		return ""
	}
	return "00-" + traceID + "-" + spanID + "-01"
}
