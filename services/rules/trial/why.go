package trial

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stormbell/stormbell/services/sigma"
)

// Bounds of what is told of one failure.
const (
	maxTold   = 5  // events
	maxBlamed = 10 // parts of a rule, of one event
	maxText   = 200
)

// why says of the events on which a detection rule went wrong which parts of it
// decided.
func (r *runner) why(id string, events []probe, matched []int, fires int) []string {
	var lines []string
	told := 0
	for i := range events {
		if slices.Contains(matched, i) != (len(matched) > fires) {
			continue
		}
		if told++; told > maxTold {
			return append(lines, "…")
		}
		at := fmt.Sprintf("event %d (line %d)", i+1, events[i].line)
		if len(matched) > fires {
			lines = append(lines, at+" matches")
			continue
		}
		lines = append(lines, r.unmatched(id, &events[i], at)...)
	}
	return lines
}

// unmatched says why an event does not match.
func (r *runner) unmatched(id string, p *probe, at string) []string {
	x, err := sigma.Explain(r.docs, id, r.settings.Sigma, p.sigma())
	switch {
	case err != nil:
		return []string{at + ": " + err.Error()}
	case !x.Applies:
		return []string{fmt.Sprintf("%s: the rule is for the log source %s, the event is of %s", at, name(x.LogSource), name(p.source()))}
	}
	b := blame{selections: x.Selections}
	b.condition(&x.Condition, true)
	lines := make([]string, 0, len(b.lines))
	for _, line := range b.lines {
		lines = append(lines, at+": "+line)
	}
	return lines
}

// whyNot says what of its rules a correlation has met.
func (r *runner) whyNot(corr *sigma.Correlation, events []probe, got *outcome) []string {
	var lines []string
	for _, id := range corr.Rules {
		rule := r.set.Rule(id)
		if rule == nil {
			continue
		}
		matched := got.matches[id]
		if corr.Type == sigma.Risk && len(matched) == 0 {
			continue // of hundreds of rules most are about other events
		}
		lines = append(lines, fmt.Sprintf("%q matches %d of %s", rule.Title, len(matched), plural(len(events), "event")))
		if len(matched) == 0 {
			lines = append(lines, r.why(id, events, matched, 1)...)
		}
	}
	return lines
}

// blame gathers the parts of a rule that are not as they had to be.
type blame struct {
	selections []sigma.Step
	lines      []string
}

// condition walks a condition; want is how the step had to turn out.
func (b *blame) condition(s *sigma.Step, want bool) {
	if s.Holds == want {
		return
	}
	switch s.Kind {
	case sigma.StepNamed:
		for i := range b.selections {
			if b.selections[i].Name == s.Name {
				b.parts(&b.selections[i], want, s.Name)
			}
		}
	case sigma.StepNot:
		b.kids(s, !want, b.condition)
	case sigma.StepAll, sigma.StepAny, sigma.StepAtLeast:
		b.kids(s, want, b.condition)
	default:
		b.parts(s, want, "condition")
	}
}

func (b *blame) kids(s *sigma.Step, want bool, visit func(*sigma.Step, bool)) {
	for i := range s.Kids {
		visit(&s.Kids[i], want)
	}
}

// parts walks a selection down to its fields.
func (b *blame) parts(s *sigma.Step, want bool, selection string) {
	if s.Holds == want {
		return
	}
	switch s.Kind {
	case sigma.StepField, sigma.StepTest:
		b.tell(s, want, selection)
	case sigma.StepNot:
		b.kids(s, !want, func(k *sigma.Step, want bool) { b.parts(k, want, selection) })
	default:
		b.kids(s, want, func(k *sigma.Step, want bool) { b.parts(k, want, selection) })
	}
}

func (b *blame) tell(s *sigma.Step, want bool, selection string) {
	if len(b.lines) >= maxBlamed {
		return
	}
	field := s.Name
	if field == "" {
		field = "keywords"
	}
	line := selection + ": " + field
	if len(s.Want) > 0 {
		line += ": " + clip(strings.Join(s.Want, ", "))
	}
	seen := "nothing"
	if values := seenBy(s); len(values) > 0 {
		seen = clip(strings.Join(values, ", "))
	}
	verdict := "does not hold"
	if !want {
		verdict = "holds, and must not"
	}
	b.lines = append(b.lines, fmt.Sprintf("%s %s, the event has %s", line, verdict, seen))
}

// seenBy are the values of a field, or of the tests that it consists of.
func seenBy(s *sigma.Step) []string {
	var out []string
	for _, v := range s.Seen {
		text := strconv.Quote(v.Text)
		if v.Null {
			text = "null"
		}
		out = append(out, text)
	}
	for i := range s.Kids {
		for _, text := range seenBy(&s.Kids[i]) {
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return out
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

func name(l sigma.LogSource) string {
	var parts []string
	for _, dim := range []struct{ key, value string }{{"product", l.Product}, {"service", l.Service}, {"category", l.Category}} {
		if dim.value != "" {
			parts = append(parts, dim.key+"="+dim.value)
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}
