package ruleset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/sigma"
)

// File is one YAML file with any number of rules. Name is what problems call it.
type File struct {
	Name    string
	Content []byte
}

// Plan is a rule set that can come into force.
type Plan struct {
	Documents []control.Document
	// OK and Rejected count the rules of the files. Kept counts rejected rules
	// whose version before stays in force.
	OK, Rejected, Kept int
	Problems           []sigma.Problem
}

// Replace decides what comes into force where files take the place of the
// rules before, beside shared ones: every rule that compiles, and for one that
// does not its version before, if that still compiles. A bad rule so never
// replaces a good one. The pipelines of opts change these rules and come into
// force with them; shared rules came with theirs.
func Replace(shared, before []sigma.Document, files []File, opts sigma.Options) Plan {
	var (
		p     Plan
		fresh []sigma.Document
	)
	for _, f := range files {
		docs, problems := sigma.Parse(f.Content, f.Name)
		fresh, p.Problems = append(fresh, docs...), append(p.Problems, problems...)
	}
	fresh, tooLarge := storable(fresh)
	pipelines := opts.Pipelines
	fresh, before = piped(fresh, pipelines), piped(before, pipelines)
	good, problems := compiling(shared, fresh, opts)
	p.Problems = append(append(p.Problems, tooLarge...), problems...)
	p.OK, p.Rejected = len(good), sigma.Rejected(p.Problems)

	all := good
	if kept := rejectedBy(files, p.Problems).stale(before, good); len(kept) > 0 {
		all, _ = compiling(shared, append(slices.Clip(good), kept...), opts)
		p.Kept = max(0, len(all)-len(good))
	}
	p.Documents = documents(all, pipelines)
	return p
}

// documents is what is stored of rules and of the pipelines that change them;
// without rules there is nothing to change.
func documents(rules []sigma.Document, pipelines []*sigma.Pipeline) []control.Document {
	var out []control.Document
	for i := range rules {
		out = append(out, control.Document{File: rules[i].File, Line: rules[i].Line, Source: rules[i].Raw})
	}
	if len(rules) > 0 {
		for _, q := range pipelines {
			out = append(out, control.Document{File: q.File, Line: q.Line, Source: q.Raw})
		}
	}
	return out
}

// piped returns the documents with these pipelines, be they none, in place of
// any before, so that no options have a say.
func piped(docs []sigma.Document, pipelines []*sigma.Pipeline) []sigma.Document {
	if pipelines == nil {
		pipelines = []*sigma.Pipeline{}
	}
	out := slices.Clone(docs)
	for i := range out {
		out[i].Pipelines = pipelines
	}
	return out
}

// storable returns the documents that fit into a record of control, and what
// is wrong with the others.
func storable(docs []sigma.Document) (fit []sigma.Document, problems []sigma.Problem) {
	for i := range docs {
		d := &docs[i]
		if len(d.Raw) <= control.MaxRuleBytes {
			fit = append(fit, *d)
			continue
		}
		problems = append(problems, sigma.Problem{
			File: d.File, Line: d.Line, Document: d.Line, Severity: sigma.Error,
			Message: fmt.Sprintf("rule of %d bytes: at most %d can be stored", len(d.Raw), control.MaxRuleBytes),
		})
	}
	return fit, problems
}

// compiling returns the documents of docs that compile beside those of shared,
// and the problems of docs.
func compiling(shared, docs []sigma.Document, opts sigma.Options) ([]sigma.Document, []sigma.Problem) {
	_, problems := sigma.Compile(append(slices.Clip(shared), docs...), opts)
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

// rejected names the rules that were rejected: by id or name, or, where not
// even that can be read, by file.
type rejected struct{ ids, files map[string]bool }

// rejectedBy reads the ids and names of rejected documents off their text:
// what is wrong with them may keep them from being parsed.
func rejectedBy(files []File, problems []sigma.Problem) rejected {
	content := make(map[string]string, len(files))
	for _, f := range files {
		content[f.Name] = string(f.Content)
	}
	id := nameLine()
	r := rejected{make(map[string]bool), make(map[string]bool)}
	for _, problem := range problems {
		if problem.Severity != sigma.Error {
			continue
		}
		found := id.FindAllStringSubmatch(documentAt(content[problem.File], problem.Document), -1)
		for _, f := range found {
			r.ids[f[1]] = true
		}
		if len(found) == 0 {
			r.files[problem.File] = true
		}
	}
	return r
}

// stale returns the rejected documents of before, unless good has them.
func (r rejected) stale(before, good []sigma.Document) []sigma.Document {
	have := make(map[string]bool, len(good))
	for i := range good {
		have[good[i].ID] = true
	}
	var out []sigma.Document
	for i := range before {
		d := &before[i]
		if !have[d.ID] && (r.ids[d.ID] || d.Name != "" && r.ids[d.Name] || r.files[d.File]) {
			out = append(out, *d)
		}
	}
	return out
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
