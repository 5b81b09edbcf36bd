package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/tenant"
)

// A Producer appends records to the topic `events`.
//
// Submit has build append its records when the request to the broker is put
// together, and returns nil when the broker has acknowledged them with
// acks=all; size is about their bytes. It fails with bus.ErrQueueFull, without
// calling build, where too much waits already. After any other error the
// records may still be written, and build may still be called.
//
// Queued returns how many bytes wait or are under way.
type Producer interface {
	Submit(ctx context.Context, partition, size int, build func(dst []bus.Message) []bus.Message) error
	Queued() int64
}

// maxProduceBytes bounds the records of one produce: brokers take a megabyte
// by default, frames included.
const maxProduceBytes = 900_000

// partitions spreads requests over the partitions of events and knows which
// of them are silent.
type partitions struct {
	load    []atomic.Int64 // bytes handed over and not yet acknowledged
	written []atomic.Int64 // Unix ms of the last record
	turn    atomic.Uint64

	mu     sync.Mutex
	shares map[shareKey][]int
}

type shareKey struct {
	tenant string
	size   int
}

func newPartitions(count int) *partitions {
	return &partitions{load: make([]atomic.Int64, count), written: make([]atomic.Int64, count), shares: make(map[shareKey][]int)}
}

// pick returns the partition of the tenant's share that has the least to do.
func (p *partitions) pick(id string, size int) int {
	key := shareKey{id, size}
	p.mu.Lock()
	share, ok := p.shares[key]
	if !ok {
		share = tenant.Share(id, len(p.load), size)
		p.shares[key] = share
	}
	p.mu.Unlock()
	// Equals take turns.
	turn := int(p.turn.Add(1) % uint64(len(share)))
	best := share[turn]
	for i := 1; i < len(share); i++ {
		if other := share[(turn+i)%len(share)]; p.load[other].Load() < p.load[best].Load() {
			best = other
		}
	}
	return best
}

// wrote notes that a record with this ingest time was acknowledged.
func (p *partitions) wrote(partition int, ms int64) {
	for {
		old := p.written[partition].Load()
		if old >= ms || p.written[partition].CompareAndSwap(old, ms) {
			return
		}
	}
}

// produce writes the events of a batch to one partition and returns nil once
// all of them are acknowledged.
func (s *Service) produce(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ProduceTimeout)
	defer cancel()
	if err := s.deps.Fault.at(PointTaken); err != nil {
		return err
	}
	begin := s.deps.Clock()
	size := s.cfg.TenantPartitions
	if t, ok := s.deps.Control.Tenant(b.tenant); ok && t.GetPartitions() > 0 {
		size = int(t.GetPartitions())
	}
	partition := s.partitions.pick(b.tenant, size)
	headers := headersOf(ctx, event.SchemaEvent, b.tenant)

	var group errgroup.Group
	group.SetLimit(4) // of a large request's produces at a time
	for rest := b.events; len(rest) > 0; {
		n, bytes := chunk(rest)
		part := rest[:n]
		rest = rest[n:]
		if len(part) == len(b.events) {
			// The usual case takes no goroutine.
			if err := s.submit(ctx, partition, bytes, part, headers); err != nil {
				return err
			}
			break
		}
		group.Go(func() error { return s.submit(ctx, partition, bytes, part, headers) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	s.metrics.produceDuration.Record(ctx, s.deps.Clock().Sub(begin).Seconds())
	return s.deps.Fault.at(PointProduced)
}

// chunk returns how many events go into the next produce, and at most how many
// bytes they take.
func chunk(events []event.Event) (n, bytes int) {
	for ; n < len(events); n++ {
		size := encodedSize(&events[n])
		if n > 0 && bytes+size > maxProduceBytes {
			break
		}
		bytes += size
	}
	return n, bytes
}

// encodedSize bounds the bytes of an event whose manifests are not yet known.
func encodedSize(e *event.Event) int {
	const manifests = 2 * 32
	return event.MaxOverhead + manifests + len(e.ID) + len(e.Tenant) + len(e.Source) + len(e.Format) +
		len(e.Product) + len(e.Service) + len(e.Category) + len(e.Raw)
}

// submit hands events over and waits. They get their ingest time, flags and
// manifests when the produce is built, not before: what waits in a queue must
// not fall behind the watermark.
func (s *Service) submit(ctx context.Context, partition, bytes int, events []event.Event, headers []bus.Header) error {
	s.partitions.load[partition].Add(int64(bytes))
	defer s.partitions.load[partition].Add(-int64(bytes))
	arena, _ := s.arenas.Get().(*arena)
	if arena == nil {
		arena = newArena()
	}
	var ingest atomic.Int64
	err := s.deps.Producer.Submit(ctx, partition, bytes, func(dst []bus.Message) []bus.Message {
		now := s.deps.Clock().UnixMilli()
		ingest.Store(now)
		all, own := s.deps.Control.Manifests(events[0].Tenant)
		return arena.encode(dst, events, bytes, headers, now, all, own)
	})
	if err != nil {
		return err // the arena may still be read: leave it to the collector
	}
	s.partitions.wrote(partition, ingest.Load())
	s.arenas.Put(arena)
	return nil
}

// An arena holds the encoded events of one produce.
type arena struct{ bytes []byte }

func newArena() *arena { return new(arena) }

func (a *arena) encode(dst []bus.Message, events []event.Event, bytes int, headers []bus.Header, now int64, all, own []byte) []bus.Message {
	if cap(a.bytes) < bytes {
		a.bytes = make([]byte, 0, bytes)
	}
	a.bytes = a.bytes[:0]
	for i := range events {
		e := &events[i]
		e.IngestMS, e.ManifestAll, e.ManifestTenant = now, all, own
		if !e.OwnTime {
			e.TimeMS = now
		}
		e.Late, e.Early = event.Flags(e.TimeMS, e.IngestMS, e.LatenessMS)
		from := len(a.bytes)
		a.bytes = event.Encode(a.bytes, e)
		dst = append(dst, bus.Message{Value: a.bytes[from:len(a.bytes):len(a.bytes)], Headers: headers})
	}
	return dst
}

// headersOf are the headers that all records of a request share.
func headersOf(ctx context.Context, schema, tenantID string) []bus.Header {
	headers := []bus.Header{{Key: event.HeaderSchema, Value: []byte(schema)}}
	if tenantID != "" {
		headers = append(headers, bus.Header{Key: event.HeaderTenant, Value: []byte(tenantID)})
	}
	traceparent, tracestate := traceHeaders(ctx)
	if traceparent != "" {
		headers = append(headers, bus.Header{Key: event.HeaderTraceparent, Value: []byte(traceparent)})
	}
	if tracestate != "" {
		headers = append(headers, bus.Header{Key: event.HeaderTracestate, Value: []byte(tracestate)})
	}
	return headers
}

// produceProblem is the answer where some events were not acknowledged.
func (s *Service) produceProblem(ctx context.Context, id string, err error) *problem {
	reason := "broker"
	detail := "the broker did not acknowledge all events: send the request again"
	switch {
	case errors.Is(err, bus.ErrQueueFull):
		reason, detail = "queue_full", "too many events wait for the broker: send the request again later"
	case errors.Is(err, context.Canceled):
		reason = "client_gone"
	case errors.Is(err, context.DeadlineExceeded):
		reason = "timeout"
	}
	s.metrics.produceFailed(ctx, reason)
	if reason == "broker" || reason == "timeout" {
		s.deps.Log.WarnContext(ctx, "events not acknowledged", "request_id", id, "error", err)
	}
	return unavailable(detail, time.Second)
}
