package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	probeTimeout = 3 * time.Second
	probeBytes   = 4 << 10
)

// Probe asks the process whose admin port is at addr, on this machine, whether
// it is "live" or "ready". It is for containers, which have no program to ask
// with.
func Probe(ctx context.Context, addr, what string) error {
	paths := map[string]string{"live": "/healthz", "ready": "/readyz"}
	path, ok := paths[what]
	if !ok {
		return fmt.Errorf("probe %q: use live or ready", what)
	}
	if addr == "" {
		return errors.New("probe: there is no admin port to ask: set telemetry.admin")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("probe: telemetry.admin: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true} // and no proxy
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("not %s: %w", what, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, probeBytes)) // what came of it
	return fmt.Errorf("not %s: %s", what, strings.TrimSpace(string(body)))
}
