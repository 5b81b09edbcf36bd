package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// GroupConfig names a consumer group and what it consumes.
type GroupConfig struct {
	ID     string
	Topics []string
}

// ErrNotOwner says that a partition belongs to another member by now: its
// handler must stop and leave everything as it is.
var ErrNotOwner = errors.New("partition is owned by another member")

// A Handler owns one partition until ctx ends, which it must heed well within
// the rebalance time-out. ctx ends when the generation does or the caller's ctx
// does. A handler that returns before that is started again after a pause, with
// the then committed offset; the group's other partitions do not notice.
type Handler func(ctx context.Context, claim *Claim) error

// Consume joins the group and runs handle for each partition that it is given,
// until ctx ends; then it leaves the group and returns nil once all handlers
// have. Failing to join is not an error: it is logged and tried again.
func (c *Client) Consume(ctx context.Context, cfg GroupConfig, handle Handler) error {
	topics := make([]string, len(cfg.Topics))
	for i, t := range cfg.Topics {
		topics[i] = c.full(t)
	}
	for attempt := 0; ctx.Err() == nil; attempt++ {
		group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
			ID: c.full(cfg.ID), Brokers: c.cfg.Brokers, Dialer: c.dialer, Topics: topics,
			HeartbeatInterval: c.cfg.SessionTimeout / 4, SessionTimeout: c.cfg.SessionTimeout,
			RebalanceTimeout: c.cfg.RebalanceTimeout, JoinGroupBackoff: 500 * time.Millisecond,
			StartOffset: kafka.FirstOffset, Timeout: 5 * time.Second,
		})
		if err != nil {
			return fmt.Errorf("consumer group %s: %w", cfg.ID, err)
		}
		err = c.generations(ctx, group, cfg, handle)
		if cerr := group.Close(); cerr != nil {
			c.log.DebugContext(ctx, "consumer group did not close cleanly", "group", cfg.ID, "error", cerr)
		}
		if ctx.Err() == nil {
			c.log.WarnContext(ctx, "consumer group ended, joining again", "group", cfg.ID, "error", err)
			pause(ctx, attempt)
		}
	}
	return nil
}

func (c *Client) generations(ctx context.Context, group *kafka.ConsumerGroup, cfg GroupConfig, handle Handler) error {
	for attempt := 0; ; attempt++ {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, kafka.ErrGroupClosed):
			return err
		case err != nil:
			// A fresh broker answers so until its offsets topic is there.
			c.log.DebugContext(ctx, "not in the group yet", "group", cfg.ID, "error", err)
			pause(ctx, attempt)
			continue
		}
		attempt = 0
		done := make(chan struct{})
		gen.Start(func(genCtx context.Context) {
			defer close(done)
			c.generation(ctx, genCtx, gen, cfg, handle)
		})
		<-done
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// generation runs one handler for each assigned partition, and returns only
// when the generation or ctx has ended: a function that returns earlier would
// end the generation for all.
func (c *Client) generation(parent, genCtx context.Context, gen *kafka.Generation, cfg GroupConfig, handle Handler) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	stop := context.AfterFunc(genCtx, cancel)
	defer stop()
	var wg sync.WaitGroup
	for _, topic := range cfg.Topics {
		for _, a := range gen.Assignments[c.full(topic)] {
			wg.Go(func() { c.own(ctx, gen, topic, a.ID, handle) })
		}
	}
	<-ctx.Done()
	wg.Wait()
}

func (c *Client) own(ctx context.Context, gen *kafka.Generation, topic string, partition int, handle Handler) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		claim := &Claim{
			Topic: topic, Partition: partition, Generation: int(gen.ID), Member: gen.MemberID,
			client: c, group: gen.GroupID,
		}
		err := claim.load(ctx)
		if err == nil {
			err = handle(ctx, claim)
		}
		if ctx.Err() != nil {
			return
		}
		c.metrics.requeues.Add(ctx, 1)
		c.log.WarnContext(ctx, "partition handler ended, starting it again", "topic", topic, "partition", partition, "error", err)
		pause(ctx, attempt)
	}
}

// Claim is the ownership of one partition during one generation.
type Claim struct {
	Topic      string
	Partition  int
	Generation int
	Member     string
	// Committed is the offset that the group has committed, −1 without one, and
	// Metadata what was committed with it.
	Committed int64
	Metadata  string

	client *Client
	group  string
	mu     sync.Mutex // one commit at a time, never backwards
}

func (cl *Claim) load(ctx context.Context) error {
	topic := cl.client.full(cl.Topic)
	res, err := cl.client.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: cl.group, Topics: map[string][]int{topic: {cl.Partition}}})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return fmt.Errorf("committed offset of %s/%d: %w", cl.Topic, cl.Partition, err)
	}
	cl.Committed = -1
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return fmt.Errorf("committed offset of %s/%d: %w", cl.Topic, cl.Partition, p.Error)
		}
		if p.Partition == cl.Partition {
			cl.Committed, cl.Metadata = p.CommittedOffset, p.Metadata
		}
	}
	return nil
}

// Fetch is Client.Fetch for the partition.
func (cl *Claim) Fetch(ctx context.Context, offset int64) (records []Record, end int64, err error) {
	return cl.client.Fetch(ctx, cl.Topic, cl.Partition, offset)
}

// Start is the first offset to read: the committed one, else the first in the log.
func (cl *Claim) Start(ctx context.Context) (int64, error) {
	if cl.Committed >= 0 {
		return cl.Committed, nil
	}
	first, _, err := cl.client.Offsets(ctx, cl.Topic, cl.Partition)
	return first, err
}

// Commit commits an offset with metadata, and all before it. It is ErrNotOwner
// once the partition belongs to another member. An offset below one committed
// before by this claim is refused.
func (cl *Claim) Commit(ctx context.Context, offset int64, metadata string) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if offset < cl.Committed {
		return fmt.Errorf("commit of %s/%d at %d: %d is committed already", cl.Topic, cl.Partition, offset, cl.Committed)
	}
	ctx, cancel := context.WithTimeout(ctx, cl.client.cfg.SessionTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		err := cl.commitOnce(ctx, offset, metadata)
		switch {
		case err == nil:
			cl.Committed, cl.Metadata = offset, metadata
			return nil
		case errors.Is(err, kafka.IllegalGeneration), errors.Is(err, kafka.UnknownMemberId), errors.Is(err, kafka.FencedInstanceID):
			return fmt.Errorf("commit of %s/%d at %d: %w: %w", cl.Topic, cl.Partition, offset, ErrNotOwner, err)
		case !temporary(err) || !pause(ctx, attempt):
			return fmt.Errorf("commit of %s/%d at %d: %w", cl.Topic, cl.Partition, offset, err)
		}
	}
}

func (cl *Claim) commitOnce(ctx context.Context, offset int64, metadata string) error {
	topic := cl.client.full(cl.Topic)
	res, err := cl.client.kafka.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: cl.group, GenerationID: cl.Generation, MemberID: cl.Member,
		Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: cl.Partition, Offset: offset, Metadata: metadata}}},
	})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return p.Error
		}
	}
	return nil
}
