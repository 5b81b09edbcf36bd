package ledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// NewSecret returns a signing secret of its own for a subscription.
func NewSecret() string {
	var key [24]byte
	_, _ = rand.Read(key[:]) // never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key[:])
}

// A Delivery is one request that a receiver got.
type Delivery struct {
	Path      string `json:"path"`
	WebhookID string `json:"webhook_id"`
	AlertID   string `json:"alert_id"`
	Type      string `json:"type"`
	BodyHash  string `json:"body_sha256"`
	// Refused says why the signature does not hold; empty where it does.
	Refused string `json:"refused,omitempty"`
	// Status is what the receiver answered.
	Status  int         `json:"status"`
	At      time.Time   `json:"at"`
	Headers http.Header `json:"headers"`
	Body    []byte      `json:"body"`
}

// A Receiver is a subscriber: an HTTP server that verifies each delivery by the
// Go library of Standard Webhooks and writes it down. It is safe for
// concurrent use.
type Receiver struct {
	secret   string
	webhook  *standardwebhooks.Webhook
	answer   func(n int, d *Delivery) int
	hang     bool
	server   *http.Server
	listener net.Listener
	ended    chan struct{} // closed by Close, frees requests that hang
	served   chan struct{}

	mu         sync.Mutex
	deliveries []Delivery
	changed    chan struct{} // closed and replaced at each delivery
}

// Behave is how a receiver answers. The zero value is 204 at once.
type Behave struct {
	// Hang leaves every request without an answer.
	Hang bool
	// Host is the address to listen on, of this machine; empty is loopback.
	Host string
	// Answer chooses the status of the nth delivery, from 1.
	Answer func(n int, d *Delivery) int
}

// NewReceiver starts a subscriber with the given signing secret on a free
// port. The caller must call Close.
func NewReceiver(ctx context.Context, secret string, how Behave) (*Receiver, error) {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(cmp.Or(how.Host, "127.0.0.1"), "0"))
	if err != nil {
		return nil, fmt.Errorf("start receiver: %w", err)
	}
	r := &Receiver{
		secret: secret, webhook: webhook, answer: how.Answer, hang: how.Hang, listener: l,
		ended: make(chan struct{}), served: make(chan struct{}), changed: make(chan struct{}),
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(l) // Close ends it
	}()
	return r, nil
}

// URL is where to deliver to, with the given path.
func (r *Receiver) URL(path string) string { return "http://" + r.listener.Addr().String() + path }

// Secret is the signing secret to subscribe with.
func (r *Receiver) Secret() string { return r.secret }

// Close ends the server and every request that it holds.
func (r *Receiver) Close() error {
	close(r.ended)
	err := r.server.Close()
	<-r.served
	if err != nil {
		return fmt.Errorf("close receiver: %w", err)
	}
	return nil
}

// ServeHTTP takes one delivery.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 1<<20))
	if err != nil {
		http.Error(w, "body", http.StatusBadRequest)
		return
	}
	d := Delivery{Path: req.URL.Path, WebhookID: req.Header.Get("webhook-id"), At: time.Now(), Headers: req.Header.Clone(), Body: body, Status: http.StatusNoContent}
	sum := sha256.Sum256(body)
	d.BodyHash = hex.EncodeToString(sum[:])
	if err := r.read(&d); err != nil {
		d.Refused, d.Status = err.Error(), http.StatusUnauthorized
	}
	r.mu.Lock()
	if r.hang {
		d.Status = 0
	} else if r.answer != nil && d.Refused == "" {
		d.Status = r.answer(len(r.deliveries)+1, &d)
	}
	r.deliveries = append(r.deliveries, d)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if r.hang {
		select {
		case <-r.ended:
		case <-req.Context().Done():
		}
		return
	}
	w.WriteHeader(d.Status)
}

func (r *Receiver) read(d *Delivery) error {
	if err := r.webhook.Verify(d.Body, d.Headers); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	var message struct {
		Type string
		Data struct{ ID string }
	}
	if err := json.Unmarshal(d.Body, &message); err != nil {
		return fmt.Errorf("body is not JSON: %w", err)
	}
	if message.Type == "" || d.WebhookID == "" {
		return errors.New("no type or no webhook-id")
	}
	d.Type, d.AlertID = message.Type, message.Data.ID
	return nil
}

// Deliveries returns what has come so far.
func (r *Receiver) Deliveries() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.deliveries)
}

// Await returns when enough says that what has come suffices, which is asked
// again after each delivery.
func (r *Receiver) Await(ctx context.Context, enough func([]Delivery) bool) error {
	for {
		r.mu.Lock()
		got, changed := slices.Clone(r.deliveries), r.changed
		r.mu.Unlock()
		if enough(got) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for deliveries, %d came: %w", len(got), ctx.Err())
		}
	}
}

// Alerts returns the ids of the alerts that were answered with success.
func Alerts(deliveries []Delivery) map[string]bool {
	ids := map[string]bool{}
	for i := range deliveries {
		if d := &deliveries[i]; d.Refused == "" && d.Status/100 == 2 && d.AlertID != "" {
			ids[d.AlertID] = true
		}
	}
	return ids
}

// Judge compares what came with the alerts that must exist and returns one line
// for each anomaly: "lost" and "spurious" alerts, deliveries that are
// "unsigned", alerts under two webhook-ids, webhook-ids with two bodies.
func Judge(deliveries []Delivery, want []string) []string {
	found := []string{}
	got := Alerts(deliveries)
	for _, id := range slices.Sorted(slices.Values(want)) {
		if !got[id] {
			found = append(found, "lost: alert "+id)
		}
		delete(got, id)
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		found = append(found, "spurious: alert "+id)
	}
	ids, bodies := map[string]string{}, map[string]string{}
	seen := map[string]bool{}
	note := func(line string) {
		if !seen[line] {
			seen[line] = true
			found = append(found, line)
		}
	}
	for i := range deliveries {
		d := &deliveries[i]
		if d.Refused != "" {
			note("unsigned: " + d.Refused)
			continue
		}
		if was, ok := ids[d.AlertID]; ok && was != d.WebhookID {
			note("two webhook-ids: alert " + d.AlertID)
		}
		if was, ok := bodies[d.WebhookID]; ok && was != d.BodyHash {
			note("two bodies: " + d.WebhookID)
		}
		ids[d.AlertID], bodies[d.WebhookID] = d.WebhookID, d.BodyHash
	}
	return found
}
