//go:build unix

package tiltfile_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/tools/child"
)

const (
	// tiltEnv names the Tilt to run.
	tiltEnv = "STORMBELL_TILT"
	// registryEnv names a registry that this machine pushes to and the cluster of
	// KUBECONFIG pulls from. Its namespace stormbell must not be there before.
	registryEnv = "STORMBELL_TILT_REGISTRY"
)

// patience bounds one run of Tilt. The first compiles everything.
const patience = 15 * time.Minute

// tilt prepares a run of the real Tilt in dir, with a home of its own and what
// compilers and Kafka have cached for this user.
func tilt(ctx context.Context, tb testing.TB, dir string, args ...string) *exec.Cmd {
	tb.Helper()
	program := os.Getenv(tiltEnv)
	if program == "" {
		tb.Skip(tiltEnv + " names no Tilt: run make test-tilt")
	}
	program, err := exec.LookPath(program)
	require.NoError(tb, err)
	program, err = filepath.Abs(program)
	require.NoError(tb, err)
	caches, err := os.UserCacheDir()
	require.NoError(tb, err)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+tb.TempDir(), "XDG_CACHE_HOME="+caches, "TILT_DISABLE_ANALYTICS=1", "DO_NOT_TRACK=1")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		value, err := exec.CommandContext(ctx, "go", "env", name).Output()
		require.NoError(tb, err)
		cmd.Env = append(cmd.Env, name+"="+strings.TrimSpace(string(value)))
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it stops what it runs
	cmd.WaitDelay = time.Minute
	return cmd
}

// here are the arguments of a mode on this machine, with its cluster's names.
func here(tb testing.TB, mode string) []string {
	tb.Helper()
	args := modes()[mode]
	if mode != "kubernetes" {
		return args
	}
	registry := os.Getenv(registryEnv)
	if registry == "" {
		tb.Skip(registryEnv + " names no registry: run make test-tilt with KUBECONFIG and REGISTRY")
	}
	found, err := exec.CommandContext(tb.Context(), "kubectl", "config", "current-context").Output()
	require.NoError(tb, err, "KUBECONFIG names no cluster")
	require.Error(tb, exec.CommandContext(tb.Context(), "kubectl", "get", "namespace", "stormbell").Run(),
		"the namespace stormbell is there already: remove it, if nobody needs it")
	return append(args, "--context", strings.TrimSpace(string(found)), "--registry", registry)
}

// down takes away what Tilt made in the cluster.
func down(tb testing.TB, mode, dir string, args []string) {
	tb.Helper()
	if mode != "kubernetes" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), patience)
	defer cancel()
	out, err := tilt(ctx, tb, dir, append([]string{"down", "--delete-namespaces", "--"}, args...)...).CombinedOutput()
	require.NoError(tb, err, string(out))
	out, err = exec.CommandContext(ctx, "kubectl", "wait", "--for=delete", "namespace/stormbell", "--timeout=5m").CombinedOutput()
	require.NoError(tb, err, string(out))
}

// ports returns the first of seven free ports in a row.
func ports(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		first, err := child.FreePorts(tb.Context(), 1)
		require.NoError(tb, err)
		free := 0
		for i := 1; i <= 6; i++ {
			if listens(tb, first[0]+i) {
				break
			}
			free++
		}
		if free == 6 {
			return first[0]
		}
	}
	require.Fail(tb, "no seven free ports in a row")
	return 0
}

// left are the processes that have dir in their command line.
func left(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-A", "-ww", "-o", "pid=,args=").Output()
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// TestTiltCI: all modes come up, an event becomes a verified webhook, it ends by
// itself, and nothing is left running.
func TestTiltCI(t *testing.T) {
	for mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			args := here(t, mode)
			if mode == "cluster" {
				child.Require(t, "java", "redis-server")
			}
			data, port := t.TempDir(), ports(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			args = append(args, "--data", data, "--port", strconv.Itoa(port))
			defer down(t, mode, root, args)
			cmd := tilt(ctx, t, root, append([]string{"ci", "--port", "0", "--web-mode", "prod", "--"}, args...)...)
			began := time.Now()
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			t.Logf("tilt ci took %s", time.Since(began).Round(time.Second))
			require.Regexp(t, `journey │ high +dev-\S+ did login_failed from 198\.51\.100\.7, 5 times[^\n]*\n(.*\n)*.*journey │ +message +msg_\w+, attempt 1, verified`, string(out))
			require.NotContains(t, string(out), "ERROR")
			require.Empty(t, left(t, data))
		})
	}
}

// TestTiltCIFails: what is wrong makes it fail, and nothing is left running
// either.
func TestTiltCIFails(t *testing.T) {
	bad, other := t.TempDir(), t.TempDir()
	const head = "title: A rule\nid: 5c1a3f52-0f3e-4c63-8a3d-6a0c0d1e2f03\nlogsource: {category: authentication}\nlevel: low\n"
	require.NoError(t, os.WriteFile(filepath.Join(bad, "bad.yml"), []byte(head), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(other, "other.yml"), []byte(head+"detection: {s: {action: nothing}, condition: s}\n"), 0o600))
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"a rule that is rejected", []string{"--rules", bad}, "bad.yml:1"},
		{"rules by which no alert comes", []string{"--rules", other}, "journey: no alert came"},
		{"an unknown flag", []string{"--nonsense"}, "nonsense"},
		{"an argument", []string{"gateway"}, "gateway"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			args := append([]string{"ci", "--port", "0", "--web-mode", "prod", "--", "--embedded", "--data", data, "--port", strconv.Itoa(ports(t))}, tt.args...)
			out, err := tilt(ctx, t, root, args...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, string(out))
			require.Equal(t, 1, exit.ExitCode())
			require.True(t, bytes.Contains(out, []byte(tt.want)), string(out))
			require.Empty(t, left(t, data))
		})
	}
}
