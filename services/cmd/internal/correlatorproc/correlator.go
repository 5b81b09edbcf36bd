// Package correlatorproc starts the correlator in a process, and checks what it
// needs.
package correlatorproc

import (
	"context"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/internal/state"
)

// Program is that of a cluster's correlator.
func Program() process.Program {
	return process.Program{Kind: "correlator", Check: CheckAlone, Start: start}
}

// CheckAlone reports what of the settings cannot work in a process of its own.
func CheckAlone(s *process.Settings) error {
	if err := Check(s); err != nil || s.Correlator.Stages == "detect" {
		return err
	}
	return s.Redis.Validate() //nolint:wrapcheck // it names its settings
}

// Check reports what of the correlator's own settings cannot work.
func Check(s *process.Settings) error {
	return correlator.Config(s.Correlator).Validate() //nolint:wrapcheck // it names its settings
}

// Add starts a correlator on a store.
func Add(p *process.Process, store correlator.Store) (*correlator.Service, error) {
	service, err := correlator.New(correlator.Config(p.Settings.Correlator), correlator.Deps{
		Reader: p.Bus, Producer: p.Bus, Group: p.Bus, Control: p.Control, Store: store,
		Log: p.Log, Tracers: p.Telemetry.Tracers(), Meters: p.Telemetry.Meters(), Clock: p.Clock,
		Placeholders: p.Settings.Rules.Placeholders, Status: p.Status, Fault: fault(p.Crash),
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	p.App.Add("correlator", service.Run, service.Ready)
	return service, nil
}

// start is the process of a cluster's correlator.
func start(ctx context.Context, p *process.Process) error {
	var store correlator.Store
	if p.Settings.Correlator.Stages != "detect" {
		cfg := p.Settings.Redis.State(p.Files)
		redis, err := process.OpenRedis(ctx, p.Log, func() (*state.Redis, error) { return state.OpenRedis(ctx, cfg, p.Log) })
		if err != nil {
			return err
		}
		p.App.Defer("redis", redis.Close)
		p.Watch("redis", redis.Ping)
		store = redis
	}
	if err := p.Connect(ctx); err != nil {
		return err
	}
	p.NeedGroups()
	service, err := Add(p, store)
	if err != nil {
		return err
	}
	if err := process.Await(ctx, service.Ready); err != nil {
		return err
	}
	return p.AnnounceReady(nil)
}

func fault(crash func(string) error) correlator.Fault {
	if crash == nil {
		return nil
	}
	return func(p correlator.Point, _ *correlator.Record) error { return crash(string(p)) }
}
