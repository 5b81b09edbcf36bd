package sigma

import (
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

type tokenKind uint8

const (
	tokLiteral     tokenKind = iota
	tokStar                  // any run
	tokOne                   // exactly one character
	tokDash                  // any of the dashes of windash
	tokPlaceholder           // %name%, until expand resolves it
)

// token is a piece of a Sigma string.
type token struct {
	kind tokenKind
	text string // of a literal or the placeholder's name
}

// parseString reads wildcards and escapes: only \*, \? and \\ are escapes (and
// \% where placeholders are read); any other backslash is itself. "\\" stands
// for one backslash wherever it stands, and so does a single one.
func parseString(s string, placeholders bool) []token {
	var out []token
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			out = append(out, token{tokLiteral, lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '?' || s[i+1] == '\\' || (placeholders && s[i+1] == '%')):
			i++
			lit.WriteByte(s[i])
		case c == '*':
			flush()
			if len(out) == 0 || out[len(out)-1].kind != tokStar {
				out = append(out, token{kind: tokStar})
			}
		case c == '?':
			flush()
			out = append(out, token{kind: tokOne})
		case c == '%' && placeholders:
			name, ok := placeholderName(s[i+1:])
			if !ok {
				lit.WriteByte(c)
				continue
			}
			flush()
			out = append(out, token{tokPlaceholder, name})
			i += len(name) + 1
		default:
			lit.WriteByte(c)
		}
	}
	flush()
	return out
}

// placeholderName is the name before the next percent sign.
func placeholderName(s string) (string, bool) {
	end := strings.IndexByte(s, '%')
	if end <= 0 {
		return "", false
	}
	for _, r := range s[:end] {
		if r != '_' && r != '-' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return "", false
		}
	}
	return s[:end], true
}

// plain is the text of a value without wildcards.
func plain(toks []token) (string, bool) {
	switch {
	case len(toks) == 0:
		return "", true
	case len(toks) == 1 && toks[0].kind == tokLiteral:
		return toks[0].text, true
	default:
		return "", false
	}
}

type patternKind uint8

const (
	patExact patternKind = iota
	patPrefix
	patSuffix
	patContains
	patAny  // "*"
	patGlob // anything else
)

// pattern is a compiled Sigma string. Its literals are case-folded unless the
// predicate is cased.
type pattern struct {
	kind patternKind
	lit  string
	toks []token // of a glob
	// inner: the pattern may match anywhere in a text, so strings inside an
	// object are tested too.
	inner bool
	// number is the canonical text of an exact numeric value, else empty.
	number string
}

func compilePattern(toks []token, cased bool) pattern {
	folded := make([]token, len(toks))
	for i, t := range toks {
		if !cased {
			t.text = foldString(t.text)
		}
		folded[i] = t
	}
	toks = folded
	star := func(i int) bool { return toks[i].kind == tokStar }
	lit := func(i int) bool { return toks[i].kind == tokLiteral }
	n := len(toks)
	switch {
	case n == 0:
		return pattern{kind: patExact}
	case n == 1 && lit(0):
		p := pattern{kind: patExact, lit: toks[0].text}
		if d, ok := parseDecimal([]byte(p.lit), nil); ok {
			p.number = string(d.appendCanonical(nil))
		}
		return p
	case n == 1 && star(0):
		return pattern{kind: patAny}
	case n == 2 && lit(0) && star(1):
		return pattern{kind: patPrefix, lit: toks[0].text}
	case n == 2 && star(0) && lit(1):
		return pattern{kind: patSuffix, lit: toks[1].text}
	case n == 3 && star(0) && lit(1) && star(2):
		return pattern{kind: patContains, lit: toks[1].text, inner: true}
	default:
		return pattern{kind: patGlob, toks: toks, inner: star(0) && star(n-1)}
	}
}

// match reports whether the whole text matches.
func (p *pattern) match(text []byte) bool {
	switch p.kind {
	case patExact:
		return string(text) == p.lit
	case patPrefix:
		return len(text) >= len(p.lit) && string(text[:len(p.lit)]) == p.lit
	case patSuffix:
		return len(text) >= len(p.lit) && string(text[len(text)-len(p.lit):]) == p.lit
	case patContains:
		return containsText(text, p.lit)
	case patAny:
		return true
	default:
		return globMatch(p.toks, text)
	}
}

// viewString is b as a string without a copy, for as long as b does not change.
//
//nolint:gosec // G103: no result outlives the match whose buffers it looks into
func viewString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// containsText reports whether lit is in text.
func containsText(text []byte, lit string) bool {
	return len(lit) <= len(text) && strings.Contains(viewString(text), lit)
}

// globMatch walks tokens and text, going back to the last star on a mismatch:
// at most len(toks) × len(text) steps.
func globMatch(toks []token, bytes []byte) bool {
	text := viewString(bytes)
	ti, pos := 0, 0
	starAt, starPos := -1, 0
	for {
		if ti == len(toks) {
			if pos == len(text) {
				return true
			}
		} else if toks[ti].kind == tokStar {
			if ti++; ti == len(toks) {
				return true
			}
			starAt, starPos = ti, pos
			continue
		} else if n := stepGlob(toks[ti], text[pos:]); n >= 0 {
			ti, pos = ti+1, pos+n
			continue
		}
		if starAt < 0 || starPos >= len(text) {
			return false
		}
		_, size := utf8.DecodeRuneInString(text[starPos:])
		starPos += size
		if t := toks[starAt]; t.kind == tokLiteral {
			skip := strings.Index(text[starPos:], t.text)
			if skip < 0 {
				return false
			}
			starPos += skip
		}
		ti, pos = starAt, starPos
	}
}

// stepGlob is how many bytes the token takes from the text's start, or −1.
func stepGlob(t token, text string) int {
	switch t.kind {
	case tokLiteral:
		if strings.HasPrefix(text, t.text) {
			return len(t.text)
		}
		return -1
	case tokOne:
		if len(text) == 0 {
			return -1
		}
		_, size := utf8.DecodeRuneInString(text)
		return size
	case tokDash:
		return dashLen(text)
	default:
		return -1
	}
}

// dashLen is the length of a dash of windash at the text's start, or −1.
func dashLen(text string) int {
	if len(text) == 0 {
		return -1
	}
	if text[0] == '-' || text[0] == '/' {
		return 1
	}
	if len(text) >= 3 && text[0] == 0xE2 && text[1] == 0x80 && (text[2] == 0x93 || text[2] == 0x94 || text[2] == 0x95) {
		return 3
	}
	return -1
}

// longestLiteral is the longest text that every match must contain.
func (p *pattern) longestLiteral() string {
	if p.kind != patGlob {
		return p.lit
	}
	best := ""
	for _, t := range p.toks {
		if t.kind == tokLiteral && len(t.text) > len(best) {
			best = t.text
		}
	}
	return best
}
