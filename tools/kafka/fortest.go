package kafka

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stormbell/stormbell/tools/child"
)

// ForTest starts a cluster that ends with the test, data included. Where Kafka
// cannot be had (no Java; no Maven or no network at the first time) the test is
// skipped, or fails if STORMBELL_REQUIRE_REAL is 1. If the test fails, the end of
// each node's log is reported and the logs are kept.
func ForTest(tb testing.TB, options ...func(*Options)) *Cluster {
	tb.Helper()
	Require(tb)
	var opts Options
	for _, option := range options {
		option(&opts)
	}
	if opts.Dir == "" {
		opts.Dir = tb.TempDir()
	}
	c, err := Start(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		c.mu.Lock()
		err := c.end(c.nodes, (*child.Process).Kill) // the data goes too: no need to be polite
		c.mu.Unlock()
		if err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			c.keepLogs(tb)
		}
	})
	return c
}

// Require skips or fails the test as ForTest does, and starts nothing.
func Require(tb testing.TB) {
	tb.Helper()
	programs := []string{"java"}
	if lib, err := cacheDir(); err != nil || !fetched(lib) {
		programs = append(programs, "mvn")
	}
	child.Require(tb, programs...)
	ctx, cancel := context.WithTimeout(tb.Context(), fetchLimit)
	defer cancel()
	if _, err := Fetch(ctx); err != nil {
		if os.Getenv(child.RequireEnv) == "1" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
}

// keepLogs is best effort: the test has failed for another reason.
func (c *Cluster) keepLogs(tb testing.TB) {
	tb.Helper()
	kept, err := os.MkdirTemp("", "stormbell-kafka-logs-") //nolint:usetesting // it must outlive the test
	if err != nil {
		return
	}
	for _, n := range c.nodes {
		tb.Logf("last words of kafka node %d:\n%s", n.id, child.Tail(n.log))
		if b, err := os.ReadFile(n.log); err == nil {
			_ = os.WriteFile(filepath.Join(kept, filepath.Base(n.log)), b, 0o600)
		}
	}
	tb.Logf("their whole logs: %s", kept)
}
