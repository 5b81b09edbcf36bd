package s3access_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/s3access"
)

const (
	head = `79a5 logs-7 [06/Feb/2026:02:00:38 +0200] 192.0.2.3 arn:aws:iam::012345678901:user/dana 3E57 REST.GET.OBJECT photos/a%2520b.jpg `
	tail = ` v7 s9lz= SigV4 ECDHE-RSA AuthHeader logs-7.s3.example TLSv1.2 arn:aws:s3:::ap Yes eu-west-1`
	line = head + `"GET /logs-7/photos/a%20b.jpg?versionId=v7 HTTP/1.1" 206 - 113 4406 7 6 "https://example.com/" "curl/8.1"` + tail
)

func TestParse(t *testing.T) {
	const want = `{"bucket_owner":"79a5","bucket":"logs-7","time":"2026-02-06T00:00:38Z","remote_ip":"192.0.2.3",
"requester":"arn:aws:iam::012345678901:user/dana","request_id":"3E57","operation":"REST.GET.OBJECT","key":"photos/a%2520b.jpg",
"request_uri":"GET /logs-7/photos/a%20b.jpg?versionId=v7 HTTP/1.1","request_method":"GET",
"request_url":"/logs-7/photos/a%20b.jpg?versionId=v7","request_protocol":"HTTP/1.1",
"request_target":"/logs-7/photos/a%20b.jpg?versionId=v7","request_path":"/logs-7/photos/a%20b.jpg","request_extension":"jpg",
"request_query":"versionId=v7","status":206,"bytes_sent":113,"object_size":4406,"total_time":7,"turnaround_time":6,
"referer":"https://example.com/","user_agent":"curl/8.1","version_id":"v7","host_id":"s9lz=","signature_version":"SigV4",
"cipher_suite":"ECDHE-RSA","auth_type":"AuthHeader","host_header":"logs-7.s3.example","tls_version":"TLSv1.2",
"access_point_arn":"arn:aws:s3:::ap","acl_required":"Yes","source_region":"eu-west-1"}`
	r, err := s3access.Parse([]byte(line))
	require.NoError(t, err)
	//nolint:testifylint // event ids depend on each byte
	require.Equal(t, strings.ReplaceAll(want, "\n", ""), string(r.JSON))
	require.EqualValues(t, 1770336038000, r.TimeMS)
	require.Equal(t, []string{"logs-7", "3E57", "REST.GET.OBJECT", "photos/a%2520b.jpg", "v7"}, r.Key)
}

func TestParseQuirks(t *testing.T) {
	for name, c := range map[string]struct {
		line   string
		fields map[string]any // nil: absent
	}{
		"oldest": {
			head + `"GET / HTTP/1.0" 403 AccessDenied 243 - 7 - "-" "-" -`,
			map[string]any{"status": 403., "error_code": "AccessDenied", "object_size": nil, "referer": nil, "user_agent": nil, "version_id": nil, "host_id": nil},
		},
		"unquoted absents": {
			head + `- 204 - - - 7 - - - - host`,
			map[string]any{"status": 204., "request_uri": nil, "request_method": nil, "user_agent": nil, "host_id": "host"},
		},
		"newer": {line + ` more of-it`, map[string]any{"source_region": "eu-west-1", "surplus": []any{"more", "of-it"}}},
		"quotes of a client": {
			head + `"GET / HTTP/1.1" 200 - 1 1 1 1 "-" "x" 500 "y" z"` + tail,
			map[string]any{"status": 200., "user_agent": `x" 500 "y" z`, "version_id": "v7", "source_region": "eu-west-1"},
		},
		"error code of digits": {head + `"GET / HTTP/1.1" 200 404 1 1 1 1 "-" "-" -`, map[string]any{"error_code": "404"}},
		"status is none":       {head + `"GET / HTTP/1.1" - - 1 1 1 1 "-" "-" -`, map[string]any{"status": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := s3access.Parse([]byte(c.line))
			require.NoError(t, err)
			var got map[string]any
			require.NoError(t, json.Unmarshal(r.JSON, &got))
			for name, v := range c.fields {
				require.Equal(t, v, got[name], name)
			}
		})
	}
	r, err := s3access.Parse([]byte(strings.Replace(line, " 3E57 ", " - ", 1)))
	require.NoError(t, err)
	require.Empty(t, r.Key, "nothing tells lines without a request id apart")
}

func TestRefused(t *testing.T) {
	for text, says := range map[string]string{
		"":              "0 fields",
		"{}":            "1 fields: a line of an S3 access log has at least 18",
		`a b [06/Feb`:   "field 3 at byte 4 is not closed",
		head + `"GET /`: "is not closed",
		strings.Replace(line, "06/Feb/2026", "31/Feb/2026", 1): "field 3 is no time such as",
		line + strings.Repeat(" x", 200):                       "more than 128 fields",
	} {
		_, err := s3access.Parse([]byte(text))
		require.ErrorContains(t, err, says, text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(line))
	f.Add([]byte(head + `"GET / HTTP/1.1" 200 - 1 1 1 1 "-" "x" 500 "y" z"` + tail + " more"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := s3access.Parse(text)
		if err != nil {
			require.Empty(t, r.JSON)
			return
		}
		var got map[string]any
		require.NoError(t, json.Unmarshal(r.JSON, &got))
		require.NotEmpty(t, got["time"])
		require.Less(t, len(r.JSON), 20*len(text)+2000)
	})
}
