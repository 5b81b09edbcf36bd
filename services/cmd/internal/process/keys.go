package process

import (
	"context"
	"errors"
	"fmt"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/seal"
)

// DefaultTenant is the one that there is before any other is made.
const DefaultTenant = "default"

// MintKey makes an API key with all scopes of a tenant, and more, writes it to a new file (mode
// 0600) and then to control: a key in the log that nobody has is of no use.
// It makes the tenant where there is none.
func (p *Process) MintKey(ctx context.Context, tenant, name, path string, more ...string) (plain string, err error) {
	plain, record, err := control.NewAPIKey(fullKey(tenant, name, more...), p.Clock())
	if err != nil {
		return "", fmt.Errorf("make API key: %w", err)
	}
	if err := seal.WriteNew(path, []byte(plain+"\n")); err != nil {
		return "", fmt.Errorf("write API key: %w", err)
	}
	if err := p.putKey(ctx, record); err != nil {
		return "", err
	}
	return plain, nil
}

// RegisterKey makes a key known that somebody has made beforehand, with all
// scopes of a tenant, and more, and its tenant where there is none. Where the key is known already it
// changes nothing and reports false; one that was revoked stays so.
func (p *Process) RegisterKey(ctx context.Context, tenant, name string, plain seal.Secret, more ...string) (id string, added bool, err error) {
	known, err := p.Control.Authenticate(ctx, plain.Reveal())
	switch {
	case err == nil && known.Tenant != tenant:
		return "", false, fmt.Errorf("key %s belongs to tenant %q: make another for tenant %q", known.KeyID, known.Tenant, tenant)
	case err == nil:
		return known.KeyID, false, nil
	case !errors.Is(err, control.ErrUnknownKey):
		return "", false, fmt.Errorf("look up the key: %w", err)
	}
	record, err := control.KeyRecord(plain.Reveal(), fullKey(tenant, name, more...), p.Clock())
	if err != nil {
		return "", false, err //nolint:wrapcheck // it says what to do
	}
	return record.GetId(), true, p.putKey(ctx, record)
}

func fullKey(tenant, name string, more ...string) control.NewKey {
	return control.NewKey{Tenant: tenant, Name: name, Scopes: append([]string{control.ScopeIngest, control.ScopeRead, control.ScopeManage}, more...)}
}

func (p *Process) putKey(ctx context.Context, record *controlv1.APIKey) error {
	objects := []*controlv1.Control{{Object: &controlv1.Control_ApiKey{ApiKey: record}}}
	if _, ok := p.Control.Tenant(record.GetTenant()); !ok {
		t := &controlv1.Tenant{Id: record.GetTenant(), CreatedMs: p.Clock().UnixMilli()}
		objects = append([]*controlv1.Control{{Object: &controlv1.Control_Tenant{Tenant: t}}}, objects...)
	}
	if err := p.Control.Put(ctx, objects...); err != nil {
		return fmt.Errorf("store API key: %w", err)
	}
	return nil
}
