package elb_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/elb"
)

const (
	alb = `h2 2026-03-02T10:00:00.186641Z app/web/50dc 192.0.2.9:2817 10.0.0.66:9000 0.000 0.002 -1 200 404 5 257 ` +
		`"GET https://shop.example:443/a/b.php?id=7 HTTP/2.0" "curl/8.1" ECDHE-RSA-AES128 TLSv1.2 arn:aws:tg/7 "Root=1-58" ` +
		`"shop.example" "arn:aws:cert/1" 1 2026-03-02T09:59:59.364000Z "waf,forward" "-" "-" "10.0.0.66:9000" "404" "-" "-" TID_7`
	nlb = `tls 2.0 2026-03-02T10:00:00 net/n/c6e7 g3d4 [2001:db8::5]:51341 10.0.0.4:443 5 2 29 80 - arn:aws:acm:7 - ` +
		`ECDHE-RSA tlsv12 - n.example h2 h2 "h2","http/1.1" 2026-03-02T09:59:58`
	clb = `2026-03-02T10:00:00.5Z my-lb 192.0.2.9:2817 - -1 -1 -1 504 0 0 0 "GET http://www.example:80/ HTTP/1.1" "curl \"x\"" - -`
	tcp = `2026-03-02T10:00:00.5Z my-lb 192.0.2.9:2817 10.0.0.1:80 0.001 0.000 0.000 - - 82 305 "- - - " "-" - -`
	con = `2026-03-02T10:00:00.5Z 192.0.2.9 36280 443 TLSv1.2 ECDHE-RSA - "CN=a b,O=c" NotBefore=2026;NotAfter=2027 0FEB Success TID_9`
)

func TestParse(t *testing.T) {
	const ms = 1772445600000
	for name, c := range map[string]struct {
		line   string
		ms     int64
		fields map[string]any // nil: absent
	}{
		"application": {alb, ms + 186, map[string]any{
			"type": "h2", "time": "2026-03-02T10:00:00.186641Z", "elb": "app/web/50dc", "client_ip": "192.0.2.9", "client_port": 2817., "target_ip": "10.0.0.66",
			"target_port": 9000., "response_processing_time": -1., "elb_status_code": 200., "target_status_code": 404.,
			"request_method": "GET", "request_host": "shop.example", "request_target": "/a/b.php?id=7", "request_query": "id=7", "user_agent": "curl/8.1",
			"domain_name": "shop.example", "actions_executed": "waf,forward", "redirect_url": nil, "target_status_code_list": "404", "conn_trace_id": "TID_7",
		}},
		"application, old":   {alb[:strings.Index(alb, ` "10.0.0.66:9000" "404"`)], ms + 186, map[string]any{"elb_status_code": 200., "target_port_list": nil}},
		"application, newer": {alb + ` "h" "/u" "TransformSuccess" 192.0.2.77`, ms + 186, map[string]any{"request_transform_status": "TransformSuccess", "surplus": []any{"192.0.2.77"}}},
		"network": {nlb, ms, map[string]any{
			"type": "tls", "version": "2.0", "time": "2026-03-02T10:00:00Z", "client_ip": "2001:db8::5", "client_port": 51341., "destination_port": 443.,
			"incoming_tls_alert": nil, "domain_name": "n.example", "alpn_client_preference_list": `h2","http/1.1`,
		}},
		"classic":    {clb, ms + 500, map[string]any{"client_ip": "192.0.2.9", "backend_ip": nil, "backend_port": nil, "elb_status_code": 504., "request_host": "www.example", "user_agent": `curl \"x\"`}},
		"no request": {tcp, ms + 500, map[string]any{"backend_port": 80., "elb_status_code": nil, "request": nil, "request_method": nil, "user_agent": nil, "sent_bytes": 305.}},
		"connection": {con, ms + 500, map[string]any{"client_ip": "192.0.2.9", "client_port": 36280., "listener_port": 443., "leaf_client_cert_subject": "CN=a b,O=c", "tls_verify_status": "Success"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := elb.Parse([]byte(c.line))
			require.NoError(t, err)
			require.Equal(t, c.ms, r.TimeMS)
			var got map[string]any
			require.NoError(t, json.Unmarshal(r.JSON, &got))
			for name, v := range c.fields {
				require.Equal(t, v, got[name], name)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for text, says := range map[string]string{
		"":                     "empty line",
		"{}":                   "begins with a type such as https or tls, or with a time",
		"https x":              "2 fields: a line of an application load balancer's log has at least 25",
		clb[:80]:               "is not closed",
		"2026-03-02T10:00:00Z": "1 fields",
		strings.Replace(alb, "2026-03-02T10", "2026-13-02T10", 1): "field 2 is no time such as",
	} {
		_, err := elb.Parse([]byte(text))
		require.ErrorContains(t, err, says, text)
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{alb, nlb, clb, tcp, con} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := elb.Parse(text)
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
