package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
)

// keyRequest creates an API key.
type keyRequest struct {
	Name string `json:"name"`
	// Scopes are ingest, read, manage and operate; none is ingest.
	Scopes []string `json:"scopes"`
	// Sources bind the key to what it may send as; none is everything.
	Sources   []string   `json:"sources"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// keyBody shows an API key.
type keyBody struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Key is shown once, by the request that made it.
	Key       string     `json:"key,omitempty"`
	Scopes    []string   `json:"scopes"`
	Sources   []string   `json:"sources"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

const (
	// maxKeys bounds the keys of a tenant, revoked ones included.
	maxKeys = 10_000
	// keepDead is how long expired and revoked keys stay in the list.
	keepDead = 30 * 24 * time.Hour
)

func (s *Service) listKeys(c *gin.Context, id control.Identity) {
	if err := s.deps.Control.Sync(c.Request.Context()); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	out := []keyBody{}
	for _, k := range s.deps.Control.Keys(id.Tenant) {
		out = append(out, showKey(k))
	}
	answer(c, http.StatusOK, gin.H{"keys": out})
}

func (s *Service) createKey(c *gin.Context, id control.Identity) {
	var req keyRequest
	if p := decode(c, &req, maxManageBytes); p != nil {
		refuse(c, p)
		return
	}
	if errs := s.checkKey(&req, id); len(errs) > 0 {
		refuse(c, invalid(errs...))
		return
	}
	if err := s.dropDead(c.Request.Context(), id.Tenant); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	if len(s.deps.Control.Keys(id.Tenant)) >= maxKeys {
		refuse(c, newProblem(http.StatusConflict, codeInvalid, fmt.Sprintf("a tenant can have %d keys", maxKeys)))
		return
	}
	spec := control.NewKey{Tenant: id.Tenant, Name: req.Name, Scopes: req.Scopes, Sources: req.Sources}
	if req.ExpiresAt != nil {
		spec.Expires = *req.ExpiresAt
	}
	plain, record, err := control.NewAPIKey(spec, s.deps.Clock())
	if err != nil {
		refuse(c, invalid(fieldError{"scopes", err.Error()}))
		return
	}
	ctx := c.Request.Context()
	if err := s.deps.Control.Put(ctx, &controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: record}}); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	s.deps.Log.InfoContext(ctx, "key created", "tenant", id.Tenant, "key_id", record.GetId(), "by_key_id", id.KeyID, "scopes", record.GetScopes())
	out := showKey(record)
	out.Key = plain
	answer(c, http.StatusCreated, out)
}

// dropDead removes keys that ended long ago, so that short-lived keys can be made
// for ever.
func (s *Service) dropDead(ctx context.Context, tenant string) error {
	var keys []string
	long := s.deps.Clock().Add(-keepDead).UnixMilli()
	for _, k := range s.deps.Control.Keys(tenant) {
		if ended := cmp.Or(k.GetRevokedMs(), k.GetExpiresMs()); ended != 0 && ended < long {
			keys = append(keys, control.APIKeyKey(k.GetId()))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return s.deps.Control.Delete(ctx, keys...)
}

func (s *Service) checkKey(req *keyRequest, by control.Identity) []fieldError {
	var errs []fieldError
	if len(req.Name) > maxNameBytes {
		errs = append(errs, fieldError{"name", fmt.Sprintf("is longer than %d bytes", maxNameBytes)})
	}
	for _, scope := range req.Scopes {
		if !slices.Contains([]string{control.ScopeIngest, control.ScopeRead, control.ScopeManage, control.ScopeOperate}, scope) {
			errs = append(errs, fieldError{"scopes", "can be ingest, read, manage and operate"})
			break
		}
		if scope == control.ScopeOperate && !by.Has(scope) {
			errs = append(errs, fieldError{"scopes", "operate can be given by a key that has it"})
			break
		}
	}
	for _, name := range req.Sources {
		if name == "" || s.sources[name] == nil {
			errs = append(errs, fieldError{"sources", "name a source that is not configured: " + s.sources.unknown()})
			break
		}
	}
	if req.ExpiresAt != nil && !req.ExpiresAt.After(s.deps.Clock()) {
		errs = append(errs, fieldError{"expires_at", "lies in the past"})
	}
	return errs
}

func (s *Service) revokeKey(c *gin.Context, id control.Identity) {
	// Another gateway may have made the key just now.
	if err := s.deps.Control.Sync(c.Request.Context()); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	k, ok := s.deps.Control.Key(id.Tenant, c.Param("id"))
	if !ok {
		refuse(c, newProblem(http.StatusNotFound, codeNotFound, "no key of this tenant has this id"))
		return
	}
	if k.GetRevokedMs() == 0 {
		revoked := proto.CloneOf(k)
		revoked.RevokedMs = s.deps.Clock().UnixMilli()
		ctx := c.Request.Context()
		if err := s.deps.Control.Put(ctx, &controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: revoked}}); err != nil {
			refuse(c, s.controlProblem(c, err))
			return
		}
		s.deps.Log.InfoContext(ctx, "key revoked", "tenant", id.Tenant, "key_id", k.GetId(), "by_key_id", id.KeyID)
	}
	c.Status(http.StatusNoContent)
}

func showKey(k *controlv1.APIKey) keyBody {
	scopes := k.GetScopes()
	if len(scopes) == 0 {
		scopes = []string{control.ScopeIngest}
	}
	return keyBody{
		ID: k.GetId(), Name: k.GetName(), Scopes: scopes, Sources: append([]string{}, k.GetSources()...),
		CreatedAt: timeOf(k.GetCreatedMs()), ExpiresAt: optionalTime(k.GetExpiresMs()), RevokedAt: optionalTime(k.GetRevokedMs()),
	}
}
