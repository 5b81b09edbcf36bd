package kafka

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/stormbell/stormbell/tools/child"
)

//go:embed pom.xml
var pom []byte

const fetchLimit = 10 * time.Minute

// Fetch makes sure that the jars named by the committed pom.xml are in the
// user's cache directory and returns the directory that holds them. Maven is
// needed the first time only. Several processes may call it at once: one
// fetches, the others wait for it, for as long as ctx allows.
func Fetch(ctx context.Context) (string, error) {
	lib, err := cacheDir()
	if err != nil {
		return "", err
	}
	if fetched(lib) {
		return lib, nil
	}
	if err := os.MkdirAll(filepath.Dir(lib), 0o700); err != nil {
		return "", fmt.Errorf("make cache of kafka: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	lock := flock.New(lib + ".lock")
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return "", fmt.Errorf("lock cache of kafka: %w", err)
	}
	err = nil
	if !fetched(lib) { // another process may have been first
		err = download(ctx, lib)
	}
	return lib, errors.Join(err, lock.Unlock())
}

// cacheDir is named by what it holds: another pom.xml has another directory.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory (set HOME or XDG_CACHE_HOME): %w", err)
	}
	sum := sha256.Sum256(pom)
	return filepath.Join(base, "stormbell", "kafka-"+hex.EncodeToString(sum[:6])), nil
}

func fetched(lib string) bool {
	info, err := os.Stat(lib)
	return err == nil && info.IsDir()
}

// download lets Maven copy the jars beside lib and renames them into place, so
// that lib is complete whenever it exists.
func download(ctx context.Context, lib string) (err error) {
	if missing := child.Missing("mvn"); len(missing) > 0 {
		return errors.New("fetch kafka: mvn is not installed: run make setup")
	}
	work, err := os.MkdirTemp(filepath.Dir(lib), "fetch-")
	if err != nil {
		return fmt.Errorf("fetch kafka: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	file, jars := filepath.Join(work, "pom.xml"), filepath.Join(work, "jars")
	if err := os.WriteFile(file, pom, 0o600); err != nil {
		return fmt.Errorf("fetch kafka: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mvn", "--quiet", "--batch-mode", "--no-transfer-progress", "--file", file,
		"dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+jars)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch kafka with maven: %w; it said:\n%s", err, bytes.TrimSpace(out))
	}
	if err := os.Rename(jars, lib); err != nil {
		return fmt.Errorf("fetch kafka: %w", err)
	}
	return nil
}
