// Package notifierproc starts the notifier in a process, and checks what it needs.
package notifierproc

import (
	"context"

	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// Program is that of a cluster's notifier.
func Program() process.Program {
	return process.Program{Kind: "notifier", Check: CheckAlone, Start: start}
}

// CheckAlone reports what of the settings cannot work in a process of its own.
func CheckAlone(s *process.Settings) error {
	for _, check := range []func() error{func() error { return Check(s) }, s.Redis.Validate, s.Seal.Required} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// Check reports what of the notifier's own settings cannot work.
func Check(s *process.Settings) error {
	return notifier.Config(s.Notifier).Validate() //nolint:wrapcheck // it names its settings
}

// Add starts a notifier on a queue.
func Add(p *process.Process, sealer *seal.Sealer, q notifier.Queue) (*notifier.Service, error) {
	guard, err := egress.NewGuard(p.Settings.Egress)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names its setting
	}
	client := egress.NewClient(guard, egress.DefaultClientConfig())
	p.App.Defer("egress", func() error { client.Close(); return nil })
	service, err := notifier.New(notifier.Config(p.Settings.Notifier), notifier.Deps{
		Reader: p.Bus, Producer: p.Bus, Group: p.Bus, Control: p.Control, Sealer: sealer, Sender: client, Queue: q, Status: p.Status, Fault: fault(p.Crash),
		Log: p.Log, Tracers: p.Telemetry.Tracers(), Meters: p.Telemetry.Meters(), Clock: p.Clock,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	p.App.Add("notifier", service.Run, service.Ready)
	return service, nil
}

// start is the process of a cluster's notifier.
func start(ctx context.Context, p *process.Process) error {
	root, err := p.Settings.Seal.Root()
	if err != nil {
		return err
	}
	cfg := p.Settings.Redis.State(p.Files)
	deliveries, err := process.OpenRedis(ctx, p.Log, func() (*queue.Redis, error) { return queue.OpenRedis(ctx, cfg, p.Log) })
	if err != nil {
		return err
	}
	p.App.Defer("redis", deliveries.Close)
	p.Watch("redis", deliveries.Ping)
	if err := p.Connect(ctx); err != nil {
		return err
	}
	p.NeedGroups()
	sealer, err := p.Sealer(root)
	if err != nil {
		return err
	}
	service, err := Add(p, sealer, deliveries)
	if err != nil {
		return err
	}
	if err := process.Await(ctx, service.Ready); err != nil {
		return err
	}
	return p.AnnounceReady(nil)
}

func fault(crash func(string) error) notifier.Fault {
	if crash == nil {
		return nil
	}
	return func(p notifier.Point) error { return crash(string(p)) }
}
