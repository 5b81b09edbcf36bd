package sigma

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const seedRule = `title: Seed
id: seed
logsource:
    product: aws
    service: cloudtrail
detection:
    selection:
        eventName|startswith: [Create, 'Delete*', 4625]
        userIdentity.userName|cased|contains|all: [A, b]
        sourceIPAddress|cidr: 10.0.0.0/8
    keywords:
        - 'mimi?atz'
        - '|re': 'a.*b'
    _other: {f|re|i: '^x+', n|gte: 5, g|exists: true, h: null, i|fieldref: j, k|windash|contains: ' -e', l|wide|base64offset|contains: x, m|hour: 3}
    condition: (1 of sel* or keywords) and not all of _other
`

const seedCorrelation = `---
title: Seed correlation
id: seed-correlation
correlation:
    type: value_count
    rules: [seed]
    group-by: [userIdentity.userName, ip]
    timespan: 15m
    aliases:
        ip: {seed: sourceIPAddress}
    condition: {field: [a, b], gte: 3}
stormbell: {lateness: 1h, suppress: 1d}
`

// FuzzParse holds that sources of any kind give rules or problems: each with a
// place inside the source, and the same for the same document.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		seedRule, seedRule + seedCorrelation, "a: &a [1]\nb: *a\n<<: {c: d}", "--- # x\n...\n\xef\xbb\xbf", "title: t\nstormbell: {type: absence}",
		strings.ReplaceAll(seedRule, "\n", "\r\n"), "{}", "- a", "\x00", strings.Replace(seedCorrelation, "value_count", "temporal", 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		docs, problems := Parse(src, "f.yml")
		lines := 2 + strings.Count(string(src), "\n") + strings.Count(string(src), "\r") +
			strings.Count(string(src), "\u0085") + strings.Count(string(src), "\u2028") + strings.Count(string(src), "\u2029")
		set, more := Compile(docs, Options{})
		for _, p := range append(problems, more...) {
			require.NotEmpty(t, p.Message)
			require.True(t, 1 <= p.Line && p.Line <= lines, "%s of %d lines", p, lines)
			require.Equal(t, "f.yml", p.File)
		}
		rejected := Rejected(more)
		require.Len(t, docs, len(set.Rules())+len(set.Correlations())+len(set.Filters())+rejected)
		for _, d := range docs {
			again, _ := ParseAt(d.Raw, "g.yml", d.Line)
			require.Len(t, again, 1, "%s", d.Raw)
			require.Equal(t, d.ID, again[0].ID)
			if r := set.Rule(d.ID); r != nil && d.Kind == KindDetection {
				alone, _ := Compile(again, Options{})
				require.Equal(t, r.Revision, alone.Rule(d.ID).Revision)
			}
		}
	})
}

// bracketed writes a condition with a bracket around every operation.
func (c *condNode) bracketed() string {
	switch c.op {
	case exprPred:
		if c.pattern {
			return c.of + " of " + c.name
		}
		return c.name
	case exprNot:
		return "(not " + c.kids[0].bracketed() + ")"
	}
	var parts []string
	for _, k := range c.kids {
		parts = append(parts, k.bracketed())
	}
	return "(" + strings.Join(parts, map[exprOp]string{exprAnd: " and ", exprOr: " or "}[c.op]) + ")"
}

// FuzzCondition holds that a condition means the same with all its brackets
// written out, and in either case of the reserved words.
func FuzzCondition(f *testing.F) {
	for _, seed := range []string{
		"a", "a and b or not c", "1 of sel_* and not (all of them)", "NOT (a OR b) AND 2 of x*", "((a))", "not not a", "any of *", "a | count() > 5",
		"1 of", "of of of", "a and", "(", ")", "all of all", "1 of 1", strings.Repeat("(", 150), strings.Repeat("not ", 150) + "a", "ä", "a-b_1 or _x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseCondition(s)
		if err != nil {
			require.Nil(t, n)
			return
		}
		full := n.bracketed()
		if len(full) > maxCondition {
			return
		}
		again, err := parseCondition(full)
		if err != nil {
			require.Contains(t, err.Error(), "nests deeper", "%s", full)
			return
		}
		require.Equal(t, n, again, "%s", full)
	})
}

// FuzzPattern compares matching with a regular expression of the same pattern.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"", ""},
		{"abc", "ABC"},
		{"a*c", "abbc"},
		{"*ab*abc", "abababc"},
		{"a?c", "aéc"},
		{`a\*c`, "a*c"},
		{`a\\*`, `a\b`},
		{`\`, `\`},
		{"*", "x"},
		{"**?*x", "yx"},
		{"*a*", "ÄÖa"},
		{"ſk", "SK"},
		{"?*?", "\xff\xfe"},
		{`*\?*`, "a?b"},
		{"a*b*c*d", "abcabcd"},
	} {
		f.Add(seed[0], seed[1], false)
		f.Add(seed[0], seed[1], true)
	}
	f.Fuzz(func(t *testing.T, src, text string, cased bool) {
		if !utf8.ValidString(src) || !utf8.ValidString(text) || len(src) > 200 {
			return
		}
		toks := parseString(src, false)
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for _, tok := range toks {
			lit := tok.text
			if !cased {
				lit = foldString(lit)
			}
			re.WriteString(map[tokenKind]string{tokLiteral: regexp.QuoteMeta(lit), tokStar: ".*", tokOne: "."}[tok.kind])
		}
		re.WriteString(`\z`)
		folded := text
		if !cased {
			folded = foldString(text)
			require.Equal(t, folded, foldString(folded), "folding twice")
			require.True(t, strings.EqualFold(text, folded))
		}
		p := compilePattern(toks, cased)
		require.Equal(t, regexp.MustCompile(re.String()).MatchString(folded), p.match([]byte(folded)), "%q on %q", src, text)
		if !p.match([]byte(folded)) {
			return
		}
		switch l := patternLiteral(&p); {
		case l.none:
		case l.kind == patExact:
			require.Equal(t, l.text, foldString(folded))
		case l.kind == patPrefix:
			require.True(t, strings.HasPrefix(foldString(folded), l.text))
		case l.kind == patSuffix:
			require.True(t, strings.HasSuffix(foldString(folded), l.text))
		default:
			require.Contains(t, foldString(folded), l.text)
		}
	})
}

// matchSeeds are selections, each on one line, and events.
func matchSeeds() (selections, events []string) {
	selections = []string{
		`{f: x}`, `{a.b|contains: x, g: [1, 2, '3*', true]}`, `{f|re: 'ab+c'}`, `{f|re|i: '(foo|bar)baz'}`, `{f|all: [a*, '*b']}`, `{f|neq: 5}`,
		`{f|cidr: [10.0.0.0/8, 'fe80::/10']}`, `{n|gt: 5, m|lte: 1e3}`, `{f: null, g|exists: true}`, `{f|fieldref: g}`, `{f|windash|contains: ' -a'}`,
		`{f|base64offset|contains: foo}`, `[one, 'two*', 3]`, `{'|all': [a, b]}`, `{'|re': '^x'}`, `{f|cased: aB, f|contains: ab}`, `{f: ''}`,
		`[{f: 1, g: 2}, {f|endswith: x}]`, `{f|hour|gte: 3}`, `{f: '{"a":1}'}`, `{a.b.c: 1.0, a.b: 2}`, `{f|contains: "\"s3:Get"}`, `{é|contains: ÉK}`,
	}
	events = append([]string{
		`{"f":"x","g":3}`, `{"a":{"b":["yxy",1]},"g":true}`, `{"f":"xABBcx"}`, `{"f":["a1","1b"],"n":"6","m":999.5}`, `{"f":"10.1.2.3","g":null}`,
		`{"f":"ps /a -b"}`, `{"f":{"a":1,"doc":"{\"s3:Get\":1}"}}`, `{"x":"one","y":["two",{"z":"xb"}]}`, `{"f":"Zm9v","é":"\u00e9\u212a"}`,
		`{"f":"2024-05-06T03:07:59Z"}`, `{"f":1714964400000}`, `{"a.b":{"c":1},"a":{"b":2}}`, `{"f":1.0e0,"f":2}`,
	}, viewSeeds...)
	return selections, events
}

// FuzzMatch holds that the index leaves out no rule that matches, that the
// layout of the JSON decides nothing, and that a second event forgets the first.
func FuzzMatch(f *testing.F) {
	selections, events := matchSeeds()
	for i, s := range selections {
		for j := range 3 {
			f.Add(s, "sel", []byte(events[(i+j)%len(events)]))
		}
		f.Add(s, "not sel", []byte(events[i%len(events)]))
	}
	f.Fuzz(func(t *testing.T, sel, condition string, event []byte) {
		rule := "title: t\nid: r\nlogsource: {product: p}\ndetection:\n  sel: " + strings.ReplaceAll(sel, "\n", " ") +
			"\n  condition: " + strings.ReplaceAll(condition, "\n", " ") + "\n"
		docs, _ := Parse([]byte(rule), "r.yml")
		// Others make an index worth its name.
		others, _ := Parse([]byte(seedRule), "s.yml")
		set, _ := Compile(append(docs, others...), Options{})
		m := set.Matcher()
		if _, ok := decodeReference(event); !ok || !utf8.Valid(event) {
			m.Match(Event{Raw: event}, nil)
			return
		}
		first := m.Match(Event{Raw: event}, nil)
		require.NoError(t, m.Err(), "%s", event)
		all := m.directly()
		require.Equal(t, ids(all), ids(first), "index of %s on %s", rule, event)
		m.Match(Event{Raw: []byte(`{"f":"other","a":[{"b":"x"}],"z":"one two"}`)}, nil)
		told, err := NewReader("product", "service", "category").Read(event, nil)
		require.NoError(t, err)
		src := LogSource{string(told[0]), string(told[1]), string(told[2])}
		require.Equal(t, ids(m.Match(Event{Raw: event, LogSource: src}, nil)), ids(m.Match(Event{Raw: event, Own: true}, nil)), "log source of %s", event)
		var indented []byte
		if v := json.RawMessage(event); json.Valid(v) {
			indented = indentJSON(event)
		}
		require.Equal(t, ids(first), ids(m.Match(Event{Raw: indented}, nil)), "layout of %s under %s", indented, rule)
	})
}

// directly evaluates every rule on the last event, without any index.
func (m *Matcher) directly() []*Rule {
	m.epoch++
	m.scanned = nil
	var all []*Rule
	for _, r := range m.set.rules {
		if m.eval(r.expr) {
			all = append(all, r)
		}
	}
	return all
}

func ids(rules []*Rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.ID)
	}
	return out
}

// indentJSON adds blanks around every token outside strings.
func indentJSON(data []byte) []byte {
	var out []byte
	inString := false
	for i, c := range data {
		switch {
		case inString:
			out = append(out, c)
			if c == '"' && !escapedAt(data, i) {
				inString = false
			}
		case c == '"':
			inString = true
			out = append(out, c)
		case strings.IndexByte("{}[]:,", c) >= 0:
			out = append(out, ' ', c, '\n', '\t')
		default:
			out = append(out, c)
		}
	}
	return out
}

// escapedAt reports whether an odd number of backslashes stands before i.
func escapedAt(data []byte, i int) bool {
	n := 0
	for i--; i >= 0 && data[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// FuzzDecimal compares exact decimals with big ones.
func FuzzDecimal(f *testing.F) {
	for _, seed := range []string{"0", "-0", "1.0", "10e-1", "0.001", "-12.50E+3", "00012", "1e40", "9007199254740993", "1e-400", ".5", "5.", "+7", "e5", "1e999999999999999999"} {
		f.Add(seed, "1")
		f.Add(seed, "-0.5")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		da, oka := parseDecimal([]byte(a), nil)
		db, okb := parseDecimal([]byte(b), nil)
		if !oka || !okb {
			return
		}
		canon := func(d decimal) string { return string(d.appendCanonical(nil)) }
		require.Equal(t, da.compare(db) == 0, canon(da) == canon(db), "%s and %s", a, b)
		require.Equal(t, da.compare(db), -db.compare(da))
		again, ok := parseDecimal([]byte(canon(da)), nil)
		require.True(t, ok, canon(da))
		require.Zero(t, da.compare(again), "%s written as %s", a, canon(da))
		if plainInteger([]byte(a)) && !strings.HasPrefix(strings.TrimPrefix(a, "-"), "0") {
			require.Equal(t, a, canon(da))
		}
		fa, erra := strconv.ParseFloat(a, 64)
		fb, errb := strconv.ParseFloat(b, 64)
		if erra == nil && errb == nil && fa != fb {
			require.Equal(t, fa < fb, da.compare(db) < 0, "%s < %s", a, b)
		}
	})
}

func TestIndexAgreesOnSeeds(t *testing.T) {
	selections, events := matchSeeds()
	var docs []Document
	for i, s := range selections {
		for j, condition := range []string{"sel", "not sel"} {
			src := "title: t\nid: r" + strconv.Itoa(i) + "-" + strconv.Itoa(j) + "\nlogsource: {product: p}\ndetection:\n  sel: " + s + "\n  condition: " + condition + "\n"
			d, problems := Parse([]byte(src), "r.yml")
			require.False(t, slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error }), "%v", problems)
			docs = append(docs, d...)
		}
	}
	set, _ := Compile(docs, Options{})
	require.Len(t, set.Rules(), 2*len(selections))
	m := set.Matcher()
	for _, e := range events {
		if _, ok := decodeReference([]byte(e)); !ok {
			continue
		}
		got := m.Match(Event{Raw: []byte(e)}, nil)
		require.Len(t, got, len(selections), "each rule or its opposite: %s", e)
		require.Equal(t, ids(m.directly()), ids(got), e)
	}
}

// FuzzPipelines holds that pipelines of any kind give steps or problems, and
// that a rule comes through with the same revision each time.
func FuzzPipelines(f *testing.F) {
	for _, seed := range []string{
		"name: x\npriority: 1\nvars: {admins: [a, b*]}\ntransformations:\n- {type: field_name_mapping, mapping: {eventName: name, f: [a, b]}}\n- {type: value_placeholders, include: [admins]}",
		"transformations:\n- id: a\n  type: add_condition\n  conditions: {x|contains: y}\n- type: drop_detection_item\n  rule_conditions: [{type: processing_item_applied, processing_item_id: a}]",
		"transformations:\n- {type: replace_string, regex: '(a)b', replacement: '\\1c'}\n- {type: field_name_prefix, prefix: p., field_name_conditions: [{type: include_fields, fields: ['^e.*'], mode: re}]}",
		"transformations: [{type: change_logsource, product: x}, {type: field_name_suffix, suffix: .s}, {type: field_name_prefix_mapping, mapping: {user: u}}]",
	} {
		f.Add([]byte(seed))
	}
	docs, _ := Parse([]byte(seedRule+seedCorrelation), "r.yml")
	f.Fuzz(func(t *testing.T, src []byte) {
		pipelines, problems := ParsePipelines(src, "p.yml")
		for _, p := range problems {
			require.NotEmpty(t, p.Message)
			require.Positive(t, p.Line)
		}
		opts := Options{Pipelines: pipelines}
		set, _ := Compile(docs, opts)
		again, _ := Compile(docs, opts)
		require.Len(t, again.Rules(), len(set.Rules()))
		for i, r := range set.Rules() {
			require.Equal(t, r.Revision, again.Rules()[i].Revision)
		}
	})
}
