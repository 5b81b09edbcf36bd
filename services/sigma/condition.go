package sigma

import (
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a condition.
const (
	maxCondition      = 8 << 10 // bytes
	maxConditionDepth = 100
)

// condNode is a parsed condition, its names not yet resolved.
type condNode struct {
	op      exprOp // exprAnd, exprOr, exprNot; exprPred for a name
	kids    []*condNode
	name    string
	of      string // "1", "all" or a number, where name is a pattern or "them"
	pattern bool
}

// parseCondition reads a condition. From least to most binding: or, and, not,
// "1 of …", brackets. Reserved words are known in any case.
func parseCondition(s string) (*condNode, error) {
	if len(s) > maxCondition {
		return nil, fmt.Errorf("is longer than %d bytes", maxCondition)
	}
	toks, err := conditionTokens(s)
	if err != nil {
		return nil, err
	}
	p := &condParser{toks: toks}
	n, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t != "" {
		return nil, fmt.Errorf("%q is not expected here: and, or or the end is", t)
	}
	return n, nil
}

func conditionTokens(s string) ([]string, error) {
	var toks []string
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '(' || c == ')':
			toks = append(toks, s[i:i+1])
			i++
		case c == '|':
			return nil, fmt.Errorf("aggregation with a pipe is not supported: write a correlation rule")
		case identifierByte(c) || c == '*':
			start := i
			for i < len(s) && (identifierByte(s[i]) || s[i] == '*') {
				i++
			}
			toks = append(toks, s[start:i])
		default:
			return nil, fmt.Errorf("unexpected character %q", []rune(s[i:])[0])
		}
	}
	return toks, nil
}

func identifierByte(c byte) bool {
	return c == '_' || c == '-' || isDigit(c) || ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z')
}

func validIdentifier(s string) bool {
	for i := range len(s) {
		if !identifierByte(s[i]) {
			return false
		}
	}
	return s != ""
}

type condParser struct {
	toks []string
	at   int
}

func (p *condParser) peek() string {
	if p.at < len(p.toks) {
		return p.toks[p.at]
	}
	return ""
}

// word takes the next token if it is this reserved word.
func (p *condParser) word(w string) bool {
	if strings.EqualFold(p.peek(), w) {
		p.at++
		return true
	}
	return false
}

func (p *condParser) or(depth int) (*condNode, error) { return p.chain(exprOr, "or", depth, p.and) }

func (p *condParser) and(depth int) (*condNode, error) { return p.chain(exprAnd, "and", depth, p.not) }

func (p *condParser) chain(op exprOp, word string, depth int, next func(int) (*condNode, error)) (*condNode, error) {
	if depth > maxConditionDepth {
		return nil, fmt.Errorf("nests deeper than %d levels", maxConditionDepth)
	}
	first, err := next(depth)
	if err != nil {
		return nil, err
	}
	kids := []*condNode{first}
	for p.word(word) {
		k, err := next(depth)
		if err != nil {
			return nil, err
		}
		kids = append(kids, k)
	}
	if len(kids) == 1 {
		return first, nil
	}
	return &condNode{op: op, kids: kids}, nil
}

func (p *condParser) not(depth int) (*condNode, error) {
	if depth > maxConditionDepth {
		return nil, fmt.Errorf("nests deeper than %d levels", maxConditionDepth)
	}
	if p.word("not") {
		k, err := p.not(depth + 1)
		if err != nil {
			return nil, err
		}
		return &condNode{op: exprNot, kids: []*condNode{k}}, nil
	}
	return p.operand(depth)
}

func (p *condParser) operand(depth int) (*condNode, error) {
	t := p.peek()
	switch {
	case t == "":
		return nil, fmt.Errorf("ends where a search identifier is expected")
	case t == "(":
		p.at++
		n, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.peek() != ")" {
			return nil, fmt.Errorf("a closing bracket is missing")
		}
		p.at++
		return n, nil
	case p.at+1 < len(p.toks) && strings.EqualFold(p.toks[p.at+1], "of"):
		return p.quantified()
	case t == ")" || reserved(t):
		return nil, fmt.Errorf("%q is not expected here: a search identifier is", t)
	case strings.Contains(t, "*"):
		return nil, fmt.Errorf("the pattern %q needs \"1 of\" or \"all of\" before it", t)
	default:
		p.at++
		return &condNode{op: exprPred, name: t}, nil
	}
}

func (p *condParser) quantified() (*condNode, error) {
	of := strings.ToLower(p.toks[p.at])
	if of == "any" {
		of = "1"
	}
	if n, err := strconv.Atoi(of); of != "all" && (err != nil || n < 1 || n > maxIdentifiers) {
		return nil, fmt.Errorf("%q before \"of\": 1, any, all or a number is expected", p.toks[p.at])
	}
	p.at += 2
	t := p.peek()
	if t == "" || t == "(" || t == ")" || (reserved(t) && !strings.EqualFold(t, "them")) {
		return nil, fmt.Errorf("\"of\" needs them or a pattern after it")
	}
	p.at++
	return &condNode{op: exprPred, name: t, of: of, pattern: true}, nil
}

func reserved(t string) bool {
	switch strings.ToLower(t) {
	case "and", "or", "not", "of", "them":
		return true
	default:
		return false
	}
}

// resolve puts the identifiers' expressions in place of their names.
func (c *condNode) resolve(names []string, parts map[string]*expr, used map[string]bool) (*expr, error) {
	if c.op != exprPred {
		kids := make([]*expr, len(c.kids))
		for i, k := range c.kids {
			e, err := k.resolve(names, parts, used)
			if err != nil {
				return nil, err
			}
			kids[i] = e
		}
		if c.op == exprNot {
			return notExpr(kids[0]), nil
		}
		return joinExpr(c.op, kids...), nil
	}
	if !c.pattern {
		e, ok := parts[c.name]
		if !ok {
			return nil, fmt.Errorf("there is no search identifier %q", c.name)
		}
		used[c.name] = true
		return e, nil
	}
	var kids []*expr
	dropped := false // by a pipeline
	for _, name := range names {
		if c.covers(name) {
			if used[name] = true; parts[name] == nil {
				dropped = true
				continue
			}
			kids = append(kids, parts[name])
		}
	}
	if len(kids) == 0 && dropped {
		return nil, nil
	}
	if len(kids) == 0 {
		return nil, fmt.Errorf("no search identifier matches %q", c.name)
	}
	switch n, _ := strconv.Atoi(c.of); {
	case c.of == "all" || n == len(kids):
		return joinExpr(exprAnd, kids...), nil
	case n == 1:
		return joinExpr(exprOr, kids...), nil
	case n > len(kids):
		return nil, fmt.Errorf("%s of %s: only %d match", c.of, c.name, len(kids))
	default:
		return &expr{op: exprAtLeast, n: n, kids: kids}, nil
	}
}

// covers: names that begin with "_" are hidden from "them" and from patterns
// that do not begin with it.
func (c *condNode) covers(name string) bool {
	if strings.EqualFold(c.name, "them") {
		return !strings.HasPrefix(name, "_")
	}
	if strings.HasPrefix(name, "_") && !strings.HasPrefix(c.name, "_") {
		return false
	}
	return starMatch(c.name, name)
}

// starMatch matches a whole name against a pattern with "*" for any run.
func starMatch(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return true
}
