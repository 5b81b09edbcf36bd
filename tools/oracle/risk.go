package oracle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A score is what something adds to a risk, once.
type score struct {
	points  int64
	of      string // what is scored
	tactics []string
}

func atLeast(bound map[string]int64) (int, error) {
	for op, n := range bound {
		switch {
		case len(bound) > 1 || n < 0:
		case op == "gte" && n > 0:
			return int(n), nil
		case op == "gt":
			return int(n) + 1, nil
		}
	}
	return 0, errors.New("no lower bound")
}

// scored gives risks that list no rules all those that alert by themselves.
func (p *plan) scored(open []*Rule) {
	for _, c := range open {
		if c.kind != "risk" || len(c.refs) > 0 {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(p.alerts)) {
			if p.alerts[id] && p.byID[id].kind != "risk" {
				c.refs, p.parents[id] = append(c.refs, id), true
			}
		}
	}
}

// score is what a signal of a rule adds: each alert of a correlation once, and a
// detection rule once in a timespan. Without points it adds nothing.
func (c *Rule) score(of *Rule, s *signal) (score, error) {
	out := score{of: of.ID + " " + s.alert}
	if of.kind == "" {
		out.of = of.ID + " " + strconv.FormatInt(floorDiv(s.record.TimeMS, c.timespan), 10)
	}
	usual := map[string]int64{"informational": 1, "low": 5, "medium": 20, "high": 50, "critical": 100}
	maps.Copy(usual, c.own.Scores)
	var ok bool
	if out.points, ok = usual[of.level]; !ok {
		return out, fmt.Errorf("a score of level %q: not supported", of.level)
	}
	if of.own.Risk != nil {
		out.points = *of.own.Risk
	}
	for _, tag := range of.tags {
		name, ok := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(tag), "_", "-"), "attack.")
		if ok && slices.Contains(tactics(), name) {
			out.tactics = append(out.tactics, name)
		}
	}
	return out, nil
}

// tactics are those of ATT&CK for enterprises.
func tactics() []string {
	return []string{
		"reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
		"defense-evasion", "credential-access", "discovery", "lateral-movement", "collection", "command-and-control",
		"exfiltration", "impact",
	}
}

// risky says that scores come to what the rule demands, and name enough tactics:
// of what is scored several times the greatest.
func (c *Rule) risky(set []hit) bool {
	greatest, named := map[string]int64{}, map[string]bool{}
	for _, h := range set {
		greatest[h.score.of] = max(greatest[h.score.of], h.score.points)
		for _, t := range h.score.tactics {
			named[t] = true
		}
	}
	total := int64(0)
	for _, points := range greatest {
		total += points
	}
	return total >= int64(c.least) && len(named) >= c.own.tactics
}
