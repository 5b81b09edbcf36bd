package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/ledger"
)

// Response is an answer of a gateway.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Call sends one request to a gateway, by its number, with a key.
func (d *Deployment) Call(ctx context.Context, gateway int, key, method, path, contentType string, body []byte, headers ...string) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.URLs[gateway]+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.GetBody = nil // one request is one request
	req.Header.Set("Authorization", "Bearer "+key)
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	return &Response{resp.StatusCode, resp.Header, text}, nil
}

// JSON sends a value as JSON with the deployment's key, expects a status, and
// reads the answer into a value unless that is nil.
func (d *Deployment) JSON(t testing.TB, gateway int, method, path string, send any, want int, into any) {
	t.Helper()
	var body []byte
	if send != nil {
		var err error
		body, err = json.Marshal(send)
		require.NoError(t, err)
	}
	resp, err := d.Call(t.Context(), gateway, d.Key, method, path, "application/json", body)
	require.NoError(t, err)
	require.Equal(t, want, resp.Status, "%s %s: %s", method, path, resp.Body)
	if into != nil {
		require.NoError(t, json.Unmarshal(resp.Body, into))
	}
}

// Post sends events to a gateway and expects all to be accepted.
func (d *Deployment) Post(t testing.TB, gateway int, ndjson []byte, headers ...string) (ids []string) {
	t.Helper()
	resp, err := d.Call(t.Context(), gateway, d.Key, http.MethodPost, "/v1/events", "application/x-ndjson", ndjson, headers...)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, resp.Status, "%s", resp.Body)
	var answer struct {
		IDs      []string
		Rejected []json.RawMessage
	}
	require.NoError(t, json.Unmarshal(resp.Body, &answer))
	require.Empty(t, answer.Rejected)
	return answer.IDs
}

// As is the deployment as seen by who has another API key.
func (d *Deployment) As(key string) *Deployment {
	other := *d
	other.Key = key
	return &other
}

// Subscribe sends all alerts of the tenant to a receiver and returns the
// subscription's id.
func (d *Deployment) Subscribe(t testing.TB, gateway int, r *ledger.Receiver) string {
	t.Helper()
	var made struct{ ID string }
	d.JSON(t, gateway, http.MethodPost, "/v1/webhooks", map[string]any{"url": r.URL("/hook"), "secret": r.Secret()}, http.StatusCreated, &made)
	return made.ID
}

// PushRules replaces the tenant's rules by those of a directory, tests of rules
// aside, and returns when every gateway stamps events with them.
func (d *Deployment) PushRules(t testing.TB, dir string) {
	t.Helper()
	type file struct {
		File    string `json:"file"`
		Content string `json:"content"`
	}
	var files []file
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yml" || strings.HasSuffix(path, ".test.yml") {
			return err
		}
		text, err := os.ReadFile(path)
		files = append(files, file{path, string(text)})
		return err
	}))
	var answer struct {
		Manifest string
		Rejected int
		Problems json.RawMessage
	}
	d.JSON(t, 0, http.MethodPut, "/v1/rules", map[string]any{"files": files}, http.StatusOK, &answer)
	require.Zero(t, answer.Rejected, "%s", answer.Problems)
	require.NotEmpty(t, answer.Manifest)
	for gateway := range d.URLs {
		var status struct{ Manifests struct{ Tenant string } }
		require.NoError(t, Every(t.Context(), "every gateway has the rules", func() bool {
			d.JSON(t, gateway, http.MethodGet, "/v1/status", nil, http.StatusOK, &status)
			return status.Manifests.Tenant == answer.Manifest
		}))
	}
}

// Stormbell runs the command line against a gateway and returns what it printed.
// The key goes by the environment.
func (d *Deployment) Stormbell(ctx context.Context, gateway int, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, Program("stormbell"), args...)
	cmd.Env = append(os.Environ(), "STORMBELL_API_KEY="+d.Key, "STORMBELL_URL="+d.URLs[gateway], "HOME="+d.Dir)
	var out, diagnostics strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("stormbell %s: %w\n%s", strings.Join(args, " "), err, diagnostics.String())
	}
	return out.String(), diagnostics.String(), err
}
