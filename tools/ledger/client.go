// Package ledger keeps the two books that a crash test is judged by: what a
// client was told is accepted, and what a subscriber has received. It knows
// nothing of what happens in between.
package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	leastPause = 20 * time.Millisecond
	mostPause  = time.Second
	maxAnswer  = 16 << 20
)

// A Batch is one request.
type Batch struct {
	ContentType string
	// Encoding is the Content-Encoding of Body, or empty.
	Encoding string
	Body     []byte
	// Events is how many events Body holds: all must be accepted.
	Events int
	// Headers are sent along.
	Headers map[string]string
}

// A Client posts batches until they are accepted and writes down, before it
// sends, that it is about to, and afterwards what the answer was. It is safe
// for concurrent use.
type Client struct {
	urls []string
	key  string
	http *http.Client

	mu       sync.Mutex
	file     *os.File
	intents  int
	accepted map[string]int
	statuses map[int]int
}

// NewClient begins a ledger in a new file. It posts to the gateways at urls,
// each request to the next one. The caller must call Close.
func NewClient(path, key string, urls ...string) (*Client, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin client ledger: %w", err)
	}
	return &Client{
		urls: urls, key: key, file: f, accepted: map[string]int{}, statuses: map[int]int{},
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 30 * time.Second},
	}, nil
}

// Close ends the ledger.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	if err := c.file.Close(); err != nil {
		return fmt.Errorf("close client ledger: %w", err)
	}
	return nil
}

// entry is one line of the file.
type entry struct {
	Request int      `json:"request"`
	Attempt int      `json:"attempt,omitempty"`
	Intent  int      `json:"intent,omitempty"` // events about to be sent
	Status  int      `json:"status,omitempty"`
	Error   string   `json:"error,omitempty"`
	IDs     []string `json:"ids,omitempty"`
}

// Post sends the batch again and again until it is accepted as a whole, and
// returns the ids of its events. An answer that will not change is an error:
// whatever is no 408, 429 or 5xx.
func (c *Client) Post(ctx context.Context, b Batch) ([]string, error) {
	request, err := c.intend(b.Events)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		url := c.urls[(request+attempt)%len(c.urls)]
		status, answer, err := c.send(ctx, url, request, &b)
		note := entry{Request: request, Attempt: attempt, Status: status, IDs: answer.IDs}
		if err != nil {
			note.Error = err.Error()
		}
		if err := c.note(note); err != nil {
			return nil, err
		}
		switch {
		case err == nil && status == http.StatusAccepted && answer.Accepted == b.Events && len(answer.IDs) == b.Events:
			return answer.IDs, nil
		case err == nil && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout:
			return nil, fmt.Errorf("request %d: status %d, %d of %d accepted: %s", request, status, answer.Accepted, b.Events, answer.Detail)
		}
		if err := pause(ctx, attempt); err != nil {
			return nil, fmt.Errorf("request %d was not accepted in %d attempts: %w", request, attempt, err)
		}
	}
}

// intend writes down a request that is about to be sent, and has the disk keep it.
func (c *Client) intend(events int) (int, error) {
	c.mu.Lock()
	c.intents++
	request := c.intents
	c.mu.Unlock()
	if err := c.note(entry{Request: request, Intent: events}); err != nil {
		return 0, err
	}
	if err := c.file.Sync(); err != nil {
		return 0, fmt.Errorf("sync client ledger: %w", err)
	}
	return request, nil
}

func (c *Client) note(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode ledger entry: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Status == http.StatusAccepted {
		for _, id := range e.IDs {
			c.accepted[id]++
		}
	}
	if e.Intent == 0 {
		c.statuses[e.Status]++
	}
	if _, err := c.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write client ledger: %w", err)
	}
	return nil
}

type answer struct {
	Accepted int      `json:"accepted"`
	IDs      []string `json:"ids"`
	Detail   string   `json:"detail"`
}

func (c *Client) send(ctx context.Context, url string, request int, b *Batch) (int, answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/events", bytes.NewReader(b.Body))
	if err != nil {
		return 0, answer{}, fmt.Errorf("build request: %w", err)
	}
	req.GetBody = nil // each attempt is ours: net/http would repeat one with an Idempotency-Key by itself
	req.Header.Set("Content-Type", b.ContentType)
	if b.Encoding != "" {
		req.Header.Set("Content-Encoding", b.Encoding)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Idempotency-Key", "ledger-"+strconv.Itoa(request))
	for name, value := range b.Headers {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, answer{}, fmt.Errorf("post: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or given up
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, answer{}, fmt.Errorf("read answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		a.Detail = string(text[:min(len(text), 200)])
	}
	return resp.StatusCode, a, nil
}

// pause waits between attempts, longer each time, with jitter.
func pause(ctx context.Context, attempt int) error {
	wait := min(leastPause<<min(attempt, 10), mostPause)
	timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the next attempt: %w", ctx.Err())
	}
}

// Accepted returns the ids of all events that a gateway said it keeps, sorted.
func (c *Client) Accepted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.accepted))
}

// Statuses returns how often each status was the answer; 0 is no answer.
func (c *Client) Statuses() map[int]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.statuses)
}
