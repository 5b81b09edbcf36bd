package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// forSource is a rule for a log source that matches where f is x.
func forSource(n int, logsource, condition string) string {
	return fmt.Sprintf("title: Rule %d\nid: 00000000-0000-4000-8000-%012d\nlogsource: %s\ndetection: {s: {f: x}, t: {f: y}, condition: %s}\n---\n", n, n, logsource, condition)
}

func TestRulesCheckWarns(t *testing.T) {
	rules := writeFile(t, t.TempDir(), "rules.yml", forSource(1, "{product: aws}", "s or t")+forSource(2, "{product: aws}", "s and not s or s and t and not s")+forSource(3, "{product: aws}", "s"))
	r := stormbell(t, "", nil, "rules", "check", rules)
	require.Equal(t, result{0, "rules: 3 ok, 0 rejected\n", r.err}, r)
	lines := strings.Split(strings.TrimSpace(r.err), "\n")
	require.Len(t, lines, 2, r.err)
	require.Contains(t, lines[0], `rules.yml:9: warning: detection: no event can match this rule: the conditions on "f" contradict each other`)
	require.Contains(t, lines[1], "rules.yml:14: warning: detection.t: is not used by the condition")
}

func TestRulesCheckCoverage(t *testing.T) {
	dir := t.TempDir()
	rules := writeFile(t, dir, "rules.yml", forSource(1, "{product: aws, service: cloudtrail}", "s or t")+forSource(2, "{product: linux, category: process_creation}", "s or t")+
		forSource(3, "{category: webserver}", "s or t")+forSource(4, "{product: okta, service: okta}", "s or t")+"title: Bad\n")
	r := stormbell(t, "", nil, "rules", "check", "--coverage", rules)
	require.Equal(t, exitFailed, r.code)
	require.Equal(t, `PRODUCT  CATEGORY          SERVICE     RULES  SOURCES
-        webserver         -           1      agent
aws      -                 cloudtrail  1      cloudtrail
linux    process_creation  -           1      agent
okta     -                 okta        1      -
coverage: 3 of 4 detection rules have a source
`, r.out[:strings.Index(r.out, rules)])
	config := writeFile(t, dir, "config.yaml", "gateway:\n  sources:\n    - {name: nginx, format: json, product: nginx, category: webserver}\n    - {name: sso, product: Okta}\n")
	r = stormbell(t, "", nil, "rules", "check", "--coverage", "--config", config, rules)
	require.Contains(t, r.out, "webserver         -           1      agent, nginx, sso\n")
	require.Contains(t, r.out, "cloudtrail  1      cloudtrail, sso\n")
	require.Contains(t, r.out, "okta        1      sso\n")
	require.Contains(t, r.out, "coverage: 4 of 4")
}
