package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Admin is the port for operators: /metrics, /healthz, /readyz and, on
// loopback, pprof. It asks for no credential, so it must not be public.
type Admin struct {
	server   *http.Server
	listener net.Listener
}

// NewAdmin opens the port. ready reports why each part of the process is not
// ready; nil means that it is. Run serves it, and must be called or the port
// stays open.
func NewAdmin(cfg Config, registry *prometheus.Registry, ready func() map[string]error, log *slog.Logger) (*Admin, error) {
	listener, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return nil, fmt.Errorf("open admin port %s (set another with --admin): %w", cfg.Admin, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answerReady(w, ready()) })
	tcp, ok := listener.Addr().(*net.TCPAddr)
	loopback := ok && tcp.IP.IsLoopback()
	if loopback || cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	var handler http.Handler = mux
	if loopback {
		handler = localOnly(mux)
	}
	return &Admin{listener: listener, server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes its time
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}, nil
}

// localOnly refuses requests by a name that is not the machine's own, so that
// a web page cannot read the port through a name that it points at loopback.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "the admin port answers to localhost only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answerReady(w http.ResponseWriter, modules map[string]error) {
	body := struct {
		Ready   bool              `json:"ready"`
		Modules map[string]string `json:"modules"`
	}{true, make(map[string]string, len(modules))}
	for name, err := range modules {
		body.Modules[name] = "ready"
		if err != nil {
			body.Ready = false
			body.Modules[name] = err.Error()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}

// Addr returns the host and port.
func (a *Admin) Addr() string { return a.listener.Addr().String() }

// Run serves the port until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if a.server.Shutdown(ctx) != nil {
			_ = a.server.Close()
		}
	})
	defer stop()
	if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin port: %w", err)
	}
	return nil
}
