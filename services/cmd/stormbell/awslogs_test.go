package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const awsLogs = `gateway:
  sources: [{name: s3, format: s3access}, {name: lb, format: elb}, {name: flows, format: vpcflow}]
rules:
  pipelines: [%s]
`

func s3Line(request, status, agent string) string {
	return `o b [02/Mar/2026:10:00:00 +0000] 192.0.2.3 - R7 REST.GET.OBJECT k "` + request + `" ` + status + ` - 1 1 1 1 "-" "` + agent + `" -` + "\n"
}

func lbLine(request, status, agent string) string {
	return `2026-03-02T10:00:00Z lb 192.0.2.9:2817 10.0.0.1:80 0 0 0 ` + status + ` 200 0 0 "` + request + `" "` + agent + `" - -` + "\n"
}

func flowLine(port int, action string) string {
	return fmt.Sprintf("2 1 eni-7 192.0.2.9 10.0.0.4 51000 %d 6 20 4249 1772445540 1772445600 %s OK\n", port, action)
}

// TestPublicRulesMatchAWSLogs runs public rules of the categories webserver,
// proxy and firewall, as they are, over lines of AWS's logs by way of the
// built-in pipelines.
func TestPublicRulesMatchAWSLogs(t *testing.T) {
	rules := filepath.Join(shared(t), "corpora", "sigmahq", "rules")
	if _, err := os.Stat(rules); err != nil {
		t.Skip("the corpora are not here: SHARED names their directory")
	}
	dir := t.TempDir()
	for name, c := range map[string]struct{ pipeline, source, dir, good, bad, title string }{
		"s3, user agent":   {"aws-s3access", "s3", "web", s3Line("GET /b/k HTTP/1.1", "200", "sqlmap/1.7"), s3Line("GET /b/k HTTP/1.1", "200", "curl/8"), "Suspicious User-Agents Related To Recon Tools"},
		"s3, status":       {"aws-s3access", "s3", "web", s3Line("GET /b/k?q=<script> HTTP/1.1", "200", "-"), s3Line("GET /b/k?q=<script> HTTP/1.1", "404", "-"), "Cross Site Scripting Strings"},
		"s3, method":       {"aws-s3access", "s3", "web", s3Line("GET /b/k?q=<script> HTTP/1.1", "200", "-"), s3Line("PUT /b/k?q=<script> HTTP/1.1", "200", "-"), "Cross Site Scripting Strings"},
		"s3, query":        {"aws-s3access", "s3", "web", s3Line("GET /b/k?f=../../../etc/passwd HTTP/1.1", "200", "-"), s3Line("GET /b/k?f=/etc/passwd HTTP/1.1", "200", "-"), "Path Traversal Exploitation Attempts"},
		"elb, query":       {"aws-elb", "lb", "web", lbLine("GET http://h:80/k?f=../../../etc/passwd HTTP/1.1", "200", "-"), lbLine("GET http://h:80/k?f=1 HTTP/1.1", "200", "-"), "Path Traversal Exploitation Attempts"},
		"elb, status":      {"aws-elb", "lb", "web", lbLine("GET http://h:80/k?q=union%20select%20* HTTP/1.1", "200", "-"), lbLine("GET http://h:80/k?q=union%20select%20* HTTP/1.1", "404", "-"), "SQL Injection Strings In URI"},
		"elb, proxy":       {"aws-elb", "lb", "web", lbLine("GET http://h:80/ HTTP/1.1", "200", "dirbuster"), lbLine("GET http://h:80/ HTTP/1.1", "200", "curl/8"), "Hack Tool User Agent"},
		"elb, proxy, host": {"aws-elb", "lb", "web", lbLine("GET https://api.telegram.org:443/ HTTP/1.1", "200", "curl/8"), lbLine("GET https://telegram.example:443/ HTTP/1.1", "200", "curl/8"), "Telegram API Access"},
		"flow, port":       {"aws-vpcflow", "flows", "network", flowLine(23, "ACCEPT"), flowLine(443, "ACCEPT"), "Cleartext Protocol Usage"},
		"flow, action":     {"aws-vpcflow", "flows", "network", flowLine(23, "ACCEPT"), flowLine(23, "REJECT"), "Cleartext Protocol Usage"},
	} {
		t.Run(name, func(t *testing.T) {
			found := func(pipeline, line string) (titles []string) {
				config := writeFile(t, dir, "stormbell.yaml", fmt.Sprintf(awsLogs, pipeline))
				r := stormbell(t, line, nil, "eval", "--config", config, "-r", filepath.Join(rules, c.dir), "--source", c.source, "-")
				require.Zero(t, r.code, r.err)
				for _, a := range alertsOf(t, r.out) {
					titles = append(titles, a.Rule.Title)
				}
				return titles
			}
			require.Contains(t, found(c.pipeline, c.good), c.title)
			require.NotContains(t, found(c.pipeline, c.bad), c.title)
			require.NotContains(t, found("", c.good), c.title, "without the pipeline")
		})
	}
}

// TestAWSPipelinesRenameActions holds that what firewalls call their actions is
// what flow logs say.
func TestAWSPipelinesRenameActions(t *testing.T) {
	dir := t.TempDir()
	rule := func(id, detection string) string {
		return "title: " + id + "\nid: " + id + "\nlogsource: {category: firewall}\ndetection:\n    sel: " + detection + "\n    condition: sel\nlevel: low\n---\n"
	}
	rules := writeFile(t, dir, "all.yml", rule("denied", "{action: [deny, drop], src_ip|cidr: 192.0.2.0/24}")+rule("allowed", "{action: Allow, src_port: 51000, dst_ip: 10.0.0.4}"))
	config := writeFile(t, dir, "stormbell.yaml", fmt.Sprintf(awsLogs, "aws-elb, aws-vpcflow"))
	r := stormbell(t, flowLine(22, "REJECT")+flowLine(22, "ACCEPT"), nil, "eval", "--config", config, "-r", rules, "--source", "flows", "-")
	require.Zero(t, r.code, r.err)
	var ids []string
	for _, a := range alertsOf(t, r.out) {
		ids = append(ids, a.Rule.ID)
	}
	slices.Sort(ids)
	require.Equal(t, []string{"allowed", "denied"}, ids)
}

// TestHeaderOfFlowLogs holds that a file's header counts for all of its lines,
// however many chunks or requests they make, and for no other file.
func TestHeaderOfFlowLogs(t *testing.T) {
	dir, in := t.TempDir(), newInbox(t)
	rules := filepath.Dir(writeFile(t, dir, "rules/ssh.yml", "title: ssh\nid: ssh\nlogsource: {product: aws, service: vpcflow}\ndetection:\n    sel: {dstport: 22}\n    condition: sel\nlevel: low\n"))
	config := writeFile(t, dir, "stormbell.yaml", fmt.Sprintf(awsLogs, ""))
	const lines = 2*chunkEvents + batchEvents
	own := writeFile(t, dir, "a.log", "dstport srcaddr action end\n"+strings.Repeat("443 192.0.2.1 ACCEPT 1772445600\n", lines-1)+"22 192.0.2.1 ACCEPT 1772445600\n")
	usual := writeFile(t, dir, "b.log", flowLine(22, "ACCEPT")+flowLine(443, "ACCEPT"))

	for _, workers := range []string{"1", "3"} {
		r := stormbell(t, "", nil, "eval", "--config", config, "-r", rules, "--source", "flows", "--workers", workers, own, usual)
		require.Zero(t, r.code, r.err)
		require.Len(t, alertsOf(t, r.out), 2)
		require.Contains(t, r.err, fmt.Sprintf("events: %d, rejected: 0", lines+2))
	}

	i := startUp(t, filepath.Join(dir, "data"), "--rules", rules, "--config", config)
	i.must("", "webhooks", "add", in.url)
	r := i.cli("", "send", "--source", "flows", own, usual)
	require.Zero(t, r.code, r.out+r.err)
	require.Contains(t, r.out, fmt.Sprint(lines+2))
	first, second := in.next(t).body.Data.ID, in.next(t).body.Data.ID
	require.NotEqual(t, first, second)
}
