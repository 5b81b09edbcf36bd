package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// ruleDetail shows a rule in force with its text.
type ruleDetail struct {
	ruleBody
	// Documents are the rule, the rules that it refers to, all filters, and the
	// pipelines that change these: what it takes to run it.
	Documents []ruleDocument `json:"documents"`
}

// ruleDocument is one document of a rule file.
type ruleDocument struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Content string `json:"content"`
}

// countRules adds what is known of rules to copies of a list.
func (s *Service) countRules(tenant string, rules []ruleBody) {
	if s.deps.Reports == nil {
		return
	}
	known := s.deps.Reports.Tenant(tenant).Rules
	for i := range rules {
		r, groups := &rules[i], int64(0)
		if c := known[r.ID]; c != nil {
			r.Hits, groups = showCount(c.Hits), c.OpenGroups
			if shadowed := showCount(c.Shadowed); r.Shadow || shadowed.Count > 0 {
				r.ShadowAlerts = &shadowed
			}
		}
		if r.Kind == kindCorrelation {
			r.OpenGroups = &groups
		}
	}
}

func (s *Service) getRule(c *gin.Context, id control.Identity) {
	ctx := c.Request.Context()
	err := s.deps.Control.Sync(ctx)
	var out *ruleDetail
	if err == nil {
		out, err = s.ruleOf(ctx, id.Tenant, c.Param("id"))
	}
	switch {
	case err != nil:
		refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
	case out == nil:
		refuse(c, newProblem(http.StatusNotFound, codeNotFound, "no rule in force has this id: GET /v1/rules lists them"))
	default:
		answer(c, http.StatusOK, out)
	}
}

// ruleOf returns a rule in force with its text, nil where there is none.
func (s *Service) ruleOf(ctx context.Context, tenant, id string) (*ruleDetail, error) {
	all, own := s.deps.Control.Manifests(tenant)
	var (
		lists []ruleBody
		docs  []sigma.Document
	)
	for _, of := range []struct {
		scope string
		hash  []byte
	}{{scopeAll, all}, {scopeTenant, own}} {
		rules, err := s.rulesOf(ctx, of.scope, of.hash)
		if err != nil {
			return nil, err
		}
		d, _, err := ruleset.Documents(ctx, s.deps.Control, of.hash)
		if err != nil {
			return nil, err
		}
		lists, docs = append(lists, rules...), append(docs, d...)
	}
	i := slices.IndexFunc(lists, func(r ruleBody) bool { return r.ID == id })
	if i < 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	wanted, err := s.refersTo(ctx, all, own, id)
	if err != nil {
		return nil, err
	}
	s.countRules(tenant, lists[i:i+1])
	out := &ruleDetail{ruleBody: lists[i], Documents: []ruleDocument{}}
	var pipelines []ruleDocument
	for _, first := range []bool{true, false} {
		for i := range docs {
			d := &docs[i]
			if (d.ID == id) == first && (wanted[d.ID] || d.Kind == sigma.KindFilter) {
				out.Documents = append(out.Documents, ruleDocument{d.File, d.Line, string(d.Raw)})
				pipelines = addPipelines(pipelines, d)
			}
		}
	}
	out.Documents = append(out.Documents, pipelines...)
	return out, nil
}

// refersTo returns the ids of a rule and of all that it refers to.
func (s *Service) refersTo(ctx context.Context, all, own []byte, id string) (map[string]bool, error) {
	known, err := s.ruledBy(ctx, all, own)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{id: true}
	for next := []string{id}; len(next) > 0; {
		of := next[0]
		next = next[1:]
		for _, r := range known.rules {
			if r.ID != of {
				continue
			}
			for _, ref := range r.Refers {
				if !wanted[ref] {
					wanted[ref] = true
					next = append(next, ref)
				}
			}
		}
	}
	return wanted, nil
}

// addPipelines adds those of a rule that are not there yet.
func addPipelines(all []ruleDocument, d *sigma.Document) []ruleDocument {
	for _, p := range d.Pipelines {
		if doc := (ruleDocument{p.File, p.Line, string(p.Raw)}); !slices.Contains(all, doc) {
			all = append(all, doc)
		}
	}
	return all
}
