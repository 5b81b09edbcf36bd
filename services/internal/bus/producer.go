package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Errors of Producer.Submit.
var (
	// ErrQueueFull says that nothing was taken: try again later.
	ErrQueueFull = errors.New("produce queue is full")
	// ErrOutcomeUnknown says that the caller stopped waiting: the records may be
	// written, now or later.
	ErrOutcomeUnknown = errors.New("outcome of the produce is unknown")
	// ErrClosed says that the producer takes nothing more: nothing was written.
	ErrClosed = errors.New("producer is closed")
)

// ProducerConfig bounds what waits before the broker.
type ProducerConfig struct {
	// MaxQueuedBytes of all partitions together, waiting or under way.
	MaxQueuedBytes int64 `yaml:"max_queued_bytes" env:"MAX_QUEUED_BYTES"`
	// MaxQueuedRequests is how many calls of Submit may wait together.
	MaxQueuedRequests int `yaml:"max_queued_requests" env:"MAX_QUEUED_REQUESTS"`
	// MaxBatchBytes of one produce, at most 900,000: brokers take 1 MiB.
	MaxBatchBytes int `yaml:"max_batch_bytes" env:"MAX_BATCH_BYTES"`
}

// DefaultProducerConfig queues 64 MiB.
func DefaultProducerConfig() ProducerConfig {
	return ProducerConfig{MaxQueuedBytes: 64 << 20, MaxQueuedRequests: 20_000, MaxBatchBytes: maxRequest}
}

// Validate names the first key that can't work, and why.
func (c *ProducerConfig) Validate() error {
	switch {
	case c.MaxQueuedBytes < 1 || c.MaxQueuedRequests < 1:
		return errors.New("producer.max_queued_bytes and producer.max_queued_requests: at least 1")
	case c.MaxBatchBytes < 1 || c.MaxBatchBytes > maxRequest:
		return fmt.Errorf("producer.max_batch_bytes: %d must be from 1 to %d: brokers take a mebibyte", c.MaxBatchBytes, maxRequest)
	}
	return nil
}

// Producer groups what concurrent callers have for the same partition into one
// produce. One produce a partition is under way at a time; what arrives
// meanwhile goes with the next. Nothing waits for company.
type Producer struct {
	client *Client
	topic  string
	cfg    ProducerConfig

	mu       sync.Mutex
	lanes    map[int]*lane
	queued   int64
	requests int
	closed   bool
	over     bool // what still waits is given up
	wg       sync.WaitGroup
}

type lane struct {
	waiting []*submission
	busy    bool
}

type submission struct {
	size  int
	build func(dst []Message) []Message
	done  chan error // holds the one result
}

// NewProducer returns a producer for a topic. Close it before its client.
func NewProducer(c *Client, topic string, cfg ProducerConfig) *Producer {
	p := &Producer{client: c, topic: topic, cfg: cfg, lanes: map[int]*lane{}}
	c.metrics.watch(p)
	return p
}

// Submit has build append its records when the produce is built, and returns
// nil once they are acknowledged. size is about what they take in bytes. build
// runs on another goroutine, once, or never where Submit has failed before its
// turn came.
//
// ErrQueueFull and ErrClosed come at once. Where ctx ends while the records
// wait for their turn, they are taken back and the error is ctx's alone: nothing
// was written. Where it ends later, the error is ErrOutcomeUnknown too, and
// build and the memory of its records may still be in use. ErrTooLarge concerns
// this submission alone. After any other error the records may be written, now
// or later.
func (p *Producer) Submit(ctx context.Context, partition, size int, build func(dst []Message) []Message) error {
	s := &submission{size: size, build: build, done: make(chan error, 1)}
	if err := p.enqueue(partition, s); err != nil {
		return err
	}
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		if p.takeBack(partition, s) {
			return fmt.Errorf("produce to %s/%d was still waiting: %w", p.topic, partition, context.Cause(ctx))
		}
		return fmt.Errorf("produce to %s/%d: %w: %w", p.topic, partition, ErrOutcomeUnknown, context.Cause(ctx))
	}
}

func (p *Producer) enqueue(partition int, s *submission) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.queued > 0 && p.queued+int64(s.size) > p.cfg.MaxQueuedBytes, p.requests >= p.cfg.MaxQueuedRequests:
		return ErrQueueFull
	}
	p.queued += int64(s.size)
	p.requests++
	l := p.lanes[partition]
	if l == nil {
		l = &lane{}
		p.lanes[partition] = l
	}
	l.waiting = append(l.waiting, s)
	if !l.busy {
		l.busy = true
		p.wg.Go(func() { p.drain(partition, l) })
	}
	return nil
}

// takeBack removes a submission whose turn has not come.
func (p *Producer) takeBack(partition int, s *submission) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[partition]
	i := slices.Index(l.waiting, s)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	p.settled(s)
	return true
}

// settled frees a submission's place in the queue; mu is held.
func (p *Producer) settled(list ...*submission) {
	for _, s := range list {
		p.queued -= int64(s.size)
	}
	p.requests -= len(list)
}

// Queued is how many bytes wait or are under way.
func (p *Producer) Queued() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// drain produces what waits for a partition until nothing does.
func (p *Producer) drain(partition int, l *lane) {
	var msgs []Message
	var ends []int // of each submission's messages
	for {
		batch := p.take(l)
		if batch == nil {
			return
		}
		msgs, ends = msgs[:0], ends[:0]
		for _, s := range batch {
			msgs = s.build(msgs)
			ends = append(ends, len(msgs))
		}
		p.produce(partition, msgs, ends, batch)
		clear(msgs)
	}
}

// produce writes the messages of a batch and answers its callers. It has a
// deadline of its own: they must not end it for each other.
func (p *Producer) produce(partition int, msgs []Message, ends []int, batch []*submission) {
	err := p.write(partition, msgs)
	if len(batch) == 1 || !ofRecords(err) {
		p.answer(err, batch...)
		return
	}
	// One caller's records must not fail the others.
	from := 0
	for i, s := range batch {
		p.answer(p.write(partition, msgs[from:ends[i]]), s)
		from = ends[i]
	}
}

// answer tells callers what became of their records. Their places are free
// before they know.
func (p *Producer) answer(err error, list ...*submission) {
	p.mu.Lock()
	p.settled(list...)
	p.mu.Unlock()
	for _, s := range list {
		s.done <- err
	}
}

func (p *Producer) write(partition int, msgs []Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.client.cfg.ProduceTimeout)
	defer cancel()
	return p.client.produceAll(ctx, p.topic, partition, msgs)
}

// ofRecords reports whether the broker refuses a produce because of what is in
// it: then it has written nothing of that request.
func ofRecords(err error) bool {
	return errors.Is(err, ErrTooLarge) || errors.Is(err, kafka.InvalidRecord) || errors.Is(err, kafka.InvalidTimestamp) ||
		errors.Is(err, kafka.InvalidMessageSize)
}

func (p *Producer) take(l *lane) []*submission {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		for _, s := range l.waiting {
			s.done <- ErrClosed
		}
		p.settled(l.waiting...)
		l.waiting = nil
	}
	n, size := 0, 0
	for ; n < len(l.waiting); n++ {
		if size += l.waiting[n].size; size > p.cfg.MaxBatchBytes && n > 0 {
			break
		}
	}
	if n == 0 {
		l.busy, l.waiting = false, nil
		return nil
	}
	batch := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	return batch
}

// closeGrace is how long what waits may still be written after Close.
const closeGrace = 5 * time.Second

// Close takes nothing more and returns once what was taken is settled: written,
// or after 5 s given up as ErrClosed, or as long as the produces then under way
// take.
func (p *Producer) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	giveUp := time.AfterFunc(closeGrace, func() {
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
	})
	defer giveUp.Stop()
	p.wg.Wait()
	p.client.metrics.unwatch(p)
}
