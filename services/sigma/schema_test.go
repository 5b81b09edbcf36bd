package sigma_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/stormbell/stormbell/services/sigma"
)

// schemas are those of the specification, by what a document holds.
// The format of ids is asserted only if strict: ids of our own tables are words.
func schemas(t *testing.T, strict bool) map[string]*jsonschema.Schema {
	t.Helper()
	dir := corpora(t, "sigma-spec", "json-schema")
	c := jsonschema.NewCompiler()
	if strict {
		c.AssertFormat()
	}
	out := map[string]*jsonschema.Schema{}
	for of, file := range map[string]string{
		"detection": "sigma-detection-rule-schema.json", "correlation": "sigma-correlation-rules-schema.json", "filter": "sigma-filters-schema.json",
	} {
		s, err := c.Compile(filepath.Join(dir, file))
		require.NoError(t, err)
		out[of] = s
	}
	return out
}

// kindOf is which schema a document is for.
func kindOf(doc map[string]any) string {
	for _, k := range []string{"filter", "correlation"} {
		if _, ok := doc[k]; ok {
			return k
		}
	}
	return "detection"
}

// jsonValue is a YAML node as the schemas read it: dates are text.
func jsonValue(t *testing.T, n *yaml.Node) any {
	t.Helper()
	switch n.Kind {
	case yaml.DocumentNode:
		return jsonValue(t, n.Content[0])
	case yaml.AliasNode:
		return jsonValue(t, n.Alias)
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			out[n.Content[i].Value] = jsonValue(t, n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			out = append(out, jsonValue(t, c))
		}
		return out
	default:
		if n.ShortTag() == "!!timestamp" {
			return n.Value
		}
		var v any
		require.NoError(t, n.Decode(&v))
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		v, err = jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		require.NoError(t, err)
		return v
	}
}

// verdict is what the schema and we say of one document, and of which of its
// attributes.
type verdict struct {
	kind         string
	schema, ours bool
	at           []string // the attributes that are refused
}

// judge validates and parses the documents of a source.
func judge(t *testing.T, schemas map[string]*jsonschema.Schema, src string, opts sigma.Options) []verdict {
	t.Helper()
	docs, problems := sigma.Parse([]byte(src), "x.yml")
	_, more := sigma.Compile(docs, opts)
	var out []verdict
	line := 1
	for part := range strings.SplitSeq(src, "\n---\n") {
		next := line + strings.Count(part, "\n") + 2
		var root yaml.Node
		dec := yaml.NewDecoder(strings.NewReader(part))
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			line = next
			continue
		}
		require.NoError(t, err, "%s", part)
		doc, ok := jsonValue(t, &root).(map[string]any)
		require.True(t, ok, "%s", part)
		v := verdict{kind: kindOf(doc), schema: true, ours: true}
		if err := schemas[v.kind].Validate(doc); err != nil {
			var invalid *jsonschema.ValidationError
			require.ErrorAs(t, err, &invalid)
			v.schema, v.at = false, where(invalid, nil)
		}
		for _, p := range append(problems, more...) {
			if p.Severity == sigma.Error && p.Line >= line && p.Line < next-1 {
				if v.ours = false; v.schema {
					v.at = append(v.at, p.Field)
				}
			}
		}
		out = append(out, v)
		line = next
	}
	return out
}

// where are the attributes that a schema refuses.
func where(e *jsonschema.ValidationError, to []string) []string {
	for _, c := range e.Causes {
		to = where(c, to)
	}
	if len(e.Causes) > 0 {
		return to
	}
	at := slices.Clone(e.InstanceLocation)
	if r, ok := e.ErrorKind.(*kind.Required); ok {
		at = append(at, r.Missing[0])
	}
	return append(to, strings.Join(at, "."))
}

// difference is one row of the table in docs/sigma.md.
type difference struct {
	kinds, attributes, given []string
	schema, ours             bool
	line                     string
	used                     map[string]bool
}

// documented reads the table of differences.
func documented(t *testing.T) []*difference {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "..", "docs", "sigma.md"))
	require.NoError(t, err)
	_, text, ok := strings.Cut(string(src), "\n## Schemas\n")
	require.True(t, ok, "docs/sigma.md has no section Schemas")
	text, _, _ = strings.Cut(text, "\n## ")
	verdicts := map[string]bool{"accepts": true, "refuses": false}
	var out []*difference
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 8 || strings.Contains(line, "---") || strings.Contains(line, "| Schema |") {
			continue
		}
		list := func(i int) []string {
			var out []string
			for s := range strings.SplitSeq(cells[i], ",") {
				out = append(out, strings.Trim(s, " `"))
			}
			return out
		}
		d := &difference{kinds: list(1), attributes: list(2), given: list(3), line: line, used: map[string]bool{}}
		for i, to := range map[int]*bool{4: &d.schema, 5: &d.ours} {
			says, known := verdicts[strings.TrimSpace(cells[i])]
			require.True(t, known, "%s", line)
			*to = says
		}
		require.NotEqual(t, d.schema, d.ours, "%s", line)
		require.NotEmpty(t, strings.TrimSpace(cells[6]), "a reason: %s", line)
		out = append(out, d)
	}
	require.NotEmpty(t, out)
	return out
}

// explains reports whether a row is about this.
func (d *difference) explains(kind, attribute, given string, v verdict) bool {
	has := func(list []string, s string) bool { return slices.Contains(list, s) || list[0] == "any" }
	if d.schema != v.schema || d.ours != v.ours || !has(d.kinds, kind) || !has(d.attributes, attribute) || !has(d.given, given) {
		return false
	}
	for _, s := range []string{"kind " + kind, "attribute " + attribute, "given " + given} {
		d.used[s] = true
	}
	return true
}

// unused is what a row names and nothing showed.
func (d *difference) unused() []string {
	var out []string
	for of, list := range map[string][]string{"kind ": d.kinds, "attribute ": d.attributes, "given ": d.given} {
		for _, s := range list {
			if s != "any" && !d.used[of+s] {
				out = append(out, of+s)
			}
		}
	}
	if len(d.used) == 0 {
		out = append(out, "anything")
	}
	return out
}

// TestSchemas holds that the schemas of the specification and we accept the same
// documents, but for what the table in docs/sigma.md lists: the public rules,
// the rules of this package's tests, and mutations of whole documents.
func TestSchemas(t *testing.T) {
	strict, lax := schemas(t, true), schemas(t, false)
	rows := documented(t)
	var strange []string
	compared, differ := 0, 0
	check := func(kind, attribute, given string, v verdict, src string) {
		compared++
		if v.schema == v.ours {
			return
		}
		differ++
		if !slices.ContainsFunc(rows, func(d *difference) bool { return d.explains(kind, attribute, given, v) }) {
			strange = append(strange, fmt.Sprintf("%s | %s | %s | schema accepts: %t, we: %t (%s)\n%s", kind, attribute, given, v.schema, v.ours, v.at, src))
		}
	}
	for _, m := range mutations(t) {
		vs := judge(t, strict, m.src, sigma.Options{})
		check(vs[0].kind, m.attribute, m.given, vs[0], m.src)
	}
	for _, src := range tableRules() {
		for _, v := range judge(t, lax, src, sigma.Options{Placeholders: map[string][]string{"admins": {"alice", "adm_*"}, "none": nil}}) {
			for _, at := range append(v.at, "")[:max(1, len(v.at))] {
				check(v.kind, attribute(at), "tables", v, src)
			}
		}
	}
	for _, s := range strange {
		t.Errorf("a difference that docs/sigma.md does not list: %s", s)
	}
	require.Zero(t, len(strange), "differences that are not listed") //nolint:testifylint // Empty would print all
	for _, d := range rows {
		if more := d.unused(); len(more) > 0 {
			t.Errorf("is listed and does not show: %q of %s", more, d.line)
		}
	}
	require.Greater(t, compared, 1500)
	t.Logf("%d documents compared, %d differ and are explained", compared, differ)
}

// TestPublicRulesBySchema holds that the schema accepts what we accept of the
// public rules: all.
func TestPublicRulesBySchema(t *testing.T) {
	schema := schemas(t, true)["detection"]
	checked := 0
	eachRule(t, corpora(t, "sigmahq", "rules"), func(name string, src []byte) {
		var root yaml.Node
		require.NoError(t, yaml.Unmarshal(src, &root), name)
		docs, problems := sigma.Parse(src, name)
		require.Empty(t, errorsOf(problems))
		require.Len(t, docs, 1)
		require.NoError(t, schema.Validate(jsonValue(t, &root)), name)
		checked++
	})
	require.Equal(t, 3141, checked)
	_, problems := load(t, corpora(t, "sigmahq", "rules"))
	require.Equal(t, knownWarnings(), warningsOf(problems))
}

// attribute is a path without what is within: search identifiers are all one.
func attribute(path string) string {
	parts := strings.SplitN(path, ".", 3)
	switch {
	case path == "":
		return "whole rule"
	case len(parts) == 1:
		return path
	}
	if parts[0] == "detection" && parts[1] != "condition" {
		return "selections"
	}
	return parts[0] + "." + parts[1]
}

// whole are documents that have every attribute of their schema. The
// correlation and the filter refer to the detection.
func whole() map[string]string {
	return map[string]string{
		"detection": `title: Whole
id: 9b9b5c9e-6e0b-4f0e-9c3b-1f2f3a4b5c6d
name: whole
related:
    - {id: 0f0f5c9e-6e0b-4f0e-9c3b-1f2f3a4b5c6d, type: derived}
taxonomy: sigma
status: test
description: Everything is here
license: MIT
author: Somebody
references: [https://example.com/a]
date: 2025-01-31
modified: 2025-02-28
logsource:
    category: process_creation
    product: windows
    service: sysmon
    definition: Nothing in particular
detection:
    selection:
        f: x
    words: [one, 2]
    condition: selection or words
fields: [f]
falsepositives: [Some there are]
level: high
tags: [attack.t1059]
scope: [server]
`,
		"correlation": `title: Whole correlation
id: 1c1c5c9e-6e0b-4f0e-9c3b-1f2f3a4b5c6d
name: whole_correlation
status: test
description: Everything is here
author: Somebody
references: [https://example.com/a]
date: 2025-01-31
modified: 2025-02-28
taxonomy: sigma
correlation:
    type: value_count
    rules: [whole]
    aliases:
        user: {whole: f}
    group-by: [user]
    timespan: 5m
    condition: {field: g, gte: 3}
falsepositives: [Some there are]
level: high
generate: true
`,
		"filter": `title: Whole filter
id: 2d2d5c9e-6e0b-4f0e-9c3b-1f2f3a4b5c6d
description: Everything is here
date: 2025-01-31
modified: 2025-02-28
taxonomy: sigma
logsource:
    category: process_creation
    product: windows
    service: sysmon
filter:
    rules: [whole]
    selection:
        f: y
    condition: not selection
`,
	}
}

// mutation is a whole document with one attribute changed.
type mutation struct{ attribute, given, src string }

// givens are the values that an attribute gets.
func givens(attribute string) map[string]any {
	out := map[string]any{
		"null": nil, "empty text": "", "text": "some text", "number": 5, "float": 0.5, "boolean": true, "long text": strings.Repeat("long ", 14_000),
		"list": []any{"one", "two"}, "empty list": []any{}, "list with a number": []any{1}, "list with null": []any{nil}, "list with a mapping": []any{map[string]any{"a": "b"}},
		"list twice the same": []any{"attack.t1", "attack.t1"}, "mapping": map[string]any{"a": "b"}, "empty mapping": map[string]any{},
	}
	if attribute == "date" || attribute == "modified" {
		maps.Copy(out, map[string]any{"date with slashes": "2025/01/31", "month 13": "2025-13-01", "date without day": "2025-01"})
	}
	return out
}

// mutations changes each attribute of each whole document, and of the mappings
// within.
func mutations(t *testing.T) []mutation {
	t.Helper()
	var out []mutation
	for of, src := range whole() {
		rest := ""
		if of != "detection" {
			rest = "\n---\n" + whole()["detection"]
		}
		out = append(out, mutation{"", "nothing changed", src + rest})
		emit := func(attribute, given string, doc map[string]any) {
			raw, err := yaml.Marshal(doc)
			require.NoError(t, err)
			out = append(out, mutation{attribute, given, string(raw) + rest})
		}
		each(t, src, func(attribute string, at func(doc map[string]any) (map[string]any, string)) {
			fresh := func() (map[string]any, map[string]any, string) {
				doc := decode(t, src)
				parent, key := at(doc)
				return doc, parent, key
			}
			doc, parent, key := fresh()
			delete(parent, key)
			emit(attribute, "absent", doc)
			for given, value := range givens(attribute) {
				doc, parent, key = fresh()
				parent[key] = value
				emit(attribute, given, doc)
			}
			doc, parent, key = fresh()
			parent["x-"+key] = parent[key]
			emit(attribute, "unknown beside it", doc)
		})
	}
	return out
}

func decode(t *testing.T, src string) map[string]any {
	t.Helper()
	var root yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(src), &root))
	doc, ok := jsonValue(t, &root).(map[string]any)
	require.True(t, ok)
	return doc
}

// each calls f with the attributes of a document, those in mappings by their
// path; at finds where one stands in a copy.
func each(t *testing.T, src string, f func(attribute string, at func(map[string]any) (map[string]any, string))) {
	t.Helper()
	doc := decode(t, src)
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		f(key, func(d map[string]any) (map[string]any, string) { return d, key })
		inner, ok := doc[key].(map[string]any)
		if list, isList := doc[key].([]any); isList {
			inner, ok = list[0].(map[string]any)
		}
		if !ok {
			continue
		}
		for _, sub := range slices.Sorted(maps.Keys(inner)) {
			f(key+"."+sub, func(d map[string]any) (map[string]any, string) {
				if list, isList := d[key].([]any); isList {
					return list[0].(map[string]any), sub
				}
				return d[key].(map[string]any), sub
			})
		}
	}
}

// tableRules are the rules of this package's tables of positives, negatives and
// refusals.
func tableRules() []string {
	var out []string
	for _, c := range slices.Concat(fieldCases(), valueCases(), wildcardCases(), textCases(), encodingCases(), typedCases(), objectCases()) {
		out = append(out, selection(c.sel))
	}
	for _, c := range keywordCases() {
		out = append(out, ruleWith(c.detection))
	}
	for _, c := range conditionCases() {
		out = append(out, conditionRule(c.condition))
	}
	for _, c := range conditionFaults() {
		out = append(out, conditionRule(c.condition))
	}
	for _, c := range correlationCases() {
		out = append(out, correlationOf(c.lines))
	}
	for _, c := range correlationFaults() {
		out = append(out, correlationOf(c.lines))
	}
	for _, c := range filterCases() {
		out = append(out, filteredRules+c.filter)
	}
	for _, c := range filterFaults() {
		out = append(out, filteredRules+c.filter)
	}
	for _, c := range rejections() {
		if !c.noRule {
			out = append(out, c.rule)
		}
	}
	return out
}
