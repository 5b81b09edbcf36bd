package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/internal/event"
)

// TestFoldQueue holds that chunks are folded once each and in order, however
// many workers bring them.
func TestFoldQueue(t *testing.T) {
	const chunks, workers = 2000, 7
	all := make([]*correlator.Matched, chunks)
	place := map[*correlator.Matched]int{}
	for i := range all {
		all[i] = new(correlator.Matched)
		place[all[i]] = i
	}
	var got []int
	q := newFoldQueue(3, func(m *correlator.Matched) error {
		got = append(got, place[m]) // one at a time, or the race detector says so
		return nil
	})
	var mu sync.Mutex
	next := 0
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				mu.Lock()
				n := next
				next++
				mu.Unlock()
				if n >= chunks {
					return
				}
				for range rand.IntN(1000) { // some take longer
				}
				if q.add(n, all[n]) != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, got, chunks)
	for i, n := range got {
		require.Equal(t, i, n)
	}
}

// TestFoldQueueFails holds that nobody waits for a chunk that never comes, and
// that nothing is folded after one that failed.
func TestFoldQueueFails(t *testing.T) {
	bad := errors.New("bad")
	folded := 0
	q := newFoldQueue(1, func(*correlator.Matched) error {
		folded++
		return bad
	})
	waits := make(chan error)
	go func() { waits <- q.add(5, new(correlator.Matched)) }()
	q.fail(bad)
	require.ErrorIs(t, <-waits, bad)
	require.ErrorIs(t, q.add(0, new(correlator.Matched)), bad)
	require.Zero(t, folded)

	q = newFoldQueue(2, func(*correlator.Matched) error { folded++; return bad })
	require.NoError(t, q.add(1, new(correlator.Matched)))
	require.ErrorIs(t, q.add(0, new(correlator.Matched)), bad)
	require.Equal(t, 1, folded)
}

// TestChunkDates holds that events without a time have that of the one before
// them, in whatever order workers come to the chunks.
func TestChunkDates(t *testing.T) {
	for range 200 {
		want := int64(0)
		before := make(chan int64, 1)
		before <- want
		next := (<-chan int64)(before)
		type dated struct {
			chunk
			events []event.Event
			want   []int64
		}
		all := make([]dated, 1+rand.IntN(6))
		for i := range all {
			d := &all[i]
			after := make(chan int64, 1)
			d.before, d.after, next = next, after, after
			for range rand.IntN(4) {
				e := event.Event{TimeMS: -1}
				if rand.IntN(3) == 0 {
					e = event.Event{TimeMS: rand.Int64N(1000), OwnTime: true}
					want = e.TimeMS
				}
				d.events, d.want = append(d.events, e), append(d.want, want)
			}
		}
		var g errgroup.Group
		for _, i := range rand.Perm(len(all)) {
			g.Go(func() error { return all[i].date(t.Context(), all[i].events) })
		}
		require.NoError(t, g.Wait())
		for _, d := range all {
			for i, e := range d.events {
				require.Equal(t, d.want[i], e.TimeMS)
			}
		}
		require.Equal(t, want, <-next)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	waits := chunk{before: make(chan int64), after: make(chan int64, 1)}
	require.ErrorIs(t, waits.date(ended, nil), context.Canceled, "of a worker that failed nobody waits for a time")
}
