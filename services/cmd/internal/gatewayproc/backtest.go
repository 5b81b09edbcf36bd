package gatewayproc

import (
	"context"
	"encoding/json"
	"fmt"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/alert"
)

// backtests lets a gateway run the correlator's code over the log.
type backtests struct{ p *process.Process }

// Backtest implements gateway.Backtests.
func (b backtests) Backtest(ctx context.Context, of *gateway.Backtest, tell func(*gateway.BacktestLine) error) error {
	settings := Sigma(&b.p.Settings)
	settings.Pipelines = nil // those in force came with their rules
	found, err := correlator.Backtest{Tenant: of.Tenant, From: of.From, To: of.To, Rules: of.Rules, Updates: of.Updates}.Run(ctx, correlator.Config(b.p.Settings.Correlator),
		correlator.BacktestDeps{Reader: b.p.Bus, Partitions: b.p.Partitions, Control: b.p.Control, Rules: settings},
		func(a *alertv1.Alert) error {
			data, err := alert.Data(a)
			if err != nil {
				return fmt.Errorf("alert %s: %w", a.GetId(), err)
			}
			return tell(&gateway.BacktestLine{Alert: json.RawMessage(data)})
		},
		func(done, total int64) error {
			return tell(&gateway.BacktestLine{Progress: &gateway.BacktestProgress{Done: done, Total: total}})
		})
	if err != nil {
		return err //nolint:wrapcheck // it says what failed
	}
	summary := &gateway.BacktestSummary{Events: found.Events, Failed: found.Failed, Alerts: found.Alerts, Rules: []gateway.BacktestRule{}}
	if !found.Since.IsZero() {
		summary.LogBegins = &found.Since
	}
	for _, r := range found.Rules {
		summary.Rules = append(summary.Rules, gateway.BacktestRule{ID: r.ID, Title: r.Title, Hits: r.Hits, Alerts: r.Alerts, Shadowed: r.Shadowed})
	}
	return tell(&gateway.BacktestLine{Summary: summary})
}
