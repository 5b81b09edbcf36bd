package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Deliveries is what a test message takes of the log: an alert out, its
// attempt back. *bus.Client is one. The topics `alerts` and `deliveries` have
// Deps.Partitions partitions, as `events` has.
type Deliveries interface {
	ProduceKeyed(ctx context.Context, topic string, msgs []bus.Message) error
	Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error)
	Fetch(ctx context.Context, topic string, partition int, offset int64) (records []bus.Record, end int64, err error)
}

// testPatience bounds how long a test waits for its attempt.
const testPatience = 30 * time.Second

// testBody says how an endpoint took a test message.
type testBody struct {
	Delivered bool `json:"delivered"`
	// StatusCode is 0 where there was no response.
	StatusCode int32  `json:"status_code"`
	Error      string `json:"error,omitempty"`
	DurationMS int64  `json:"duration_ms"`
}

// testWebhook sends a message to one webhook by the way of alerts, once, and
// answers how that went.
func (s *Service) testWebhook(c *gin.Context, id control.Identity) {
	sub, p := s.webhook(c, id)
	now := s.deps.Clock()
	switch {
	case p != nil:
		refuse(c, p)
		return
	case sub.GetDisabled():
		refuse(c, newProblem(http.StatusConflict, codeInvalid, "the webhook is disabled: enable it first"))
		return
	case sub.GetExpiresMs() != 0 && sub.GetExpiresMs() <= now.UnixMilli():
		refuse(c, newProblem(http.StatusConflict, codeInvalid, "the webhook has expired"))
		return
	case s.deps.Deliveries == nil:
		refuse(c, newProblem(http.StatusNotImplemented, codeUnavailable, "this gateway sends no test messages"))
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), testPatience)
	defer cancel()
	out, err := s.probe(ctx, testAlert(sub, now, traceID(ctx)))
	if err != nil {
		s.deps.Log.WarnContext(ctx, "test message not sent", "request_id", requestID(c), "webhook", sub.GetId(), "error", err)
		refuse(c, unavailable("the test message was not taken in time: it may still arrive", 2*time.Second))
		return
	}
	answer(c, http.StatusOK, out)
}

// testAlert is a message that says what it is for.
func testAlert(sub *controlv1.Subscription, now time.Time, traceID string) *alertv1.Alert {
	ms := now.UnixMilli()
	return &alertv1.Alert{
		Id: event.Hash("stormbell-test-1", sub.GetTenant(), newID("")), Type: alert.TypeTest, OnlyEndpoint: sub.GetId(),
		Tenant: sub.GetTenant(), TimeMs: ms, IngestMs: ms, FirstTimeMs: ms, LastTimeMs: ms, TraceId: traceID,
		Window: &alertv1.Window{StartMs: ms, EndMs: ms}, Summary: "This is a test of the webhook; nothing has happened.",
		Rule: &alertv1.Rule{Id: "stormbell.test", Title: "Test of a webhook", Level: "informational", Type: "test"},
	}
}

// probe writes an alert and waits for the end of its delivery.
func (s *Service) probe(ctx context.Context, a *alertv1.Alert) (testBody, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	if err != nil {
		return testBody{}, fmt.Errorf("encode test message: %w", err)
	}
	partition := bus.Partition([]byte(a.GetId()), s.deps.Partitions)
	_, from, err := s.deps.Deliveries.Offsets(ctx, bus.TopicDeliveries, partition)
	if err != nil {
		return testBody{}, fmt.Errorf("end of deliveries: %w", err)
	}
	headers := []bus.Header{
		{Key: event.HeaderSchema, Value: []byte("stormbell.alert.v1.Alert")},
		{Key: event.HeaderTenant, Value: []byte(a.GetTenant())},
	}
	if parent, state := traceHeaders(ctx); parent != "" {
		headers = append(headers, bus.Header{Key: event.HeaderTraceparent, Value: []byte(parent)})
		if state != "" {
			headers = append(headers, bus.Header{Key: event.HeaderTracestate, Value: []byte(state)})
		}
	}
	msg := bus.Message{Key: []byte(a.GetId()), Value: value, Headers: headers}
	if err := s.deps.Deliveries.ProduceKeyed(ctx, bus.TopicAlerts, []bus.Message{msg}); err != nil {
		return testBody{}, fmt.Errorf("write test message: %w", err)
	}
	attempt := s.awaitAttempt(ctx, partition, from, a.GetId())
	if attempt == nil {
		return testBody{Error: fmt.Sprintf("no attempt was made within %s: the notifier is behind or does not run", testPatience)}, nil
	}
	return testBody{
		Delivered: attempt.GetOutcome() == deliveryv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: attempt.GetStatusCode(),
		Error: attempt.GetError(), DurationMS: attempt.GetDurationMs(),
	}, nil
}

// awaitAttempt reads deliveries until the alert's ended, nil if ctx ends first.
func (s *Service) awaitAttempt(ctx context.Context, partition int, from int64, id string) *deliveryv1.Attempt {
	for ctx.Err() == nil {
		records, _, err := s.deps.Deliveries.Fetch(ctx, bus.TopicDeliveries, partition, from)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		for i := range records {
			r := &records[i]
			from = r.Offset + 1
			if string(r.Key) != id || string(r.Header(event.HeaderSchema)) != "stormbell.delivery.v1.Attempt" {
				continue
			}
			a := new(deliveryv1.Attempt)
			if proto.Unmarshal(r.Value, a) == nil && a.GetOutcome() != deliveryv1.Outcome_OUTCOME_FAILED {
				return a
			}
		}
	}
	return nil
}
