package sigma

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// viewFields are the fields that the differential tests look for.
var viewFields = []string{"a", "b", "a.b", "a.b.c", "a.c", "b.c", "a.b.c.d", "é", "a..b", ".a", "a."}

// lookup is the reference: what a field gives by its definition, on decoded
// JSON. found says that the field is present; values are its leaves.
func lookup(v any, name string) (values []any, found bool) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			more, ok := lookup(item, name)
			values, found = append(values, more...), found || ok
		}
		return values, found
	case map[string]any:
		for end := len(name); end >= 0; end-- {
			if end < len(name) && name[end] != '.' {
				continue
			}
			child, has := v[name[:end]]
			if !has {
				continue
			}
			if end == len(name) {
				return leaves(child), true
			}
			if values, found = lookup(child, name[end+1:]); found {
				return values, true
			}
		}
	}
	return nil, false
}

func leaves(v any) []any {
	list, ok := v.([]any)
	if !ok {
		return []any{v}
	}
	var out []any
	for _, item := range list {
		out = append(out, leaves(item)...)
	}
	return out
}

// decodeReference decodes one JSON object as encoding/json does, numbers kept.
func decodeReference(data []byte) (any, bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil, false
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, false
	}
	_, ok := v.(map[string]any)
	return v, ok
}

func (v *view) leafOf(t *testing.T, i int32) any {
	t.Helper()
	switch text := v.textOf(i); v.values[i].kind {
	case kindNull:
		return nil
	case kindTrue, kindFalse:
		return string(text) == "true"
	case kindNumber:
		return json.Number(text)
	case kindObject:
		out, ok := decodeReference(text)
		require.True(t, ok, "compact text is not an object: %s", text)
		return out
	default:
		return string(text)
	}
}

func checkView(t *testing.T, data []byte) {
	t.Helper()
	want, ok := decodeReference(data)
	fields := map[string]int{}
	for i, f := range viewFields {
		fields[f] = i + 1
	}
	var v view
	err := v.scan(newPaths(fields), len(fields)+1, data, true)
	if err == nil {
		err = v.scalars()
	}
	if !ok || !utf8.Valid(data) {
		return // only valid JSON is promised a meaning; the rest must not panic
	}
	require.NoError(t, err, "%s", data)
	for name, s := range fields {
		values, found := lookup(want, name)
		require.Equal(t, found, v.first(s) >= 0, "presence of %q in %s", name, data)
		var got []any
		for i := v.first(s); i >= 0; i = v.values[i].next {
			if v.values[i].kind != kindArray {
				got = append(got, v.leafOf(t, i))
			}
		}
		require.Equal(t, values, got, "values of %q in %s", name, data)
		v.exact(s)
	}
	scalars := map[string]int{}
	countScalars(want, scalars)
	for i := v.first(keywordSlot); i >= 0; i = v.values[i].next {
		scalars[string(v.textOf(i))]--
	}
	for text, n := range scalars {
		require.Zero(t, n, "keyword value %q in %s", text, data)
	}
	flat := v.flat()
	for i := v.first(keywordSlot); i >= 0; i = v.values[i].next {
		fold := foldString(string(v.textOf(i)))
		require.Equal(t, fold, string(v.foldOf(i)), "%s", data)
		require.True(t, bytes.Contains(flat, []byte(fold)), "%q of %s in %q", fold, data, flat)
	}
}

func countScalars(v any, into map[string]int) {
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			countScalars(item, into)
		}
	case []any:
		for _, item := range v {
			countScalars(item, into)
		}
	case string:
		into[v]++
	case json.Number:
		into[string(v)]++
	case bool:
		if v {
			into["true"]++
		} else {
			into["false"]++
		}
	case nil:
		into["null"]++
	}
}

var viewSeeds = []string{
	`{}`, `{"a":1}`, `{"a":{"b":2}}`, `{"a.b":3}`, `{"a.b":3,"a":{"b":4}}`, `{"a":{"b":4},"a.b":3}`,
	`{"a":{"b":{"c":1}},"a.b":{"c":2},"a.b.c":3}`, `{"a":{"b.c":5,"b":{"c":6}}}`, `{"a":{"b":{"c":6},"b.c":5}}`,
	`{"a":[{"b.c":1},{"b":{"c":2}}]}`, `{"a":[[1,2],[{"b":3}]]}`, `{"a":[]}`, `{"a":{"b":[]}}`,
	`{"a":1,"a":2}`, `{"a":{"b":1},"a":{"c":2}}`, `{"a":{"b":1},"a":null}`, `{"a.b":1,"a":{"b":2},"a.b":null}`,
	`{"a":{"b":1,"b":2},"\u0061":{"b":3,"x":{"y":1,"y":2}}}`, `{"a.b":{"x":1},"a":{"b":{"c":7}}}`,
	`{"a": { "b" : [ 1 , "x\ty" , { "z" : "\u003c\"\\\/" } ] , "q": "\ud83d\ude00\ud800" } }`,
	`{"é":"É","a":"\u00e9"}`, `{"a":{"b":{"k":1,"m":2,"k":3}}}`, `{"a":-0.0e+10,"b":1E5}`, `{"a":{"":{"b":1}},"":{"a":2},".a":3,"a.":4}`,
	`{"a":{"b":"` + strings.Repeat("x", 40) + `\"\\"}}`, `{"a":tru}`,
	`{"a":"x","k":1,"l":true,"m":null,"n":"\u0041\"","o":-1.5}`, `{"k":1,"k":"2"}`, `{"k":1,"l":2,"\u006b":3}`, `{"k":{"k":1},"l":1}`, `{"l":1,"k":[1,2]}`,
	`{` + manyMembers(maxNoted) + `,"k1":"again"}`, `{` + manyMembers(maxNoted-1) + `,"k1":"again"}`, `{` + manyMembers(maxNoted) + `}`, `{"a":[1,}`, `[1]`, `{"a"`, `{"a":{`, `{"a":"`, `{"a":"\u12`, `{"a":{"b":{1:2}}}`,
}

func manyMembers(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(`"k%d":%d`, i, i))
	}
	return strings.Join(out, ",")
}

func TestView(t *testing.T) {
	for _, seed := range viewSeeds {
		t.Run(seed, func(t *testing.T) { checkView(t, []byte(seed)) })
	}
}

func FuzzView(f *testing.F) {
	for _, seed := range viewSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkView(t, data) })
}

func TestCompact(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"blanks go", `{ "x" : [ 1 , { "y" : null } ] , "z" : "a b" }`, `{"x":[1,{"y":null}],"z":"a b"}`},
		{"order stays", `{"z":1,"a":2}`, `{"z":1,"a":2}`},
		{"no HTML escapes", `{"p":"\u003cB\u003e\/\u0026"}`, `{"p":"<B>/&"}`},
		{"needed escapes", `{"p":"\"\\\n\u0001\u0022"}`, `{"p":"\"\\\n\u0001\""}`},
		{"numbers as written", `{"n":1.00,"m":1e3}`, `{"n":1.00,"m":1e3}`},
		{"last duplicate", `{"k":1,"l":2,"k":3}`, `{"l":2,"k":3}`},
		{"duplicate twice", `{"k":1,"k":2,"l":0,"k":3}`, `{"l":0,"k":3}`},
		{"duplicate by escape", `{"k":1,"\u006b":2}`, `{"k":2}`},
		{"nested duplicates", `{"o":{"k":1,"k":2},"o":{"q":1,"q":[2]}}`, `{"o":{"q":[2]}}`},
		{"empty", `{ }`, `{}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := view{data: []byte(c.in)}
			require.Equal(t, c.want, string(v.compact(0)))
		})
	}
}

func TestDepthIsBounded(t *testing.T) {
	deep := []byte(`{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`)
	var v view
	require.ErrorIs(t, v.scan(newPaths(map[string]int{"a": 1}), 2, deep, false), errDepth)
	require.NoError(t, v.scan(newPaths(map[string]int{"b": 1}), 2, deep, false), "what no rule reads may nest")
	require.True(t, v.deep())
	require.ErrorIs(t, v.scalars(), errDepth)
}
