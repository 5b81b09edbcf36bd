package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
)

func TestQuota(t *testing.T) {
	var offset atomic.Int64
	w := newWorld(t)
	e := w.gateway(at(&offset), func(c *gateway.Config, _ *gateway.Deps) { c.EventsPerSecond = 1 })
	twenty := `[` + strings.Repeat(`{},`, 19) + `{}]`
	require.Equal(t, http.StatusAccepted, e.post(twenty).status, "one request may overdraw what ten seconds allow")
	r := e.post(`{}`)
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.Equal(t, "quota_exceeded", r.code())
	require.NotEmpty(t, r.header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, e.do(http.MethodGet, "/v1/status", "").status, "it counts events alone")

	acme := e.key
	e.key = e.mint("globex")
	require.Equal(t, http.StatusAccepted, e.post(twenty).status, "tenants do not share")
	require.NoError(t, e.view.Put(t.Context(), &controlv1.Control{Object: &controlv1.Control_Tenant{Tenant: &controlv1.Tenant{Id: "initech", EventsPerSecond: 2}}}))
	e.key = e.mint("initech")
	require.Equal(t, http.StatusAccepted, e.post(twenty).status)
	require.Equal(t, http.StatusAccepted, e.post(twenty).status, "a tenant's own quota comes first")
	require.Equal(t, http.StatusTooManyRequests, e.post(twenty).status)

	e.key = acme
	offset.Store(int64(20 * time.Second))
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status, "it comes back with time")
	events, _ := w.events()
	require.Len(t, events, 20+20+40+1, "what is refused produces nothing")
}

func TestNoRoom(t *testing.T) {
	var full atomic.Bool
	w := newWorld(t)
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) {
		d.Full = func() (bool, string) { return full.Load(), "the log has reached its cap" }
	})
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	full.Store(true)
	r := e.post(`{}`)
	require.Equal(t, http.StatusServiceUnavailable, r.status)
	require.NotEmpty(t, r.header.Get("Retry-After"))
	require.Contains(t, r.body, "the log has reached its cap")
	require.Equal(t, http.StatusServiceUnavailable, e.do(http.MethodGet, "/readyz", "").status)
	status := e.do(http.MethodGet, "/v1/status", "")
	require.Equal(t, http.StatusOK, status.status)
	require.Equal(t, false, status.json["ready"])
	require.Contains(t, status.text("reason"), "cap")
	require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/keys", `{}`).status, "management goes on")
	full.Store(false)
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	require.Equal(t, http.StatusOK, e.do(http.MethodGet, "/readyz", "").status)
}

// TestFullQueue posts more at a time than may wait: what is refused says so, and
// exactly what is accepted is there.
func TestFullQueue(t *testing.T) {
	w := newWorld(t)
	cfg := bus.DefaultProducerConfig()
	cfg.MaxQueuedRequests = 1
	producer := bus.NewProducer(w.bus, bus.TopicEvents, cfg)
	defer producer.Close()
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) { d.Producer = producer })
	var (
		mu       sync.Mutex
		accepted = map[string]bool{}
		refused  int
		wg       sync.WaitGroup
	)
	for i := range 200 {
		wg.Go(func() {
			req := e.request(http.MethodPost, "/v1/events", fmt.Sprintf(`{"n":%d,"pad":"%s"}`, i, strings.Repeat("x", 50_000)))
			res, err := e.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
			case res.StatusCode == http.StatusAccepted:
				accepted[string(body)] = true
			case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "" && strings.Contains(string(body), "too many events wait"):
				refused++
			default:
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
	wg.Wait()
	require.Positive(t, refused)
	events, _ := w.events()
	require.Len(t, events, len(accepted))
	require.Equal(t, 200, refused+len(accepted))
	for id := range w.byID() {
		found := false
		for body := range accepted {
			found = found || strings.Contains(body, id)
		}
		require.True(t, found, id)
	}
}

// TestStop stops a gateway under load: every request is answered or refused,
// and what was answered with success is there.
func TestStop(t *testing.T) {
	w := newWorld(t)
	e := w.gateway()
	// One request is under way, half of its body sent.
	rest, body := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.base+"/v1/events", rest)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+e.key)
	slow := make(chan reply, 1)
	go func() { slow <- e.send(req) }()
	_, err = body.Write([]byte(`{"slow":`))
	require.NoError(t, err)

	var (
		mu       sync.Mutex
		accepted []string
		wg       sync.WaitGroup
	)
	for range 8 {
		wg.Go(func() {
			for e.stillTakes(&mu, &accepted) {
			}
		})
	}
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(accepted) > 50 }, 10*time.Second, time.Millisecond)
	e.stop()
	wg.Wait() // the others are turned away while one is still under way
	require.ErrorContains(t, e.Ready(), "stopping")
	_, err = body.Write([]byte(`true}`))
	require.NoError(t, err)
	require.NoError(t, body.Close())
	r := <-slow
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	e.end()
	stored := w.byID()
	for _, id := range append(accepted, r.ids()...) {
		require.Contains(t, stored, id)
	}
}

// stillTakes posts one event and reports whether the gateway still takes any.
func (e *edge) stillTakes(mu *sync.Mutex, accepted *[]string) bool {
	res, err := e.client.Do(e.request(http.MethodPost, "/v1/events", `{}`))
	if err != nil {
		return false // refused with the connection
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		e.w.t.Errorf("an answer was cut: %v", err)
		return false
	}
	switch res.StatusCode {
	case http.StatusAccepted:
		mu.Lock()
		defer mu.Unlock()
		_, id, _ := strings.Cut(string(text), `"ids":["`)
		id, _, _ = strings.Cut(id, `"`)
		*accepted = append(*accepted, id)
		return true
	case http.StatusServiceUnavailable:
		if res.Header.Get("Retry-After") == "" {
			e.w.t.Error("no Retry-After")
		}
	default:
		e.w.t.Errorf("%d %s", res.StatusCode, text)
	}
	return false
}

// TestLinger holds that a gateway that is told to stop is not ready, and yet
// takes what comes on open and new connections, with the request to leave.
func TestLinger(t *testing.T) {
	e := newWorld(t).gateway(func(c *gateway.Config, _ *gateway.Deps) { c.Linger = 5 * time.Second })
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func() (status int, last bool) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.Addr()+"/v1/events", strings.NewReader(`{}`))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+e.key)
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, res.Close
	}
	_, last := post()
	require.False(t, last)
	e.stop()
	require.Eventually(t, func() bool { return e.Ready() != nil }, 20*time.Second, time.Millisecond)
	for range 2 { // on the connection that was open, and on a new one
		status, last := post()
		require.Equal(t, http.StatusAccepted, status)
		require.True(t, last)
	}
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	e := newWorld(t).gateway(func(c *gateway.Config, _ *gateway.Deps) { c.DrainTimeout = 10 * time.Millisecond })
	conn := e.dial()
	_, err := fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 10\r\n\r\n{", e.key)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	e.end()
	_, err = io.ReadAll(conn)
	require.False(t, isTimeout(err), "the connection was cut")
}

func (e *edge) dial() net.Conn {
	e.w.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(e.w.t.Context(), "tcp", e.Addr())
	require.NoError(e.w.t, err)
	e.w.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(e.w.t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// TestSlowClients leaves connections that send nothing to their time-out, and
// serves others meanwhile.
func TestSlowClients(t *testing.T) {
	e := newWorld(t).gateway(func(c *gateway.Config, _ *gateway.Deps) {
		c.HeaderTimeout, c.BodyTimeout = 100*time.Millisecond, 200*time.Millisecond
	})
	var slow []net.Conn
	for i := range 200 {
		conn := e.dial()
		head := "POST /v1/events HTTP/1.1\r\nHost: x\r\n"
		if i%2 == 0 {
			head += "Authorization: Bearer " + e.key + "\r\nContent-Length: 100\r\n\r\n{"
		}
		_, err := io.WriteString(conn, head)
		require.NoError(t, err)
		slow = append(slow, conn)
	}
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	for i, conn := range slow {
		text, err := io.ReadAll(conn)
		require.False(t, isTimeout(err), "connection %d was let go", i)
		if i%2 == 0 {
			require.Contains(t, string(text), "408 Request Timeout")
		}
	}
}

// TestStrangersAreNotWaitedFor: who has no key cannot hold a connection by
// not sending the body.
func TestStrangersAreNotWaitedFor(t *testing.T) {
	e := newWorld(t).gateway()
	conn := e.dial()
	_, err := io.WriteString(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, res.StatusCode)
	_, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.False(t, isTimeout(err), "the connection was let go, long before the body's time")
}

func TestConnectionLimit(t *testing.T) {
	e := newWorld(t).gateway(func(c *gateway.Config, _ *gateway.Deps) { c.MaxConnections, c.HeaderTimeout = 2, 100*time.Millisecond })
	for range 10 {
		e.dial()
	}
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status, "further ones wait and get their turn")
}

// TestTicks: silent partitions of idle gateways move on.
func TestTicks(t *testing.T) {
	w := newWorld(t)
	before := time.Now().UnixMilli()
	w.gateway()
	w.gateway()
	require.Eventually(t, func() bool {
		_, ticks := w.events()
		for p := range testPartitions {
			if len(ticks[p]) < 4 {
				return false
			}
		}
		return true
	}, 20*time.Second, 50*time.Millisecond)
	_, ticks := w.events()
	for p, list := range ticks {
		for _, ms := range list {
			require.GreaterOrEqual(t, ms, before, "partition %d", p)
			require.LessOrEqual(t, ms, time.Now().UnixMilli())
		}
		require.Greater(t, list[len(list)-1], list[0])
	}
}

// TestTicksAreForSilence: as long as the clock stands still after a record, its
// partition is not silent.
func TestTicksAreForSilence(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixMilli())
	w := newWorld(t)
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) {
		d.Clock = func() time.Time { return time.UnixMilli(now.Load()) }
	})
	count := func() (n int) {
		_, ticks := w.events()
		for _, list := range ticks {
			n += len(list)
		}
		return n
	}
	require.Eventually(t, func() bool { return count() == testPartitions }, 10*time.Second, 10*time.Millisecond, "a partition that nothing is known of")
	for range 5 {
		require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	}
	now.Add(999)
	require.Equal(t, http.StatusAccepted, e.post(`{}`).status)
	require.Equal(t, testPartitions, count())
	now.Add(1)
	require.Eventually(t, func() bool { return count() == 2*testPartitions-1 }, 10*time.Second, 10*time.Millisecond, "all but the partition of the last post")
}

func TestUnacknowledged(t *testing.T) {
	w := newWorld(t)
	e := w.gateway(func(_ *gateway.Config, d *gateway.Deps) { d.Producer = closedProducer(w) })
	r := e.post(`[{},{}]`)
	require.Equal(t, http.StatusServiceUnavailable, r.status)
	require.NotEmpty(t, r.header.Get("Retry-After"))
	require.NotContains(t, r.json, "ids")
	r = e.do(http.MethodPost, "/v1/events", "{}\nx\n", "Content-Type", "application/x-ndjson")
	require.Equal(t, http.StatusServiceUnavailable, r.status, "for the whole request")
	e.key = e.mint("globex", control.ScopeManage)
	require.Equal(t, http.StatusCreated, e.do(http.MethodPost, "/v1/keys", `{}`).status)
}

// closedProducer is a producer that takes nothing more.
func closedProducer(w *world) *bus.Producer {
	p := bus.NewProducer(w.bus, bus.TopicEvents, bus.DefaultProducerConfig())
	p.Close()
	return p
}
