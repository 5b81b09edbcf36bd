package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// listenLease is how long the subscription outlives a listener that was
	// killed; it is renewed at half of it.
	listenLease     = 10 * time.Minute
	maxMessageBytes = 1 << 20
	maxSeen         = 100_000
)

// listener receives, verifies and prints deliveries.
type listener struct {
	env    *environment
	output *format
	count  int
	verify *standardwebhooks.Webhook

	mu    sync.Mutex
	seen  map[string]int // deliveries by webhook-id
	got   int            // distinct verified ids
	full  chan struct{}  // closed when got reaches count
	ended bool
}

func newWebhooksListen(env *environment, conn *connection) *cobra.Command {
	var (
		listen, public string
		l              = &listener{env: env, seen: make(map[string]int), full: make(chan struct{})}
	)
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive alerts here for as long as this command runs, verify and print each",
		Long: "Receive alerts here for as long as this command runs, verify and print each.\n" +
			"It makes a webhook with a secret of its own, which is removed when the command ends\n" +
			"(and ends by itself some minutes later if the command was killed).",
		Example: "  stormbell webhooks listen --min-level high --output json",
		Args:    arguments(0, 0),
	}
	chosen := filterFlags(cmd, conn)
	l.output = outputFlag(cmd)
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "host and port to receive on")
	cmd.Flags().StringVar(&public, "public-url", "", "URL under which the notifier reaches this receiver (default: http and the --listen address)")
	cmd.Flags().IntVar(&l.count, "count", 0, "end after this many alerts (default: at Ctrl-C)")
	cmd.RunE = conn.with(func(ctx context.Context, gateway *client, _ []string) error {
		return l.run(ctx, gateway, listen, public, chosen)
	})
	return cmd
}

func (l *listener) run(ctx context.Context, c *client, listen, public string, chosen *filter) (err error) {
	raw := make([]byte, 24)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	secret := "whsec_" + base64.StdEncoding.EncodeToString(raw)
	if l.verify, err = standardwebhooks.NewWebhook(secret); err != nil {
		return fmt.Errorf("make signing secret: %w", err)
	}
	socket, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("open receiver: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(l.receive), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = server.Serve(socket) }) // ends with Close
	defer func() { _ = server.Close() }()
	if public == "" {
		public = "http://" + socket.Addr().String() + "/"
	}
	host, _ := os.Hostname()
	until := time.Now().Add(listenLease).UTC()
	var made webhook
	if err := c.call(ctx, http.MethodPost, "/v1/webhooks", webhookRequest{
		Name: "listen on " + host, URL: public, Secret: secret, Filter: chosen, ExpiresAt: &until,
	}, &made); err != nil {
		return err
	}
	path := "/v1/webhooks/" + url.PathEscape(made.ID)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if gone := c.call(ctx, http.MethodDelete, path, nil, nil); gone != nil {
			err = errors.Join(err, fmt.Errorf("remove temporary webhook %s, which ends by itself at %s: %w", made.ID, until.Format(time.RFC3339), gone))
		}
	}()
	fmt.Fprintf(l.env.err, "Listening on %s as webhook %s. Ctrl-C ends and removes it.\n", public, made.ID)
	return l.hold(ctx, c, path)
}

// hold keeps the subscription alive until there is enough, or ctx ends.
func (l *listener) hold(ctx context.Context, c *client, path string) error {
	renew := time.NewTicker(listenLease / 2)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.full:
			return nil
		case <-renew.C:
			until := time.Now().Add(listenLease).UTC()
			if err := c.call(ctx, http.MethodPatch, path, webhookRequest{ExpiresAt: &until}, nil); err != nil && ctx.Err() == nil {
				fmt.Fprintf(l.env.err, "stormbell: cannot renew the temporary webhook: %v\n", err)
			}
		}
	}
}

// delivery is one line of --output json.
type delivery struct {
	ID        string          `json:"webhook_id"`
	Timestamp string          `json:"webhook_timestamp"`
	Delivery  int             `json:"delivery"`
	Body      json.RawMessage `json:"body"`
}

func (l *listener) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessageBytes))
	if err != nil {
		http.Error(w, "body cannot be read", http.StatusBadRequest)
		return
	}
	if err := l.verify.Verify(body, r.Header); err != nil {
		fmt.Fprintf(l.env.err, "stormbell: refused a message that does not verify: %s\n", printable(err.Error()))
		http.Error(w, "signature does not verify", http.StatusUnauthorized)
		return
	}
	if !json.Valid(body) {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := r.Header.Get("webhook-id")
	if len(l.seen) >= maxSeen {
		clear(l.seen)
	}
	l.seen[id]++
	if err := l.print(delivery{id, r.Header.Get("webhook-timestamp"), l.seen[id], body}); err != nil {
		http.Error(w, "cannot print", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	if l.seen[id] == 1 {
		l.got++
	}
	if l.count > 0 && l.got >= l.count && !l.ended {
		l.ended = true
		_ = http.NewResponseController(w).Flush() // the answer leaves before the server closes
		close(l.full)
	}
}

func (l *listener) print(d delivery) error {
	if l.output.name == asJSON {
		return json.NewEncoder(l.env.out).Encode(d)
	}
	var body struct {
		Type string `json:"type"`
		Data struct {
			Summary string `json:"summary"`
			Rule    struct {
				Level string `json:"level"`
			} `json:"rule"`
		} `json:"data"`
	}
	_ = json.Unmarshal(d.Body, &body) // another type has other members, which stay empty
	again := ""
	if d.Delivery > 1 {
		again = fmt.Sprintf(" (delivery %d)", d.Delivery)
	}
	what := body.Data.Summary // ends with the rule's title
	if what == "" {
		what = body.Type
	}
	_, err := fmt.Fprintf(l.env.out, "%s %s%s\n", d.ID, headline(l.env, body.Data.Rule.Level, what), again)
	return err
}
