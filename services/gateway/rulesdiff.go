package gateway

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// rulesDiff says what a push of the same files would change.
type rulesDiff struct {
	Scope     string        `json:"scope"`
	Changes   []ruleChange  `json:"changes"`
	Unchanged int           `json:"unchanged"`
	OK        int           `json:"ok"`
	Rejected  int           `json:"rejected"`
	Kept      int           `json:"kept"`
	Problems  []ruleProblem `json:"problems"`
}

// ruleChange is one rule that differs.
type ruleChange struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Kind  string `json:"kind"`
	// Change is added, removed, changed (its revision, so that it begins anew) or
	// text (all else, so that state and ids go on).
	Change string `json:"change"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	// Revisions, where there are any.
	Before string `json:"revision_before,omitempty"`
	After  string `json:"revision_after,omitempty"`
	Shadow bool   `json:"shadow,omitempty"`
}

func kindName(k sigma.Kind) string {
	switch k {
	case sigma.KindCorrelation:
		return kindCorrelation
	case sigma.KindFilter:
		return kindFilter
	default:
		return kindDetection
	}
}

func (s *Service) diffRules(c *gin.Context, id control.Identity) {
	scope, files, ok := s.readRules(c, id)
	if !ok {
		return
	}
	ctx := c.Request.Context()
	if err := s.deps.Control.Sync(ctx); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	push, err := s.plan(ctx, scope, files)
	if err != nil {
		refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
		return
	}
	differ, same := ruleset.Diff(push.shared, push.before, push.Rules(s.deps.Rules.Pipelines), s.deps.Rules)
	out := rulesDiff{
		Scope: scopeName(scope), Changes: make([]ruleChange, 0, len(differ)), Unchanged: same,
		OK: push.OK, Rejected: push.Rejected, Kept: push.Kept, Problems: showProblems(push.Problems),
	}
	for _, d := range differ {
		out.Changes = append(out.Changes, ruleChange{
			ID: d.ID, Title: d.Title, Kind: kindName(d.Kind), Change: d.Change, File: d.File, Line: d.Line,
			Before: d.Before, After: d.After, Shadow: d.ShadowAfter,
		})
	}
	answer(c, http.StatusOK, out)
}

func scopeName(scope string) string {
	if scope == "" {
		return scopeAll
	}
	return scopeTenant
}

// scopeOf is whose rules a request means: those of the key's tenant or, with
// ?scope=all, those of all tenants, which takes a key with the scope operate.
func (s *Service) scopeOf(c *gin.Context, id control.Identity) (scope string, p *problem) {
	switch c.DefaultQuery("scope", scopeTenant) {
	case scopeTenant:
		return id.Tenant, nil
	case scopeAll:
		if !id.Has(control.ScopeOperate) {
			return "", newProblem(http.StatusForbidden, codeWrongScope,
				fmt.Sprintf("rules of all tenants need a key with the scope %q", control.ScopeOperate))
		}
		return "", nil
	default:
		return "", invalid(fieldError{"scope", "must be all or tenant"})
	}
}
