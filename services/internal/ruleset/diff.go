package ruleset

import (
	"cmp"
	"slices"

	"github.com/stormbell/stormbell/services/sigma"
)

// Ways in which a rule may differ between two sets.
const (
	// Added and Removed rules are in one of the sets only.
	Added   = "added"
	Removed = "removed"
	// Changed rules have another revision: what decides is another, and a
	// correlation begins anew.
	Changed = "changed"
	// Reworded rules have another text and the same revision: state and ids go on.
	Reworded = "text"
)

// Difference is one rule that differs.
type Difference struct {
	ID, Title, Change string
	Kind              sigma.Kind
	File              string
	Line              int
	// Before and After are revisions; empty where there is none, and for filters.
	Before, After string
	// Shadow is set where the rule is now in the shadow, or was.
	ShadowBefore, ShadowAfter bool
}

// Diff compares rules with those that are to take their place, each compiled
// with the rules beside them. It returns those that differ, by id, and how many
// do not.
func Diff(beside, before, after []sigma.Document, opts sigma.Options) (differ []Difference, same int) {
	was, is := revisions(beside, before, opts), revisions(beside, after, opts)
	old := make(map[string]*sigma.Document, len(before))
	for i := range before {
		old[before[i].ID] = &before[i]
	}
	for i := range after {
		d := &after[i]
		o := old[d.ID]
		delete(old, d.ID)
		x := difference(d, "", is[d.ID])
		switch {
		case o == nil:
			x.Change = Added
		case was[d.ID] != is[d.ID] || o.Kind != d.Kind || d.Kind == sigma.KindFilter && o.Hash() != d.Hash():
			x.Change = Changed
		case o.Hash() != d.Hash():
			x.Change = Reworded
		default:
			same++
			continue
		}
		if o != nil {
			x.Before, x.ShadowBefore = was[d.ID], o.Shadow
		}
		x.ShadowAfter = d.Shadow
		differ = append(differ, x)
	}
	for id, o := range old {
		x := difference(o, was[id], "")
		x.Change, x.ShadowBefore = Removed, o.Shadow
		differ = append(differ, x)
	}
	slices.SortFunc(differ, func(a, b Difference) int { return cmp.Compare(a.ID, b.ID) })
	return differ, same
}

func difference(d *sigma.Document, before, after string) Difference {
	return Difference{ID: d.ID, Title: d.Title, Kind: d.Kind, File: d.File, Line: d.Line, Before: before, After: after}
}

// revisions are those of rules that compile, by id.
func revisions(beside, docs []sigma.Document, opts sigma.Options) map[string]string {
	set, _ := sigma.Compile(append(slices.Clip(beside), docs...), opts)
	out := make(map[string]string)
	for _, r := range set.Rules() {
		out[r.ID] = r.Revision
	}
	for _, c := range set.Correlations() {
		out[c.ID] = c.Revision
	}
	return out
}

// Rules are the parsed rules of a plan, under its pipelines.
func (p *Plan) Rules(pipelines []*sigma.Pipeline) []sigma.Document { return p.rules(pipelines) }
