package e2e_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

const (
	bodyLimit = 1 << 20
	// mostGrowth is what a gateway's memory may grow by while bombs arrive.
	mostGrowth = 64 << 20
	bombs      = 8
)

// testBomb posts bodies that expand to 1,000 times the limit.
func testBomb(t *testing.T, r *rig.Runner) {
	d := r.Start(t, rig.Options{Settings: map[string]string{"gateway": fmt.Sprintf("max_body_bytes: %d", bodyLimit)}})
	bomb := newBomb(t, 1000*bodyLimit)
	post := func() (*rig.Response, error) {
		return d.Call(t.Context(), 0, d.Key, http.MethodPost, "/v1/events", "application/x-ndjson", bomb, "Content-Encoding", "gzip")
	}
	d.Post(t, 0, []byte(`{"action":"none"}`))
	gateway := d.Processes[0]
	before := peakMemory(t, gateway.Pid())
	var g errgroup.Group
	for range bombs {
		g.Go(func() error {
			resp, err := post()
			if err == nil && resp.Status != http.StatusRequestEntityTooLarge {
				err = fmt.Errorf("status %d: %s", resp.Status, resp.Body)
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
	grown := peakMemory(t, gateway.Pid()) - before
	require.Less(t, grown, int64(mostGrowth))
	d.Post(t, 0, []byte(`{"action":"none"}`))
	t.Logf("%d bombs of %d bytes: memory grew by %d KiB", bombs, len(bomb), grown>>10)
}

// newBomb is one JSON string of blanks: members of gzip that follow each other
// are one text.
func newBomb(t *testing.T, size int) []byte {
	t.Helper()
	const part = 1 << 24
	var one bytes.Buffer
	zip := gzip.NewWriter(&one)
	_, err := zip.Write(bytes.Repeat([]byte(" "), part))
	require.NoError(t, err)
	require.NoError(t, zip.Close())
	return bytes.Repeat(one.Bytes(), size/part+1)
}

// peakMemory is the most resident memory that a process has had so far.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if os.IsNotExist(err) {
		t.Skip("memory is read from /proc, which this system has not")
	}
	require.NoError(t, err)
	m := regexp.MustCompile(`VmHWM:\s+([0-9]+) kB`).FindSubmatch(text)
	require.NotNil(t, m)
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// testRestart kills the processes of the ingest and reports how long it takes
// until an event is accepted again.
func testRestart(t *testing.T, r *rig.Runner) {
	d := r.Start(t, rig.Options{Rules: "testdata/rules/crash"})
	now := time.Now()
	l := newLoad(1, 10_000, 20, now)
	client := newClient(t, d)
	require.NoError(t, new(progress).send(within(t, patience), client, l))
	p := d.Processes[0]
	require.NoError(t, p.Kill())
	began := time.Now()
	require.NoError(t, p.Launch())
	require.NoError(t, rig.Every(within(t, patience), "an event is accepted", func() bool {
		resp, err := d.Call(t.Context(), 0, d.Key, http.MethodPost, "/v1/events", "application/json", []byte(`{"action":"none"}`))
		return err == nil && resp.Status == http.StatusAccepted
	}))
	t.Logf("%s: an event was accepted %s after the start that followed a kill -9 with %d events in the log (target: below 5 s)",
		d.Kind, time.Since(began).Round(time.Millisecond), len(l.sent))
}

// walk calls fn for every file beneath dir.
func walk(dir string, fn func(path string, size int64)) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err == nil {
			fn(path, info.Size())
		}
		return err
	})
}
