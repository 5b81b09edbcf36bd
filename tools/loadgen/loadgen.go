// Package loadgen posts events at a rate that does not depend on the answers
// (an open loop) and measures each latency from when the request was meant to
// be sent, so that a stalled server cannot hide how long it made others wait.
//
// It makes its own events. It judges nothing: what became of the events behind
// the answer is for the ledgers.
package loadgen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/klauspost/compress/gzip"
)

// Config says what to send.
type Config struct {
	// URLs are gateways, without a path. They take turns.
	URLs []string
	// Key is the API key.
	Key string
	// Rate is events a second. 0 sends the next request when one of
	// Concurrency is answered, which finds the capacity but is no measure of
	// latency.
	Rate float64
	// Batch is events per request: 1 is a JSON object, more are NDJSON.
	Batch int
	// Gzip compresses bodies.
	Gzip bool
	// Duration and Count bound the run: whichever is reached first.
	Duration time.Duration
	Count    int
	// Concurrency bounds requests under way. Where it does not suffice,
	// requests leave late, and the wait counts.
	Concurrency int
	// AllowRemote permits gateways on other machines.
	AllowRemote bool
	// Event makes the nth event, from 0, that is meant to be sent at a time.
	// None: CloudTrail.
	Event func(dst []byte, n int, at time.Time) []byte
}

// Validate says what cannot work.
func (c *Config) Validate() error {
	if len(c.URLs) == 0 || c.Key == "" {
		return errors.New("loadgen: a URL and a key are needed")
	}
	for _, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return fmt.Errorf("loadgen: URL %q: use http://HOST:PORT", text)
		}
		ip := net.ParseIP(u.Hostname())
		if !c.AllowRemote && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("loadgen: %s is another machine: load it only with its owner's consent and --allow-remote", u.Host)
		}
	}
	switch {
	case c.Batch < 1 || c.Concurrency < 1:
		return errors.New("loadgen: batch and concurrency: use 1 or more")
	case c.Rate < 0 || c.Count < 0 || c.Duration < 0:
		return errors.New("loadgen: rate, count and duration: use 0 or more")
	case c.Duration == 0 && c.Count == 0:
		return errors.New("loadgen: set a duration or a count: a run must end")
	}
	return nil
}

// Result is what a run gave.
type Result struct {
	Start time.Time     `json:"start"`
	Took  time.Duration `json:"took_ns"`
	// Sent counts events in requests that were begun, Accepted those that were
	// answered with 202.
	Sent     int `json:"sent"`
	Accepted int `json:"accepted"`
	Requests int `json:"requests"`
	// Bytes of events before compression.
	Bytes int64 `json:"bytes"`
	// Errors counts requests by status, or by "network".
	Errors map[string]int `json:"errors,omitempty"`
	// Behind counts requests that left more than 1 ms after their time, because
	// all of Concurrency were under way.
	Behind int `json:"behind"`
	// Latency from the intended time to the whole answer, in µs, of accepted
	// requests.
	Latency *hdrhistogram.Histogram `json:"-"`
	// CPU is what the generator itself used; it took that from the server if both
	// share a machine.
	CPU time.Duration `json:"cpu_ns"`
}

// Rate is accepted events a second.
func (r *Result) Rate() float64 { return float64(r.Accepted) / r.Took.Seconds() }

// Percentile of the latency.
func (r *Result) Percentile(p float64) time.Duration {
	return time.Duration(r.Latency.ValueAtQuantile(p)) * time.Microsecond
}

const (
	mostLatency = int64(10 * time.Minute / time.Microsecond)
	digits      = 3
	requestTime = time.Minute
)

// generator is a run.
type generator struct {
	cfg    Config
	client *http.Client
	start  time.Time
	next   atomic.Int64 // number of the next request

	mu  sync.Mutex
	res Result
}

// Run sends what cfg asks for and returns when every request has been answered
// or ctx is done.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Event == nil {
		cfg.Event = CloudTrail(1)
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		MaxIdleConnsPerHost: cfg.Concurrency, MaxConnsPerHost: cfg.Concurrency,
	}
	defer transport.CloseIdleConnections()
	g := &generator{cfg: cfg, client: &http.Client{Transport: transport, Timeout: requestTime}, start: time.Now()}
	g.res = Result{Start: g.start, Errors: map[string]int{}, Latency: hdrhistogram.New(1, mostLatency, digits)}
	before := ownCPU()
	var wg sync.WaitGroup
	for range cfg.Concurrency {
		wg.Go(func() { g.work(ctx) })
	}
	wg.Wait()
	g.res.Took, g.res.CPU = time.Since(g.start), ownCPU()-before
	if err := ctx.Err(); err != nil {
		return &g.res, fmt.Errorf("loadgen: ended early: %w", err)
	}
	return &g.res, nil
}

// IntendedAt is when the nth event, from 0, is meant to be sent.
func (c *Config) IntendedAt(start time.Time, n int) time.Time {
	if c.Rate == 0 {
		return start
	}
	first := n - n%c.Batch
	return start.Add(time.Duration(float64(first) / c.Rate * float64(time.Second)))
}

// work sends request after request, each at its time.
func (g *generator) work(ctx context.Context) {
	var body, packed bytes.Buffer
	var event []byte
	zip := gzip.NewWriter(&packed)
	for {
		first := int(g.next.Add(1)-1) * g.cfg.Batch
		at := g.cfg.IntendedAt(g.start, first)
		if g.cfg.Rate == 0 {
			at = time.Now()
		}
		if g.over(first, at) || !until(ctx, at) {
			return
		}
		events := g.cfg.Batch
		if g.cfg.Count > 0 {
			events = min(events, g.cfg.Count-first)
		}
		body.Reset()
		for n := range events {
			event = g.cfg.Event(event[:0], first+n, at)
			body.Write(event)
			body.WriteByte('\n')
		}
		send, encoding := &body, ""
		if g.cfg.Gzip {
			packed.Reset()
			zip.Reset(&packed)
			if _, err := zip.Write(body.Bytes()); err != nil || zip.Close() != nil {
				return // a buffer takes everything
			}
			send, encoding = &packed, "gzip"
		}
		g.request(ctx, first, events, body.Len(), at, send.Bytes(), encoding)
	}
}

func (g *generator) over(first int, at time.Time) bool {
	return g.cfg.Count > 0 && first >= g.cfg.Count || g.cfg.Duration > 0 && at.Sub(g.start) >= g.cfg.Duration
}

// until waits for a time; not if ctx ends before.
func until(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *generator) request(ctx context.Context, first, events, size int, at time.Time, body []byte, encoding string) {
	behind := time.Since(at) > time.Millisecond
	outcome := g.post(ctx, g.cfg.URLs[first/g.cfg.Batch%len(g.cfg.URLs)], body, encoding)
	took := time.Since(at)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.res.Requests++
	g.res.Sent += events
	g.res.Bytes += int64(size)
	if behind {
		g.res.Behind++
	}
	if outcome != "" {
		g.res.Errors[outcome]++
		return
	}
	g.res.Accepted += events
	_ = g.res.Latency.RecordValue(min(max(took.Microseconds(), 1), mostLatency)) // within its bounds
}

// post returns "" for 202, else what was wrong.
func (g *generator) post(ctx context.Context, base string, body []byte, encoding string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return "request"
	}
	kind := "application/json"
	if g.cfg.Batch > 1 {
		kind = "application/x-ndjson"
	}
	req.Header.Set("Content-Type", kind)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	req.Header.Set("Authorization", "Bearer "+g.cfg.Key)
	resp, err := g.client.Do(req)
	if err != nil {
		return "network"
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "network"
	}
	if resp.StatusCode != http.StatusAccepted {
		return strconv.Itoa(resp.StatusCode)
	}
	return ""
}
