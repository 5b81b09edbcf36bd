package process

import (
	"context"
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
	plain, record, err := control.NewAPIKey(control.NewKey{
		Tenant: tenant, Name: name, Scopes: append([]string{control.ScopeIngest, control.ScopeRead, control.ScopeManage}, more...),
	}, p.Clock())
	if err != nil {
		return "", fmt.Errorf("make API key: %w", err)
	}
	objects := []*controlv1.Control{{Object: &controlv1.Control_ApiKey{ApiKey: record}}}
	if _, ok := p.Control.Tenant(tenant); !ok {
		t := &controlv1.Tenant{Id: tenant, CreatedMs: p.Clock().UnixMilli()}
		objects = append([]*controlv1.Control{{Object: &controlv1.Control_Tenant{Tenant: t}}}, objects...)
	}
	if err := seal.WriteNew(path, []byte(plain+"\n")); err != nil {
		return "", fmt.Errorf("write API key: %w", err)
	}
	if err := p.Control.Put(ctx, objects...); err != nil {
		return "", fmt.Errorf("store API key: %w", err)
	}
	return plain, nil
}
