package oracle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// extended is what may stand under `stormbell:`.
type extended struct {
	Type                         string
	Rules                        []string
	Trigger, Missing             string
	Timespan, Lateness, Suppress string
	GroupBy                      []string `yaml:"group-by"`
	Aliases                      map[string]map[string]string
	Generate                     bool
	Field, Location              string
	History, Learn, Baseline     string
	Ratio, Average               string
	Min                          int64
	MaxSpeed                     int64 `yaml:"max-speed"`
	MinDistance                  int64 `yaml:"min-distance"`
	Ties                         string
	Condition, Tactics           map[string]int64 // gt or gte
	Scores                       map[string]int64 // by level
	Risk                         *int64

	history, learn, baseline int64
	tactics                  int
}

// allowed are the keys beside `detection:` and `correlation:`, and those of the
// kinds that `stormbell:` alone defines.
func allowed(kind string) []string {
	common := []string{"type", "group-by", "aliases", "generate", "lateness", "suppress"}
	if kind != "risk" {
		common = append(common, "risk")
	}
	switch kind {
	case "detection":
		return []string{"risk"}
	case "correlation":
		return []string{"suppress", "lateness", "ties", "risk"}
	case "absence":
		return append(common, "trigger", "missing", "timespan")
	case "new_value":
		return append(common, "rules", "field", "history", "learn")
	case "rate":
		return append(common, "rules", "timespan", "baseline", "ratio", "min", "average", "learn")
	case "impossible_travel":
		return append(common, "rules", "location", "max-speed", "min-distance")
	case "risk":
		return append(common, "rules", "timespan", "condition", "tactics", "scores")
	}
	return nil
}

// extension reads what stands under `stormbell:`.
func (f *file) extension(r *Rule) error {
	if f.Stormbell.IsZero() {
		return nil
	}
	text, err := yaml.Marshal(&f.Stormbell)
	if err != nil {
		return fmt.Errorf("stormbell: %w", err)
	}
	x := &r.own
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(x); err != nil {
		return fmt.Errorf("stormbell: not supported: %w", err)
	}
	kind := x.Type
	switch {
	case f.Correlation != nil:
		kind = "correlation"
	case f.Detection != nil:
		kind = "detection"
	}
	keys := map[string]any{}
	if err := f.Stormbell.Decode(&keys); err != nil {
		return fmt.Errorf("stormbell: %w", err)
	}
	for key := range keys {
		if !slices.Contains(allowed(kind), key) {
			return fmt.Errorf("stormbell: %s of %q: not supported", key, kind)
		}
	}
	if r.strictTies = x.Ties == "strict"; x.Ties != "" && !r.strictTies {
		return fmt.Errorf("stormbell: ties: %s: not supported", x.Ties)
	}
	for _, d := range []struct {
		text string
		to   *int64
	}{
		{x.Suppress, &r.suppress},
		{x.Lateness, &r.lateness},
		{x.Timespan, &r.timespan},
		{x.History, &x.history},
		{x.Learn, &x.learn},
		{x.Baseline, &x.baseline},
	} {
		if d.text == "" {
			continue
		}
		if *d.to, err = span(d.text); err != nil {
			return err
		}
	}
	return nil
}

// checkExtended completes a rule that `stormbell:` alone defines.
func (r *Rule) checkExtended() error {
	x := &r.own
	r.kind, r.refs, r.groupBy, r.aliases, r.generate = x.Type, x.Rules, x.GroupBy, x.Aliases, x.Generate
	switch {
	case r.kind != "risk" && r.deciders()[r.kind] == nil:
		return fmt.Errorf("stormbell: type: %q: not supported", r.kind)
	case r.lateness < 0:
		return errors.New("without a lateness of its own: not supported")
	case r.kind == "risk":
		if r.timespan == 0 || len(r.groupBy) == 0 {
			return errors.New("risk of whom, and within what")
		}
		var err error
		if r.least, err = atLeast(x.Condition); err == nil && len(x.Tactics) > 0 {
			x.tactics, err = atLeast(x.Tactics)
		}
		return err
	case r.kind == "absence":
		if r.timespan == 0 || x.Missing == "" || x.Missing == x.Trigger {
			return errors.New("absence of what, and for how long")
		}
		if r.refs = []string{x.Missing}; x.Trigger != "" {
			r.refs = append(r.refs, x.Trigger)
		}
	case r.kind == "new_value":
		if r.field = []string{x.Field}; x.Field == "" || x.history == 0 || len(r.refs) == 0 {
			return errors.New("new value of which field, of which rules, within what history")
		}
		if x.Learn == "" {
			x.learn = x.history
		}
	case r.kind == "rate":
		if r.timespan == 0 || x.baseline < r.timespan || x.baseline%r.timespan != 0 || x.Min < 1 || len(r.refs) == 0 ||
			x.Average != "" && x.Average != "mean" && x.Average != "median" {
			return errors.New("rate of which rules, in which periods, against what")
		}
		if x.Learn == "" {
			x.learn = x.baseline
		}
	case r.kind == "impossible_travel":
		if r.field = []string{x.Location}; x.Location == "" || len(r.refs) == 0 {
			return errors.New("impossible travel by which field, of which rules")
		}
		x.MaxSpeed, x.MinDistance = cmp.Or(x.MaxSpeed, 900), cmp.Or(x.MinDistance, 500)
	}
	return nil
}

// deciders are the kinds that the watermark decides. Each says whether a rule
// fires by one of a group's events.
func (r *Rule) deciders() map[string]func([]step, int) (bool, error) {
	return map[string]func([]step, int) (bool, error){
		"absence": r.absent, "new_value": r.isNew, "rate": r.isMore, "impossible_travel": r.isTooFast,
	}
}
