package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/run"
)

// patience is how long a condition may take to come true on a busy machine.
const patience = 60 * time.Second

func testEnv(in io.Reader, out, errs io.Writer, environ map[string]string) *environment {
	env := &environment{in: in, out: out, err: errs, getenv: func(name string) string { return environ[name] }}
	for name, value := range environ {
		env.environ = append(env.environ, name+"="+value)
	}
	return env
}

// childArgs names the variable by which the test binary is told to be
// stormbell, with the JSON of its arguments.
const childArgs = "STORMBELL_TEST_CHILD"

// child is stormbell as a process of its own.
func child() int {
	var args []string
	if err := json.Unmarshal([]byte(os.Getenv(childArgs)), &args); err != nil {
		return exitUsage
	}
	ctx, stop := run.Signals(context.Background())
	defer stop()
	env := testEnv(os.Stdin, os.Stdout, os.Stderr, nil)
	return execute(ctx, env, args)
}

// ready is what `up` says of itself.
type ready struct {
	Msg    string
	Key    string
	Listen string
	Admin  string
	Rules  struct{ OK, Rejected int }
}

// instance is a running `stormbell up`.
type instance struct {
	t    *testing.T
	data string
	ready
	minted string // the key that it printed, if any
	errs   *output
	stop   func() int // ends it gracefully and returns the exit code
	kill   func()     // ends it at once; only for children
}

// startUp starts `stormbell up` in this process and waits until it serves.
func startUp(t *testing.T, data string, args ...string) *instance {
	t.Helper()
	return startUpWith(t, data, upArgs(data, args))
}

// startUpWith is startUp with a whole command line.
func startUpWith(t *testing.T, data string, argv []string) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	i := &instance{t: t, data: data, errs: new(output)}
	ended := make(chan int, 1)
	go func() {
		code := execute(ctx, testEnv(strings.NewReader(""), w, i.errs, nil), argv)
		_ = w.Close()
		ended <- code
	}()
	i.stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { i.stop() })
	i.await(r)
	return i
}

// startChild starts `stormbell up` as a process of its own.
func startChild(t *testing.T, data string, args ...string) *instance {
	t.Helper()
	text, err := json.Marshal(upArgs(data, args))
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self) // it is killed, or told to end, by the test
	cmd.Env = append(os.Environ(), childArgs+"="+string(text))
	i := &instance{t: t, data: data, errs: new(output)}
	cmd.Stderr = i.errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	i.stop = sync.OnceValue(func() int {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	})
	i.kill = func() {
		require.NoError(t, cmd.Process.Kill())
		i.stop()
	}
	t.Cleanup(func() { i.stop() })
	i.await(out)
	return i
}

// upArgs leaves out the rules that come with Stormbell: what a test counts is
// its own.
func upArgs(data string, args []string) []string {
	return append([]string{"up", "--data", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--no-default-rules"}, args...)
}

// await reads lines until the instance is ready, and goes on reading so that
// it is never held up.
func (i *instance) await(out io.Reader) {
	i.t.Helper()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var line ready
		require.NoError(i.t, json.Unmarshal(lines.Bytes(), &line), "standard output is lines of JSON")
		if line.Key != "" {
			i.minted = line.Key
		}
		if line.Msg == "ready" {
			i.ready = line
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	require.FailNow(i.t, "it ended before it was ready", i.errs.String())
}

// cli runs a command against the instance.
func (i *instance) cli(stdin string, args ...string) result {
	i.t.Helper()
	return stormbell(i.t, stdin, map[string]string{"STORMBELL_URL": "http://" + i.Listen, "STORMBELL_DATA": i.data}, args...)
}

// must is cli for what must work.
func (i *instance) must(stdin string, args ...string) string {
	i.t.Helper()
	r := i.cli(stdin, args...)
	require.Zero(i.t, r.code, r.err)
	return r.out
}

// logged waits until a line of the log holds all parts.
func (i *instance) logged(parts ...string) {
	i.t.Helper()
	require.Eventually(i.t, func() bool {
		for line := range strings.Lines(i.errs.String()) {
			found := true
			for _, part := range parts {
				found = found && strings.Contains(line, part)
			}
			if found {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond, "no line of the log with %q in:\n%s", parts, i.errs)
}

// inbox receives webhooks.
type inbox struct {
	url string
	got chan received
}

type received struct {
	id   string
	body struct {
		Type string
		Data struct {
			ID    string
			Count int
			Rule  struct{ ID string }
			Group map[string]string
		}
	}
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	in := &inbox{got: make(chan received, 1000)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		d := received{id: r.Header.Get("Webhook-Id")}
		if json.NewDecoder(r.Body).Decode(&d.body) == nil {
			in.got <- d
		}
	}))
	t.Cleanup(server.Close)
	in.url = server.URL
	return in
}

// next waits for a delivery.
func (in *inbox) next(t *testing.T) received {
	t.Helper()
	select {
	case d := <-in.got:
		return d
	case <-time.After(patience):
		require.FailNow(t, "no webhook came")
		return received{}
	}
}

// writeFile writes a file into a directory, which it makes, and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const (
	failedID = "11111111-1111-4111-8111-111111111111"
	manyID   = "22222222-2222-4222-8222-222222222222"
)

// failedLogins are a detection rule and a correlation: three by one user
// within five minutes.
const failedLogins = `title: Login failed
id: ` + failedID + `
name: login_failed
logsource:
  product: app
detection:
  sel:
    action: login_failed
  condition: sel
level: low
---
title: Many failed logins
id: ` + manyID + `
correlation:
  type: event_count
  rules: [login_failed]
  group-by: [user]
  timespan: 5m
  condition:
    gte: 3
level: high
`

const failedLogin = `{"product":"app","action":"login_failed","user":"bob"}` + "\n"
