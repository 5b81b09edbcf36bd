package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/seal"
)

// filterBody is the JSON of controlv1.Filter.
type filterBody struct {
	RuleIDs  []string `json:"rule_ids,omitempty"`
	MinLevel string   `json:"min_level,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Sources  []string `json:"sources,omitempty"`
	Types    []string `json:"types,omitempty"`
}

// webhookRequest creates or changes a subscription. In a change, members that
// are left out keep their value.
type webhookRequest struct {
	Name *string `json:"name"`
	URL  *string `json:"url"`
	// Secret is the signing secret, `whsec_…`; one is made if it is left out.
	Secret *string `json:"secret"`
	// RotateSecret has a change make a new one.
	RotateSecret bool               `json:"rotate_secret"`
	Headers      *map[string]string `json:"headers"`
	Filter       *filterBody        `json:"filter"`
	// Disabled pauses the subscription: alerts meanwhile are not delivered.
	Disabled *bool `json:"disabled"`
	// ExpiresAt ends a temporary subscription.
	ExpiresAt *time.Time `json:"expires_at"`
}

// webhookBody shows a subscription, without its secrets.
type webhookBody struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Revision string `json:"revision"`
	// URL is scheme and host alone: the rest may hold credentials.
	URL string `json:"url"`
	// Secret is shown once, by the request that made it.
	Secret         string     `json:"secret,omitempty"`
	HasHeaders     bool       `json:"has_headers"`
	Filter         filterBody `json:"filter"`
	Disabled       bool       `json:"disabled"`
	DisabledReason string     `json:"disabled_reason,omitempty"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
	ExpiresAt      *time.Time `json:"expires_at,omitempty"`
}

const (
	secretPrefix     = "whsec_"
	secretBytes      = 24 // need no padding in base64
	minSecretBytes   = 24
	maxSecretBytes   = 64
	maxWebhooks      = 1000
	maxURLBytes      = 2048
	maxNameBytes     = 200
	maxHeaderBytes   = 4096
	maxFilterValues  = 500
	maxFilterBytes   = 256
	rotationOverlap  = 24 * time.Hour
	keepExpired      = 24 * time.Hour
	kindSubscription = "subscription"
)

func (s *Service) listWebhooks(c *gin.Context, id control.Identity) {
	if err := s.deps.Control.Sync(c.Request.Context()); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	out := []webhookBody{}
	for _, sub := range s.deps.Control.Subscriptions(id.Tenant) {
		out = append(out, showWebhook(sub))
	}
	answer(c, http.StatusOK, gin.H{"webhooks": out})
}

func (s *Service) getWebhook(c *gin.Context, id control.Identity) {
	sub, p := s.webhook(c, id)
	if p != nil {
		refuse(c, p)
		return
	}
	answer(c, http.StatusOK, showWebhook(sub))
}

// webhook returns the one that the path names, also where another gateway has
// made or changed it just now.
func (s *Service) webhook(c *gin.Context, id control.Identity) (*controlv1.Subscription, *problem) {
	if err := s.deps.Control.Sync(c.Request.Context()); err != nil {
		return nil, s.controlProblem(c, err)
	}
	sub, ok := s.deps.Control.Subscription(id.Tenant, c.Param("id"))
	if !ok {
		return nil, noWebhook()
	}
	return sub, nil
}

func noWebhook() *problem {
	return newProblem(http.StatusNotFound, codeNotFound, "no webhook of this tenant has this id")
}

func (s *Service) createWebhook(c *gin.Context, id control.Identity) {
	var req webhookRequest
	if p := decode(c, &req, maxManageBytes); p != nil {
		refuse(c, p)
		return
	}
	switch {
	case req.URL == nil:
		refuse(c, invalid(fieldError{"url", "is missing: where alerts are sent to"}))
		return
	case req.RotateSecret:
		refuse(c, invalid(fieldError{"rotate_secret", "is for a webhook that exists"}))
		return
	}
	defer s.changes.lock(id.Tenant)()
	if err := s.dropExpired(c.Request.Context(), id.Tenant); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	if len(s.deps.Control.Subscriptions(id.Tenant)) >= maxWebhooks {
		refuse(c, newProblem(http.StatusConflict, codeInvalid, fmt.Sprintf("a tenant can have %d webhooks: remove one first", maxWebhooks)))
		return
	}
	secret := newSecret()
	if req.Secret == nil {
		req.Secret = &secret
	}
	now := s.deps.Clock().UnixMilli()
	sub := &controlv1.Subscription{Id: newID("wh_"), Tenant: id.Tenant, CreatedMs: now}
	s.storeWebhook(c, sub, &req, http.StatusCreated)
}

func (s *Service) changeWebhook(c *gin.Context, id control.Identity) {
	var req webhookRequest
	if p := decode(c, &req, maxManageBytes); p != nil {
		refuse(c, p)
		return
	}
	if req.RotateSecret {
		if req.Secret != nil {
			refuse(c, invalid(fieldError{"rotate_secret", "makes a secret: leave out either it or secret"}))
			return
		}
		secret := newSecret()
		req.Secret = &secret
	}
	// Held until the change is in force, so that two changes at this gateway
	// do not undo each other.
	defer s.changes.lock(id.Tenant)()
	old, p := s.webhook(c, id)
	if p != nil {
		refuse(c, p)
		return
	}
	s.storeWebhook(c, proto.CloneOf(old), &req, http.StatusOK)
}

// dropExpired removes webhooks that ended a day ago: nobody else does, where a
// temporary subscription's maker was killed.
func (s *Service) dropExpired(ctx context.Context, tenant string) error {
	var keys []string
	long := s.deps.Clock().Add(-keepExpired).UnixMilli()
	for _, sub := range s.deps.Control.Subscriptions(tenant) {
		if at := sub.GetExpiresMs(); at != 0 && at < long {
			keys = append(keys, control.SubscriptionKey(tenant, sub.GetId()))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return s.deps.Control.Delete(ctx, keys...)
}

// storeWebhook applies a request to a subscription, writes and shows it.
func (s *Service) storeWebhook(c *gin.Context, sub *controlv1.Subscription, req *webhookRequest, status int) {
	if errs := s.checkWebhook(req); len(errs) > 0 {
		refuse(c, invalid(errs...))
		return
	}
	ctx := c.Request.Context()
	if err := s.applyWebhook(ctx, sub, req); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	sub.Revision, sub.UpdatedMs = newID(""), s.deps.Clock().UnixMilli()
	if err := s.deps.Control.Put(ctx, &controlv1.Control{Object: &controlv1.Control_Subscription{Subscription: sub}}); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	s.deps.Log.InfoContext(ctx, "webhook stored", "tenant", sub.GetTenant(), "webhook", sub.GetId(), "host", sub.GetDisplayUrl())
	out := showWebhook(sub)
	if req.Secret != nil {
		out.Secret = *req.Secret
	}
	answer(c, status, out)
}

func (s *Service) deleteWebhook(c *gin.Context, id control.Identity) {
	defer s.changes.lock(id.Tenant)()
	sub, p := s.webhook(c, id)
	if p != nil {
		refuse(c, p)
		return
	}
	ctx := c.Request.Context()
	if err := s.deps.Control.Delete(ctx, control.SubscriptionKey(id.Tenant, sub.GetId())); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	s.deps.Log.InfoContext(ctx, "webhook removed", "tenant", id.Tenant, "webhook", sub.GetId())
	c.Status(http.StatusNoContent)
}

// checkWebhook returns what is wrong with the members that are set. Reasons
// never repeat a secret, nor an address.
func (s *Service) checkWebhook(req *webhookRequest) []fieldError {
	var errs []fieldError
	bad := func(field, reason string) { errs = append(errs, fieldError{field, reason}) }
	if req.Name != nil && len(*req.Name) > maxNameBytes {
		bad("name", fmt.Sprintf("is longer than %d bytes", maxNameBytes))
	}
	if req.URL != nil {
		if err := s.checkURL(*req.URL); err != nil {
			bad("url", err.Error())
		}
	}
	if req.Secret != nil && !validSecret(*req.Secret) {
		bad("secret", fmt.Sprintf("must be %s and %d to %d bytes in base64: leave it out to have one made", secretPrefix, minSecretBytes, maxSecretBytes))
	}
	if req.Headers != nil {
		errs = append(errs, checkHeaders(*req.Headers)...)
	}
	if req.Filter != nil {
		errs = append(errs, checkFilter(req.Filter)...)
	}
	if req.ExpiresAt != nil && !req.ExpiresAt.After(s.deps.Clock()) {
		bad("expires_at", "lies in the past")
	}
	return errs
}

func (s *Service) checkURL(text string) error {
	if len(text) > maxURLBytes {
		return fmt.Errorf("is longer than %d bytes", maxURLBytes)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return errors.New("must be an absolute https URL")
	}
	if u.User != nil || u.Fragment != "" {
		return errors.New("must not hold a user or a fragment: put credentials into headers")
	}
	return s.deps.CheckURL(text)
}

func checkHeaders(headers map[string]string) []fieldError {
	// What the notifier would refuse to send must not be stored.
	if err := egress.CheckHeaders(headers); err != nil {
		return []fieldError{{"headers", err.Error()}}
	}
	size := 0
	for name, value := range headers {
		size += len(name) + len(value)
	}
	if size > maxHeaderBytes {
		return []fieldError{{"headers", fmt.Sprintf("are longer than %d bytes together", maxHeaderBytes)}}
	}
	return nil
}

func checkFilter(f *filterBody) []fieldError {
	var errs []fieldError
	switch f.MinLevel {
	case "", "informational", "low", "medium", "high", "critical":
	default:
		errs = append(errs, fieldError{"filter.min_level", "must be informational, low, medium, high or critical"})
	}
	for _, t := range f.Types {
		if t != alert.Type && t != alert.TypeUpdated {
			errs = append(errs, fieldError{"filter.types", "must be " + alert.Type + " or " + alert.TypeUpdated})
			break
		}
	}
	for field, values := range map[string][]string{"types": f.Types, "rule_ids": f.RuleIDs, "tags": f.Tags, "sources": f.Sources} {
		if len(values) > maxFilterValues {
			errs = append(errs, fieldError{"filter." + field, fmt.Sprintf("has more than %d values", maxFilterValues)})
		}
		for _, v := range values {
			if v == "" || len(v) > maxFilterBytes {
				errs = append(errs, fieldError{"filter." + field, fmt.Sprintf("has a value that is empty or longer than %d bytes", maxFilterBytes)})
				break
			}
		}
	}
	return errs
}

// applyWebhook writes the members that are set into sub, secrets sealed.
func (s *Service) applyWebhook(ctx context.Context, sub *controlv1.Subscription, req *webhookRequest) error {
	if req.Name != nil {
		sub.Name = *req.Name
	}
	if req.Disabled != nil {
		sub.Disabled, sub.DisabledReason = *req.Disabled, ""
		if sub.Disabled {
			sub.DisabledReason = "disabled by request"
		}
	}
	if req.Filter != nil {
		sub.Filter = &controlv1.Filter{RuleIds: req.Filter.RuleIDs, MinLevel: req.Filter.MinLevel, Tags: req.Filter.Tags, Sources: req.Filter.Sources, Types: req.Filter.Types}
	}
	if req.ExpiresAt != nil {
		sub.ExpiresMs = req.ExpiresAt.UnixMilli()
	}
	if req.URL != nil {
		sealed, err := s.seal(ctx, sub, "url", *req.URL)
		if err != nil {
			return err
		}
		sub.Url, sub.DisplayUrl = sealed, displayURL(*req.URL)
	}
	if req.Secret != nil {
		if err := s.rotateSecret(ctx, sub, *req.Secret); err != nil {
			return err
		}
	}
	if req.Headers != nil {
		sub.Headers = nil
		if len(*req.Headers) > 0 {
			text, err := json.Marshal(*req.Headers)
			if err != nil {
				return fmt.Errorf("encode headers: %w", err)
			}
			if sub.Headers, err = s.seal(ctx, sub, "headers", string(text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// rotateSecret puts a signing secret in force. The one before signs as well
// for a day, so that a receiver can change over. The secret that is in force
// already changes nothing: the request may be a repetition.
func (s *Service) rotateSecret(ctx context.Context, sub *controlv1.Subscription, secret string) error {
	if sub.GetSecret() != nil {
		before, err := s.deps.Sealer.Open(place(sub, "secret"), sub.GetSecret())
		if err != nil {
			return fmt.Errorf("open the secret before: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(before.Reveal()), []byte(secret)) == 1 {
			return nil
		}
		if sub.PreviousSecret, err = s.seal(ctx, sub, "previous_secret", before.Reveal()); err != nil {
			return err
		}
		sub.PreviousSecretUntilMs = s.deps.Clock().Add(rotationOverlap).UnixMilli()
	}
	sealed, err := s.seal(ctx, sub, "secret", secret)
	sub.Secret = sealed
	return err
}

func (s *Service) seal(ctx context.Context, sub *controlv1.Subscription, field, value string) (*controlv1.Sealed, error) {
	return s.deps.Sealer.Seal(ctx, place(sub, field), seal.NewSecret(value))
}

func place(sub *controlv1.Subscription, field string) seal.Place {
	return seal.Place{Tenant: sub.GetTenant(), Kind: kindSubscription, ID: sub.GetId(), Field: field}
}

func displayURL(text string) string {
	u, err := url.Parse(text)
	if err != nil { // was checked
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func showWebhook(sub *controlv1.Subscription) webhookBody {
	f := sub.GetFilter()
	return webhookBody{
		ID: sub.GetId(), Name: sub.GetName(), Revision: sub.GetRevision(), URL: sub.GetDisplayUrl(),
		HasHeaders: sub.GetHeaders() != nil,
		Filter:     filterBody{f.GetRuleIds(), f.GetMinLevel(), f.GetTags(), f.GetSources(), f.GetTypes()},
		Disabled:   sub.GetDisabled(), DisabledReason: sub.GetDisabledReason(),
		CreatedAt: timeOf(sub.GetCreatedMs()), UpdatedAt: timeOf(cmp.Or(sub.GetUpdatedMs(), sub.GetCreatedMs())),
		ExpiresAt: optionalTime(sub.GetExpiresMs()),
	}
}

func newSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b)
	return secretPrefix + base64.StdEncoding.EncodeToString(b)
}

func validSecret(secret string) bool {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return false
	}
	b, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(b) >= minSecretBytes && len(b) <= maxSecretBytes
}
