package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/stormbell/stormbell/services/e2e/story"
)

const maxAnswer = 16 << 20

// client speaks to the gateway as any client would.
type client struct {
	url, key string
	http     *http.Client
}

// answer is what the gateway says to posted events.
type answer struct {
	Accepted int               `json:"accepted"`
	Late     int               `json:"late"`
	Rejected []json.RawMessage `json:"rejected"`
}

func (c *client) do(ctx context.Context, method, path string, header http.Header, body []byte, want int, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	if resp.StatusCode != want {
		return fmt.Errorf("%s %s: status %d, not %d: %s", method, path, resp.StatusCode, want, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s %s: answer is not JSON: %w", method, path, err)
	}
	return nil
}

// subscribe has all alerts sent to a URL, signed with a secret.
func (c *client) subscribe(ctx context.Context, url, secret string) error {
	body, err := json.Marshal(map[string]string{"name": "demo", "url": url, "secret": secret})
	if err != nil {
		return fmt.Errorf("build webhook: %w", err)
	}
	var made struct {
		ID string `json:"id"`
	}
	if err := c.do(ctx, http.MethodPost, "/v1/webhooks", nil, body, http.StatusCreated, &made); err != nil {
		return err
	}
	if made.ID == "" {
		return errors.New("the gateway gave the webhook no id")
	}
	return nil
}

// file posts events as AWS delivers them: a compressed CloudTrail file.
func (c *client) file(ctx context.Context, source string, events []story.Event) (answer, error) {
	packed, err := story.File(events)
	if err != nil {
		return answer{}, err
	}
	var a answer
	err = c.do(ctx, http.MethodPost, "/v1/events?source="+source, http.Header{"Content-Encoding": {"gzip"}}, packed, http.StatusAccepted, &a)
	return a, err
}

// A request is one that was traced: when it was sent, and how long it took.
type request struct {
	trace, span, path string
	name              string
	sent              time.Time
	took              time.Duration
}

// event posts one event as the root of a trace.
func (c *client) event(ctx context.Context, source string, e story.Event) (request, answer, error) {
	r := request{trace: random(16), span: random(8), path: "/v1/events?source=" + source, name: e.Name, sent: time.Now()}
	var a answer
	err := c.do(ctx, http.MethodPost, r.path, http.Header{"Traceparent": {"00-" + r.trace + "-" + r.span + "-01"}}, e.JSON, http.StatusAccepted, &a)
	r.took = time.Since(r.sent)
	return r, a, err
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
