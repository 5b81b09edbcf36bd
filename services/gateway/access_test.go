package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/control"
)

// TestEveryRoute asks each operation of the document for each kind of key.
func TestEveryRoute(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	admin, foreign := e.key, e.mint("globex", control.ScopeIngest, control.ScopeRead, control.ScopeManage)
	scopes := []string{control.ScopeIngest, control.ScopeRead, control.ScopeManage}
	keys := map[string]string{}
	for _, scope := range scopes {
		keys[scope] = e.mint("acme", scope)
	}
	hook := e.do(http.MethodPost, "/v1/webhooks", fmt.Sprintf(`{"url":%q}`, hookURL)).text("id")
	key := e.do(http.MethodPost, "/v1/keys", `{}`).text("id")
	require.Equal(t, http.StatusOK, push(e, "a.yml", goodRule).status)
	rule := e.do(http.MethodGet, "/v1/rules", "").list("rules")[0]["id"].(string)

	for _, o := range w.contract.all {
		id := hook
		switch {
		case strings.HasPrefix(o.path, "/v1/keys/"):
			id = key
		case strings.HasPrefix(o.path, "/v1/rules/"):
			id = rule
		}
		path := strings.Replace(o.path, "{id}", id, 1)
		ask := func(authorization string) reply {
			req := e.request(o.method, path, "")
			req.Header.Set("Authorization", authorization)
			return e.send(req)
		}
		t.Run(o.method+" "+o.path, func(t *testing.T) {
			if o.scope == "" {
				require.Equal(t, http.StatusOK, ask("").status, "needs no key")
				return
			}
			for _, wrong := range []string{"", "Bearer", "Bearer ", "Basic " + admin, "Bearer x", "Bearer " + admin[:len(admin)-1] + "_", "Bearer " + strings.ToUpper(admin), admin} {
				require.Equal(t, http.StatusUnauthorized, ask(wrong).status, "%q", wrong)
			}
			for _, scope := range scopes {
				if scope == o.scope {
					continue
				}
				r := ask("Bearer " + keys[scope])
				require.Equal(t, http.StatusForbidden, r.status, scope)
				require.Equal(t, "wrong_scope", r.code())
				require.Contains(t, r.text("detail"), fmt.Sprintf("%q", o.scope), "names the one that is needed")
			}
			if !strings.Contains(o.path, "{id}") {
				return
			}
			// What is there for one tenant is not there for another, and what
			// is nowhere looks the same.
			e.key = foreign
			stranger := e.do(o.method, path, `{}`)
			nowhere := e.do(o.method, strings.Replace(o.path, "{id}", "nosuch", 1), `{}`)
			e.key = admin
			require.Equal(t, http.StatusNotFound, stranger.status)
			require.Equal(t, http.StatusNotFound, nowhere.status)
			require.Equal(t, nowhere.text("detail"), stranger.text("detail"))
		})
	}

	e.key = keys[control.ScopeRead]
	require.Equal(t, http.StatusOK, e.do(http.MethodGet, "/v1/webhooks/"+hook, "").status, "nothing was changed")
	e.key = foreign
	require.Empty(t, e.do(http.MethodGet, "/v1/webhooks", "").list("webhooks"))
	require.Empty(t, e.do(http.MethodGet, "/v1/rules", "").list("rules"))
	require.Len(t, e.do(http.MethodGet, "/v1/keys", "").list("keys"), 1, "its own")
	require.Equal(t, "globex", e.do(http.MethodGet, "/v1/status", "").text("tenant"))
	own := e.post(`{}`).ids()[0]
	require.Equal(t, "globex", w.byID()[own].Tenant, "the tenant is the credential's")
	e.key = admin
	for _, k := range e.do(http.MethodGet, "/v1/keys", "").list("keys") {
		require.NotContains(t, k, "revoked_at", "nothing was revoked")
	}
}

func TestNoSuchPath(t *testing.T) {
	e := newWorld(t).gateway()
	for path, status := range map[string]int{
		"/": http.StatusNotFound, "/v1": http.StatusNotFound, "/v1/events/": http.StatusNotFound, "/v2/events": http.StatusNotFound,
		"/v1/webhooks//": http.StatusNotFound, "/v1/webhooks/a/b": http.StatusNotFound, "/metrics": http.StatusNotFound, "/debug/pprof/": http.StatusNotFound,
		"/v1/events": http.StatusMethodNotAllowed, "/v1/keys/x": http.StatusMethodNotAllowed,
	} {
		r := e.do(http.MethodGet, path, "")
		require.Equal(t, status, r.status, path)
		if status == http.StatusMethodNotAllowed {
			require.NotEmpty(t, r.header.Get("Allow"), path)
		}
	}
}
