// Package up runs all services in one process on an embedded broker. It is
// where `stormbell up` brings together what a cluster keeps apart: the log,
// state in memory, the root key, the first API key and rules from directories.
//
// It decides only the order in which things come up. Requests are answered
// first; what is rebuilt from the log catches up behind them.
package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/stormbell/stormbell/services/cmd/internal/correlatorproc"
	"github.com/stormbell/stormbell/services/cmd/internal/gatewayproc"
	"github.com/stormbell/stormbell/services/cmd/internal/notifierproc"
	"github.com/stormbell/stormbell/services/cmd/internal/process"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/embedded"
	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/services/notifier/queue"
)

// Options are what the command line adds to the settings.
type Options struct {
	// Data is the directory of the log and the two keys.
	Data string
	// Rules are the directories, or files, whose rules hold for all tenants.
	Rules []string
	// NoDefaultRules leaves out the rules that come with the binary.
	NoDefaultRules bool
	// Reload asks for the rules to be read again.
	Reload <-chan os.Signal
}

// Check reports what of the settings of all services cannot work, and reads the
// pipelines that they name.
func Check(s *process.Settings) error {
	for _, check := range []func(*process.Settings) error{gatewayproc.Check, correlatorproc.Check, notifierproc.Check} {
		if err := check(s); err != nil {
			return err //nolint:wrapcheck // it names its settings
		}
	}
	return s.Seal.Validate() //nolint:wrapcheck // it names its settings
}

// Run serves until ctx ends.
func Run(ctx context.Context, settings process.Settings, opts Options, world process.World) error {
	p, err := process.New(ctx, "up", settings, world)
	if err != nil {
		return err
	}
	u := &up{Process: p, opts: opts}
	return p.Run(ctx, u.start)
}

type up struct {
	*process.Process
	opts   Options
	broker *embedded.Broker
}

func (u *up) start(ctx context.Context) error {
	began := u.Clock()
	if err := u.openBroker(); err != nil {
		return err
	}
	if err := u.Connect(ctx); err != nil {
		return err
	}
	root, err := u.rootKey()
	if err != nil {
		return err
	}
	if err := u.firstKey(ctx); err != nil {
		return err
	}
	rules := &rules{up: u, paths: u.opts.Rules, log: u.Log}
	count, err := rules.load(ctx)
	if err != nil {
		return err
	}
	u.App.Add("rules", rules.watch, nil)
	correlator, err := correlatorproc.Add(u.Process, state.NewMemory())
	if err != nil {
		return err
	}
	sealer, err := u.Sealer(root)
	if err != nil {
		return err
	}
	if _, err := sealer.Rewrap(ctx, u.Control.TenantKeys()); err != nil {
		return err //nolint:wrapcheck // it names the key
	}
	notifier, err := notifierproc.Add(u.Process, sealer, queue.NewMemory())
	if err != nil {
		return err
	}
	u.addFloors(correlator, notifier)
	gateway, err := gatewayproc.Add(u.Process, sealer, u.broker.Full)
	if err != nil {
		return err
	}
	select {
	case <-gateway.Served():
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // told to end
	}
	u.Log.Info("serving", "data", u.opts.Data, "elapsed", u.Clock().Sub(began).String())
	return u.AnnounceReady(count)
}

// openBroker opens the log and points the bus at it.
func (u *up) openBroker() error {
	cfg := embedded.DefaultConfig(u.opts.Data)
	cfg.LogMaxBytes = u.Settings.Embedded.LogMaxBytes
	cfg.Sync, cfg.AllowCorrupt = u.Settings.Embedded.Sync, u.Settings.Embedded.AllowCorrupt
	cfg.Retention = u.Settings.Topics.Retention
	broker, err := embedded.Open(cfg, u.Log, u.Clock)
	if err != nil {
		return err //nolint:wrapcheck // it names the remedy
	}
	u.broker = broker
	u.App.Defer("broker", broker.Close)
	u.App.Add("broker", broker.Run, func() error {
		if full, why := broker.Full(); full {
			return errors.New(why)
		}
		return nil
	})
	name, password := broker.Credential()
	u.Settings.Kafka.Brokers = []string{broker.Addr()}
	u.Settings.Kafka.TLS = bus.TLSConfig{}
	u.Settings.Kafka.SASL = bus.SASLConfig{Mechanism: "plain", Username: name, Password: password, AllowPlaintext: true}
	return nil
}

// floorInterval is how often it is asked what a rebuild would read.
const floorInterval = 10 * time.Second

// addFloors keeps the broker from trimming what a rebuild would read. The
// broker must not wait for an answer, which comes from itself: it is given
// the last one.
func (u *up) addFloors(correlates *correlator.Service, notifies *notifier.Service) {
	f := newFloors(u.Settings.Kafka.TopicPrefix, u.Settings.Topics.Partitions)
	f.ask(bus.TopicDetections, correlates.Floor)
	f.ask(bus.TopicAlerts, notifies.Floor)
	f.ask(bus.TopicDeliveries, notifies.Floor)
	u.broker.SetFloor(f.known)
	u.App.Add("floors", func(ctx context.Context) error { return f.run(ctx, floorInterval) }, nil)
}

// errRootKey says that secrets exist and the key that opens them does not.
func errRootKey(path string) error {
	return fmt.Errorf("%s is missing, and the log holds secrets that were sealed with it: restore it from a backup, or name its copy with seal.root_key_file", path)
}
