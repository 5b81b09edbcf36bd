package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Errors of Producer.Submit.
var (
	// ErrQueueFull says that nothing was taken: try again later.
	ErrQueueFull = errors.New("produce queue is full")
	// ErrOutcomeUnknown says that the caller stopped waiting: the records may be
	// written, now or later.
	ErrOutcomeUnknown = errors.New("outcome of the produce is unknown")
	// ErrClosed says that the producer takes nothing more.
	ErrClosed = errors.New("producer is closed")
)

// ProducerConfig bounds what waits before the broker.
type ProducerConfig struct {
	// MaxQueuedBytes of all partitions together.
	MaxQueuedBytes int64 `yaml:"max_queued_bytes" env:"MAX_QUEUED_BYTES"`
	// MaxBatchBytes of one produce, at most 900,000: brokers take 1 MiB.
	MaxBatchBytes int `yaml:"max_batch_bytes" env:"MAX_BATCH_BYTES"`
}

// DefaultProducerConfig queues 64 MiB.
func DefaultProducerConfig() ProducerConfig {
	return ProducerConfig{MaxQueuedBytes: 64 << 20, MaxBatchBytes: maxRequest}
}

// Producer groups what concurrent callers have for the same partition into one
// produce. One produce a partition is under way at a time; what arrives
// meanwhile goes with the next. Nothing waits for company.
type Producer struct {
	client *Client
	topic  string
	cfg    ProducerConfig

	mu     sync.Mutex
	lanes  map[int]*lane
	queued int64
	closed bool
	wg     sync.WaitGroup
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
	return &Producer{client: c, topic: topic, cfg: cfg, lanes: map[int]*lane{}}
}

// Submit has build append its records when the produce is built, and returns
// nil once they are acknowledged. size is about what they take in bytes. build
// runs on another goroutine, once or, where Submit has failed, never.
func (p *Producer) Submit(ctx context.Context, partition, size int, build func(dst []Message) []Message) error {
	s := &submission{size: size, build: build, done: make(chan error, 1)}
	if err := p.enqueue(partition, s); err != nil {
		return err
	}
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
	}
}

func (p *Producer) enqueue(partition int, s *submission) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.queued > 0 && p.queued+int64(s.size) > p.cfg.MaxQueuedBytes:
		return ErrQueueFull
	}
	p.queued += int64(s.size)
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

// Queued is how many bytes wait or are under way.
func (p *Producer) Queued() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

func (p *Producer) drain(partition int, l *lane) {
	var msgs []Message
	for {
		batch := p.take(l)
		if batch == nil {
			return
		}
		msgs = msgs[:0]
		size := 0
		for _, s := range batch {
			msgs = s.build(msgs)
			size += s.size
		}
		err := p.produce(partition, msgs)
		clear(msgs)
		for _, s := range batch {
			s.done <- err
		}
		p.mu.Lock()
		p.queued -= int64(size)
		p.mu.Unlock()
	}
}

// produce has a deadline of its own: the callers of one batch must not end it
// for each other.
func (p *Producer) produce(partition int, msgs []Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.client.cfg.ProduceTimeout)
	defer cancel()
	for len(msgs) > 0 {
		n := chunk(msgs)
		if _, err := p.client.Produce(ctx, p.topic, partition, msgs[:n]); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

func (p *Producer) take(l *lane) []*submission {
	p.mu.Lock()
	defer p.mu.Unlock()
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
	batch := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	return batch
}

// Close takes nothing more and waits for what was taken.
func (p *Producer) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wg.Wait()
}
