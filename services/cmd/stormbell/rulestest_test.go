package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const failedTests = `base:
    failed: {product: app, action: login_failed, user: bob}
tests:
    - name: three within five minutes
      events: [{base: failed, repeat: 3, every: 1m}]
      expect: [{rule: login_failed, fires: 3}, {rule: ` + manyID + `, count: 3, group: {user: bob}}]
    - name: three of three users
      events: [{base: failed, event: {user: 'user{n}'}, repeat: 3}]
      expect: [{rule: login_failed, fires: 3}]
    - name: a login
      events: [{base: failed, event: {action: login}}]
      expect: []
`

func TestRulesTest(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "failed.yml", failedLogins)
	tests := writeFile(t, dir, "failed.test.yml", failedTests)
	r := stormbell(t, "", nil, "rules", "test", dir)
	require.Zero(t, r.code, r.out)
	require.Equal(t, "tests: 3 ok, 0 failed\n", r.out)
	require.Empty(t, r.err)
	r = stormbell(t, "", nil, "rules", "test", "-v", tests)
	require.Zero(t, r.code, r.out)
	require.Equal(t, tests+":4: ok: three within five minutes\n"+tests+":7: ok: three of three users\n"+tests+":10: ok: a login\ntests: 3 ok, 0 failed\n", r.out)

	// Tests are no rules.
	r = stormbell(t, "", nil, "rules", "check", dir, tests)
	require.Zero(t, r.code, r.out)
	require.Equal(t, "rules: 2 ok, 0 rejected\n", r.out)

	// What fails is told with its place and its reason.
	writeFile(t, dir, "failed.test.yml", strings.Replace(failedTests, "{action: login}}]\n      expect: []", "{action: login}}]\n      expect: [{rule: login_failed}]", 1))
	r = stormbell(t, "", nil, "rules", "test", dir)
	require.Equal(t, exitFailed, r.code)
	require.Equal(t, tests+`:12: failed: a login: "Login failed" matches 0 events, not 1
    event 1 (line 11): sel: action: "login_failed" does not hold, the event has "login"
tests: 2 ok, 1 failed
`, r.out)
	r = stormbell(t, "", nil, "rules", "test", "--output", "json", dir)
	require.Equal(t, exitFailed, r.code)
	var report struct {
		OK, Failed int
		Tests      []struct {
			File, Name string
			Line       int
			Failures   []struct {
				Line          int
				Rule, Message string
				Why           []string
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &report))
	require.Equal(t, 2, report.OK)
	require.Equal(t, 1, report.Failed)
	require.Len(t, report.Tests, 3)
	require.Empty(t, report.Tests[0].Failures)
	require.Equal(t, failedID, report.Tests[2].Failures[0].Rule)
	require.Equal(t, 12, report.Tests[2].Failures[0].Line)
	require.Len(t, report.Tests[2].Failures[0].Why, 1)
}

func TestRulesTestGaps(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, dir, "failed.yml", failedLogins)
	r := stormbell(t, "", nil, "rules", "test", dir)
	require.Zero(t, r.code, r.out)
	require.Equal(t, "tests: 0 ok, 0 failed\n", r.out)
	require.Contains(t, r.err, path+`:1: warning: "Login failed" has no test: write `+filepath.Join(dir, "failed.test.yml")+"\n")
	r = stormbell(t, "", nil, "rules", "test", "--require", dir)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, path+`:1: "Login failed" has no test`)
	require.Empty(t, r.err)
	writeFile(t, dir, "failed.test.yml", failedTests)
	require.Zero(t, stormbell(t, "", nil, "rules", "test", "--require", dir).code)

	// A rule that is rejected fails, tested or not.
	writeFile(t, dir, "bad.yml", "title: Bad\nlogsource: {product: p}\ndetection: {condition: none}\n")
	r = stormbell(t, "", nil, "rules", "test", dir)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, filepath.Join(dir, "bad.yml")+":3: ")
}

// TestRulesTestWith tests a correlation whose rules stand elsewhere.
func TestRulesTestWith(t *testing.T) {
	dir, others := t.TempDir(), t.TempDir()
	rule, many, ok := strings.Cut(failedLogins, "---\n")
	require.True(t, ok)
	writeFile(t, others, "failed.yml", rule)
	path := writeFile(t, dir, "many.yml", many)
	writeFile(t, dir, "many.test.yml", strings.Replace(failedTests, "      expect: []", "      expect: 0", 1))
	require.Equal(t, exitFailed, stormbell(t, "", nil, "rules", "test", path).code)
	r := stormbell(t, "", nil, "rules", "test", "--require", path, "--with", others, "--with", dir)
	require.Zero(t, r.code, r.out)
	require.Equal(t, "tests: 3 ok, 0 failed\n", r.out)
}

// TestRulesTestDefaults runs the tests of the rules that come with Stormbell,
// which is also what a tenant without files of its own can do.
func TestRulesTestDefaults(t *testing.T) {
	r := stormbell(t, "", nil, "rules", "test", "--require", "stormbell:")
	require.Zero(t, r.code, r.out)
	require.Regexp(t, `^tests: \d{3} ok, 0 failed\n$`, r.out)
	r = stormbell(t, "", nil, "rules", "check", "stormbell:")
	require.Zero(t, r.code, r.out)
	require.Regexp(t, `^rules: \d+ ok, 0 rejected\n$`, r.out)
}
