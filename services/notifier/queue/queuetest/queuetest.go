// Package queuetest is the conformance suite of queue's stores.
package queuetest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/notifier/queue"
)

// Store is what the suite runs against.
type Store interface {
	Acquire(ctx context.Context, partition int, token string) (int64, error)
	Create(ctx context.Context, partition int, b *queue.Batch) error
	Claim(ctx context.Context, partition int, r *queue.Request) (queue.Claim, error)
	Settle(ctx context.Context, partition int, t *queue.Settlement) error
	Outbox(ctx context.Context, partition, limit int) ([]queue.Entry, error)
	Trim(ctx context.Context, partition int, token, id string) error
}

const part = 3

// shard is a store with one owner.
type shard struct {
	t testing.TB
	Store
	fences int
}

func (s *shard) create(prev, next int64, messages ...queue.Message) {
	s.t.Helper()
	require.NoError(s.t, s.Create(s.t.Context(), part, &queue.Batch{Token: "me", Prev: prev, Next: next, Messages: messages}))
}

func (s *shard) request(now int64, rooms ...queue.Room) *queue.Request {
	s.fences++
	return &queue.Request{
		Token: "me", Applied: 0, NowMS: now, LeaseMS: now + 1000, Fence: fmt.Sprint("fence-", s.fences), Limit: 100, Default: 100, Rooms: rooms,
	}
}

func (s *shard) claim(now int64, rooms ...queue.Room) queue.Claim {
	s.t.Helper()
	c, err := s.Claim(s.t.Context(), part, s.request(now, rooms...))
	require.NoError(s.t, err)
	return c
}

func (s *shard) settle(l queue.Leased, due int64, state, record []byte) error {
	return s.Settle(s.t.Context(), part, &queue.Settlement{
		Endpoint: l.Endpoint, Alert: l.Alert, Fence: l.Fence, DueMS: due, State: state, Record: record,
	})
}

func (s *shard) outbox() []string {
	s.t.Helper()
	entries, err := s.Outbox(s.t.Context(), part, 100)
	require.NoError(s.t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Alert+"="+string(e.Record))
	}
	return out
}

// message makes an alert due at once for endpoints.
func message(alert string, written int64, endpoints ...string) queue.Message {
	m := queue.Message{Alert: alert, Body: []byte("body\x00\xff of " + alert), WrittenMS: written}
	for _, e := range endpoints {
		m.Tasks = append(m.Tasks, queue.Task{Endpoint: e, DueMS: 100, State: []byte("new")})
	}
	return m
}

func names(c queue.Claim) []string {
	out := []string{}
	for _, t := range c.Tasks {
		out = append(out, t.Endpoint+"/"+t.Alert)
	}
	slices.Sort(out)
	return out
}

// Run runs the suite; fresh returns an empty store.
func Run(t *testing.T, fresh func(t *testing.T) Store) {
	cases := []struct {
		name string
		run  func(t *testing.T, s *shard)
	}{
		{"a batch is applied once", applyOnce},
		{"a batch that does not continue is refused", applyRefused},
		{"a former owner is refused", foreign},
		{"a lost shard says so", lost},
		{"claims carry state and body, and lease", leases},
		{"a lease that ended is claimed again, and its fence is stale", fences},
		{"a lease outlives its owner", leaseOutlivesOwner},
		{"rooms bound what an endpoint gets", rooms},
		{"a closed queue stays closed", closed},
		{"the longest waiting endpoint is served first", fair},
		{"settling writes record and due time together", settles},
		{"a failed settlement writes nothing", settleRefused},
		{"the body goes with the last task", oldest},
		{"the outbox is trimmed up to an entry", trims},
		{"many tasks of one alert", many},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := &shard{t: t, Store: fresh(t)}
			applied, err := s.Acquire(t.Context(), part, "me")
			require.NoError(t, err)
			require.Equal(t, queue.Nowhere, applied)
			tc.run(t, s)
		})
	}
}

func applyOnce(t *testing.T, s *shard) {
	m := message("a", 50, "x", "y")
	s.create(queue.Nowhere, 10, m)
	s.create(queue.Nowhere, 10, m) // the reply was lost
	s.create(10, 12, m, message("b", 60), message("c", 60, "x"))
	require.Equal(t, []string{"x/a", "x/c", "y/a"}, names(s.claim(100)))
	applied, err := s.Acquire(t.Context(), part, "me")
	require.NoError(t, err)
	require.Equal(t, int64(12), applied)
	other, err := s.Acquire(t.Context(), part+1, "me")
	require.NoError(t, err)
	require.Equal(t, queue.Nowhere, other, "shards are apart")
}

func applyRefused(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 10)
	for _, prev := range []int64{queue.Nowhere, 9, 11} {
		err := s.Create(t.Context(), part, &queue.Batch{Token: "me", Prev: prev, Next: 20, Messages: []queue.Message{message("a", 1, "x")}})
		var refused *queue.RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, queue.RefusedError{Applied: 10}, *refused)
	}
	require.Empty(t, names(s.claim(100)))
	r := s.request(100)
	r.Applied = 11
	_, err := s.Claim(t.Context(), part, r)
	var refused *queue.RefusedError
	require.ErrorAs(t, err, &refused, "a store that went back is found out by a claim")
	require.Equal(t, queue.RefusedError{Applied: 10}, *refused)
}

func foreign(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 10, message("a", 1, "x"))
	applied, err := s.Acquire(t.Context(), part, "you")
	require.NoError(t, err)
	require.Equal(t, int64(10), applied)
	want := queue.RefusedError{Foreign: true, Applied: 10}
	var refused *queue.RefusedError
	require.ErrorAs(t, s.Create(t.Context(), part, &queue.Batch{Token: "me", Prev: 10, Next: 11}), &refused)
	require.Equal(t, want, *refused)
	_, err = s.Claim(t.Context(), part, s.request(100))
	require.ErrorAs(t, err, &refused)
	require.Equal(t, want, *refused)
	require.ErrorAs(t, s.Trim(t.Context(), part, "me", "1-1"), &refused)
	require.Equal(t, want, *refused)
}

func lost(t *testing.T, s *shard) {
	want := queue.RefusedError{Applied: queue.Nowhere}
	var refused *queue.RefusedError
	_, err := s.Claim(t.Context(), part, s.request(100))
	require.ErrorAs(t, err, &refused)
	require.Equal(t, want, *refused)
	require.ErrorAs(t, s.settle(queue.Leased{Endpoint: "x", Alert: "a", Fence: "f"}, 0, nil, nil), &refused)
	require.Equal(t, want, *refused)
	require.ErrorAs(t, s.Create(t.Context(), part, &queue.Batch{Token: "me", Prev: 5, Next: 6}), &refused)
	require.Equal(t, want, *refused)
	s.Store = s.Store.(interface{ Lose() Store }).Lose()
	_, err = s.Claim(t.Context(), part, s.request(100))
	require.ErrorAs(t, err, &refused)
	require.Equal(t, want, *refused, "not even the owner is known")
}

func leases(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x"))
	require.Empty(t, s.claim(99).Tasks, "not due")
	require.Equal(t, int64(100), s.claim(99).NextMS)
	c := s.claim(100)
	require.Equal(t, []queue.Leased{{Endpoint: "x", Alert: "a", Fence: fmt.Sprint("fence-", s.fences), State: []byte("new"), Body: []byte("body\x00\xff of a")}}, c.Tasks)
	require.Equal(t, int64(1), c.Depth)
	require.Equal(t, int64(50), c.OldestMS)
	require.Equal(t, int64(1100), c.NextMS, "when the lease ends")
	require.Empty(t, s.claim(1099).Tasks)
}

func fences(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x"))
	first := s.claim(100).Tasks[0]
	second := s.claim(1100).Tasks[0]
	require.ErrorIs(t, s.settle(first, 0, nil, []byte("late")), queue.ErrStale)
	require.NoError(t, s.settle(second, 0, nil, []byte("good")))
	require.ErrorIs(t, s.settle(second, 0, nil, []byte("again")), queue.ErrStale)
	require.Equal(t, []string{"a=good"}, s.outbox())
}

func leaseOutlivesOwner(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x"))
	l := s.claim(100).Tasks[0]
	_, err := s.Acquire(t.Context(), part, "you")
	require.NoError(t, err)
	require.NoError(t, s.settle(l, 0, nil, []byte("sent")))
	require.Equal(t, []string{"a=sent"}, s.outbox())
}

func rooms(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x", "y"), message("b", 50, "x", "y"), message("c", 50, "x", "z"))
	c := s.claim(100, queue.Room{Endpoint: "x", Max: 2}, queue.Room{Endpoint: "y"}, queue.Room{Endpoint: "nobody", Max: 1})
	require.Equal(t, []string{"x/a", "x/b", "z/c"}, names(c))
	require.Equal(t, []string{"x/c", "y/a", "y/b"}, names(s.claim(100)))
	r := s.request(2000)
	r.Limit = 4
	got, err := s.Claim(t.Context(), part, r)
	require.NoError(t, err)
	require.Len(t, got.Tasks, 4)
	r = s.request(2000)
	r.Default = 0
	got, err = s.Claim(t.Context(), part, r)
	require.NoError(t, err)
	require.Empty(t, got.Tasks)
}

func closed(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x", "y"))
	shut := queue.Room{Endpoint: "x", Max: 0, NotBeforeMS: 500}
	c := s.claim(100, shut)
	require.Equal(t, []string{"y/a"}, names(c))
	require.Equal(t, int64(500), c.NextMS)
	require.Equal(t, []string{"x/a"}, names(s.claim(500)))
}

func fair(t *testing.T, s *shard) {
	late := message("late", 50, "x")
	late.Tasks[0].DueMS = 200
	s.create(queue.Nowhere, 1, late, message("early", 50, "y"))
	r := s.request(300)
	r.Limit = 1
	c, err := s.Claim(t.Context(), part, r)
	require.NoError(t, err)
	require.Equal(t, []string{"y/early"}, names(c))
}

func settles(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x"))
	require.NoError(t, s.settle(s.claim(100).Tasks[0], 700, []byte("one"), []byte("r1")))
	require.Equal(t, int64(700), s.claim(699).NextMS)
	l := s.claim(700).Tasks[0]
	require.Equal(t, "one", string(l.State))
	require.Equal(t, "body\x00\xff of a", string(l.Body))
	require.NoError(t, s.settle(l, 800, nil, nil), "given back: no record, same state")
	l = s.claim(800).Tasks[0]
	require.Equal(t, "one", string(l.State))
	require.NoError(t, s.settle(l, 0, nil, []byte{0, 0xff}))
	require.Equal(t, []string{"a=r1", "a=\x00\xff"}, s.outbox())
	c := s.claim(1 << 40)
	require.Empty(t, c.Tasks)
	require.Zero(t, c.NextMS)
	require.Zero(t, c.Depth)
}

func settleRefused(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 10, message("a", 50, "x"))
	l := s.claim(100).Tasks[0]
	err := s.Settle(t.Context(), part, &queue.Settlement{Applied: 11, Endpoint: "x", Alert: "a", Fence: l.Fence, Record: []byte("r")})
	var refused *queue.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, int64(10), refused.Applied)
	require.Empty(t, s.outbox())
	require.NoError(t, s.settle(l, 0, nil, nil), "the lease still holds")
}

func oldest(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x", "y"), message("b", 60, "x"))
	c := s.claim(100)
	require.Equal(t, int64(3), c.Depth)
	for _, l := range c.Tasks {
		if l.Alert == "a" && l.Endpoint == "x" {
			require.NoError(t, s.settle(l, 0, nil, nil))
		}
	}
	require.Equal(t, int64(50), s.claim(100).OldestMS)
	for _, l := range c.Tasks {
		if l.Endpoint == "y" {
			require.NoError(t, s.settle(l, 0, nil, nil))
		}
	}
	c = s.claim(100)
	require.Equal(t, int64(60), c.OldestMS)
	require.Equal(t, int64(1), c.Depth)
}

func trims(t *testing.T, s *shard) {
	s.create(queue.Nowhere, 1, message("a", 50, "x"), message("b", 50, "x"), message("c", 50, "x"))
	for _, l := range s.claim(100).Tasks {
		require.NoError(t, s.settle(l, 0, nil, []byte("r")))
	}
	entries, err := s.Outbox(t.Context(), part, 2)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.NoError(t, s.Trim(t.Context(), part, "me", entries[1].ID))
	require.Len(t, s.outbox(), 1)
	require.ErrorIs(t, s.Trim(t.Context(), part, "me", entries[1].ID), queue.ErrStale, "it is gone: what has its place is another")
	require.Len(t, s.outbox(), 1)
}

func many(t *testing.T, s *shard) {
	m := message("a", 50)
	for i := range 3000 {
		m.Tasks = append(m.Tasks, queue.Task{Endpoint: fmt.Sprintf("e%04d", i), DueMS: 100})
	}
	s.create(queue.Nowhere, 1, m)
	require.Len(t, s.claim(100).Tasks, 100)
	require.Equal(t, int64(3000), s.claim(100).Depth)
}
