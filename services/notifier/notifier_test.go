package notifier_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
)

func TestDelivery(t *testing.T) {
	w := newWorld(t)
	r := w.receiver(nil)
	h := w.subscribe(r.URL + "/hook")
	n := w.start()
	a := w.newAlert()
	w.publish(a)
	attempts := w.ended(1, a)[a.GetId()]
	require.Len(t, attempts, 1)
	require.Equal(t, deliveryv1.Outcome_OUTCOME_SUCCEEDED, attempts[0].GetOutcome())
	require.Equal(t, uint32(1), attempts[0].GetNumber())
	require.Equal(t, int32(200), attempts[0].GetStatusCode())
	got := r.all()
	require.Len(t, got, 1)
	verify(t, h.secret, got[0])
	require.Equal(t, alert.WebhookID(a), got[0].header.Get("webhook-id"))
	require.Equal(t, "application/json", got[0].header.Get("Content-Type"))
	require.Empty(t, got[0].header.Get("baggage"))
	body, err := alert.Body(a)
	require.NoError(t, err)
	require.Equal(t, string(body), string(got[0].body))
	routed := w.routed(a)[a.GetId()]
	require.Len(t, routed, 1)
	require.Equal(t, h.GetId(), routed[0].GetTargets()[0].GetEndpointId())
	require.Equal(t, "r1", routed[0].GetTargets()[0].GetSubscriptionRevision())
	w.until(func() bool { return n.Ready() == nil })
	require.NoError(t, n.stop())
}

func TestNobodySubscribed(t *testing.T) {
	w := newWorld(t)
	w.start()
	a := w.newAlert()
	w.publish(a)
	routed := w.routed(a)[a.GetId()]
	require.Len(t, routed, 1)
	require.Empty(t, routed[0].GetTargets())
	// A new webhook receives no history, not even where the alert is published again.
	r := w.receiver(nil)
	w.subscribe(r.URL)
	b := w.newAlert()
	for bus.Partition([]byte(b.GetId()), 4) != bus.Partition([]byte(a.GetId()), 4) {
		b = w.newAlert()
	}
	w.publish(a, b)
	w.ended(1, b)
	require.Len(t, w.routed(a)[a.GetId()], 1)
	require.Equal(t, map[string]int{alert.WebhookID(b): 1}, r.bodies())
}

// TestUpdates holds that an alert and what it came to are two notices of one id:
// each is decided by itself, once, and goes to those who want its type.
func TestUpdates(t *testing.T) {
	w := newWorld(t)
	plain, both, only := w.receiver(nil), w.receiver(nil), w.receiver(nil)
	of := func(types ...string) func(*controlv1.Subscription) {
		return func(s *controlv1.Subscription) { s.Filter = &controlv1.Filter{Types: types} }
	}
	w.subscribe(plain.URL)
	w.subscribe(both.URL, of(alert.Type, alert.TypeUpdated))
	h := w.subscribe(only.URL, of(alert.TypeUpdated))
	n := w.start()
	a := w.newAlert()
	u := w.newAlert(func(x *alertv1.Alert) { x.Id, x.Type, x.Count = a.GetId(), alert.TypeUpdated, 41 })
	require.NotEqual(t, alert.WebhookID(a), alert.WebhookID(u))
	w.publish(a, u, a, u)
	w.until(func() bool { return len(both.bodies()) == 2 && len(only.bodies()) == 1 && len(plain.bodies()) == 1 })
	require.NoError(t, n.stop())
	w.start() // it reads what was decided and attempted
	b := w.newAlert()
	for bus.Partition([]byte(b.GetId()), 4) != bus.Partition([]byte(a.GetId()), 4) {
		b = w.newAlert()
	}
	w.publish(u, a, b)
	w.ended(2, b)
	require.Equal(t, map[string]int{alert.WebhookID(a): 1, alert.WebhookID(b): 1}, plain.bodies())
	require.Equal(t, map[string]int{alert.WebhookID(a): 1, alert.WebhookID(u): 1, alert.WebhookID(b): 1}, both.bodies())
	require.Equal(t, map[string]int{alert.WebhookID(u): 1}, only.bodies())
	verify(t, h.secret, only.all()[0])
	require.Contains(t, string(only.all()[0].body), `"type":"stormbell.alert.updated.v1"`)
	routed := w.routed(a)[a.GetId()]
	require.Len(t, routed, 2)
	require.Equal(t, []string{"", alert.TypeUpdated}, []string{routed[0].GetType(), routed[1].GetType()})
}
