package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// listening is a running `stormbell webhooks listen`.
type listening struct {
	t        *testing.T
	out, err *output
	stop     func()
	ended    chan int
}

// listen starts the command against an instance and waits until it is there.
func (i *instance) startListening(args ...string) *listening {
	i.t.Helper()
	ctx, cancel := context.WithCancel(i.t.Context())
	l := &listening{t: i.t, out: new(output), err: new(output), stop: cancel, ended: make(chan int, 1)}
	env := testEnv(strings.NewReader(""), l.out, l.err, map[string]string{"STORMBELL_URL": "http://" + i.Listen, "STORMBELL_DATA": i.data})
	go func() { l.ended <- execute(ctx, env, append([]string{"webhooks", "listen"}, args...)) }()
	i.t.Cleanup(func() { cancel() })
	l.said(l.err, "Listening on http://127.0.0.1:")
	return l
}

// said waits for text.
func (l *listening) said(where *output, text string) {
	l.t.Helper()
	require.Eventually(l.t, func() bool { return strings.Contains(where.String(), text) }, patience, 5*time.Millisecond, "no %q in:\n%s\n%s", text, l.out, l.err)
}

// end waits for the exit code.
func (l *listening) end() int {
	l.t.Helper()
	select {
	case code := <-l.ended:
		return code
	case <-time.After(patience):
		require.FailNow(l.t, "it does not end", "%.2000s\n%s", l.out, l.err)
		return -1
	}
}

func (i *instance) webhooks() []string {
	i.t.Helper()
	out := i.must("", "webhooks", "list", "-o", "json")
	return strings.Split(strings.TrimSpace(out), "\n")
}

// failFast makes the first retries quick. The last pause makes the time that
// they have in all long enough for a slow machine.
func failFast(t *testing.T) string {
	t.Helper()
	return writeFile(t, t.TempDir(), "c.yaml", "notifier: {schedule: [0s, 50ms, 50ms, 50ms, 10m]}\n")
}

func startFailedLogins(t *testing.T) *instance {
	t.Helper()
	rules := filepath.Dir(writeFile(t, t.TempDir(), "failed.yml", failedLogins))
	return startUp(t, filepath.Join(t.TempDir(), "data"), "--rules", rules, "--config", failFast(t))
}

func TestListen(t *testing.T) {
	i := startFailedLogins(t)
	l := i.startListening("--min-level", "high")
	require.Len(t, i.webhooks(), 1)
	require.Contains(t, i.webhooks()[0], `"expires_at"`, "it ends by itself if the command is killed")
	i.must(strings.Repeat(failedLogin, 3), "send", "-")
	l.said(l.out, "answered 204")
	require.Regexp(t, `^high          bob did login_failed, 3 times within .*: Many failed logins\.
  rule      `+manyID+`, event_count
  trace     [0-9a-f]{32}
  message   msg_[0-9a-v]{32}, attempt 1, verified, answered 204
$`, l.out.String())
	l.stop()
	require.Zero(t, l.end(), l.err.String())
	require.Equal(t, []string{""}, i.webhooks(), "the webhook is removed")
}

// TestListenFails answers three attempts with 500: the fourth is accepted.
func TestListenFails(t *testing.T) {
	i := startFailedLogins(t)
	l := i.startListening("--fail", "500,3", "--count", "1", "-o", "json", "--print-headers", "--rule", manyID)
	i.must(strings.Repeat(failedLogin, 3), "send", "-")
	require.Zero(t, l.end(), l.err.String())
	var ids, answers []string
	for line := range strings.Lines(l.out.String()) {
		var d delivery
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		ids = append(ids, d.ID)
		answers = append(answers, fmt.Sprint(d.Number, ": ", d.Status))
		require.Equal(t, d.ID, d.Headers["webhook-id"])
		require.NotEmpty(t, d.Headers["traceparent"])
	}
	require.Equal(t, []string{"1: 500", "2: 500", "3: 500", "4: 204"}, answers)
	require.Equal(t, []string{ids[0], ids[0], ids[0], ids[0]}, ids, "all attempts are of one message")
	require.Equal(t, []string{""}, i.webhooks())
}

// TestListenForwards passes messages on to a receiver that verifies them
// itself, and refuses the first.
func TestListenForwards(t *testing.T) {
	i := startFailedLogins(t)
	secretFile := filepath.Join(t.TempDir(), "secret")
	got := make(chan error, 10)
	n := 0 // the second comes after the first was answered
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		secret, err := os.ReadFile(secretFile)
		if err == nil {
			var verifier *standardwebhooks.Webhook
			if verifier, err = standardwebhooks.NewWebhook(strings.TrimSpace(string(secret))); err == nil {
				err = verifier.Verify(body, r.Header)
			}
		}
		got <- err
		if n++; n == 1 {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(server.Close)
	l := i.startListening("--forward", server.URL+"/hooks", "--secret-file", secretFile, "--count", "1", "--rule", manyID, "--print-headers")
	info, err := os.Stat(secretFile)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	i.must(strings.Repeat(failedLogin, 3), "send", "-")
	require.Zero(t, l.end(), l.err.String())
	require.Len(t, got, 2)
	require.NoError(t, <-got)
	require.NoError(t, <-got)
	require.Regexp(t, `(?s)attempt 1, verified, answered 418\n  forward   forwarded, answered 418 after \d+ ms\n  header    content-length: .*attempt 2, verified, answered 200\n`, l.out.String())

	// The secret of the file is used again; a receiver that is not there is told.
	server.Close()
	before, err := os.ReadFile(secretFile)
	require.NoError(t, err)
	l = i.startListening("--forward", server.URL, "--secret-file", secretFile, "--rule", manyID)
	i.must(strings.ReplaceAll(strings.Repeat(failedLogin, 3), "bob", "eve"), "send", "-")
	l.said(l.out, "answered 500\n  forward   not forwarded: dial tcp")
	after, err := os.ReadFile(secretFile)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	l.stop()
	require.Zero(t, l.end())
}

// TestListenRefuses shows that what is not signed with its secret is neither
// printed nor accepted.
func TestListenRefuses(t *testing.T) {
	i := startUp(t, t.TempDir())
	l := i.startListening()
	address := strings.Fields(l.err.String())[2]
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	resp, err := client.Post(address, "application/json", strings.NewReader(`{"type":"forged"}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	l.said(l.err, "refused a message that does not verify")
	require.Empty(t, l.out.String())
	l.stop()
	require.Zero(t, l.end())
}

// TestListenTerminated ends it as a service manager does.
func TestListenTerminated(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process")
	}
	i := startUp(t, filepath.Join(t.TempDir(), "data"))
	args, err := json.Marshal([]string{"webhooks", "listen", "--url", "http://" + i.Listen, "--key-file", filepath.Join(i.data, "api-key")})
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childArgs+"="+string(args))
	errs := new(output)
	cmd.Stderr = errs
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return strings.Contains(errs.String(), "Listening on ") }, patience, 5*time.Millisecond)
	require.Len(t, i.webhooks(), 1)
	require.NotEmpty(t, i.webhooks()[0])
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), errs.String())
	require.Equal(t, []string{""}, i.webhooks())
}

func TestListenFlags(t *testing.T) {
	key := writeFile(t, t.TempDir(), "key", "sbk_0_0\n")
	bad := writeFile(t, t.TempDir(), "secret", "not one\n")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"fail":        {[]string{"--fail", "often"}, `--fail "often": use a status from 300 to 599 and a number: 500,3`},
		"fail well":   {[]string{"--fail", "200,1"}, "use a status from 300 to 599"},
		"fail never":  {[]string{"--fail", "500,0"}, "use a status from 300 to 599"},
		"forward":     {[]string{"--forward", "127.0.0.1:1/x"}, "--forward: use http://HOST:PORT/PATH"},
		"secret file": {[]string{"--secret-file", bad}, bad + " does not hold a signing secret, which begins with whsec_"},
		"listen":      {[]string{"--listen", "256.0.0.1:0"}, "choose another address with --listen"},
	} {
		t.Run(name, func(t *testing.T) {
			r := stormbell(t, "", nil, append([]string{"webhooks", "listen", "--key-file", key}, tc.args...)...)
			require.NotZero(t, r.code)
			require.Contains(t, r.err, tc.want)
		})
	}
}
