package story_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/story"
)

// seen is what the tests look at of a CloudTrail record.
type seen struct {
	EventVersion, EventID, EventTime, EventSource, EventName, SourceIPAddress string
	UserIdentity                                                              struct{ Type, ARN, UserName string }
	ResponseElements                                                          struct{ ConsoleLogin string }
	AdditionalEventData                                                       struct{ MFAUsed string }
	RequestParameters                                                         struct{ SecretID string }
}

func read(t *testing.T, e story.Event) seen {
	t.Helper()
	var s seen
	require.NoError(t, json.Unmarshal(e.JSON, &s), "%s", e.JSON)
	return s
}

func noon() time.Time { return time.Date(2026, 3, 2, 12, 3, 0, 0, time.UTC) }

func TestSameTimeSameStory(t *testing.T) {
	once, again := story.Ending(noon()), story.Ending(noon())
	require.Equal(t, once, again)
	later, earlier := story.Ending(noon().Add(time.Hour)), story.Ending(noon())
	require.Len(t, later.Routine, len(earlier.Routine))
	for i := range later.Routine {
		require.Equal(t, time.Hour, later.Routine[i].At.Sub(earlier.Routine[i].At))
		require.Equal(t, earlier.Routine[i].Name, later.Routine[i].Name)
		require.NotEqual(t, read(t, earlier.Routine[i]).EventID, read(t, later.Routine[i]).EventID, "told again, they are other events")
	}
}

func TestRoutine(t *testing.T) {
	day := story.Ending(noon())
	require.Len(t, day.Routine, story.Benign)
	ids, arns, logins := map[string]bool{}, map[string]bool{}, 0
	for i, e := range day.Routine {
		s := read(t, e)
		require.NotEmpty(t, s.EventVersion)
		require.Equal(t, e.At.UTC().Format(time.RFC3339), s.EventTime)
		require.False(t, ids[s.EventID], "event id twice")
		ids[s.EventID], arns[s.UserIdentity.ARN] = true, true
		require.NotContains(t, string(e.JSON), story.Stranger)
		require.NotContains(t, string(e.JSON), "/"+story.Victim, "who is on leave does nothing")
		require.NotContains(t, []string{"CreateAccessKey", "StopLogging"}, e.Name)
		if e.Name == "ConsoleLogin" {
			require.Equal(t, "Yes", s.AdditionalEventData.MFAUsed)
			logins++
		}
		require.False(t, e.At.After(noon()))
		if i > 0 {
			require.False(t, e.At.Before(day.Routine[i-1].At), "in order")
		}
	}
	require.Equal(t, 7, logins)
	require.GreaterOrEqual(t, len(arns), 11, "a handful of people, deployments and applications")
}

func TestAttack(t *testing.T) {
	for _, now := range []time.Time{noon(), noon().Add(2*time.Minute + 29*time.Second), noon().Add(2*time.Minute + 30*time.Second)} {
		day := story.Ending(now)
		var names []string
		secrets := map[string]bool{}
		for i, e := range day.Attack {
			s := read(t, e)
			names = append(names, s.EventName)
			require.Equal(t, story.Stranger, s.SourceIPAddress)
			require.Equal(t, "arn:aws:iam::111122223333:user/"+story.Victim, s.UserIdentity.ARN)
			if e.Name == "GetSecretValue" {
				secrets[s.RequestParameters.SecretID] = true
			}
			require.True(t, i == 0 || e.At.After(day.Attack[i-1].At))
		}
		want := []string{"ConsoleLogin", "CreateAccessKey"}
		for range story.Secrets {
			want = append(want, "GetSecretValue")
		}
		require.Equal(t, append(want, "StopLogging"), names)
		require.Len(t, secrets, story.Secrets)

		login := read(t, day.Attack[0])
		require.Equal(t, "Success", login.ResponseElements.ConsoleLogin)
		require.Equal(t, "No", login.AdditionalEventData.MFAUsed)
		first, last := day.Attack[2].At, day.Attack[1+story.Secrets].At
		require.Equal(t, first.Truncate(5*time.Minute), last.Truncate(5*time.Minute), "all reads lie within five minutes of the clock")

		require.True(t, day.Host.At.After(day.Attack[len(day.Attack)-1].At))
		require.False(t, day.Host.At.After(now), "nothing lies ahead")
		require.Less(t, now.Sub(day.Host.At), 6*time.Minute)
		var host map[string]string
		require.NoError(t, json.Unmarshal(day.Host.JSON, &host))
		require.Equal(t, map[string]string{
			"time": day.Host.At.UTC().Format(time.RFC3339), "product": "linux", "category": "authentication", "Hostname": "bastion-1",
			"User": story.Victim, "EventType": "login", "Outcome": "success", "SourceIp": story.Stranger,
		}, host)
	}
}

// TestRecordsLookReal holds that records have the members that rules ask for,
// and of which kind.
func TestRecordsLookReal(t *testing.T) {
	day := story.Ending(noon())
	for _, e := range append(day.Routine, day.Attack...) {
		var r map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(e.JSON, &r))
		for _, name := range []string{"eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress", "userAgent", "requestParameters", "responseElements", "eventID", "readOnly", "eventType", "managementEvent", "recipientAccountId", "eventCategory"} {
			require.Contains(t, r, name, "%s", e.JSON)
		}
		require.False(t, strings.Contains(string(e.JSON), "{n}") || strings.Contains(string(e.JSON), "{x}"), "a gap was left: %s", e.JSON)
		require.Less(t, len(e.JSON), 4096)
	}
}
