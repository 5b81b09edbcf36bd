package agent_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/formats/agent"
	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

func parse(tb testing.TB, text string) (agent.Record, error) {
	tb.Helper()
	var s jsonscan.Scanner
	_, _, err := s.Value([]byte(text), 0)
	require.NoError(tb, err, text)
	return agent.Parse(s.Members, eventtime.DefaultFields())
}

const (
	head = `{"time":"2026-03-02T10:00:00Z","product":"linux","Hostname":"bastion-1",`
	ms   = 1_772_445_600_000
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want agent.Record
	}{
		"login":              {head + `"category":"authentication","User":"dana","EventType":"login","Outcome":"success"}`, agent.Record{"linux", "auth", "authentication", ms}},
		"service of its own": {head + `"category":"authentication","service":"sshd","User":"dana","EventType":"login","Outcome":"failure"}`, agent.Record{"linux", "sshd", "authentication", ms}},
		"windows":            {`{"time":1772445600,"product":"Windows","category":"Authentication","Hostname":"h","User":"dana","EventType":"login","Outcome":"failure"}`, agent.Record{"windows", "security", "authentication", ms}},
		"macos":              {`{"@timestamp":1772445600000,"product":"macOS","category":"authentication","Hostname":"h","User":"dana","EventType":"logout","Outcome":"success"}`, agent.Record{"macos", "", "authentication", ms}},
		"process":            {head + `"category":"process_creation","Image":"/bin/sh"}`, agent.Record{"linux", "", "process_creation", ms}},
		"connection":         {head + `"category":"network_connection","DestinationIp":"192.0.2.1"}`, agent.Record{"linux", "", "network_connection", ms}},
		"connection by name": {head + `"category":"network_connection","DestinationHostname":"example.com"}`, agent.Record{"linux", "", "network_connection", ms}},
		"file":               {head + `"category":"file_event","TargetFilename":"/etc/passwd"}`, agent.Record{"linux", "", "file_event", ms}},
		"file renamed":       {head + `"category":"file_rename","TargetFilename":"/etc/passwd"}`, agent.Record{"linux", "", "file_rename", ms}},
		"query":              {head + `"category":"dns_query","QueryName":"example.com"}`, agent.Record{"linux", "", "dns_query", ms}},
		"another category":   {head + `"category":"Registry_Set"}`, agent.Record{"linux", "", "registry_set", ms}},
		"the last counts":    {`{"product":"bsd",` + head[1:] + `"category":"a","category":"dns_query","QueryName":"","QueryName":"x"}`, agent.Record{"linux", "", "dns_query", ms}},
		"escaped name":       {head + `"cate\u0067ory":"dns_query","Query\u004eame":"x"}`, agent.Record{"linux", "", "dns_query", ms}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parse(t, c.text)
			require.NoError(t, err)
			require.Equal(t, c.want, r)
		})
	}
}

func TestRefused(t *testing.T) {
	auth := `"category":"authentication","User":"dana","EventType":"login","Outcome":"success"}`
	for name, c := range map[string]struct{ text, field string }{
		"no time":             {`{"product":"linux","Hostname":"h",` + auth, "time"},
		"time is none":        {`{"time":"noon","product":"linux","Hostname":"h",` + auth, "time"},
		"no product":          {`{"time":1772445600,"Hostname":"h",` + auth, "product"},
		"unknown product":     {`{"time":1772445600,"product":"beos","Hostname":"h",` + auth, "product"},
		"product is a number": {`{"time":1772445600,"product":1,"Hostname":"h",` + auth, "product"},
		"no category":         {head + `"User":"dana"}`, "category"},
		"category no name":    {head + `"category":"sign in"}`, "category"},
		"category too long":   {head + `"category":"` + strings.Repeat("a", 65) + `"}`, "category"},
		"service no name":     {head + `"service":"",` + auth, "service"},
		"no host":             {`{"time":1772445600,"product":"linux",` + auth, "Hostname"},
		"host in other case":  {`{"time":1772445600,"product":"linux","hostname":"h",` + auth, "Hostname"},
		"no user":             {head + strings.Replace(auth, "User", "user", 1), "User"},
		"empty user":          {head + strings.Replace(auth, "dana", "", 1), "User"},
		"no event type":       {head + strings.Replace(auth, "EventType", "Event", 1), "EventType"},
		"no outcome":          {head + strings.Replace(auth, "Outcome", "Out", 1), "Outcome"},
		"another outcome":     {head + strings.Replace(auth, "success", "ok", 1), "Outcome"},
		"no image":            {head + `"category":"process_creation","CommandLine":"sh"}`, "Image"},
		"no destination":      {head + `"category":"network_connection","SourceIp":"192.0.2.1"}`, "DestinationIp"},
		"no file":             {head + `"category":"file_delete"}`, "TargetFilename"},
		"no query":            {head + `"category":"dns_query","QueryName":null}`, "QueryName"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, c.text)
			field, ok := errors.AsType[*agent.FieldError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, c.field, field.Field)
			require.True(t, strings.HasPrefix(err.Error(), c.field+": "), err.Error())
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + `"category":"authentication","User":"dana","EventType":"login","Outcome":"success"}`))
	f.Add([]byte(`{"time":1,"product":"\u006cinux","category":""}`))
	times := eventtime.DefaultFields()
	f.Fuzz(func(t *testing.T, text []byte) {
		var s jsonscan.Scanner
		if _, _, err := s.Value(text, 0); err != nil {
			return
		}
		r, err := agent.Parse(s.Members, times)
		if err != nil {
			return
		}
		require.Contains(t, []string{"linux", "windows", "macos"}, r.Product)
		require.NotEmpty(t, r.Category)
		require.Equal(t, strings.ToLower(r.Category+r.Service), r.Category+r.Service)
	})
}

func BenchmarkParse(b *testing.B) {
	text := []byte(head + `"category":"process_creation","User":"dana","Image":"/usr/bin/curl","CommandLine":"curl -s https://example.com","ParentImage":"/bin/bash","ProcessId":4711,"ParentProcessId":4001,"CurrentDirectory":"/home/dana"}`)
	times := eventtime.DefaultFields()
	var s jsonscan.Scanner
	_, _, err := s.Value(text, 0)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := agent.Parse(s.Members, times); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDocumented holds the events that the documentation shows.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/host-events.md")
	require.NoError(t, err)
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "{\"time\"") {
			r, err := parse(t, line)
			require.NoError(t, err, line)
			seen[r.Category] = true
		}
	}
	for _, category := range []string{agent.Authentication, agent.ProcessCreation, agent.NetworkConnection, agent.FileEvent, agent.DNSQuery} {
		require.True(t, seen[category], category)
	}
}
