package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/embedded"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
)

// TestSecretsStayWithin looks for what must not be seen in all that a gateway
// leaves: log at the lowest level, spans, and every byte of the broker's
// directory.
func TestSecretsStayWithin(t *testing.T) {
	var dir string
	w := newWorldOn(t, embeddedtest.Start(t, func(c *embedded.Config) { dir = c.Dir }).Addr())
	spans := tracetest.NewInMemoryExporter()
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) {
		d.Log = slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		d.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		d.CheckURL = func(url string) error {
			if strings.Contains(url, "refused") {
				return fmt.Errorf("refused: an operator can set something")
			}
			return nil
		}
	})
	secrets := map[string]string{"signing secret": hookSecret, "URL": "c4nary-path", "header": "c4nary-header", "second secret": "whsec_YzRuYXJ5LXNpZ25pbmctc2VjcmV0LW51bWJlci0y"}
	made := e.do(http.MethodPost, "/v1/webhooks", fmt.Sprintf(`{"url":"https://hooks.example.com/c4nary-path","secret":%q,"headers":{"X-T":"c4nary-header"}}`, hookSecret))
	require.Equal(t, http.StatusCreated, made.status, made.body)
	path := "/v1/webhooks/" + made.text("id")
	require.Equal(t, http.StatusOK, e.do(http.MethodPatch, path, fmt.Sprintf(`{"secret":%q}`, secrets["second secret"])).status)
	secrets["rotated secret"] = e.do(http.MethodPatch, path, `{"rotate_secret":true}`).text("secret")
	require.Equal(t, http.StatusBadRequest, e.do(http.MethodPatch, path, `{"url":"https://refused.example.com/c4nary-path","secret":"whsec_c4nary-path"}`).status)
	key := e.do(http.MethodPost, "/v1/keys", `{"scopes":["ingest"]}`)
	secrets["key"], secrets["first key"] = key.text("key"), e.key
	e.key = key.text("key")
	require.Equal(t, http.StatusAccepted, e.post(`{"marker":"m4rker"}`).status)
	require.Equal(t, http.StatusForbidden, e.do(http.MethodGet, "/v1/keys", "").status)
	e.key += "x"
	secrets["wrong key"] = e.key
	require.Equal(t, http.StatusUnauthorized, e.post(`{}`).status)
	e.end()

	places := map[string]string{"log": w.logs.String()}
	text, err := json.Marshal(spans.GetSpans().Snapshots())
	require.NoError(t, err)
	places["spans"] = string(text) + fmt.Sprintf("%+v", spans.GetSpans())
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		places["directory"] += string(text)
		return err
	}))
	require.Contains(t, places["log"], "webhook stored")
	require.Contains(t, places["spans"], "/v1/webhooks/:id")
	require.Contains(t, places["directory"], "m4rker", "events are there in the clear: the search finds what is there")
	require.Contains(t, places["directory"], "hooks.example.com")
	for name, secret := range secrets {
		require.NotEmpty(t, secret, name)
		for _, form := range []string{secret, strings.TrimPrefix(secret, "whsec_"), base64.StdEncoding.EncodeToString([]byte(secret)), plain(secret)} {
			for place, text := range places {
				require.NotContains(t, text, form, "%s in %s", name, place)
			}
		}
	}
}

// plain is a signing secret's bytes, or the part of a key that is not its id.
func plain(secret string) string {
	if b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")); err == nil && len(b) > 8 {
		return string(b)
	}
	return secret[max(0, len(secret)-20):]
}
