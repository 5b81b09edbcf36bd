package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/follow"
	"github.com/stormbell/stormbell/services/internal/run"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/internal/telemetry"
)

// stopTimeout is how long one module may take to end, unless a gateway lingers
// and drains for longer.
const stopTimeout = 25 * time.Second

// stopMargin is what a gateway may take beyond that.
const stopMargin = 2 * time.Second

// closeTimeout bounds what is still sent when all has stopped.
const closeTimeout = 5 * time.Second

// World is what a process gets from outside.
type World struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Environ        []string
}

// Process is one process in the making, and then running.
type Process struct {
	Settings  Settings
	World     World
	Telemetry *telemetry.Telemetry
	Log       *slog.Logger
	Clock     func() time.Time
	App       *run.App

	// What Connect makes.
	Bus        *bus.Client
	Control    *control.View
	Partitions int
	// Status counts what displays show.
	Status *status.Board

	// Crash is called at each place at which a crash must do no harm. It is nil
	// but in programs that are built with the tag fault.
	Crash func(point string) error

	// Files are those that are read again when they change.
	Files *follow.Watch

	kind  string
	admin string
	ready readyLine
}

// New sets up telemetry and opens the admin port; kind is the name by which
// the process reports. After New the caller calls Run.
func New(ctx context.Context, kind string, settings Settings, world World) (*Process, error) {
	t, err := telemetry.New(ctx, settings.Telemetry, telemetry.Options{
		Service: "stormbell-" + kind, Version: Version(), Logs: world.Stderr, Getenv: world.Getenv,
	})
	if err != nil {
		return nil, fmt.Errorf("set up telemetry: %w", err)
	}
	p := &Process{
		Settings: settings, World: world, Telemetry: t, Log: t.Logger(), Clock: time.Now,
		App:    run.New(t.Logger(), max(stopTimeout, settings.Gateway.Linger+settings.Gateway.DrainTimeout+stopMargin)),
		Status: status.NewBoard(), kind: kind, Crash: crashAt(world),
	}
	p.App.Defer("telemetry", func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		return t.Shutdown(ctx)
	})
	unknown, err := settings.Unknown(world.Environ)
	if err != nil {
		return nil, errors.Join(err, p.App.Close())
	}
	for _, name := range unknown {
		p.Log.Warn("environment variable is no setting: see docs/reference/config.md", "name", name)
	}
	if p.Files, err = follow.NewWatch(p.Log, t.Meters()); err != nil {
		return nil, errors.Join(err, p.App.Close())
	}
	p.App.Add("files", p.Files.Run, nil)
	if settings.Telemetry.Admin == "" {
		return p, nil
	}
	admin, err := telemetry.NewAdmin(settings.Telemetry, t.Registry(), p.App.Ready, p.Log)
	if err != nil {
		return nil, errors.Join(err, p.App.Close())
	}
	p.admin = admin.Addr()
	p.App.Add("admin", admin.Run, nil)
	return p, nil
}

// Admin returns the host and port of the admin port, empty without one.
func (p *Process) Admin() string { return p.admin }

// Run calls start, which connects and adds services, and then runs them until
// ctx ends or one of them fails. The admin port answers meanwhile.
func (p *Process) Run(ctx context.Context, start func(context.Context) error) error {
	started := make(chan struct{})
	var failed error
	p.App.Add("start", func(ctx context.Context) error {
		if err := start(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // told to end while starting
			}
			failed = err
			return err
		}
		close(started)
		<-ctx.Done()
		return nil
	}, func() error {
		select {
		case <-started:
			return nil
		default:
			return errors.New("starting")
		}
	})
	err := p.App.Run(ctx)
	if failed != nil {
		err = failed // without the name of a module that users do not know
	}
	p.Log.Info("stopped")
	return errors.Join(err, p.App.Close())
}

// Connect dials the brokers, sets up the topics and follows `control` to its
// end. It waits for brokers that do not answer.
func (p *Process) Connect(ctx context.Context) error {
	client, err := bus.New(p.Settings.Kafka, p.Log, p.Telemetry.Meters())
	if err != nil {
		return err //nolint:wrapcheck // it names its setting
	}
	p.Bus = client
	p.App.Defer("bus", func() error { client.Close(); return nil })
	p.App.Add("bus-files", client.FollowFiles, nil)
	differs, err := client.EnsureTopics(ctx, p.Settings.Topics)
	if err != nil {
		return fmt.Errorf("set up topics: %w", err)
	}
	for _, d := range differs {
		p.Log.Warn("topic differs from the settings", "difference", d)
	}
	if p.Partitions, err = client.Partitions(ctx, bus.TopicEvents); err != nil {
		return fmt.Errorf("set up topics: %w", err)
	}
	p.Control = control.Open(control.DefaultConfig(), control.OnBus(client), p.Log, p.Clock)
	p.App.Add("control", p.Control.Run, func() error {
		if !p.Control.Ready() {
			return errors.New("control is being read")
		}
		return nil
	})
	if err := p.Control.AwaitReady(ctx); err != nil {
		return fmt.Errorf("read control: %w", err)
	}
	if err := p.Status.Observe(p.Telemetry.Meters()); err != nil {
		return err //nolint:wrapcheck // it names itself
	}
	// It is stopped after the services, and so tells all that they have counted.
	reports := status.NewPublisher(status.DefaultConfig(), p.kind, p.Status, client, p.Log, p.Clock)
	p.App.Add("status", reports.Run, nil)
	return nil
}

// Sealer opens what is sealed under a root key, and follows its file if the
// settings name one.
func (p *Process) Sealer(root *seal.Root) (*seal.Sealer, error) {
	if path := p.Settings.Seal.RootKeyFile; path != "" {
		_, err := follow.New(p.Files, "seal.root_key_file", func() (*seal.Root, error) {
			fresh, err := seal.LoadRoot(path)
			if err != nil {
				return nil, fmt.Errorf("seal.root_key_file: %w", err)
			}
			root.Replace(fresh)
			return root, nil
		}, path)
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the setting
		}
	}
	return seal.New(root, p.Control, p.Log, p.Clock), nil
}

// Await polls until ready returns nil. What services wait for has no channel
// of its own: partitions come and go.
func Await(ctx context.Context, ready func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ready() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // told to end
		case <-tick.C:
		}
	}
	return nil
}
