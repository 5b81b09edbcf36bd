// Package gateway is the HTTP edge: it authenticates, bounds and reads what
// clients post, appends it to the topic `events`, and answers success only
// after the broker's acknowledgement. It also serves the management API.
//
// It does not judge events: rules are not its business. It reads no event
// field but those that identify, date and classify it, and keeps no event.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/netutil"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/follow"
	"github.com/stormbell/stormbell/services/internal/history"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/internal/tenant"
	"github.com/stormbell/stormbell/services/sigma"
)

// Deps is what the gateway works with. All but Full, Rules, Backtests and Deliveries are
// needed.
type Deps struct {
	// Producer writes to `events`, which has Partitions partitions.
	Producer   Producer
	Partitions int
	// Control must be followed by its Run, and outlive the gateway.
	Control *control.View
	// Sealer seals secrets before they enter control.
	Sealer *seal.Sealer
	// CheckURL refuses URLs that webhooks must not have. Its errors name the
	// setting that would allow them, and never an address.
	CheckURL func(url string) error
	// Full reports whether the broker can take no more events, and why.
	Full func() (full bool, why string)
	// Deliveries lets webhooks be tested; nil refuses that.
	Deliveries Deliveries
	// History is read to look back, Replays takes what is replayed.
	History history.Log
	Replays Replays
	// Backtests runs rules over the log; nil refuses that.
	Backtests Backtests
	// Rules are the options that the correlator compiles rules with.
	Rules sigma.Options
	// Status counts for displays; nil counts for nobody. Reports add up what all
	// processes have counted; without them nothing is shown.
	Status  *status.Board
	Reports Reports
	// Fault injects crashes; nil outside tests.
	Fault Fault

	Log            *slog.Logger
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	Clock          func() time.Time
}

// Service is one gateway.
type Service struct {
	cfg         Config
	deps        Deps
	tracer      trace.Tracer
	metrics     *metrics
	sources     sources
	quotas      *tenant.Quotas
	intake      *intake
	partitions  *partitions
	history     *history.History
	readers     chan struct{} // those who look back
	backtesting chan struct{} // who runs a backtest
	batches     sync.Pool     // of *batch
	arenas      sync.Pool     // of *arena

	listener net.Listener
	files    *follow.Watch
	cert     *follow.Value[*tls.Certificate] // nil without TLS
	serving  atomic.Bool
	served   chan struct{} // closed once serving
	leaving  atomic.Bool   // told to stop; requests are still taken
	draining atomic.Bool   // requests are refused

	changes changeLock // held by read-modify-write changes of control
	listsMu sync.Mutex // guards lists and ruled; taken after changes
	lists   map[string][]ruleBody
	ruled   map[string]ruled
}

// New returns a gateway that has its port but does not serve yet. Run ends
// with the port closed; without a Run, Close closes it.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Partitions <= 0 {
		return nil, fmt.Errorf("gateway: topic events has %d partitions: set it up first", deps.Partitions)
	}
	all, err := newSources(cfg)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.MeterProvider, all, deps.Producer.Queued)
	if err != nil {
		return nil, err
	}
	if deps.Status == nil {
		deps.Status = status.NewBoard()
	}
	deps.Status.Watch(func() *statusv1.Stage { return &statusv1.Stage{Name: "gateway"} })
	s := &Service{
		cfg: cfg, deps: deps, metrics: m, sources: all,
		tracer:      deps.TracerProvider.Tracer("github.com/stormbell/stormbell/services/gateway"),
		quotas:      tenant.NewQuotas(),
		intake:      newIntake(cfg.MaxBodyBytes, cfg.MaxInflightBytes),
		partitions:  newPartitions(deps.Partitions),
		history:     history.New(deps.History, deps.Partitions, history.DefaultLimits(), deps.Clock),
		readers:     make(chan struct{}, cfg.MaxReaders),
		backtesting: make(chan struct{}, 1),
		changes:     changeLock{tenants: make(map[string]*sync.Mutex)},
		lists:       make(map[string][]ruleBody), ruled: make(map[string]ruled), served: make(chan struct{}),
	}
	if cfg.TLS.CertFile != "" {
		if s.files, err = follow.NewWatch(deps.Log, deps.MeterProvider); err == nil {
			s.cert, err = follow.KeyPair(s.files, "gateway.tls", cfg.TLS.CertFile, cfg.TLS.KeyFile)
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the setting
		}
	}
	if s.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("gateway: %w: stop what uses the port, or set listen to another", err)
	}
	return s, nil
}

// Addr returns the host and port that the gateway listens on.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Served is closed once requests are served, whether or not there is room for
// events.
func (s *Service) Served() <-chan struct{} { return s.served }

// Ready returns nil once requests are served, or why they are not.
func (s *Service) Ready() error {
	switch {
	case s.leaving.Load():
		return errors.New("gateway is stopping")
	case !s.serving.Load():
		return errors.New("gateway does not serve yet")
	case !s.deps.Control.Ready():
		return errors.New("gateway has not read control yet")
	}
	if s.deps.Full != nil {
		if full, why := s.deps.Full(); full {
			return fmt.Errorf("gateway has no room for events: %s", why)
		}
	}
	return nil
}

// Close closes the port of a gateway that was never run.
func (s *Service) Close() error {
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("gateway: close listener: %w", err)
	}
	return nil
}

// Run serves until ctx ends. Then it goes on for Config.Linger, refuses new
// requests, lets those under way end within Config.DrainTimeout, and returns
// nil. It may be called once.
func (s *Service) Run(ctx context.Context) error {
	if err := s.deps.Control.AwaitReady(ctx); err != nil {
		return errors.Join(ignoreEnd(ctx, err), s.Close())
	}
	server := s.server()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	ticks := time.NewTicker(tickInterval)
	defer ticks.Stop()
	wg.Go(func() { s.tick(background, ticks.C) })

	listener := netutil.LimitListener(s.listener, s.cfg.MaxConnections)
	failed := make(chan error, 1) // the one return of Serve
	if s.cert != nil {
		wg.Go(func() { _ = s.files.Run(background) }) // it ends with its context alone
		server.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Get(), nil },
		}
		go func() { failed <- server.ServeTLS(listener, "", "") }()
	} else {
		go func() { failed <- server.Serve(listener) }()
	}
	s.serving.Store(true)
	close(s.served)
	s.deps.Log.InfoContext(ctx, "gateway serves", "listen", s.Addr(), "tls", s.cert != nil, "partitions", s.deps.Partitions)
	select {
	case err := <-failed:
		return fmt.Errorf("gateway: serve: %w", err)
	case <-ctx.Done():
	}
	s.leaving.Store(true)
	if err := s.linger(failed); err != nil {
		return err
	}
	return s.drain(ctx, server, failed)
}

// linger goes on serving, so that clients leave and none is cut off: a
// connection on which a request may be under way is closed by the client that
// has its answer, never by us.
func (s *Service) linger(failed <-chan error) error {
	timer := time.NewTimer(s.cfg.Linger)
	defer timer.Stop()
	select {
	case err := <-failed:
		return fmt.Errorf("gateway: serve: %w", err)
	case <-timer.C:
		return nil
	}
}

// drain answers what is under way and refuses what still comes on open
// connections.
func (s *Service) drain(ctx context.Context, server *http.Server, failed <-chan error) error {
	s.draining.Store(true)
	server.SetKeepAlivesEnabled(false)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	err := server.Shutdown(limit)
	if err != nil {
		s.deps.Log.WarnContext(ctx, "gateway stops with requests under way", "waited", s.cfg.DrainTimeout.String())
		_ = server.Close() // what it reports is what Shutdown did
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		s.deps.Log.WarnContext(ctx, "gateway stopped serving by itself", "error", err)
	}
	s.deps.Log.InfoContext(ctx, "gateway stopped")
	return nil
}

func (s *Service) server() *http.Server {
	return &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.BodyTimeout,
		// The wait for the broker lies between the body and the answer.
		WriteTimeout:   s.cfg.BodyTimeout + s.cfg.ProduceTimeout + 5*time.Second,
		IdleTimeout:    s.cfg.IdleTimeout,
		MaxHeaderBytes: 16 << 10,
		// Handshakes that fail and the like are the clients' business.
		ErrorLog: slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug),
	}
}

// ignoreEnd drops an error that only says that ctx ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
