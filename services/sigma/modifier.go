package sigma

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxAlternatives bounds what expand and base64offset unfold one value to.
const maxAlternatives = 1000

// modifiers are a field's modifier chain, checked for what may stand together.
type modifiers struct {
	names []string // transformations in the order given, spelt canonically
	all   bool
	cased bool
	neq   bool
	// kind is what the chain makes of the values: "" (text), re, cidr, exists,
	// compare, fieldref.
	kind   string
	op     Op
	part   datePart
	flags  string // of re
	anchor string // of re and fieldref: startswith, endswith or contains
	expand bool
}

// transforms reports whether a modifier changes text.
func transforms(name string) bool {
	switch name {
	case "contains", "startswith", "endswith", "windash", "base64", "base64offset", "utf16le", "utf16be", "utf16", "expand":
		return true
	default:
		return false
	}
}

// spelling is a modifier's short name, where it has a long one too.
func spelling(name string) string {
	switch name {
	case "wide":
		return "utf16le"
	case "ignorecase":
		return "i"
	case "multiline":
		return "m"
	case "dotall":
		return "s"
	default:
		return name
	}
}

// comparison is the operator that a modifier stands for, if any.
func comparison(name string) (Op, bool) {
	switch op := Op(name); op {
	case LT, LTE, GT, GTE:
		return op, true
	default:
		return "", false
	}
}

// parseModifiers reads the chain after a field's name.
func parseModifiers(names []string) (modifiers, error) {
	var m modifiers
	seen := map[string]bool{}
	for i, name := range names {
		name = spelling(name)
		if seen[name] {
			return m, fmt.Errorf("modifier %q stands twice", name)
		}
		seen[name] = true
		if err := m.add(name, i); err != nil {
			return m, err
		}
	}
	return m, m.check()
}

func (m *modifiers) add(name string, at int) error {
	part := datePartNamed(name)
	op, isCompare := comparison(name)
	switch {
	case name == "all":
		m.all = true
	case name == "cased":
		m.cased = true
	case name == "neq":
		m.neq = true
	case name == "re":
		if at != 0 {
			return fmt.Errorf("re must be the first modifier")
		}
		m.kind = "re"
	case name == "i" || name == "m" || name == "s":
		if m.kind != "re" {
			return fmt.Errorf("modifier %q only follows re", name)
		}
		m.flags += name
	case name == "cidr" || name == "exists" || name == "fieldref":
		return m.setKind(name)
	case part != partNone:
		m.part = part
		return m.setKind("compare")
	case isCompare:
		if m.kind == "compare" && m.op == "" {
			m.op = op // hour|gte
			return nil
		}
		m.op = op
		return m.setKind("compare")
	case transforms(name):
		m.names = append(m.names, name)
		m.expand = m.expand || name == "expand"
	default:
		return fmt.Errorf("unknown modifier %q", name)
	}
	return nil
}

func (m *modifiers) setKind(kind string) error {
	if m.kind != "" {
		return fmt.Errorf("modifiers %s and %s can't stand together", m.kind, kind)
	}
	m.kind = kind
	return nil
}

// check refuses chains that mean nothing.
func (m *modifiers) check() error {
	switch m.kind {
	case "re", "fieldref":
		for _, n := range m.names {
			if n != "contains" && n != "startswith" && n != "endswith" {
				return fmt.Errorf("modifier %q can't stand with %s", n, m.kind)
			}
			if m.anchor != "" {
				return fmt.Errorf("modifiers %s and %s can't stand together", m.anchor, n)
			}
			m.anchor = n
		}
		if m.kind == "re" && m.cased && strings.Contains(m.flags, "i") {
			return fmt.Errorf("modifiers i and cased contradict each other")
		}
		return nil
	case "":
		return m.checkText()
	case "exists":
		if len(m.names) > 0 || m.all || m.cased || m.neq {
			return fmt.Errorf("exists must stand alone")
		}
	default:
		if len(m.names) > 0 {
			return fmt.Errorf("modifier %q needs text, %s does not give it", m.names[0], m.kind)
		}
		if m.cased {
			return fmt.Errorf("cased needs text, %s does not give it", m.kind)
		}
	}
	return nil
}

func (m *modifiers) checkText() error {
	recoded, encoded := "", false
	for _, n := range m.names {
		switch n {
		case "utf16le", "utf16be", "utf16":
			if recoded != "" || encoded {
				return fmt.Errorf("modifier %q must stand once, before base64 or base64offset", n)
			}
			recoded = n
		case "base64", "base64offset":
			if encoded {
				return fmt.Errorf("base64 and base64offset can't stand together")
			}
			encoded = true
		}
	}
	if recoded != "" && !encoded {
		return fmt.Errorf("modifier %q gives bytes, which only base64 or base64offset after it make text again", recoded)
	}
	return nil
}

// textOnly is the first modifier of the chain that only text can have, or "".
// What contains, startswith and endswith mean for a number is plain.
func (m *modifiers) textOnly() string {
	for _, n := range m.names {
		if n != "contains" && n != "startswith" && n != "endswith" {
			return n
		}
	}
	return ""
}

// item builds the expression of one field (or keywords, with an empty name) and
// its values. Errors name what is wrong with a value.
func (b *builder) item(field string, m modifiers, values []*node) (*expr, *fault) {
	var kids []*expr
	var one func(v []*node) (*expr, *fault)
	switch m.kind {
	case "":
		one = func(v []*node) (*expr, *fault) { return b.text(field, m, v) }
	case "re":
		one = func(v []*node) (*expr, *fault) { return b.regex(field, m, v) }
	case "cidr":
		one = func(v []*node) (*expr, *fault) { return b.cidr(field, v) }
	case "compare":
		one = func(v []*node) (*expr, *fault) { return b.compare(field, m, v) }
	case "fieldref":
		one = func(v []*node) (*expr, *fault) { return b.fieldref(field, m, v) }
	case "exists":
		return b.exists(field, values)
	}
	groups := [][]*node{values}
	if m.all {
		groups = groups[:0]
		for _, v := range values {
			groups = append(groups, []*node{v})
		}
	}
	for _, g := range groups {
		e, f := one(g)
		if f != nil {
			return nil, f
		}
		kids = append(kids, e)
	}
	e := joinExpr(exprAnd, kids...)
	if m.neq {
		e = notExpr(e)
	}
	return e, nil
}

// scalarText is a value as text tokens. Only strings have wildcards.
func (b *builder) scalarText(v *node, m modifiers) ([]token, *fault) {
	switch {
	case v.kind != yaml.ScalarNode:
		return nil, faultf(v, "", "a value must be text, a number, true, false or null, not %s", v.what())
	case v.isNull():
		return nil, faultf(v, "", "null must stand alone: it can't be in a list or have modifiers; use a selection of its own")
	case v.tag == "!!str" || v.tag == "!!timestamp":
		return parseString(v.value, m.expand), nil
	case (v.tag == "!!int" || v.tag == "!!float" || v.tag == "!!bool") && m.textOnly() != "":
		return nil, faultf(v, "", "%s needs text, not %s: put the value in quotes", m.textOnly(), v.what())
	case v.tag == "!!int" || v.tag == "!!float":
		return []token{{tokLiteral, numberText(v)}}, nil
	case v.tag == "!!bool":
		return []token{{tokLiteral, strings.ToLower(v.value)}}, nil
	default:
		return nil, faultf(v, "", "a value of type %s is not supported: quote it", v.tag)
	}
}

func (b *builder) text(field string, m modifiers, values []*node) (*expr, *fault) {
	if len(values) == 1 && values[0].isNull() && len(m.names) == 0 && !m.cased && field != "" {
		return predExpr(newNullPredicate(field)), nil
	}
	var alternatives [][]token
	for _, v := range values {
		toks, f := b.scalarText(v, m)
		if f != nil {
			return nil, f
		}
		alts := [][]token{toks}
		for _, name := range m.names {
			var err error
			if alts, err = b.transform(name, alts); err != nil {
				return nil, faultf(v, "", "%v", err)
			}
		}
		if m.expand {
			for _, a := range alts {
				if slices.ContainsFunc(a, func(t token) bool { return t.kind == tokPlaceholder }) && !b.lenient {
					return nil, faultf(v, "", "a placeholder is left unresolved")
				}
			}
		}
		for _, a := range alts {
			if field == "" {
				a = keywordTokens(a, m)
			}
			alternatives = append(alternatives, a)
		}
	}
	return predExpr(newTextPredicate(field, alternatives, m.cased)), nil
}

// keywordTokens: keywords are searched for inside the values.
func keywordTokens(toks []token, m modifiers) []token {
	if slices.Contains(m.names, "startswith") || slices.Contains(m.names, "endswith") {
		return toks
	}
	return wildcard(toks, true, true)
}

// wildcard adds a star before and after where none stands.
func wildcard(toks []token, before, after bool) []token {
	out := slices.Clone(toks)
	if before && (len(out) == 0 || out[0].kind != tokStar) {
		out = slices.Insert(out, 0, token{kind: tokStar})
	}
	if after && out[len(out)-1].kind != tokStar || len(out) == 0 {
		out = append(out, token{kind: tokStar})
	}
	return out
}

// transform applies one modifier to each alternative of a value.
func (b *builder) transform(name string, alts [][]token) ([][]token, error) {
	var out [][]token
	for _, toks := range alts {
		switch name {
		case "contains":
			out = append(out, wildcard(toks, true, true))
		case "startswith":
			out = append(out, appendStar(toks))
		case "endswith":
			out = append(out, wildcard(toks, true, false))
		case "windash":
			out = append(out, windash(toks))
		case "expand":
			expanded, err := b.expandPlaceholders(toks)
			if err != nil {
				return nil, err
			}
			out = append(out, expanded...)
		default:
			s, ok := plain(toks)
			if !ok {
				if b.lenient && slices.ContainsFunc(toks, func(t token) bool { return t.kind == tokPlaceholder }) {
					return alts, nil
				}
				return nil, fmt.Errorf("%s can't encode wildcards: escape them with a backslash", name)
			}
			for _, enc := range encodeText(name, s) {
				out = append(out, []token{{tokLiteral, enc}})
			}
		}
		if len(out) > maxAlternatives {
			return nil, fmt.Errorf("%s unfolds to more than %d values", name, maxAlternatives)
		}
	}
	return out, nil
}

func appendStar(toks []token) []token {
	if len(toks) > 0 && toks[len(toks)-1].kind == tokStar {
		return toks
	}
	return append(slices.Clone(toks), token{kind: tokStar})
}

// expandPlaceholders replaces each %name% by the configured values.
func (b *builder) expandPlaceholders(toks []token) ([][]token, error) {
	out := [][]token{nil}
	found := false
	for _, t := range toks {
		if t.kind != tokPlaceholder {
			for i := range out {
				out[i] = append(slices.Clone(out[i]), t)
			}
			continue
		}
		found = true
		b.used = append(b.used, t.text)
		values, ok := b.placeholders[t.text]
		if b.lenient {
			values, ok = []string{"x"}, true
		}
		if !ok || len(values) == 0 {
			return nil, fmt.Errorf("placeholder %%%s%% has no configured values", t.text)
		}
		var next [][]token
		for _, head := range out {
			for _, v := range values {
				next = append(next, append(slices.Clone(head), parseString(v, false)...))
			}
		}
		if out = next; len(out) > maxAlternatives {
			return nil, fmt.Errorf("placeholders unfold to more than %d values", maxAlternatives)
		}
	}
	if !found {
		return nil, fmt.Errorf("expand needs a %%placeholder%%, there is none")
	}
	for i := range out {
		out[i] = mergeTokens(out[i])
	}
	return out, nil
}

// mergeTokens joins neighbouring literals and stars.
func mergeTokens(toks []token) []token {
	var out []token
	for _, t := range toks {
		if n := len(out); n > 0 && out[n-1].kind == t.kind {
			if t.kind == tokLiteral {
				out[n-1].text += t.text
				continue
			}
			if t.kind == tokStar {
				continue
			}
		}
		out = append(out, t)
	}
	return out
}

// maxRegex bounds an expression's source, in bytes.
const maxRegex = 8 << 10

func (b *builder) regex(field string, m modifiers, values []*node) (*expr, *fault) {
	var regexes []*regexp.Regexp
	var sources []string
	for _, v := range values {
		if v.kind != yaml.ScalarNode || (v.tag != "!!str" && v.tag != "!!timestamp") {
			return nil, faultf(v, "", "a regular expression must be text, not %s: put it in quotes", v.what())
		}
		src := v.value
		if len(src) > maxRegex {
			return nil, faultf(v, "", "a regular expression of %d bytes: at most %d", len(src), maxRegex)
		}
		if m.flags != "" {
			src = "(?" + m.flags + ":" + src + ")"
		}
		switch m.anchor {
		case "startswith":
			src = `\A(?:` + src + ")"
		case "endswith":
			src = "(?:" + src + `)\z`
		}
		re, err := regexp.Compile(src)
		if err != nil {
			return nil, faultf(v, "", "not a regular expression that can be run (RE2, so no lookaround or backreferences): %v", err)
		}
		regexes, sources = append(regexes, re), append(sources, src)
	}
	return predExpr(newRegexPredicate(field, sources, regexes)), nil
}

func (b *builder) fieldref(field string, m modifiers, values []*node) (*expr, *fault) {
	if field == "" {
		return nil, faultf(values[0], "", "fieldref needs a field")
	}
	var kids []*expr
	for _, v := range values {
		if v.kind != yaml.ScalarNode || v.tag != "!!str" || v.value == "" {
			return nil, faultf(v, "", "fieldref takes the name of a field, not %s", v.what())
		}
		kind := map[string]patternKind{"": patExact, "contains": patContains, "startswith": patPrefix, "endswith": patSuffix}[m.anchor]
		kids = append(kids, predExpr(newRefPredicate(field, v.value, kind, m.cased)))
	}
	return joinExpr(exprOr, kids...), nil
}

func (b *builder) exists(field string, values []*node) (*expr, *fault) {
	if field == "" {
		return nil, faultf(values[0], "", "exists needs a field")
	}
	if len(values) != 1 || values[0].tag != "!!bool" {
		return nil, faultf(values[0], "", "exists takes true or false")
	}
	return predExpr(newExistsPredicate(field, strings.EqualFold(values[0].value, "true"))), nil
}
