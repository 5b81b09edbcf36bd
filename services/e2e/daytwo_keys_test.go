package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/tools/certs"
	"github.com/stormbell/stormbell/tools/ledger"
)

// choreKeys rotates what may leak or expire, under a load, and starts nothing
// anew: a gateway's certificate, the root key, a signing secret, an API key.
func choreKeys(t *testing.T, r *rig.Runner) string {
	o := begin(t, r, rig.Options{})
	o.progress()
	rotateCertificate(t, o)
	rotateRoot(t, o)
	o.progress()
	rotateSecret(t, o)
	rotateAPIKey(t, o)
	o.progress()
	return o.judge()
}

// hold moves new files over old ones.
func hold(t *testing.T, files certs.Files) *x509.CertPool {
	t.Helper()
	made, err := certs.Write(t.TempDir(), time.Now())
	require.NoError(t, err)
	ca, err := os.ReadFile(made.CA)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca))
	require.NoError(t, os.Rename(made.Cert, files.Cert))
	require.NoError(t, os.Rename(made.Key, files.Key))
	return pool
}

// rotateCertificate replaces the files of a gateway's certificate while a
// request is under way, and then breaks them.
func rotateCertificate(t *testing.T, o *ordeal) {
	t.Helper()
	dir := t.TempDir()
	files := certs.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	first := hold(t, files)
	p, addr := o.d.JoinTLS(t, "gateway-tls", files.Cert, files.Key)
	trusting := func(pool *x509.CertPool) *http.Client {
		return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	}
	post := func(client *http.Client, body io.Reader) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/v1/events", body)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+o.d.Key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }() // its status is enough
		return resp.StatusCode, nil
	}
	const event = `{"action":"none"}`
	accepted := func(pool *x509.CertPool) bool {
		status, err := post(trusting(pool), strings.NewReader(event))
		return err == nil && status == http.StatusAccepted
	}
	require.True(t, accepted(first))

	body, rest := io.Pipe()
	type answer struct {
		status int
		err    error
	}
	under := make(chan answer, 1)
	go func() {
		status, err := post(trusting(first), body)
		under <- answer{status, err}
	}()
	_, err := rest.Write([]byte(event[:5])) // it is read: the connection is open
	require.NoError(t, err)
	second := hold(t, files)
	require.NoError(t, rig.Every(within(t, patience), "the new certificate is served", func() bool { return accepted(second) }))
	require.False(t, accepted(first), "the old one is not")
	_, err = rest.Write([]byte(event[5:]))
	require.NoError(t, err)
	require.NoError(t, rest.Close())
	require.Equal(t, answer{http.StatusAccepted, nil}, <-under, "a request that is under way goes on")

	require.NoError(t, os.WriteFile(files.Cert, []byte("no certificate\n"), 0o600))
	awaitMetric(t, p, `stormbell_files_stale{files="gateway.tls"`, "1")
	require.True(t, accepted(second), "what was there before is in force")
	third := hold(t, files)
	awaitMetric(t, p, `stormbell_files_stale{files="gateway.tls"`, "0")
	require.True(t, accepted(third))
}

// awaitMetric returns when a line of a process's metrics ends in a value.
func awaitMetric(t *testing.T, p *rig.Process, line, value string) {
	t.Helper()
	require.NoError(t, rig.Every(within(t, patience), p.Name+" shows "+line+" at "+value, func() bool {
		_, text, err := p.Admin(t.Context(), "/metrics")
		if err != nil {
			return false
		}
		for one := range strings.Lines(text) {
			if strings.HasPrefix(one, line) && strings.HasSuffix(strings.TrimSpace(one), " "+value) {
				return true
			}
		}
		return false
	}))
}

// rotateRoot puts a new root key in the place of the old one in three steps, so
// that no process ever lacks one.
func rotateRoot(t *testing.T, o *ordeal) {
	t.Helper()
	text, err := os.ReadFile(o.d.RootKey())
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	before := lines[len(lines)-1]
	after := base64.StdEncoding.EncodeToString([]byte(rig.Secret() + rig.Secret())[:32])
	for n, keys := range []string{after + "\n" + before, before + "\n" + after} {
		putRoot(t, o, keys, n+1)
	}
	out, _, err := o.d.Stormbell(t.Context(), 0, "keys", "rewrap", "--config", o.d.Config())
	require.NoError(t, err)
	require.Contains(t, out, "tenant keys: 1, rewrapped: 1")
	putRoot(t, o, after, 3)
	p := o.d.Join(t, "notifier", "notifier-new") // knows the new one alone
	require.NoError(t, o.of("notifier")[0].Stop(time.Minute))
	o.progress()
	require.NoError(t, o.of("notifier")[0].Start(t.Context()))
	require.NotZero(t, p.Pid())
}

// putRoot replaces the file of root keys and returns when all who need it have
// read it so many times.
func putRoot(t *testing.T, o *ordeal, keys string, times int) {
	t.Helper()
	fresh := o.d.RootKey() + ".new"
	require.NoError(t, os.WriteFile(fresh, []byte(keys+"\n"), 0o600))
	require.NoError(t, os.Rename(fresh, o.d.RootKey()))
	for _, p := range append(o.of("gateway")[:2], o.of("notifier")[:2]...) {
		awaitMetric(t, p, `stormbell_files_reloads_total{files="seal.root_key_file",`, fmt.Sprint(times))
	}
}

// rotateSecret gives the webhook another secret. Both sign, so that who knows
// one of them goes on.
func rotateSecret(t *testing.T, o *ordeal) {
	t.Helper()
	var list struct{ Webhooks []struct{ ID string } }
	o.d.JSON(t, 0, http.MethodGet, "/v1/webhooks", nil, http.StatusOK, &list)
	require.Len(t, list.Webhooks, 1)
	o.d.JSON(t, 0, http.MethodPatch, "/v1/webhooks/"+list.Webhooks[0].ID, map[string]any{"secret": ledger.NewSecret()}, http.StatusOK, nil)
	require.NoError(t, o.healthy.Await(within(t, patience), func(got []ledger.Delivery) bool {
		last := got[len(got)-1]
		require.Empty(t, last.Refused, "the receiver knows the old secret")
		return strings.Count(last.Headers.Get("webhook-signature"), "v1,") == 2
	}))
}

// rotateAPIKey makes a key, takes the one before away, and sees that it went.
func rotateAPIKey(t *testing.T, o *ordeal) {
	t.Helper()
	var old, fresh struct{ ID, Key string }
	o.d.JSON(t, 0, http.MethodPost, "/v1/keys", map[string]any{"name": "old", "scopes": []string{control.ScopeIngest}}, http.StatusCreated, &old)
	use := func(gateway int, key string) int {
		resp, err := o.d.Call(t.Context(), gateway, key, http.MethodPost, "/v1/events", "application/json", []byte(`{"action":"none"}`))
		require.NoError(t, err)
		return resp.Status
	}
	require.Equal(t, http.StatusAccepted, use(1, old.Key))
	o.d.JSON(t, 0, http.MethodPost, "/v1/keys", map[string]any{"name": "new", "scopes": []string{control.ScopeIngest}}, http.StatusCreated, &fresh)
	require.Equal(t, http.StatusAccepted, use(1, fresh.Key))
	resp, err := o.d.Call(t.Context(), 0, o.d.Key, http.MethodDelete, "/v1/keys/"+old.ID, "", nil)
	require.NoError(t, err)
	require.Equal(t, 2, resp.Status/100)
	require.NoError(t, rig.Every(within(t, patience), "the revoked key is refused by the other gateway", func() bool { return use(1, old.Key) == http.StatusUnauthorized }))
	require.Equal(t, http.StatusAccepted, use(1, fresh.Key))
}

// choreRestore loses a whole cluster but for its root key and a backup. Another
// one goes on with the same keys, rules and webhooks.
func choreRestore(t *testing.T, r *rig.Runner) string {
	o := prepare(t, r, rig.Options{})
	o.probe()
	backup := filepath.Join(t.TempDir(), "control.ndjson")
	out, _, err := o.d.Stormbell(t.Context(), 0, "control", "export", "--config", o.d.Config(), "--out", backup)
	require.NoError(t, err)
	require.Contains(t, out, "exported: ")
	text, err := os.ReadFile(backup)
	require.NoError(t, err)
	secrets := canaries{}
	secrets.add("API key", o.d.Key)
	secrets.add("signing secret", strings.TrimPrefix(o.healthy.Secret(), "whsec_"))
	secrets.add("path of the webhook", "/hook")
	require.Empty(t, secrets.in(text), "what is secret is sealed")
	first := o.judge() // and stops it

	load := func(config string) string {
		out, _, err := o.d.Stormbell(t.Context(), 0, "control", "import", "--config", config, backup)
		require.NoError(t, err)
		return out
	}
	began := time.Now()
	d := r.Start(t, rig.Options{From: o.d, Restore: func(config string) {
		require.Contains(t, load(config), "there already: 0")
		require.Contains(t, load(config), "imported: 0 objects", "it may be repeated")
	}})
	restored := &ordeal{t: t, seed: o.seed + 1, d: d, healthy: o.healthy, client: newClient(t, d), began: time.Now()}
	restored.probe()
	took := time.Since(began)
	for _, one := range o.healthy.Deliveries() {
		require.Empty(t, one.Refused, "signed by the secret that was restored")
	}
	var made struct{ ID string }
	d.JSON(t, 0, http.MethodPost, "/v1/keys", map[string]any{"name": "one more"}, http.StatusCreated, &made)
	_, _, err = d.Stormbell(t.Context(), 0, "control", "import", "--config", d.Config(), backup)
	require.ErrorContains(t, err, "import into a cluster whose services were never started")
	return fmt.Sprintf("%d bytes of backup; first alert of the new cluster %s after the old one was lost; before: %s", len(text), took.Round(time.Millisecond), first)
}
