package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/state"
)

// publisher moves a partition's outbox to `alerts`, `detections` and `dlq`, in parallel to
// the fold, and knows the frontier: the first offset of which something is not
// acknowledged. It lives as long as one owner.
type publisher struct {
	store     Outbox
	producer  Producer
	log       *slog.Logger
	fault     Fault
	counts    *counts
	partition int32
	token     string
	limit     int64 // entries; wait rests above it

	mu sync.Mutex
	// applied is the position up to which the outbox is complete, last the
	// sequence number of its last entry.
	applied, last int64
	// acked is the last acknowledged entry and ackedOffset its offset.
	acked, ackedOffset int64
	// queue is what follows behind acked; what does not fit stays in the store.
	queue      []state.Entry
	queueBytes int
	moved      chan struct{} // closed when anything above changes
}

func newPublisher(f *folder, producer Producer, log *slog.Logger) *publisher {
	return &publisher{
		store: f.store, producer: producer, log: log, fault: f.fault, counts: f.counts, partition: f.partition, token: f.token,
		limit: f.cfg.OutboxEntries, applied: f.applied.Offset, last: f.seq, acked: f.first - 1, ackedOffset: -1, moved: make(chan struct{}),
	}
}

// Bounds of what is held in memory and of one produce.
const (
	queueBytes   = 8 << 20
	publishBatch = 500
)

// add tells of what a call of the store has put into the outbox.
func (p *publisher) add(applied int64, entries []state.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		// Only a gapless queue is kept: what lies behind a gap is read later.
		if e.Seq != p.queuedLocked()+1 || p.queueBytes >= queueBytes {
			break
		}
		p.queue = append(p.queue, e)
		p.queueBytes += len(e.Body)
	}
	if n := len(entries); n > 0 {
		p.last = entries[n-1].Seq
	}
	p.applied = applied
	p.counts.outbox(int(p.partition), p.last-p.acked)
	p.wakeLocked()
}

// queuedLocked is the sequence number up to which the queue reaches.
func (p *publisher) queuedLocked() int64 {
	if n := len(p.queue); n > 0 {
		return p.queue[n-1].Seq
	}
	return p.acked
}

func (p *publisher) wakeLocked() {
	close(p.moved)
	p.moved = make(chan struct{})
}

// frontier is the first offset of which something is not acknowledged. It is
// negative where that is not known yet.
func (p *publisher) frontier() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.acked >= p.last:
		// Above it where the fold has not told yet what it has appended.
		return p.applied
	case len(p.queue) > 0:
		return p.queue[0].Offset
	default:
		return p.ackedOffset
	}
}

// rest returns once the outbox is short enough to fold on.
func (p *publisher) rest(ctx context.Context) error {
	for {
		p.mu.Lock()
		open, moved := p.last-p.acked, p.moved
		p.mu.Unlock()
		if open < p.limit {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
	}
}

// run publishes until ctx ends or the store refuses.
func (p *publisher) run(ctx context.Context) error {
	for {
		moved, err := p.step(ctx)
		if err != nil {
			return err
		}
		if moved == nil {
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
	}
}

// step publishes what comes next; where nothing does, it returns what to wait
// for.
func (p *publisher) step(ctx context.Context) (<-chan struct{}, error) {
	entries, moved, err := p.head(ctx)
	if err != nil || len(entries) == 0 {
		return moved, err
	}
	if err := p.publish(ctx, entries); err != nil {
		return nil, err
	}
	if err := p.fault.at(PointPublished, nil); err != nil {
		return nil, err
	}
	p.ack(entries)
	if err := p.store.Trim(ctx, p.partition, p.token, entries[len(entries)-1].Seq); err != nil {
		return nil, err //nolint:wrapcheck // the store says what failed
	}
	return nil, p.fault.at(PointTrimmed, nil)
}

// errOutboxLost says that entries which nobody has acknowledged are gone.
var errOutboxLost = errors.New("store has lost a part of its outbox: opening the partition anew")

// head returns the next entries to publish, from memory or from the store, and
// what to wait for where there are none.
func (p *publisher) head(ctx context.Context) ([]state.Entry, <-chan struct{}, error) {
	p.mu.Lock()
	moved, after := p.moved, p.acked
	if n := len(p.queue); n > 0 || p.acked >= p.last {
		entries := p.queue[:min(n, publishBatch)]
		p.mu.Unlock()
		return entries, moved, nil
	}
	p.mu.Unlock()
	// Larger entries come in smaller numbers: a page is bounded by its count.
	entries, err := p.store.Outbox(ctx, p.partition, after, publishBatch/4)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the store says what failed
	}
	// Nobody else has trimmed since this owner began: what is not there is lost.
	if len(entries) == 0 || entries[0].Seq != after+1 {
		return nil, nil, errOutboxLost
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue, p.queueBytes = entries, 0
	for _, e := range entries {
		p.queueBytes += len(e.Body)
	}
	return entries, moved, nil
}

func (p *publisher) publish(ctx context.Context, entries []state.Entry) error {
	var alerts, signals, dead, groups []bus.Message
	for _, e := range entries {
		m, ok := decodeMessage(e.Body)
		if !ok {
			return fmt.Errorf("outbox entry %d of partition %d is damaged: flush the store, the log rebuilds it", e.Seq, p.partition)
		}
		out := bus.Message{Key: m.key, Value: m.value, Headers: m.headers}
		switch m.kind {
		case toDLQ:
			dead = append(dead, out)
		case toState:
			groups = append(groups, out)
		case toDetections:
			signals = append(signals, out)
		default:
			alerts = append(alerts, out)
		}
	}
	for _, part := range []struct {
		topic string
		msgs  []bus.Message
	}{{TopicAlerts, alerts}, {TopicDetections, signals}, {TopicDLQ, dead}} {
		if len(part.msgs) == 0 {
			continue
		}
		err := p.produce(ctx, part.topic, len(part.msgs), func() error { return p.producer.ProduceKeyed(ctx, part.topic, part.msgs) })
		if err != nil {
			return err
		}
	}
	// Only once all that a snapshot's records had to say is acknowledged.
	for len(groups) > 0 {
		some := groups[:fitting(groups)]
		err := p.produce(ctx, TopicState, len(some), func() error {
			_, err := p.producer.Produce(ctx, TopicState, int(p.partition), some)
			return err //nolint:wrapcheck // logged with its topic
		})
		if err != nil {
			return err
		}
		groups = groups[len(some):]
	}
	return nil
}

// produce repeats a produce until it is acknowledged.
func (p *publisher) produce(ctx context.Context, topic string, entries int, do func() error) error {
	return retry(ctx, func(err error) {
		p.log.Warn("outbox is not acknowledged, trying again", "topic", topic, "entries", entries, "error", err)
	}, do)
}

// maxProduce is how many bytes of snapshots go into one produce.
const maxProduce = 800_000

// fitting is how many messages go into one produce.
func fitting(msgs []bus.Message) int {
	size := 0
	for i, m := range msgs {
		if size += len(m.Key) + len(m.Value); size > maxProduce && i > 0 {
			return i
		}
	}
	return len(msgs)
}

func (p *publisher) ack(entries []state.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := entries[len(entries)-1]
	p.acked, p.ackedOffset = last.Seq, last.Offset
	p.counts.outbox(int(p.partition), p.last-p.acked)
	for _, e := range entries {
		p.queueBytes -= len(e.Body)
	}
	p.queue = p.queue[len(entries):]
	if len(p.queue) == 0 {
		p.queue = nil
	}
	p.wakeLocked()
}

// frontiers remembers what W was at each offset that may become the frontier,
// so that a rebuild never starts too late.
type frontiers struct {
	mu     sync.Mutex
	points []frontier // ascending offsets
}

type frontier struct {
	offset   int64
	progress progress
}

// maxFrontiers bounds the points; beyond it every other one is forgotten,
// which only makes a rebuild start earlier.
const maxFrontiers = 4096

// reached notes the progress as of an offset.
func (f *frontiers) reached(offset int64, p progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.points); n > 0 && f.points[n-1].progress == p {
		return
	}
	f.points = append(f.points, frontier{offset, p})
	if len(f.points) > maxFrontiers {
		kept := f.points[:1]
		for i := 2; i < len(f.points); i += 2 {
			kept = append(kept, f.points[i])
		}
		f.points = kept
	}
}

// at returns the progress at an offset, and forgets what lies before it.
func (f *frontiers) at(offset int64) (progress, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(f.points) && f.points[n].offset <= offset {
		n++
	}
	if n == 0 {
		return progress{}, false
	}
	f.points = f.points[n-1:]
	return f.points[0].progress, true
}
