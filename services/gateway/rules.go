package gateway

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// rulesRequest is a tenant's whole rule set: it takes the place of the one
// before.
type rulesRequest struct {
	Files *[]ruleFile `json:"files"`
}

// ruleFile is one YAML file with any number of documents.
type ruleFile struct {
	// File is what messages call it.
	File    string `json:"file"`
	Content string `json:"content"`
}

// rulesAnswer says what came into force.
type rulesAnswer struct {
	Manifest string `json:"manifest"`
	OK       int    `json:"ok"`
	Rejected int    `json:"rejected"`
	// Kept counts rejected rules whose version before stays in force.
	Kept     int           `json:"kept"`
	Problems []ruleProblem `json:"problems"`
}

type ruleProblem struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
	Severity string `json:"severity"`
}

// ruleBody shows a rule in force.
type ruleBody struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// Kind is detection, correlation or filter.
	Kind string `json:"kind"`
	// Scope is "all" for the rules of all tenants, or "tenant".
	Scope string `json:"scope"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Hash  string `json:"hash"`
	// Hits are the tenant's: matches, or firings of a correlation.
	Hits countBody `json:"hits"`
	// OpenGroups is there for correlations.
	OpenGroups *int64 `json:"open_groups,omitempty"`
	// Shadow says that its alerts go to nobody; ShadowAlerts counts those.
	Shadow       bool       `json:"shadow,omitempty"`
	ShadowAlerts *countBody `json:"shadow_alerts,omitempty"`
}

type rulesList struct {
	Manifests manifestsBody `json:"manifests"`
	Rules     []ruleBody    `json:"rules"`
}

type manifestsBody struct {
	All    string `json:"all"`
	Tenant string `json:"tenant"`
}

const (
	maxRulesBytes = 16 << 20
	maxRuleFiles  = 10_000
	maxProblems   = 1000
	// maxRuleLists bounds the manifests whose lists are remembered.
	maxRuleLists = 32

	kindDetection   = "detection"
	kindCorrelation = "correlation"
	kindFilter      = "filter"

	scopeAll    = "all"
	scopeTenant = "tenant"
)

func (s *Service) listRules(c *gin.Context, id control.Identity) {
	ctx := c.Request.Context()
	if err := s.deps.Control.Sync(ctx); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	all, own := s.deps.Control.Manifests(id.Tenant)
	out := rulesList{Manifests: manifestsBody{hexOf(all), hexOf(own)}, Rules: []ruleBody{}}
	for _, of := range []struct {
		scope string
		hash  []byte
	}{{scopeAll, all}, {scopeTenant, own}} {
		rules, err := s.rulesOf(ctx, of.scope, of.hash)
		if err != nil {
			refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
			return
		}
		out.Rules = append(out.Rules, rules...)
	}
	s.countRules(id.Tenant, out.Rules)
	answer(c, http.StatusOK, out)
}

// rulesOf lists the rules of a manifest. Lists are remembered: parsing takes
// longer than an answer should.
func (s *Service) rulesOf(ctx context.Context, scope string, hash []byte) ([]ruleBody, error) {
	name := scope + string(hash)
	s.listsMu.Lock()
	rules, ok := s.lists[name]
	s.listsMu.Unlock()
	if ok {
		return rules, nil
	}
	docs, _, err := ruleset.Documents(ctx, s.deps.Control, hash)
	if err != nil {
		return nil, err
	}
	for i := range docs {
		d := &docs[i]
		sum := d.Hash()
		rules = append(rules, ruleBody{ID: d.ID, Title: d.Title, Kind: kindName(d.Kind), Scope: scope, File: d.File, Line: d.Line, Hash: hexOf(sum[:]), Shadow: d.Shadow})
	}
	s.listsMu.Lock()
	defer s.listsMu.Unlock()
	if len(s.lists) >= maxRuleLists {
		clear(s.lists)
	}
	s.lists[name] = rules
	return rules, nil
}

func (s *Service) pushRules(c *gin.Context, id control.Identity) {
	scope, files, ok := s.readRules(c, id)
	if !ok {
		return
	}
	ctx := c.Request.Context()
	defer s.changes.lock(scope)()
	if err := s.deps.Control.Sync(ctx); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	push, err := s.plan(ctx, scope, files)
	if err != nil {
		refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
		return
	}
	out := rulesAnswer{OK: push.OK, Rejected: push.Rejected, Kept: push.Kept, Problems: showProblems(push.Problems)}
	if len(push.Documents) == 0 && push.Rejected > 0 {
		p := invalid()
		p.Detail = "no rule compiles: the rules in force were not changed"
		for _, problem := range out.Problems {
			p.Errors = append(p.Errors, fieldError{fmt.Sprintf("%s:%d", problem.File, problem.Line), problem.Message})
		}
		refuse(c, p)
		return
	}
	manifest, err := s.deps.Control.PushRules(ctx, scope, push.Documents)
	if err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	out.Manifest = hexOf(manifest)
	s.deps.Log.InfoContext(ctx, "rules pushed", "tenant", id.Tenant, "scope", scopeName(scope), "manifest", out.Manifest, "ok", out.OK, "rejected", out.Rejected, "kept", out.Kept)
	answer(c, http.StatusOK, out)
}

// readRules reads whose rules a request means, and the rules; ok is false where
// it has answered.
func (s *Service) readRules(c *gin.Context, id control.Identity) (scope string, files []ruleFile, ok bool) {
	scope, p := s.scopeOf(c, id)
	if p != nil {
		refuse(c, p)
		return "", nil, false
	}
	var req rulesRequest
	if p := decode(c, &req, maxRulesBytes); p != nil {
		refuse(c, p)
		return "", nil, false
	}
	if errs := checkRules(&req); len(errs) > 0 {
		refuse(c, invalid(errs...))
		return "", nil, false
	}
	return scope, *req.Files, true
}

func checkRules(req *rulesRequest) []fieldError {
	switch {
	case req.Files == nil:
		return []fieldError{{"files", "is missing: send [] to switch all rules off"}}
	case len(*req.Files) > maxRuleFiles:
		return []fieldError{{"files", fmt.Sprintf("are more than %d", maxRuleFiles)}}
	}
	seen := make(map[string]bool)
	for i, f := range *req.Files {
		switch {
		case f.File == "" || len(f.File) > maxNameBytes:
			return []fieldError{{fmt.Sprintf("files[%d].file", i), fmt.Sprintf("must have 1 to %d bytes", maxNameBytes)}}
		case seen[f.File]:
			return []fieldError{{fmt.Sprintf("files[%d].file", i), "is there twice"}}
		}
		seen[f.File] = true
	}
	return nil
}

// pushed is a rule set that can come into force, what it stands beside and what
// it takes the place of.
type pushed struct {
	ruleset.Plan
	shared, before []sigma.Document
}

// plan decides what comes into force for a tenant, beside the rules of all
// tenants, or, where the scope is empty, for all.
func (s *Service) plan(ctx context.Context, scope string, files []ruleFile) (*pushed, error) {
	allHash, ownHash := s.deps.Control.Manifests(scope)
	if scope == "" {
		allHash, ownHash = nil, allHash
	}
	shared, _, err := ruleset.Documents(ctx, s.deps.Control, allHash)
	if err != nil {
		return nil, fmt.Errorf("read the rules of all tenants: %w", err)
	}
	before, _, err := ruleset.Documents(ctx, s.deps.Control, ownHash)
	if err != nil {
		return nil, fmt.Errorf("read the rules in force: %w", err)
	}
	fresh := make([]ruleset.File, len(files))
	for i, f := range files {
		fresh[i] = ruleset.File{Name: f.File, Content: []byte(f.Content)}
	}
	return &pushed{ruleset.Replace(shared, before, fresh, s.deps.Rules), shared, before}, nil
}

func showProblems(problems []sigma.Problem) []ruleProblem {
	out := make([]ruleProblem, 0, min(len(problems), maxProblems))
	for _, p := range problems[:min(len(problems), maxProblems)] {
		out = append(out, ruleProblem{p.File, p.Line, p.Field, p.Message, p.Severity.String()})
	}
	return out
}
