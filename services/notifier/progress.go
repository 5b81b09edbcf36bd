package notifier

import (
	"fmt"
	"sync"
)

// progress is what a committed offset says beside itself, and where a rebuild
// begins by it.
type progress struct {
	// writtenMS is the greatest write time of the alerts below the offset.
	writtenMS int64
	// oldestMS is the write time of the oldest of them that is not known to be
	// delivered, parked or cancelled by what `deliveries` holds; 0: none.
	oldestMS int64
}

func (p progress) String() string { return fmt.Sprintf("1 %d %d", p.writtenMS, p.oldestMS) }

// parseProgress reads what was committed. An offset without it says nothing.
func parseProgress(text string) (p progress, ok bool) {
	var version int
	n, err := fmt.Sscanf(text, "%d %d %d", &version, &p.writtenMS, &p.oldestMS)
	if err != nil || n != 3 || version != 1 || p.writtenMS < 0 || p.oldestMS < 0 {
		return progress{}, false
	}
	return p, true
}

// since is the write time from which a rebuild reads.
func (p progress) since() int64 {
	if p.oldestMS != 0 {
		return min(p.oldestMS, p.writtenMS)
	}
	return p.writtenMS
}

// mark is an offset that may be committed.
type mark struct {
	offset   int64
	progress progress
	seq      int64
}

// tracker finds offsets that are safe to commit: all alerts below have their
// tasks, and what the queue has settled of them stands in `deliveries`. The
// queue may lose its outbox, so the oldest open alert that it names counts only
// once all that was in the outbox at that time is acknowledged.
type tracker struct {
	mu sync.Mutex
	// applied is the shard's applied offset and written the greatest write
	// time below it.
	applied, written int64
	seq              int64
	// first is the earliest and last the latest observation that waits for
	// the outbox; safe is the latest that does not.
	first, last, safe *mark
}

func newTracker(applied, written int64) *tracker { return &tracker{applied: applied, written: written} }

// reached notes that all below an offset is in the queue.
func (t *tracker) reached(applied, written int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied, t.written = applied, max(t.written, written)
}

// before is to be taken before a claim, whose answer observed gets.
func (t *tracker) before() mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return mark{offset: t.applied, progress: progress{writtenMS: t.written}}
}

func (t *tracker) observed(m mark, oldestMS int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seq++
	m.seq, m.progress.oldestMS = t.seq, oldestMS
	t.last = &m
	if t.first == nil {
		t.first = &m
	}
}

// sequence is to be taken before the outbox is read, for drained.
func (t *tracker) sequence() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seq
}

// drained says that all that was in the outbox at a sequence is acknowledged.
func (t *tracker) drained(seq int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.first == nil:
	case t.last.seq <= seq:
		t.safe, t.first = t.last, nil
	case t.first.seq <= seq:
		t.safe, t.first = t.first, t.last
	}
}

// committable is the latest safe offset, or nil.
func (t *tracker) committable() *mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.safe
}

func (t *tracker) at() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}
