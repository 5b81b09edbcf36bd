// Package gatewayproc starts the gateway in a process, and checks what it needs.
// It links the correlator, whose code judges rules before they are put in force
// and runs them over the past.
package gatewayproc

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/cmd/internal/rulefiles"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/sigma"
)

// Program is that of a cluster's gateway.
func Program() process.Program {
	return process.Program{Kind: "gateway", Check: CheckAlone, Start: start}
}

// CheckAlone reports what of the settings cannot work in a process of its own.
func CheckAlone(s *process.Settings) error {
	if err := Check(s); err != nil {
		return err
	}
	return s.Seal.Required() //nolint:wrapcheck // it names its settings
}

// Check reports what of the gateway's own settings cannot work, and reads the
// pipelines that they name.
func Check(s *process.Settings) error {
	if err := gateway.Config(s.Gateway).Validate(); err != nil {
		return err //nolint:wrapcheck // it names its settings
	}
	return ReadPipelines(s)
}

// ReadPipelines reads the pipelines that are named.
func ReadPipelines(s *process.Settings) error {
	pipelines, err := rulefiles.Pipelines(s.Rules.Pipelines...)
	if err != nil {
		return fmt.Errorf("rules.pipelines: %w", err)
	}
	s.UsePipelines(pipelines)
	return nil
}

// Sigma are the options by which rules are compiled before they are put in
// force, so that what is accepted is what the correlator runs.
func Sigma(s *process.Settings) sigma.Options {
	opts := s.Sigma()
	opts.Accept = correlator.Config(s.Correlator).Accept
	return opts
}

// Add starts a gateway. full may be nil: a cluster's brokers say
// themselves that they take no more.
func Add(p *process.Process, sealer *seal.Sealer, full func() (bool, string)) (*gateway.Service, error) {
	guard, err := egress.NewGuard(p.Settings.Egress)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names its setting
	}
	producer := bus.NewProducer(p.Bus, bus.TopicEvents, bus.DefaultProducerConfig())
	p.App.Defer("producer", func() error { producer.Close(); return nil })
	reports := status.NewView(p.Bus, p.Log, p.Clock)
	p.App.Add("reports", reports.Run, nil)
	service, err := gateway.New(gateway.Config(p.Settings.Gateway), gateway.Deps{
		Producer: producer, Partitions: p.Partitions, Control: p.Control, Sealer: sealer,
		CheckURL: guard.CheckURL, Full: full, Rules: Sigma(&p.Settings), Deliveries: p.Bus, History: p.Bus, Replays: p.Bus, Backtests: backtests{p},
		Status: p.Status, Reports: reports, Fault: fault(p.Crash),
		Log: p.Log, TracerProvider: p.Telemetry.Tracers(), MeterProvider: p.Telemetry.Meters(), Clock: p.Clock,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another process: stop that, or choose another address with --listen (gateway.listen)", p.Settings.Gateway.Listen)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	p.Listens(service.Addr())
	p.App.Defer("gateway", service.Close)
	p.App.Add("gateway", service.Run, service.Ready)
	return service, nil
}

// start is the process of a cluster's gateway.
func start(ctx context.Context, p *process.Process) error {
	root, err := p.Settings.Seal.Root()
	if err != nil {
		return err //nolint:wrapcheck // it names its setting
	}
	if err := p.Connect(ctx); err != nil {
		return err
	}
	sealer, err := p.Sealer(root)
	if err != nil {
		return err
	}
	service, err := Add(p, sealer, nil)
	if err != nil {
		return err
	}
	select {
	case <-service.Served():
		return p.AnnounceReady(nil)
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // told to end
	}
}

func fault(crash func(string) error) gateway.Fault {
	if crash == nil {
		return nil
	}
	return func(p gateway.Point) error { return crash(string(p)) }
}
