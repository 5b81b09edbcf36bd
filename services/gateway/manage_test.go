package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/seal"
)

const (
	hookURL    = "https://hooks.example.com/in/a-path-like-a-secret?token=t0ken"
	hookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
)

// text returns a member of the answer that is a string.
func (r reply) text(name string) string { s, _ := r.json[name].(string); return s }

// list returns the objects under a name.
func (r reply) list(name string) []map[string]any {
	var out []map[string]any
	all, _ := r.json[name].([]any)
	for _, v := range all {
		out = append(out, v.(map[string]any))
	}
	return out
}

// fields returns the members that a problem names.
func (r reply) fields() []string {
	var out []string
	for _, e := range r.list("errors") {
		out = append(out, e["field"].(string))
	}
	return out
}

// at moves a gateway's clock by what the result holds, in nanoseconds.
func at(offset *atomic.Int64) option {
	return func(_ *gateway.Config, d *gateway.Deps) {
		d.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	}
}

func (e *edge) opened(sub *controlv1.Subscription, field string, sealed *controlv1.Sealed) string {
	e.w.t.Helper()
	secret, err := e.sealer.Open(seal.Place{Tenant: sub.GetTenant(), Kind: "subscription", ID: sub.GetId(), Field: field}, sealed)
	require.NoError(e.w.t, err)
	return secret.Reveal()
}

func TestWebhooks(t *testing.T) {
	w := newWorld(t)
	e, other := w.gateway(), w.gateway()
	other.key = e.key
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	made := e.do(http.MethodPost, "/v1/webhooks", fmt.Sprintf(`{"name":"soc","url":%q,"headers":{"X-Token":"abc"},"expires_at":%q,
		"filter":{"rule_ids":["r1","r2"],"min_level":"high","tags":["attack.t1078"],"sources":["vpn"]}}`, hookURL, expires.Format(time.RFC3339)))
	require.Equal(t, http.StatusCreated, made.status, made.body)
	require.Equal(t, "https://hooks.example.com", made.text("url"), "the rest may hold credentials")
	require.Equal(t, expires.Format(time.RFC3339), made.text("expires_at"))
	require.Equal(t, true, made.json["has_headers"])
	require.Equal(t, map[string]any{"rule_ids": []any{"r1", "r2"}, "min_level": "high", "tags": []any{"attack.t1078"}, "sources": []any{"vpn"}}, made.json["filter"])
	path := "/v1/webhooks/" + made.text("id")
	sub := func() *controlv1.Subscription {
		s, ok := e.view.Subscription("acme", made.text("id"))
		require.True(t, ok)
		return s
	}
	require.Equal(t, made.text("secret"), e.opened(sub(), "secret", sub().GetSecret()))
	require.Equal(t, hookURL, e.opened(sub(), "url", sub().GetUrl()))
	require.JSONEq(t, `{"X-Token":"abc"}`, e.opened(sub(), "headers", sub().GetHeaders()))

	shown := other.do(http.MethodGet, path, "")
	require.Equal(t, http.StatusOK, shown.status, "another gateway has it at once")
	require.NotContains(t, shown.json, "secret", "it is shown once")
	delete(made.json, "secret")
	require.Equal(t, made.json, shown.json)
	require.Len(t, other.do(http.MethodGet, "/v1/webhooks", "").list("webhooks"), 1)

	changed := other.do(http.MethodPatch, path, `{"disabled":true,"filter":{"min_level":"low"}}`)
	require.Equal(t, http.StatusOK, changed.status, changed.body)
	require.Equal(t, map[string]any{"min_level": "low"}, changed.json["filter"])
	require.Equal(t, true, changed.json["disabled"])
	require.NotContains(t, changed.json, "secret")
	for _, kept := range []string{"id", "name", "url", "has_headers", "created_at", "expires_at"} {
		require.Equal(t, shown.json[kept], changed.json[kept], kept)
	}
	require.NotEqual(t, shown.json["revision"], changed.json["revision"])
	changed = e.do(http.MethodPatch, path, `{"disabled":false,"headers":{},"name":""}`)
	require.Equal(t, []any{false, false, ""}, []any{changed.json["disabled"], changed.json["has_headers"], changed.json["name"]})

	gone := e.do(http.MethodDelete, path, "")
	require.Equal(t, http.StatusNoContent, gone.status)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		require.Equal(t, http.StatusNotFound, other.do(method, path, "").status, method)
	}
	require.Equal(t, http.StatusNotFound, other.do(http.MethodPatch, path, `{}`).status, "a change does not bring it back")
	require.Empty(t, e.do(http.MethodGet, "/v1/webhooks", "").list("webhooks"))
}

func TestSecretRotation(t *testing.T) {
	e := newWorld(t).gateway()
	made := e.do(http.MethodPost, "/v1/webhooks", fmt.Sprintf(`{"url":%q,"secret":%q}`, hookURL, hookSecret))
	require.Equal(t, hookSecret, made.text("secret"))
	path := "/v1/webhooks/" + made.text("id")
	sub := func() *controlv1.Subscription {
		s, ok := e.view.Subscription("acme", made.text("id"))
		require.True(t, ok)
		return s
	}
	require.Nil(t, sub().GetPreviousSecret())

	before := time.Now()
	rotated := e.do(http.MethodPatch, path, `{"rotate_secret":true}`)
	require.Equal(t, http.StatusOK, rotated.status, rotated.body)
	require.Regexp(t, `^whsec_[A-Za-z0-9+/]{32}$`, rotated.text("secret"))
	require.NotEqual(t, hookSecret, rotated.text("secret"))
	require.Equal(t, rotated.text("secret"), e.opened(sub(), "secret", sub().GetSecret()))
	require.Equal(t, hookSecret, e.opened(sub(), "previous_secret", sub().GetPreviousSecret()))
	require.WithinRange(t, time.UnixMilli(sub().GetPreviousSecretUntilMs()), before.Add(24*time.Hour-time.Second), time.Now().Add(24*time.Hour))

	// A repeated request changes nothing: the receiver may know the first only.
	same := fmt.Sprintf(`{"secret":%q}`, rotated.text("secret"))
	require.Equal(t, http.StatusOK, e.do(http.MethodPatch, path, same).status)
	require.Equal(t, hookSecret, e.opened(sub(), "previous_secret", sub().GetPreviousSecret()))

	both := e.do(http.MethodPatch, path, fmt.Sprintf(`{"rotate_secret":true,"secret":%q}`, hookSecret))
	require.Equal(t, []string{"rotate_secret"}, both.fields())
	require.Equal(t, []string{"rotate_secret"}, e.do(http.MethodPost, "/v1/webhooks", fmt.Sprintf(`{"url":%q,"rotate_secret":true}`, hookURL)).fields())
}

func TestWebhookRefusals(t *testing.T) {
	guard, err := egress.NewGuard(egress.DefaultConfig())
	require.NoError(t, err)
	e := newWorld(t).gateway(func(_ *gateway.Config, d *gateway.Deps) { d.CheckURL = guard.CheckURL })
	many := make([]string, 501)
	for i := range many {
		many[i] = `"x"`
	}
	made := e.do(http.MethodPost, "/v1/webhooks", fmt.Sprintf(`{"url":%q}`, hookURL))
	require.Equal(t, http.StatusCreated, made.status, made.body)
	for name, c := range map[string]struct{ member, field, says string }{
		"no URL":               {`"url":"hooks.example.com"`, "url", "https"},
		"another scheme":       {`"url":"ftp://hooks.example.com"`, "url", "https"},
		"user":                 {`"url":"https://u:hunter2@hooks.example.com"`, "url", "headers"},
		"long":                 {`"url":"https://hooks.example.com/` + strings.Repeat("a", 2048) + `"`, "url", "2048"},
		"loopback":             {`"url":"https://127.0.0.1:8443/x"`, "url", "egress.allow"},
		"private":              {`"url":"https://10.1.2.3/x"`, "url", "egress.allow"},
		"metadata":             {`"url":"https://169.254.169.254/latest"`, "url", "egress.allow"},
		"not encrypted":        {`"url":"http://hooks.example.com/x"`, "url", "egress.allow_http"},
		"port":                 {`"url":"https://hooks.example.com:22/x"`, "url", "egress.ports"},
		"name":                 {`"name":"` + strings.Repeat("n", 201) + `"`, "name", "200"},
		"secret, short":        {`"secret":"whsec_c2hvcnQ="`, "secret", "24 to 64"},
		"secret, no prefix":    {`"secret":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"`, "secret", "whsec_"},
		"header of ours":       {`"headers":{"Webhook-Id":"1"}`, "headers", "Webhook-Id"},
		"header with newline":  {`"headers":{"X-A":"b\r\nX-C: d"}`, "headers", "control characters"},
		"header without name":  {`"headers":{"":"b"}`, "headers", "name"},
		"level":                {`"filter":{"min_level":"severe"}`, "filter.min_level", "critical"},
		"empty tag":            {`"filter":{"tags":[""]}`, "filter.tags", "empty"},
		"too many rules":       {`"filter":{"rule_ids":[` + strings.Join(many, ",") + `]}`, "filter.rule_ids", "500"},
		"past":                 {`"expires_at":"2020-01-01T00:00:00Z"`, "expires_at", "past"},
		"no time":              {`"expires_at":"tomorrow"`, "expires_at", "2030-01-31"},
		"another type":         {`"headers":["a"]`, "headers", "an object"},
		"another type, deeper": {`"filter":{"tags":"a"}`, "filter.tags", "an array"},
		"unknown member":       {`"uri":"x"`, "uri", "not a known member"},
	} {
		t.Run(name, func(t *testing.T) {
			for method, path := range map[string]string{http.MethodPost: "/v1/webhooks", http.MethodPatch: "/v1/webhooks/" + made.text("id")} {
				body := `{` + c.member + `}`
				if method == http.MethodPost && c.field != "url" {
					body = fmt.Sprintf(`{"url":%q,%s}`, hookURL, c.member)
				}
				r := e.do(method, path, body)
				require.Equal(t, http.StatusBadRequest, r.status, "%s %s", method, r.body)
				require.Equal(t, "invalid_field", r.code())
				require.Equal(t, []string{c.field}, r.fields(), method)
				require.Contains(t, r.body, c.says)
				for _, hidden := range []string{"127.0.0.1", "10.1.2.3", "169.254", "hunter2", "c2hvcnQ", "X-C"} {
					require.NotContains(t, r.body, hidden)
				}
			}
		})
	}
	require.Equal(t, []string{"url"}, e.do(http.MethodPost, "/v1/webhooks", `{}`).fields())
	require.Len(t, e.do(http.MethodGet, "/v1/webhooks", "").list("webhooks"), 1, "what is refused leaves nothing")
}

func TestManagementBodies(t *testing.T) {
	e := newWorld(t).gateway()
	for _, path := range []string{"/v1/keys", "/v1/webhooks"} {
		for body, status := range map[string]int{
			``:           http.StatusBadRequest,
			`null`:       http.StatusBadRequest,
			`[]`:         http.StatusBadRequest,
			`"x"`:        http.StatusBadRequest,
			`{`:          http.StatusBadRequest,
			`{} {}`:      http.StatusBadRequest,
			`{"name":1}`: http.StatusBadRequest,
			`{"name":"` + strings.Repeat("x", 70_000) + `"}`: http.StatusRequestEntityTooLarge,
		} {
			r := e.do(http.MethodPost, path, body)
			require.Equal(t, status, r.status, "%s %.20s", path, body)
		}
	}
	require.Len(t, e.do(http.MethodGet, "/v1/keys", "").list("keys"), 1, "the test's own")
}

func TestExpiredWebhooksGo(t *testing.T) {
	var offset atomic.Int64
	e := newWorld(t).gateway(at(&offset))
	soon := time.Now().Add(time.Minute).Format(time.RFC3339)
	body := fmt.Sprintf(`{"url":%q,"expires_at":%q}`, hookURL, soon)
	require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/webhooks", body).status)
	count := func() int { return len(e.do(http.MethodGet, "/v1/webhooks", "").list("webhooks")) }
	offset.Store(int64(time.Hour))
	lasting := fmt.Sprintf(`{"url":%q}`, hookURL)
	require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/webhooks", lasting).status)
	require.Equal(t, 2, count(), "an expired one is shown for a day")
	offset.Store(int64(25 * time.Hour))
	require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/webhooks", lasting).status)
	require.Equal(t, 2, count())
}

func TestDeadKeysGo(t *testing.T) {
	var offset atomic.Int64
	e := newWorld(t).gateway(at(&offset))
	expiring := e.do(http.MethodPost, "/v1/keys", fmt.Sprintf(`{"expires_at":%q}`, time.Now().Add(time.Hour).Format(time.RFC3339))).text("id")
	revoked := e.do(http.MethodPost, "/v1/keys", `{}`).text("id")
	lasting := e.do(http.MethodPost, "/v1/keys", `{}`).text("id")
	require.Equal(t, http.StatusNoContent, e.do(http.MethodDelete, "/v1/keys/"+revoked, "").status)
	listed := func() string {
		require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/keys", `{}`).status)
		return e.do(http.MethodGet, "/v1/keys", "").body
	}
	offset.Store(int64(29 * 24 * time.Hour))
	for _, id := range []string{expiring, revoked, lasting} {
		require.Contains(t, listed(), id)
	}
	offset.Store(int64(31 * 24 * time.Hour))
	require.Contains(t, listed(), lasting)
	require.NotContains(t, listed(), expiring)
	require.NotContains(t, listed(), revoked)
}

func TestKeys(t *testing.T) {
	w := newWorld(t)
	e, other := w.gateway(withSource), w.gateway(withSource)
	made := e.do(http.MethodPost, "/v1/keys", `{"name":"shipper"}`)
	require.Equal(t, http.StatusCreated, made.status, made.body)
	require.Equal(t, "no-store", made.header.Get("Cache-Control"))
	require.Equal(t, []any{"ingest"}, made.json["scopes"], "the default")
	other.key = made.text("key")
	require.Equal(t, http.StatusAccepted, other.post(`{}`).status, "at another gateway at once")

	listed := e.do(http.MethodGet, "/v1/keys", "")
	require.NotContains(t, listed.body, made.text("key"))
	require.Len(t, listed.list("keys"), 3, "with those of the test")
	stored, ok := e.view.Key("acme", made.text("id"))
	require.True(t, ok)
	require.NotContains(t, stored.String(), made.text("key")[len("sbk_")+17:])

	require.Equal(t, http.StatusNoContent, e.do(http.MethodDelete, "/v1/keys/"+made.text("id"), "").status)
	require.Equal(t, http.StatusNoContent, e.do(http.MethodDelete, "/v1/keys/"+made.text("id"), "").status, "again")
	admin := e.key
	e.key = made.text("key")
	refused := e.post(`{}`)
	require.Equal(t, http.StatusUnauthorized, refused.status, "at this gateway at once")
	require.Contains(t, refused.body, "revoked")
	require.Eventually(t, func() bool { return other.post(`{}`).status == http.StatusUnauthorized }, 5*time.Second, 5*time.Millisecond)
	e.key = admin
	for _, k := range e.do(http.MethodGet, "/v1/keys", "").list("keys") {
		require.Equal(t, k["id"] == made.text("id"), k["revoked_at"] != nil)
	}

	bound := e.do(http.MethodPost, "/v1/keys", fmt.Sprintf(`{"scopes":["ingest","read"],"sources":["vpn"],"expires_at":%q}`, time.Now().Add(time.Hour).Format(time.RFC3339)))
	require.Equal(t, http.StatusCreated, bound.status, bound.body)
	e.key = bound.text("key")
	require.Equal(t, http.StatusForbidden, e.post(`{}`).status)
	require.Equal(t, http.StatusAccepted, e.post(`{}`, "Stormbell-Source", "vpn").status)
	e.key = e.mintSpec(control.NewKey{Tenant: "acme", Expires: time.Now().Add(-time.Second)})
	refused = e.post(`{}`)
	require.Equal(t, http.StatusUnauthorized, refused.status)
	require.Contains(t, refused.body, "expired")
	e.key = admin
	for body, field := range map[string]string{
		`{"scopes":["admin"]}`:                        "scopes",
		`{"sources":["nope"]}`:                        "sources",
		`{"sources":[""]}`:                            "sources",
		`{"expires_at":"2020-01-01T00:00:00Z"}`:       "expires_at",
		`{"name":"` + strings.Repeat("x", 201) + `"}`: "name",
		`{"tenant":"globex"}`:                         "tenant",
	} {
		require.Equal(t, []string{field}, e.do(http.MethodPost, "/v1/keys", body).fields(), body)
	}
}

func withSource(c *gateway.Config, _ *gateway.Deps) {
	c.Sources = []gateway.Source{{Name: "vpn", Format: "json"}}
}

const (
	goodRule = "title: Root login\nid: 11111111-1111-4111-8111-111111111111\nlogsource:\n  product: aws\n  service: cloudtrail\ndetection:\n  selection:\n    eventName: ConsoleLogin\n  condition: selection\nlevel: high\n"
	badRule  = "title: Root login\nid: 11111111-1111-4111-8111-111111111111\nlogsource:\n  product: aws\ndetection:\n  selection:\n    eventName: X\n  condition: nosuch\n"
)

func push(e *edge, files ...string) reply {
	e.w.t.Helper()
	var parts []string
	for i := 0; i < len(files); i += 2 {
		parts = append(parts, fmt.Sprintf(`{"file":%q,"content":%q}`, files[i], files[i+1]))
	}
	return e.do(http.MethodPut, "/v1/rules", `{"files":[`+strings.Join(parts, ",")+`]}`)
}

func TestRules(t *testing.T) {
	w := newWorld(t)
	e, other := w.gateway(), w.gateway()
	other.key = e.key
	second := strings.NewReplacer("1111", "2222", "Root", "Other", "ConsoleLogin", "AssumeRole").Replace(goodRule)
	first := push(e, "a.yml", goodRule+"---\n"+second)
	require.Equal(t, http.StatusOK, first.status, first.body)
	require.EqualValues(t, 2, first.json["ok"])
	list := other.do(http.MethodGet, "/v1/rules", "")
	require.Equal(t, first.text("manifest"), list.json["manifests"].(map[string]any)["tenant"], "another gateway has them at once")
	require.Len(t, list.list("rules"), 2)
	require.Equal(t, first.text("manifest"), other.do(http.MethodGet, "/v1/status", "").json["manifests"].(map[string]any)["tenant"])
	id := other.post(`{}`).ids()[0]
	require.Equal(t, first.text("manifest"), fmt.Sprintf("%x", w.byID()[id].ManifestTenant), "events are stamped with them")

	mixed := push(e, "a.yml", badRule, "b.yml", second)
	require.Equal(t, http.StatusOK, mixed.status, mixed.body)
	require.Equal(t, []any{1.0, 1.0, 1.0}, []any{mixed.json["ok"], mixed.json["rejected"], mixed.json["kept"]})
	problem := mixed.list("problems")[0]
	require.Equal(t, "a.yml", problem["file"])
	require.Contains(t, problem["message"], "nosuch")
	require.Contains(t, e.do(http.MethodGet, "/v1/rules", "").body, `"title":"Root login"`, "a bad rule does not replace a good one")

	none := push(e, "c.yml", strings.ReplaceAll(badRule, "1111", "3333"))
	require.Equal(t, http.StatusBadRequest, none.status)
	require.Equal(t, []string{"c.yml:8"}, none.fields())
	require.Len(t, e.do(http.MethodGet, "/v1/rules", "").list("rules"), 2)

	huge := push(e, "a.yml", goodRule, "huge.yml", strings.ReplaceAll(goodRule, "1111", "4444")+"description: "+strings.Repeat("x", 300_000)+"\n")
	require.Equal(t, http.StatusOK, huge.status, huge.body)
	require.EqualValues(t, 1, huge.json["rejected"])

	for body, field := range map[string]string{
		`{}`:                                   "files",
		`{"files":[{"file":"","content":""}]}`: "files[0].file",
		`{"files":[{"file":"a","content":""},{"file":"a","content":""}]}`:       "files[1].file",
		`{"files":[{"file":"` + strings.Repeat("x", 201) + `","content":"x"}]}`: "files[0].file",
	} {
		require.Equal(t, []string{field}, e.do(http.MethodPut, "/v1/rules", body).fields(), body)
	}
	off := push(e)
	require.Equal(t, http.StatusOK, off.status)
	require.Empty(t, e.do(http.MethodGet, "/v1/rules", "").list("rules"))
}
