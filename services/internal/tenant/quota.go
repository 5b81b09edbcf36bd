// Package tenant keeps tenants out of each other's way at the edge: how much a
// tenant may send, and which partitions its requests go to.
//
// It holds what one process has seen; quotas are per gateway and are not
// shared between gateways. It does not know who a tenant is.
package tenant

import (
	"sync"
	"time"
)

// Burst is the time over which a quota is averaged: a tenant that was silent
// that long may send as much at once.
const Burst = 10 * time.Second

// A Quota limits the events a tenant sends. Zero is without limit.
type Quota struct {
	EventsPerSecond uint32
	// BytesPerSecond counts bytes after decompression.
	BytesPerSecond uint64
}

// Quotas holds a token bucket per tenant and measure. Its methods are safe for
// concurrent use.
type Quotas struct {
	mu      sync.Mutex
	tenants map[string]*usage
}

type usage struct{ events, bytes bucket }

// NewQuotas returns quotas with full buckets.
func NewQuotas() *Quotas { return &Quotas{tenants: make(map[string]*usage)} }

// Wait returns how long the tenant must wait before it may send anything; 0
// if it may now.
func (q *Quotas) Wait(tenant string, quota Quota, now time.Time) time.Duration {
	return q.Take(tenant, quota, 0, 0, now)
}

// Take charges events and bytes to a tenant and returns 0, or charges nothing
// and returns how long to wait. A request is let through whole as soon as
// anything is left, and the bucket goes into debt: so the average holds, and a
// request larger than a bucket is not refused for ever.
func (q *Quotas) Take(tenant string, quota Quota, events, bytes int, now time.Time) time.Duration {
	if quota == (Quota{}) {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.tenants[tenant]
	if u == nil {
		u = &usage{}
		q.tenants[tenant] = u
	}
	wait := max(
		u.events.wait(float64(quota.EventsPerSecond), now),
		u.bytes.wait(float64(quota.BytesPerSecond), now),
	)
	if wait == 0 {
		u.events.used += float64(events)
		u.bytes.used += float64(bytes)
	}
	return wait
}

// A bucket counts what was used and not yet refilled. The zero bucket is full.
type bucket struct {
	used float64
	at   time.Time
}

// wait refills the bucket and returns how long until something is left in it.
func (b *bucket) wait(rate float64, now time.Time) time.Duration {
	if rate == 0 {
		b.used = 0
		return 0
	}
	// A clock that steps back refills nothing.
	if passed := now.Sub(b.at); passed > 0 {
		b.used = max(0, b.used-rate*passed.Seconds())
		b.at = now
	}
	over := b.used - rate*Burst.Seconds()
	if over < 0 {
		return 0
	}
	return max(time.Duration(over/rate*float64(time.Second)), time.Millisecond)
}
