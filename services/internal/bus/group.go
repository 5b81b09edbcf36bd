package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
// does. A handler that returns before that, having stopped all that it started, is
// started again after a pause, with the then committed offset; the group's other
// partitions do not notice.
type Handler func(ctx context.Context, claim *Claim) error

// Consume joins the group and runs handle for each partition that it is given,
// until ctx ends; then it leaves the group and returns nil once all handlers
// have. Faults that may pass are waited out. Settings that the broker refuses
// are an error.
func (c *Client) Consume(ctx context.Context, cfg GroupConfig, handle Handler) error {
	topics := make([]string, len(cfg.Topics))
	for i, t := range cfg.Topics {
		topics[i] = c.full(t)
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.full(cfg.ID), Brokers: c.cfg.Brokers, Dialer: c.dialer, Topics: topics,
		HeartbeatInterval: c.cfg.SessionTimeout / 4, SessionTimeout: c.cfg.SessionTimeout,
		RebalanceTimeout: c.cfg.RebalanceTimeout, JoinGroupBackoff: 500 * time.Millisecond,
		StartOffset: kafka.FirstOffset, Timeout: dialTimeout,
	})
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", cfg.ID, err)
	}
	c.setJoined(cfg.ID, false)
	defer c.forget(cfg.ID)
	leave := func() { _ = group.Close() } // waits until the group is left; the error is always nil
	defer leave()
	// Before any handler ends: a generation whose function returns while the
	// group is open is followed by a new join, which waits for the other members.
	defer context.AfterFunc(ctx, leave)()
	for attempt := 0; ; attempt++ {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case refused(err):
			return fmt.Errorf("consumer group %s: the broker refuses kafka.session_timeout=%s or kafka.rebalance_timeout=%s, or the group's name belongs to another kind of client: %w", c.full(cfg.ID), c.cfg.SessionTimeout, c.cfg.RebalanceTimeout, err)
		case err != nil:
			// A fresh broker answers so until its offsets topic is there.
			c.complain(ctx, attempt, "join "+cfg.ID, err)
			pause(ctx, attempt)
			continue
		}
		attempt = -1
		c.setJoined(cfg.ID, true)
		done := make(chan struct{})
		gen.Start(func(genCtx context.Context) {
			defer close(done)
			c.generation(ctx, genCtx, gen, cfg, handle)
		})
		<-done
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Joined is nil while this process is a member of every group that Consume is
// in: what it owns is its own, be it nothing. It is not while brokers do not
// answer, nor while the group shares partitions out anew.
func (c *Client) Joined() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.joined)) {
		if !c.joined[id] {
			return fmt.Errorf("not a member of consumer group %s", c.full(id))
		}
	}
	return nil
}

func (c *Client) setJoined(id string, joined bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined[id] = joined
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.joined, id)
}

// refused reports errors of joining that no later attempt can mend.
func refused(err error) bool {
	return errors.Is(err, kafka.InvalidSessionTimeout) || errors.Is(err, kafka.InvalidGroupId) ||
		errors.Is(err, kafka.InconsistentGroupProtocol)
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
			wg.Go(func() { c.own(ctx, gen, cfg.ID, topic, a.ID, handle) })
		}
	}
	<-ctx.Done()
	c.setJoined(cfg.ID, false)
	// The next generation waits for these handlers, and so may other members.
	overdue := time.AfterFunc(c.cfg.RebalanceTimeout, func() {
		c.log.ErrorContext(parent, "handlers overrun the rebalance time-out, their partitions may have new owners by now", "group", cfg.ID)
	})
	wg.Wait()
	overdue.Stop()
	<-genCtx.Done() // where ctx ended first, the group is being closed
}

func (c *Client) own(ctx context.Context, gen *kafka.Generation, group, topic string, partition int, handle Handler) {
	at := place{group, topic, partition}
	defer c.metrics.released(at)
	for attempt := 0; ctx.Err() == nil; attempt++ {
		claim := &Claim{
			Topic: topic, Partition: partition, Generation: int(gen.ID), Member: gen.MemberID,
			client: c, group: gen.GroupID, at: at,
		}
		err := claim.load(ctx)
		if err == nil {
			err = handle(ctx, claim)
		}
		if ctx.Err() != nil {
			return
		}
		c.metrics.requeues.Add(ctx, 1)
		c.log.WarnContext(ctx, "partition handler ended, starting it again", "group", group, "topic", topic, "partition", partition, "error", err)
		pause(ctx, attempt)
	}
}

// Claim is the ownership of one partition during one generation. Its handler may
// share it among goroutines; the fields must not be written.
type Claim struct {
	Topic      string
	Partition  int
	Generation int
	Member     string
	// Committed is the offset that the group had committed when the claim began,
	// −1 without one, and Metadata what was committed with it.
	Committed int64
	Metadata  string

	client *Client
	group  string // with prefix
	at     place
	mu     sync.Mutex // one commit at a time, never backwards
	last   int64      // committed by this claim or found by it
}

func (cl *Claim) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := cl.client.retry(ctx, "fetch committed offset of "+cl.Topic, func() error { return cl.loadOnce(ctx) })
	if err != nil {
		return fmt.Errorf("committed offset of %s/%d: %w", cl.Topic, cl.Partition, err)
	}
	cl.last = cl.Committed
	return nil
}

func (cl *Claim) loadOnce(ctx context.Context) error {
	topic := cl.client.full(cl.Topic)
	res, err := cl.client.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: cl.group, Topics: map[string][]int{topic: {cl.Partition}}})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return err
	}
	for _, p := range res.Topics[topic] {
		if p.Partition == cl.Partition {
			cl.Committed, cl.Metadata = p.CommittedOffset, p.Metadata
			return p.Error
		}
	}
	// No answer is not the answer "nothing is committed".
	return kafka.UnknownTopicOrPartition
}

// Fetch is Client.Fetch for the partition.
func (cl *Claim) Fetch(ctx context.Context, offset int64) (records []Record, end int64, err error) {
	records, end, err = cl.client.Fetch(ctx, cl.Topic, cl.Partition, offset)
	if err == nil {
		next := offset
		if n := len(records); n > 0 {
			next = records[n-1].Offset + 1
		}
		cl.client.metrics.behind(cl.at, max(0, end-next))
	}
	return records, end, err
}

// Start is the first offset to read: the committed one, else the first in the log.
func (cl *Claim) Start(ctx context.Context) (int64, error) {
	if cl.Committed >= 0 {
		return cl.Committed, nil
	}
	first, _, err := cl.client.Offsets(ctx, cl.Topic, cl.Partition)
	return first, err
}

// Commit commits an offset with metadata, and all before it, and returns nil
// once the broker has it. It is ErrNotOwner once the partition belongs to
// another member, or is about to. An offset below one committed before by this
// claim is refused. After any other error the outcome is unknown.
func (cl *Claim) Commit(ctx context.Context, offset int64, metadata string) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if offset < 0 || offset < cl.last {
		return fmt.Errorf("commit of %s/%d at %d: %d is committed already", cl.Topic, cl.Partition, offset, cl.last)
	}
	ctx, cancel := context.WithTimeout(ctx, cl.client.cfg.SessionTimeout)
	defer cancel()
	err := cl.client.retry(ctx, "commit to "+cl.Topic, func() error { return cl.commitOnce(ctx, offset, metadata) })
	switch {
	case err == nil:
		cl.last = offset
		return nil
	case errors.Is(err, kafka.IllegalGeneration), errors.Is(err, kafka.UnknownMemberId),
		errors.Is(err, kafka.RebalanceInProgress), errors.Is(err, kafka.FencedInstanceID):
		return fmt.Errorf("commit of %s/%d at %d: %w: %w", cl.Topic, cl.Partition, offset, ErrNotOwner, err)
	default:
		return fmt.Errorf("commit of %s/%d at %d: %w", cl.Topic, cl.Partition, offset, err)
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
		if p.Partition == cl.Partition {
			return p.Error
		}
	}
	return kafka.UnknownTopicOrPartition // not acknowledged
}
