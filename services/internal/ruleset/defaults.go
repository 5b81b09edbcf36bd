package ruleset

import (
	"regexp"
	"slices"

	"github.com/stormbell/stormbell/services/sigma"
)

// ReplaceBeside decides as Replace does, with default rules beside the files,
// under the same pipelines. A rule of the files takes the place of the default
// with its id or name; if it is rejected and has no version before that
// compiles, the default stays. It also returns the titles of the defaults that
// were replaced.
func ReplaceBeside(defaults []File, before []sigma.Document, files []File, opts sigma.Options) (p Plan, replaced []string) {
	var (
		all      []sigma.Document
		problems []sigma.Problem
	)
	for _, f := range defaults {
		docs, bad := sigma.Parse(f.Content, f.Name)
		all, problems = append(all, docs...), append(problems, bad...)
	}
	all = piped(all, opts.Pipelines)
	mine := slices.DeleteFunc(slices.Clone(before), func(d sigma.Document) bool {
		return slices.ContainsFunc(defaults, func(f File) bool { return f.Name == d.File })
	})
	named := names(files)
	shared := slices.DeleteFunc(slices.Clone(all), func(d sigma.Document) bool { return named[d.ID] || named[d.Name] })
	p = Replace(shared, mine, files, opts)

	own := p.rules(opts.Pipelines)
	taken := make(map[string]bool)
	for i := range own {
		taken[own[i].ID], taken[own[i].Name] = true, true
	}
	delete(taken, "") // most rules have no name
	rest := slices.DeleteFunc(all, func(d sigma.Document) bool {
		if taken[d.ID] || taken[d.Name] {
			replaced = append(replaced, d.Title)
			return true
		}
		return false
	})
	pipelines := opts.Pipelines
	opts.Pipelines = nil
	good, bad := compiling(own, rest, opts)
	problems = append(problems, bad...)
	p.Problems = append(problems, p.Problems...)
	p.OK, p.Rejected = p.OK+len(good), p.Rejected+sigma.Rejected(problems)
	p.Documents = documents(append(own, good...), pipelines)
	return p, replaced
}

// rules are those of a plan.
func (p *Plan) rules(pipelines []*sigma.Pipeline) []sigma.Document {
	var out []sigma.Document
	for _, d := range p.Documents {
		if !sigma.IsPipeline(d.Source) {
			docs, _ := sigma.ParseAt(d.Source, d.File, d.Line) // it has been parsed before
			out = append(out, docs...)
		}
	}
	return piped(out, pipelines)
}

// Unless returns the files none of whose ids and names other files have.
func Unless(files, others []File) []File {
	named := names(others)
	var out []File
	for _, f := range files {
		taken := false
		for name := range names([]File{f}) {
			taken = taken || named[name]
		}
		if !taken {
			out = append(out, f)
		}
	}
	return out
}

// names reads the ids and names of rules off their text, so that a rule that
// cannot be parsed is known as well.
func names(files []File) map[string]bool {
	out := make(map[string]bool)
	for _, f := range files {
		for _, m := range nameLine().FindAllSubmatch(f.Content, -1) {
			out[string(m[1])] = true
		}
	}
	return out
}

// nameLine finds the id and the name of a rule in its text.
func nameLine() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^(?:id|name):[ \t]*["']?([^\s"'#]+)`)
}
