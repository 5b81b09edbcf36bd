package correlator

import "github.com/stormbell/stormbell/services/internal/status"

// shadowed counts an alert that goes to nobody.
func (c *counts) shadowed(tenant *status.Tenant, rule string) {
	c.shadow.Add(c.ctx, 1)
	tenant.Shadowed.Add(1, c.now())
	tenant.Rule(rule).Shadowed.Add(1, c.now())
}
