package alert

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
)

var update = flag.Bool("update", false, "rewrite the documented examples")

const reference = "../../../docs/reference"

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join(reference, "alert.v1.schema.json"))
	require.NoError(t, err)
	return s
}

func requireValid(t *testing.T, s *jsonschema.Schema, body []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
	require.NoError(t, err)
	require.NoError(t, s.Validate(v), "%s", body)
}

func event0(i int, action string) Contribution {
	raw := fmt.Sprintf(`{"eventTime":"2026-03-02T10:%02d:00Z","eventSource":"secretsmanager.amazonaws.com","eventName":%q,"awsRegion":"eu-central-1","sourceIPAddress":"198.51.100.7","userIdentity":{"type":"IAMUser","userName":"mallory"},"recipientAccountId":"111122223333","eventID":"e-%d"}`, i, action, i)
	return Contribution{
		ID: fmt.Sprintf("e-%d", i), TimeMS: 1_772_445_600_000 + int64(i)*60_000, RuleID: "11111111-0000-4000-8000-000000000001",
		Entities: Entities([]byte(raw)), Source: "aws/cloudtrail", Raw: []byte(raw),
	}
}

func findings() map[string]*Finding {
	out := map[string]*Finding{}
	rule := func(id int, title, level, kind string) *alertv1.Rule {
		return &alertv1.Rule{
			Id: fmt.Sprintf("11111111-0000-4000-8000-%012d", id), Title: title, Level: level, Type: kind,
			Tags: []string{"attack.credential-access", "attack.t1555"}, Revision: "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
		}
	}
	one := event0(1, "StopLogging")
	out["detection"] = &Finding{
		ID: StandAloneID("default", "r", "v", one.ID), Tenant: "default", Rule: rule(1, "Trail stopped", "high", "detection"),
		TimeMS: one.TimeMS, IngestMS: one.TimeMS + 5000, StartMS: one.TimeMS, EndMS: one.TimeMS, Count: 1, Total: 1,
		Events: []Contribution{one}, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", BaseURL: "https://stormbell.example",
	}
	for i, kind := range []string{"event_count", "value_count", "temporal", "temporal_ordered"} {
		f := &Finding{
			ID: CorrelationID("default", kind, "v", []string{"mallory"}, 3), Tenant: "default",
			Rule:  rule(10+i, "Secrets read in bulk", "high", kind),
			Group: []*alertv1.GroupValue{{Field: "userIdentity.userName", Value: "mallory"}},
			Count: 3, Total: 3, Condition: "gte 3", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		}
		for n := range 3 {
			f.Events = append(f.Events, event0(n, []string{"ConsoleLogin", "CreateAccessKey", "GetSecretValue"}[n*(i/2)+2*(1-i/2)]))
		}
		f.Events[0].Late = kind == "event_count"
		f.TimeMS, f.EndMS = f.Events[2].TimeMS, f.Events[2].TimeMS
		f.StartMS, f.IngestMS = f.EndMS-300_000, f.EndMS+2000
		out[kind] = f
	}
	updated := *out["event_count"]
	updated.Type, updated.Count, updated.Total = TypeUpdated, 41, 41
	updated.TimeMS, updated.EndMS = updated.TimeMS+170_000, updated.TimeMS+179_999
	updated.Events = append(slices.Clone(updated.Events), event0(5, "GetSecretValue"))
	updated.Events[0].Late, updated.Events[3].TimeMS = false, updated.TimeMS
	out["event_count_updated"] = &updated
	risk := *out["temporal"]
	risk.ID, risk.Rule = CorrelationID("default", "risk", "v", []string{"mallory"}, 3), rule(14, "Risky user", "high", "risk")
	risk.Count, risk.Condition, risk.How = 110, "gte 100 of 2 tactics", ", a risk of 110 by 3 rules of 2 tactics within 1d"
	risk.StartMS = risk.EndMS - 86_400_000
	risk.Risk = &alertv1.Risk{Tactics: []string{"initial-access", "persistence"}, SignalsTotal: 3}
	for i, score := range []uint32{50, 40, 20} { // the greatest first
		e := risk.Events[2-i]
		risk.Risk.Signals = append(risk.Risk.Signals, &alertv1.Scored{
			RuleId: e.RuleID, Title: []string{"Secrets read in bulk", "Access key created", "Console sign-in without MFA"}[i],
			Level: []string{"high", "medium", "medium"}[i], Score: score, Tactics: risk.Risk.Tactics[:2-(i+1)/2], TimeMs: e.TimeMS,
			AlertId: StandAloneID("default", e.RuleID, "v", e.ID),
		})
	}
	out["risk"] = &risk
	return out
}

func TestDocumentedExamples(t *testing.T) {
	s := schema(t)
	for kind, f := range findings() {
		t.Run(kind, func(t *testing.T) {
			got, err := Body(New(f))
			require.NoError(t, err)
			requireValid(t, s, got)
			var v any
			require.NoError(t, json.Unmarshal(got, &v))
			pretty, err := json.MarshalIndent(json.RawMessage(got), "", "  ")
			require.NoError(t, err)
			file := filepath.Join(reference, "examples", "alert-"+strings.ReplaceAll(kind, "_", "-")+".json")
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o750))
				require.NoError(t, os.WriteFile(file, append(pretty, '\n'), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), string(pretty)+"\n", "go test ./internal/alert -update")
		})
	}
}

func TestSummaries(t *testing.T) {
	want := map[string]string{
		"detection":           "mallory did StopLogging from 198.51.100.7 in account 111122223333: Trail stopped.",
		"event_count":         "mallory did GetSecretValue from 198.51.100.7, 3 times within 5m in account 111122223333: Secrets read in bulk.",
		"value_count":         "mallory did GetSecretValue from 198.51.100.7, with 3 different values within 5m in account 111122223333: Secrets read in bulk.",
		"event_count_updated": "mallory did GetSecretValue from 198.51.100.7, in all 41 times within 4m50s in account 111122223333: Secrets read in bulk.",
		"temporal":            "mallory did ConsoleLogin, CreateAccessKey, GetSecretValue from 198.51.100.7, 3 steps within 5m in account 111122223333: Secrets read in bulk.",
		"temporal_ordered":    "mallory did ConsoleLogin, CreateAccessKey, GetSecretValue from 198.51.100.7, 3 steps within 5m in account 111122223333: Secrets read in bulk.",
		"risk":                "mallory did ConsoleLogin, CreateAccessKey, GetSecretValue from 198.51.100.7, a risk of 110 by 3 rules of 2 tactics within 1d in account 111122223333: Risky user.",
	}
	for kind, f := range findings() {
		require.Equal(t, want[kind], New(f).GetSummary(), kind)
	}
}

// TestOccurrences holds ids of alerts that are told for an event, and the clause
// of their summaries.
func TestOccurrences(t *testing.T) {
	a := OccurrenceID("t", "r", "v", []string{"a"}, "e")
	require.Len(t, a, 32)
	require.Equal(t, a, OccurrenceID("t", "r", "v", []string{"a"}, "e"))
	for _, other := range []string{
		OccurrenceID("t", "r", "v", []string{"a"}, "f"), OccurrenceID("t", "r", "v", []string{"b"}, "e"), OccurrenceID("u", "r", "v", []string{"a"}, "e"),
		CorrelationID("t", "r", "v", []string{"a"}, 0), StandAloneID("t", "r", "v", "e"),
	} {
		require.NotEqual(t, a, other)
	}
	f := findings()["detection"]
	f.Rule.Type = "absence"
	f.How = ", and nothing more within " + Span(90*time.Second)
	require.Equal(t, "mallory did StopLogging from 198.51.100.7, and nothing more within 1m30s in account 111122223333: Trail stopped.", New(f).GetSummary())
}

func TestHostSummaries(t *testing.T) {
	at := int64(1_772_445_600_000)
	say := func(kind string, raws ...string) string {
		f := &Finding{ID: "a", Tenant: "default", Rule: &alertv1.Rule{Title: "T", Type: kind}, EndMS: at, StartMS: at - 300_000, Count: len(raws), Total: len(raws)}
		for i, raw := range raws {
			f.Events = append(f.Events, Contribution{ID: fmt.Sprint(i), TimeMS: at, Entities: Entities([]byte(raw)), Raw: []byte(raw)})
		}
		return New(f).GetSummary()
	}
	host := func(name, outcome string) string {
		return fmt.Sprintf(`{"product":"linux","category":"authentication","Hostname":%q,"User":"dana","EventType":"login","Outcome":%q,"SourceIp":"203.0.113.9"}`, name, outcome)
	}
	const (
		process = `{"product":"linux","category":"process_creation","Hostname":"bastion-1","User":"root","Image":"/usr/bin/nc"}`
		trail   = `{"eventSource":"s","eventName":"ConsoleLogin","sourceIPAddress":"203.0.113.9","userIdentity":{"userName":"dana"},"resources":[{"ARN":"arn:x"}]}`
	)
	require.Equal(t, "dana did login on bastion-1 from 203.0.113.9: T.", say("detection", host("bastion-1", "success")))
	require.Equal(t, "dana failed at login on bastion-1 from 203.0.113.9, 2 times within 5m: T.", say("event_count", host("bastion-1", "failure"), host("bastion-1", "failure")))
	require.Equal(t, "dana failed at login on bastion-1 from 203.0.113.9: T.", say("event_count", host("bastion-1", "failure")), "not \"1 times\"")
	require.Equal(t, "dana did login on a and b from 203.0.113.9, 2 times within 5m: T.", say("event_count", host("a", "failure"), host("b", "success")))
	require.Equal(t, "root did process_creation on bastion-1: T.", say("detection", process))
	require.Equal(t, "dana did ConsoleLogin, login on bastion-1 from 203.0.113.9, 2 steps within 5m: T.", say("temporal", trail, host("bastion-1", "success")))
}

func TestBodyIsBounded(t *testing.T) {
	s := schema(t)
	for name, size := range map[string]int{"small": 10, "typical": 1300, "large": 6000, "too large": 40_000} {
		for _, events := range []int{1, 10, 11, 100} {
			t.Run(fmt.Sprintf("%s/%d", name, events), func(t *testing.T) {
				f := findings()["event_count"]
				f.Events, f.Total = nil, events*1000
				for i := range events {
					c := event0(i, strings.Repeat("ü", 300))
					c.ID = strings.Repeat("i", 128)
					c.Entities = &detectionv1.Entities{Principal: strings.Repeat("p", 5000) + fmt.Sprint(i), Resources: []string{fmt.Sprint("r", i)}}
					c.Raw = fmt.Appendf(nil, `{"n": %d, "text": "%s"}`, i, strings.Repeat("<", size))
					f.Events = append(f.Events, c)
				}
				f.Risk = &alertv1.Risk{SignalsTotal: 200}
				signals := 100
				if size == 6000 { // these are to leave room for an event
					signals = 1
				}
				for i := range signals {
					f.Risk.Signals = append(f.Risk.Signals, &alertv1.Scored{RuleId: strings.Repeat("r", 256), Title: strings.Repeat("ü", 256), Score: uint32(200 - i), TimeMs: int64(-i), Tactics: []string{"command-and-control"}, AlertId: f.ID})
				}
				a := New(f)
				require.Len(t, a.GetRisk().GetSignals(), min(signals, maxSignals))
				require.EqualValues(t, 200, a.GetRisk().GetSignals()[min(signals, maxSignals)-1].GetScore(), "in order of time, the greatest of them")
				b, err := Body(a)
				require.NoError(t, err)
				require.LessOrEqual(t, len(b), MaxBody)
				require.True(t, utf8.Valid(b))
				require.GreaterOrEqual(t, len(a.GetEvents()), min(events, leastIDs))
				require.True(t, a.GetTruncated())
				requireValid(t, s, b)
				if size <= 6000 && events <= 11 {
					last := a.GetEvents()[len(a.GetEvents())-1]
					require.Contains(t, string(last.GetEvent()), "<", "the last event is shown first")
				}
			})
		}
	}
}

func TestIDs(t *testing.T) {
	a := CorrelationID("t", "r", "v", []string{"a", "b"}, -3)
	require.Len(t, a, 32)
	require.Equal(t, a, CorrelationID("t", "r", "v", []string{"a", "b"}, -3))
	for _, other := range []string{
		CorrelationID("t", "r", "v", []string{"ab"}, -3), CorrelationID("t", "r", "v", []string{"a", "b"}, 3),
		CorrelationID("u", "r", "v", []string{"a", "b"}, -3), StandAloneID("t", "r", "v", "a"),
		OccurrenceID("t", "r", "v", []string{"a", "b"}, "-3"),
	} {
		require.NotEqual(t, a, other)
	}
	alert := &alertv1.Alert{Id: a, Tenant: "t"}
	updated := &alertv1.Alert{Id: a, Tenant: "t", Type: TypeUpdated}
	require.NotEqual(t, WebhookID(alert), WebhookID(updated))
	require.NotContains(t, WebhookID(alert), ".")
}

func TestEntities(t *testing.T) {
	for name, tc := range map[string]struct {
		raw  string
		want *detectionv1.Entities
	}{
		"no object":          {`[1]`, &detectionv1.Entities{}},
		"no json":            {`{`, &detectionv1.Entities{}},
		"wrong types":        {`{"eventSource":1,"eventName":{},"userIdentity":[],"resources":7}`, &detectionv1.Entities{Outcome: "success"}},
		"assumed role":       {`{"eventSource":"s","eventName":"n","userIdentity":{"arn":"arn:aws:sts::1:assumed-role/admin/alice","sessionContext":{"sessionIssuer":{"userName":"admin"}}}}`, &detectionv1.Entities{Principal: "admin/alice", Action: "n", Outcome: "success"}},
		"service":            {`{"eventSource":"s","eventName":"n","userIdentity":{"type":"AWSService","invokedBy":"config.amazonaws.com"},"errorCode":"AccessDenied"}`, &detectionv1.Entities{Principal: "config.amazonaws.com", Action: "n", Outcome: "AccessDenied"}},
		"failed sign-in":     {`{"eventSource":"s","eventName":"ConsoleLogin","responseElements":{"ConsoleLogin":"Failure"}}`, &detectionv1.Entities{Action: "ConsoleLogin", Outcome: "failure"}},
		"ecs, nested":        {`{"user":{"name":"bob"},"source":{"ip":"192.0.2.1"},"event":{"action":"login","outcome":"failure"},"host":{"name":"web1"}}`, &detectionv1.Entities{Principal: "bob", SourceIp: "192.0.2.1", Action: "login", Outcome: "failure", Resources: []string{"web1"}}},
		"ecs, dotted":        {`{"user.name":"bob","action":"login_failed","src_ip":"192.0.2.1"}`, &detectionv1.Entities{Principal: "bob", SourceIp: "192.0.2.1", Action: "login_failed"}},
		"host sign-in":       {`{"time":"2026-03-02T10:00:00Z","product":"linux","category":"authentication","Hostname":"bastion-1","User":"dana","EventType":"login","Outcome":"failure","SourceIp":"203.0.113.9","LogonMethod":"password"}`, &detectionv1.Entities{Principal: "dana", SourceIp: "203.0.113.9", Action: "login", Outcome: "failure", Resources: []string{"bastion-1"}}},
		"host process":       {`{"product":"linux","category":"process_creation","Hostname":"bastion-1","User":"root","Image":"/usr/bin/nc"}`, &detectionv1.Entities{Principal: "root", Action: "process_creation", Resources: []string{"bastion-1"}}},
		"host connection":    {`{"product":"windows","category":"network_connection","Hostname":"w1","SourceIp":"10.0.0.4","DestinationIp":"192.0.2.1","Image":"C:\\a.exe"}`, &detectionv1.Entities{SourceIp: "10.0.0.4", Action: "network_connection", Resources: []string{"w1"}}},
		"resource as an arn": {`{"eventSource":"s","eventName":"n","resources":[{"ARN":"arn:x"},{},3]}`, &detectionv1.Entities{Action: "n", Outcome: "success", Resources: []string{"arn:x"}}},
	} {
		require.Equal(t, tc.want, Entities([]byte(tc.raw)), name)
	}
}

// FuzzCompact holds that what needs no compacting is what compacting and formatting
// leave as it is.
func FuzzCompact(f *testing.F) {
	for _, text := range []string{`{"a":[1,-2.5e+3,"x",null,true,{}]}`, `{"a": 1}`, `{"a":"b c"}`, `{"a":"<&>\u0041"}`, `{"a":1}x`, `"\x7f"`, `{"a":1`, `{"a":1,"a":2}`, `-0`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !isCompact(new(jsonscan.Scanner), raw) {
			return
		}
		compact := jsontext.Value(bytes.Clone(raw))
		require.NoError(t, compact.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)))
		require.Equal(t, string(raw), string(compact))
		formatted, err := jsontext.AppendFormat(nil, raw, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		require.NoError(t, err)
		require.Equal(t, string(raw), string(formatted))
	})
}

// TestMost holds that a body is never larger than is reckoned, whatever it is of,
// and that an alert of this process reads as one from the log.
func TestMost(t *testing.T) {
	for _, text := range []string{"", "x", "\x01", "\xff", "\u2028", `"\\`, strings.Repeat("\x00", 40)} {
		for kind, f := range findings() {
			f.ID, f.Tenant, f.Condition, f.TraceID, f.BaseURL = text, text, text, text, text
			f.TimeMS, f.StartMS, f.Count, f.Total, f.AtLeast = math.MaxInt64/4, math.MinInt64/4, math.MaxInt, math.MaxInt, true
			f.Rule = &alertv1.Rule{Id: text, Title: text, Level: text, Revision: text, Type: text, Tags: []string{text, text}}
			f.Group = []*alertv1.GroupValue{{Field: text, Value: text}, {Field: text + "2", Value: text}}
			for i := range f.Events {
				c := &f.Events[i]
				c.ID, c.RuleID, c.Source, c.Late = text, text, text, true
				c.Entities = &detectionv1.Entities{Principal: text, SourceIp: text, Resources: []string{text, text + "2"}}
			}
			for _, s := range f.Risk.GetSignals() {
				s.RuleId, s.Title, s.Level, s.AlertId, s.Tactics = text, text, text, text, []string{text, text}
				s.Score, s.TimeMs = math.MaxUint32, math.MaxInt64/4
			}
			a := New(f)
			data, err := Data(a)
			require.NoError(t, err)
			ours, err := AppendData(nil, a, true)
			require.NoError(t, err)
			require.Equal(t, string(data), string(ours), "%s %q", kind, text)
			for _, e := range a.GetEvents() {
				e.Event = nil
			}
			require.LessOrEqual(t, size(a), most(a), "%s %q", kind, text)
		}
	}
}

func TestTimes(t *testing.T) {
	const day = 86_400_000
	for _, ms := range []int64{0, 1, -1, 999, -999, 1_772_445_600_123, day - 1, day, -day, -day - 1, -62_135_596_800_000, 253_402_300_799_999, 253_402_300_800_000, math.MaxInt64 / 4, math.MinInt64 / 4} {
		require.Equal(t, time.UnixMilli(ms).UTC().Format(timeLayout), string(appendTime(nil, ms)), ms)
	}
}

func FuzzEntities(f *testing.F) {
	f.Add([]byte(`{"eventSource":"s","eventName":"n","userIdentity":{"arn":"a/b"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e := Entities(raw)
		require.True(t, utf8.ValidString(e.GetPrincipal()))
	})
}
