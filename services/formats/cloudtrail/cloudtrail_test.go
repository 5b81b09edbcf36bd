package cloudtrail_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/cloudtrail"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

func members(t *testing.T, text string) []jsonscan.Member {
	t.Helper()
	var s jsonscan.Scanner
	_, _, err := s.Value([]byte(text), 0)
	require.NoError(t, err)
	return s.Members
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		is    bool
		id    string
		ms    int64
		dated bool
	}{
		"record":       {`{"eventVersion":"1.08","eventID":"e-1","eventTime":"2023-07-10T12:11:15Z"}`, true, "e-1", 1688991075000, true},
		"escaped":      {`{"eventVersion":"1.08","event\u0049D":"e\u002d1","eventTime":"2023-07-10T12:11:15Z"}`, true, "e-1", 1688991075000, true},
		"last counts":  {`{"eventVersion":"1.08","eventID":"x","eventTime":"2023-07-10T12:11:15Z","eventID":"e-1"}`, true, "e-1", 1688991075000, true},
		"bad time":     {`{"eventVersion":"1.08","eventID":"e-1","eventTime":"noon"}`, true, "e-1", 0, false},
		"odd id":       {`{"eventVersion":"1.08","eventID":"a b","eventTime":"2023-07-10T12:11:15Z"}`, true, "", 1688991075000, true},
		"empty id":     {`{"eventVersion":"1.08","eventID":"","eventTime":"2023-07-10T12:11:15Z"}`, true, "", 1688991075000, true},
		"long id":      {`{"eventVersion":"1.08","eventID":"` + strings.Repeat("x", 129) + `","eventTime":"2023-07-10T12:11:15Z"}`, true, "", 1688991075000, true},
		"aggregated":   {`{"eventVersion":"1.0","eventId":"a-1","eventCategory":"Aggregated","timeWindow":{"windowStart":"2023-07-10T12:10:15Z","windowEnd":"2023-07-10T12:11:15Z"}}`, true, "a-1", 1688991075000, true},
		"no id":        {`{"eventVersion":"1.08","eventTime":"2023-07-10T12:11:15Z"}`, false, "", 0, false},
		"id is number": {`{"eventVersion":"1.08","eventID":1,"eventTime":"2023-07-10T12:11:15Z"}`, false, "", 0, false},
		"nothing":      {`{}`, false, "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, is := cloudtrail.Parse(members(t, c.text))
			require.Equal(t, c.is, is)
			require.Equal(t, c.id, string(r.ID))
			require.Equal(t, c.ms, r.TimeMS)
			require.Equal(t, c.dated, r.HasTime)
		})
	}
}

func TestForeignRecords(t *testing.T) {
	for text, want := range map[string]string{
		`{"eventVersion":"2.1","eventSource":"aws:s3","eventTime":"2023-07-10T12:11:15Z","s3":{}}`: "an S3 notification",
		`{"eventSource":"aws:s3"}`:           "an S3 notification",
		`{"EventSource":"aws:sns"}`:          "an SNS message",
		`{"eventSource":"s3.amazonaws.com"}`: "",
		`{"s3":"text"}`:                      "",
	} {
		require.Equal(t, want, cloudtrail.ForeignRecords(members(t, text)), text)
	}
}

func TestRealRecords(t *testing.T) {
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../../shared"
	}
	paths, err := filepath.Glob(filepath.Join(shared, "corpora/invictus-cloudtrail/CloudTrail/*.json"))
	require.NoError(t, err)
	if len(paths) == 0 {
		t.Skip("invictus-cloudtrail is not there: set SHARED to the directory that holds corpora/")
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var file struct{ Records []json.RawMessage }
		require.NoError(t, json.Unmarshal(text, &file))
		for _, record := range file.Records {
			r, is := cloudtrail.Parse(members(t, string(record)))
			require.True(t, is, string(record))
			require.Len(t, string(r.ID), 36)
			require.True(t, r.HasTime)
			require.Empty(t, cloudtrail.ForeignRecords(members(t, string(record))))
		}
	}
}
