package accesslog_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/accesslog"
)

func TestSplit(t *testing.T) {
	for name, c := range map[string]struct {
		line, says string
		want       []string
	}{
		"bare":         {line: "a b  c", want: []string{"a", "b", "c"}},
		"quoted":       {line: `a "b c" [d e] ""`, want: []string{"a", "b c", "d e", ""}},
		"quote inside": {line: `"a"b" c`, want: []string{`a"b`, "c"}},
		"escaped":      {line: `"a\" b" c`, want: []string{`a\" b`, "c"}},
		"address":      {line: `[::1]:80 [a]`, want: []string{"[::1]:80", "a"}},
		"open quote":   {line: `a "b c`, says: "field 2 at byte 2 is not closed"},
		"open bracket": {line: `[b c`, says: "field 1 at byte 0 is not closed"},
		"nothing":      {line: ` `, says: "empty line"},
		"too many":     {line: strings.Repeat("a ", accesslog.MaxFields+1), says: "more than 128 fields"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := accesslog.Split([]byte(c.line))
			if c.says != "" {
				require.EqualError(t, err, c.says)
				return
			}
			require.NoError(t, err)
			var texts []string
			for _, v := range got {
				texts = append(texts, string(v))
			}
			require.Equal(t, c.want, texts)
		})
	}
}

func TestHostPort(t *testing.T) {
	for text, want := range map[string][2]string{
		"192.0.2.1:80":      {"192.0.2.1", "80"},
		"[2001:db8::1]:443": {"2001:db8::1", "443"},
		"host":              {"host", ""},
		"host:x":            {"host:x", ""},
		"-":                 {"-", ""},
	} {
		host, port := accesslog.HostPort([]byte(text))
		require.Equal(t, want, [2]string{string(host), string(port)}, text)
	}
}

func TestObject(t *testing.T) {
	var o accesslog.Object
	require.Equal(t, "{}", string(o.JSON()))
	o.Text("absent", []byte("-"))
	o.Text("text", []byte("a\"\\\n\x7f\xffé"))
	o.Value("int", []byte("200"))
	o.Value("negative", []byte("-1"))
	o.Value("fraction", []byte("0.001"))
	o.Value("zeros", []byte("007"))
	o.Value("long", []byte("1234567890123456"))
	o.Value("odd", []byte("1."))
	o.Texts("none", nil)
	o.Texts("list", [][]byte{[]byte("a"), []byte("-")})
	//nolint:testifylint // the order of members is a part of it
	require.Equal(t, `{"text":"a\"\\\u000a\u007f`+"\uFFFDé"+`","int":200,"negative":-1,"fraction":0.001,"zeros":"007","long":"1234567890123456","odd":"1.","list":["a","-"]}`, string(o.JSON()))
}

func TestRequest(t *testing.T) {
	for line, want := range map[string]string{
		"GET /a/b.PHP?x=1?y HTTP/1.1":              `{"request_method":"GET","request_url":"/a/b.PHP?x=1?y","request_protocol":"HTTP/1.1","request_target":"/a/b.PHP?x=1?y","request_path":"/a/b.PHP","request_extension":"PHP","request_query":"x=1?y"}`,
		"GET https://h.example:443/a b HTTP/2.0":   `{"request_method":"GET","request_url":"https://h.example:443/a b","request_protocol":"HTTP/2.0","request_host":"h.example","request_target":"/a b","request_path":"/a b"}`,
		"GET http://h.example?u=http://x HTTP/1.1": `{"request_method":"GET","request_url":"http://h.example?u=http://x","request_protocol":"HTTP/1.1","request_host":"h.example","request_target":"?u=http://x","request_query":"u=http://x"}`,
		"GET /go?u=http://x -":                     `{"request_method":"GET","request_url":"/go?u=http://x","request_target":"/go?u=http://x","request_path":"/go","request_query":"u=http://x"}`,
		"- - -":                                    `{}`,
		"GET":                                      `{}`,
	} {
		var o accesslog.Object
		o.Request([]byte(line))
		require.Equal(t, want, string(o.JSON()), line)
	}
}

func FuzzObject(f *testing.F) {
	f.Add([]byte(`GET https://h:1/a.b?c HTTP/1.1`))
	f.Add([]byte("\x00\xff\"\\"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var o accesslog.Object
		o.Text("text", text)
		o.Value("value", text)
		o.Request(text)
		fields, err := accesslog.Split(text)
		require.LessOrEqual(t, len(fields), accesslog.MaxFields)
		require.Equal(t, err == nil, len(fields) > 0)
		o.Texts("fields", fields)
		var back map[string]any
		require.NoError(t, json.Unmarshal(o.JSON(), &back))
		if !accesslog.Absent(text) {
			require.Equal(t, string([]rune(string(text))), back["text"])
		}
	})
}
