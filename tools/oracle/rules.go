package oracle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Rule is one YAML document: a detection or a correlation.
type Rule struct {
	ID, Name string
	// Of a detection.
	product, service, category string
	selections                 map[string]any
	words                      []string // of the condition
	// Of a correlation; kind is empty for a detection.
	kind               string
	refs               []string // ids of rules, once linked
	groupBy, field     []string
	aliases            map[string]map[string]string // by alias and id of rule
	timespan, suppress int64
	lateness           int64 // −1: none of its own
	least              int
	generate           bool
	strictTies         bool
	own                extended // of a kind that Sigma does not have
	level              string
	tags               []string
}

// file is a rule as YAML has it.
type file struct {
	ID, Name    string
	Level       string
	Tags        []string
	Logsource   struct{ Product, Service, Category string }
	Detection   map[string]any
	Correlation *struct {
		Type      string
		Rules     []string
		GroupBy   []string `yaml:"group-by"`
		Timespan  string
		Generate  bool
		Aliases   map[string]map[string]string
		Condition map[string]any
	}
	Stormbell yaml.Node
}

// LoadDir reads every .yml and .yaml file beneath dir.
func LoadDir(dir string) ([]Rule, error) {
	var rules []Rule
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") && !strings.HasSuffix(path, ".yaml") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		more, err := Load(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		rules = append(rules, more...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load rules: %w", err)
	}
	return rules, nil
}

// Load reads the documents of one file.
func Load(text []byte) ([]Rule, error) {
	var rules []Rule
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var f file
		if err := d.Decode(&f); errors.Is(err, io.EOF) {
			return rules, nil
		} else if err != nil {
			return nil, fmt.Errorf("not a rule: %w", err)
		}
		r, err := f.rule()
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", f.ID, err)
		}
		rules = append(rules, r)
	}
}

func (f *file) rule() (Rule, error) {
	r := Rule{ID: f.ID, Name: f.Name, level: f.Level, tags: f.Tags, lateness: -1, selections: f.Detection}
	if f.ID == "" {
		return r, errors.New("a rule without id: not supported")
	}
	if err := f.extension(&r); err != nil {
		return r, err
	}
	if f.Correlation == nil && f.Detection == nil {
		return r, r.checkExtended()
	}
	if f.Correlation == nil {
		r.product, r.service, r.category = f.Logsource.Product, f.Logsource.Service, f.Logsource.Category
		condition, ok := f.Detection["condition"].(string)
		if !ok {
			return r, errors.New("no condition, or a list of them: not supported")
		}
		r.words = words(condition)
		return r, nil
	}
	c := f.Correlation
	r.kind, r.refs, r.groupBy, r.aliases, r.generate = c.Type, c.Rules, c.GroupBy, c.Aliases, c.Generate
	var err error
	if r.timespan, err = span(c.Timespan); err != nil {
		return r, err
	}
	return r, r.bound(c.Condition)
}

// bound reads the condition of a correlation: at least so many.
func (r *Rule) bound(condition map[string]any) error {
	switch r.kind {
	case "event_count", "value_count":
	case "temporal", "temporal_ordered":
		if len(condition) == 0 {
			r.least = len(r.refs)
			return nil
		}
		if r.kind == "temporal_ordered" {
			return errors.New("temporal_ordered with a condition: not supported")
		}
	default:
		return fmt.Errorf("correlation type %q: not supported", r.kind)
	}
	for key, v := range condition {
		n, isInt := v.(int)
		switch key {
		case "gte":
			r.least = n
		case "gt":
			r.least = n + 1
		case "field":
			isInt = true
			switch v := v.(type) {
			case string:
				r.field = []string{v}
			case []any:
				for _, one := range v {
					r.field = append(r.field, fmt.Sprint(one))
				}
			}
		}
		if !isInt || key != "field" && r.least < 1 {
			return fmt.Errorf("condition %s: %v: not supported", key, v)
		}
	}
	if r.least < 1 || (r.kind == "value_count") != (len(r.field) > 0) {
		return errors.New("condition without a lower bound, or without its field")
	}
	return nil
}

func span(text string) (int64, error) {
	m := regexp.MustCompile(`^([0-9]+)([smhdw])$`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("time span %q: not supported", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("time span %q: %w", text, err)
	}
	unit := map[string]int64{"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}[m[2]]
	return n * unit * 1000, nil
}

type plan struct {
	detections []*Rule
	// correlations come after those that they refer to.
	correlations []*Rule
	byID         map[string]*Rule
	alerts       map[string]bool // rules that alert by themselves
	parents      map[string]bool // rules that a correlation refers to
}

// link resolves references and decides which rules alert.
func link(rules []Rule, revisions map[string]string) (*plan, error) {
	p := &plan{alerts: map[string]bool{}, byID: map[string]*Rule{}, parents: map[string]bool{}}
	ids := map[string]string{} // by name and by id
	var open []*Rule
	for i := range rules {
		r := rules[i]
		if revisions[r.ID] == "" {
			return nil, fmt.Errorf("rule %s has no revision", r.ID)
		}
		p.byID[r.ID], p.alerts[r.ID], ids[r.ID] = &r, true, r.ID
		if r.Name != "" {
			ids[r.Name] = r.ID
		}
		if r.kind != "" {
			open = append(open, &r)
		} else {
			p.detections = append(p.detections, &r)
		}
	}
	generated := map[string]bool{}
	for _, c := range open {
		refs := make([]string, len(c.refs))
		for i, ref := range c.refs {
			if refs[i] = ids[ref]; refs[i] == "" {
				return nil, fmt.Errorf("rule %s refers to %q, which is no rule", c.ID, ref)
			}
			p.alerts[refs[i]], p.parents[refs[i]] = false, true
			generated[refs[i]] = generated[refs[i]] || c.generate
		}
		c.refs = refs
		aliases := map[string]map[string]string{}
		for alias, of := range c.aliases {
			aliases[alias] = map[string]string{}
			for ref, field := range of {
				aliases[alias][ids[ref]] = field
			}
		}
		c.aliases = aliases
	}
	for id := range generated {
		p.alerts[id] = generated[id]
	}
	p.scored(open)
	return p, p.order(open)
}

// order puts correlations behind those that they refer to.
func (p *plan) order(open []*Rule) error {
	done := map[string]bool{}
	for _, d := range p.detections {
		done[d.ID] = true
	}
	for len(open) > 0 {
		var later []*Rule
		for _, c := range open {
			if slices.ContainsFunc(c.refs, func(ref string) bool { return !done[ref] }) {
				later = append(later, c)
				continue
			}
			p.correlations, done[c.ID] = append(p.correlations, c), true
		}
		if len(later) == len(open) {
			return fmt.Errorf("rule %s refers to itself", open[0].ID)
		}
		open = later
	}
	return nil
}
