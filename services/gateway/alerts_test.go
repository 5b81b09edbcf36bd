package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/event"
)

// fired writes alerts of a tenant and returns their ids.
func (w *world) fired(tenant string, n int) (ids []string) {
	w.t.Helper()
	for i := range n {
		at := int64(1_772_445_600_000 + i*1000)
		a := alert.New(&alert.Finding{
			ID: alert.StandAloneID(tenant, "r", "v", fmt.Sprint(i)), Tenant: tenant, TimeMS: at, IngestMS: at, StartMS: at, EndMS: at, Count: 1, Total: 1,
			Rule:   &alertv1.Rule{Id: "rule-1", Title: "Trail stopped", Level: "high", Type: "detection"},
			Group:  []*alertv1.GroupValue{{Field: "user", Value: fmt.Sprintf("user-%d", i%3)}},
			Events: []alert.Contribution{{ID: fmt.Sprint(i), TimeMS: at, Raw: []byte(`{"a":1}`)}},
		})
		ids = append(ids, a.GetId())
		w.told(bus.TopicAlerts, "stormbell.alert.v1.Alert", tenant, a.GetId(), a)
	}
	return ids
}

func (w *world) told(topic, schema, tenant, key string, m proto.Message) {
	w.t.Helper()
	value, err := proto.Marshal(m)
	require.NoError(w.t, err)
	require.NoError(w.t, w.bus.ProduceKeyed(w.t.Context(), topic, []bus.Message{{Key: []byte(key), Value: value, Headers: []bus.Header{
		{Key: event.HeaderSchema, Value: []byte(schema)}, {Key: event.HeaderTenant, Value: []byte(tenant)},
	}}}))
}

type alertsPage struct {
	Alerts []json.RawMessage
	Next   string
	Newer  string
}

func (e *edge) alerts(query string) (page alertsPage, ids []string) {
	e.w.t.Helper()
	r := e.do(http.MethodGet, "/v1/alerts?"+query, "")
	require.Equal(e.w.t, http.StatusOK, r.status, r.body)
	require.NoError(e.w.t, json.Unmarshal([]byte(r.body), &page))
	for _, a := range page.Alerts {
		var one struct{ ID string }
		require.NoError(e.w.t, json.Unmarshal(a, &one))
		ids = append(ids, one.ID)
	}
	return page, ids
}

// TestAlertsArePagedAcrossGateways: the second page comes from another gateway
// than the first.
func TestAlertsArePagedAcrossGateways(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	want := w.fired("acme", 60)
	w.fired("other", 5)
	page, got := e.alerts("limit=25")
	require.Len(t, got, 25)
	require.NotEmpty(t, page.Newer)
	newer := page.Newer
	fresh := w.fired("acme", 62)[60:]
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "docs", "reference", "alert.v1.schema.json") + "#/$defs/alert")
	require.NoError(t, err)
	for page.Next != "" {
		for _, a := range page.Alerts {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(a)))
			require.NoError(t, err)
			require.NoError(t, schema.Validate(v))
		}
		e.end()
		e = w.gateway()
		var ids []string
		page, ids = e.alerts("limit=25&cursor=" + page.Next)
		require.Empty(t, page.Newer)
		got = append(got, ids...)
	}
	require.ElementsMatch(t, want, got)
	_, got = e.alerts("limit=1000&cursor=" + newer)
	require.Subset(t, got, fresh)
	_, got = e.alerts("group=user-1&level=high&title=trail&rule=rule-1&from=2026-03-02T10:00:00Z&to=2026-03-02T10:00:10Z")
	require.ElementsMatch(t, []string{want[1], want[4], want[7], want[10]}, got)

	e.key = e.mint("third", control.ScopeRead)
	_, got = e.alerts("")
	require.Empty(t, got)
}

func TestAlertsRefuseWhatTheyDoNotKnow(t *testing.T) {
	e := newWorld(t).gateway()
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "level=grave": "level", "from=yesterday": "from", "to=1": "to",
		"rules=x": "rules", "rule=": "rule", "title=" + strings.Repeat("x", 257): "title", "cursor=x": "cursor", "cursor=x&cursor=y": "cursor",
	} {
		r := e.do(http.MethodGet, "/v1/alerts?"+query, "")
		require.Equal(t, http.StatusBadRequest, r.status, query)
		require.Equal(t, "invalid_field", r.code())
		require.Contains(t, r.body, `"field":"`+field+`"`, query)
	}
	e.key = e.mint("acme", control.ScopeIngest)
	for _, path := range []string{"/v1/alerts", "/v1/alerts/x", "/v1/dlq", "/v1/dlq/x"} {
		require.Equal(t, http.StatusForbidden, e.do(http.MethodGet, path, "").status)
	}
}

func TestAlertWithItsDeliveries(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	r := e.do(http.MethodPost, "/v1/webhooks", `{"url":"https://hooks.example.com/x","name":"soc"}`, "Content-Type", "application/json")
	require.Equal(t, http.StatusCreated, r.status, r.body)
	hook := r.json["id"].(string)
	id := w.fired("acme", 3)[1]
	show := func() reply { return e.do(http.MethodGet, "/v1/alerts/"+id, "") }
	r = show()
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.Empty(t, r.json["deliveries"])
	require.NotContains(t, r.json, "routed_at")
	w.told(bus.TopicDeliveries, "stormbell.delivery.v1.Routed", "acme", id, &deliveryv1.Routed{
		Tenant: "acme", AlertId: id, TimeMs: time.Now().UnixMilli(), Targets: []*deliveryv1.Target{{EndpointId: hook}},
	})
	w.told(bus.TopicDeliveries, "stormbell.delivery.v1.Attempt", "acme", id, &deliveryv1.Attempt{
		Tenant: "acme", AlertId: id, EndpointId: hook, Number: 1, TimeMs: time.Now().UnixMilli(), StatusCode: 503, Error: "HTTP 503",
		Outcome: deliveryv1.Outcome_OUTCOME_FAILED, NextDueMs: time.Now().Add(time.Minute).UnixMilli(), Response: []byte("canary-response"),
	})
	r = show()
	delivery := r.json["deliveries"].([]any)[0].(map[string]any)
	require.Equal(t, []any{hook, "soc", "https://hooks.example.com", "retrying", 1.0, 503.0, "HTTP 503"},
		[]any{delivery["webhook"], delivery["name"], delivery["url"], delivery["state"], delivery["attempts"], delivery["status_code"], delivery["error"]})
	require.Contains(t, r.json, "routed_at")
	require.NotContains(t, r.body, "canary", "what a receiver answers may hold its secrets")
	require.Equal(t, http.StatusNotFound, e.do(http.MethodGet, "/v1/alerts/"+strings.Repeat("0", 32), "").status)
	e.key = e.mint("other", control.ScopeRead)
	require.Equal(t, http.StatusNotFound, show().status)
}

// TestReadersAreFew: who looks back is refused where too many do, and who sends
// events does not notice.
func TestReadersAreFew(t *testing.T) {
	w := newWorld(t)
	slow := &held{Client: w.bus, entered: make(chan struct{}, 10), release: make(chan struct{})}
	e := w.gateway(func(c *gateway.Config, d *gateway.Deps) { c.MaxReaders = 2; d.History = slow })
	w.fired("acme", 1)
	done := make(chan int, 2)
	for range 2 {
		req := e.request(http.MethodGet, "/v1/alerts", "")
		go func() {
			res, err := e.client.Do(req)
			if err != nil {
				done <- 0
				return
			}
			_ = res.Body.Close()
			done <- res.StatusCode
		}()
		<-slow.entered
	}
	r := e.do(http.MethodGet, "/v1/dlq", "")
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.Equal(t, "quota_exceeded", r.code())
	require.NotEmpty(t, r.header.Get("Retry-After"))
	require.Equal(t, http.StatusAccepted, e.post(`{"a":1}`).status)
	close(slow.release)
	require.Equal(t, []int{http.StatusOK, http.StatusOK}, []int{<-done, <-done})
	require.Equal(t, http.StatusOK, e.do(http.MethodGet, "/v1/dlq", "").status)
}

func (w *world) buried(stage, reason string, r *bus.Record) string {
	w.t.Helper()
	m, err := bus.DeadLetter(r, stage, reason, 3)
	require.NoError(w.t, err)
	require.NoError(w.t, w.bus.ProduceKeyed(w.t.Context(), bus.TopicDLQ, []bus.Message{m}))
	return strings.ReplaceAll(string(m.Key), "/", "-")
}

func TestDeadLettersAreShownAndReplayed(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	headers := func(schema string) []bus.Header {
		return []bus.Header{
			{Key: event.HeaderSchema, Value: []byte(schema)},
			{Key: event.HeaderTenant, Value: []byte("acme")},
			{Key: event.HeaderTraceparent, Value: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")},
		}
	}
	good := w.buried("detect", "match panicked: boom", &bus.Record{
		Topic: bus.TopicEvents, Partition: 3, Offset: 41, Time: time.Now(), Headers: headers(event.SchemaEvent),
		Value: event.Encode(nil, &event.Event{ID: "e-1", Tenant: "acme", OwnTime: true, TimeMS: 1000, Raw: []byte(`{"who":"bob"}`)}),
	})
	bad := w.buried("detect", "malformed event record", &bus.Record{Topic: bus.TopicEvents, Partition: 3, Offset: 42, Headers: headers(event.SchemaEvent), Value: []byte{0xff}})
	large := w.buried("notify", "body cannot be written", &bus.Record{
		Topic: bus.TopicEvents, Offset: 43, Headers: headers(event.SchemaEvent),
		Value: event.Encode(nil, &event.Event{ID: "e-2", Tenant: "acme", Raw: []byte(`{"x":"` + strings.Repeat("y", 100_000) + `"}`)}),
	})

	r := e.do(http.MethodGet, "/v1/dlq?reason=panicked", "")
	require.Equal(t, http.StatusOK, r.status, r.body)
	list := r.json["dead_letters"].([]any)
	require.Len(t, list, 1)
	one := list[0].(map[string]any)
	require.Equal(t, []any{good, "event", "e-1", true, "4bf92f3577b34da6a3ce929d0e0e4736"}, []any{one["id"], one["kind"], one["record_id"], one["replayable"], one["trace_id"]})
	require.NotContains(t, one, "content")
	require.Len(t, e.do(http.MethodGet, "/v1/dlq", "").json["dead_letters"], 3)
	require.Len(t, e.do(http.MethodGet, "/v1/dlq?stage=notify&topic=events", "").json["dead_letters"], 1)
	require.Equal(t, http.StatusBadRequest, e.do(http.MethodGet, "/v1/dlq?stages=notify", "").status)

	r = e.do(http.MethodGet, "/v1/dlq/"+good, "")
	require.Equal(t, map[string]any{"who": "bob"}, r.json["content"].(map[string]any)["event"])
	r = e.do(http.MethodGet, "/v1/dlq/"+bad, "")
	require.Equal(t, "/w==", r.json["bytes"])
	require.Contains(t, r.json["why_not"], "do not decode")
	r = e.do(http.MethodGet, "/v1/dlq/"+large, "")
	require.Equal(t, true, r.json["truncated"])
	require.Less(t, len(r.body), 70<<10)

	require.Equal(t, http.StatusNotFound, e.do(http.MethodPost, "/v1/dlq/events-0-9/replay", "").status)
	r = e.do(http.MethodPost, "/v1/dlq/"+bad+"/replay", "")
	require.Equal(t, http.StatusConflict, r.status)
	require.Equal(t, "not_replayable", r.code())
	for range 2 {
		r = e.do(http.MethodPost, "/v1/dlq/"+good+"/replay", "")
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.Equal(t, "e-1", r.json["record_id"])
	}
	events, _ := w.events()
	require.Len(t, events, 2)
	for _, got := range events {
		require.Equal(t, 3, got.partition)
		require.Equal(t, "e-1", got.ID)
		require.True(t, got.Late)
		require.Equal(t, "events/3/41", got.headers["replay-of"])
		require.JSONEq(t, `{"who":"bob"}`, string(got.Raw))
	}

	reader := e.mint("acme", control.ScopeRead)
	e.key = e.mint("other", control.ScopeRead, control.ScopeManage)
	require.Empty(t, e.do(http.MethodGet, "/v1/dlq", "").json["dead_letters"])
	require.Equal(t, http.StatusNotFound, e.do(http.MethodGet, "/v1/dlq/"+good, "").status)
	require.Equal(t, http.StatusNotFound, e.do(http.MethodPost, "/v1/dlq/"+url.PathEscape(good)+"/replay", "").status)
	e.key = reader
	require.Equal(t, http.StatusForbidden, e.do(http.MethodPost, "/v1/dlq/"+good+"/replay", "").status)
}

// held is a log that waits to be let go.
type held struct {
	*bus.Client
	entered, release chan struct{}
}

func (h *held) Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	if topic == bus.TopicAlerts && partition == 0 {
		h.entered <- struct{}{}
		<-h.release
	}
	return h.Client.Offsets(ctx, topic, partition)
}
