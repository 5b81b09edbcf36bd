package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
)

// archive packs one file, as `tar -czf` would.
func archive(t *testing.T, path, name, text string) string {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	zip := gzip.NewWriter(f)
	w := tar.NewWriter(zip)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o600}))
	_, err = w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, zip.Close())
	require.NoError(t, f.Close())
	return path
}

// TestRulePacks holds that an archive and a checkout do wherever a directory does.
func TestRulePacks(t *testing.T) {
	dir := t.TempDir()
	pack := archive(t, filepath.Join(dir, "pack.tar.gz"), "pack-1.0/failed.yml", failedLogins)
	checkout := filepath.Dir(writeFile(t, dir, "checkout/failed.yml", failedLogins))
	commit := strings.Repeat("0123456789", 4)
	writeFile(t, dir, "checkout/.git/HEAD", "ref: refs/heads/main\n")
	writeFile(t, dir, "checkout/.git/refs/heads/main", commit+"\n")
	writeFile(t, dir, "checkout/.git/config.yml", "no rule")

	versions := map[string]rulefiles.Pack{}
	for _, path := range []string{pack, checkout} {
		r := stormbell(t, "", nil, "rules", "check", "-o", "json", path)
		require.Zero(t, r.code, r.err)
		var report ruleReport
		require.NoError(t, json.Unmarshal([]byte(r.out), &report))
		require.Equal(t, 2, report.OK)
		require.Len(t, report.Packs, 1)
		versions[path] = report.Packs[0]
	}
	version := versions[pack].Version
	require.Equal(t, version, versions[checkout].Version)
	require.Equal(t, commit, versions[checkout].Commit)
	r := stormbell(t, "", nil, "rules", "check", checkout)
	require.Equal(t, "rules: 2 ok, 0 rejected\n", r.out)
	require.Contains(t, r.err, checkout+": version "+version[:12]+", commit 012345678901\n")

	r = stormbell(t, "", nil, "rules", "check", checkout, pack)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.out, pack+"/pack-1.0/failed.yml:1: id: ")
	require.Contains(t, r.out, "is taken by the rule in "+checkout+"/failed.yml:1: give one of them another")
	require.Contains(t, r.out, "rules: 2 ok, 2 rejected")

	events := writeFile(t, dir, "events.ndjson", login("bob", "00:00")+login("bob", "01:00")+login("bob", "02:00"))
	evaluated := stormbell(t, "", nil, "eval", "-q", "-r", pack, events)
	require.Equal(t, stormbell(t, "", nil, "eval", "-q", "-r", checkout, events).out, evaluated.out)
	require.NotEmpty(t, evaluated.out)

	i := startUp(t, filepath.Join(dir, "data"), "--no-default-rules", "--rules", pack)
	require.Equal(t, 2, i.Rules.OK)
	listed := i.cli("", "rules", "list")
	require.Contains(t, listed.err, "version: all tenants "+version[:12]+", own none\n", "the manifest's hash is the pack's version")
	require.Contains(t, listed.out, pack+"/pack-1.0/failed.yml:1")
	i.must("", "rules", "push", "--allow-empty", t.TempDir())
	archive(t, pack, "pack-1.1/failed.yml", strings.Replace(failedLogins, "Login failed", "After", 1))
	require.Eventually(t, func() bool { return strings.Contains(i.must("", "rules", "list"), "After") }, patience, 20*time.Millisecond)
}

// TestPushArchive holds that a tenant's rules may come from an archive.
func TestPushArchive(t *testing.T) {
	dir := t.TempDir()
	pack := archive(t, filepath.Join(dir, "pack.tgz"), "rules/failed.yml", failedLogins)
	i := startUp(t, filepath.Join(dir, "data"), "--no-default-rules")
	require.Contains(t, i.must("", "rules", "push", pack), "rules: 2 ok, 0 rejected")
	require.Contains(t, i.must("", "rules", "list"), "rules/failed.yml:1")
	require.NotContains(t, i.must("", "rules", "list"), dir, "of one path the names beneath it are told")

	bad := archive(t, filepath.Join(dir, "bad.tgz"), "../failed.yml", failedLogins)
	r := i.cli("", "rules", "push", bad)
	require.Equal(t, exitFailed, r.code)
	require.Equal(t, "stormbell: read rules: "+bad+": entry \"../failed.yml\": lies outside of the archive\n", r.err)
}
