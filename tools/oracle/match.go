package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

func parse(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // keeps numbers as they are written
	var doc map[string]any
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	return doc, nil
}

// lookup returns the values at a path: the longest literal key first at each
// object, every element of arrays on the way and at the end.
func lookup(v any, path []string) []any {
	if list, ok := v.([]any); ok {
		var out []any
		for _, e := range list {
			out = append(out, lookup(e, path)...)
		}
		return out
	}
	if len(path) == 0 {
		return []any{v}
	}
	object, _ := v.(map[string]any)
	for n := len(path); n > 0; n-- {
		if inner, ok := object[strings.Join(path[:n], ".")]; ok {
			if found := lookup(inner, path[n:]); len(found) > 0 {
				return found
			}
		}
	}
	return nil
}

// scalar is the text of a value that is one.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// appliesTo compares log sources: a strict event asserts what it leaves empty.
func (r *Rule) appliesTo(e *Record) bool {
	for _, d := range [][2]string{{r.product, e.Product}, {r.service, e.Service}, {r.category, e.Category}} {
		if wants, has := d[0], d[1]; wants != "" && wants != has && (has != "" || e.StrictLogsource) {
			return false
		}
	}
	return true
}

func (r *Rule) matches(doc any) (bool, error) {
	p := &condition{words: r.words, is: func(name string) (bool, error) {
		selection, ok := r.selections[name]
		if !ok {
			return false, fmt.Errorf("condition names %q, which is no selection", name)
		}
		return selects(selection, doc)
	}}
	ok, err := p.or()
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("condition goes on with %q: not supported", p.words[0])
	}
	return ok, err
}

// condition evaluates while it reads: or < and < not < brackets.
type condition struct {
	words []string
	is    func(name string) (bool, error)
}

func words(s string) []string {
	return strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s))
}

func (p *condition) take(word string) bool {
	if len(p.words) == 0 || !strings.EqualFold(p.words[0], word) {
		return false
	}
	p.words = p.words[1:]
	return true
}

func (p *condition) or() (bool, error) {
	out, err := p.and()
	for err == nil && p.take("or") {
		var right bool
		right, err = p.and()
		out = out || right
	}
	return out, err
}

func (p *condition) and() (bool, error) {
	out, err := p.not()
	for err == nil && p.take("and") {
		var right bool
		right, err = p.not()
		out = out && right
	}
	return out, err
}

func (p *condition) not() (bool, error) {
	if p.take("not") {
		out, err := p.not()
		return !out, err
	}
	if p.take("(") {
		out, err := p.or()
		if err == nil && !p.take(")") {
			err = fmt.Errorf("condition lacks a closing bracket")
		}
		return out, err
	}
	if len(p.words) == 0 {
		return false, fmt.Errorf("condition ends too early")
	}
	name := p.words[0]
	p.words = p.words[1:]
	return p.is(name)
}

// selects is AND over a map, OR over a list of maps.
func selects(selection, doc any) (bool, error) {
	switch s := selection.(type) {
	case []any:
		for _, one := range s {
			if ok, err := selects(one, doc); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	case map[string]any:
		for key, want := range s {
			if ok, err := item(key, want, doc); !ok || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	return false, fmt.Errorf("a selection that is %T: not supported", selection)
}

func item(key string, want, doc any) (bool, error) {
	field, modifier, _ := strings.Cut(key, "|")
	has := lookup(doc, strings.Split(field, "."))
	list, ok := want.([]any)
	if !ok {
		list = []any{want}
	}
	for _, w := range list {
		if w == nil {
			return len(has) == 0 || has[0] == nil, nil
		}
		text := fmt.Sprint(w)
		if strings.ContainsAny(text, `*?\`) {
			return false, fmt.Errorf("wildcards in %q: not supported", text)
		}
		for _, h := range has {
			ok, err := value(h, modifier, text)
			if ok || err != nil {
				return ok, err
			}
		}
	}
	return false, nil
}

func value(has any, modifier, want string) (bool, error) {
	text, ok := scalar(has)
	if !ok {
		if has == nil {
			return false, nil
		}
		return false, fmt.Errorf("an object is compared with %q: not supported", want)
	}
	a, b := strings.ToLower(text), strings.ToLower(want)
	switch modifier {
	case "":
		if _, number := has.(json.Number); a == b || !number {
			return a == b, nil
		}
		x, errX := strconv.ParseFloat(a, 64)
		y, errY := strconv.ParseFloat(b, 64)
		return errX == nil && errY == nil && x == y, nil
	case "contains":
		return strings.Contains(a, b), nil
	case "startswith":
		return strings.HasPrefix(a, b), nil
	case "endswith":
		return strings.HasSuffix(a, b), nil
	}
	return false, fmt.Errorf("modifier %q: not supported", modifier)
}
