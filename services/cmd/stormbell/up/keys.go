package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/seal"
)

// Names within the data directory. The two files hold keys in the clear.
const (
	apiKeyFile  = "api-key"
	rootKeyFile = "root-key"
)

// rootKey reads the root key, or makes one where nothing was sealed yet.
func (u *up) rootKey() (*seal.Root, error) {
	if s := u.Settings.Seal; s.RootKeyFile != "" || !s.RootKey.Empty() {
		return s.Root()
	}
	path := filepath.Join(u.opts.Data, rootKeyFile)
	u.Settings.Seal.RootKeyFile = path // to be followed from now on
	root, err := seal.LoadRoot(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return root, err //nolint:wrapcheck // it names the file
	}
	if u.sealed() {
		return nil, errRootKey(path)
	}
	return seal.CreateRoot(path) //nolint:wrapcheck // it names the file
}

// sealed reports whether the log holds anything that only a root key opens.
func (u *up) sealed() bool {
	ids := []string{process.DefaultTenant}
	for _, t := range u.Control.Tenants() {
		ids = append(ids, t.GetId())
	}
	for _, id := range ids {
		if _, ok := u.Control.NewestTenantKey(id); ok {
			return true
		}
	}
	return false
}

// firstKey makes sure that the file of the default tenant's API key holds one
// that is known. It mints one where there is no file: who can write to the data
// directory may have a key.
func (u *up) firstKey(ctx context.Context) error {
	path := filepath.Join(u.opts.Data, apiKeyFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read API key: %w", err)
	default:
		_, err := u.Control.Authenticate(ctx, strings.TrimSpace(string(text)))
		if errors.Is(err, control.ErrRevokedKey) || errors.Is(err, control.ErrExpiredKey) {
			u.Log.Warn("the key in the data directory no longer holds: remove the file for a new one at the next start", "path", path, "error", err)
			return nil
		}
		if !errors.Is(err, control.ErrUnknownKey) {
			return err //nolint:wrapcheck // nil, or that the log does not answer
		}
		// Written by a start that ended before the log had it, or left behind
		// by a log that was removed: it opens nothing.
		u.Log.Warn("the key in the data directory is unknown and is replaced", "path", path)
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("replace API key: %w", err)
		}
	}
	return u.mint(ctx, path)
}

// mint makes a key with all scopes and prints it.
func (u *up) mint(ctx context.Context, path string) error {
	plain, err := u.MintKey(ctx, process.DefaultTenant, "stormbell up", path)
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	return u.Print(struct {
		Message string `json:"msg"`
		Tenant  string `json:"tenant"`
		Key     string `json:"key"`
		File    string `json:"file"`
	}{"api key created", process.DefaultTenant, plain, path})
}
