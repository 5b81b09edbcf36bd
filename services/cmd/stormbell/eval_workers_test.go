package main

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/correlator"
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
