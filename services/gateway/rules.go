package gateway

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

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
	// Kind is detection or correlation.
	Kind string `json:"kind"`
	// Scope is "all" for the rules of all tenants, or "tenant".
	Scope string `json:"scope"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Hash  string `json:"hash"`
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
)

func (s *Service) listRules(c *gin.Context, id control.Identity) {
	ctx := c.Request.Context()
	all, own := s.deps.Control.Manifests(id.Tenant)
	out := rulesList{Manifests: manifestsBody{hexOf(all), hexOf(own)}, Rules: []ruleBody{}}
	for scope, hash := range map[string][]byte{"all": all, "tenant": own} {
		rules, err := s.rulesOf(ctx, scope, hash)
		if err != nil {
			refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
			return
		}
		out.Rules = append(out.Rules, rules...)
	}
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
		kind := "detection"
		if d.Kind == sigma.KindCorrelation {
			kind = "correlation"
		}
		rules = append(rules, ruleBody{ID: d.ID, Title: d.Title, Kind: kind, Scope: scope, File: d.File, Line: d.Line, Hash: hexOf(sum[:])})
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
	var req rulesRequest
	if p := decode(c, &req, maxRulesBytes); p != nil {
		refuse(c, p)
		return
	}
	if errs := checkRules(&req); len(errs) > 0 {
		refuse(c, invalid(errs...))
		return
	}
	ctx := c.Request.Context()
	// Two pushes at this gateway follow each other whole.
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.deps.Control.Sync(ctx); err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	push, err := s.plan(ctx, id.Tenant, *req.Files)
	if err != nil {
		refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
		return
	}
	out := rulesAnswer{OK: push.ok, Rejected: push.rejected, Kept: push.kept, Problems: showProblems(push.problems)}
	if len(push.docs) == 0 && push.rejected > 0 {
		p := invalid()
		p.Detail = "no rule compiles: the rules in force were not changed"
		for _, problem := range out.Problems {
			p.Errors = append(p.Errors, fieldError{fmt.Sprintf("%s:%d", problem.File, problem.Line), problem.Message})
		}
		refuse(c, p)
		return
	}
	manifest, err := s.deps.Control.PushRules(ctx, id.Tenant, push.docs)
	if err != nil {
		refuse(c, s.controlProblem(c, err))
		return
	}
	out.Manifest = hexOf(manifest)
	s.deps.Log.InfoContext(ctx, "rules pushed", "tenant", id.Tenant, "manifest", out.Manifest, "ok", out.OK, "rejected", out.Rejected, "kept", out.Kept)
	answer(c, http.StatusOK, out)
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

// A push is a rule set that can come into force.
type push struct {
	docs               []control.Document
	ok, rejected, kept int
	problems           []sigma.Problem
}

// plan compiles files together with the rules of all tenants and decides what
// comes into force: every rule that compiles, and for one that does not its
// version before, if that still compiles.
func (s *Service) plan(ctx context.Context, tenant string, files []ruleFile) (push, error) {
	allHash, ownHash := s.deps.Control.Manifests(tenant)
	shared, _, err := ruleset.Documents(ctx, s.deps.Control, allHash)
	if err != nil {
		return push{}, fmt.Errorf("read the rules of all tenants: %w", err)
	}
	before, _, err := ruleset.Documents(ctx, s.deps.Control, ownHash)
	if err != nil {
		return push{}, fmt.Errorf("read the rules in force: %w", err)
	}
	var (
		p     push
		fresh []sigma.Document
	)
	for _, f := range files {
		docs, problems := sigma.Parse([]byte(f.Content), f.File)
		fresh, p.problems = append(fresh, docs...), append(p.problems, problems...)
	}
	good, problems := s.compiling(shared, fresh)
	p.problems = append(p.problems, problems...)
	p.ok, p.rejected = len(good), sigma.Rejected(p.problems)

	kept := stale(before, good, rejectedIDs(files, p.problems))
	all, _ := s.compiling(shared, append(good[:len(good):len(good)], kept...))
	p.kept = max(0, len(all)-len(good))
	for i := range all {
		p.docs = append(p.docs, control.Document{File: all[i].File, Line: all[i].Line, Source: all[i].Raw})
	}
	return p, nil
}

// compiling returns the documents of docs that compile beside those of shared,
// and the problems of docs.
func (s *Service) compiling(shared, docs []sigma.Document) ([]sigma.Document, []sigma.Problem) {
	_, problems := sigma.Compile(append(shared[:len(shared):len(shared)], docs...), s.deps.Rules)
	own := make(map[location]bool, len(docs))
	for i := range docs {
		own[location{docs[i].File, docs[i].Line}] = true
	}
	bad := make(map[location]bool)
	mine := problems[:0:0]
	for _, problem := range problems {
		at := location{problem.File, problem.Document}
		if !own[at] {
			continue
		}
		mine = append(mine, problem)
		bad[at] = bad[at] || problem.Severity == sigma.Error
	}
	var good []sigma.Document
	for i := range docs {
		if !bad[location{docs[i].File, docs[i].Line}] {
			good = append(good, docs[i])
		}
	}
	return good, mine
}

// location is where a document begins.
type location struct {
	file string
	line int
}

// stale returns the documents of before with one of the ids, unless good has
// that rule.
func stale(before, good []sigma.Document, ids map[string]bool) []sigma.Document {
	for i := range good {
		delete(ids, good[i].ID)
	}
	var out []sigma.Document
	for i := range before {
		if ids[before[i].ID] || before[i].Name != "" && ids[before[i].Name] {
			out = append(out, before[i])
		}
	}
	return out
}

// rejectedIDs reads the ids, or else names, of documents that do not compile
// off their text: what is wrong with them may keep them from being parsed.
func rejectedIDs(files []ruleFile, problems []sigma.Problem) map[string]bool {
	content := make(map[string]string, len(files))
	for _, f := range files {
		content[f.File] = f.Content
	}
	id := regexp.MustCompile(`(?m)^(?:id|name):[ \t]*["']?([^\s"'#]+)`)
	ids := make(map[string]bool)
	for _, problem := range problems {
		if problem.Severity != sigma.Error {
			continue
		}
		for _, found := range id.FindAllStringSubmatch(documentAt(content[problem.File], problem.Document), -1) {
			ids[found[1]] = true
		}
	}
	return ids
}

// documentAt returns the YAML document that begins on a line.
func documentAt(content string, line int) string {
	var doc strings.Builder
	n := 0
	for text := range strings.Lines(content) {
		n++
		if n < line {
			continue
		}
		if strings.HasPrefix(text, "---") && doc.Len() > 0 {
			break
		}
		doc.WriteString(text)
	}
	return doc.String()
}

func showProblems(problems []sigma.Problem) []ruleProblem {
	out := make([]ruleProblem, 0, min(len(problems), maxProblems))
	for _, p := range problems[:min(len(problems), maxProblems)] {
		out = append(out, ruleProblem{p.File, p.Line, p.Field, p.Message, p.Severity.String()})
	}
	return out
}
