package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	maxMessageBytes = 1 << 20
	maxSeen         = 100_000
	// forwardTimeout is less than the notifier waits.
	forwardTimeout = 15 * time.Second
)

// receiver takes, verifies and prints deliveries.
type receiver struct {
	env     *environment
	output  *format
	headers bool
	forward string
	count   int
	verify  *standardwebhooks.Webhook
	client  *http.Client

	mu    sync.Mutex
	fail  failures
	seen  map[string]seen // by webhook-id
	got   int             // messages that were accepted
	full  chan struct{}   // closed when got reaches count
	ended bool
}

// seen is what became of a message so far.
type seen struct {
	attempts int
	accepted bool
}

// failures are answers that are to go wrong.
type failures struct{ status, left int }

// String implements pflag.Value.
func (f *failures) String() string {
	if f.left == 0 {
		return ""
	}
	return fmt.Sprintf("%d,%d", f.status, f.left)
}

// Type implements pflag.Value.
func (f *failures) Type() string { return "status,count" }

// Set implements pflag.Value.
func (f *failures) Set(text string) error {
	status, left, found := strings.Cut(text, ",")
	if !found {
		left = "1"
	}
	var errs [2]error
	f.status, errs[0] = strconv.Atoi(status)
	f.left, errs[1] = strconv.Atoi(left)
	if errors.Join(errs[:]...) != nil || f.status < 300 || f.status > 599 || f.left < 1 {
		return errors.New("use a status from 300 to 599 and a number: 500,3")
	}
	return nil
}

// delivery is one attempt, and one line of --output json.
type delivery struct {
	ID        string            `json:"webhook_id"`
	Timestamp string            `json:"webhook_timestamp"`
	Number    int               `json:"delivery"` // of this message, from 1
	Status    int               `json:"answered"`
	Forwarded string            `json:"forwarded,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Body      json.RawMessage   `json:"body"`
}

func (r *receiver) receive(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxMessageBytes))
	if err != nil {
		http.Error(w, "body cannot be read", http.StatusBadRequest)
		return
	}
	if err := r.verify.Verify(body, req.Header); err != nil {
		fmt.Fprintf(r.env.err, "stormbell: refused a message that does not verify: %s\n", printable(err.Error()))
		http.Error(w, "signature does not verify", http.StatusUnauthorized)
		return
	}
	if !json.Valid(body) {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	d := r.begin(req.Header, body)
	if d.Status == 0 {
		r.pass(req.Context(), d, req.Header)
	}
	full, err := r.finish(d)
	if err != nil {
		http.Error(w, "cannot print", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(d.Status)
	if full {
		_ = http.NewResponseController(w).Flush() // the answer leaves before the server closes
		close(r.full)
	}
}

// begin counts the attempt and decides whether it is to fail.
func (r *receiver) begin(header http.Header, body []byte) *delivery {
	d := &delivery{ID: header.Get("webhook-id"), Timestamp: header.Get("webhook-timestamp"), Body: body}
	if r.headers {
		d.Headers = make(map[string]string, len(header))
		for name := range header {
			d.Headers[strings.ToLower(name)] = header.Get(name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) >= maxSeen {
		clear(r.seen)
	}
	message := r.seen[d.ID]
	message.attempts++
	r.seen[d.ID] = message
	d.Number = message.attempts
	if r.fail.left > 0 {
		r.fail.left--
		d.Status = r.fail.status
	}
	return d
}

// pass forwards the message as it came, if that is asked for, and takes over
// the answer.
func (r *receiver) pass(ctx context.Context, d *delivery, header http.Header) {
	d.Status = http.StatusNoContent
	if r.forward == "" {
		return
	}
	began := time.Now()
	var err error
	d.Status, err = r.post(ctx, d.Body, header)
	if err != nil {
		if about, ok := errors.AsType[*url.Error](err); ok {
			err = about.Err // the URL may hold a credential
		}
		d.Status, d.Forwarded = http.StatusInternalServerError, "not forwarded: "+err.Error()
		return
	}
	d.Forwarded = fmt.Sprintf("forwarded, answered %d after %d ms", d.Status, time.Since(began).Milliseconds())
}

func (r *receiver) post(ctx context.Context, body []byte, header http.Header) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.forward, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("build request: %w", err)
	}
	for _, name := range []string{"Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "Traceparent"} {
		if value := header.Get(name); value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := r.client.Do(req) //nolint:gosec // the operator names the URL on the command line
	if err != nil {
		return 0, err //nolint:wrapcheck // the caller takes it apart
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxMessageBytes) // so that the connection can be used again
	return resp.StatusCode, nil
}

// finish prints the attempt and reports whether there are enough messages now.
func (r *receiver) finish(d *delivery) (full bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.print(d); err != nil {
		return false, err
	}
	message := r.seen[d.ID]
	if d.Status/100 == 2 && !message.accepted {
		message.accepted = true
		r.seen[d.ID] = message
		r.got++
	}
	if r.count > 0 && r.got >= r.count && !r.ended {
		r.ended = true
		return true, nil
	}
	return false, nil
}

func (r *receiver) print(d *delivery) error {
	if r.output.name == asJSON {
		return json.NewEncoder(r.env.out).Encode(d)
	}
	var body struct {
		Type string `json:"type"`
		Data struct {
			Summary string `json:"summary"`
			Link    string `json:"link"`
			Rule    struct {
				ID    string `json:"id"`
				Level string `json:"level"`
				Type  string `json:"type"`
			} `json:"rule"`
			TraceID string `json:"trace_id"`
		} `json:"data"`
	}
	_ = json.Unmarshal(d.Body, &body) // another type has other members, which stay empty
	what := body.Data.Summary         // ends with the rule's title
	if what == "" {
		what = body.Type
	}
	lines := []string{headline(r.env, body.Data.Rule.Level, what)}
	detail := func(name, value string) {
		if value != "" {
			lines = append(lines, r.env.paint("2", printable(fmt.Sprintf("  %-9s %s", name, value))))
		}
	}
	if body.Data.Rule.ID != "" {
		detail("rule", body.Data.Rule.ID+", "+body.Data.Rule.Type)
	}
	detail("trace", body.Data.TraceID)
	detail("link", body.Data.Link)
	detail("message", fmt.Sprintf("%s, attempt %d, verified, answered %d", d.ID, d.Number, d.Status))
	detail("forward", d.Forwarded)
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		detail("header", name+": "+d.Headers[name])
	}
	_, err := fmt.Fprintln(r.env.out, strings.Join(lines, "\n"))
	return err
}
