package notifier

import (
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/notifier/queue"
)

// endpoints keeps each endpoint in its bounds: requests under way, rate, and
// a breaker. It is shared by all shards of the process.
type endpoints struct {
	cfg Config

	mu       sync.Mutex
	all      map[string]*endpoint
	inFlight int
	// suspects counts the requests under way to endpoints that fail.
	suspects int
	waiters  map[waker]struct{} // of any slot
}

// A waker is told that a claim may bring more than the one before.
type waker interface{ wake() }

type endpoint struct {
	inFlight int
	// limit grows with successes and shrinks with failures, so that an
	// endpoint that hangs takes one slot.
	limit int
	// failures in a row.
	failures int
	suspects int
	// theoretical is when the next request would be due at an even rate.
	theoretical time.Time
	// closed is when the endpoint may be served again.
	closed time.Time
	// The breaker: what happened since began, and whether it is open.
	began            time.Time
	requests, failed int
	open             bool
	pause, throttle  time.Duration
	used             time.Time
	waiters          map[waker]struct{}
}

// suspectFailures in a row make an endpoint a suspect. Suspects together get
// half of the workers.
const suspectFailures = 3

// sweepSize is how many endpoints are remembered before idle ones are forgotten.
const (
	sweepSize = 10_000
	sweepAge  = 10 * time.Minute
)

// firstLimit is the room of an endpoint of which nothing is known.
const firstLimit = 1

func newEndpoints(cfg Config) *endpoints {
	return &endpoints{cfg: cfg, all: make(map[string]*endpoint), waiters: make(map[waker]struct{})}
}

func (e *endpoints) get(name string, now time.Time) *endpoint {
	p := e.all[name]
	if p == nil {
		if len(e.all) >= sweepSize {
			e.sweep(now)
		}
		p = &endpoint{limit: firstLimit, began: now}
		e.all[name] = p
	}
	p.used = now
	return p
}

func (e *endpoints) sweep(now time.Time) {
	for name, p := range e.all {
		if p.inFlight == 0 && !p.open && p.closed.Before(now) && now.Sub(p.used) > sweepAge {
			delete(e.all, name)
		}
	}
}

// rooms says what a claim may take: how many tasks in all, and of each
// endpoint that may not have exactly firstLimit. w is woken when what was short
// becomes free.
func (e *endpoints) rooms(now time.Time, w waker) (limit int, rooms []queue.Room) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if limit = min(maxClaim, e.cfg.Workers-e.inFlight); limit <= 0 {
		limit = 0
		e.waiters[w] = struct{}{}
	}
	for name, p := range e.all {
		if e.idle(p, now) {
			continue // firstLimit will do, and begin sees to more
		}
		room := queue.Room{Endpoint: name, Max: e.room(p, now)}
		if opens := e.opens(p, now); opens.After(now) {
			room.Max, room.NotBeforeMS = 0, opens.UnixMilli()+1
		}
		if room.Max == 0 {
			p.await(w)
			if p.failing() && p.inFlight == 0 && room.NotBeforeMS == 0 {
				e.waiters[w] = struct{}{} // for another suspect's slot
			}
		}
		if room.Max != firstLimit || room.NotBeforeMS != 0 {
			rooms = append(rooms, room)
		}
	}
	return limit, rooms
}

// idleAge is how long an endpoint without requests is told to each claim.
const idleAge = 10 * time.Second

func (e *endpoints) idle(p *endpoint, now time.Time) bool {
	return p.inFlight == 0 && !p.failing() && now.Sub(p.used) > idleAge && !e.opens(p, now).After(now)
}

func (p *endpoint) await(w waker) {
	if p.waiters == nil {
		p.waiters = make(map[waker]struct{})
	}
	p.waiters[w] = struct{}{}
}

// room is how many more requests an endpoint may have now.
func (e *endpoints) room(p *endpoint, now time.Time) int {
	limit := p.limit
	if p.failing() {
		if limit = 1; e.suspects >= max(1, e.cfg.Workers/2) {
			return 0
		}
	}
	return max(0, min(limit-p.inFlight, e.tokens(p, now)))
}

func (p *endpoint) failing() bool { return p.open || p.failures >= suspectFailures }

// tokens is how many requests the rate allows at once.
func (e *endpoints) tokens(p *endpoint, now time.Time) int {
	if e.cfg.Rate == 0 {
		return e.cfg.InFlight
	}
	ahead := max(0, p.theoretical.Sub(now))
	return int((time.Duration(e.cfg.Burst)*e.interval() - ahead) / e.interval())
}

func (e *endpoints) interval() time.Duration {
	return max(1, time.Duration(float64(time.Second)/e.cfg.Rate))
}

// opens is when an endpoint may be served again.
func (e *endpoints) opens(p *endpoint, now time.Time) time.Time {
	if e.cfg.Rate == 0 || e.tokens(p, now) > 0 {
		return p.closed
	}
	next := p.theoretical.Add(-time.Duration(e.cfg.Burst-1) * e.interval())
	if next.Before(p.closed) {
		return p.closed
	}
	return next
}

// begin takes a slot for a request. It is false where another shard has taken
// the last one meanwhile.
func (e *endpoints) begin(name string, now time.Time, w waker) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.all[name]; p != nil && e.idle(p, now) {
		w.wake() // the claim was not told how many it may have
	}
	p := e.get(name, now)
	room := e.room(p, now)
	if p.closed.After(now) {
		room = 0
	}
	if room <= 1 {
		p.await(w)
	}
	if room == 0 {
		return false
	}
	p.inFlight++
	e.inFlight++
	if p.failing() {
		p.suspects++
		e.suspects++
	}
	if e.cfg.Rate > 0 {
		if p.theoretical.Before(now) {
			p.theoretical = now
		}
		p.theoretical = p.theoretical.Add(e.interval())
	}
	return true
}

// A result is what a request says of its endpoint.
type result int

const (
	unknown   result = iota // nothing was learnt
	succeeded               // 2xx
	failed
)

// end gives the slot back. A throttle leaves the endpoint alone for at least
// that long.
func (e *endpoints) end(name string, now time.Time, r result, throttle bool, after time.Duration) {
	e.mu.Lock()
	woken := e.endLocked(name, now, r, throttle, after)
	e.mu.Unlock()
	for _, w := range woken {
		w.wake()
	}
}

func (e *endpoints) endLocked(name string, now time.Time, r result, throttle bool, after time.Duration) []waker {
	p := e.get(name, now)
	p.inFlight--
	e.inFlight--
	if p.suspects > 0 {
		p.suspects--
		e.suspects--
	}
	switch r {
	case succeeded:
		p.limit, p.failures, p.open, p.pause, p.throttle = min(2*p.limit, e.cfg.InFlight), 0, false, 0, 0
		e.window(p, now)
		p.requests++
	case failed:
		p.limit = max(1, p.limit/2)
		p.failures++
		e.fail(p, now)
		if throttle {
			p.throttle = min(max(2*p.throttle, e.cfg.Throttle), e.cfg.BreakerMaxPause)
			p.close(now.Add(max(p.throttle, after)))
		}
	}
	woken := make([]waker, 0, len(p.waiters)+len(e.waiters))
	for w := range p.waiters {
		woken = append(woken, w)
	}
	for w := range e.waiters {
		woken = append(woken, w)
	}
	clear(p.waiters)
	clear(e.waiters)
	return woken
}

func (p *endpoint) close(until time.Time) {
	if p.closed.Before(until) {
		p.closed = until
	}
}

// window begins a new count where the old one is too old.
func (e *endpoints) window(p *endpoint, now time.Time) {
	if now.Sub(p.began) > e.cfg.BreakerWindow {
		p.began, p.requests, p.failed = now, 0, 0
	}
}

// fail counts a failure and opens the breaker where there are too many. An
// open one is probed by one request after each pause.
func (e *endpoints) fail(p *endpoint, now time.Time) {
	if p.open && p.closed.After(now) {
		return // was under way when the breaker opened
	}
	e.window(p, now)
	p.requests++
	p.failed++
	if !p.open && (p.requests < e.cfg.BreakerRequests || float64(p.failed) < e.cfg.BreakerFailed*float64(p.requests)) {
		return
	}
	if p.pause = min(2*p.pause, e.cfg.BreakerMaxPause); p.pause == 0 {
		p.pause = e.cfg.BreakerPause
	}
	p.open = true
	p.began, p.requests, p.failed = now, 0, 0
	p.close(now.Add(p.pause))
}

// leave forgets who waits no longer.
func (e *endpoints) leave(w waker) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiters, w)
	for _, p := range e.all {
		delete(p.waiters, w)
	}
}

// fails reports whether an endpoint has been failing.
func (e *endpoints) fails(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.all[name]
	return p != nil && p.failing()
}

// slots is how many requests are under way.
func (e *endpoints) slots() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inFlight
}
