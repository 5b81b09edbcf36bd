package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/services/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, logs io.Writer, change func(*telemetry.Config, *telemetry.Options)) *telemetry.Telemetry {
	t.Helper()
	cfg := telemetry.DefaultConfig()
	opt := telemetry.Options{Service: "test", Version: "1", Logs: logs, Getenv: func(string) string { return "" }}
	if change != nil {
		change(&cfg, &opt)
	}
	require.NoError(t, cfg.Validate())
	tel, err := telemetry.New(t.Context(), cfg, opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tel.Shutdown(context.WithoutCancel(t.Context()))) })
	return tel
}

func TestLogsHaveTraceIDsAndNoSecrets(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			tel := start(t, &out, func(c *telemetry.Config, _ *telemetry.Options) { c.LogFormat = format })
			ctx, span := tel.Tracers().Tracer("test").Start(t.Context(), "work")
			defer span.End()
			log := tel.Logger().With("password", "canary1", slog.Group("g", "token", "canary2"))
			log.WithGroup("h").InfoContext(ctx, "hello", "secret", "canary3", slog.Group("x", "Authorization", "canary4", "kept", "value1"), "also", "value2") //nolint:sloglint // a careless caller's spelling
			log.DebugContext(ctx, "not logged")
			line := out.String()
			require.NotContains(t, line, "canary")
			require.NotContains(t, line, "not logged")
			for _, want := range []string{"value1", "value2", span.SpanContext().TraceID().String(), span.SpanContext().SpanID().String()} {
				require.Contains(t, line, want)
			}
		})
	}
}

func TestIDsAreMadeWithoutAnExporter(t *testing.T) {
	tel := start(t, io.Discard, nil)
	ctx, span := tel.Tracers().Tracer("test").Start(t.Context(), "root")
	require.True(t, span.SpanContext().IsValid())
	require.False(t, span.IsRecording())
	_, child := tel.Tracers().Tracer("test").Start(ctx, "child")
	require.Equal(t, span.SpanContext().TraceID(), child.SpanContext().TraceID())
}

func TestSpanProcessorSeesSpans(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tel := start(t, io.Discard, func(_ *telemetry.Config, o *telemetry.Options) { o.Spans = recorder })
	_, span := tel.Tracers().Tracer("test").Start(t.Context(), "work")
	span.End()
	require.Len(t, recorder.Ended(), 1)
	var _ sdktrace.SpanProcessor = recorder
}

type header kafka.Header

func TestContextRidesInHeaders(t *testing.T) {
	tel := start(t, io.Discard, nil)
	ctx, span := tel.Tracers().Tracer("test").Start(t.Context(), "work")
	defer span.End()
	member, err := baggage.NewMember("user", "canary")
	require.NoError(t, err)
	bag, err := baggage.New(member)
	require.NoError(t, err)
	ctx = baggage.ContextWithBaggage(ctx, bag)

	headers := telemetry.Inject(ctx, []kafka.Header{{Key: "schema", Value: []byte("x")}, {Key: "traceparent", Value: []byte("old")}})
	require.Len(t, headers, 2, "an old context is replaced and baggage stays")
	got := trace.SpanContextFromContext(telemetry.Extract(context.Background(), headers))
	require.Equal(t, span.SpanContext().TraceID(), got.TraceID())
	require.Equal(t, span.SpanContext().SpanID(), got.SpanID())
	require.True(t, got.IsRemote())

	named := telemetry.Inject(ctx, []header(nil))
	require.Equal(t, "traceparent", named[0].Key)
	for _, bad := range []string{"", "00-zz", strings.Repeat("0", 1000)} {
		ctx := telemetry.Extract(t.Context(), []header{{Key: "traceparent", Value: []byte(bad)}})
		require.False(t, trace.SpanContextFromContext(ctx).IsValid(), bad)
	}
}

func admin(t *testing.T, tel *telemetry.Telemetry, listen string, ready func() map[string]error) *telemetry.Admin {
	t.Helper()
	a, err := telemetry.NewAdmin(telemetry.Config{Admin: listen}, tel.Registry(), ready, tel.Logger())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		cancel()
		wg.Wait()
	})
	return a
}

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Host = host
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestAdmin(t *testing.T) {
	tel := start(t, io.Discard, nil)
	counter, err := tel.Meters().Meter("test").Int64Counter("stormbell.test.events", metric.WithDescription("Events."))
	require.NoError(t, err)
	counter.Add(t.Context(), 3)
	var broken error
	a := admin(t, tel, "127.0.0.1:0", func() map[string]error { return map[string]error{"good": nil, "correlator": broken} })
	base := "http://" + a.Addr()

	status, body := get(t, base+"/metrics", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, "stormbell_test_events_total")
	require.Contains(t, body, "go_goroutines")
	status, _ = get(t, base+"/healthz", "")
	require.Equal(t, 200, status)
	status, body = get(t, base+"/readyz", "")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"ready":true,"modules":{"good":"ready","correlator":"ready"}}`, body)
	broken = errors.New("rebuilding")
	status, body = get(t, base+"/readyz", "")
	require.Equal(t, 503, status)
	require.JSONEq(t, `{"ready":false,"modules":{"good":"ready","correlator":"rebuilding"}}`, body)
	status, _ = get(t, base+"/debug/pprof/cmdline", "")
	require.Equal(t, 200, status)
	status, _ = get(t, base+"/metrics", "evil.example")
	require.Equal(t, 403, status, "a rebound name is refused")
	status, _ = get(t, base+"/metrics", "localhost:8081")
	require.Equal(t, 200, status)
}

// TestHistogramsPointAtTraces holds that who asks in the format that has
// exemplars gets the trace of what was measured, which dashboards lead to.
func TestHistogramsPointAtTraces(t *testing.T) {
	tel := start(t, io.Discard, func(_ *telemetry.Config, o *telemetry.Options) { o.Spans = tracetest.NewSpanRecorder() })
	h, err := tel.Meters().Meter("test").Float64Histogram("waited_seconds", metric.WithUnit("s"))
	require.NoError(t, err)
	ctx, span := tel.Tracers().Tracer("test").Start(t.Context(), "waits")
	h.Record(ctx, 0.5)
	span.End()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(tel.Registry(), promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(answer, req)
	require.Regexp(t, `waited_seconds_bucket\{le="[0-9.]+"\} 1 # \{[^}]*trace_id="`+span.SpanContext().TraceID().String()+`"[^}]*\} 0\.5`, answer.Body.String())
}

func TestProfilesStayOnLoopback(t *testing.T) {
	tel := start(t, io.Discard, nil)
	a := admin(t, tel, "0.0.0.0:0", func() map[string]error { return nil })
	_, port, _ := strings.Cut(a.Addr()[strings.LastIndex(a.Addr(), "]")+1:], ":")
	status, _ := get(t, "http://127.0.0.1:"+port+"/debug/pprof/cmdline", "")
	require.Equal(t, 404, status)
}

func TestExportsWhereTheEnvironmentSaysSo(t *testing.T) {
	var (
		mu    sync.Mutex
		paths = make(map[string]int)
	)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		paths[r.URL.Path]++
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	cfg := telemetry.DefaultConfig()
	tel, err := telemetry.New(t.Context(), cfg, telemetry.Options{Service: "test", Logs: io.Discard})
	require.NoError(t, err)
	ctx, span := tel.Tracers().Tracer("test").Start(t.Context(), "work")
	tel.Logger().InfoContext(ctx, "hello")
	span.End()
	counter, err := tel.Meters().Meter("test").Int64Counter("stormbell.test.events")
	require.NoError(t, err)
	counter.Add(ctx, 1)
	require.NoError(t, tel.Shutdown(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]int{"/v1/traces": 1, "/v1/metrics": 1, "/v1/logs": 1}, paths)
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*telemetry.Config){
		"level":  func(c *telemetry.Config) { c.LogLevel = "loud" },
		"format": func(c *telemetry.Config) { c.LogFormat = "xml" },
	} {
		cfg := telemetry.DefaultConfig()
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), name)
	}
}
