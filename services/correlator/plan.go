package correlator

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/sigma"
)

// plan is a compiled rule set with what the two stages derive of it. It is
// immutable.
type plan struct {
	set          *sigma.Set
	rules        map[string]*alertv1.Rule // of detection rules, by id
	correlations map[string]*correlation  // by id
	levels       uint32                   // up to which correlations signal to others
}

// correlation is one correlation with all that folding it takes.
type correlation struct {
	*sigma.Correlation
	spec *window.Spec
	rule *alertv1.Rule
	// lookBack is how far before the watermark a rebuild has to read for it, with
	// all whose signals it counts.
	lookBack int64
	// memory is that where nothing comes from `state`.
	memory int64
	bits   map[string]uint64 // of referred rules, by id
	// missing is the title of the rule whose absence is told.
	missing string
	// of is the plan that a risk is of, whose rules it names.
	of *plan
}

func (c Config) newPlan(set *sigma.Set) *plan {
	unaided := c
	unaided.SnapshotOver = math.MaxInt64
	p := &plan{set: set, rules: make(map[string]*alertv1.Rule), correlations: make(map[string]*correlation)}
	for _, r := range set.Rules() {
		p.rules[r.ID] = &alertv1.Rule{Id: r.ID, Title: r.Title, Level: r.Level, Tags: r.Tags, Revision: r.Revision, Type: "detection"}
	}
	for _, sc := range set.Correlations() {
		spec, err := c.spec(sc, set)
		if err != nil {
			continue // Accept has refused it when the set was compiled
		}
		cor := &correlation{
			Correlation: sc, spec: spec, lookBack: c.lookBack(sc, spec, set), memory: unaided.lookBack(sc, spec, set),
			bits: make(map[string]uint64, len(sc.Rules)),
			rule: &alertv1.Rule{Id: sc.ID, Title: sc.Title, Level: sc.Level, Tags: sc.Tags, Revision: sc.Revision, Type: string(sc.Type)},
		}
		for i, id := range sc.Rules {
			cor.bits[id] = 1 << i
		}
		if sc.Type == sigma.Absence {
			switch last := sc.Rules[len(sc.Rules)-1]; {
			case set.Rule(last) != nil:
				cor.missing = set.Rule(last).Title
			case set.Correlation(last) != nil:
				cor.missing = set.Correlation(last).Title
			}
		}
		if sc.Type == sigma.Risk {
			cor.of = p
		}
		p.correlations[sc.ID] = cor
		if len(sc.Parents) > 0 {
			p.levels = max(p.levels, uint32(min(sc.Depth, maxLevel)))
		}
	}
	return p
}

var kinds = map[sigma.CorrelationType]window.Kind{
	sigma.EventCount: window.EventCount, sigma.ValueCount: window.ValueCount,
	sigma.Temporal: window.Temporal, sigma.TemporalOrdered: window.TemporalOrdered,
	sigma.Absence: window.Absence, sigma.NewValue: window.NewValue, sigma.ImpossibleTravel: window.Travel, sigma.Rate: window.Rate,
	sigma.Risk: window.Risk, sigma.ValueSum: window.ValueSum, sigma.ValueAvg: window.ValueAvg,
	sigma.ValuePercentile: window.ValuePercentile, sigma.ValueMedian: window.ValueMedian,
}

var shapes = map[sigma.Window]window.Shape{sigma.Tumbling: window.Tumbling, sigma.Session: window.Session}

var ops = map[sigma.Op]window.Op{
	sigma.GT: window.GT, sigma.GTE: window.GTE, sigma.LT: window.LT, sigma.LTE: window.LTE, sigma.EQ: window.EQ, sigma.NEQ: window.NEQ,
}

// Accept reports why the correlator cannot evaluate a correlation, nil if it
// can. It is what a compiler of rules for this correlator sets as
// sigma.Options.Accept.
func (c Config) Accept(sc *sigma.Correlation) error {
	_, err := c.spec(sc, nil)
	return err
}

// spec says what a correlation demands of a window, where that can be kept.
// Without a set, its lateness is the largest that any source has.
func (c Config) spec(sc *sigma.Correlation, set *sigma.Set) (*window.Spec, error) {
	spec, err := c.window(sc, set)
	if err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if need := c.lookBack(sc, spec, set); time.Duration(need)*time.Millisecond > c.Retention {
		return nil, fmt.Errorf("it has to look back %s, and detections are kept for %s: shorten its timespan or raise the retention",
			time.Duration(need)*time.Millisecond, c.Retention)
	}
	return spec, nil
}

func (c Config) window(sc *sigma.Correlation, set *sigma.Set) (*window.Spec, error) {
	kind, ok := kinds[sc.Type]
	if !ok {
		return nil, fmt.Errorf("correlation type %q is not supported yet", sc.Type)
	}
	spec := &window.Spec{
		Kind: kind, Timespan: sc.Timespan, Lateness: c.lateness(sc, set), OwnLateness: sc.Lateness >= 0,
		Rules: len(sc.Rules), StrictTies: sc.StrictTies, Suppress: sc.Suppress, Level: uint32(sc.Depth - 1),
	}
	spec.Shape, spec.Gap, spec.Percentile, spec.Updates = shapes[sc.Window], sc.Gap, sc.Percentile, sc.Updates
	if sc.Type == sigma.Risk {
		c.risk(spec, sc)
		return spec, nil
	}
	for _, child := range sc.Children {
		if of, err := c.window(child, set); err == nil {
			before, after := of.Span()
			spec.Before, spec.After = max(spec.Before, before), max(spec.After, after)
		}
	}
	if sc.Extension != (sigma.Extension{}) || sc.Type == sigma.Absence {
		extend(spec, &sc.Extension)
	} else if err := condition(spec, sc); err != nil {
		return nil, err
	}
	return spec, nil
}

// extend gives a spec what `stormbell: type` demands.
func extend(spec *window.Spec, x *sigma.Extension) {
	spec.Min = int(x.Min)
	spec.Extension = window.Extension{
		Forget: x.Forget, History: x.History, Learn: x.Learn, Baseline: x.Baseline, Ratio: x.Ratio, Median: x.Median,
		MaxSpeed: x.MaxSpeed, MinDistance: x.MinDistance * 1000,
	}
}

// condition says when a correlation fires.
func condition(spec *window.Spec, sc *sigma.Correlation) error {
	least, counts := sc.Condition.AtOnce()
	switch {
	case sc.Condition.Tree != nil:
		program, err := expression(sc.Condition.Tree, sc.Rules, false)
		spec.Expr = string(program)
		return err
	case counts && spec.Kind < window.ValueSum:
		spec.Min = int(min(least, window.MaxRecords+1)) // Validate says why not
		return nil
	}
	for i, b := range sc.Condition.Bounds {
		number := b.Number
		if spec.Kind < window.ValueSum {
			number = strconv.FormatInt(b.Count, 10)
		}
		spec.Bounds[i] = window.Bound{Op: ops[b.Op], Number: number}
	}
	return nil
}

// expression writes a condition over rules as window reads it: negation only of
// single rules.
func expression(e *sigma.Expression, rules []string, not bool) ([]byte, error) {
	switch e.Op {
	case sigma.RuleSeen:
		i := slices.Index(rules, e.Rule)
		if i < 0 || i >= window.MaxRules {
			return nil, fmt.Errorf("rule %q is not among the first %d of the correlation", e.Rule, window.MaxRules)
		}
		if not {
			return []byte{byte(window.ExprAbsent + i)}, nil
		}
		return []byte{byte(i)}, nil
	case sigma.NoneOf:
		return expression(e.Kids[0], rules, !not)
	default:
	}
	join := byte(window.ExprOr)
	if (e.Op == sigma.AllOf) != not {
		join = window.ExprAnd
	}
	var out []byte
	for i, kid := range e.Kids {
		part, err := expression(kid, rules, not)
		if err != nil {
			return nil, err
		}
		if out = append(out, part...); i > 0 {
			out = append(out, join)
		}
	}
	return out, nil
}

// lookBack is how far before the watermark a rebuild reads for a rule, in
// milliseconds: what it needs itself and, before that, those whose signals it
// counts.
func (c Config) lookBack(sc *sigma.Correlation, s *window.Spec, set *sigma.Set) int64 {
	most := int64(0)
	for _, child := range sc.Children {
		if of, err := c.window(child, set); err == nil {
			most = max(most, c.lookBack(child, of, set))
		}
	}
	return c.ownLookBack(s) + most
}

// ownLookBack is the look-back of a rule without what it refers to. What lies
// before it comes from `state`, where the rule's groups go there.
func (c Config) ownLookBack(s *window.Spec) int64 {
	back := s.LookBack()
	if every := c.snapshotEvery(s); every > 0 {
		back = min(back, every+every/snapshotSpread+s.Lateness+window.EarlyAllowance)
	}
	return back + c.Slack.Milliseconds()
}

// lateness is L of a correlation, in milliseconds: its own, else the largest of
// the sources that a rule it refers to can match.
func (c Config) lateness(sc *sigma.Correlation, set *sigma.Set) int64 {
	if sc.Lateness >= 0 {
		return sc.Lateness
	}
	most := c.Lateness
	for _, source := range c.Sources {
		if source.Lateness > most && c.canMatch(sc, set, source) {
			most = source.Lateness
		}
	}
	return most.Milliseconds()
}

func (c Config) canMatch(sc *sigma.Correlation, set *sigma.Set, source Source) bool {
	if set == nil {
		return true
	}
	agree := func(rule, source string) bool {
		return rule == "" || source == "" || strings.EqualFold(rule, source)
	}
	for _, child := range sc.Children {
		if c.canMatch(child, set, source) {
			return true
		}
	}
	for _, id := range sc.Rules {
		if set.Correlation(id) != nil {
			continue
		}
		r := set.Rule(id)
		if r == nil || agree(r.LogSource.Product, source.Product) && agree(r.LogSource.Service, source.Service) &&
			agree(r.LogSource.Category, source.Category) {
			return true
		}
	}
	return false
}
