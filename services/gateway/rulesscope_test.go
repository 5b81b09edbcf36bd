package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/control"
)

func filesBody(files ...string) string {
	var parts []string
	for i := 0; i < len(files); i += 2 {
		parts = append(parts, fmt.Sprintf(`{"file":%q,"content":%q}`, files[i], files[i+1]))
	}
	return `{"files":[` + strings.Join(parts, ",") + `]}`
}

// TestScopes: rules of all tenants are an operator's business, and a tenant's
// own stand beside them.
func TestScopes(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	manage := e.key
	for _, ask := range []reply{
		e.do(http.MethodPut, "/v1/rules?scope=all", filesBody("a.yml", goodRule)),
		e.do(http.MethodPost, "/v1/rules/diff?scope=all", filesBody("a.yml", goodRule)),
	} {
		require.Equal(t, http.StatusForbidden, ask.status)
		require.Contains(t, ask.text("detail"), `"operate"`)
	}
	require.Equal(t, []string{"scopes"}, e.do(http.MethodPost, "/v1/keys", `{"scopes":["operate"]}`).fields(), "a key gives what it has")
	require.Equal(t, []string{"scope"}, e.do(http.MethodPut, "/v1/rules?scope=everyone", filesBody()).fields())

	e.key = e.mint("acme", control.ScopeManage, control.ScopeRead, control.ScopeOperate)
	require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/keys", `{"scopes":["operate"]}`).status)
	all := e.do(http.MethodPut, "/v1/rules?scope=all", filesBody("a.yml", goodRule))
	require.Equal(t, http.StatusOK, all.status, all.body)

	e.key = manage
	own := strings.NewReplacer("1111", "2222", "Root", "Own").Replace(goodRule)
	require.Equal(t, http.StatusOK, push(e, "b.yml", own).status)
	scopes := map[any]any{}
	for _, r := range e.do(http.MethodGet, "/v1/rules", "").list("rules") {
		scopes[r["title"]] = r["scope"]
	}
	require.Equal(t, map[any]any{"Root login": "all", "Own login": "tenant"}, scopes)
	e.key = e.mint("globex", control.ScopeRead)
	list := e.do(http.MethodGet, "/v1/rules", "").list("rules")
	require.Len(t, list, 1, "another tenant has those of all, and not this tenant's")
	require.Equal(t, "Root login", list[0]["title"])
}

// TestDiffRules says what a push would change, and changes nothing.
func TestDiffRules(t *testing.T) {
	e := newWorld(t).gateway()
	require.Equal(t, http.StatusOK, push(e, "a.yml", goodRule).status)
	diff := func(files ...string) (changes map[any]any, r reply) {
		r = e.do(http.MethodPost, "/v1/rules/diff", filesBody(files...))
		require.Equal(t, http.StatusOK, r.status, r.body)
		changes = map[any]any{}
		for _, c := range r.list("changes") {
			changes[c["title"]] = c["change"]
		}
		return changes, r
	}
	same, r := diff("other name.yml", goodRule)
	require.Empty(t, same)
	require.EqualValues(t, 1, r.json["unchanged"])
	added := strings.NewReplacer("1111", "2222", "Root", "New").Replace(goodRule)
	changes, _ := diff("a.yml", strings.Replace(goodRule, "ConsoleLogin", "Other", 1)+"---\n"+added)
	require.Equal(t, map[any]any{"Root login": "changed", "New login": "added"}, changes)
	changes, _ = diff("a.yml", strings.Replace(goodRule, "level: high", "level: low\nstormbell: {shadow: true}", 1))
	require.Equal(t, map[any]any{"Root login": "text"}, changes)
	changes, _ = diff()
	require.Equal(t, map[any]any{"Root login": "removed"}, changes)
	kept, r := diff("a.yml", badRule)
	require.Empty(t, kept, "a rejected rule would not replace a good one")
	require.EqualValues(t, 1, r.json["kept"])
	require.Len(t, e.do(http.MethodGet, "/v1/rules", "").list("rules"), 1)
}

// told answers backtests as it is told.
type told func(b *gateway.Backtest, tell func(*gateway.BacktestLine) error) error

func (f told) Backtest(_ context.Context, b *gateway.Backtest, tell func(*gateway.BacktestLine) error) error {
	return f(b, tell)
}

// TestBacktestAnswers tells lines as they come, and an error as the last.
func TestBacktestAnswers(t *testing.T) {
	var asked *gateway.Backtest
	fail, begun, end := error(nil), make(chan struct{}), make(chan struct{})
	close(end)
	e := newWorld(t).gateway(func(_ *gateway.Config, d *gateway.Deps) {
		d.Backtests = told(func(b *gateway.Backtest, tell func(*gateway.BacktestLine) error) error {
			asked = b
			close(begun)
			<-end
			for _, line := range []*gateway.BacktestLine{
				{Progress: &gateway.BacktestProgress{Done: 1, Total: 2}}, {Alert: json.RawMessage(`{"id":"a"}`)}, {Progress: &gateway.BacktestProgress{Done: 2, Total: 2}},
			} {
				if err := tell(line); err != nil {
					return err
				}
			}
			if fail != nil {
				return fail
			}
			return tell(&gateway.BacktestLine{Summary: &gateway.BacktestSummary{Events: 3, Alerts: 1, Rules: []gateway.BacktestRule{}}})
		})
	})
	ask := func(body string) string {
		begun = make(chan struct{})
		r := e.do(http.MethodPost, "/v1/backtests", body)
		require.Equal(t, http.StatusOK, r.status, r.body)
		return r.body
	}
	const lines = `{"progress":{"done":1,"total":2}}` + "\n" + `{"alert":{"id":"a"}}` + "\n" + `{"progress":{"done":2,"total":2}}` + "\n"
	//nolint:testifylint // lines of JSON are no JSON
	require.Equal(t, lines+`{"summary":{"events":3,"failed":0,"alerts":1,"rules":[],"problems":[]}}`+"\n", ask(`{"from":"2026-01-01T00:00:00Z"}`))
	require.Equal(t, "acme", asked.Tenant)
	require.Nil(t, asked.Rules)
	text := ask(`{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z",` + filesBody("a.yml", goodRule+"---\n"+strings.ReplaceAll(badRule, "1111", "3333"))[1:])
	require.Contains(t, text, "nosuch", "what is rejected is told")
	require.Len(t, asked.Rules.Rules(), 1)
	fail = context.DeadlineExceeded
	//nolint:testifylint // lines of JSON are no JSON
	require.Equal(t, lines+`{"error":"context deadline exceeded"}`+"\n", ask(`{"from":"2026-01-01T00:00:00Z"}`))

	for body, field := range map[string]string{
		`{}`: "from", `{"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:00Z"}`: "to", `{"from":"2026-01-01T00:00:00Z","files":[]}`: "files",
	} {
		require.Equal(t, []string{field}, e.do(http.MethodPost, "/v1/backtests", body).fields(), body)
	}

	begun, end, fail = make(chan struct{}), make(chan struct{}), nil
	first := make(chan int, 1)
	go func() { first <- e.do(http.MethodPost, "/v1/backtests", `{"from":"2026-01-01T00:00:00Z"}`).status }()
	<-begun
	busy := e.do(http.MethodPost, "/v1/backtests", `{"from":"2026-01-01T00:00:00Z"}`)
	require.Equal(t, http.StatusServiceUnavailable, busy.status)
	close(end)
	require.Equal(t, http.StatusOK, <-first)
}
