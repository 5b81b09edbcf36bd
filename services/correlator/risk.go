package correlator

import (
	"fmt"
	"slices"
	"time"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/sigma"
)

// A risk is the parent of all rules that it scores. What they say comes to it as
// to any parent, keyed by its entity: hits of detection rules as detections,
// what correlations say of single events as signals. Each record says itself what
// it adds, by the rules with which its event is stamped. So these may change while
// totals go on, and nothing of a risk's spec may depend on them: it has the lateness of all
// sources, and waits for all levels.

// risk completes the spec of a risk.
func (c Config) risk(spec *window.Spec, sc *sigma.Correlation) {
	least, _ := sc.Condition.AtOnce()
	spec.Min, spec.Rules, spec.Level = int(least), 1, anyLevel
	spec.Lateness = c.lateness(sc, nil)
	spec.Extension = window.Extension{Tactics: sc.Extension.Tactics}
}

// Of what a score is one, before what names it: an alert, which is said or not,
// or the hits of a rule within a timespan.
const (
	scoreOfAlert = "a"
	scoreSilent  = "s"
	scoreOfHits  = "h"
)

// score is what a record adds by one of its rules; false where that has no score.
// Each alert of a correlation is scored once, and each rule without windows once
// in each timespan.
func (it *item) score(rule string) (text string, ok bool) {
	c := it.cor
	points, ok := c.Scores[rule]
	if !ok {
		return "", false
	}
	s := window.Score{Points: points.Points, Tactics: points.Tactics, Rule: rule}
	if it.level > 0 {
		s.Part = scoreOfAlert + it.alert
		if child := c.of.set.Correlation(rule); child == nil || !child.Alerts || child.Shadow {
			s.Part = scoreSilent + it.alert
		}
		return s.Text(), true
	}
	s.Part = scoreOfHits + c.spec.ScoredIn(it.det.GetTimeMs())
	if r := c.of.set.Rule(rule); r != nil && r.Alerts && !r.Shadow {
		s.Note = r.Revision
	}
	return s.Text(), true
}

// scores are those of a record's rules that have one.
func (it *item) scores() (texts []string) {
	for _, rule := range it.det.GetRuleIds() {
		if text, ok := it.score(rule); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// addAll folds a record into its group: a risk has one for each further score.
func addAll(g *window.Group, r window.Record, scores []string) []window.Firing {
	fired := g.Add(r)
	for i := 1; i < len(scores); i++ {
		r.Value = scores[i]
		fired = append(fired, g.Add(r)...)
	}
	return fired
}

// madeOf is what a risk adds up to, in words of the rules that rule now.
func (c *correlation) madeOf(d *detectionv1.Detection, f *window.Firing) *alertv1.Risk {
	out := &alertv1.Risk{Tactics: sigma.TacticNames(f.Tactics), SignalsTotal: uint64(f.AllParts)}
	for i := range f.Parts {
		p := &f.Parts[i]
		s := &alertv1.Scored{RuleId: p.Rule, Score: uint32(p.Points), Tactics: sigma.TacticNames(p.Tactics), TimeMs: p.Time}
		if r := c.ruleOf(p.Rule); r != nil {
			s.Title, s.Level = r.GetTitle(), r.GetLevel()
		}
		switch kind, of := p.Part[:1], p.Part[1:]; {
		case kind == scoreOfAlert:
			s.AlertId = of
		case kind == scoreOfHits && p.Note != "":
			s.AlertId = alert.StandAloneID(d.GetTenant(), p.Rule, p.Note, p.EventID)
		}
		out.Signals = append(out.Signals, s)
	}
	return out
}

// ruleOf is a rule of the plan; nil where it is not there any more.
func (c *correlation) ruleOf(id string) *alertv1.Rule {
	if c.of == nil {
		return nil
	}
	if r := c.of.rules[id]; r != nil {
		return r
	}
	if other := c.of.correlations[id]; other != nil {
		return other.rule
	}
	return nil
}

// scoring says in words what a risk is made of.
func (c *correlation) scoring(f *window.Firing) string {
	var rules []string
	for i := range f.Parts {
		if !slices.Contains(rules, f.Parts[i].Rule) {
			rules = append(rules, f.Parts[i].Rule)
		}
	}
	count := func(n int, one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	by := " by " + count(len(rules), "rule", "rules")
	if n := len(sigma.TacticNames(f.Tactics)); n > 0 {
		by += " of " + count(n, "tactic", "tactics")
	}
	return fmt.Sprintf(", a risk of %d%s within %s", f.Count, by, alert.Span(time.Duration(f.End-f.Start)*time.Millisecond))
}

// conditionOf is what a count had to satisfy.
func (c *correlation) conditionOf() string {
	text := c.Condition.String()
	if n := c.Extension.Tactics; n > 0 {
		text += fmt.Sprintf(" of %d tactics", n)
	}
	return text
}
