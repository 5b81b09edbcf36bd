package notifier

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/telemetry"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// Outcomes, in short.
const (
	outcomeSucceeded = deliveryv1.Outcome_OUTCOME_SUCCEEDED
	outcomeFailed    = deliveryv1.Outcome_OUTCOME_FAILED
	outcomeParked    = deliveryv1.Outcome_OUTCOME_PARKED
	outcomeCancelled = deliveryv1.Outcome_OUTCOME_CANCELLED
)

// courier makes single attempts. It knows nothing of shards.
type courier struct {
	cfg       Config
	plan      plan
	control   Control
	addresses *addresses
	sender    Sender
	endpoints *endpoints
	tracer    trace.Tracer
	counts    *counts
	fault     Fault
	log       *slog.Logger
	clock     func() time.Time
}

// A verdict is what becomes of a claimed task.
type verdict struct {
	attempt *deliveryv1.Attempt // nil: nothing was tried, the lease is given back
	dueMS   int64               // 0: the task is done
	state   []byte
	// What it says of the endpoint.
	result   result
	throttle bool
	after    time.Duration
}

// again gives a task back untried.
func (c *courier) again(after time.Duration) verdict {
	return verdict{dueMS: c.clock().Add(after).UnixMilli()}
}

// pauseUnknown is how long a task rests that cannot be judged at the moment.
const pauseUnknown = 5 * time.Second

// try makes an attempt, or ends a task that needs none. An error is an
// injected fault.
func (c *courier) try(ctx context.Context, l *queue.Leased) (verdict, error) {
	t, err := decodeTask(l.State)
	if err != nil {
		return verdict{attempt: c.last(l, &t, outcomeParked, err.Error())}, nil
	}
	sub, err := c.subscription(ctx, t.Tenant, l.Endpoint)
	now := c.clock()
	switch {
	case err != nil:
		c.log.WarnContext(ctx, "subscriptions cannot be read, delivery waits", "error", err)
		return c.again(pauseUnknown), nil
	case sub == nil:
		return verdict{attempt: c.last(l, &t, outcomeCancelled, "the webhook was removed")}, nil
	case expired(sub, now.UnixMilli()):
		return verdict{attempt: c.last(l, &t, outcomeCancelled, "the webhook has expired")}, nil
	case sub.GetDisabled():
		reason := "the webhook is disabled: " + cmp.Or(sub.GetDisabledReason(), "no reason was given")
		return verdict{attempt: c.last(l, &t, outcomeParked, reason)}, nil
	case now.Sub(time.UnixMilli(t.WrittenMS)) > c.cfg.horizon() && t.Attempts > 0 && c.endpoints.fails(l.Endpoint):
		return verdict{attempt: c.last(l, &t, outcomeParked, "the webhook kept failing for as long as the schedule lasts")}, nil
	}
	return c.send(ctx, l, &t, sub)
}

// subscription returns an endpoint's, nil once it is surely gone.
func (c *courier) subscription(ctx context.Context, tenant, id string) (*controlv1.Subscription, error) {
	if s := find(c.control.Subscriptions(tenant), id); s != nil {
		return s, nil
	}
	// Another process may have read further when it routed the alert.
	if err := c.control.Sync(ctx); err != nil {
		return nil, err //nolint:wrapcheck // logged by the caller
	}
	return find(c.control.Subscriptions(tenant), id), nil
}

func find(subs []*controlv1.Subscription, id string) *controlv1.Subscription {
	i, ok := slices.BinarySearchFunc(subs, id, func(s *controlv1.Subscription, id string) int { return strings.Compare(s.GetId(), id) })
	if !ok {
		return nil
	}
	return subs[i]
}

// last is the record of a task that ends without a request.
func (c *courier) last(l *queue.Leased, t *task, outcome deliveryv1.Outcome, reason string) *deliveryv1.Attempt {
	a := c.attempt(l, t, c.clock())
	a.Number, a.Outcome, a.Error = uint32(t.Attempts), outcome, reason
	if sc := trace.SpanContextFromContext(t.context(context.Background())); sc.HasTraceID() {
		a.TraceId = sc.TraceID().String()
	}
	return a
}

func (c *courier) attempt(l *queue.Leased, t *task, now time.Time) *deliveryv1.Attempt {
	id, kind := ofName(l.Alert)
	return &deliveryv1.Attempt{
		Tenant: t.Tenant, AlertId: id, Type: kind, EndpointId: l.Endpoint, WebhookId: t.WebhookID, TimeMs: now.UnixMilli(),
	}
}

// context puts the trace of the alert's record into ctx.
func (t *task) context(ctx context.Context) context.Context {
	return extract(ctx, t.Traceparent, t.Tracestate)
}

func extract(ctx context.Context, traceparent, tracestate string) context.Context {
	return telemetry.Extract(ctx, []bus.Header{
		{Key: event.HeaderTraceparent, Value: []byte(traceparent)}, {Key: event.HeaderTracestate, Value: []byte(tracestate)},
	})
}

// send makes a request, in a span that is a child of the alert's own. Later
// attempts are its siblings and link to the first.
func (c *courier) send(ctx context.Context, l *queue.Leased, t *task, sub *controlv1.Subscription) (verdict, error) {
	now := c.clock()
	a := c.attempt(l, t, now)
	a.Number = uint32(t.Attempts) + 1
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("stormbell.webhook_id", t.WebhookID), attribute.Int("stormbell.attempt", t.Attempts+1)),
	}
	if t.First != "" {
		options = append(options, trace.WithLinks(trace.LinkFromContext(extract(context.WithoutCancel(ctx), t.First, ""))))
	}
	spanCtx, span := c.tracer.Start(t.context(ctx), "notify deliver", options...)
	defer span.End()
	if sc := span.SpanContext(); sc.HasTraceID() {
		a.TraceId, a.SpanId = sc.TraceID().String(), sc.SpanID().String()
		if t.First == "" {
			t.First = traceparentOf(a.TraceId, a.SpanId)
		}
	}
	resp, err := c.request(spanCtx, a, sub, t.WebhookID, l.Body)
	end := c.clock()
	a.DurationMs = end.Sub(now).Milliseconds()
	var cause *egress.Error
	if errors.As(err, &cause) && cause.Cancelled {
		span.SetStatus(codes.Error, "given up: the partition has another owner")
		return c.again(0), nil
	}
	if err := c.fault.at(PointSent); err != nil {
		return verdict{}, err
	}
	v := c.judge(ctx, a, t, sub, resp, end)
	span.SetAttributes(attribute.Int("http.response.status_code", int(a.GetStatusCode())), attribute.String("stormbell.outcome", outcomeName(a.GetOutcome())))
	if a.GetOutcome() != outcomeSucceeded {
		span.SetStatus(codes.Error, a.GetError())
	}
	c.counts.attempt(spanCtx, a, t, end)
	return v, nil
}

// request sends, and writes what came back into the attempt.
func (c *courier) request(ctx context.Context, a *deliveryv1.Attempt, sub *controlv1.Subscription, webhookID string, body []byte) (*egress.Response, error) {
	to, err := c.addresses.of(sub)
	if err == nil {
		var req *http.Request
		if req, err = to.letter(ctx, webhookID, body, c.clock()); err == nil {
			var resp *egress.Response
			if resp, err = c.sender.Do(req); err == nil {
				a.StatusCode, a.Response = int32(resp.Status), to.clean(resp.Body)
				return resp, nil
			}
		}
	}
	a.Error = strings.ToValidUTF8(err.Error(), "\uFFFD")
	return nil, err //nolint:wrapcheck // the attempt carries it
}

// judge decides by the response what comes next.
func (c *courier) judge(ctx context.Context, a *deliveryv1.Attempt, t *task, sub *controlv1.Subscription, resp *egress.Response, now time.Time) verdict {
	v := verdict{attempt: a, result: failed}
	status, after := int(a.GetStatusCode()), time.Duration(0)
	if resp != nil {
		after = c.plan.retryAfter(resp.Header, now)
	}
	switch {
	case status >= 200 && status < 300:
		a.Outcome, v.result = outcomeSucceeded, succeeded
		return v
	case status >= 300 && status < 400:
		a.Error = fmt.Sprintf("the endpoint answered %d: redirects are not followed", status)
	case status == http.StatusGone:
		a.Error, a.Outcome = "the endpoint answered 410: the webhook is disabled", outcomeParked
		c.disable(ctx, sub)
		return v
	case status != 0:
		a.Error = fmt.Sprintf("the endpoint answered %d", status)
	}
	v.throttle, v.after = throttles(status), after
	pause, more := c.plan.pause(t.WebhookID, a.GetEndpointId(), int(a.GetNumber()))
	if !more || t.Once {
		a.Outcome = outcomeParked
		return v
	}
	t.Attempts = int(a.GetNumber())
	a.Outcome, a.NextDueMs = outcomeFailed, now.Add(max(pause, after)).UnixMilli()
	v.dueMS, v.state = a.GetNextDueMs(), t.encode()
	return v
}

// disable takes an endpoint out of service that is gone for good, unless its
// subscription has changed since the request.
func (c *courier) disable(ctx context.Context, sub *controlv1.Subscription) {
	err := c.control.Sync(ctx)
	if err == nil {
		now := find(c.control.Subscriptions(sub.GetTenant()), sub.GetId())
		if now == nil || now.GetRevision() != sub.GetRevision() || now.GetDisabled() {
			return
		}
		changed := proto.CloneOf(now)
		changed.Disabled, changed.DisabledReason = true, "the endpoint answered 410 Gone"
		changed.Revision, changed.UpdatedMs = strings.ToLower(rand.Text()), c.clock().UnixMilli()
		err = c.control.Put(ctx, &controlv1.Control{Object: &controlv1.Control_Subscription{Subscription: changed}})
	}
	if err != nil {
		c.log.ErrorContext(ctx, "webhook is gone but could not be disabled", "tenant", sub.GetTenant(), "webhook", sub.GetId(), "error", err)
		return
	}
	c.log.WarnContext(ctx, "webhook disabled: the endpoint answered 410", "tenant", sub.GetTenant(), "webhook", sub.GetId())
}

func outcomeName(o deliveryv1.Outcome) string {
	return strings.ToLower(strings.TrimPrefix(o.String(), "OUTCOME_"))
}
