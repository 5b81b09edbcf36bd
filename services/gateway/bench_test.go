package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/embedded"
)

// BenchmarkPost measures whole requests against an embedded broker in a
// process of its own: events/cpu-s are events per second of processor time
// that this process, the gateway with its load, takes.
func BenchmarkPost(b *testing.B) {
	lines := strings.Join(trailRecords(b, 500), "\n")
	for _, bench := range []struct {
		name        string
		records     int
		contentType string
		body        string
		headers     []string
	}{
		{"cloudtrail-ndjson-500-gzip", 500, "application/x-ndjson", zipped(b, lines), []string{"Content-Encoding", "gzip"}},
		{"cloudtrail-ndjson-500-zstd", 500, "application/x-ndjson", zstded(b, lines), []string{"Content-Encoding", "zstd"}},
		{"json-single", 1, "application/json", `{"action":"login_failed","user":"alice","timestamp":"2026-03-01T10:11:12Z"}`, nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			w := newWorldOn(b, brokerProcess(b))
			e := w.gateway()
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range work {
						req := e.request(http.MethodPost, "/v1/events", bench.body, append([]string{"Content-Type", bench.contentType}, bench.headers...)...)
						res, err := e.client.Do(req)
						if err != nil {
							b.Error(err)
							continue
						}
						_, err = io.Copy(io.Discard, res.Body) // reading costs the load's part, not the gateway's
						_ = res.Body.Close()
						if err != nil || res.StatusCode != http.StatusAccepted {
							b.Error(res.Status, err)
						}
					}
				})
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime(b)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			spent := cpuTime(b) - before
			events := float64(b.N) * float64(bench.records)
			b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(events/spent.Seconds(), "events/cpu-s")
		})
	}
}

// cpuTime is the processor time that this process has taken so far.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const brokerVariable = "STORMBELL_GATEWAY_TEST_BROKER"

// brokerProcess starts this test binary again as a broker and returns its
// address.
func brokerProcess(tb testing.TB) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), brokerVariable+"="+tb.TempDir())
	stdin, err := cmd.StdinPipe()
	require.NoError(tb, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(tb, err)
	cmd.Stderr = os.Stderr
	require.NoError(tb, cmd.Start())
	tb.Cleanup(func() {
		_ = stdin.Close() // the broker ends with it
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(tb, err)
	return strings.TrimSpace(addr)
}

// serveBroker is the other side of brokerProcess.
func serveBroker(dir string) error {
	cfg := embedded.DefaultConfig(dir)
	cfg.Auth, cfg.MinFreeBytes, cfg.LogMaxBytes = false, 0, 64<<30
	b, err := embedded.Open(cfg, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		return err
	}
	fmt.Println(b.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return b.Close()
}
