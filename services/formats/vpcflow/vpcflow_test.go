package vpcflow_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/vpcflow"
)

const (
	accept = "2 012345678901 eni-7 192.0.2.9 10.0.0.4 51000 22 6 20 4249 1772445540 1772445600 ACCEPT OK"
	nodata = "2 012345678901 eni-7 - - - - - - - 1772445540 1772445600 - NODATA"
	custom = "version vpc-id srcaddr dstaddr srcport dstport protocol tcp-flags pkt-srcaddr action end"
)

func TestParse(t *testing.T) {
	mine, err := vpcflow.Header([]byte(custom))
	require.NoError(t, err)
	undated, err := vpcflow.NewLayout([]string{"srcaddr", "action"})
	require.NoError(t, err)
	begun, err := vpcflow.NewLayout([]string{"srcaddr", "start"})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		layout *vpcflow.Layout
		line   string
		ms     int64
		want   string
	}{
		"version 2": {vpcflow.Default(), accept, 1772445600000, `{"version":2,"account-id":"012345678901","interface-id":"eni-7","srcaddr":"192.0.2.9","dstaddr":"10.0.0.4","srcport":51000,"dstport":22,"protocol":6,"packets":20,"bytes":4249,"start":1772445540,"end":1772445600,"action":"ACCEPT","log-status":"OK"}`},
		"no data":   {vpcflow.Default(), nodata, 1772445600000, `{"version":2,"account-id":"012345678901","interface-id":"eni-7","start":1772445540,"end":1772445600,"log-status":"NODATA"}`},
		"own order": {mine, "5 vpc-1 2001:db8::1 2001:db8::2 1 443 6 2 2001:db8::9 REJECT 1772445600", 1772445600000, `{"version":5,"vpc-id":"vpc-1","srcaddr":"2001:db8::1","dstaddr":"2001:db8::2","srcport":1,"dstport":443,"protocol":6,"tcp-flags":2,"pkt-srcaddr":"2001:db8::9","action":"REJECT","end":1772445600}`},
		"undated":   {undated, "192.0.2.9 ACCEPT", 0, `{"srcaddr":"192.0.2.9","action":"ACCEPT"}`},
		"begun":     {begun, "192.0.2.9 1772445540", 1772445540000, `{"srcaddr":"192.0.2.9","start":1772445540}`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := c.layout.Parse([]byte(c.line))
			require.NoError(t, err)
			require.Equal(t, c.want, string(r.JSON))
			require.Equal(t, c.ms, r.TimeMS)
			require.Equal(t, c.ms != 0, r.HasTime)
		})
	}
}

func TestRefused(t *testing.T) {
	for text, says := range map[string]string{
		"":                  "0 fields, not the 14 that begin with \"version\": name them",
		accept + " vpc-1":   "15 fields, not the 14",
		`{"srcaddr":"x"}`:   "1 fields",
		accept[2:] + " 2":   "log-status is \"2\"",
		custom + " a b log": "log-status is \"log\"",
		strings.Replace(accept, "ACCEPT", "22", 1):    "action is \"22\", not ACCEPT or REJECT",
		strings.Replace(accept, "1772445600", "x", 1): "end is no Unix time",
	} {
		_, err := vpcflow.Default().Parse([]byte(text))
		require.ErrorContains(t, err, says, text)
	}
}

func TestLayout(t *testing.T) {
	require.True(t, vpcflow.IsHeader([]byte(custom)))
	for _, text := range []string{"", accept, nodata, "a b", `{"version":2}`, "Version srcaddr", strings.Repeat("version ", 2000)} {
		require.False(t, vpcflow.IsHeader([]byte(text)), "%.80s", text)
	}
	for says, names := range map[string][]string{
		"0 fields":                    nil,
		"129 fields: use 1 to 128":    make([]string, 129),
		`field "srcaddr" is there`:    {"srcaddr", "srcaddr"},
		`field "${srcaddr}": use the`: {"${srcaddr}"},
	} {
		_, err := vpcflow.NewLayout(names)
		require.ErrorContains(t, err, says)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(""), []byte(accept))
	f.Add([]byte(custom), []byte(nodata))
	f.Fuzz(func(t *testing.T, header, text []byte) {
		l := vpcflow.Default()
		if vpcflow.IsHeader(header) {
			if mine, err := vpcflow.Header(header); err == nil {
				l = mine
			}
		}
		r, err := l.Parse(text)
		if err != nil {
			require.Empty(t, r.JSON)
			return
		}
		var got map[string]any
		require.NoError(t, json.Unmarshal(r.JSON, &got))
	})
}
