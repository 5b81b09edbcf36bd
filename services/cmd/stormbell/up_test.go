package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUpJourney(t *testing.T) {
	data, in := filepath.Join(t.TempDir(), "data"), newInbox(t)
	rules := filepath.Dir(writeFile(t, t.TempDir(), "failed.yml", failedLogins))
	i := startUp(t, data, "--rules", rules)
	require.Equal(t, 2, i.Rules.OK)
	require.Zero(t, i.Rules.Rejected)
	key, err := os.ReadFile(filepath.Join(data, "api-key"))
	require.NoError(t, err)
	require.Equal(t, i.minted+"\n", string(key))
	for _, name := range []string{"api-key", "root-key"} {
		info, err := os.Stat(filepath.Join(data, name))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode(), name)
	}
	require.Contains(t, i.must("", "keys", "list"), "ingest,read,manage")

	i.must("", "webhooks", "add", in.url)
	i.must(failedLogin+failedLogin+failedLogin, "send", "-")
	first := in.next(t)
	require.Equal(t, "stormbell.alert.v1", first.body.Type)
	require.Equal(t, manyID, first.body.Data.Rule.ID)
	require.Equal(t, 3, first.body.Data.Count)
	require.Equal(t, map[string]string{"user": "bob"}, first.body.Data.Group)

	require.Zero(t, i.stop(), i.errs.String())
	again := startUp(t, data, "--rules", rules)
	require.Empty(t, again.minted, "the second start keeps the key")
	kept, err := os.ReadFile(filepath.Join(data, "api-key"))
	require.NoError(t, err)
	require.Equal(t, string(key), string(kept))
	again.must(strings.ReplaceAll(failedLogin+failedLogin+failedLogin, "bob", "eve"), "send", "-")
	require.Equal(t, map[string]string{"user": "eve"}, in.next(t).body.Data.Group, "bob's alert is not sent again")
	require.Zero(t, again.stop(), again.errs.String())
}

// TestUpKilled posts two events, kills the process and posts the third: the
// three add up, again and again.
func TestUpKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	data, in := filepath.Join(t.TempDir(), "data"), newInbox(t)
	rules := filepath.Dir(writeFile(t, t.TempDir(), "failed.yml", failedLogins))
	i := startChild(t, data, "--rules", rules)
	i.must("", "webhooks", "add", in.url)
	for _, user := range []string{"ann", "bea", "cat"} {
		login := strings.ReplaceAll(failedLogin, "bob", user)
		i.must(login+login, "send", "-")
		i.kill()
		i = startChild(t, data, "--rules", rules)
		require.Empty(t, i.minted)
		i.must(login, "send", "-")
		d := in.next(t)
		require.Equal(t, map[string]string{"user": user}, d.body.Data.Group)
		require.Equal(t, 3, d.body.Data.Count)
	}
	require.Zero(t, i.stop(), i.errs.String())
}

func TestUpRefuses(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	i := startUp(t, data)
	busy := i.Listen
	free := []string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}
	other := func() string { return filepath.Join(t.TempDir(), "other") }
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"directory in use":  {append([]string{"up", "--data", data}, free...), []string{data, "in use by process", "--data"}},
		"port in use":       {[]string{"up", "--data", other(), "--listen", busy, "--admin", "127.0.0.1:0"}, []string{busy, "--listen"}},
		"admin port in use": {[]string{"up", "--data", other(), "--listen", "127.0.0.1:0", "--admin", busy}, []string{busy, "--admin"}},
		"no such rules":     {append([]string{"up", "--data", other(), "--rules", "/no/such/dir"}, free...), []string{"/no/such/dir", "no such file"}},
		"open to others":    {append([]string{"up", "--data", other()}, "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"), []string{"TLS", "insecure"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, "", nil, tc.args...)
			require.Equal(t, exitFailed, r.code)
			lines := strings.Split(strings.TrimSpace(r.err), "\n")
			last := lines[len(lines)-1]
			for _, want := range tc.want {
				require.Contains(t, last, want)
			}
			require.True(t, strings.HasPrefix(last, "stormbell: "), last)
			require.NotContains(t, r.out, `"ready"`)
		})
	}
}

func TestUpMissesRootKey(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	i := startUp(t, data)
	i.must("", "webhooks", "add", "http://127.0.0.1:9/")
	require.Zero(t, i.stop())
	root := filepath.Join(data, "root-key")
	require.NoError(t, os.Rename(root, root+".away"))
	r := stormbell(t, "", nil, upArgs(data, nil)...)
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "root-key is missing")
	require.NoFileExists(t, root, "a new key would make what was sealed useless for good")
	require.NoError(t, os.Rename(root+".away", root))
	require.Contains(t, startUp(t, data).must("", "webhooks", "list"), "http://127.0.0.1:9")
}

func TestUpReplacesLostKey(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	i := startUp(t, data)
	first := i.minted
	require.Zero(t, i.stop())
	require.NoError(t, os.Remove(filepath.Join(data, "api-key")))
	i = startUp(t, data)
	require.NotEmpty(t, i.minted)
	require.NotEqual(t, first, i.minted)
	i.must("", "keys", "list")
}

// TestUpKeepsSecrets looks for secrets wherever they must not be.
func TestUpKeepsSecrets(t *testing.T) {
	data, in := filepath.Join(t.TempDir(), "data"), newInbox(t)
	rules := filepath.Dir(writeFile(t, t.TempDir(), "failed.yml", failedLogins))
	i := startUp(t, data, "--rules", rules)
	added := i.must("", "webhooks", "add", in.url+"/hook/canary-in-url")
	headers := writeFile(t, t.TempDir(), "headers", "X-Canary: canary-in-header\n")
	i.must("", "webhooks", "add", in.url, "--header-file", headers)
	i.must(failedLogin+failedLogin+failedLogin, "send", "-")
	in.next(t)
	in.next(t)
	require.Zero(t, i.stop())

	secret := regexp.MustCompile(`secret: whsec_(\S+)`).FindStringSubmatch(added)
	require.Len(t, secret, 2)
	raw, err := base64.StdEncoding.DecodeString(secret[1])
	require.NoError(t, err)
	id, hidden, ok := strings.Cut(strings.TrimPrefix(i.minted, "sbk_"), "_")
	require.True(t, ok)
	canaries := map[string][]byte{
		"API key": []byte(hidden), "signing secret": []byte(secret[1]), "raw signing secret": raw,
		"URL": []byte("canary-in-url"), "header": []byte("canary-in-header"),
	}
	// What is known to be there is found: the search does search.
	require.NotEmpty(t, holders(t, data, []byte(id)))
	for name, canary := range canaries {
		require.Empty(t, holders(t, data, canary), name)
		require.NotContains(t, i.errs.String(), string(canary), name)
	}
}

// holders returns the files beneath dir that hold text, but for the two that
// are made to hold keys.
func holders(t *testing.T, dir string, text []byte) (found []string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if name := entry.Name(); filepath.Dir(path) == dir && (name == "api-key" || name == "root-key") {
			return nil
		}
		content, err := os.ReadFile(path)
		files++
		if bytes.Contains(content, text) {
			found = append(found, path)
		}
		return err
	}))
	require.NotZero(t, files)
	return found
}

func TestUpWatchesRules(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path := writeFile(t, dir, "failed.yml", failedLogins)
	data := filepath.Join(t.TempDir(), "data")
	i := startUp(t, data, "--rules", dir)
	titles := func() map[string]string {
		got := make(map[string]string)
		for line := range strings.Lines(i.must("", "rules", "list", "-o", "json")) {
			var r rule
			require.NoError(t, json.Unmarshal([]byte(line), &r))
			got[r.ID] = r.Title
		}
		return got
	}
	require.Len(t, titles(), 2)

	// A new file in a new directory.
	other := strings.NewReplacer(failedID, "33333333-3333-4333-8333-333333333333", manyID, "44444444-4444-4444-8444-444444444444", "login_failed", "login_odd").Replace(failedLogins)
	writeFile(t, dir, "deeper/other.yaml", other)
	require.Eventually(t, func() bool { return len(titles()) == 4 }, patience, 20*time.Millisecond)

	// A bad rule, even one that cannot be parsed, does not replace a good one.
	writeFile(t, dir, "failed.yml", strings.Replace(failedLogins, "    action: login_failed", "    action|nonsense: login_failed", 1))
	i.logged("rule rejected", path+":8", "nonsense")
	require.Equal(t, "Login failed", titles()[failedID])
	require.Len(t, titles(), 4)

	// Nor does it after a restart.
	require.Zero(t, i.stop())
	i = startUp(t, data, "--rules", dir)
	require.Equal(t, 2, i.Rules.OK)
	require.Equal(t, 2, i.Rules.Rejected, "the correlation refers to the bad rule")
	require.Len(t, titles(), 4)

	// A change that no watch sees, and a signal.
	target := writeFile(t, elsewhere, "linked.yml", strings.Replace(failedLogins, "Login failed", "Before", 1))
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink(target, path))
	require.Eventually(t, func() bool { return titles()[failedID] == "Before" }, patience, 20*time.Millisecond)
	writeFile(t, elsewhere, "linked.yml", strings.Replace(failedLogins, "Login failed", "After", 1))
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.Eventually(t, func() bool { return titles()[failedID] == "After" }, patience, 20*time.Millisecond)

	// What is removed is gone.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "deeper")))
	require.Eventually(t, func() bool { return len(titles()) == 2 }, patience, 20*time.Millisecond)
}

func TestUpStatus(t *testing.T) {
	i := startUp(t, filepath.Join(t.TempDir(), "data"))
	out := i.must("", "status")
	require.Regexp(t, `(?m)^gateway: +ready$`, out)
	require.Regexp(t, `(?m)^partitions: 4$`, out)
	require.JSONEq(t, `true`, string(field(t, i.must("", "status", "-o", "json"), "ready")))

	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	require.Eventually(t, func() bool {
		resp, err := client.Get("http://" + i.Admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond)
	_, _, err := net.SplitHostPort(i.Admin)
	require.NoError(t, err)
}

func field(t *testing.T, text, name string) json.RawMessage {
	t.Helper()
	var all map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(text), &all))
	return all[name]
}
