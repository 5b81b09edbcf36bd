package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// world is a broker with topics.
type world struct {
	t   testing.TB
	bus *bus.Client
	n   int // alerts made
}

func newWorld(t testing.TB) *world {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Compression = "none" // lz4 takes 4 MiB for each batch, which the race detector watches byte by byte
	return newWorldOf(t, cfg)
}

func newCompressed(t testing.TB) *world { return newWorldOf(t, bus.DefaultConfig()) }

func newWorldOf(t testing.TB, cfg bus.Config) *world {
	t.Helper()
	cfg.Brokers = []string{embeddedtest.Start(t).Addr()}
	c, err := bus.New(cfg, slog.New(slog.DiscardHandler), noop.NewMeterProvider())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	topics := bus.DefaultTopicsConfig()
	topics.Partitions = partitions
	_, err = c.EnsureTopics(t.Context(), topics)
	require.NoError(t, err)
	return &world{t: t, bus: c}
}

func (w *world) history() *history.History { return w.limited(history.DefaultLimits()) }

func (w *world) limited(l history.Limits) *history.History {
	return history.New(w.bus, partitions, l, time.Now)
}

const base = 1_772_445_600_000

// alert makes one; change makes it special.
func (w *world) alert(change ...func(*alertv1.Alert)) *alertv1.Alert {
	w.n++
	at := int64(base + w.n*1000)
	a := alert.New(&alert.Finding{
		ID: alert.StandAloneID("acme", "r", "v", fmt.Sprint(w.n)), Tenant: "acme", TimeMS: at, IngestMS: at, StartMS: at, EndMS: at, Count: 1, Total: 1,
		Rule:   &alertv1.Rule{Id: "rule-1", Title: "Trail stopped", Level: "high", Tags: []string{"attack.impact"}, Type: "detection"},
		Events: []alert.Contribution{{ID: fmt.Sprint(w.n), TimeMS: at, Source: "aws/cloudtrail", Raw: []byte(`{"a":1}`)}},
	})
	for _, c := range change {
		c(a)
	}
	return a
}

func message(t testing.TB, schema, tenant, key string, m proto.Message) bus.Message {
	value, err := proto.Marshal(m)
	require.NoError(t, err)
	return bus.Message{Key: []byte(key), Value: value, Headers: []bus.Header{{Key: "schema", Value: []byte(schema)}, {Key: "tenant", Value: []byte(tenant)}}}
}

func (w *world) publish(alerts ...*alertv1.Alert) {
	w.t.Helper()
	msgs := make([]bus.Message, 0, len(alerts))
	for _, a := range alerts {
		msgs = append(msgs, message(w.t, "stormbell.alert.v1.Alert", a.GetTenant(), a.GetId(), a))
	}
	require.NoError(w.t, w.bus.ProduceKeyed(w.t.Context(), bus.TopicAlerts, msgs))
}

// some publishes alerts, few at a time, and returns their ids.
func (w *world) some(n int) (ids []string) {
	w.t.Helper()
	for len(ids) < n {
		var batch []*alertv1.Alert
		for range min(n-len(ids), 7) {
			batch = append(batch, w.alert())
			ids = append(ids, batch[len(batch)-1].GetId())
		}
		w.publish(batch...)
	}
	return ids
}

func idsOf(items []history.Alert) (ids []string) {
	for _, a := range items {
		ids = append(ids, a.GetId())
	}
	return ids
}

// all reads page after page; between is called after each.
func all(t testing.TB, h *history.History, f history.Filter, limit int, between func() *history.History) (items []history.Alert, pages int, newer string) {
	t.Helper()
	cursor := ""
	for {
		page, err := h.Alerts(t.Context(), "acme", f, limit, cursor)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Items), limit)
		items = append(items, page.Items...)
		if pages++; pages == 1 {
			newer = page.Newer
		}
		if cursor = page.Next; cursor == "" {
			return items, pages, newer
		}
		if between != nil {
			h = between()
		}
	}
}

// TestAlertsAreListedWholeWhileOthersAreWritten: what was there at the first page
// comes once, in order, whoever writes meanwhile and whichever gateway answers.
func TestAlertsAreListedWholeWhileOthersAreWritten(t *testing.T) {
	for name, l := range map[string]history.Limits{
		"with room":         history.DefaultLimits(),
		"within few bytes":  {Records: 1_000_000, Bytes: 10_000, Answer: 3000, Time: time.Minute},
		"within few reads":  {Records: 50, Bytes: 1 << 30, Answer: 1 << 30, Time: time.Minute},
		"without any bound": {Records: 1 << 40, Bytes: 1 << 40, Answer: 1 << 40, Time: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.some(437)
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			others := &world{t: t, bus: w.bus, n: 1_000_000}
			wg.Go(func() {
				for ctx.Err() == nil {
					a := others.alert()
					_ = w.bus.ProduceKeyed(ctx, bus.TopicAlerts, []bus.Message{message(t, "stormbell.alert.v1.Alert", "acme", a.GetId(), a)})
				}
			})
			items, pages, _ := all(t, w.limited(l), history.Filter{}, 23, func() *history.History { return w.limited(l) })
			seen := map[string]int{}
			for _, id := range idsOf(items) {
				seen[id]++
			}
			for _, id := range before {
				require.Equal(t, 1, seen[id], id)
			}
			require.GreaterOrEqual(t, pages, len(before)/23)
			require.True(t, slices.IsSortedFunc(items, func(a, b history.Alert) int { return b.Written.Compare(a.Written) }), "newest first")
		})
	}
}

func TestNewerGoesOnWhereTheFirstPageBegan(t *testing.T) {
	w := newWorld(t)
	w.some(50)
	_, _, newer := all(t, w.history(), history.Filter{}, 20, nil)
	var got []string
	var want []string
	for round := range 4 {
		if round > 0 { // at first there is nothing new
			want = append(want, w.some(17)...)
		}
		for {
			page, err := w.history().Alerts(t.Context(), "acme", history.Filter{}, 5, newer)
			require.NoError(t, err)
			require.NotEmpty(t, page.Newer)
			got = append(got, idsOf(page.Items)...)
			newer = page.Newer
			if page.Next == "" {
				break
			}
			require.Equal(t, page.Next, page.Newer)
		}
		require.ElementsMatch(t, want, got)
	}
}

func TestFilters(t *testing.T) {
	w := newWorld(t)
	low := w.alert(func(a *alertv1.Alert) {
		a.Rule = &alertv1.Rule{Id: "rule-2", Title: "Odd login", Level: "low", Tags: []string{"attack.t1078"}}
	})
	group := w.alert(func(a *alertv1.Alert) {
		a.Group = []*alertv1.GroupValue{{Field: "user", Value: "bob"}, {Field: "ip", Value: "192.0.2.1"}}
	})
	late := w.alert(func(a *alertv1.Alert) { a.TimeMs = base + 9_000_000; a.Sources = []string{"agent"} })
	plain := w.alert()
	foreign := w.alert(func(a *alertv1.Alert) { a.Tenant = "other" })
	test := w.alert(func(a *alertv1.Alert) { a.Type = alert.TypeTest })
	w.publish(low, group, late, plain, foreign, test)
	// What nobody can read is passed over, as is a tenant that only the header claims.
	require.NoError(t, w.bus.ProduceKeyed(t.Context(), bus.TopicAlerts, []bus.Message{
		{Key: []byte("x"), Value: []byte{0xff}, Headers: []bus.Header{{Key: "schema", Value: []byte("stormbell.alert.v1.Alert")}, {Key: "tenant", Value: []byte("acme")}}},
		message(t, "stormbell.alert.v1.Alert", "acme", foreign.GetId(), foreign),
		message(t, "stormbell.other", "acme", plain.GetId(), plain),
	}))
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	for name, tc := range map[string]struct {
		f    history.Filter
		want []*alertv1.Alert
	}{
		"all":              {history.Filter{}, []*alertv1.Alert{low, group, late, plain}},
		"rule":             {history.Filter{RuleIDs: []string{"rule-2", "rule-3"}}, []*alertv1.Alert{low}},
		"level":            {history.Filter{MinLevel: "medium"}, []*alertv1.Alert{group, late, plain}},
		"highest level":    {history.Filter{MinLevel: "critical"}, nil},
		"tag":              {history.Filter{Tags: []string{"attack.t1078"}}, []*alertv1.Alert{low}},
		"source":           {history.Filter{Sources: []string{"agent"}}, []*alertv1.Alert{late}},
		"group":            {history.Filter{Groups: []string{"192.0.2.1"}}, []*alertv1.Alert{group}},
		"no such group":    {history.Filter{Groups: []string{"user"}}, nil},
		"title":            {history.Filter{Title: "LOGIN"}, []*alertv1.Alert{low}},
		"from":             {history.Filter{From: at(base + 9_000_000)}, []*alertv1.Alert{late}},
		"to":               {history.Filter{To: at(low.GetTimeMs())}, []*alertv1.Alert{low}},
		"just too early":   {history.Filter{To: at(low.GetTimeMs() - 1)}, nil},
		"two that exclude": {history.Filter{Tags: []string{"attack.t1078"}, MinLevel: "high"}, nil},
	} {
		items, _, _ := all(t, w.history(), tc.f, 2, nil)
		var want []string
		for _, a := range tc.want {
			want = append(want, a.GetId())
		}
		require.ElementsMatch(t, want, idsOf(items), name)
	}
	page, err := w.history().Alerts(t.Context(), "nobody", history.Filter{}, 10, "")
	require.NoError(t, err)
	require.Empty(t, page.Items)
}

func TestCopiesAreOneOfAPage(t *testing.T) {
	w := newWorld(t)
	a, b := w.alert(), w.alert()
	w.publish(a, b)
	w.publish(a)
	page, err := w.history().Alerts(t.Context(), "acme", history.Filter{}, 10, "")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{a.GetId(), b.GetId()}, idsOf(page.Items))
}

func TestCursorsOfOthersAreRefused(t *testing.T) {
	w := newWorld(t)
	w.some(100)
	page, err := w.history().Alerts(t.Context(), "acme", history.Filter{}, 10, "")
	require.NoError(t, err)
	for name, call := range map[string]func() error{
		"another filter": func() error {
			_, err := w.history().Alerts(t.Context(), "acme", history.Filter{Title: "x"}, 10, page.Next)
			return err
		},
		"another tenant": func() error {
			_, err := w.history().Alerts(t.Context(), "other", history.Filter{}, 10, page.Next)
			return err
		},
		"another topic": func() error {
			_, err := w.history().DeadLetters(t.Context(), "acme", history.DeadFilter{}, 10, page.Next)
			return err
		},
		"another log": func() error {
			_, err := newWorld(t).history().Alerts(t.Context(), "acme", history.Filter{}, 10, page.Next)
			return err
		},
		"garbage": func() error {
			_, err := w.history().Alerts(t.Context(), "acme", history.Filter{}, 10, "garbage")
			return err
		},
	} {
		require.ErrorIs(t, call(), history.ErrCursor, name)
	}
	_, err = w.history().Alerts(t.Context(), "acme", history.Filter{}, 99, page.Next)
	require.NoError(t, err, "another limit is no other query")
}

// counting counts what is fetched.
type counting struct {
	history.Log
	records int
}

func (c *counting) FetchAtMost(ctx context.Context, topic string, partition int, offset int64, bytes int) ([]bus.Record, int64, error) {
	records, end, err := c.Log.FetchAtMost(ctx, topic, partition, offset, bytes)
	c.records += len(records)
	return records, end, err
}

// TestLookUpReadsNothingTwice counts what it costs to find ids.
func TestLookUpReadsNothingTwice(t *testing.T) {
	w := newWorld(t)
	ids := w.some(2000)
	log := &counting{Log: w.bus}
	h := history.New(log, partitions, history.DefaultLimits(), time.Now)
	_, _, err := h.Alert(t.Context(), "acme", strings.Repeat("0", 32))
	require.ErrorIs(t, err, history.ErrNotFound)
	for _, id := range ids[:50] {
		a, _, err := h.Alert(t.Context(), "acme", id)
		require.NoError(t, err)
		require.Equal(t, id, a.GetId())
	}
	_, _, err = h.Alert(t.Context(), "other", ids[0])
	require.ErrorIs(t, err, history.ErrNotFound, "what belongs to another tenant does not exist")
	log.records = 0
	_, _, err = h.Alert(t.Context(), "acme", strings.Repeat("0", 32))
	require.ErrorIs(t, err, history.ErrNotFound)
	require.Zero(t, log.records)
	fresh := w.some(5)
	a, _, err := h.Alert(t.Context(), "acme", fresh[4])
	require.NoError(t, err)
	require.Equal(t, fresh[4], a.GetId())
	require.Less(t, log.records, 1000, "what is new, and the record itself with its batch and those behind it")
}

// TestLookUpIsBounded: each call gets on, and in the end the id is found.
func TestLookUpIsBounded(t *testing.T) {
	w := newWorld(t)
	ids := w.some(3000)
	h := w.limited(history.Limits{Records: 100, Bytes: 1 << 20, Answer: 1 << 20, Time: time.Minute})
	calls := 0
	for {
		a, _, err := h.Alert(t.Context(), "acme", ids[0])
		if err == nil {
			require.Equal(t, ids[0], a.GetId())
			break
		}
		require.ErrorIs(t, err, history.ErrUnfinished)
		calls++
		require.Less(t, calls, 100)
	}
	require.Positive(t, calls)
}

func TestRouting(t *testing.T) {
	w := newWorld(t)
	w.some(20)
	a := w.alert()
	w.publish(a)
	h := w.history()
	_, r, err := h.Alert(t.Context(), "acme", a.GetId())
	require.NoError(t, err)
	require.True(t, r.Routed.IsZero())
	require.Empty(t, r.Deliveries)

	tell := func(schema string, m proto.Message) {
		t.Helper()
		require.NoError(t, w.bus.ProduceKeyed(t.Context(), bus.TopicDeliveries, []bus.Message{message(t, "stormbell.delivery.v1."+schema, "acme", a.GetId(), m)}))
	}
	routed := func(at int64, endpoints ...string) *deliveryv1.Routed {
		r := &deliveryv1.Routed{Tenant: "acme", AlertId: a.GetId(), TimeMs: at}
		for _, e := range endpoints {
			r.Targets = append(r.Targets, &deliveryv1.Target{EndpointId: e})
		}
		return r
	}
	attempt := func(endpoint string, n uint32, status int32, o deliveryv1.Outcome, due int64) *deliveryv1.Attempt {
		return &deliveryv1.Attempt{Tenant: "acme", AlertId: a.GetId(), EndpointId: endpoint, Number: n, TimeMs: base + int64(n), StatusCode: status, Outcome: o, NextDueMs: due}
	}
	tell("Routed", routed(base, "a", "b", "c", "d", "e"))
	tell("Routed", routed(base+1, "late")) // a copy: the first decision counts
	tell("Attempt", attempt("a", 1, 500, deliveryv1.Outcome_OUTCOME_FAILED, base+9))
	tell("Attempt", attempt("a", 2, 204, deliveryv1.Outcome_OUTCOME_SUCCEEDED, 0))
	tell("Attempt", attempt("a", 1, 500, deliveryv1.Outcome_OUTCOME_FAILED, base+9)) // written again
	tell("Attempt", attempt("b", 3, 503, deliveryv1.Outcome_OUTCOME_FAILED, base+7))
	tell("Attempt", attempt("c", 10, 410, deliveryv1.Outcome_OUTCOME_PARKED, 0))
	tell("Attempt", attempt("d", 0, 0, deliveryv1.Outcome_OUTCOME_CANCELLED, 0))
	_, r, err = h.Alert(t.Context(), "acme", a.GetId())
	require.NoError(t, err)
	require.False(t, r.Unfinished)
	require.EqualValues(t, base, r.Routed.UnixMilli())
	require.Len(t, r.Deliveries, 5)
	var got []string
	for _, d := range r.Deliveries {
		got = append(got, fmt.Sprintf("%s %s %d %d %d", d.Endpoint, d.State, d.Attempts, d.StatusCode, max(0, d.NextDue.UnixMilli())))
	}
	require.Equal(t, []string{
		"a delivered 2 204 0", fmt.Sprintf("b retrying 3 503 %d", base+7), "c parked 10 410 0", "d cancelled 0 0 0", "e waiting 0 0 0",
	}, got)

	small := w.limited(history.Limits{Records: 3, Bytes: 1 << 20, Answer: 1 << 20, Time: time.Minute})
	for range 300 {
		tell("Attempt", attempt("e", 1, 500, deliveryv1.Outcome_OUTCOME_FAILED, base+9))
	}
	for err = history.ErrUnfinished; err != nil; _, r, err = small.Alert(t.Context(), "acme", a.GetId()) {
		require.ErrorIs(t, err, history.ErrUnfinished)
	}
	require.NotEmpty(t, r.Deliveries)
}

// bury writes dead letters and returns the records in them.
func (w *world) bury(stage, reason string, records ...*bus.Record) {
	w.t.Helper()
	for _, r := range records {
		m, err := bus.DeadLetter(r, stage, reason, 3)
		require.NoError(w.t, err)
		require.NoError(w.t, w.bus.ProduceKeyed(w.t.Context(), bus.TopicDLQ, []bus.Message{m}))
	}
}

func deadRecord(topic, schema, tenant string, offset int64, key, value []byte) *bus.Record {
	return &bus.Record{Topic: topic, Partition: 2, Offset: offset, Time: time.UnixMilli(base), Key: key, Value: value, Headers: []bus.Header{
		{Key: "schema", Value: []byte(schema)}, {Key: "tenant", Value: []byte(tenant)}, {Key: "traceparent", Value: []byte("00-aa-bb-01")},
	}}
}

func TestDeadLetters(t *testing.T) {
	w := newWorld(t)
	h := w.history()
	e := deadRecord(bus.TopicEvents, event.SchemaEvent, "acme", 7, nil, event.Encode(nil, &event.Event{ID: "e-1", Tenant: "acme", Raw: []byte(`{}`)}))
	w.bury("detect", "match panicked: boom", e)
	w.bury("detect", "match panicked: boom", e) // written again
	w.bury("notify", "not an alert", deadRecord(bus.TopicAlerts, "stormbell.alert.v1.Alert", "acme", 8, []byte("k"), []byte{0xff}))
	w.bury("detect", "of another", deadRecord(bus.TopicEvents, event.SchemaEvent, "other", 9, nil, nil))
	w.bury("detect", "of nobody", deadRecord(bus.TopicEvents, event.SchemaTick, "", 10, nil, nil))
	list := func(f history.DeadFilter) (ids []string) {
		page, err := h.DeadLetters(t.Context(), "acme", f, 10, "")
		require.NoError(t, err)
		require.Empty(t, page.Next)
		for _, d := range page.Items {
			ids = append(ids, d.ID)
		}
		return ids
	}
	require.Equal(t, []string{"alerts-2-8", "events-2-7"}, list(history.DeadFilter{}))
	require.Equal(t, []string{"events-2-7"}, list(history.DeadFilter{Topic: "events"}))
	require.Equal(t, []string{"alerts-2-8"}, list(history.DeadFilter{Stage: "notify"}))
	require.Equal(t, []string{"events-2-7"}, list(history.DeadFilter{Reason: "BOOM"}))

	d, err := h.DeadLetter(t.Context(), "acme", "events-2-7")
	require.NoError(t, err)
	require.Equal(t, "match panicked: boom", d.GetReason())
	require.False(t, d.Buried.IsZero())
	for _, id := range []string{"events-2-9", "events-2-10", "events-2-11", "events-2", "", "../x", "events-2-99999999999999999999"} {
		_, err := h.DeadLetter(t.Context(), "acme", id)
		require.ErrorIs(t, err, history.ErrNotFound, id)
	}
}

// TestTooLargeIsReadWhereItStood as long as the log has it.
func TestTooLargeIsReadWhereItStood(t *testing.T) {
	w := newWorld(t)
	large := event.Encode(nil, &event.Event{ID: "e-1", Tenant: "acme", Raw: []byte(`{"x":"` + strings.Repeat("y", bus.MaxDead) + `"}`)})
	headers := deadRecord("", event.SchemaEvent, "acme", 0, nil, nil).Headers
	at, err := w.bus.Produce(t.Context(), bus.TopicEvents, 2, []bus.Message{{Value: large, Headers: headers}})
	require.NoError(t, err)
	w.bury("detect", "boom", deadRecord(bus.TopicEvents, event.SchemaEvent, "acme", at, nil, large), deadRecord(bus.TopicEvents, event.SchemaEvent, "acme", at+5, nil, large))
	d, err := w.history().DeadLetter(t.Context(), "acme", fmt.Sprintf("events-2-%d", at))
	require.NoError(t, err)
	c, err := d.Content()
	require.NoError(t, err)
	require.Equal(t, "e-1", c.ID)
	d, err = w.history().DeadLetter(t.Context(), "acme", fmt.Sprintf("events-2-%d", at+5))
	require.NoError(t, err)
	_, err = d.Content()
	var no *history.NotReplayableError
	require.ErrorAs(t, err, &no)
	require.Contains(t, no.Why, "removed it since")
}

func TestReplay(t *testing.T) {
	const now = base + 3_600_000
	e := &event.Event{ID: "e-1", Tenant: "acme", TimeMS: base, OwnTime: true, IngestMS: base + 5, LatenessMS: 60_000, ManifestAll: []byte("old"), Raw: []byte(`{"a":1}`)}
	det := &detectionv1.Detection{Tenant: "acme", EventId: "e-2", TimeMs: base, IngestMs: base, UpstreamPartition: 1, UpstreamOffset: 99, Group: []string{"bob"}}
	a := (&world{t: t}).alert()
	value := func(m proto.Message) []byte { return message(t, "", "", "", m).Value }
	dead := func(r *bus.Record) history.Dead {
		m, err := bus.DeadLetter(r, "x", "y", 1)
		require.NoError(t, err)
		d, whole, ok := bus.ReadDeadLetter(&bus.Record{Value: m.Value, Headers: m.Headers})
		require.True(t, ok)
		return history.Dead{DeadLetter: d, Whole: whole}
	}
	for name, tc := range map[string]struct {
		r     *bus.Record
		check func(m bus.Message)
	}{
		"event": {deadRecord(bus.TopicEvents, event.SchemaEvent, "acme", 7, nil, event.Encode(nil, e)), func(m bus.Message) {
			got, err := event.Decode(m.Value)
			require.NoError(t, err)
			want := *e
			want.IngestMS, want.ManifestAll, want.ManifestTenant, want.Late = now, []byte("all"), []byte("own"), true
			require.Equal(t, want, got, "it is judged anew, as the same event")
		}},
		"detection": {deadRecord(bus.TopicDetections, "stormbell.detection.v1.Detection", "acme", 7, []byte("group"), value(det)), func(m bus.Message) {
			got := new(detectionv1.Detection)
			require.NoError(t, proto.Unmarshal(m.Value, got))
			want := proto.CloneOf(det)
			want.IngestMs, want.UpstreamPartition, want.UpstreamOffset = now, -1, 0
			require.True(t, proto.Equal(want, got), "%s", got)
			require.Equal(t, "group", string(m.Key))
		}},
		"alert": {deadRecord(bus.TopicAlerts, "stormbell.alert.v1.Alert", "acme", 7, []byte(a.GetId()), value(a)), func(m bus.Message) {
			require.Equal(t, value(a), m.Value)
			require.Equal(t, a.GetId(), string(m.Key))
		}},
	} {
		d := dead(tc.r)
		m, err := d.Replay(now, []byte("all"), []byte("own"))
		require.NoError(t, err, name)
		tc.check(m)
		headers := map[string]string{}
		for _, h := range m.Headers {
			headers[h.Key] = string(h.Value)
		}
		require.Equal(t, map[string]string{
			"schema": headers["schema"], "tenant": "acme", "traceparent": "00-aa-bb-01", "replay-of": tc.r.Topic + "/2/7",
		}, headers, name)
	}
	for name, r := range map[string]*bus.Record{
		"bytes that do not decode":       deadRecord(bus.TopicEvents, event.SchemaEvent, "acme", 1, nil, []byte{0xff}),
		"detection that does not decode": deadRecord(bus.TopicDetections, "stormbell.detection.v1.Detection", "acme", 1, nil, []byte{0xff}),
		"alert that does not decode":     deadRecord(bus.TopicAlerts, "stormbell.alert.v1.Alert", "acme", 1, nil, []byte{0xff}),
		"alert under another key":        deadRecord(bus.TopicAlerts, "stormbell.alert.v1.Alert", "acme", 1, []byte("x"), value(a)),
		"another tenant's event":         deadRecord(bus.TopicEvents, event.SchemaEvent, "mallory", 1, nil, event.Encode(nil, e)),
		"another tenant's detection":     deadRecord(bus.TopicDetections, "stormbell.detection.v1.Detection", "mallory", 1, nil, value(det)),
		"another tenant's alert":         deadRecord(bus.TopicAlerts, "stormbell.alert.v1.Alert", "mallory", 1, []byte(a.GetId()), value(a)),
		"tick":                           deadRecord(bus.TopicEvents, event.SchemaTick, "acme", 1, nil, nil),
		"event in another topic":         deadRecord(bus.TopicControl, event.SchemaEvent, "acme", 1, nil, event.Encode(nil, e)),
	} {
		d := dead(r)
		_, err := d.Replay(now, nil, nil)
		var no *history.NotReplayableError
		require.ErrorAs(t, err, &no, name)
		require.NotEmpty(t, no.Why)
	}
}
