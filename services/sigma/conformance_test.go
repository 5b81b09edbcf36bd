package sigma_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// conformance is a selection with events that it matches and events that it
// does not.
type conformance struct {
	name string
	sel  string
	yes  []string
	no   []string
}

func runConformance(t *testing.T, cases []conformance) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			set := compile(t, selection(c.sel), sigma.Options{Placeholders: map[string][]string{"admins": {"alice", "adm_*"}, "none": nil}})
			for _, e := range c.yes {
				require.True(t, matches(t, set, e), "should match %s with\n%s", e, c.sel)
			}
			for _, e := range c.no {
				require.False(t, matches(t, set, e), "should not match %s with\n%s", e, c.sel)
			}
		})
	}
}

func TestFields(t *testing.T) { runConformance(t, fieldCases()) }

func fieldCases() []conformance {
	return []conformance{
		{"name is exact", `f: x`, []string{`{"f":"x"}`}, []string{`{"F":"x"}`, `{}`, `{"g":"x"}`}},
		{"dotted path", `a.b: x`, []string{`{"a":{"b":"x"}}`}, []string{`{"a":"x"}`, `{"b":"x"}`}},
		{"whole name wins", `a.b: x`, []string{`{"a.b":"x","a":{"b":"y"}}`}, []string{`{"a.b":"y","a":{"b":"x"}}`}},
		{"longest key first", `a.b.c: x`, []string{`{"a":{"b.c":"x","b":{"c":"y"}}}`, `{"a.b":{"c":"x"},"a":{"b":{"c":"y"}}}`}, []string{`{"a":{"b.c":"y","b":{"c":"x"}}}`}},
		{"shorter key where the longer leads nowhere", `a.b.c: x`, []string{`{"a.b":{"z":1},"a":{"b":{"c":"x"}}}`}, nil},
		{"arrays fan out", `a.b: x`, []string{`{"a":[{"b":"y"},{"b":"x"}]}`, `{"a":[[{"b":["z","x"]}]]}`}, []string{`{"a":[{"b":"y"},{"c":"x"}]}`}},
		{"elements split names differently", `a.b.c: x`, []string{`{"a":[{"b.c":"y"},{"b":{"c":"x"}}]}`}, nil},
		{"duplicate keys: the last counts", `f: x`, []string{`{"f":"y","f":"x"}`}, []string{`{"f":"x","f":"y"}`}},
		{"duplicate objects do not merge", `a.b: x`, nil, []string{`{"a":{"b":"x"},"a":{"c":1}}`, `{"a":{"b":"x"},"a":null}`}},
		{"escaped key", `f: x`, []string{`{"\u0066":"x"}`}, nil},
		{"escaped value", `f: 'x"y'`, []string{`{"f":"x\"y"}`, `{"f":"\u0078\"y"}`}, nil},
		{"AND over fields", "f: x\ng: y", []string{`{"f":"x","g":"y"}`}, []string{`{"f":"x"}`, `{"f":"x","g":"z"}`}},
	}
}

func TestValues(t *testing.T) { runConformance(t, valueCases()) }

func valueCases() []conformance {
	return []conformance{
		{"case-insensitive", `f: AbC`, []string{`{"f":"aBc"}`}, []string{`{"f":"abcd"}`}},
		{"case-insensitive beyond ASCII", `f: 'ÄÖß-Σ'`, []string{`{"f":"äöß-ς"}`, `{"f":"\u00c4Öß-σ"}`}, []string{`{"f":"aos-s"}`}},
		{"number as text", `f: 4625`, []string{`{"f":4625}`, `{"f":"4625"}`}, []string{`{"f":46250}`, `{"f":"04625"}`}},
		{"quoted number", `f: '4625'`, []string{`{"f":4625}`, `{"f":4625.0}`}, []string{`{"f":"4625.0"}`}},
		{"numbers are numerically equal", `f: 1.0`, []string{`{"f":1}`, `{"f":1.0}`, `{"f":"1.0"}`, `{"f":10e-1}`}, []string{`{"f":"1"}`, `{"f":1.01}`}},
		{"large numbers are exact", `f: 9007199254740993`, []string{`{"f":9007199254740993}`}, []string{`{"f":9007199254740992}`}},
		{"hexadecimal YAML number", `f: 0x10`, []string{`{"f":16}`}, []string{`{"f":10}`}},
		{"true", `f: true`, []string{`{"f":true}`, `{"f":"True"}`}, []string{`{"f":1}`, `{"f":"yes"}`, `{"f":false}`}},
		{"text true", `f: 'true'`, []string{`{"f":true}`}, nil},
		{"many values", `f: [a, b, c, d, e, 7, 'x*']`, []string{`{"f":"C"}`, `{"f":7.0}`, `{"f":"xyz"}`}, []string{`{"f":"f"}`}},
		{"array: any element", `f: x`, []string{`{"f":["y","x"]}`, `{"f":[["x"]]}`}, []string{`{"f":[]}`, `{"f":["y"]}`}},
		{"all: different elements", "f|all:\n  - a*\n  - b*", []string{`{"f":["b1","a1"]}`}, []string{`{"f":["a1","a2"]}`}},
		{"null: absent or null", `f: null`, []string{`{}`, `{"f":null}`, `{"f":[1,null]}`}, []string{`{"f":""}`, `{"f":"null"}`, `{"f":[]}`}},
		{"text null is not null", `f: 'null'`, []string{`{"f":"null"}`}, []string{`{"f":null}`, `{}`}},
		{"null of a path", `a.b: null`, []string{`{"a":{}}`, `{"a":1}`, `{"a":{"b":null}}`, `{"a":[{"b":1},{"b":null}]}`}, []string{`{"a":{"b":0}}`}},
		{"number in another form as a key of many", `f: [1, 2, 3, 4, 5.5]`, []string{`{"f":55e-1}`, `{"f":4.0}`, `{"f":"3"}`}, []string{`{"f":5}`}},
		{"no other word for true", `f: true`, []string{`{"f":"TRUE"}`}, []string{`{"f":"1"}`, `{"f":"on"}`}},
		{"empty: present and empty", `f: ''`, []string{`{"f":""}`}, []string{`{}`, `{"f":null}`, `{"f":"x"}`}},
		{"date is text", `f: 2024-01-02`, []string{`{"f":"2024-01-02"}`}, nil},
	}
}

func TestWildcardsAndEscapes(t *testing.T) { runConformance(t, wildcardCases()) }

func wildcardCases() []conformance {
	return []conformance{
		{"star", `f: 'a*c'`, []string{`{"f":"ac"}`, `{"f":"abbbc"}`, `{"f":"A.c.C"}`}, []string{`{"f":"acb"}`, `{"f":"xac"}`}},
		{"several stars", `f: '*a*b*'`, []string{`{"f":"xaxbx"}`, `{"f":"ab"}`}, []string{`{"f":"ba"}`}},
		{"backtracking", `f: '*ab*abc'`, []string{`{"f":"abababc"}`, `{"f":"ababc"}`}, []string{`{"f":"abc"}`}},
		{"question mark", `f: 'a?c'`, []string{`{"f":"abc"}`, `{"f":"aéc"}`}, []string{`{"f":"ac"}`, `{"f":"abbc"}`}},
		{"star and question mark", `f: '*??x'`, []string{`{"f":"abx"}`, `{"f":"zabx"}`}, []string{`{"f":"ax"}`}},
		{"escaped star", `f: 'a\*c'`, []string{`{"f":"a*c"}`}, []string{`{"f":"abc"}`}},
		{"escaped question mark", `f: 'a\?c'`, []string{`{"f":"a?c"}`}, []string{`{"f":"abc"}`}},
		{"single backslash", `f: 'a\c'`, []string{`{"f":"a\\c"}`}, []string{`{"f":"ac"}`}},
		{"double backslash is one", `f: 'a\\c'`, []string{`{"f":"a\\c"}`}, []string{`{"f":"a\\\\c"}`}},
		{"backslash and wildcard", `f: 'a\\*'`, []string{`{"f":"a\\"}`, `{"f":"a\\bc"}`}, []string{`{"f":"a*"}`}},
		{"backslash and star", `f: 'a\\\*'`, []string{`{"f":"a\\*"}`}, []string{`{"f":"a\\b"}`}},
		{"four backslashes are two", `f: 'a\\\\c'`, []string{`{"f":"a\\\\c"}`}, []string{`{"f":"a\\c"}`}},
		{"trailing backslash", `f: 'a\'`, []string{`{"f":"a\\"}`}, []string{`{"f":"a"}`}},
		{"other escapes keep both", `f: 'a\nb'`, []string{`{"f":"a\\nb"}`}, []string{`{"f":"a\nb"}`}},
	}
}

func TestTextModifiers(t *testing.T) { runConformance(t, textCases()) }

func textCases() []conformance {
	return []conformance{
		{"contains", `f|contains: bc`, []string{`{"f":"aBCd"}`, `{"f":123,"f":"bc"}`}, []string{`{"f":"b c"}`, `{}`}},
		{"contains a number", `f|contains: 23`, []string{`{"f":1234}`}, []string{`{"f":1243}`}},
		{"contains star: present, not null", `f|contains: '*'`, []string{`{"f":""}`, `{"f":0}`, `{"f":{}}`, `{"f":false}`}, []string{`{"f":null}`, `{}`, `{"f":[]}`}},
		{"contains with wildcard inside", `f|contains: 'a*c?e'`, []string{`{"f":"xabcdex"}`}, []string{`{"f":"xaex"}`}},
		{"startswith", `f|startswith: ab`, []string{`{"f":"ABc"}`, `{"f":"ab"}`}, []string{`{"f":"xab"}`}},
		{"endswith", `f|endswith: ab`, []string{`{"f":"cAB"}`, `{"f":"ab"}`}, []string{`{"f":"abx"}`}},
		{"endswith after a backslash", `f|endswith: '\cmd.exe'`, []string{`{"f":"C:\\Windows\\CMD.exe"}`}, []string{`{"f":"cmd.exe"}`, `{"f":"xcmd.exe"}`}},
		{"contains all", "f|contains|all:\n  - a\n  - b", []string{`{"f":"xbxa"}`}, []string{`{"f":"aa"}`}},
		{"all contains", "f|all|contains:\n  - a\n  - b", []string{`{"f":"xbxa"}`}, []string{`{"f":"aa"}`}},
		{"cased", `f|cased: aB`, []string{`{"f":"aB"}`}, []string{`{"f":"ab"}`}},
		{"cased contains", `f|contains|cased: aB`, []string{`{"f":"xaBx"}`}, []string{`{"f":"xabx"}`}},
		{"neq", `f|neq: a`, []string{`{"f":"b"}`, `{}`, `{"f":null}`}, []string{`{"f":"A"}`, `{"f":["b","a"]}`}},
		{"neq with a list: none matches", `f|neq: [a, b]`, []string{`{"f":"c"}`}, []string{`{"f":"b"}`}},
		{"neq contains", `f|contains|neq: a`, []string{`{"f":"xyz"}`}, []string{`{"f":"xaz"}`}},
		{"neq of a number", `f|neq: 5`, []string{`{"f":6}`, `{"f":"x"}`}, []string{`{"f":5}`, `{"f":5.0}`, `{"f":"5"}`}},
		{"neq with all: not all of them", "f|contains|all|neq:\n  - a\n  - b", []string{`{"f":"a"}`, `{"f":"x"}`}, []string{`{"f":"ba"}`}},
		{"exists leaves out nothing above", `a.b|exists: false`, []string{`{"a":1}`, `{"a":null}`, `{}`}, []string{`{"a":{"b":1}}`}},
		{"startswith of a number", `f|startswith: 46`, []string{`{"f":4625}`}, []string{`{"f":1462}`}},
		{"contains over an array", `f|contains: bc`, []string{`{"f":["x","abcd"]}`}, []string{`{"f":["b","c"]}`}},
		{"startswith with a wildcard", `f|startswith: 'a?c*e'`, []string{`{"f":"abcdef"}`}, []string{`{"f":"xabcde"}`, `{"f":"acde"}`}},
		{"endswith with a star in front", `f|endswith: '*ab'`, []string{`{"f":"cab"}`}, []string{`{"f":"abc"}`}},
		{"contains with an escaped star", `f|contains: '\*'`, []string{`{"f":"a*b"}`}, []string{`{"f":"ab"}`}},
		{"contains nothing: present, not null", `f|contains: ''`, []string{`{"f":"x"}`, `{"f":""}`}, []string{`{"f":null}`, `{}`}},
		{"contains of true", `f|contains: true`, []string{`{"f":true}`, `{"f":"untrue"}`}, []string{`{"f":false}`}},
		{"cased leaves the name exact", `f|cased: [aB, Cd, eF, Gh]`, []string{`{"f":"Cd"}`}, []string{`{"f":"cd"}`, `{"F":"Cd"}`}},
		{"cased beyond ASCII", `f|endswith|cased: 'É'`, []string{`{"f":"xÉ"}`}, []string{`{"f":"xé"}`}},
		{"neq null", `f|neq: null`, []string{`{"f":1}`}, []string{`{"f":null}`, `{}`}},
		{"exists", `f|exists: true`, []string{`{"f":null}`, `{"f":""}`, `{"f":[]}`, `{"f":{}}`}, []string{`{"g":1}`}},
		{"exists false", `f|exists: false`, []string{`{"g":1}`}, []string{`{"f":null}`, `{"f":""}`}},
		{"exists of a path", `a.b|exists: true`, []string{`{"a":[{"b":null}]}`}, []string{`{"a":[]}`, `{"a":{}}`}},
	}
}

func TestEncodingModifiers(t *testing.T) { runConformance(t, encodingCases()) }

func encodingCases() []conformance {
	return []conformance{
		{"base64", `f|base64: foobar`, []string{`{"f":"Zm9vYmFy"}`}, []string{`{"f":"foobar"}`}},
		{"base64 with padding", `f|base64|contains: foob`, []string{`{"f":"xZm9vYg==x"}`}, []string{`{"f":"xZm9vYgx"}`}},
		{"base64offset", `f|base64offset|contains: foobar`, []string{`{"f":"aZm9vYmFyb"}`, `{"f":"aZvb2Jhcb"}`, `{"f":"amb29iYXb"}`}, []string{`{"f":"foobar"}`}},
		{"base64offset counts bytes", `f|base64offset|contains: 'é!'`, []string{`{"f":"w6kh"}`, `{"f":"PDqSE+"}`}, nil},
		{"wide base64", `f|wide|base64: cmd`, []string{`{"f":"YwBtAGQA"}`}, nil},
		{"utf16le base64", `f|utf16le|base64: cmd`, []string{`{"f":"YwBtAGQA"}`}, nil},
		{"utf16be base64", `f|utf16be|base64: cmd`, []string{`{"f":"AGMAbQBk"}`}, nil},
		{"utf16 base64", `f|utf16|base64: cmd`, []string{`{"f":"//5jAG0AZAA="}`}, nil},
		{"wide beyond the basic plane", `f|wide|base64: '😀'`, []string{`{"f":"PdgA3g=="}`}, nil},
		{"windash", `f|windash|contains: ' -enc '`, []string{`{"f":"ps -enc x"}`, `{"f":"ps /ENC x"}`, `{"f":"ps –enc x"}`, `{"f":"ps —enc x"}`, `{"f":"ps ―enc x"}`}, []string{`{"f":"ps enc x"}`, `{"f":"ps +enc x"}`}},
		{"windash at each place", `f|windash: '-a /b'`, []string{`{"f":"/a -b"}`, `{"f":"–a ―b"}`}, []string{`{"f":"a b"}`}},
		{"windash leaves dashes inside words", `f|windash: 'x-y -z'`, []string{`{"f":"x-y /z"}`}, []string{`{"f":"x/y -z"}`}},
		{"base64 of text with case", `f|base64: aB`, []string{`{"f":"YUI="}`, `{"f":"yui="}`}, []string{`{"f":"YWI="}`}},
		{"base64 cased", `f|base64|contains|cased: aB`, []string{`{"f":"xYUI=x"}`}, []string{`{"f":"xyui=x"}`}},
		{"base64 of an escaped star", `f|base64: 'a\*'`, []string{`{"f":"YSo="}`}, []string{`{"f":"YVwq"}`}},
		{"wide base64offset", `f|wide|base64offset|contains: hi`, []string{`{"f":"aAaABpA"}`, `{"f":"gAaQ"}`, `{"f":"xoAGkAx"}`}, []string{`{"f":"aGk="}`}},
		{"windash of a slash", `f|windash|contains: ' /c '`, []string{`{"f":"x -C y"}`, `{"f":"x —c y"}`}, []string{`{"f":"x c y"}`}},
		{"windash of an en dash", `f|windash|contains: ' –c'`, []string{`{"f":"x -c"}`}, []string{`{"f":"x c"}`}},
		{"windash before a wildcard", `f|windash: '*-p*x'`, []string{`{"f":"a/p-px"}`}, []string{`{"f":"apx"}`}},
		{"windash needs a word behind", `f|windash: '- a'`, []string{`{"f":"- a"}`}, []string{`{"f":"/ a"}`}},
		{"expand to the pattern of another place", `f|expand|endswith: '\\%admins%'`, []string{`{"f":"CORP\\alice"}`, `{"f":"x\\adm_7"}`}, []string{`{"f":"alice"}`}},
		{"expand", `f|expand: '%admins%'`, []string{`{"f":"Alice"}`, `{"f":"adm_1"}`}, []string{`{"f":"%admins%"}`, `{"f":"bob"}`}},
		{"expand within text", `f|expand|contains: 'u=%admins%;'`, []string{`{"f":"x u=alice; y"}`}, []string{`{"f":"u=bob;"}`}},
		{"expand with an escaped percent sign", `f|expand: '\%x%admins%'`, []string{`{"f":"%xalice"}`}, nil},
		{"without expand a placeholder is literal", `f: '%admins%'`, []string{`{"f":"%admins%"}`}, []string{`{"f":"alice"}`}},
	}
}

func TestTypedModifiers(t *testing.T) { runConformance(t, typedCases()) }

func typedCases() []conformance {
	return []conformance{
		{"re", `f|re: 'a.c'`, []string{`{"f":"xabcx"}`}, []string{`{"f":"xABCx"}`, `{"f":"ac"}`}},
		{"re i", `f|re|i: 'a.c'`, []string{`{"f":"xABCx"}`}, nil},
		{"re ignorecase", `f|re|ignorecase: 'a.c'`, []string{`{"f":"xABCx"}`}, nil},
		{"re m", `f|re|m: '^b$'`, []string{`{"f":"a\nb\nc"}`}, []string{`{"f":"abc"}`}},
		{"re without m", `f|re: '^b$'`, nil, []string{`{"f":"a\nb\nc"}`}},
		{"re s", `f|re|s: 'a.b'`, []string{`{"f":"a\nb"}`}, nil},
		{"re without s", `f|re: 'a.b'`, nil, []string{`{"f":"a\nb"}`}},
		{"re value is raw", `f|re: 'a\*c'`, []string{`{"f":"a*c"}`}, []string{`{"f":"abc"}`}},
		{"re startswith", `f|re|startswith: 'b|c'`, []string{`{"f":"bx"}`, `{"f":"cx"}`}, []string{`{"f":"xb"}`, `{"f":"xc"}`}},
		{"re endswith", `f|re|endswith: 'b|c'`, []string{`{"f":"xb"}`}, []string{`{"f":"bx"}`}},
		{"re contains is void", `f|re|contains: 'b|c'`, []string{`{"f":"xbx"}`}, []string{`{"f":"x"}`}},
		{"re on a number", `f|re: '^4[0-9]{3}$'`, []string{`{"f":4625}`}, []string{`{"f":5625}`}},
		{"re all", "f|re|all:\n  - a+\n  - b+", []string{`{"f":"aabb"}`}, []string{`{"f":"aa"}`}},
		{"gt", `f|gt: 5`, []string{`{"f":6}`, `{"f":"6"}`, `{"f":5.0001}`, `{"f":1e9}`}, []string{`{"f":5}`, `{"f":"x"}`, `{"f":null}`, `{}`, `{"f":true}`}},
		{"gte", `f|gte: 5`, []string{`{"f":5}`, `{"f":5.0}`}, []string{`{"f":4.999999999999999999999}`}},
		{"lt", `f|lt: -5`, []string{`{"f":-6}`, `{"f":-5.5}`}, []string{`{"f":-5}`, `{"f":0}`, `{"f":6}`}},
		{"lte", `f|lte: 0.5`, []string{`{"f":0.50}`, `{"f":-1}`, `{"f":0}`}, []string{`{"f":0.51}`}},
		{"comparison beyond float precision", `f|gt: 9007199254740992`, []string{`{"f":9007199254740993}`}, []string{`{"f":9007199254740992}`}},
		{"cidr v4", `f|cidr: 10.0.0.0/8`, []string{`{"f":"10.1.2.3"}`, `{"f":"::ffff:10.1.2.3"}`}, []string{`{"f":"11.0.0.1"}`, `{"f":"x"}`, `{"f":10}`, `{"f":"10.0.0.0/8"}`}},
		{"cidr v6", `f|cidr: 'fe80::/10'`, []string{`{"f":"FE80::1"}`, `{"f":"fe80::1%eth0"}`}, []string{`{"f":"10.0.0.1"}`}},
		{"cidr of one address", `f|cidr: 10.0.0.1`, []string{`{"f":"10.0.0.1"}`}, []string{`{"f":"10.0.0.2"}`}},
		{"cidr list", "f|cidr:\n  - 10.0.0.0/8\n  - 192.168.0.0/16", []string{`{"f":"192.168.1.1"}`}, []string{`{"f":"172.16.0.1"}`}},
		{"gt with neq", `f|gt|neq: 5`, []string{`{"f":5}`, `{}`, `{"f":"x"}`}, []string{`{"f":6}`}},
		{"lt of any", `f|lt: [1, 10]`, []string{`{"f":9}`}, []string{`{"f":10}`}},
		{"lt with all", "f|lt|all:\n  - 1\n  - 10", []string{`{"f":0}`}, []string{`{"f":9}`}},
		{"exponent", `f|lte: 1e3`, []string{`{"f":1000}`, `{"f":"1E3"}`}, []string{`{"f":1000.01}`}},
		{"cidr neq", `f|cidr|neq: 10.0.0.0/8`, []string{`{"f":"11.0.0.1"}`, `{}`, `{"f":"x"}`}, []string{`{"f":"10.0.0.1"}`}},
		{"cidr over an array", `f|cidr: 10.0.0.0/8`, []string{`{"f":["1.1.1.1","10.0.0.1"]}`}, []string{`{"f":["1.1.1.1"]}`}},
		{"cidr of v4 in v6", `f|cidr: '::ffff:10.0.0.0/104'`, []string{`{"f":"10.9.9.9"}`}, []string{`{"f":"11.0.0.1"}`}},
		{"cidr of v6 and v4 apart", `f|cidr: '::/0'`, []string{`{"f":"::1"}`}, []string{`{"f":"10.0.0.1"}`}},
		{"re is raw beyond wildcards", `f|re: '^a?b*$'`, []string{`{"f":""}`, `{"f":"abbb"}`}, []string{`{"f":"aab"}`, `{}`}},
		{"re neq", `f|re|neq: '^a'`, []string{`{"f":"b"}`, `{}`}, []string{`{"f":"a"}`}},
		{"re im", `f|re|i|m: '^b$'`, []string{`{"f":"a\nB"}`}, []string{`{"f":"aB"}`}},
		{"re dotall and multiline", `f|re|dotall|multiline: '^a.b$'`, []string{`{"f":"x\na\nb\ny"}`}, []string{`{"f":"ab"}`}},
		{"re list is or", "f|re:\n  - '^a'\n  - 'b$'", []string{`{"f":"ax"}`, `{"f":"xb"}`}, []string{`{"f":"bxa"}`}},
		{"re is case-sensitive beyond ASCII", `f|re: 'É'`, []string{`{"f":"É"}`}, []string{`{"f":"é"}`}},
		{"re over an array", `f|re: '^b$'`, []string{`{"f":["a","b"]}`}, []string{`{"f":["ab"]}`}},
		{"hour", `f|hour: 3`, []string{`{"f":"2024-05-06T03:59:59Z"}`, `{"f":"2024-05-06T03:00:00+09:00"}`, `{"f":1714964400}`, `{"f":1714964400000}`}, []string{`{"f":"2024-05-06T04:00:00Z"}`, `{"f":"x"}`}},
		{"hour gte", `f|hour|gte: 22`, []string{`{"f":"2024-05-06T22:00:00Z"}`}, []string{`{"f":"2024-05-06T21:59:59Z"}`}},
		{"minute", `f|minute: 7`, []string{`{"f":"2024-05-06T03:07:59Z"}`}, nil},
		{"hour of micro- and nanoseconds", `f|hour: 3`, []string{`{"f":1714964400000000}`, `{"f":"1714964400000000000"}`}, []string{`{"f":1714968000000000}`, `{"f":{"a":1714964400}}`}},
		{"day in the date's own zone", `f|day: 7`, []string{`{"f":"2024-05-07T00:30:00+02:00"}`}, []string{`{"f":"2024-05-06T23:30:00Z"}`}},
		{"month over an array", `f|month: 5`, []string{`{"f":["2024-04-06","2024-05-06"]}`}, []string{`{"f":[]}`}},
		{"week neq", `f|week|neq: 1`, []string{`{"f":"2024-06-30T00:00:00Z"}`, `{}`}, []string{`{"f":"2024-12-30T00:00:00Z"}`}},
		{"day", `f|day: [6, 7]`, []string{`{"f":"2024-05-06"}`}, []string{`{"f":"2024-05-08"}`}},
		{"ISO week", `f|week: 1`, []string{`{"f":"2024-12-30T00:00:00Z"}`}, []string{`{"f":"2023-01-01T00:00:00Z"}`}},
		{"month", `f|month: 5`, []string{`{"f":"2024-05-06 03:07:59"}`}, nil},
		{"year", `f|year|lt: 2024`, []string{`{"f":"2023-12-31T23:59:59Z"}`}, []string{`{"f":"2024-01-01T00:00:00Z"}`}},
		{"fieldref", `f|fieldref: g`, []string{`{"f":"A","g":"a"}`, `{"f":1,"g":"1"}`, `{"f":["x","y"],"g":["y"]}`}, []string{`{"f":"a","g":"b"}`, `{"f":"a"}`, `{"g":"a"}`, `{}`}},
		{"fieldref of a path", `f|fieldref: a.b`, []string{`{"f":"x","a":{"b":"X"}}`}, []string{`{"f":"x","a":{"b":null}}`}},
		{"fieldref list", `f|fieldref: [g, h]`, []string{`{"f":"a","h":"a"}`}, []string{`{"f":"a","g":"b"}`}},
		{"fieldref is text", `f|fieldref: g`, []string{`{"f":true,"g":"TRUE"}`}, []string{`{"f":1,"g":1.0}`, `{"f":null,"g":null}`}},
		{"fieldref with wildcards in the event", `f|fieldref: g`, []string{`{"f":"a*","g":"a*"}`}, []string{`{"f":"abc","g":"a*"}`}},
		{"fieldref neq passes where a field is absent", `f|fieldref|neq: g`, []string{`{"f":"a"}`, `{"g":"a"}`, `{}`}, nil},
		{"fieldref neq", `f|fieldref|neq: g`, []string{`{"f":"a","g":"b"}`}, []string{`{"f":"a","g":"A"}`}},
		{"fieldref contains", `f|fieldref|contains: g`, []string{`{"f":"xay","g":"a"}`}, []string{`{"f":"a","g":"xay"}`}},
		{"fieldref startswith", `f|fieldref|startswith: g`, []string{`{"f":"ax","g":"a"}`}, []string{`{"f":"xa","g":"a"}`}},
		{"fieldref endswith", `f|fieldref|endswith: g`, []string{`{"f":"xa","g":"a"}`}, []string{`{"f":"ax","g":"a"}`}},
		{"fieldref cased", `f|fieldref|cased: g`, []string{`{"f":"a","g":"a"}`}, []string{`{"f":"a","g":"A"}`}},
		{"fieldref contains, either absent", `f|fieldref|contains: g`, nil, []string{`{"f":"a"}`, `{"g":"a"}`}},
		{"fieldref all", "f|fieldref|all: [g, h]", []string{`{"f":"a","g":"a","h":"A"}`}, []string{`{"f":"a","g":"a","h":"b"}`}},
	}
}

func TestObjects(t *testing.T) { runConformance(t, objectCases()) }

func objectCases() []conformance {
	return []conformance{
		{"compact text", `f: '{"a":1,"b":[true,null]}'`, []string{`{"f": { "a" : 1, "b" : [ true , null ] } }`}, []string{`{"f":{"b":[true,null],"a":1}}`}},
		{"startswith", `f|startswith: '{"a"'`, []string{`{"f":{ "a": 1}}`}, []string{`{"f":{"b":1}}`}},
		{"contains over the text", `f|contains: '"a":1'`, []string{`{"f":{"x":{"a" : 1}}}`}, []string{`{"f":{"a":2}}`}},
		{"no HTML escapes", `f|contains: '<B>&'`, []string{`{"f":{"x":"\u003cB\u003e\u0026"}}`}, nil},
		{"no HTML escapes in the event either", `f: '{"x":"<b>"}'`, []string{`{"f":{"x":"<b>"}}`}, nil},
		{"contains tests decoded strings inside", "f|contains|all:\n  - '\"s3:GetObject\"'\n  - '\"Allow\"'", []string{`{"f":{"doc":"{\"Action\":\"s3:GetObject\",\"Effect\":\"Allow\"}"}}`}, []string{`{"f":{"doc":"{\"Action\":\"s3:PutObject\",\"Effect\":\"Allow\"}"}}`}},
		{"re tests decoded strings inside", `f|re: '^\{"Action"'`, []string{`{"f":{"doc":"{\"Action\":1}"}}`}, []string{`{"f":{"doc":"x"}}`}},
		{"an exact value does not look inside", `f: x`, nil, []string{`{"f":{"a":"x"}}`}},
		{"startswith does not look inside", `f|startswith: x`, nil, []string{`{"f":{"a":"x"}}`}},
		{"keys are not strings inside", `f|contains: 'k"'`, []string{`{"f":{"k":1}}`, `{"f":{"a":"k\""}}`}, []string{`{"f":{"a":"b"}}`}},
		{"object in an array", `f|contains: '"a":1'`, []string{`{"f":[1,{"a": 1}]}`}, nil},
		{"comparison is false", `f|gt: 0`, nil, []string{`{"f":{"a":1}}`}},
		{"field and path beneath it", "f|contains: x\nf.a: x", []string{`{"f":{"a":"x"}}`}, []string{`{"f":{"b":"x"}}`}},
	}
}

// keywordCase is a whole detection with events that it matches and events that
// it does not.
type keywordCase struct {
	name, detection string
	yes, no         []string
}

func keywordCases() []keywordCase {
	return []keywordCase{
		{
			"any keyword, any value, any depth", "k:\n  - event::clear\n  - 4711\ncondition: k",
			[]string{`{"x":"run EVENT::clear now"}`, `{"a":[{"b":"event::clear"}]}`, `{"n":47110}`},
			[]string{`{"event::clear":1}`, `{"x":"event"}`, `{}`},
		},
		{
			"wildcards", "k:\n  - 'ab*cd'\ncondition: k",
			[]string{`{"x":"..abXXcd.."}`},
			[]string{`{"x":"ab","y":"cd"}`},
		},
		{
			"all: each somewhere", "k:\n  '|all':\n    - one\n    - two\ncondition: k",
			[]string{`{"x":"one","y":["two"]}`},
			[]string{`{"x":"one"}`},
		},
		{
			"re", "k:\n  '|re': 'o[nm]e$'\ncondition: k",
			[]string{`{"x":"some"}`},
			[]string{`{"x":"ONE"}`, `{"x":"ones"}`},
		},
		{
			"one keyword without a list", "k: one\ncondition: k",
			[]string{`{"x":"one"}`},
			[]string{`{"x":"two"}`},
		},
		{
			"mixed with a mapping", "k:\n  - one\n  - f: two\ncondition: k",
			[]string{`{"x":"one"}`, `{"f":"two"}`},
			[]string{`{"x":"two"}`},
		},
		{
			"last duplicate", "k:\n  - one\ncondition: k",
			[]string{`{"x":"two","x":"one"}`},
			[]string{`{"x":"one","x":"two"}`, `{"x":{"y":"one"},"x":{}}`},
		},
		{
			"list of mappings is OR", "k:\n  - f: one\n    g: x\n  - f: two\ncondition: k",
			[]string{`{"f":"one","g":"x"}`, `{"f":"two"}`},
			[]string{`{"f":"one"}`, `{"g":"x"}`},
		},
	}
}

func TestKeywords(t *testing.T) {
	for _, c := range keywordCases() {
		t.Run(c.name, func(t *testing.T) {
			set := compile(t, ruleWith(c.detection), sigma.Options{})
			for _, e := range c.yes {
				require.True(t, matches(t, set, e), "should match %s", e)
			}
			for _, e := range c.no {
				require.False(t, matches(t, set, e), "should not match %s", e)
			}
		})
	}
}
