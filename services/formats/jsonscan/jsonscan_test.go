package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

// whole reads text as one value with nothing but white space behind it.
func whole(s *jsonscan.Scanner, text []byte) error {
	_, to, err := s.Value(text, 0)
	if err == nil && jsonscan.Space(text, to) != len(text) {
		err = &jsonscan.SyntaxError{Offset: to, Reason: "text after the value"}
	}
	return err
}

func TestMembers(t *testing.T) {
	const text = ` {"a" : 1 , "b":{"a":[2,{"x":"]}"}]}, "\u0061":"last" ,"":null} tail`
	var s jsonscan.Scanner
	from, to, err := s.Value([]byte(text), 0)
	require.NoError(t, err)
	require.Equal(t, 1, from)
	require.Equal(t, len(text)-len(" tail"), to)
	require.Equal(t, 4, s.Depth)
	require.Len(t, s.Members, 4)
	require.Equal(t, `"last"`, string(jsonscan.Find(s.Members, "a")), "the last member of a name counts")
	require.JSONEq(t, `{"a":[2,{"x":"]}"}]}`, string(jsonscan.Find(s.Members, "b")))
	require.Equal(t, `null`, string(jsonscan.Find(s.Members, "")))
	require.Nil(t, jsonscan.Find(s.Members, "x"))

	_, _, err = s.Value([]byte(`[{"a":1}]`), 0)
	require.NoError(t, err)
	require.Empty(t, s.Members, "an array has no members")
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		`""`:                     "",
		`"plain é"`:              "plain é",
		`"\"\\\/\b\f\n\r\t"`:     "\"\\/\b\f\n\r\t",
		`"\u00e9\ud83d\ude00"`:   "é😀",
		`"\ud83dx"`:              "\ufffdx",
		`"\ud83d\ud83d\ude00"`:   "\ufffd😀",
		`"\ude00\u0041"`:         "\ufffdA",
		`"eight by8\u0041eight"`: "eight by8Aeight",
	} {
		var s jsonscan.Scanner
		require.NoError(t, whole(&s, []byte(in)), in)
		got, ok := jsonscan.Text([]byte(in))
		require.True(t, ok, in)
		require.Equal(t, want, string(got), in)
	}
	for _, in := range []string{`1`, `null`, `{}`, ``} {
		_, ok := jsonscan.Text([]byte(in))
		require.False(t, ok, in)
	}
}

func TestSyntaxErrorsNameThePlace(t *testing.T) {
	for in, want := range map[string]string{
		``:                     "unexpected end at byte 0",
		`{"a":1,}`:             "expected a name in quotes at byte 7",
		`{"a" 1}`:              "expected ':' after a name at byte 5",
		`[1 2]`:                "expected ',' or ']' in an array at byte 3",
		`{"a":1]`:              "expected ',' or '}' in an object at byte 6",
		`["12345678` + "\n\"]": "control character in a string at byte 10",
		`["` + "\xff" + `"]`:   "string is not UTF-8 at byte 3",
		`["\x"]`:               "malformed escape at byte 2",
		`[01]`:                 "expected ',' or ']' in an array at byte 2",
		`[-]`:                  "malformed number at byte 2",
		`[nul]`:                "unexpected character at byte 1",
	} {
		var s jsonscan.Scanner
		require.EqualError(t, whole(&s, []byte(in)), want, in)
	}
}

func TestDepth(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	var s jsonscan.Scanner
	require.NoError(t, whole(&s, nested(jsonscan.MaxDepth)))
	require.Equal(t, jsonscan.MaxDepth, s.Depth)
	require.ErrorContains(t, whole(&s, nested(jsonscan.MaxDepth+1)), "nesting too deep")
	require.ErrorContains(t, whole(&s, []byte(strings.Repeat(`{"a":`, 1<<20))), "nesting too deep")
}

func TestJSONTestSuite(t *testing.T) {
	var s jsonscan.Scanner
	seen := 0
	for _, path := range suite(t) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		name := filepath.Base(path)
		err = whole(&s, text)
		switch name[0] {
		case 'y':
			require.NoError(t, err, name)
		case 'n':
			require.Error(t, err, name)
		}
		seen++
	}
	require.Equal(t, 318, seen)
}

func suite(t *testing.T) []string {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../../shared"
	}
	paths, err := filepath.Glob(filepath.Join(shared, "corpora/jsontestsuite/test_parsing/*.json"))
	require.NoError(t, err)
	if len(paths) == 0 {
		t.Skip("JSONTestSuite is not there: set SHARED to the directory that holds corpora/")
	}
	return paths
}

// FuzzValue holds the scanner to the standard library, which knows no UTF-8
// and a deeper nesting.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-0.5e+3,true,null,"x\u00e9\"\\"]}`, `"é"`, `[[[]]]`, `{"":{}}`, "\"1234567\x1f\"", `01`, `1.`, `{"a":1,"a":2} `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s jsonscan.Scanner
		err := whole(&s, text)
		want := json.Valid(text) && utf8.Valid(text) && bytes.Count(text, []byte("[")) <= jsonscan.MaxDepth
		require.Equal(t, want, err == nil, "%q: %v", text, err)
		if err != nil || text[jsonscan.Space(text, 0)] != '{' {
			return
		}
		var object map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(text, &object))
		for name, value := range object {
			if strings.Contains(name, "\ufffd") {
				continue // several names may decode to the same replacement
			}
			require.Equal(t, string(value), string(jsonscan.Find(s.Members, name)))
		}
		require.GreaterOrEqual(t, len(s.Members), len(object))
	})
}

const sample = `{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","principalId":"AIDAEXAMPLE","arn":"arn:aws:iam::111122223333:user/alice","accountId":"111122223333","accessKeyId":"AKIAEXAMPLE","userName":"alice"},"eventTime":"2023-07-10T12:11:15Z","eventSource":"ec2.amazonaws.com","eventName":"CreateVolume","awsRegion":"us-east-1","sourceIPAddress":"192.0.2.10","userAgent":"aws-sdk-go/1.44.157 (go1.19.3; linux; amd64)","requestParameters":{"size":"8","zone":"us-east-1a","items":[{"a":1,"b":[true,false,null]}],"text":"a \"quoted\" word"},"responseElements":{"volumeId":"vol-0","status":"creating","createTime":1688991075000},"requestID":"6fa459ea-ee8a-3ca4-894e-db77e160355e","eventID":"16fd2706-8baf-433b-82eb-8c7fada847da","readOnly":false,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management"}`

func BenchmarkValue(b *testing.B) {
	text := []byte(sample)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var s jsonscan.Scanner
	for b.Loop() {
		if _, _, err := s.Value(text, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJSONText is the library that the scanner was measured against: it
// checks as much, but finds no members.
func BenchmarkJSONText(b *testing.B) {
	text := []byte(sample)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var (
		r bytes.Reader
		d = jsontext.NewDecoder(&r)
	)
	for b.Loop() {
		r.Reset(text)
		d.Reset(&r, jsontext.AllowDuplicateNames(true))
		if _, err := d.ReadValue(); err != nil {
			b.Fatal(err)
		}
	}
}
