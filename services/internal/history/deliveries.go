package history

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Routing is what became of an alert.
type Routing struct {
	// Routed is when it was decided whom it goes to; zero before that.
	Routed     time.Time
	Deliveries []Delivery
	// Unfinished says that the log was not read to its end: there may be more.
	Unfinished bool
}

// Delivery is how far an alert has got with one endpoint.
type Delivery struct {
	Endpoint string
	State    State
	Attempts int
	// The last attempt; LastTime is zero before it.
	LastTime   time.Time
	StatusCode int
	Error      string
	// NextDue is when it is tried again.
	NextDue time.Time
}

// State of a delivery.
type State string

// States of deliveries.
const (
	Waiting   State = "waiting"   // no attempt yet
	Retrying  State = "retrying"  // will be tried again
	Delivered State = "delivered" // accepted
	Parked    State = "parked"    // given up
	Cancelled State = "cancelled" // the webhook is gone
)

const (
	schemaRouted  = "stormbell.delivery.v1.Routed"
	schemaAttempt = "stormbell.delivery.v1.Attempt"
	// clocks of brokers and writers differ by less.
	clocks = 10 * time.Second
)

// routing reads the partition of `deliveries` from the alert's write time on,
// until all is decided or the bound is reached.
func (h *History) routing(ctx context.Context, partition int, a Alert) (Routing, error) {
	var out Routing
	from, err := h.log.OffsetAtTime(ctx, bus.TopicDeliveries, partition, a.Written.Add(-clocks))
	if err != nil {
		return out, err //nolint:wrapcheck // the bus names topic and partition
	}
	first, end, err := h.log.Offsets(ctx, bus.TopicDeliveries, partition)
	if err != nil {
		return out, err //nolint:wrapcheck // the bus names topic and partition
	}
	b := h.budget()
	t := &tape{log: h.log, topic: bus.TopicDeliveries, partition: partition, forward: true, lo: max(first, from), hi: end}
	for t.hungry() && !out.settled() {
		if b.spent() {
			out.Unfinished = true
			break
		}
		if err := t.fill(ctx, b); err != nil {
			return out, err
		}
		for i := range t.held {
			if string(t.held[i].Key) == a.GetId() {
				out.apply(&t.held[i], a.Alert)
			}
		}
		t.held = nil
	}
	return out, nil
}

// settled reports that nothing more can come.
func (r *Routing) settled() bool {
	for i := range r.Deliveries {
		if s := r.Deliveries[i].State; s == Waiting || s == Retrying {
			return false
		}
	}
	return !r.Routed.IsZero()
}

// apply takes a record about the alert; the first decision counts.
func (r *Routing) apply(rec *bus.Record, of *alertv1.Alert) {
	tenant, updated := of.GetTenant(), alert.TypeOf(of) == alert.TypeUpdated
	switch string(rec.Header(event.HeaderSchema)) {
	case schemaRouted:
		d := new(deliveryv1.Routed)
		if proto.Unmarshal(rec.Value, d) != nil || d.GetTenant() != tenant || (d.GetType() == alert.TypeUpdated) != updated || !r.Routed.IsZero() {
			return
		}
		r.Routed = time.UnixMilli(d.GetTimeMs())
		for _, t := range d.GetTargets() {
			r.Deliveries = append(r.Deliveries, Delivery{Endpoint: t.GetEndpointId(), State: Waiting})
		}
	case schemaAttempt:
		a := new(deliveryv1.Attempt)
		if proto.Unmarshal(rec.Value, a) != nil || a.GetTenant() != tenant || (a.GetType() == alert.TypeUpdated) != updated {
			return
		}
		for i := range r.Deliveries {
			if d := &r.Deliveries[i]; d.Endpoint == a.GetEndpointId() {
				d.attempted(a)
			}
		}
	}
}

func (d *Delivery) attempted(a *deliveryv1.Attempt) {
	if int(a.GetNumber()) < d.Attempts || d.State == Delivered {
		return // written again
	}
	d.Attempts = int(a.GetNumber())
	d.LastTime = time.UnixMilli(a.GetTimeMs())
	d.StatusCode, d.Error, d.NextDue = int(a.GetStatusCode()), a.GetError(), time.Time{}
	switch a.GetOutcome() {
	case deliveryv1.Outcome_OUTCOME_SUCCEEDED:
		d.State = Delivered
	case deliveryv1.Outcome_OUTCOME_PARKED:
		d.State = Parked
	case deliveryv1.Outcome_OUTCOME_CANCELLED:
		d.State = Cancelled
	default:
		d.State = Retrying
		if due := a.GetNextDueMs(); due != 0 {
			d.NextDue = time.UnixMilli(due)
		}
	}
}
