package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/control"
)

func quoted(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// TestNaughtyStrings puts each into every place of a request that takes text:
// it comes back as it was, or is refused by name; nothing breaks.
func TestNaughtyStrings(t *testing.T) {
	text, err := os.ReadFile(corpora(t, "naughty-strings/blns.json")[0])
	require.NoError(t, err)
	var all []string
	require.NoError(t, json.Unmarshal(text, &all))
	w := newWorld(t)
	e := w.gateway()
	hook := "/v1/webhooks/" + e.do(http.MethodPost, "/v1/webhooks", `{"url":"`+hookURL+`"}`).text("id")

	var lines strings.Builder
	files := map[string]string{}
	for _, s := range all {
		lines.WriteString(quoted(t, map[string]string{"v": s, s: s, "product": s}) + "\n")
		if s != "" && len(s) <= 200 {
			files[s] = "title: " + quoted(t, s) + "\n" + s
		}
		// One string in all members at a time: what takes it gives it back.
		body := map[string]any{"name": s}
		if s != "" {
			body["filter"] = map[string]any{"rule_ids": []string{s}, "tags": []string{s}, "sources": []string{s}}
		}
		r := e.do(http.MethodPatch, hook, quoted(t, body))
		if len(s) > 200 {
			require.Equal(t, http.StatusBadRequest, r.status)
			continue
		}
		require.Equal(t, http.StatusOK, r.status, "%q: %s", s, r.body)
		require.Equal(t, s, r.text("name"))
		for _, field := range []string{"rule_ids", "tags", "sources"} {
			if s != "" {
				require.Equal(t, []any{s}, r.json["filter"].(map[string]any)[field])
			}
		}
	}
	for i, s := range all {
		if i%5 != 0 {
			continue // each request is a change of the log: a fifth of them is enough here
		}
		for _, member := range []any{
			map[string]any{"url": s},
			map[string]any{"secret": s},
			map[string]any{"headers": map[string]string{s: "x"}},
			map[string]any{"filter": map[string]any{"min_level": s + "!"}},
			map[string]any{"expires_at": s},
			map[string]any{s: s},
		} {
			r := e.do(http.MethodPatch, hook, quoted(t, member))
			if r.status == http.StatusOK {
				continue // a valid URL, header or the like
			}
			require.Equal(t, http.StatusBadRequest, r.status, "%s: %s", quoted(t, member), r.body)
			require.Len(t, r.fields(), 1)
		}
		for _, member := range []any{map[string]any{"scopes": []string{s}}, map[string]any{"sources": []string{s}}} {
			require.Equal(t, http.StatusBadRequest, e.do(http.MethodPost, "/v1/keys", quoted(t, member)).status)
		}
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			status := e.do(method, "/v1/webhooks/"+url.PathEscape(s+"!"), "").status
			require.Equal(t, http.StatusNotFound, status, "%q", s)
		}
		r := e.do(http.MethodPost, "/v1/events?source="+url.QueryEscape(s+"!"), `{}`)
		require.Equal(t, http.StatusBadRequest, r.status, "%q", s)
	}
	list := make([]map[string]string, 0, len(files))
	for name, content := range files {
		list = append(list, map[string]string{"file": name, "content": content})
	}
	r := e.do(http.MethodPut, "/v1/rules", quoted(t, map[string]any{"files": list}))
	require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, r.status, r.body)

	r = e.do(http.MethodPost, "/v1/events", lines.String(), "Content-Type", "application/x-ndjson")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	require.EqualValues(t, len(all), r.json["accepted"])
	stored := w.byID()
	for i, id := range r.ids() {
		var event map[string]string
		require.NoError(t, json.Unmarshal(stored[id].Raw, &event))
		require.Equal(t, all[i], event["v"], "kept as it was")
	}
	require.NotContains(t, w.logs.String(), "handler panicked")
	for line := range strings.Lines(w.logs.String()) {
		require.True(t, json.Valid([]byte(line)), "no string breaks a line of the log: %s", line)
	}
	e.key = e.mint("acme", control.ScopeIngest)
	for _, s := range all {
		req := e.request(http.MethodPost, "/v1/events", `{}`)
		req.Header.Set("Idempotency-Key", strings.Map(visible, s))
		require.Contains(t, []int{http.StatusAccepted, http.StatusBadRequest}, e.send(req).status, "%q", s)
	}
}

// visible drops what no header can hold: the client would not send it.
func visible(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}
