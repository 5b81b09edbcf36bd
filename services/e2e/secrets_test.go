package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
)

// canaries are secrets by what they are, in the forms in which they might be
// written down.
type canaries map[string][]byte

func (c canaries) add(what, secret string) {
	c[what] = []byte(secret)
	c[what+" in base64"] = []byte(strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "="))
	c[what+" in hex"] = []byte(hex.EncodeToString([]byte(secret)))
}

// in names the canaries that b holds.
func (c canaries) in(b []byte) []string {
	var found []string
	for what, secret := range c {
		if bytes.Contains(b, secret) {
			found = append(found, what)
		}
	}
	return found
}

// testSecrets uses an API key, a signing secret, a path with a token and a
// header of its own, lets deliveries succeed and fail, and looks for them in all
// that is left on disk or was exported.
func testSecrets(t *testing.T, r *rig.Runner) {
	c := newCollector(t)
	d := r.Start(t, rig.Options{Rules: "testdata/rules/count", Env: c.Env("traces", "logs", "metrics")})
	token, header := rig.Secret(), rig.Secret()
	var key struct{ Key string }
	d.JSON(t, 0, http.MethodPost, "/v1/keys", map[string]any{"name": "canary"}, http.StatusCreated, &key)
	receiver := newReceiver(t, refuseFirst(1))
	secrets := canaries{}
	secrets.add("API key", key.Key)
	secrets.add("signing secret", strings.TrimPrefix(receiver.Secret(), "whsec_"))
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(receiver.Secret(), "whsec_"))
	require.NoError(t, err)
	secrets["bytes of the signing secret"] = raw
	secrets.add("token in the path", token)
	secrets.add("header", header)

	subscribe := func(url string) string {
		var made struct{ ID string }
		d.JSON(t, 0, http.MethodPost, "/v1/webhooks", map[string]any{
			"url": url, "secret": receiver.Secret(), "headers": map[string]string{"X-Canary": header},
		}, http.StatusCreated, &made)
		return made.ID
	}
	id := subscribe(receiver.URL("/hook/" + token))
	subscribe("http://127.0.0.1:9/" + token) // nobody listens there
	post := func(body string) *rig.Response {
		resp, err := d.Call(t.Context(), len(d.URLs)-1, key.Key, http.MethodPost, "/v1/events", "application/json", []byte(body))
		require.NoError(t, err)
		return resp
	}
	visible := rig.Secret() // what is no secret must be found, or the search is blind
	require.Equal(t, http.StatusAccepted, post(`{"action":"alarm","visible":"`+visible+`"}`).Status)
	require.Equal(t, http.StatusBadRequest, post(`{"action":`).Status)
	d.JSON(t, 0, http.MethodPatch, "/v1/webhooks/"+id, map[string]any{"name": "renamed"}, http.StatusOK, nil)
	d.JSON(t, 0, http.MethodPost, "/v1/webhooks", map[string]any{"url": "http://user:" + token + "@127.0.0.1/"}, http.StatusBadRequest, nil)
	require.NoError(t, receiver.Await(within(t, patience), func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) == 1 }))
	for _, got := range receiver.Deliveries() {
		require.Equal(t, header, got.Headers.Get("X-Canary"))
		require.Equal(t, "/hook/"+token, got.Path)
	}
	for _, p := range d.Processes {
		for _, page := range []string{"/metrics", "/readyz"} {
			_, text, err := p.Admin(t.Context(), page)
			require.NoError(t, err)
			require.Empty(t, secrets.in([]byte(text)), "%s of %s", page, p.Name)
		}
	}
	if d.Redis != nil {
		dump(t, d)
	}
	d.Stop(t)

	for _, dir := range dirs(d) {
		searchFiles(t, dir, secrets)
	}
	for _, b := range c.Exported() {
		require.Empty(t, secrets.in(b), "exported telemetry")
	}
	require.NotEmpty(t, c.Exported())
	seen := false
	for topic, records := range d.Records(t, bus.TopicEvents, bus.TopicDetections, bus.TopicAlerts, bus.TopicDeliveries, bus.TopicControl, bus.TopicDLQ, bus.TopicState) {
		for i := range records {
			whole := fmt.Appendf(nil, "%s\n%s\n%s", records[i].Key, records[i].Value, records[i].Headers)
			require.Empty(t, secrets.in(whole), "topic %s, partition %d, offset %d", topic, records[i].Partition, records[i].Offset)
			seen = seen || bytes.Contains(whole, []byte(visible))
		}
	}
	require.True(t, seen, "the search finds nothing at all")
}

// dump has Redis write everything it holds to its directory.
func dump(t *testing.T, d *rig.Deployment) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: d.Redis.Addr()})
	defer func() { require.NoError(t, client.Close()) }()
	require.NoError(t, client.Do(context.WithoutCancel(t.Context()), "CONFIG", "SET", "rdbcompression", "no").Err())
	require.NoError(t, client.Save(t.Context()).Err())
	require.FileExists(t, filepath.Join(d.Redis.Dir(), "dump.rdb"))
}

// dirs is where a deployment leaves anything: its logs and data, Kafka's, Redis's.
func dirs(d *rig.Deployment) []string {
	out := []string{d.Dir}
	if d.Kafka != nil {
		out = append(out, d.Kafka.Dir())
	}
	if d.Redis != nil {
		out = append(out, d.Redis.Dir())
	}
	return out
}

// searchFiles looks into every file but the two that hold keys by design.
func searchFiles(t *testing.T, dir string, secrets canaries) {
	t.Helper()
	n := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "api-key" || e.Name() == "root-key" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		require.Empty(t, secrets.in(b), path)
		return nil
	}))
	require.Positive(t, n)
}
