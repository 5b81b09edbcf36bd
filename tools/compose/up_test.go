package compose_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long something may take to come true on a busy machine.
const patience = 3 * time.Minute

// stack is a project of its own: its containers, volumes and secrets are no
// one else's.
type stack struct {
	t    *testing.T
	env  []string
	port string
	key  string
}

// TestUp starts what deployments/compose says, as far as its images are there,
// and plays the journey on it: an event comes out as a verified webhook. Then
// servers go and come back.
func TestUp(t *testing.T) {
	if os.Getenv("STORMBELL_COMPOSE") == "" {
		t.Skip("needs Docker, images of Kafka and Redis and those of `make images-load`: `make test-compose` runs it")
	}
	for _, args := range [][]string{{"info"}, {"compose", "version"}, {"image", "inspect", "stormbell/stormbell:dev"}} {
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		require.NoError(t, err, "docker %s: %s", strings.Join(args, " "), out)
	}
	s := up(t)
	t.Run("setup may be repeated", func(t *testing.T) {
		require.Contains(t, s.compose("run", "--rm", "setup"), "known already")
	})
	t.Run("an event becomes a verified webhook", func(t *testing.T) { s.journey("mallory") })
	t.Run("the command line reaches the services", func(t *testing.T) {
		require.Contains(t, s.cli("status"), "gateway")
	})
	t.Run("correlator is killed, and starts again", func(t *testing.T) {
		s.compose("kill", "correlator")
		s.send("trent")
		received := s.listen(1)
		s.compose("up", "-d", "--wait", "correlator")
		require.Contains(t, <-received, "trent")
	})
	t.Run("kafka is away", func(t *testing.T) {
		s.compose("stop", "kafka")
		code, header := s.post()
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.NotEmpty(t, header.Get("Retry-After"))
		s.compose("start", "kafka")
		require.Eventually(t, func() bool { code, _ := s.post(); return code == http.StatusAccepted }, patience, 200*time.Millisecond)
		s.journey("peggy")
	})
	t.Run("redis forgets everything", func(t *testing.T) {
		s.compose("restart", "redis") // which keeps nothing on disk
		s.journey("victor")
	})
	t.Run("no process was restarted", func(t *testing.T) {
		for _, name := range []string{"gateway", "notifier"} {
			require.Equal(t, "0", strings.TrimSpace(s.docker("inspect", "--format", "{{.RestartCount}}", s.container(name))), name)
		}
	})
}

func up(t *testing.T) *stack {
	t.Helper()
	secrets := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	envFile := filepath.Join(secrets, "env")
	s := &stack{t: t, port: port}
	s.env = append(os.Environ(), "SECRETS="+secrets, "ENV_FILE="+envFile, "GATEWAY_PORT="+port, "OTLP_ENDPOINT=",
		"COMPOSE_PROJECT_NAME=sb"+port, "COMPOSE_FILE="+filepath.Join(dir, "compose.yaml"))
	s.run(filepath.Join(dir, "secrets.sh"), secrets)
	before, err := os.ReadFile(filepath.Join(secrets, "api-key"))
	require.NoError(t, err)
	s.run(filepath.Join(dir, "secrets.sh"), secrets)
	again, err := os.ReadFile(filepath.Join(secrets, "api-key"))
	require.NoError(t, err)
	require.Equal(t, before, again, "secrets that are there are kept")
	s.key = strings.TrimSpace(string(before))
	user, err := os.ReadFile(envFile)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(user), "STORMBELL_USER="))
	s.env = append(s.env, strings.TrimSpace(string(user)))

	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if t.Failed() {
			cmd := exec.CommandContext(ctx, "docker", "compose", "logs", "--no-color", "--tail", "40")
			cmd.Env = s.env
			out, _ := cmd.CombinedOutput()
			t.Logf("%s", out)
		}
		cmd := exec.CommandContext(ctx, "docker", "compose", "--profile", "cli", "down", "-v", "-t", "30")
		cmd.Env = s.env
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	began := time.Now()
	s.compose("up", "-d", "--wait", "gateway", "correlator", "notifier")
	t.Logf("healthy after %s", time.Since(began).Round(time.Second))
	return s
}

func (s *stack) run(name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	require.NoError(s.t, err, "%s %s: %s%s", name, strings.Join(args, " "), out.String(), errs.String())
	return out.String()
}

func (s *stack) docker(args ...string) string { s.t.Helper(); return s.run("docker", args...) }

func (s *stack) compose(args ...string) string {
	s.t.Helper()
	return s.run("docker", append([]string{"compose"}, args...)...)
}

func (s *stack) container(service string) string {
	s.t.Helper()
	return strings.TrimSpace(s.compose("ps", "-q", service))
}

// inside is a command line in the services' network.
func inside(args ...string) []string {
	return append(append([]string{"compose", "run", "--rm", "-T", "--name"}, args...), "--insecure", "--key-file", "/run/secrets/api-key")
}

func (s *stack) cli(args ...string) string {
	s.t.Helper()
	return s.docker(inside(append([]string{fmt.Sprintf("sb%s-cli-%d", s.port, time.Now().UnixNano()), "cli"}, args...)...)...)
}

// listen subscribes a receiver beside the services and returns, once it
// listens, where what it prints until it has count alerts will be.
func (s *stack) listen(count int) <-chan string {
	s.t.Helper()
	name := fmt.Sprintf("sb%s-listen-%d", s.port, time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	cmd := exec.CommandContext(ctx, "docker", inside(name, "cli", "webhooks", "listen", "--listen", "0.0.0.0:9000",
		"--public-url", "http://"+name+":9000/", "--count", fmt.Sprint(count), "-o", "json")...)
	cmd.Env = s.env
	var out bytes.Buffer
	cmd.Stdout = &out
	errs, err := cmd.StderrPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, cmd.Start())
	lines := bufio.NewScanner(errs)
	said := ""
	for listening := false; !listening; {
		require.True(s.t, lines.Scan(), "the receiver does not listen: %s", said)
		said += lines.Text() + "\n"
		listening = strings.HasPrefix(lines.Text(), "Listening on")
	}
	received := make(chan string, 1)
	go func() {
		defer cancel()
		rest, _ := io.ReadAll(errs)
		if err := cmd.Wait(); err != nil {
			received <- fmt.Sprintf("%v: %s%s", err, said, rest)
			return
		}
		received <- out.String()
	}()
	return received
}

func (s *stack) journey(user string) {
	s.t.Helper()
	received := s.listen(1)
	s.send(user)
	text := <-received
	require.Contains(s.t, text, user)
	require.True(s.t, json.Valid([]byte(text)), text)
}

// send posts events that make one alert of the rules in docs/examples, which it
// puts in force.
func (s *stack) send(user string) {
	s.t.Helper()
	rules, err := filepath.Abs("../../docs/examples/rules")
	require.NoError(s.t, err)
	text, err := os.ReadFile("../../docs/examples/logins.ndjson")
	require.NoError(s.t, err)
	events := filepath.Join(s.t.TempDir(), "events.ndjson")
	require.NoError(s.t, os.WriteFile(events, bytes.ReplaceAll(text, []byte("mallory"), []byte(user)), 0o644))
	require.NoError(s.t, os.Chmod(filepath.Dir(events), 0o755)) // the container reads it
	s.cliWith([]string{"-v", rules + ":/rules:ro"}, "rules", "push", "/rules")
	require.Contains(s.t, s.cliWith([]string{"-v", events + ":/events.ndjson:ro"}, "send", "/events.ndjson"), "rejected: 0")
}

func (s *stack) cliWith(options []string, args ...string) string {
	s.t.Helper()
	all := append([]string{"compose", "run", "--rm", "-T"}, options...)
	all = append(append(all, "cli"), args...)
	return s.docker(append(all, "--insecure", "--key-file", "/run/secrets/api-key")...)
}

// post sends one event from this machine, by the published port.
func (s *stack) post() (int, http.Header) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+s.port+"/v1/events", strings.NewReader(`{"action":"ping"}`))
	require.NoError(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	require.NoError(s.t, err)
	require.NoError(s.t, resp.Body.Close())
	return resp.StatusCode, resp.Header
}
