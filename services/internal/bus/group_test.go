package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/bus"
)

func TestGroupKeepsMetadataAndRestartsHandlers(t *testing.T) {
	c, _ := start(t, 2)
	for p := range 2 {
		_, err := c.Produce(t.Context(), bus.TopicEvents, p, messages(4))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	failed, seen := false, map[int]int{}
	again := make(chan *bus.Claim, 8)
	err := c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
		offset, err := cl.Start(ctx)
		if err != nil {
			return err
		}
		for {
			recs, _, err := cl.Fetch(ctx, offset)
			if err != nil {
				return err
			}
			for _, r := range recs {
				offset = r.Offset + 1
				mu.Lock()
				seen[cl.Partition]++
				fail := cl.Partition == 0 && !failed && r.Offset == 1
				failed = failed || fail
				total := seen[0] + seen[1]
				mu.Unlock()
				if err := cl.Commit(ctx, offset, fmt.Sprintf("w=%d", offset)); err != nil {
					return err
				}
				if fail {
					return errors.New("boom")
				}
				if total == 8 {
					again <- cl
					cancel()
				}
			}
		}
	})
	require.NoError(t, err)
	require.Equal(t, map[int]int{0: 4, 1: 4}, seen, "the failed handler went on where it had committed")
	cl := <-again
	require.Error(t, cl.Commit(context.Background(), 1, ""), "backwards")

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	type found struct {
		offset   int64
		metadata string
	}
	claims := make(chan found, 2)
	require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
		claims <- found{cl.Committed, cl.Metadata}
		if len(claims) == 2 {
			cancel()
		}
		<-ctx.Done()
		return nil
	}))
	for range 2 {
		cl := <-claims
		require.EqualValues(t, 4, cl.offset)
		require.Equal(t, "w=4", cl.metadata)
	}
}

func TestALateCommitOfAFormerOwnerIsRefused(t *testing.T) {
	c, cfg := start(t, 1)
	_, err := c.Produce(t.Context(), bus.TopicEvents, 0, messages(1))
	require.NoError(t, err)
	group := bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}
	first := make(chan *bus.Claim, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = c.Consume(ctx, group, func(ctx context.Context, cl *bus.Claim) error {
			first <- cl
			<-ctx.Done()
			return nil
		})
	})
	old := <-first
	require.NoError(t, old.Commit(t.Context(), 0, "first"))
	cancel()
	wg.Wait()
	ctx, cancel = context.WithCancel(t.Context())
	second := make(chan *bus.Claim, 1)
	wg.Go(func() {
		_ = open(t, cfg).Consume(ctx, group, func(ctx context.Context, cl *bus.Claim) error {
			second <- cl
			<-ctx.Done()
			return nil
		})
	})
	owner := <-second
	require.ErrorIs(t, old.Commit(t.Context(), 1, "zombie"), bus.ErrNotOwner)
	require.NoError(t, owner.Commit(t.Context(), 1, "owner"))
	cancel()
	wg.Wait()
}

// TestASecondMemberTakesAShareOver has the first member lose a partition while
// it lives: its claims end, a commit by them is refused, and both members own
// what is theirs.
func TestASecondMemberTakesAShareOver(t *testing.T) {
	c, cfg := start(t, 2)
	group := bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type owned struct {
		claim *bus.Claim
		ctx   context.Context //nolint:containedctx // what the test looks at
	}
	join := func(c *bus.Client) chan owned {
		claims := make(chan owned, 64)
		wg.Go(func() {
			_ = c.Consume(ctx, group, func(ctx context.Context, cl *bus.Claim) error {
				claims <- owned{cl, ctx}
				<-ctx.Done()
				return nil
			})
		})
		return claims
	}
	first := join(c)
	old := []owned{<-first, <-first}
	for _, o := range old {
		require.NoError(t, o.claim.Commit(ctx, 0, "old"))
	}
	second := join(open(t, cfg))
	a, b := <-first, <-second
	require.NotEqual(t, a.claim.Partition, b.claim.Partition)
	require.Equal(t, a.claim.Generation, b.claim.Generation)
	for _, o := range old {
		require.ErrorIs(t, o.ctx.Err(), context.Canceled, "the claim ended before the next generation began")
		require.ErrorIs(t, o.claim.Commit(ctx, 1, "zombie"), bus.ErrNotOwner)
	}
	for _, o := range []owned{a, b} {
		require.EqualValues(t, 0, o.claim.Committed)
		require.Equal(t, "old", o.claim.Metadata)
		require.NoError(t, o.claim.Commit(ctx, 1, "new"))
		require.ErrorContains(t, o.claim.Commit(ctx, 0, "back"), "1 is committed already")
	}
}

func TestAHandlerThatFailsDoesNotDisturbItsNeighbour(t *testing.T) {
	c, _ := start(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	starts := map[int]int{}
	generations := map[int]bool{}
	require.NoError(t, c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, cl *bus.Claim) error {
		mu.Lock()
		starts[cl.Partition]++
		generations[cl.Generation] = true
		n := starts[cl.Partition]
		mu.Unlock()
		if cl.Partition == 1 {
			<-ctx.Done()
			return nil
		}
		if n == 5 {
			cancel()
		}
		return errors.New("boom")
	}))
	require.Equal(t, map[int]int{0: 5, 1: 1}, starts)
	require.Len(t, generations, 1)
}

func TestSettingsThatTheBrokerRefusesEndConsume(t *testing.T) {
	c, cfg := start(t, 1)
	cfg.SessionTimeout = time.Second // brokers take 6 s or more
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := open(t, cfg).Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, _ *bus.Claim) error {
		<-ctx.Done()
		return nil
	})
	require.ErrorContains(t, err, "kafka.session_timeout=1s")
	require.NoError(t, c.Healthy(t.Context()))
}

// TestMembersThatLeaveTogetherDoNotWaitForEachOther: were it so, each would ask
// to join anew and wait for a join time-out of 11 s.
func TestMembersThatLeaveTogetherDoNotWaitForEachOther(t *testing.T) {
	c, cfg := start(t, 2)
	group := bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	owners := make(chan string, 64)
	for _, member := range []*bus.Client{c, open(t, cfg)} {
		wg.Go(func() {
			_ = member.Consume(ctx, group, func(ctx context.Context, cl *bus.Claim) error {
				owners <- cl.Member
				<-ctx.Done()
				return nil
			})
		})
	}
	for a, b := <-owners, <-owners; a == b; a, b = b, <-owners {
	}
	cancel()
	left := make(chan struct{})
	go func() {
		wg.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-time.After(cfg.RebalanceTimeout):
		t.Error("members wait for each other to leave")
		<-left
	}
}

// TestJoined: a client is a member while the brokers answer, is none without
// them, and one again when they are back.
func TestJoined(t *testing.T) {
	c, _ := start(t, 1)
	require.NoError(t, c.Joined(), "nothing is consumed")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	owned, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- c.Consume(ctx, bus.GroupConfig{ID: "g", Topics: []string{bus.TopicEvents}}, func(ctx context.Context, _ *bus.Claim) error {
			if err := c.Joined(); err != nil {
				return err
			}
			owned <- struct{}{}
			<-ctx.Done()
			return nil
		})
	}()
	<-owned
	require.NoError(t, c.Joined())
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, c.Joined(), "a group that was left is not missed")
}
