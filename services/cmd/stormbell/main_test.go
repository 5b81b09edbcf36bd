package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write golden files and references")
	if os.Getenv(childArgs) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// output is a buffer that a command may still write to while it is read.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// result is what a command line gave.
type result struct {
	code     int
	out, err string
}

// stormbell runs one command line in this process.
func stormbell(t *testing.T, stdin string, environ map[string]string, args ...string) result {
	t.Helper()
	var out, errs output
	code := execute(t.Context(), testEnv(strings.NewReader(stdin), &out, &errs, environ), args)
	return result{code, out.String(), errs.String()}
}
