package trial

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/stormbell/stormbell/services/internal/ruleset"
	"github.com/stormbell/stormbell/services/sigma"
)

// Bounds of a file of tests.
const (
	maxNodes  = 200_000 // YAML nodes, aliases expanded
	maxDepth  = 64
	maxTests  = 10_000
	maxEvents = 10_000 // of one test, repetitions included
	maxShift  = 366 * 24 * time.Hour
)

// suite is a file of tests.
type suite struct {
	file  string
	tests []test
}

// test is a sequence of events, and what must come of it.
type test struct {
	line   int
	name   string
	steps  []step
	expect []expectation
}

// step is one event, or several of a kind.
type step struct {
	line   int
	event  *yaml.Node // a mapping, or JSON as text
	source string
	at     time.Duration
	hasAt  bool
	repeat int
	every  time.Duration
}

// expectation is how often a rule fires.
type expectation struct {
	line  int
	rule  string // id or name; empty is the only rule of the file beside
	fires int
	group map[string]string
	count int // of each alert; 0 is any
}

// fault is a mistake in a file of tests.
type fault struct {
	line    int
	message string
}

func (f *fault) Error() string { return fmt.Sprintf("line %d: %s", f.line, f.message) }

func faultf(n *yaml.Node, format string, args ...any) *fault {
	return &fault{n.Line, fmt.Sprintf(format, args...)}
}

// parse reads a file of tests.
func parse(f ruleset.File) (*suite, *fault) {
	if len(f.Content) > sigma.MaxSource {
		return nil, &fault{1, fmt.Sprintf("is larger than %d bytes: split it", sigma.MaxSource)}
	}
	root, wrong := readYAML(f.Content)
	if wrong != nil {
		return nil, wrong
	}
	top, wrong := fields(root, "the file", "base", "tests")
	if wrong != nil {
		return nil, wrong
	}
	bases := make(map[string]*yaml.Node)
	if base := top["base"]; base != nil {
		if bases, wrong = fields(base, "base"); wrong != nil {
			return nil, wrong
		}
	}
	list := top["tests"]
	switch {
	case list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0:
		return nil, faultf(root, "tests: must be a list of tests")
	case len(list.Content) > maxTests:
		return nil, faultf(list, "tests: more than %d: split the file", maxTests)
	}
	s := &suite{file: f.Name}
	for _, n := range list.Content {
		t, wrong := parseTest(n, bases)
		if wrong != nil {
			return nil, wrong
		}
		s.tests = append(s.tests, *t)
	}
	return s, nil
}

func parseTest(n *yaml.Node, bases map[string]*yaml.Node) (*test, *fault) {
	f, wrong := fields(n, "a test", "name", "events", "expect")
	if wrong != nil {
		return nil, wrong
	}
	t := &test{line: n.Line}
	if t.name, wrong = text(f["name"], "name"); wrong != nil {
		return nil, wrong
	}
	events := f["events"]
	switch {
	case t.name == "":
		return nil, faultf(n, "name: is missing: say in a few words what happens")
	case events == nil || events.Kind != yaml.SequenceNode || len(events.Content) == 0:
		return nil, faultf(n, "events: must be a list of events")
	case f["expect"] == nil:
		return nil, faultf(n, "expect: is missing: say how often the rule fires, 0 if it must not")
	}
	total := 0
	for _, e := range events.Content {
		s, wrong := parseStep(e, bases)
		if wrong != nil {
			return nil, wrong
		}
		if total += s.repeat; total > maxEvents {
			return nil, faultf(e, "the test has more than %d events", maxEvents)
		}
		t.steps = append(t.steps, *s)
	}
	if t.expect, wrong = parseExpect(f["expect"]); wrong != nil {
		return nil, wrong
	}
	return t, nil
}

func parseStep(n *yaml.Node, bases map[string]*yaml.Node) (*step, *fault) {
	f, wrong := fields(n, "an event", "event", "base", "source", "at", "repeat", "every")
	if wrong != nil {
		return nil, wrong
	}
	s := &step{line: n.Line, event: f["event"], repeat: 1}
	if b := f["base"]; b != nil {
		base := bases[b.Value]
		switch {
		case base == nil:
			return nil, faultf(b, "base: %q is not among those at the top of the file", b.Value)
		case s.event == nil:
			s.event = base
		case base.Kind != yaml.MappingNode || s.event.Kind != yaml.MappingNode:
			return nil, faultf(b, "base: only a mapping can be joined with an event, and only with one that is a mapping too")
		default:
			s.event = merge(base, s.event)
		}
	}
	switch {
	case s.event == nil:
		return nil, faultf(n, "event: is missing: write the event, or name its base")
	case s.event.Kind != yaml.MappingNode && s.event.ShortTag() != "!!str":
		return nil, faultf(s.event, "event: must be a mapping, or JSON as text")
	}
	if s.source, wrong = text(f["source"], "source"); wrong != nil {
		return nil, wrong
	}
	if r := f["repeat"]; r != nil {
		if s.repeat, wrong = number(r, "repeat", 1); wrong != nil {
			return nil, wrong
		}
		if s.event.Kind != yaml.MappingNode && s.repeat > 1 {
			return nil, faultf(r, "repeat: an event that is text cannot be told from its copies: write it as a mapping")
		}
	}
	s.hasAt = f["at"] != nil
	if s.at, wrong = span(f["at"], "at"); wrong != nil {
		return nil, wrong
	}
	if s.every, wrong = span(f["every"], "every"); wrong != nil {
		return nil, wrong
	}
	return s, nil
}

// parseExpect reads a number for the only rule beside, or a list.
func parseExpect(n *yaml.Node) ([]expectation, *fault) {
	if n.Kind == yaml.ScalarNode {
		fires, wrong := number(n, "expect", 0)
		return []expectation{{line: n.Line, fires: fires}}, wrong
	}
	if n.Kind != yaml.SequenceNode {
		return nil, faultf(n, "expect: must be a number, or a list of what fires")
	}
	out := []expectation{}
	for _, item := range n.Content {
		f, wrong := fields(item, "expect", "rule", "fires", "group", "count")
		if wrong != nil {
			return nil, wrong
		}
		x := expectation{line: item.Line, fires: 1}
		if x.rule, wrong = text(f["rule"], "rule"); wrong != nil {
			return nil, wrong
		}
		if f["fires"] != nil {
			if x.fires, wrong = number(f["fires"], "fires", 0); wrong != nil {
				return nil, wrong
			}
		}
		if f["count"] != nil {
			if x.count, wrong = number(f["count"], "count", 1); wrong != nil {
				return nil, wrong
			}
		}
		if f["group"] != nil {
			group, wrong := fields(f["group"], "group")
			if wrong != nil {
				return nil, wrong
			}
			x.group = make(map[string]string, len(group))
			for name, value := range group {
				if x.group[name], wrong = text(value, "group."+name); wrong != nil {
					return nil, wrong
				}
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// fields returns what a mapping holds, with aliases resolved. Without known
// keys any will do.
func fields(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, *fault) {
	if n.Kind != yaml.MappingNode {
		return nil, faultf(n, "%s must be a mapping", what)
	}
	out := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		ok := len(known) == 0
		for _, k := range known {
			ok = ok || k == key.Value
		}
		switch {
		case !ok:
			return nil, faultf(key, "%s: %q is not known here: %s are", what, key.Value, strings.Join(known, ", "))
		case out[key.Value] != nil:
			return nil, faultf(key, "%s: %q stands twice", what, key.Value)
		}
		out[key.Value] = n.Content[i+1]
	}
	return out, nil
}

func text(n *yaml.Node, name string) (string, *fault) {
	if n == nil {
		return "", nil
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return "", faultf(n, "%s: must be text", name)
	}
	return n.Value, nil
}

func number(n *yaml.Node, name string, least int) (int, *fault) {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < least || v > maxEvents {
		return 0, faultf(n, "%s: must be a number from %d to %d", name, least, maxEvents)
	}
	return v, nil
}

func span(n *yaml.Node, name string) (time.Duration, *fault) {
	if n == nil {
		return 0, nil
	}
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < 0 || d > maxShift || d%time.Millisecond != 0 {
		return 0, faultf(n, "%s: must be a duration such as 500ms, 30s, 5m or 2h", name)
	}
	return d, nil
}

// readYAML reads one document and expands aliases and merge keys, within bounds.
func readYAML(content []byte) (*yaml.Node, *fault) {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(content)))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &fault{1, "is empty"}
		}
		return nil, notYAML(err)
	}
	if err := dec.Decode(&more); err == nil {
		return nil, faultf(&more, "a second document: put all tests into one")
	} else if !errors.Is(err, io.EOF) {
		return nil, notYAML(err)
	}
	x := expander{}
	return x.expand(doc.Content[0], 0)
}

func notYAML(err error) *fault {
	message, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = strings.TrimPrefix(message, m[0])
	}
	return &fault{line, "not valid YAML: " + message}
}

// expander copies YAML nodes without aliases and merge keys.
type expander struct{ count int }

func (x *expander) expand(n *yaml.Node, depth int) (*yaml.Node, *fault) {
	if x.count++; x.count > maxNodes {
		return nil, faultf(n, "more than %d YAML nodes, aliases expanded: split the file", maxNodes)
	}
	if depth > maxDepth {
		return nil, faultf(n, "nested deeper than %d levels", maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return x.expand(n.Alias, depth+1)
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.ShortTag(), Value: n.Value, Line: n.Line}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.ShortTag() == "!!merge" {
			return nil, faultf(c, "<<: name a base instead")
		}
		kid, wrong := x.expand(c, depth+1)
		if wrong != nil {
			return nil, wrong
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 && kid.Kind != yaml.ScalarNode {
			return nil, faultf(c, "a key must be text")
		}
		out.Content = append(out.Content, kid)
	}
	return out, nil
}

// merge returns a mapping with what over says in place of what base says;
// mappings within are merged in turn.
func merge(base, over *yaml.Node) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: base.Tag, Line: over.Line}
	out.Content = append(out.Content, base.Content...)
	for i := 0; i+1 < len(over.Content); i += 2 {
		set(out, over.Content[i], over.Content[i+1])
	}
	return out
}

// set puts a value into a mapping.
func set(n, key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key.Value {
			continue
		}
		if was := n.Content[i+1]; was.Kind == yaml.MappingNode && value.Kind == yaml.MappingNode {
			value = merge(was, value)
		}
		n.Content[i+1] = value
		return
	}
	n.Content = append(n.Content, key, value)
}

// lookup returns a mapping's value, or nil.
func lookup(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
