package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPipelinesTravelWithRules holds that pipelines change rules the same way
// wherever they run: evaluated, read from a directory, pushed by a tenant, and
// after a start without the setting, since who runs rules reads no settings
// about them.
func TestPipelinesTravelWithRules(t *testing.T) {
	dir, in := t.TempDir(), newInbox(t)
	pipeline := writeFile(t, dir, "pipe.yml", "name: app\ntransformations:\n  - type: field_name_mapping\n    mapping: {action: what.done, user: who}\n")
	config := writeFile(t, dir, "stormbell.yaml", "rules: {pipelines: ["+pipeline+"]}\n")
	rules := filepath.Dir(writeFile(t, dir, "rules/failed.yml", failedLogins))
	events := writeFile(t, dir, "events.ndjson", strings.NewReplacer(`"action":"login_failed"`, `"what":{"done":"login_failed"}`, `"user":`, `"who":`).Replace(
		login("bob", "00:00")+login("bob", "01:00")+login("bob", "02:00")))

	r := stormbell(t, "", nil, "eval", "-r", rules, events)
	require.Zero(t, r.code, r.err)
	require.Empty(t, r.out, "without a pipeline no field is there")
	r = stormbell(t, "", nil, "eval", "--config", config, "-r", rules, events)
	require.Zero(t, r.code, r.err)
	var want []string
	for _, a := range alertsOf(t, r.out) {
		want = append(want, a.ID)
	}
	require.NotEmpty(t, want)
	require.Contains(t, r.out, `"user":"bob"`, "a group has the names that the rule uses")
	slices.Sort(want)
	arrive := func() {
		t.Helper()
		var got []string
		for range want {
			got = append(got, in.next(t).body.Data.ID)
		}
		slices.Sort(got)
		require.Equal(t, want, got)
	}

	data := filepath.Join(dir, "data")
	i := startUp(t, data, "--rules", rules, "--config", config)
	require.Equal(t, 2, i.Rules.OK)
	require.Zero(t, i.Rules.Rejected)
	i.must("", "webhooks", "add", in.url)
	i.must("", "send", events)
	arrive()
	require.Len(t, strings.Split(strings.TrimSpace(i.must("", "rules", "list", "-o", "json")), "\n"), 2, "pipelines are no rules")

	// Who asks why, and has no such setting, is told of the rule in force.
	why := i.cli(`{"product":"app","what":{"done":"login_failed"},"who":"bob"}`, "rules", "explain", failedID)
	require.Zero(t, why.code, why.out+why.err)
	require.Empty(t, why.err)
	why = i.cli(`{"product":"app","action":"login_failed","user":"bob"}`, "rules", "explain", failedID)
	require.Equal(t, exitFailed, why.code, "the field has another name: %s", why.out)

	// A change of the file changes the rules in force.
	writeFile(t, dir, "pipe.yml", "name: app\ntransformations:\n  - type: field_name_mapping\n    mapping: {action: nowhere}\n")
	i.logged("rules in force", `"ok":2`)
	require.Zero(t, i.stop())

	// As a tenant's own, with other data, where the alerts are new again.
	writeFile(t, dir, "pipe.yml", "name: app\ntransformations:\n  - type: field_name_mapping\n    mapping: {action: what.done, user: who}\n")
	data = filepath.Join(dir, "other")
	i = startUp(t, data, "--config", config)
	i.must("", "rules", "push", rules)
	require.Zero(t, i.stop())
	i = startUp(t, data)
	i.must("", "webhooks", "add", in.url)
	i.must("", "send", events)
	arrive()
}

func TestPipelinesRefused(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Dir(writeFile(t, dir, "rules/failed.yml", failedLogins))
	for name, c := range map[string]struct{ pipelines, says string }{
		"not there":    {dir + "/none.yml", "rules.pipelines: pipeline: read rules: open " + dir + "/none.yml"},
		"unknown name": {"sysmon", `rules.pipelines: pipeline "sysmon": name a YAML file (*.yml, *.yaml) or a built-in one (windows-security,`},
		"bad one":      {writeFile(t, dir, "bad.yml", "name: x\ntransformations:\n- type: nonsense\n"), "rules.pipelines: pipeline: " + dir + "/bad.yml:3: transformations.1.type"},
		"a rule":       {writeFile(t, dir, "rule.yml", failedLogins), "rules.pipelines: pipeline: " + dir + "/rule.yml:1"},
		"empty":        {writeFile(t, dir, "empty.yml", "# nothing\n"), "holds none"},
	} {
		t.Run(name, func(t *testing.T) {
			environ := map[string]string{"STORMBELL_RULES_PIPELINES": c.pipelines}
			for _, args := range [][]string{{"rules", "check", rules}, {"config", "check"}, {"eval", "-r", rules}} {
				r := stormbell(t, "", environ, args...)
				require.Equal(t, exitFailed, r.code, args)
				require.Contains(t, r.err, c.says, args)
			}
		})
	}
	r := stormbell(t, "", map[string]string{"STORMBELL_RULES_PIPELINES": "sysmon"}, "config", "check", "--for", "correlator")
	require.Zero(t, r.code, "who runs rules needs no pipelines: %s", r.err)
}

// TestWindowsSecurity holds that rules of the Security log match host events
// by way of the built-in pipeline.
func TestWindowsSecurity(t *testing.T) {
	dir := t.TempDir()
	rule := func(id, detection string) string {
		return "title: " + id + "\nid: " + id + "\nlogsource: {product: windows, service: security}\ndetection:\n    sel: " + detection + "\n    condition: sel\nlevel: low\n---\n"
	}
	rules := filepath.Dir(writeFile(t, dir, "rules/all.yml", rule("failed", "{EventID: 4625, TargetUserName: dana, IpAddress|cidr: 203.0.113.0/24}")+
		rule("done", "{EventID: 4624, LogonType: 10}")+rule("either", "{EventID: [4624, 4625]}")+rule("process", "{EventID: 4688}")))
	event := func(kind, outcome string) string {
		return `{"time":"2026-03-02T10:00:00Z","product":"windows","category":"authentication","Hostname":"pc-7","User":"dana","SourceIp":"203.0.113.9","LogonType":10,"EventType":"` + kind + `","Outcome":"` + outcome + `"}` + "\n"
	}
	environ := map[string]string{"STORMBELL_RULES_PIPELINES": "windows-security"}
	found := func(text string) (ids []string) {
		r := stormbell(t, text, environ, "eval", "-r", rules, "--source", "agent", "-")
		require.Zero(t, r.code, r.err)
		for _, a := range alertsOf(t, r.out) {
			ids = append(ids, a.Rule.ID)
		}
		slices.Sort(ids)
		return ids
	}
	require.Equal(t, []string{"either", "failed"}, found(event("login", "failure")))
	require.Equal(t, []string{"done", "either"}, found(event("login", "success")))
	require.Empty(t, found(event("logout", "success")))
	native := `{"product":"windows","service":"security","EventID":4688}`
	r := stormbell(t, native, environ, "eval", "-r", rules, "-")
	require.Contains(t, r.out, `"id":"process"`, "rules for other events are as they were")
	environ = nil
	require.Empty(t, found(event("login", "failure")))
}

// TestPublicRulesMatchHostEvents runs public Linux and Windows rules, as they
// are, over host events that do what these rules are about.
func TestPublicRulesMatchHostEvents(t *testing.T) {
	rules := filepath.Join(shared(t), "corpora", "sigmahq", "rules")
	if _, err := os.Stat(rules); err != nil {
		t.Skip("the corpora are not here: SHARED names their directory")
	}
	const head = `{"time":"2026-03-02T10:00:00Z","Hostname":"h","User":"dana",`
	for name, c := range map[string]struct{ dir, event, title string }{
		"linux process":      {"linux", `"product":"linux","category":"process_creation","Image":"/usr/bin/nohup","CommandLine":"nohup /tmp/x"}`, "Nohup Execution"},
		"linux connection":   {"linux", `"product":"linux","category":"network_connection","Image":"/usr/bin/bash","DestinationIp":"203.0.113.9","DestinationHostname":"x.ngrok.io","Initiated":true}`, "Linux Reverse Shell Indicator"},
		"linux file":         {"linux", `"product":"linux","category":"file_event","Image":"/usr/bin/tee","TargetFilename":"/etc/sudoers.d/x"}`, "Persistence Via Sudoers.d Files"},
		"linux sign-in":      {"linux", `"product":"linux","category":"authentication","service":"sshd","EventType":"login","Outcome":"failure","Message":"fatal: bad ownership or modes: unexpected bytes remain after decoding"}`, "Suspicious OpenSSH Daemon Error"},
		"windows process":    {"windows/process_creation", `"product":"windows","category":"process_creation","Image":"C:\\Windows\\System32\\whoami.exe","OriginalFileName":"whoami.exe","CommandLine":"whoami /priv","ParentImage":"C:\\Windows\\System32\\cmd.exe"}`, "Security Privileges Enumeration Via Whoami.EXE"},
		"windows connection": {"windows/network_connection", `"product":"windows","category":"network_connection","Image":"C:\\Windows\\System32\\certutil.exe","DestinationIp":"203.0.113.9","DestinationPort":443,"Initiated":"true"}`, "Uncommon Network Connection Initiated By Certutil.EXE"},
		"windows sign-in":    {"windows/builtin/security", `"product":"windows","category":"authentication","EventType":"login","Outcome":"failure","SourceIp":"203.0.113.9"}`, "Failed Logon From Public IP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, head+c.event, map[string]string{"STORMBELL_RULES_PIPELINES": "windows-security"}, "eval", "-r", filepath.Join(rules, filepath.FromSlash(c.dir)), "--source", "agent", "-")
			require.Zero(t, r.code, r.err)
			var titles []string
			for _, a := range alertsOf(t, r.out) {
				titles = append(titles, a.Rule.Title)
			}
			require.Contains(t, titles, c.title)
		})
	}
}

// shared is the directory of public corpora.
func shared(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("SHARED"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "..", "..", "shared")
}
