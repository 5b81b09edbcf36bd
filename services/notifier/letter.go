package notifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/signature"
)

const kindSubscription = "subscription"

// An address is what a subscription keeps sealed, opened.
type address struct {
	sub               *controlv1.Subscription
	url               *url.URL
	current, previous signature.Key
	headers           map[string]string
	// secrets are texts that a receiver might repeat in its answer.
	secrets [][]byte
}

// addresses opens subscriptions and remembers them until they change.
type addresses struct {
	sealer *seal.Sealer

	mu   sync.Mutex
	open map[string]*address // by endpoint
}

func newAddresses(sealer *seal.Sealer) *addresses {
	return &addresses{sealer: sealer, open: make(map[string]*address)}
}

// of returns the address of a subscription as it is now. Errors hold nothing
// secret.
func (a *addresses) of(sub *controlv1.Subscription) (*address, error) {
	a.mu.Lock()
	known := a.open[sub.GetId()]
	a.mu.Unlock()
	if known != nil && known.sub == sub { // objects of the view never change
		return known, nil
	}
	fresh, err := a.unseal(sub)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) >= sweepSize {
		clear(a.open)
	}
	a.open[sub.GetId()] = fresh
	return fresh, nil
}

func (a *addresses) unseal(sub *controlv1.Subscription) (*address, error) {
	out := &address{sub: sub}
	where, err := a.text(sub, "url", sub.GetUrl())
	if err != nil {
		return nil, err
	}
	if out.url, err = url.Parse(where); err != nil {
		return nil, errors.New("the webhook's URL cannot be read: set it again")
	}
	secret, err := a.text(sub, "secret", sub.GetSecret())
	if err != nil {
		return nil, err
	}
	if out.current, err = signature.ParseSecret(secret); err != nil {
		return nil, fmt.Errorf("the webhook's secret cannot be used: %w", err)
	}
	previous := ""
	if sub.GetPreviousSecret() != nil {
		if previous, err = a.text(sub, "previous_secret", sub.GetPreviousSecret()); err != nil {
			return nil, err
		}
		if out.previous, err = signature.ParseSecret(previous); err != nil {
			return nil, fmt.Errorf("the webhook's previous secret cannot be used: %w", err)
		}
	}
	if sub.GetHeaders() != nil {
		text, err := a.text(sub, "headers", sub.GetHeaders())
		if err != nil {
			return nil, err
		}
		if json.Unmarshal([]byte(text), &out.headers) != nil {
			return nil, errors.New("the webhook's headers cannot be read: set them again")
		}
	}
	if err := egress.CheckHeaders(out.headers); err != nil {
		return nil, fmt.Errorf("the webhook's headers cannot be sent: %w", err)
	}
	out.collect(where, secret, previous)
	return out, nil
}

func (a *addresses) text(sub *controlv1.Subscription, field string, sealed *controlv1.Sealed) (string, error) {
	s, err := a.sealer.Open(seal.Place{Tenant: sub.GetTenant(), Kind: kindSubscription, ID: sub.GetId(), Field: field}, sealed)
	if err != nil {
		return "", fmt.Errorf("the webhook cannot be opened: %w", err)
	}
	return s.Reveal(), nil
}

// leastSecret is the length of a text that is worth hiding: shorter ones are
// words of any answer.
const leastSecret = 8

// collect gathers what must not come back, longest first.
func (a *address) collect(texts ...string) {
	texts = append(texts, a.url.RequestURI(), a.url.Path, a.url.RawQuery)
	for _, values := range a.url.Query() {
		texts = append(texts, values...)
	}
	for _, v := range a.headers {
		texts = append(texts, v)
	}
	for _, t := range texts {
		if len(t) >= leastSecret {
			a.secrets = append(a.secrets, []byte(t))
		}
	}
	slices.SortFunc(a.secrets, func(x, y []byte) int { return len(y) - len(x) })
}

// clean takes from a response what the receiver repeats of our secrets.
func (a *address) clean(response []byte) []byte {
	for _, s := range a.secrets {
		response = bytes.ReplaceAll(response, s, []byte("[redacted]"))
	}
	return response
}

// letter is the request of one attempt: signed now, with the trace context of
// ctx and without baggage.
func (a *address) letter(ctx context.Context, webhookID string, body []byte, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the webhook's URL cannot be used: set it again") // the error would repeat it
	}
	for name, value := range a.headers {
		req.Header.Set(name, value)
	}
	previous := a.previous
	if until := a.sub.GetPreviousSecretUntilMs(); until <= now.UnixMilli() {
		previous = nil
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Stormbell")
	req.Header.Set(signature.HeaderID, webhookID)
	req.Header.Set(signature.HeaderTimestamp, fmt.Sprint(now.Unix()))
	req.Header.Set(signature.HeaderSignature, signature.Sign(webhookID, now, body, a.current, previous))
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return req, nil
}
