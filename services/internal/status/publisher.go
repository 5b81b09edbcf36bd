package status

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

const schemaReport = "stormbell.status.v1.Report"

// Config says how often reports are written.
type Config struct {
	// Least is the time after which a first change is told, Most that between
	// two reports where something always changes, or nothing does.
	Least, Most time.Duration
	// BytesPerSecond bounds what large reports write.
	BytesPerSecond int
}

// DefaultConfig tells a newcomer's first event within a second, and takes a few
// megabytes of log a day.
func DefaultConfig() Config {
	return Config{Least: time.Second, Most: 10 * time.Second, BytesPerSecond: 4 << 10}
}

// A Producer appends records to the log; *bus.Client is one.
type Producer interface {
	Produce(ctx context.Context, topic string, partition int, msgs []bus.Message) (base int64, err error)
}

// Publisher writes what a board has counted to the topic `status`.
type Publisher struct {
	cfg      Config
	board    *Board
	producer Producer
	log      *slog.Logger
	clock    func() time.Time

	instance, service string
	started           int64
	last              []byte // what was counted as of the last report
	sent              time.Time
	pause             time.Duration
	failing           bool
}

// NewPublisher returns a publisher for a process of a kind, under an instance
// id of its own.
func NewPublisher(cfg Config, service string, board *Board, producer Producer, log *slog.Logger, clock func() time.Time) *Publisher {
	return &Publisher{
		cfg: cfg, board: board, producer: producer, log: log, clock: clock,
		instance: rand.Text(), service: service, started: clock().UnixMilli(), pause: cfg.Least,
	}
}

// Run writes reports until ctx ends, and then a last one. It returns nil.
func (p *Publisher) Run(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.Least)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTimeout)
			defer cancel()
			p.publish(last, true)
			return nil
		case <-tick.C:
			p.publish(ctx, false)
		}
	}
}

// lastTimeout bounds how long the last report holds up the end of a process.
const lastTimeout = 2 * time.Second

// publish writes a report if it is time for one.
func (p *Publisher) publish(ctx context.Context, ended bool) {
	now := p.clock()
	counted := p.board.counted()
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(counted)
	if err != nil {
		p.log.ErrorContext(ctx, "status cannot be encoded", "error", err)
		return
	}
	changed, since := !bytes.Equal(body, p.last), now.Sub(p.sent)
	size := time.Duration(len(body)) * time.Second / time.Duration(p.cfg.BytesPerSecond)
	most := max(p.cfg.Most, size)
	if !ended && since < most && (!changed || since < max(p.pause, size)) {
		return
	}
	if changed && since < 2*p.pause {
		p.pause = min(2*p.pause, p.cfg.Most) // it changes all the time
	} else {
		p.pause = p.cfg.Least
	}
	counted.Instance, counted.Service, counted.StartedMs, counted.TimeMs = p.instance, p.service, p.started, now.UnixMilli()
	counted.Ended, counted.ValidMs = ended, now.Add(3*most).UnixMilli()
	if !ended {
		counted.Stages = p.board.gauges()
	}
	if err := p.write(ctx, counted); err != nil {
		if !p.failing && ctx.Err() == nil {
			p.log.WarnContext(ctx, "status is not written, trying again", "error", err)
		}
		p.failing = true
		return
	}
	p.last, p.sent, p.failing = body, now, false
}

func (p *Publisher) write(ctx context.Context, r *statusv1.Report) error {
	value, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	_, err = p.producer.Produce(ctx, bus.TopicStatus, 0, []bus.Message{{
		Key: []byte(p.instance), Value: value, Headers: []bus.Header{{Key: event.HeaderSchema, Value: []byte(schemaReport)}},
	}})
	return err //nolint:wrapcheck // the bus names the topic
}
