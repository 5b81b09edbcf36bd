// Package rig runs whole Stormbells for tests: the real programs, in one process
// on the embedded default or as a cluster on a real Kafka and a real Redis,
// with their own data, on free ports. It kills what it started by process id
// and reads their topics as an outsider.
//
// It asserts nothing about what the programs do.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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
		defer os.RemoveAll(dir)
		err = errors.Join(build(dir), os.Setenv(BinEnv, dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if os.Getenv(RaceEnv) == "1" {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(context.Background(), "go", append(args, "./cmd/...")...)
	cmd.Dir = ".." // services, from services/e2e
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs: %w\n%s", err, out)
	}
	return nil
}

// Program is the path of a built program.
func Program(name string) string { return filepath.Join(os.Getenv(BinEnv), name) }
