package body_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/body"
)

// list writes down what it is given, one line a record.
type list struct{ got []string }

func (l *list) Reset() { l.got = nil }

func (l *list) Record(r *body.Record) {
	line := fmt.Sprintf("%d %s", r.Index, r.Raw)
	if r.Enveloped {
		line += " enveloped"
	}
	if r.Problem != nil {
		line += " " + r.Problem.Code
	}
	l.got = append(l.got, line)
}

func limits() body.Limits { return body.Limits{Records: 4, Depth: 3, Members: 3} }

func TestJSON(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
		err  string
	}{
		"object":             {` {"a":1} `, []string{`0 {"a":1}`}, ""},
		"array":              {`[{"a":1} , {}]`, []string{`0 {"a":1}`, `1 {}`}, ""},
		"empty array":        {`[ ]`, nil, ""},
		"byte order mark":    {"\xef\xbb\xbf{}", []string{`0 {}`}, ""},
		"mixed":              {`[{},1,"x",[{}]]`, []string{`0 {}`, `1 1 not_object`, `2 "x" not_object`, `3 [{}] not_object`}, ""},
		"deep":               {`[{"a":{"b":{}}},{"a":{"b":{"c":{}}}}]`, []string{`0 {"a":{"b":{}}}`, `1 {"a":{"b":{"c":{}}}} too_deep`}, ""},
		"crowded":            {`[{"a":1,"b":2,"c":3},{"a":1,"b":2,"c":3,"a":4},{ }]`, []string{`0 {"a":1,"b":2,"c":3}`, `1 {"a":1,"b":2,"c":3,"a":4} too_many_members`, `2 { }`}, ""},
		"file":               {`{"Records":[{"a":1},{}]}`, []string{`0 {"a":1} enveloped`, `1 {} enveloped`}, ""},
		"empty file":         {`{ "Records" : [ ] }`, nil, ""},
		"records and more":   {`{"Records":[{}],"x":1}`, []string{`0 {"Records":[{}],"x":1}`}, ""},
		"more and records":   {`{"x":1,"Records":[{}]}`, []string{`0 {"x":1,"Records":[{}]}`}, ""},
		"records twice":      {`{"Records":[{}],"Records":[]}`, []string{`0 {"Records":[{}],"Records":[]}`}, ""},
		"records of numbers": {`{"Records":[1]}`, []string{`0 {"Records":[1]}`}, ""},
		"records are text":   {`{"Records":"x"}`, []string{`0 {"Records":"x"}`}, ""},
		"scalar":             {`1`, nil, body.ErrScalar.Error()},
		"empty":              {" ", nil, "empty body at byte 1"},
		"two values":         {`{} {}`, nil, "text after the value at byte 3"},
		"two arrays":         {`[] []`, nil, "text after the value at byte 3"},
		"file, then text":    {`{"Records":[]}x`, nil, "text after the value at byte 14"},
		"cut array":          {`[{}`, nil, "unexpected end at byte 3"},
		"cut file":           {`{"Records":[{}]`, nil, "unexpected end at byte 15"},
		"comma at the end":   {`[{},]`, nil, "unexpected character at byte 4"},
		"no comma":           {`[{}{}]`, nil, "expected ',' or ']' in an array at byte 3"},
		"too many":           {`[{},{},{},{},{}]`, nil, body.ErrTooMany.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			var l list
			err := body.JSON([]byte(c.text), limits(), &l)
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, l.got)
		})
	}
}

func TestLines(t *testing.T) {
	var l list
	require.NoError(t, body.Lines([]byte("{\"a\":1}\r\n\n  \n{\"a\":\n[]\n{} x"), limits(), &l))
	require.Equal(t, []string{`0 {"a":1}`, `1 {"a": malformed`, `2 [] not_object`, `3 {} x malformed`}, l.got)

	var p problems
	require.NoError(t, body.Lines([]byte("{}\n\n{\"a\":tru}\n"), limits(), &p))
	require.Equal(t, []body.Problem{{Code: body.CodeMalformed, Detail: "line 3: unexpected character at byte 5"}}, p.got)

	require.ErrorIs(t, body.Lines([]byte(strings.Repeat("{}\n", 5)), limits(), &l), body.ErrTooMany)
}

type problems struct{ got []body.Problem }

func (p *problems) Reset() {}
func (p *problems) Record(r *body.Record) {
	if r.Problem != nil {
		p.got = append(p.got, *r.Problem)
	}
}

func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"Records":[{"a":1}]}`, `[{},1]`, `{"Records":[{}],"a":1}`, `[[[[{}]]]]`, "\xef\xbb\xbf[]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c checked
		err := body.JSON(text, body.Limits{Records: 1000, Depth: 64, Members: 1000}, &c)
		if err == nil {
			require.True(t, json.Valid(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))))
			require.False(t, c.bad)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n\r\n[]\n{\"a\":1}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c checked
		if err := body.Lines(text, body.Limits{Records: 1000, Depth: 64, Members: 1000}, &c); err == nil {
			require.False(t, c.bad)
		}
	})
}

// checked looks whether each record without a problem is an object.
type checked struct{ bad bool }

func (c *checked) Reset() { c.bad = false }
func (c *checked) Record(r *body.Record) {
	c.bad = c.bad || r.Problem == nil && (r.Raw[0] != '{' || !json.Valid(r.Raw))
}

type nothing struct{}

func (nothing) Reset()              {}
func (nothing) Record(*body.Record) {}

func BenchmarkLines(b *testing.B) {
	line := []byte(`{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/alice","accountId":"111122223333"},"eventTime":"2023-07-10T12:11:15Z","eventSource":"ec2.amazonaws.com","eventName":"CreateVolume","sourceIPAddress":"192.0.2.10","eventID":"16fd2706-8baf-433b-82eb-8c7fada847da"}` + "\n")
	text := bytes.Repeat(line, 500)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := body.Lines(text, body.Limits{Records: 1000, Depth: 64, Members: 1000}, nothing{}); err != nil {
			b.Fatal(err)
		}
	}
}
