package loadgen_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/tools/loadgen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway collects the ids of events and answers as told.
type gateway struct {
	mu       sync.Mutex
	ids      map[string]int
	requests int
	answer   func(request int) int
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zip, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = zip
	}
	var ids []string
	for s := bufio.NewScanner(body); s.Scan(); {
		var e struct{ EventID, EventVersion, EventTime string }
		if json.Unmarshal(s.Bytes(), &e) != nil || e.EventVersion == "" || e.EventTime == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		ids = append(ids, e.EventID)
	}
	g.mu.Lock()
	g.requests++
	n := g.requests
	for _, id := range ids {
		g.ids[id]++
	}
	g.mu.Unlock()
	status := http.StatusAccepted
	if r.Header.Get("Authorization") != "Bearer key" {
		status = http.StatusUnauthorized
	} else if g.answer != nil {
		status = g.answer(n)
	}
	w.WriteHeader(status)
}

func serve(t *testing.T, answer func(int) int) (*gateway, string) {
	t.Helper()
	g := &gateway{ids: map[string]int{}, answer: answer}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, s.URL
}

func TestRunSendsEachEventOnce(t *testing.T) {
	for name, c := range map[string]struct {
		cfg      loadgen.Config
		requests int
	}{
		"single":            {loadgen.Config{Batch: 1, Rate: 5000}, 250},
		"batches":           {loadgen.Config{Batch: 100, Rate: 50_000, Gzip: true}, 3},
		"as fast as it can": {loadgen.Config{Batch: 100}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			g, url := serve(t, nil)
			c.cfg.URLs, c.cfg.Key, c.cfg.Count, c.cfg.Concurrency = []string{url}, "key", 250, 4
			r, err := loadgen.Run(t.Context(), c.cfg)
			require.NoError(t, err)
			require.Equal(t, 250, r.Sent)
			require.Equal(t, 250, r.Accepted)
			require.Equal(t, c.requests, r.Requests)
			require.EqualValues(t, c.requests, r.Latency.TotalCount())
			require.Empty(t, r.Errors)
			require.Len(t, g.ids, 250)
			for id, n := range g.ids {
				require.Equal(t, 1, n, id)
			}
			require.Contains(t, r.Summary().String(), "accepted   250 events")
		})
	}
}

// TestAStallCountsForAllThatWaited is what an open loop is for: while one answer
// is held back, the requests that should have been sent grow old.
func TestAStallCountsForAllThatWaited(t *testing.T) {
	const rate, held = 1000, 100 * time.Millisecond
	_, url := serve(t, func(n int) int {
		if n == 1 {
			<-time.After(held)
		}
		return http.StatusAccepted
	})
	r, err := loadgen.Run(t.Context(), loadgen.Config{URLs: []string{url}, Key: "key", Batch: 1, Rate: rate, Count: 50, Concurrency: 1})
	require.NoError(t, err)
	// All 50 were meant to leave in the first 50 ms and none could before 100 ms.
	require.GreaterOrEqual(t, time.Duration(r.Latency.Min())*time.Microsecond, held-50*time.Millisecond-time.Millisecond)
	require.GreaterOrEqual(t, r.Behind, 49)
}

func TestErrorsAreCounted(t *testing.T) {
	_, url := serve(t, func(n int) int {
		switch n {
		case 1:
			return http.StatusTooManyRequests
		case 2:
			panic(http.ErrAbortHandler)
		}
		return http.StatusAccepted
	})
	r, err := loadgen.Run(t.Context(), loadgen.Config{URLs: []string{url}, Key: "key", Batch: 1, Count: 5, Concurrency: 1})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"429": 1, "network": 1}, r.Errors)
	require.Equal(t, 3, r.Accepted)
}

func TestRunEndsWithItsDurationAndContext(t *testing.T) {
	_, url := serve(t, nil)
	cfg := loadgen.Config{URLs: []string{url}, Key: "key", Batch: 1, Rate: 1000, Duration: 100 * time.Millisecond, Concurrency: 4}
	r, err := loadgen.Run(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, 100, r.Sent)
	cfg.Duration = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = loadgen.Run(ctx, cfg)
	require.ErrorIs(t, err, context.Canceled)
}

func TestValidate(t *testing.T) {
	good := loadgen.Config{URLs: []string{"http://127.0.0.1:1"}, Key: "key", Batch: 1, Concurrency: 1, Count: 1}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*loadgen.Config){
		"--allow-remote": func(c *loadgen.Config) { c.URLs = []string{"http://203.0.113.7"} },
		"another":        func(c *loadgen.Config) { c.URLs = []string{"http://127.0.0.1.example.com"} },
		"must end":       func(c *loadgen.Config) { c.Count = 0 },
		"key":            func(c *loadgen.Config) { c.Key = "" },
		"batch":          func(c *loadgen.Config) { c.Batch = 0 },
		"rate":           func(c *loadgen.Config) { c.Rate = -1 },
	} {
		c := good
		change(&c)
		require.ErrorContains(t, c.Validate(), want)
	}
}

func TestCloudTrail(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	make1, make2 := loadgen.CloudTrail(1), loadgen.CloudTrail(2)
	require.Equal(t, make1(nil, 7, at), loadgen.CloudTrail(1)(nil, 7, at))
	require.False(t, bytes.Equal(make1(nil, 7, at), make2(nil, 7, at)))
	for n := range 100 {
		e := make1(nil, n, at)
		require.True(t, json.Valid(e), "%s", e)
		require.Greater(t, len(e), 1200)
		require.Less(t, len(e), 1700)
		require.Contains(t, string(e), `"eventTime":"2026-01-02T03:04:05Z"`)
	}
}
