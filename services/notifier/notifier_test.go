package notifier_test

import (
	"testing"

	"github.com/stretchr/testify/require"

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
