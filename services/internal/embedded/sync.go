package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// errDisk marks a failed write or sync: what it covered is not durable.
var errDisk = errors.New("disk failed")

// syncer puts produced records on stable storage before they are
// acknowledged: all that wait at the same time share one round of fsync.
//
// The engine could sync by itself, but does so record batch by record batch
// on its only goroutine, and discards the error. A failed fsync is final: the
// kernel may have dropped the pages and reports success the next time, so the
// log is not written again before it has been opened and checked anew.
type syncer struct {
	root    string
	enabled bool
	fsync   func(*os.File) error // replaced by tests

	mu       sync.Mutex
	inflight map[partition]int // handed to the engine, not yet synced
	waiting  []chan error
	failed   error
	stopped  bool

	wake   chan struct{}
	quit   chan struct{}
	done   chan struct{}
	synced map[partition]int64 // base of the newest synced segment; loop only

	rounds, errs atomic.Int64
}

func newSyncer(root string, enabled bool) *syncer {
	return &syncer{
		root:     root,
		enabled:  enabled,
		fsync:    (*os.File).Sync,
		inflight: make(map[partition]int),
		wake:     make(chan struct{}, 1), // one pending wake-up is enough
		quit:     make(chan struct{}),
		done:     make(chan struct{}),
		synced:   make(map[partition]int64),
	}
}

// begin notes that records are about to be written to parts.
func (s *syncer) begin(parts []partition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	for _, p := range parts {
		s.inflight[p]++
	}
	return nil
}

// end waits until all that was written to parts is durable.
func (s *syncer) end(parts []partition) error {
	err := s.flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		if s.inflight[p]--; s.inflight[p] <= 0 {
			delete(s.inflight, p)
		}
	}
	return err
}

// flush waits until all that consumers can have read is durable.
func (s *syncer) flush() error {
	s.mu.Lock()
	if s.failed != nil || !s.enabled || len(s.inflight) == 0 {
		defer s.mu.Unlock()
		return s.failed
	}
	if s.stopped {
		defer s.mu.Unlock()
		return fmt.Errorf("%w: broker is closing", errDisk)
	}
	ch := make(chan error, 1)
	s.waiting = append(s.waiting, ch)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return <-ch
}

// run serves rounds until stop.
func (s *syncer) run() {
	defer close(s.done)
	for {
		select {
		case <-s.wake:
			s.serve()
		case <-s.quit:
			s.serve() // whoever came before stopped was set
			return
		}
	}
}

// serve makes one round for all who wait.
func (s *syncer) serve() {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	parts := make([]partition, 0, len(s.inflight))
	for p := range s.inflight {
		parts = append(parts, p)
	}
	s.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	err := s.round(parts)
	if err != nil {
		s.fail(err)
	}
	for _, ch := range waiting {
		ch <- err
	}
}

// stop ends run after a last round. Later waits fail.
func (s *syncer) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	close(s.quit)
	<-s.done
}

// fail makes every later produce fail with err.
func (s *syncer) fail(err error) {
	s.errs.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
}

func (s *syncer) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// round syncs the segments of parts that may have unsynced bytes.
func (s *syncer) round(parts []partition) error {
	s.rounds.Add(1)
	newest := make([]int64, len(parts))
	var group errgroup.Group
	group.SetLimit(8) // journals merge concurrent syncs
	for i, p := range parts {
		from, known := s.synced[p]
		group.Go(func() error {
			var err error
			newest[i], err = s.syncPartition(p, from, known)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	for i, p := range parts {
		s.synced[p] = newest[i]
	}
	return nil
}

// syncPartition syncs all segments from the one that was newest last time.
func (s *syncer) syncPartition(p partition, from int64, known bool) (int64, error) {
	dir := partitionDir(s.root, p)
	segments, err := listSegments(dir)
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(segments) == 0) {
		return -1, nil // the engine refused the records: nothing was written
	}
	if err != nil {
		return 0, err
	}
	start := 0
	if known {
		start, _ = slices.BinarySearchFunc(segments, from, func(seg segment, base int64) int { return cmp.Compare(seg.base, base) })
	}
	for _, seg := range segments[min(start, len(segments)-1):] {
		if err := s.syncPath(seg.path); err != nil {
			return 0, err
		}
	}
	last := segments[len(segments)-1].base
	if known && last == from {
		return last, nil
	}
	// A new file: its name, and that of a new directory, must last too.
	for _, d := range []string{dir, partitionsDir(s.root)} {
		if err := s.syncPath(d); err != nil {
			return 0, err
		}
	}
	return last, nil
}

func (s *syncer) syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // trimmed since it was listed
	}
	if err != nil {
		return err
	}
	return errors.Join(s.fsync(f), f.Close())
}
