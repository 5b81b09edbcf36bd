package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// reasons puts into words why a rule does not match an event.
type reasons struct {
	*sigma.Explanation
	event *event.Event
}

func (r *reasons) list() []string {
	if !r.Applies {
		return []string{fmt.Sprintf("the rule is for %s; the event is of %s", logSourceText(r.LogSource),
			sourceName(r.event.Product, r.event.Service, r.event.Category))}
	}
	var out []string
	for _, why := range r.failing(&r.Condition) {
		if !slices.Contains(out, why) {
			out = append(out, why)
		}
	}
	return out
}

func logSourceText(l sigma.LogSource) string {
	var parts []string
	for _, d := range [][2]string{{"product", l.Product}, {"service", l.Service}, {"category", l.Category}} {
		if d[1] != "" {
			parts = append(parts, fmt.Sprintf("%s '%s'", d[0], d[1]))
		}
	}
	if len(parts) == 0 {
		return "every log source"
	}
	return strings.Join(parts, ", ")
}

// failing says why a step does not hold.
func (r *reasons) failing(s *sigma.Step) (out []string) {
	switch s.Kind {
	case sigma.StepNamed:
		if len(s.Kids) == 0 {
			for i := range r.Selections {
				if r.Selections[i].Name == s.Name && r.Selections[i].Kind == sigma.StepNamed && len(r.Selections[i].Kids) > 0 {
					return r.failing(&r.Selections[i])
				}
			}
			return []string{s.Name + " does not hold"}
		}
	case sigma.StepField, sigma.StepTest:
		return []string{fieldText(s)}
	case sigma.StepNot:
		return []string{r.excluded(&s.Kids[0])}
	case sigma.StepAny, sigma.StepAtLeast, sigma.StepAll:
	}
	for i := range s.Kids {
		if !s.Kids[i].Holds {
			out = append(out, r.failing(&s.Kids[i])...)
		}
	}
	return out
}

// excluded says what holds that must not.
func (r *reasons) excluded(s *sigma.Step) string {
	if s.Kind == sigma.StepNamed {
		return fmt.Sprintf("'%s' holds, which the condition excludes", s.Name)
	}
	if s.Kind == sigma.StepField || s.Kind == sigma.StepTest {
		return fmt.Sprintf("%s is %s, which the rule excludes", fieldName(s), seenText(s))
	}
	var names []string
	for i := range s.Kids {
		if s.Kids[i].Holds && s.Kids[i].Name != "" {
			names = append(names, "'"+s.Kids[i].Name+"'")
		}
	}
	return "what the condition excludes holds: " + strings.Join(names, ", ")
}

func fieldName(s *sigma.Step) string {
	name, _, _ := strings.Cut(s.Name, "|")
	return name
}

// fieldText says of a field what was seen and what was wanted.
func fieldText(s *sigma.Step) string {
	wants := wanted(s)
	name := fieldName(s)
	switch seen := seenText(s); {
	case name == "" || name == "keywords":
		return "nothing in the event is " + wants
	case seen == "":
		return fmt.Sprintf("field %s is not in the event, wanted %s", name, wants)
	default:
		return fmt.Sprintf("%s is %s, wanted %s", name, seen, wants)
	}
}

// wanted are the values of a rule, with its modifiers.
func wanted(s *sigma.Step) string {
	const most = 5
	var values []string
	for _, v := range s.Want {
		if text, err := strconv.Unquote(v); err == nil {
			v = "'" + text + "'"
		}
		values = append(values, v)
	}
	if n := len(values); n > most {
		values = append(values[:most], fmt.Sprintf("or one of %d more", n-most))
	}
	_, modifiers, _ := strings.Cut(s.Name, "|")
	if modifiers != "" {
		modifiers += " "
	}
	return modifiers + strings.Join(values, ", ")
}

// seenText are the values of the event; empty without any.
func seenText(s *sigma.Step) string {
	var out []string
	var walk func(*sigma.Step)
	walk = func(s *sigma.Step) {
		for _, v := range s.Seen {
			text := "'" + v.Text + "'"
			if v.Null {
				text = "null"
			}
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
		for i := range s.Kids {
			walk(&s.Kids[i])
		}
	}
	walk(s)
	return strings.Join(out, ", ")
}

// lacking are the fields of group-by that an event of a rule does not have.
func lacking(raw []byte, c *sigma.Correlation, rule string) (out []string) {
	var whole any
	_ = json.Unmarshal(raw, &whole) // it was matched
	for _, name := range c.GroupBy {
		field := name
		if of, ok := c.Aliases[name][rule]; ok {
			field = of
		}
		if !present(whole, field) {
			out = append(out, "field "+field)
		}
	}
	if len(out) == 0 {
		return []string{"a field"}
	}
	return out
}

// present reports whether a value has a field that is not null, nested or with
// dots in its name.
func present(v any, path string) bool {
	switch v := v.(type) {
	case map[string]any:
		if found, ok := v[path]; ok && found != nil {
			return true
		}
		for i := range path {
			if path[i] == '.' && present(v[path[:i]], path[i+1:]) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(one any) bool { return present(one, path) })
	}
	return false
}
