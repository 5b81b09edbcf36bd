package gateway_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/event"
)

// deliver answers each alert by an attempt, as a notifier's log shows it; that
// the notifier does so is held by its own tests and by the scenarios of e2e.
func (w *world) deliver(attempt func(a *alertv1.Alert) []*deliveryv1.Attempt) (alerts func() []*alertv1.Alert) {
	w.t.Helper()
	var (
		mu   sync.Mutex
		seen []*alertv1.Alert
		wg   sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	for p := range testPartitions {
		wg.Go(func() {
			_ = w.bus.Follow(ctx, bus.TopicAlerts, p, 0, func(records []bus.Record) error {
				for _, r := range records {
					a := new(alertv1.Alert)
					if err := proto.Unmarshal(r.Value, a); err != nil {
						return err
					}
					mu.Lock()
					seen = append(seen, a)
					mu.Unlock()
					for _, x := range attempt(a) {
						value, err := proto.Marshal(x)
						if err != nil {
							return err
						}
						msg := bus.Message{Key: []byte(x.GetAlertId()), Value: value, Headers: []bus.Header{{Key: event.HeaderSchema, Value: []byte("stormbell.delivery.v1.Attempt")}}}
						if err := w.bus.ProduceKeyed(ctx, bus.TopicDeliveries, []bus.Message{msg}); err != nil {
							return err
						}
					}
				}
				return nil
			})
		})
	}
	w.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return func() []*alertv1.Alert {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestWebhookTest(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) { d.Deliveries = w.bus })
	made := e.do(http.MethodPost, "/v1/webhooks", `{"url":"https://hooks.example.com/x","filter":{"min_level":"critical"}}`)
	require.Equal(t, http.StatusCreated, made.status, made.body)
	id, _ := made.json["id"].(string)
	answer := &deliveryv1.Attempt{Outcome: deliveryv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: 204, DurationMs: 12}
	alerts := w.deliver(func(a *alertv1.Alert) []*deliveryv1.Attempt {
		x := proto.CloneOf(answer)
		x.AlertId, x.EndpointId = a.GetId(), a.GetOnlyEndpoint()
		foreign := &deliveryv1.Attempt{AlertId: "another", Outcome: deliveryv1.Outcome_OUTCOME_PARKED, StatusCode: 999}
		return []*deliveryv1.Attempt{foreign, x}
	})
	got := e.do(http.MethodPost, "/v1/webhooks/"+id+"/test", "{}")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Equal(t, map[string]any{"delivered": true, "status_code": 204.0, "duration_ms": 12.0}, got.json)
	require.Len(t, alerts(), 1)
	a := alerts()[0]
	require.Equal(t, "stormbell.test.v1", a.GetType())
	require.Equal(t, "acme", a.GetTenant())
	require.Equal(t, id, a.GetOnlyEndpoint())
	require.Len(t, a.GetId(), 32)
	require.Len(t, a.GetTraceId(), 32)
}

func TestWebhookTestFails(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) { d.Deliveries = w.bus })
	made := e.do(http.MethodPost, "/v1/webhooks", `{"url":"https://hooks.example.com/x"}`)
	id, _ := made.json["id"].(string)
	w.deliver(func(a *alertv1.Alert) []*deliveryv1.Attempt {
		return []*deliveryv1.Attempt{{AlertId: a.GetId(), EndpointId: id, Outcome: deliveryv1.Outcome_OUTCOME_PARKED, Error: "connection refused", DurationMs: 3}}
	})
	got := e.do(http.MethodPost, "/v1/webhooks/"+id+"/test", "")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Equal(t, map[string]any{"delivered": false, "status_code": 0.0, "error": "connection refused", "duration_ms": 3.0}, got.json)
}

func TestWebhookTestRefused(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) { d.Deliveries = w.bus })
	put := func(sub *controlv1.Subscription) {
		require.NoError(t, e.view.Put(t.Context(), &controlv1.Control{Object: &controlv1.Control_Subscription{Subscription: sub}}))
	}
	put(&controlv1.Subscription{Id: "wh_off", Tenant: "acme", Disabled: true})
	put(&controlv1.Subscription{Id: "wh_old", Tenant: "acme", ExpiresMs: time.Now().UnixMilli() - 1})
	put(&controlv1.Subscription{Id: "wh_foreign", Tenant: "other"})
	for id, want := range map[string]int{"wh_off": 409, "wh_old": 409, "wh_foreign": 404, "wh_none": 404} {
		require.Equal(t, want, e.do(http.MethodPost, "/v1/webhooks/"+id+"/test", "{}").status, id)
	}
	e.key = e.mint("acme", control.ScopeRead)
	require.Equal(t, http.StatusForbidden, e.do(http.MethodPost, "/v1/webhooks/wh_off/test", "{}").status)

	none := w.gateway(func(_ *gateway.Config, d *gateway.Deps) { d.Deliveries = nil })
	put(&controlv1.Subscription{Id: "wh_on", Tenant: "acme"})
	require.NoError(t, none.view.Sync(t.Context()))
	require.Equal(t, http.StatusNotImplemented, none.do(http.MethodPost, "/v1/webhooks/wh_on/test", "{}").status)
}
