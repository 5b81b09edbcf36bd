package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	trailID = "66666666-6666-4666-8666-666666666666"
	mfaID   = "77777777-7777-4777-8777-777777777777"
)

const trailDeleted = `title: Trail deleted
id: ` + trailID + `
logsource:
  product: PRODUCT
  service: cloudtrail
detection:
  sel:
    eventName: DeleteTrail
    userIdentity.type|startswith: [Root, IAM]
  tool:
    userAgent|contains: terraform
  condition: sel and not tool
`

const withoutMFA = `title: Without MFA
id: ` + mfaID + `
logsource:
  product: app
detection:
  sel:
    action: login_failed
    session.mfa: false
  condition: sel
`

func trailEvent(name, kind, agent string) string {
	return `{"eventVersion":"1.08","eventID":"e-1","eventTime":"2026-03-01T10:00:00Z","eventName":"` + name +
		`","userIdentity":{"type":"` + kind + `"},"userAgent":"` + agent + `"}` + "\n"
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	trail := writeFile(t, dir, "trail.yml", strings.Replace(trailDeleted, "PRODUCT", "aws", 1))
	awss := writeFile(t, dir, "awss.yml", strings.Replace(trailDeleted, "PRODUCT", "awss", 1))
	mfa := writeFile(t, dir, "mfa.yml", withoutMFA)
	logins := writeFile(t, dir, "failed.yml", failedLogins)
	for name, tc := range map[string]struct {
		args  []string
		event string
		code  int
		out   []string
	}{
		"matches": {[]string{trail}, trailEvent("DeleteTrail", "Root", "cli"), exitOK, []string{"event 1 (aws/cloudtrail): 'Trail deleted' matches"}},
		"another value": {[]string{trail}, trailEvent("PutObject", "Root", "cli"), exitFailed, []string{
			"event 1 (aws/cloudtrail): 'Trail deleted' does not match", "  eventName is 'PutObject', wanted 'DeleteTrail'",
		}},
		"several": {[]string{trail}, trailEvent("PutObject", "AWSService", "cli"), exitFailed, []string{
			"event 1 (aws/cloudtrail): 'Trail deleted' does not match", "  eventName is 'PutObject', wanted 'DeleteTrail'",
			"  userIdentity.type is 'AWSService', wanted startswith 'Root', 'IAM'",
		}},
		"excluded": {[]string{trail}, trailEvent("DeleteTrail", "Root", "terraform/1"), exitFailed, []string{
			"event 1 (aws/cloudtrail): 'Trail deleted' does not match", "  'tool' holds, which the condition excludes",
		}},
		"no field": {[]string{mfa}, failedLogin, exitFailed, []string{
			"event 1 (app): 'Without MFA' does not match", "  field session.mfa is not in the event, wanted false",
		}},
		"another source": {[]string{awss}, trailEvent("DeleteTrail", "Root", "cli"), exitFailed, []string{
			"event 1 (aws/cloudtrail): 'Trail deleted' does not match", "  the rule is for product 'awss', service 'cloudtrail'; the event is of aws/cloudtrail",
		}},
		"correlation": {[]string{logins}, failedLogin, exitOK, []string{
			"event 1 (app): 'Many failed logins' counts", "  rule 'Login failed' matches, and the event is counted in the group user=bob",
		}},
		"no group": {[]string{logins}, `{"product":"app","action":"login_failed","User":"bob"}`, exitFailed, []string{
			"event 1 (app): 'Many failed logins' does not count", "  rule 'Login failed' matches, but the event is not counted: it lacks field user of group-by",
		}},
		"no base": {[]string{logins}, `{"product":"app","action":"login","user":"bob"}`, exitFailed, []string{
			"event 1 (app): 'Many failed logins' does not count", "  rule 'Login failed' does not match: action is 'login', wanted 'login_failed'",
		}},
		"by title": {[]string{"-r", dir, "login failed"}, failedLogin, exitOK, []string{"event 1 (app): 'Login failed' matches"}},
		"by id":    {[]string{"-r", logins, failedID}, failedLogin, exitOK, []string{"event 1 (app): 'Login failed' matches"}},
		"several events": {
			[]string{mfa, "-q"},
			failedLogin + `{"product":"app","action":"login_failed","session":{"mfa":false}}`, exitOK,
			[]string{"events: 2, matched: 1"},
		},
		"an array": {[]string{mfa, "-q"}, "[" + failedLogin + "," + failedLogin + "]", exitFailed, []string{"events: 2, matched: 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, tc.event, nil, append([]string{"rules", "explain"}, tc.args...)...)
			require.Equal(t, tc.code, r.code, r.err)
			require.Equal(t, strings.Join(tc.out, "\n")+"\n", r.out)
		})
	}

	r := stormbell(t, failedLogin, nil, "rules", "explain", logins, "-o", "json")
	require.Zero(t, r.code, r.err)
	require.JSONEq(t, `{"user":"bob"}`, string(field(t, r.out, "group")))
	require.JSONEq(t, `true`, string(field(t, r.out, "matches")))
	r = stormbell(t, "", nil, "rules", "explain", logins)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "no event to explain")
	r = stormbell(t, failedLogin, nil, "rules", "explain", logins, "--source", "nosuch")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.err, `unknown source "nosuch"`)
}

// status waits until the status holds, and returns it.
func (i *instance) status(ok func(*status) bool) *status {
	i.t.Helper()
	s := new(status)
	require.Eventually(i.t, func() bool {
		*s = status{}
		require.NoError(i.t, json.Unmarshal([]byte(i.must("", "status", "-o", "json")), s))
		return ok(s)
	}, patience, 50*time.Millisecond, "%+v", s)
	return s
}

// says reports whether a hint of that kind is there, as it is printed.
func (s *status) says(line string) bool {
	for _, h := range s.Hints {
		if h.line() == "hint: "+line {
			return true
		}
	}
	return false
}

// TestWrongSetUps holds that "accepted, and then nothing" is explained in one
// sentence, with what to do.
func TestWrongSetUps(t *testing.T) {
	rules := filepath.Dir(writeFile(t, t.TempDir(), "failed.yml", failedLogins))
	writeFile(t, rules, "trail.yml", strings.Replace(trailDeleted, "PRODUCT", "awss", 1))
	writeFile(t, rules, "mfa.yml", withoutMFA)
	data := filepath.Join(t.TempDir(), "data")
	i := startUp(t, data, "--rules", rules, "--no-default-rules")
	require.True(t, i.status(func(s *status) bool { return len(s.Stages) == 4 }).says("no event has come yet: stormbell send FILE"))

	i.must(strings.Repeat(failedLogin, 3), "send", "-")
	s := i.status(func(s *status) bool { return s.says("1 alert had no subscriber: stormbell webhooks add URL") })
	require.EqualValues(t, 3, s.Counts["received"].Count)
	require.EqualValues(t, 3, s.Counts["matched"].Count)
	require.EqualValues(t, 3, s.Counts["detections"].Count)
	require.EqualValues(t, 1, s.Counts["alerts"].Count)
	require.NotNil(t, s.Counts["alerts"].Last)
	require.EqualValues(t, 1, s.OpenGroups)

	require.True(t, s.says("rule 'Trail deleted' is for product 'awss', and no event of that product has come (came: app): stormbell rules explain "+trailID+" < event.json"), s.Hints)
	r := i.cli(trailEvent("DeleteTrail", "Root", "cli"), "rules", "explain", trailID)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, "the rule is for product 'awss', service 'cloudtrail'; the event is of aws/cloudtrail")
	r = i.cli(failedLogin, "send", "--source", "awss", "-")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "unknown source: known are agent")

	require.True(t, s.says("rule 'Without MFA' was asked 3 times and has never matched: field session.mfa, which it needs, was in none of the events that it fits otherwise: stormbell rules explain "+mfaID+" < event.json"), s.Hints)
	r = i.cli(failedLogin, "rules", "explain", "without mfa")
	require.Equal(t, "event 1 (app): 'Without MFA' does not match\n  field session.mfa is not in the event, wanted false\n", r.out, r.err)
	require.Contains(t, i.cli(failedLogin, "rules", "explain", manyID).out, "counted in the group user=bob")

	list := i.must("", "rules", "list")
	require.Regexp(t, `(?m)^`+failedID+` +detection +all +3 +\S+ ago +- `, list)
	require.Regexp(t, `(?m)^`+manyID+` +correlation +all +1 +\S+ ago +1 `, list)
	require.Regexp(t, `(?m)^`+mfaID+` +detection +all +0 +- +- +- `, list)

	// What was counted survives the process, and who listens now is not blamed.
	in := newInbox(t)
	i.must("", "webhooks", "add", in.url)
	require.Zero(t, i.stop())
	i = startUp(t, data, "--rules", rules, "--no-default-rules")
	s = i.status(func(s *status) bool { return s.Counts["received"].Count == 3 && len(s.Stages) == 4 })
	require.EqualValues(t, 1, s.Counts["alerts"].Count)
	require.False(t, s.says("1 alert had no subscriber: stormbell webhooks add URL"))
	i.must(strings.Repeat(strings.Replace(failedLogin, "bob", "eve", 1), 3), "send", "-")
	in.next(t)
	s = i.status(func(s *status) bool { return s.Counts["received"].Count == 6 && s.Counts["delivered"].Count == 1 })
	require.EqualValues(t, 2, s.Counts["alerts"].Count)
	require.Contains(t, i.must("", "status"), "delivered           1 ")
}

func TestSendHints(t *testing.T) {
	i := startUp(t, filepath.Join(t.TempDir(), "data"))
	r := i.cli(trailEvent("PutObject", "Root", "cli"), "send", "-")
	require.Equal(t, "sent: 1, accepted: 1, late: 1, rejected: 0\n", r.out)
	require.Contains(t, r.err, "hint: all events are late")
	r = i.cli("[1,2]\n", "send", "-")
	require.Equal(t, "sent: 2, accepted: 0, late: 0, rejected: 2\n", r.out, r.err)
	require.Contains(t, r.err, "hint: all events were rejected")
	r = i.cli(failedLogin, "send", "-")
	require.NotContains(t, r.err, "hint")
	s := i.status(func(s *status) bool { return s.Counts["received"].Count == 2 })
	require.EqualValues(t, 1, s.Counts["late"].Count)
	require.EqualValues(t, 2, s.Counts["rejected"].Count)
}
