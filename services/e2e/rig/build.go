// Package rig runs whole Stormbells for tests: the real programs, in one process
// on the embedded default or as a cluster on a real Kafka and a real Redis,
// with their own data, on free ports. It kills what it started by process id
// and reads their topics as an outsider.
//
// It asserts nothing about what the programs do.
package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	// BinEnv names a directory with programs to run instead of building them.
	BinEnv = "STORMBELL_E2E_BIN"
	// RaceEnv set to 1 builds them with the race detector.
	RaceEnv = "STORMBELL_E2E_RACE"
)

// Main is TestMain of packages that use a rig: it builds the programs once, as
// they ship, and removes them after the tests.
func Main(m *testing.M, short bool) int {
	if short || os.Getenv(BinEnv) != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "stormbell-e2e-bin-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }() // what is left is in the system's temporary directory
		err = errors.Join(build(dir), os.Setenv(BinEnv, dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

// BuildDefect builds the programs anew with one piece of a source file, named
// from services, replaced by another, and has Program find them for the rest of
// the test. The source itself stays as it is.
func BuildDefect(t *testing.T, file, old, by string) {
	t.Helper()
	source, err := filepath.Abs(filepath.Join("..", file))
	require.NoError(t, err)
	text, err := os.ReadFile(source)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), old), "%q stands once in %s", old, file)
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(changed, []byte(strings.Replace(string(text), old, by, 1)), 0o600))
	list, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, list, 0o600))
	require.NoError(t, build(dir, "-overlay", overlay))
	t.Setenv(BinEnv, dir)
}

// BuildTagged builds the programs anew with a build tag and has Program find
// them for the rest of the test.
func BuildTagged(t *testing.T, tag string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, build(dir, "-tags", tag))
	t.Setenv(BinEnv, dir)
}

// BuildRef builds the programs of another commit, tag or branch and returns
// where they are, and the commit.
func BuildRef(t *testing.T, ref string) (dir, commit string) {
	t.Helper()
	name, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--verify", "--short=12", ref+"^{commit}").Output()
	require.NoError(t, err, "%s is no commit of this repository: fetch it, or name another", ref)
	commit = strings.TrimSpace(string(name))
	dir = t.TempDir()
	archive := filepath.Join(dir, "source.tar")
	git := exec.CommandContext(t.Context(), "git", "archive", "--output", archive, commit, "services", "proto")
	git.Dir = filepath.Join("..", "..")
	out, err := git.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, buildIn(filepath.Join(dir, "services"), dir))
	return dir, commit
}

func build(dir string, more ...string) error {
	return buildIn("..", dir, more...) // services, from services/e2e
}

func buildIn(source, dir string, more ...string) error {
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, more...)
	if os.Getenv(RaceEnv) == "1" {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(context.Background(), "go", append(args, "./cmd/...")...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs: %w\n%s", err, out)
	}
	return nil
}

// Program is the path of a built program.
func Program(name string) string { return filepath.Join(os.Getenv(BinEnv), name) }
