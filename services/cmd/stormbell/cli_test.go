package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCommandLines(t *testing.T) {
	dir := t.TempDir()
	empty := t.TempDir()
	key := writeFile(t, dir, "key", "sbk_x\n")
	for name, tc := range map[string]struct {
		args []string
		code int
		err  string // what standard error says, but for the pointer to help
	}{
		"unknown command":    {[]string{"frobnicate"}, exitUsage, "unknown command `stormbell frobnicate`"},
		"unknown subcommand": {[]string{"rules", "chekc"}, exitUsage, "unknown command `stormbell rules chekc`\nDid you mean `stormbell rules check`?"},
		"unknown flag":       {[]string{"up", "--port", "1"}, exitUsage, `unknown flag --port`},
		"unknown short flag": {[]string{"up", "-x"}, exitUsage, `unknown flag -x`},
		"flag value":         {[]string{"eval", "--workers", "many"}, exitUsage, `--workers "many": use a whole number`},
		"flag without value": {[]string{"send", "--source"}, exitUsage, `--source needs a value: name of the configured source that the events come from (default: detect)`},
		"duration":           {[]string{"send", "--retry-for", "long"}, exitUsage, `--retry-for "long": use a time such as 30s, 5m or 2h`},
		"argument too many":  {[]string{"version", "now"}, exitUsage, "`stormbell version` takes no arguments, got \"now\""},
		"two where one goes": {[]string{"webhooks", "remove", "a", "b"}, exitUsage, "`stormbell webhooks remove` takes at most 1 argument, got 2: stormbell webhooks remove ID [flags]"},
		"argument missing":   {[]string{"rules", "check"}, exitUsage, "`stormbell rules check` needs 1 argument: stormbell rules check PATH… [flags]"},
		"no rules":           {[]string{"eval"}, exitUsage, `-r: name the rules to run`},
		"output":             {[]string{"status", "--output", "xml"}, exitUsage, `--output "xml": use text or json`},
		"output of eval":     {[]string{"eval", "-r", dir, "-o", "xml"}, exitUsage, `--output "xml": use ndjson, json, text or brief`},
		"shell":              {[]string{"completion", "tcsh"}, exitUsage, `no completion for "tcsh": use bash, zsh, fish or powershell`},
		"workers":            {[]string{"eval", "-r", dir, "--workers", "0"}, exitUsage, `--workers 0: use 1 to 1024`},
		"source":             {[]string{"eval", "-r", dir, "--source", "x"}, exitUsage, `unknown source "x": known are agent, or leave it out`},
		"rules not there":    {[]string{"rules", "check", "/no/such"}, exitFailed, `read rules: stat /no/such: no such file or directory`},
		"nothing to push":    {[]string{"rules", "push", empty, "--key-file", key}, exitFailed, empty + ` holds no rules (*.yml, *.yaml): --allow-empty would switch all rules of the tenant off`},
		"no key":             {[]string{"status"}, exitFailed, `no API key: ` + dir + `/none/api-key does not exist, which the first ` + "`stormbell up`" + ` makes: name a key with --key-file or STORMBELL_API_KEY`},
		"key in the clear":   {[]string{"status", "--url", "http://example.com"}, exitUsage, `--url http://example.com would send the API key unencrypted to another machine: use https, or --insecure`},
		"config key":         {[]string{"config", "check", "--config", writeFile(t, dir, "a.yaml", "gateway:\n  lisen: x\n")}, exitFailed, `configuration ` + dir + `/a.yaml: line 2: unknown key "lisen"`},
		"config value":       {[]string{"config", "check", "--config", writeFile(t, dir, "b.yaml", "topics: {partitions: 0}\n")}, exitFailed, `topics.partitions: 0 must be from 1 to 1024`},
		"config process":     {[]string{"config", "check", "--for", "archive"}, exitFailed, `unknown process "archive": use up, gateway, correlator or notifier`},
		"cluster's broker":   {[]string{"up", "--data", empty, "--config", writeFile(t, dir, "c.yaml", "kafka: {brokers: [k:9092]}\n")}, exitFailed, "kafka.brokers: `stormbell up` brings its own broker: remove the setting, or run gateway, correlator and notifier for a cluster"},
		"key file to write":  {[]string{"keys", "bootstrap"}, exitUsage, `--out or --from-file: name a new file for the key, or one that holds a key`},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, "", map[string]string{"STORMBELL_DATA": filepath.Join(dir, "none")}, tc.args...)
			require.Equal(t, tc.code, r.code, r.err)
			said := strings.TrimSuffix(r.err, "\n")
			if tc.code == exitUsage {
				require.Regexp(t, "\nSee `stormbell[a-z ]* --help`\\.$", said)
				said = said[:strings.LastIndex(said, "\n")]
			}
			require.Equal(t, "stormbell: "+tc.err, said)
			require.Empty(t, r.out)
		})
	}
}

func TestVersion(t *testing.T) {
	r := stormbell(t, "", nil, "version")
	require.Zero(t, r.code)
	require.Regexp(t, `^stormbell \S+ go1\.\d+\S* \w+/\w+( commit [0-9a-f]{12})?\n$`, r.out)
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := stormbell(t, "", nil, "completion", shell)
		require.Zero(t, r.code, r.err)
		require.Contains(t, r.out, "stormbell", shell)
	}
}

func TestConfigPrint(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, dir, "c.yaml", "gateway: {listen: 127.0.0.1:1234}\ncorrelator: {slack: 90s}\n")
	env := map[string]string{
		"STORMBELL_CONFIG": path, "STORMBELL_GATEWAY_LISTEN": "127.0.0.1:4321",
		"STORMBELL_REDIS_PASSWORD": "canary-password", "STORMBELL_SEAL_ROOT_KEY": "canary-root-key", "STORMBELL_KAFKA_SASL_PASSWORD": "canary-sasl",
	}
	r := stormbell(t, "", env, "config", "print")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "listen: 127.0.0.1:4321", "the environment comes after the file")
	require.Contains(t, r.out, "slack: 1m30s")
	require.NotContains(t, r.out+r.err, "canary")
	// What is printed can be read again.
	again := stormbell(t, "", nil, "config", "check", "--config", writeFile(t, dir, "printed.yaml", strings.ReplaceAll(r.out, "'[redacted]'", `""`)))
	require.Equal(t, "settings: ok\n", again.out, again.err)
	require.Empty(t, again.err)

	r = stormbell(t, "", map[string]string{"STORMBELL_KAFKA_BROKER": "canary"}, "config", "check")
	require.Equal(t, "stormbell: warning: the environment variable STORMBELL_KAFKA_BROKER is no setting\n", r.err)
	require.Equal(t, "settings: ok\n", r.out)
}

func TestRulesCheck(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "good.yml", failedLogins)
	writeFile(t, dir, "sub/bad.yaml", "title: No condition\nid: 55555555-5555-4555-8555-555555555555\nlogsource:\n  product: app\ndetection:\n  sel:\n    a|nope: 1\n    b|nada: 2\n")
	writeFile(t, dir, "sub/broken.yml", "title: [\n")
	writeFile(t, dir, "sub/README.md", "not a rule")
	writeFile(t, dir, ".git/ignored.yml", "title: [\n")

	r := stormbell(t, "", nil, "rules", "check", filepath.Join(dir, "good.yml"))
	require.Equal(t, result{exitOK, "rules: 2 ok, 0 rejected\n", ""}, r)

	r = stormbell(t, "", nil, "rules", "check", dir)
	require.Equal(t, exitFailed, r.code)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Len(t, lines, 3, r.out)
	require.Regexp(t, `^`+dir+`/sub/bad.yaml:\d+: .*`, lines[0])
	require.Regexp(t, `^`+dir+`/sub/broken.yml:1: .*`, lines[1])
	require.Equal(t, "rules: 2 ok, 2 rejected", lines[2])

	// Placeholders are settings: without them the rule means nothing.
	expand := writeFile(t, t.TempDir(), "expand.yml", strings.Replace(strings.Split(failedLogins, "---")[0], "action: login_failed", "action|expand: '%actions%'", 1))
	r = stormbell(t, "", nil, "rules", "check", expand)
	require.Equal(t, exitFailed, r.code, r.out)
	r = stormbell(t, "", nil, "rules", "check", expand, "--config", writeFile(t, t.TempDir(), "c.yaml", "rules: {placeholders: {actions: [login_failed]}}\n"))
	require.Equal(t, result{exitOK, "rules: 1 ok, 0 rejected\n", ""}, r)
}

func TestRulesPush(t *testing.T) {
	i := startUp(t, filepath.Join(t.TempDir(), "data"))
	dir := t.TempDir()
	writeFile(t, dir, "failed.yml", failedLogins)
	r := i.cli("", "rules", "push", dir)
	require.Equal(t, "rules: 2 ok, 0 rejected\n", r.out, r.err)
	require.Zero(t, r.code)
	require.Regexp(t, `(?m)^`+failedID+` +detection +tenant +0 +- +- +- +failed.yml:1 +Login failed$`, i.must("", "rules", "list"))

	// The good version of the bad rule stays.
	writeFile(t, dir, "failed.yml", strings.Replace(failedLogins, "action: login_failed", "action|nonsense: x", 1))
	writeFile(t, dir, "other.yml", strings.NewReplacer(failedID, "33333333-3333-4333-8333-333333333333", "login_failed", "odd").Replace(strings.Split(failedLogins, "---")[0]))
	r = i.cli("", "rules", "push", dir)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, "failed.yml:8: detection.sel.action|nonsense: ")
	require.Regexp(t, `\nrules: 1 ok, 2 rejected\n$`, r.out)
	require.Contains(t, r.err, "kept in force")
	require.Len(t, strings.Split(strings.TrimSpace(i.must("", "rules", "list", "-o", "json")), "\n"), 3)
}
