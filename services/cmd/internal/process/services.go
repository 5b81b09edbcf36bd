package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/egress"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// AddGateway starts a gateway. full may be nil: a cluster's brokers say
// themselves that they take no more.
func (p *Process) AddGateway(sealer *seal.Sealer, full func() (bool, string)) (*gateway.Service, error) {
	guard, err := egress.NewGuard(p.Settings.Egress)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names its setting
	}
	producer := bus.NewProducer(p.Bus, bus.TopicEvents, bus.DefaultProducerConfig())
	p.App.Defer("producer", func() error { producer.Close(); return nil })
	reports := status.NewView(p.Bus, p.Log, p.Clock)
	p.App.Add("reports", reports.Run, nil)
	service, err := gateway.New(p.Settings.Gateway, gateway.Deps{
		Producer: producer, Partitions: p.Partitions, Control: p.Control, Sealer: sealer,
		CheckURL: guard.CheckURL, Full: full, Rules: p.Settings.Sigma(), Deliveries: p.Bus, History: p.Bus, Replays: p.Bus, Backtests: backtests{p},
		Status: p.Status, Reports: reports, Fault: gatewayFault(p.crash),
		Log: p.Log, TracerProvider: p.Telemetry.Tracers(), MeterProvider: p.Telemetry.Meters(), Clock: p.Clock,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another process: stop that, or choose another address with --listen (gateway.listen)", p.Settings.Gateway.Listen)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	p.ready.Listen = service.Addr()
	p.App.Defer("gateway", service.Close)
	p.App.Add("gateway", service.Run, service.Ready)
	return service, nil
}

// AddCorrelator starts a correlator on a store.
func (p *Process) AddCorrelator(store correlator.Store) (*correlator.Service, error) {
	service, err := correlator.New(p.Settings.Correlator, correlator.Deps{
		Reader: p.Bus, Producer: p.Bus, Group: p.Bus, Control: p.Control, Store: store,
		Log: p.Log, Tracers: p.Telemetry.Tracers(), Meters: p.Telemetry.Meters(), Clock: p.Clock,
		Placeholders: p.Settings.Rules.Placeholders, Status: p.Status, Fault: correlatorFault(p.crash),
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	p.App.Add("correlator", service.Run, service.Ready)
	return service, nil
}

// AddNotifier starts a notifier on a queue.
func (p *Process) AddNotifier(sealer *seal.Sealer, q notifier.Queue) (*notifier.Service, error) {
	guard, err := egress.NewGuard(p.Settings.Egress)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names its setting
	}
	client := egress.NewClient(guard, egress.DefaultClientConfig())
	p.App.Defer("egress", func() error { client.Close(); return nil })
	service, err := notifier.New(p.Settings.Notifier, notifier.Deps{
		Reader: p.Bus, Producer: p.Bus, Group: p.Bus, Control: p.Control, Sealer: sealer, Sender: client, Queue: q, Status: p.Status, Fault: notifierFault(p.crash),
		Log: p.Log, Tracers: p.Telemetry.Tracers(), Meters: p.Telemetry.Meters(), Clock: p.Clock,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // it names itself
	}
	p.App.Add("notifier", service.Run, service.Ready)
	return service, nil
}

// Gateway is the process of a cluster's gateway.
func Gateway(ctx context.Context, p *Process) error {
	root, err := p.Settings.Seal.Root()
	if err != nil {
		return err
	}
	if err := p.Connect(ctx); err != nil {
		return err
	}
	service, err := p.AddGateway(p.Sealer(root), nil)
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

// Correlator is the process of a cluster's correlator.
func Correlator(ctx context.Context, p *Process) error {
	var store correlator.Store
	if p.Settings.Correlator.Stages != "detect" {
		cfg, err := p.Settings.Redis.state()
		if err != nil {
			return err
		}
		redis, err := openRedis(ctx, p.Log, func() (*state.Redis, error) { return state.OpenRedis(ctx, cfg, p.Log) })
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
	p.needGroups()
	service, err := p.AddCorrelator(store)
	if err != nil {
		return err
	}
	if err := await(ctx, service.Ready); err != nil {
		return err
	}
	return p.AnnounceReady(nil)
}

// Notifier is the process of a cluster's notifier.
func Notifier(ctx context.Context, p *Process) error {
	root, err := p.Settings.Seal.Root()
	if err != nil {
		return err
	}
	cfg, err := p.Settings.Redis.state()
	if err != nil {
		return err
	}
	deliveries, err := openRedis(ctx, p.Log, func() (*queue.Redis, error) { return queue.OpenRedis(ctx, cfg, p.Log) })
	if err != nil {
		return err
	}
	p.App.Defer("redis", deliveries.Close)
	p.Watch("redis", deliveries.Ping)
	if err := p.Connect(ctx); err != nil {
		return err
	}
	p.needGroups()
	service, err := p.AddNotifier(p.Sealer(root), deliveries)
	if err != nil {
		return err
	}
	if err := await(ctx, service.Ready); err != nil {
		return err
	}
	return p.AnnounceReady(nil)
}
