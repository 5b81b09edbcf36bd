package gateway_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/control"
)

const trail = `{"eventVersion":"1.08","eventID":"16fd2706-8baf-433b-82eb-8c7fada847da","eventTime":"2023-07-10T12:11:15Z","eventSource":"ec2.amazonaws.com","eventName":"RunInstances"}`

func TestShapes(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	for name, c := range map[string]struct {
		body, contentType string
		accepted          int
	}{
		"object":          {`{"a":1}`, "application/json", 1},
		"array":           {`[{"a":1},{"b":2}]`, "application/json", 2},
		"empty array":     {`[]`, "application/json", 0},
		"lines":           {"{\"a\":1}\n\n{\"b\":2}\r\n", "application/x-ndjson", 2},
		"no lines":        {"", "application/x-ndjson", 0},
		"file":            {`{"Records":[` + trail + `,{"a":1}]}`, "application/json", 2},
		"empty file":      {`{"Records":[]}`, "application/json", 0},
		"what curl says":  {`{"a":1}`, "application/x-www-form-urlencoded", 1},
		"charset":         {`{"a":1}`, "application/json; charset=utf-8", 1},
		"duplicate names": {`{"a":1,"a":2}`, "application/json", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.do(http.MethodPost, "/v1/events", c.body, "Content-Type", c.contentType)
			require.Equal(t, http.StatusAccepted, r.status, r.body)
			require.EqualValues(t, c.accepted, r.json["accepted"])
			require.Len(t, r.json["ids"], c.accepted)
			require.NotContains(t, r.json, "rejected")
			stored := w.byID()
			for _, id := range r.ids() {
				require.Contains(t, stored, id)
			}
		})
	}
}

func TestStoredEvent(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	before := time.Now().UnixMilli()
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := e.post(`[`+trail+`, {"action":"x","Product":"no","product":"Okta","service":5} ]`, "traceparent", parent, "tracestate", "v=1")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	require.EqualValues(t, 1, r.json["late"], "a record of 2023 is late")
	stored := w.byID()

	ct := stored["16fd2706-8baf-433b-82eb-8c7fada847da"]
	require.Equal(t, "acme", ct.Tenant)
	require.Equal(t, "cloudtrail", ct.Format)
	require.Equal(t, []string{"aws", "cloudtrail", ""}, []string{ct.Product, ct.Service, ct.Category})
	require.True(t, ct.StrictLogsource)
	require.True(t, ct.OwnTime)
	require.EqualValues(t, 1688991075000, ct.TimeMS)
	require.True(t, ct.Late)
	require.EqualValues(t, 600_000, ct.LatenessMS)
	require.Equal(t, trail, string(ct.Raw)) //nolint:testifylint // byte for byte, not in meaning
	require.Equal(t, "acme", ct.headers["tenant"])
	require.Equal(t, "v=1", ct.headers["tracestate"])

	js := stored[r.ids()[1]]
	require.Equal(t, "json", js.Format)
	require.Equal(t, []string{"okta", "", ""}, []string{js.Product, js.Service, js.Category})
	require.False(t, js.StrictLogsource)
	require.False(t, js.OwnTime)
	require.Equal(t, js.IngestMS, js.TimeMS)
	require.GreaterOrEqual(t, js.IngestMS, before)
	require.False(t, js.Late || js.Early)

	require.Equal(t, ct.partition, js.partition, "one request goes to one partition")
	require.Equal(t, ct.headers["traceparent"], js.headers["traceparent"], "the records of a request share their context")
	require.Contains(t, ct.headers["traceparent"], "4bf92f3577b34da6a3ce929d0e0e4736", "the client's trace goes on")
	require.NotContains(t, ct.headers["traceparent"], "00f067aa0ba902b7", "below the request's own span")
	require.Empty(t, js.ManifestAll)
}

func TestEarly(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	r := e.post(fmt.Sprintf(`[{"time":%d},{"time":%d}]`, time.Now().Add(4*time.Minute).Unix(), time.Now().Add(6*time.Minute).UnixMicro()))
	require.Equal(t, http.StatusAccepted, r.status)
	stored := w.byID()
	require.False(t, stored[r.ids()[0]].Early)
	require.True(t, stored[r.ids()[1]].Early)
}

func TestManifestsAreStamped(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	all, err := e.view.PushRules(t.Context(), "", []control.Document{{File: "a.yml", Line: 1, Source: []byte("title: a")}})
	require.NoError(t, err)
	own, err := e.view.PushRules(t.Context(), "acme", []control.Document{{File: "b.yml", Line: 1, Source: []byte("title: b")}})
	require.NoError(t, err)
	stored := w.byID
	mine := e.post(`{}`).ids()[0]
	e.key = e.mint("other")
	others := e.post(`{}`).ids()[0]
	events := stored()
	require.Equal(t, all, events[mine].ManifestAll)
	require.Equal(t, own, events[mine].ManifestTenant)
	require.Equal(t, all, events[others].ManifestAll)
	require.Empty(t, events[others].ManifestTenant)
}

func TestIdentity(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	distinct := func(n int, body string, headers ...string) int {
		ids := map[string]bool{}
		for range n {
			r := e.post(body, headers...)
			require.Equal(t, http.StatusAccepted, r.status, r.body)
			for _, id := range r.ids() {
				ids[id] = true
			}
		}
		return len(ids)
	}
	const timeless = `{"action":"login_failed"}`
	const dated = `{"action":"login_failed","time":1688991075}`
	require.Equal(t, 5, distinct(5, timeless), "five equal posts count five")
	require.Equal(t, 1, distinct(5, timeless, "Idempotency-Key", "k1"), "a retry with the same key counts one")
	require.Equal(t, 2, distinct(2, `[`+timeless+`,`+timeless+`]`, "Idempotency-Key", "k2"), "two of one request are two, and still two when it is retried")
	require.Equal(t, 1, distinct(5, dated), "content with its own time is its identity")
	require.Equal(t, 2, distinct(3, `[`+dated+`,`+dated+`]`), "equal contents of one request are told apart")
	require.Equal(t, 1, distinct(3, trail))

	first := e.post(dated).ids()
	require.Equal(t, first[0], e.post(`[` + dated + `,{"x":1}]`).ids()[0], "neither shape nor neighbours play a part")
	e.key = e.mint("other")
	require.NotEqual(t, first, e.post(dated).ids(), "tenants share no identity")
	keyed := e.post(timeless, "Idempotency-Key", "k1")
	require.Equal(t, http.StatusAccepted, keyed.status)
	require.Equal(t, 1+1, distinct(1, `[`+timeless+`,{"b":1}]`, "Idempotency-Key", "k1"))
	require.Equal(t, http.StatusBadRequest, e.post(timeless, "Idempotency-Key", strings.Repeat("x", 256)).status)
}

func TestSources(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(c *gateway.Config, _ *gateway.Deps) {
		c.Sources = []gateway.Source{
			{Name: "vpn", Format: "json", Product: "OpenVPN", Service: "auth", Lateness: time.Hour, TimeFields: []string{"meta.at"}},
			{Name: "trail", Format: "cloudtrail"},
		}
	})
	at := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
	dated := fmt.Sprintf(`{"meta":{"at":%d},"time":1,"product":"x","category":"VPN"}`, at.Unix())
	r := e.do(http.MethodPost, "/v1/events?source=vpn", dated)
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	got := w.byID()[r.ids()[0]]
	require.Equal(t, []string{"vpn", "openvpn", "auth", "vpn"}, []string{got.Source, got.Product, got.Service, got.Category})
	require.Equal(t, at.UnixMilli(), got.TimeMS)
	require.False(t, got.Late)
	require.Equal(t, time.Hour.Milliseconds(), got.LatenessMS)

	r = e.post(trail, "Stormbell-Source", "vpn")
	require.Equal(t, "json", w.byID()[r.ids()[0]].Format, "the source's format counts")

	r = e.post(`[{"a":1},`+trail+`]`, "Stormbell-Source", "trail")
	require.Equal(t, http.StatusAccepted, r.status)
	require.Equal(t, "wrong_format", r.json["rejected"].([]any)[0].(map[string]any)["code"])

	r = e.post(`{}`, "Stormbell-Source", "nope")
	require.Equal(t, http.StatusBadRequest, r.status)
	require.Equal(t, "unknown_source", r.code())
	require.Contains(t, r.body, "known are agent, trail, vpn, or leave it out")
	require.Equal(t, http.StatusBadRequest, e.do(http.MethodPost, "/v1/events?source=vpn", `{}`, "Stormbell-Source", "trail").status)

	e.key = e.mintSpec(control.NewKey{Tenant: "acme", Sources: []string{"vpn"}})
	require.Equal(t, http.StatusAccepted, e.post(`{}`, "Stormbell-Source", "vpn").status)
	for _, source := range []string{"", "trail", "nope"} {
		r = e.post(`{}`, "Stormbell-Source", source)
		require.Equal(t, http.StatusForbidden, r.status, source)
		require.Equal(t, "source_not_allowed", r.code())
	}
}

// TestLogsOfText holds what lines of text become: events in JSON, with the log
// source, time and lateness of their format.
func TestLogsOfText(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(c *gateway.Config, _ *gateway.Deps) {
		c.Sources = []gateway.Source{
			{Name: "s3", Format: "s3access"},
			{Name: "lb", Format: "elb"},
			{Name: "flows", Format: "vpcflow"},
			{Name: "mine", Format: "vpcflow", Fields: []string{"srcaddr", "end"}, Lateness: time.Hour},
		}
	})
	at := time.Now().Add(-20 * time.Minute).Truncate(time.Second).UTC()
	s3 := at.Format(`o b [02/Jan/2006:15:04:05 -0700]`) + ` 192.0.2.3 - R7 REST.GET.OBJECT k "GET /b/k HTTP/1.1" 200 - 1 1 1 1 "-" "curl" -`
	lb := at.Format(time.RFC3339) + ` lb 192.0.2.9:2817 10.0.0.1:80 0 0 0 200 200 0 0 "GET http://h:80/ HTTP/1.1" "curl" - -`
	flow := fmt.Sprintf("2 1 eni-7 192.0.2.9 10.0.0.4 51000 22 6 20 4249 %d %d ACCEPT OK", at.Unix()-60, at.Unix())
	for source, c := range map[string]struct {
		format, service, body, field string
		lateness                     time.Duration
		events                       int
	}{
		"s3":    {"s3access", "s3", s3 + "\r\n\n" + strings.Replace(s3, " k ", " k2 ", 1), `"status":200`, 24 * time.Hour, 2},
		"lb":    {"elb", "elb", lb, `"request_host":"h"`, 30 * time.Minute, 1},
		"flows": {"vpcflow", "vpcflow", flow + "\n" + flow + fmt.Sprintf("\naction srcaddr end\nREJECT 192.0.2.1 %d\n", at.Unix()), `"srcaddr":"192.0.2.`, 30 * time.Minute, 3},
		"mine":  {"vpcflow", "vpcflow", fmt.Sprintf("192.0.2.1 %d", at.Unix()), `"srcaddr":"192.0.2.1"`, time.Hour, 1},
	} {
		t.Run(source, func(t *testing.T) {
			r := e.do(http.MethodPost, "/v1/events?source="+source, c.body+"\n{}")
			require.Equal(t, http.StatusAccepted, r.status, r.body)
			require.Len(t, r.ids(), c.events)
			all := w.byID()
			for _, id := range r.ids() {
				got := all[id]
				require.Equal(t, []string{source, c.format, "aws", c.service, ""}, []string{got.Source, got.Format, got.Product, got.Service, got.Category})
				require.Equal(t, []any{true, true, false}, []any{got.StrictLogsource, got.OwnTime, got.Late})
				require.Equal(t, at.UnixMilli(), got.TimeMS)
				require.Equal(t, c.lateness.Milliseconds(), got.LatenessMS)
				require.Contains(t, string(got.Raw), c.field)
			}
			rejected := r.json["rejected"].([]any)
			require.Len(t, rejected, 1)
			require.Equal(t, "wrong_format", rejected[0].(map[string]any)["code"])
			require.InDelta(t, c.events, rejected[0].(map[string]any)["index"], 0)
			again := e.do(http.MethodPost, "/v1/events?source="+source, c.body)
			require.Equal(t, r.ids(), again.ids(), "the same file twice gives the same events")
		})
	}
}

func TestHostEvents(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	at := time.Now().Truncate(time.Second)
	login := fmt.Sprintf(`{"time":%q,"product":"Linux","category":"authentication","Hostname":"bastion-1","User":"dana","EventType":"login","Outcome":"success","SourceIp":"203.0.113.9"}`, at.UTC().Format(time.RFC3339))
	process := fmt.Sprintf(`{"time":%d,"product":"windows","category":"process_creation","Hostname":"w1","Image":"C:\\Windows\\cmd.exe"}`, at.Unix())
	r := e.do(http.MethodPost, "/v1/events?source=agent", "["+login+","+process+`,{"product":"linux"},`+strings.Replace(login, "dana", "", 1)+"]")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	require.Len(t, r.ids(), 2)
	got := w.byID()[r.ids()[0]]
	require.Equal(t, []string{"agent", "agent", "linux", "auth", "authentication"}, []string{got.Source, got.Format, got.Product, got.Service, got.Category})
	require.True(t, got.StrictLogsource)
	require.True(t, got.OwnTime)
	require.Equal(t, at.UnixMilli(), got.TimeMS)
	got = w.byID()[r.ids()[1]]
	require.Equal(t, []string{"windows", "", "process_creation"}, []string{got.Product, got.Service, got.Category})
	rejected := r.json["rejected"].([]any)
	require.Len(t, rejected, 2)
	for i, field := range []string{"time", "User"} {
		one := rejected[i].(map[string]any)
		require.InDelta(t, 2+i, one["index"], 0)
		require.Equal(t, "wrong_format", one["code"])
		require.Contains(t, one["detail"], `not a host event, which source "agent" asks for: `+field+": ")
	}
	again := e.do(http.MethodPost, "/v1/events?source=agent", login)
	require.Equal(t, r.ids()[0], again.ids()[0], "a shipper's retry is the same event")

	e = w.gateway(func(c *gateway.Config, _ *gateway.Deps) {
		c.Sources = []gateway.Source{{Name: "agent", Format: "json", Product: "mine"}}
	})
	r = e.post(`{"a":1}`, "Stormbell-Source", "agent")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	require.Equal(t, "mine", w.byID()[r.ids()[0]].Product, "a configured source of that name takes its place")
}

func TestPartialAnswers(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(c *gateway.Config, _ *gateway.Deps) { c.MaxRecordBytes, c.MaxDepth = 200, 5 })
	big := `{"x":"` + strings.Repeat("a", 300) + `"}`
	deep := strings.Repeat(`{"a":`, 5) + `{}` + strings.Repeat(`}`, 5)
	codes := func(r reply) string {
		var out []string
		list, _ := r.json["rejected"].([]any)
		for _, x := range list {
			m := x.(map[string]any)
			require.NotEmpty(t, m["detail"])
			out = append(out, fmt.Sprint(m["index"], " ", m["code"]))
		}
		return strings.Join(out, ", ")
	}
	r := e.do(http.MethodPost, "/v1/events", "{\"a\":\n{}\n[]\n"+big+"\n"+deep+"\n{\"b\":1}\n", "Content-Type", "application/x-ndjson")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	require.EqualValues(t, 2, r.json["accepted"])
	require.Len(t, r.ids(), 2)
	require.Equal(t, "0 malformed, 2 not_object, 3 too_large, 4 too_deep", codes(r))

	r = e.post(`[1,{"ok":true}]`)
	require.Equal(t, http.StatusAccepted, r.status)
	require.Equal(t, "0 not_object", codes(r))

	before, _ := w.events()
	r = e.post(`[1,` + big + `]`)
	require.Equal(t, http.StatusBadRequest, r.status)
	require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
	require.Equal(t, "no_valid_events", r.code())
	require.Equal(t, "0 not_object, 1 too_large", codes(r))

	r = e.post(`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventTime":"2023-07-10T12:11:15Z","s3":{}}]}`)
	require.Equal(t, http.StatusBadRequest, r.status)
	require.Equal(t, "0 unsupported_record", codes(r))
	require.Contains(t, r.body, "S3 notification")

	r = e.post(`[{"ok":true},`)
	require.Equal(t, http.StatusBadRequest, r.status, "a syntax error refuses all of one value")
	require.Equal(t, "malformed_body", r.code())
	require.Contains(t, r.body, "at byte 13")
	after, _ := w.events()
	require.Len(t, after, len(before))
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(c *gateway.Config, _ *gateway.Deps) {
		c.MaxBodyBytes, c.MaxInflightBytes, c.MaxRecords = 1<<20, 4<<20, 10
	})
	require.Equal(t, http.StatusRequestEntityTooLarge, e.post(strings.Repeat(" ", 1<<20+1)).status)
	require.Equal(t, http.StatusAccepted, e.post(`{}`+strings.Repeat(" ", 1<<20-2)).status, "at the limit")
	r := e.post(`[` + strings.Repeat(`{},`, 10) + `{}]`)
	require.Equal(t, http.StatusRequestEntityTooLarge, r.status)
	require.Equal(t, "too_many_records", r.code())
	require.Equal(t, http.StatusUnsupportedMediaType, e.post(`{}`, "Content-Type", "application/x-protobuf").status)
	require.Equal(t, http.StatusUnsupportedMediaType, e.post(`{}`, "Content-Encoding", "br").status)
	for _, encoding := range []string{"gzip", "zstd"} {
		r = e.post(`{}`, "Content-Encoding", encoding)
		require.Equal(t, http.StatusBadRequest, r.status, encoding)
		r = e.post("", "Content-Encoding", encoding)
		require.Equal(t, http.StatusBadRequest, r.status, encoding)
	}
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

func zstded(t testing.TB, text string) string {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer z.Close()
	return string(z.EncodeAll([]byte(text), nil))
}

func TestCompression(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	for range 3 { // decoders are used again
		for encoding, body := range map[string]string{"gzip": zipped(t, `[{"a":1},{}]`), "x-gzip": zipped(t, `[{},{}]`), "zstd": zstded(t, `[{"a":2},{}]`)} {
			r := e.post(body, "Content-Encoding", encoding)
			require.Equal(t, http.StatusAccepted, r.status, r.body)
			require.EqualValues(t, 2, r.json["accepted"])
			r = e.post(body[:len(body)-6], "Content-Encoding", encoding)
			require.Equal(t, http.StatusBadRequest, r.status, "cut "+encoding)
		}
	}
}

func TestBombs(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(c *gateway.Config, _ *gateway.Deps) { c.MaxBodyBytes, c.MaxInflightBytes = 1<<20, 8<<20 })
	// A thousand times the limit: members that pack to a thousandth each, and
	// below the limit together.
	bomb := strings.Repeat(zipped(t, strings.Repeat(" ", 16<<20)), 1000/16)
	require.Less(t, len(bomb), 1<<20)
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer enc.Close()
	frame := enc.EncodeAll(bytes.Repeat([]byte(" "), 64<<20), nil)
	for encoding, body := range map[string]string{"gzip": bomb, "zstd": string(frame)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 5 {
			r := e.post(body, "Content-Encoding", encoding)
			require.Equal(t, http.StatusRequestEntityTooLarge, r.status, encoding)
		}
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "%s: all that five bombs allocate", encoding)
	}
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
}

// TestMemoryIsShared: who announces or sends much cannot take it from others.
func TestMemoryIsShared(t *testing.T) {
	e := newWorld(t).gateway(func(c *gateway.Config, _ *gateway.Deps) { c.MaxBodyBytes, c.MaxInflightBytes = 1<<20, 8<<20 })
	for range 20 {
		_, err := fmt.Fprintf(e.dial(), "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\n\r\n{", e.key)
		require.NoError(t, err)
	}
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status, "what is announced takes little")
	// Now half-sent bodies hold as much as one tenant may have.
	half := `{"x":"` + strings.Repeat("y", 900_000)
	for range 20 {
		conn := e.dial()
		go func() {
			_, _ = fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\n\r\n%s", e.key, half)
		}()
	}
	large := `{"x":"` + strings.Repeat("y", 800_000) + `"}`
	require.Eventually(t, func() bool {
		r := e.post(large)
		return r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != ""
	}, 10*time.Second, 5*time.Millisecond, "the tenant's own share is used up")
	e.key = e.mint("globex")
	require.Equal(t, http.StatusAccepted, e.post(large).status, "another's is not")
}

// TestManyMembers: a record of very many members takes no more memory than its
// text.
func TestManyMembers(t *testing.T) {
	e := newWorld(t).gateway()
	body := `[{` + strings.Repeat(`"":0,`, 4_000_000) + `"":0},{"a":1}]`
	require.Equal(t, http.StatusAccepted, e.post(body).status) // buffers are there from now on
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := e.post(body)
	runtime.ReadMemStats(&after)
	require.Equal(t, http.StatusAccepted, r.status)
	require.Contains(t, r.body, "too_many_members")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(190<<20), "far less than the members would take")
	r = e.post(`{` + strings.Repeat(`"":0,`, 10_000) + `"":0}`)
	require.Equal(t, http.StatusBadRequest, r.status)
	require.Contains(t, r.body, "too_many_members")
}

func TestLargeRequestTakesSeveralProduces(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, `{"n":%d,"x":"%s"}`+"\n", i, strings.Repeat("y", 100_000))
	}
	r := e.do(http.MethodPost, "/v1/events", b.String(), "Content-Type", "application/x-ndjson")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	require.EqualValues(t, 40, r.json["accepted"])
	events, _ := w.events()
	require.Len(t, events, 40)
	for _, ev := range events {
		require.Equal(t, events[0].partition, ev.partition)
	}
	largest := `{"x":"` + strings.Repeat("y", 899_900) + `"}`
	require.Equal(t, http.StatusAccepted, e.post(largest).status, "the largest record fits")
}

func TestTenantsKeepToTheirShare(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	for range 30 {
		require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	}
	used := map[int]int{}
	events, _ := w.events()
	for _, ev := range events {
		used[ev.partition]++
	}
	require.Len(t, used, 2, "half of four partitions")
}

func TestJSONTestSuite(t *testing.T) {
	paths := corpora(t, "jsontestsuite/test_parsing/*.json")
	w := newWorld(t)
	e := w.gateway()
	accepted := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		name := filepath.Base(path)
		r := e.post(string(text))
		switch {
		case name[0] == 'n':
			require.Equal(t, http.StatusBadRequest, r.status, name)
		case name[0] == 'y' && objects(text):
			require.Equal(t, http.StatusAccepted, r.status, "%s: %s", name, r.body)
		default:
			require.Contains(t, []int{http.StatusAccepted, http.StatusBadRequest}, r.status, name)
		}
		if name[0] != 'n' && r.status == http.StatusAccepted {
			accepted += int(r.json["accepted"].(float64))
		}
	}
	events, _ := w.events()
	require.Len(t, events, accepted, "what was refused produced nothing")
	require.NotContains(t, w.logs.String(), "handler panicked")
}

// objects reports whether valid JSON is an object or an array of objects, to
// the eye of a reader who knows the suite: arrays whose first value opens none
// hold other things.
func objects(text []byte) bool {
	t := bytes.TrimSpace(text)
	if t[0] == '{' {
		return true
	}
	inner := bytes.TrimSpace(t[1:])
	return t[0] == '[' && (inner[0] == ']' || inner[0] == '{')
}

func TestRealTrail(t *testing.T) {
	paths := corpora(t, "invictus-cloudtrail/CloudTrail/*.json")
	w := newWorld(t)
	e := w.gateway()
	total := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		r := e.post(zipped(t, string(text)), "Content-Encoding", "gzip")
		require.Equal(t, http.StatusAccepted, r.status, "%s: %s", path, r.body)
		require.Equal(t, strings.Count(string(text), `"eventVersion":"1.`), int(r.json["accepted"].(float64)), path)
		require.Equal(t, r.json["accepted"], r.json["late"])
		total += len(r.ids())
	}
	events, _ := w.events()
	require.Len(t, events, total)
	for _, ev := range events {
		require.Equal(t, "cloudtrail", ev.Format)
	}
}
