// Package ownership is what a process knows of the partitions that it owns:
// which are ready, and what was committed of them last.
//
// It decides nothing: who owns a partition is the consumer group's to say.
package ownership

import (
	"fmt"
	"math"
	"sync"
)

// Partitions are the partitions that a process owns. P is what is committed
// beside an offset. Its methods are safe for concurrent use.
type Partitions[P any] struct {
	mu  sync.Mutex
	all map[int]*partition[P]
}

type partition[P any] struct {
	err       error // why it is not ready; nil: ready
	owners    int
	committed int64
	progress  P
}

// New returns no partitions.
func New[P any]() *Partitions[P] { return &Partitions[P]{all: make(map[int]*partition[P])} }

// Enter begins an ownership of partition p, which is not ready because of why
// until Set says otherwise. Each Enter is followed by a Leave.
func (o *Partitions[P]) Enter(p int, why error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all[p] == nil {
		o.all[p] = &partition[P]{committed: -1}
	}
	o.all[p].owners++
	o.all[p].err = fmt.Errorf("partition %d: %w", p, why)
}

// Leave ends an ownership. Nothing is known of a partition that has no owner left.
func (o *Partitions[P]) Leave(p int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all[p].owners--; o.all[p].owners == 0 {
		delete(o.all, p)
	}
}

// Set says why an owned partition is not ready; nil is that it is.
func (o *Partitions[P]) Set(p int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[p].err = err
}

// Ready reports whether an owned partition is ready.
func (o *Partitions[P]) Ready(p int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[p].err == nil
}

// Commit notes what was committed of an owned partition.
func (o *Partitions[P]) Commit(p int, offset int64, progress P) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[p].committed, o.all[p].progress = offset, progress
}

// Problem is why the least partition that is not ready is not; nil: all are.
func (o *Partitions[P]) Problem() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	least := math.MaxInt
	var err error
	for p, s := range o.all {
		if s.err != nil && p < least {
			least, err = p, s.err
		}
	}
	return err
}

// Last is what was committed last of a partition; ok is false where nothing is
// known.
func (o *Partitions[P]) Last(p int) (offset int64, progress P, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.all[p]
	if s == nil || s.committed < 0 {
		return 0, progress, false
	}
	return s.committed, s.progress, true
}
