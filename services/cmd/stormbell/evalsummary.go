package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/stormbell/stormbell/services/sigma"
)

// countedRule is how often a rule matched.
type countedRule struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Level string `json:"level"`
	Type  string `json:"type"`
	// Matches are events; of a correlation, times that it fired.
	Matches int `json:"matches"`
	// Alerts are fewer where a correlation counts the matches.
	Alerts int `json:"alerts"`
}

// summary counts what rules found, in place of the alerts themselves.
type summary struct {
	matches, alerts map[string]int // by rule id
}

func newSummary() *summary { return &summary{make(map[string]int), make(map[string]int)} }

// rules returns those that matched: the most frequent first, equal ones by
// title and id.
func (s *summary) rules(set *sigma.Set) []countedRule {
	var out []countedRule
	for _, r := range set.Rules() {
		out = append(out, countedRule{r.ID, r.Title, r.Level, "detection", s.matches[r.ID], s.alerts[r.ID]})
	}
	for _, c := range set.Correlations() {
		out = append(out, countedRule{c.ID, c.Title, c.Level, string(c.Type), s.alerts[c.ID], s.alerts[c.ID]})
	}
	out = slices.DeleteFunc(out, func(r countedRule) bool { return r.Matches+r.Alerts == 0 })
	slices.SortFunc(out, func(a, b countedRule) int {
		return cmp.Or(cmp.Compare(b.Matches, a.Matches), cmp.Compare(a.Title, b.Title), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// tell prints the counts.
func (s *summary) tell(env *environment, output *format, set *sigma.Set) error {
	if output.name == asNDJSON {
		output = &format{name: asJSON}
	}
	return list(env, output, s.rules(set), "MATCHES\tALERTS\tLEVEL\tTYPE\tRULE", func(r countedRule) string {
		return strings.Join([]string{fmt.Sprint(r.Matches), fmt.Sprint(r.Alerts), cmp.Or(r.Level, "-"), r.Type, cmp.Or(r.Title, r.ID)}, "\t")
	})
}
