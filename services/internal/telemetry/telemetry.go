// Package telemetry gives a process its logger, traces and metrics.
//
// Logs are JSON lines with trace ids; traces, metrics and logs leave over OTLP
// where the standard OTEL_* variables name an endpoint, and metrics can always
// be read on the admin port. It sets no globals, puts no baggage on the wire,
// and blots out attributes that are named like secrets.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"go.opentelemetry.io/otel/attribute"
)

// Config says what is logged and where the admin port is.
type Config struct {
	// LogLevel is the least severe level that is logged: debug, info, warn or error.
	LogLevel string `yaml:"log_level" env:"LOG_LEVEL"`
	// LogFormat is json, or text for people.
	LogFormat string `yaml:"log_format" env:"LOG_FORMAT"`
	// Admin is the host and port of /metrics, /healthz, /readyz and pprof. Empty switches it off.
	Admin string `yaml:"admin" env:"ADMIN"`
	// Pprof serves profiles, which show the memory of the process, also where the admin port is beyond loopback.
	Pprof bool `yaml:"pprof" env:"PPROF"`
}

// DefaultConfig returns the settings of `stormbell up`.
func DefaultConfig() Config {
	return Config{LogLevel: "info", LogFormat: "json", Admin: "127.0.0.1:8081"}
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	if _, err := c.level(); err != nil {
		return err
	}
	if c.LogFormat != "json" && c.LogFormat != "text" {
		return fmt.Errorf("telemetry: log_format %q: use json or text", c.LogFormat)
	}
	return nil
}

func (c Config) level() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return level, fmt.Errorf("telemetry: log_level %q: use debug, info, warn or error", c.LogLevel)
	}
	return level, nil
}

// Telemetry is what a process reports with.
type Telemetry struct {
	log      *slog.Logger
	tracers  trace.TracerProvider
	meters   metric.MeterProvider
	registry *prometheus.Registry
	shutdown []func(context.Context) error
}

// Options adds to what Config says.
type Options struct {
	// Service and Version name the process in all that leaves it.
	Service, Version string
	// Logs is where log lines go.
	Logs io.Writer
	// Getenv reads the OTEL_* variables that decide whether anything is exported.
	Getenv func(string) string
	// Spans, if set, sees every span that ends, exported or not.
	Spans sdktrace.SpanProcessor
}

// New sets up reporting. The caller calls Shutdown.
func New(ctx context.Context, cfg Config, opt Options) (*Telemetry, error) {
	level, err := cfg.level()
	if err != nil {
		return nil, err
	}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", opt.Service), attribute.String("service.version", opt.Version)),
		resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe process for telemetry: %w", err)
	}
	t := &Telemetry{registry: prometheus.NewRegistry()}
	if err := t.setUp(ctx, cfg, opt, level, res); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

func (t *Telemetry) setUp(ctx context.Context, cfg Config, opt Options, level slog.Level, res *resource.Resource) error {
	if err := t.setUpLogs(ctx, cfg, opt, level, res); err != nil {
		return err
	}
	if err := t.setUpTraces(ctx, opt, res); err != nil {
		return err
	}
	return t.setUpMetrics(ctx, opt, res)
}

func (t *Telemetry) setUpLogs(ctx context.Context, cfg Config, opt Options, level slog.Level, res *resource.Resource) error {
	var handler slog.Handler = slog.NewJSONHandler(opt.Logs, &slog.HandlerOptions{Level: level})
	if cfg.LogFormat == "text" {
		handler = slog.NewTextHandler(opt.Logs, &slog.HandlerOptions{Level: level})
	}
	handler = traced{handler}
	if exported("LOGS", opt.Getenv) {
		exporter, err := autoexport.NewLogExporter(ctx)
		if err != nil {
			return fmt.Errorf("set up export of logs (check the OTEL_* variables): %w", err)
		}
		provider := sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)))
		t.shutdown = append(t.shutdown, provider.Shutdown)
		bridge := otelslog.NewHandler("github.com/stormbell/stormbell", otelslog.WithLoggerProvider(provider))
		handler = slog.NewMultiHandler(handler, leveled{bridge, level})
	}
	t.log = slog.New(redacting{handler})
	return nil
}

func (t *Telemetry) setUpTraces(ctx context.Context, opt Options, res *resource.Resource) error {
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if opt.Spans != nil {
		options = append(options, sdktrace.WithSpanProcessor(opt.Spans))
	}
	switch {
	case exported("TRACES", opt.Getenv):
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return fmt.Errorf("set up export of traces (check the OTEL_* variables): %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	case opt.Spans == nil:
		// Ids are still made and handed on, but nothing is recorded.
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	}
	provider := sdktrace.NewTracerProvider(options...)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.tracers = provider
	return nil
}

func (t *Telemetry) setUpMetrics(ctx context.Context, opt Options, res *resource.Resource) error {
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := promexporter.New(promexporter.WithRegisterer(t.registry), promexporter.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(exporter)}
	if exported("METRICS", opt.Getenv) {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return fmt.Errorf("set up export of metrics (check the OTEL_* variables): %w", err)
		}
		options = append(options, sdkmetric.WithReader(reader))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.meters = provider
	return nil
}

// exported reports whether the environment names an OTLP endpoint for a signal.
func exported(signal string, getenv func(string) string) bool {
	if getenv == nil {
		getenv = os.Getenv
	}
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || strings.EqualFold(getenv("OTEL_"+signal+"_EXPORTER"), "none") {
		return false
	}
	return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// Logger returns the process's logger.
func (t *Telemetry) Logger() *slog.Logger { return t.log }

// Tracers returns the provider of tracers.
func (t *Telemetry) Tracers() trace.TracerProvider { return t.tracers }

// Meters returns the provider of meters. Instruments made from it are served
// on the admin port.
func (t *Telemetry) Meters() metric.MeterProvider { return t.meters }

// Registry returns what the admin port serves, for collectors that are not
// made from Meters.
func (t *Telemetry) Registry() *prometheus.Registry { return t.registry }

// Shutdown sends what has not been sent, for at most five seconds.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var errs []error
	for _, end := range slices.Backward(t.shutdown) {
		errs = append(errs, end(ctx))
	}
	t.shutdown = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("send last telemetry: %w", err)
	}
	return nil
}
