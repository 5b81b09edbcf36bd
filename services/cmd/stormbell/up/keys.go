package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/seal"
)

// Names within the data directory. The two files hold keys in the clear.
const (
	apiKeyFile  = "api-key"
	rootKeyFile = "root-key"
)

// defaultTenant is the one that a single-process Stormbell serves at first.
const defaultTenant = "default"

// rootKey reads the root key, or makes one where nothing was sealed yet.
func (u *up) rootKey() (*seal.Root, error) {
	if s := u.Settings.Seal; s.RootKeyFile != "" || !s.RootKey.Empty() {
		return s.Root()
	}
	path := filepath.Join(u.opts.Data, rootKeyFile)
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
	ids := []string{defaultTenant}
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
	if _, ok := u.Control.Tenant(defaultTenant); !ok {
		tenant := &controlv1.Tenant{Id: defaultTenant, CreatedMs: u.Clock().UnixMilli()}
		if err := u.Control.Put(ctx, &controlv1.Control{Object: &controlv1.Control_Tenant{Tenant: tenant}}); err != nil {
			return fmt.Errorf("create tenant %s: %w", defaultTenant, err)
		}
	}
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

// mint makes a key with all scopes, stores it and prints it. The file comes
// first: a key in the log that nobody has is of no use.
func (u *up) mint(ctx context.Context, path string) error {
	plain, record, err := control.NewAPIKey(control.NewKey{
		Tenant: defaultTenant, Name: "stormbell up", Scopes: []string{control.ScopeIngest, control.ScopeRead, control.ScopeManage},
	}, u.Clock())
	if err != nil {
		return fmt.Errorf("make API key: %w", err)
	}
	if err := seal.WriteNew(path, []byte(plain+"\n")); err != nil {
		return fmt.Errorf("write API key: %w", err)
	}
	if err := u.Control.Put(ctx, &controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: record}}); err != nil {
		return fmt.Errorf("store API key: %w", err)
	}
	return u.Print(struct {
		Message string `json:"msg"`
		Tenant  string `json:"tenant"`
		Key     string `json:"key"`
		File    string `json:"file"`
	}{"api key created", defaultTenant, plain, path})
}
