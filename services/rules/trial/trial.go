// Package trial runs the test events that stand beside rules: through the
// decoder of a gateway, the matcher of stage detect and the windows of stage
// correlate, so that a test says what the services would.
//
// The tests of the rules in name.yml are in name.test.yml; docs/rules.md
// describes them.
package trial

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// Settings are what rules and events are read with.
type Settings struct {
	Sigma      sigma.Options
	Gateway    gateway.Config
	Correlator correlator.Config
}

// Result is what came of one test, or of a file whose tests cannot be read.
type Result struct {
	File     string    `json:"file"`
	Line     int       `json:"line"`
	Name     string    `json:"name"`
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is one thing that was not as expected.
type Failure struct {
	Line    int    `json:"line"`
	Rule    string `json:"rule,omitempty"`
	Message string `json:"message"`
	// Why are further lines: what each event lacked or had.
	Why []string `json:"why,omitempty"`
}

// Gap is a rule that tests leave out.
type Gap struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Rule    string `json:"rule"`
	Title   string `json:"title"`
	Message string `json:"message"`
}

// Report is what came of all tests.
type Report struct {
	Results []Result
	// Gaps are rules of files with tests beside them, or that were asked for,
	// that no test fires, or that no test holds back.
	Gaps []Gap
	// Problems are those of the rules. A rule that is rejected fails its tests.
	Problems []sigma.Problem
}

// Failed counts the tests that failed.
func (r *Report) Failed() int {
	n := 0
	for i := range r.Results {
		if len(r.Results[i].Failures) > 0 {
			n++
		}
	}
	return n
}

// Run runs tests on rules, compiled as one set. Tests find their rules by the
// name of their file. with are rules that others refer to; theirs are no gaps.
func Run(ctx context.Context, rules, with, tests []ruleset.File, settings Settings) (*Report, error) {
	r := &runner{settings: settings, report: new(Report), fired: make(map[string]bool), spared: make(map[string]bool)}
	for _, f := range slices.Concat(rules, with) {
		docs, problems := sigma.Parse(f.Content, f.Name)
		r.docs, r.report.Problems = append(r.docs, docs...), append(r.report.Problems, problems...)
	}
	set, problems := sigma.Compile(r.docs, settings.Sigma)
	r.set, r.report.Problems = set, append(r.report.Problems, problems...)
	for _, f := range tests {
		s, wrong := parse(f)
		if wrong != nil {
			r.report.Results = append(r.report.Results, Result{File: f.Name, Line: wrong.line, Failures: []Failure{{Line: wrong.line, Message: wrong.message}}})
			continue
		}
		for i := range s.tests {
			result := Result{File: f.Name, Line: s.tests[i].line, Name: s.tests[i].name}
			failures, err := r.test(ctx, f.Name, &s.tests[i])
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", f.Name, s.tests[i].line, err)
			}
			result.Failures = failures
			r.report.Results = append(r.report.Results, result)
		}
	}
	r.gaps(rules)
	return r.report, nil
}

// runner runs tests one by one.
type runner struct {
	settings Settings
	docs     []sigma.Document
	set      *sigma.Set
	report   *Report
	// fired and spared are the rules, by id, that a test fires and holds back.
	fired, spared map[string]bool
}

// beside returns the rules of the file that a file of tests is for.
func (r *runner) beside(tests string) []*sigma.Document {
	var out []*sigma.Document
	for i := range r.docs {
		if d := &r.docs[i]; d.Kind != sigma.KindFilter && ruleset.TestsOf(tests, d.File) {
			out = append(out, d)
		}
	}
	return out
}

// test runs one test.
func (r *runner) test(ctx context.Context, file string, t *test) ([]Failure, error) {
	own := r.beside(file)
	if len(own) == 0 {
		return []Failure{{Line: t.line, Message: "there is no rule to test: " + ruleset.RuleFile(file) + " is not there, or none of its rules can be read"}}, nil
	}
	wanted, failures := r.resolve(t, own)
	if len(failures) > 0 {
		return failures, nil
	}
	events, wrong := r.events(t)
	if wrong != nil {
		return []Failure{{Line: wrong.line, Message: wrong.message}}, nil
	}
	got, err := r.run(ctx, events)
	if err != nil {
		return nil, err
	}
	for _, reason := range got.left {
		failures = append(failures, Failure{Line: t.line, Message: "an event was left out: " + reason})
	}
	for _, w := range wanted {
		if f := r.judge(w, events, got); f != nil {
			failures = append(failures, *f)
		}
	}
	return failures, nil
}

// wanted is an expectation of a rule that is known.
type wanted struct {
	expectation
	id string
}

// resolve finds the rules of expectations. Those of the file that the test does
// not name must not fire.
func (r *runner) resolve(t *test, own []*sigma.Document) ([]wanted, []Failure) {
	var (
		out      []wanted
		failures []Failure
		named    = make(map[string]bool)
	)
	for _, x := range t.expect {
		id := own[0].ID
		switch {
		case x.rule == "" && len(own) > 1:
			failures = append(failures, Failure{Line: x.line, Message: "rule: is missing: the file has several rules, name one by id or name"})
			continue
		case x.rule != "":
			if id = r.find(x.rule, own); id == "" {
				failures = append(failures, Failure{Line: x.line, Rule: x.rule, Message: fmt.Sprintf("there is no rule with the id or name %q", x.rule)})
				continue
			}
		}
		named[id] = true
		out = append(out, wanted{x, id})
	}
	for _, d := range own {
		if !named[d.ID] {
			out = append(out, wanted{expectation{line: t.line}, d.ID})
		}
	}
	for _, w := range out {
		if r.set.Rule(w.id) == nil && r.set.Correlation(w.id) == nil {
			failures = append(failures, Failure{Line: w.line, Rule: w.id, Message: "the rule is rejected: " + r.rejection(w.id)})
			continue
		}
		if w.fires > 0 {
			r.fired[w.id] = true
		} else {
			r.spared[w.id] = true
		}
	}
	return out, failures
}

// find returns the id of a rule, one of the file first.
func (r *runner) find(ref string, own []*sigma.Document) string {
	for _, d := range own {
		if d.ID == ref || d.Name == ref {
			return d.ID
		}
	}
	for i := range r.docs {
		if d := &r.docs[i]; d.Kind != sigma.KindFilter && (d.ID == ref || d.Name == ref) {
			return d.ID
		}
	}
	return ""
}

// rejection is why a rule is not in the set.
func (r *runner) rejection(id string) string {
	for i := range r.docs {
		d := &r.docs[i]
		if d.ID != id {
			continue
		}
		for _, p := range r.report.Problems {
			if p.File == d.File && p.Document == d.Line && p.Severity == sigma.Error {
				return p.String()
			}
		}
	}
	return "see `stormbell rules check`"
}

// judge compares what a rule did with what it had to do.
func (r *runner) judge(w wanted, events []probe, got *outcome) *Failure {
	if rule := r.set.Rule(w.id); rule != nil {
		if w.group != nil || w.count > 0 {
			return &Failure{Line: w.line, Rule: rule.ID, Message: fmt.Sprintf("%q is a detection rule: it has no group and no count", rule.Title)}
		}
		if len(got.matches[w.id]) == w.fires {
			return nil
		}
		return &Failure{
			Line: w.line, Rule: rule.ID, Why: r.why(rule.ID, events, got.matches[w.id], w.fires),
			Message: fmt.Sprintf("%q matches %s, not %d", rule.Title, plural(len(got.matches[w.id]), "event"), w.fires),
		}
	}
	corr := r.set.Correlation(w.id)
	var like int
	var all []string
	for _, a := range got.alerts[w.id] {
		if sameGroup(w.group, a.group) && (w.count == 0 || uint64(w.count) == a.count) {
			like++
		}
		all = append(all, a.String())
	}
	if like == w.fires {
		return nil
	}
	f := &Failure{Line: w.line, Rule: corr.ID, Message: fmt.Sprintf("%q fires %s, not %d", corr.Title, plural(like, "time"), w.fires), Why: all}
	if w.group != nil || w.count > 0 {
		f.Message = fmt.Sprintf("%q fires %s as described, not %d", corr.Title, plural(like, "time"), w.fires)
	}
	if like < w.fires {
		f.Why = append(f.Why, r.whyNot(corr, events, got)...)
	}
	return f
}

func sameGroup(want, have map[string]string) bool {
	for field, value := range want {
		if v, ok := have[field]; !ok || v != value {
			return false
		}
	}
	return true
}

// gaps reports the rules that tests leave out.
func (r *runner) gaps(rules []ruleset.File) {
	asked := make(map[string]bool, len(rules))
	for _, f := range rules {
		asked[f.Name] = true
	}
	for i := range r.docs {
		d := &r.docs[i]
		if !asked[d.File] || d.Kind == sigma.KindFilter || r.set.Rule(d.ID) == nil && r.set.Correlation(d.ID) == nil {
			continue
		}
		g := Gap{File: d.File, Line: d.Line, Rule: d.ID, Title: d.Title}
		switch fired, spared := r.fired[d.ID], r.spared[d.ID]; {
		case fired && spared:
			continue
		case fired:
			g.Message = "no test has events on which it must not fire"
		case spared:
			g.Message = "no test fires it"
		default:
			g.Message = "has no test: write " + ruleset.TestFile(d.File)
		}
		r.report.Gaps = append(r.report.Gaps, g)
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// alert is what a correlation said.
type alert struct {
	group map[string]string
	count uint64
}

func (a alert) String() string {
	var parts []string
	for field, value := range a.group {
		parts = append(parts, fmt.Sprintf("%s: %q", field, value))
	}
	slices.Sort(parts)
	return fmt.Sprintf("alert: count %d, group {%s}", a.count, strings.Join(parts, ", "))
}
