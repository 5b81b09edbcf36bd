package redis

import (
	"os"
	"testing"

	"github.com/stormbell/stormbell/tools/child"
)

// ForTest starts a server that ends with the test. Where redis-server is not
// installed the test is skipped, or fails if STORMBELL_REQUIRE_REAL is 1. If the
// test fails, the end of the server's log is reported.
func ForTest(tb testing.TB, options ...func(*Options)) *Server {
	tb.Helper()
	Require(tb)
	opts := Options{Dir: tb.TempDir()}
	for _, option := range options {
		option(&opts)
	}
	s, err := Start(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			keepLog(tb, s)
		}
	})
	return s
}

// Require skips or fails the test as ForTest does, and starts nothing.
func Require(tb testing.TB) {
	tb.Helper()
	child.Require(tb, program)
}

func keepLog(tb testing.TB, s *Server) {
	tb.Helper()
	tb.Logf("last words of redis:\n%s", child.Tail(s.LogFile()))
	f, err := os.CreateTemp("", "stormbell-redis-*.log") //nolint:usetesting // it must outlive the test
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // a log kept for a reader is best effort
	if b, err := os.ReadFile(s.LogFile()); err == nil {
		if _, err := f.Write(b); err == nil {
			tb.Logf("its whole log: %s", f.Name())
		}
	}
}
