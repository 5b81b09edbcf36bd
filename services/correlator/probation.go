package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// A record may end the process: out of memory and an exhausted stack cannot be
// recovered. So that it does not do so for ever, each claim notes in the
// metadata of its commits that it has begun, and progress wipes the note out. A
// claim that finds several owners before it to have begun and ended goes
// carefully: it notes a short stretch of records before it takes them, and one
// record at a time where a stretch was noted when the last process ended. A
// record that is found noted by itself often enough is passed over.
const (
	// patience is how many owners in a row may end before the next goes
	// carefully: a process may end for many reasons.
	patience = 2
	// stretch is how many records are noted at once.
	stretch = 500
	// aloneFor bounds how long others wait for a record that is tried alone.
	aloneFor = 5 * time.Second
	// leaveFor bounds the last commit of an owner that ends in good order.
	leaveFor = time.Second
)

// reasonEnded is what `dlq` says of a record that ends processes.
const reasonEnded = "the process ended while this record was processed"

// trial is the note.
type trial struct {
	// tries is how many owners in a row have begun, and with their processes
	// ended without progress. It counts up to the offset until.
	tries, until int64
	// The last one had begun the size records from suspect on. Where it is one,
	// count is how often in a row it was exactly that.
	suspect, size, count int64
}

func (t trial) String() string {
	if t == (trial{}) {
		return ""
	}
	return fmt.Sprintf(" tries=%d until=%d suspect=%d size=%d count=%d", t.tries, t.until, t.suspect, t.size, t.count)
}

// holds reports whether an offset was begun.
func (t trial) holds(offset int64) bool { return offset >= t.suspect && offset-t.suspect < t.size }

// forget says that nothing is begun.
func (t *trial) forget() { t.suspect, t.size, t.count = 0, 0, 0 }

// probation commits for one claim. All of its methods may be called by several
// goroutines.
type probation struct {
	claim    *claim
	attempts int
	log      *slog.Logger

	mu sync.Mutex
	// committed and at are what the broker has.
	committed int64
	at        progress
	// begun is false before anything was noted, and once an owner has got
	// somewhere.
	begun bool
	// found is what this owner leaves behind where it ends in good order.
	found trial
	// unsure says that the outcome of the last commit is not known.
	unsure bool
}

// newProbation begins with what the claim has found.
func newProbation(c *claim, at progress, attempts int, log *slog.Logger) *probation {
	found := at.trial
	at.trial = trial{}
	return &probation{claim: c, attempts: attempts, log: log, committed: c.Committed, at: at, found: found}
}

// begin notes that this owner begins at next, where there is anything up to
// end. first is committed where nothing was.
func (p *probation) begin(ctx context.Context, first, next, end int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found.until <= next {
		p.found = trial{} // those before it have got there
	}
	if next >= end {
		return nil
	}
	if !p.found.holds(next) && p.found.suspect < next {
		p.found.forget()
	}
	if p.committed < 0 {
		p.committed = first
	}
	p.at.trial = p.found
	p.at.trial.tries++
	p.at.trial.until = end
	if p.found.tries >= patience {
		p.log.Warn("processes have ended here before, going carefully", "offset", next, "until", end, "tries", p.found.tries,
			"suspect", p.found.suspect, "records", p.found.size, "count", p.found.count)
	}
	p.begun = true
	return p.insist(ctx)
}

// insist commits what is to be known before anything else happens.
func (p *probation) insist(ctx context.Context) error {
	for n := 0; ; n++ {
		err := p.store(ctx, p.committed, p.at)
		if err == nil || errors.Is(err, bus.ErrNotOwner) || ctx.Err() != nil {
			return err
		}
		p.log.Warn("commit is not acknowledged, trying again", "offset", p.committed, "error", err)
		if !sleep(ctx, backoff(n)) {
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
	}
}

func (p *probation) store(ctx context.Context, offset int64, at progress) error {
	err := p.claim.Commit(ctx, offset, at.String())
	if p.unsure = err != nil; err == nil {
		p.committed, p.at = offset, at
	}
	return err
}

// careful reports whether this owner has to note what it takes.
func (p *probation) careful() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun && p.found.tries >= patience
}

// blamed returns the record that is to be passed over, and how often it was
// tried; −1 where there is none.
func (p *probation) blamed() (offset int64, tries int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found.size == 1 && p.found.count >= int64(p.attempts) {
		return p.found.suspect, int(p.found.count)
	}
	return -1, 0
}

// take returns how many of the records may be taken next, and whether nothing
// else may happen in the process meanwhile.
func (p *probation) take(records []Record) (n int, alone bool) {
	if len(records) == 0 || !p.careful() {
		return len(records), false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found.holds(records[0].Offset) {
		return 1, true
	}
	for n < min(len(records), stretch) && !p.found.holds(records[n].Offset) {
		n++
	}
	return n, false
}

// mark notes records before they are taken.
func (p *probation) mark(ctx context.Context, records []Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.at.trial
	t.suspect, t.size, t.count = records[0].Offset, records[len(records)-1].Offset+1-records[0].Offset, 0
	if len(records) == 1 {
		if t.count = 1; p.found.size == 1 && p.found.suspect == t.suspect {
			t.count = p.found.count + 1
		}
	}
	return p.insist(ctx)
}

// unmark says that what was marked has not ended the process.
func (p *probation) unmark(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.trial.size == 0 {
		return nil
	}
	p.at.trial.forget()
	return p.insist(ctx)
}

// passed says that all below next is done.
func (p *probation) passed(ctx context.Context, next int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun {
		return nil
	}
	if t := &p.found; t.size > 0 && next > t.suspect {
		t.suspect, t.size, t.count = next, max(0, t.size-(next-t.suspect)), 0
	}
	if next < p.at.trial.until {
		return nil
	}
	return p.over(ctx, p.committed, p.at)
}

// commit commits progress.
func (p *probation) commit(ctx context.Context, offset int64, at progress) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun || p.found.tries < patience || offset >= p.at.trial.until {
		return p.over(ctx, offset, at)
	}
	at.trial = p.at.trial
	if at.trial.size > 0 && offset-at.trial.suspect >= at.trial.size {
		at.trial.forget()
	}
	return p.store(ctx, offset, at)
}

// over commits without a note: this owner has got somewhere.
func (p *probation) over(ctx context.Context, offset int64, at progress) error {
	at.trial = trial{}
	if err := p.store(ctx, offset, at); err != nil {
		return err
	}
	p.begun, p.found = false, trial{}
	return nil
}

// leave takes the note back where the owner ends and its process does not, or
// does so in good order.
func (p *probation) leave(ctx context.Context, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun || p.unsure || crashed(ctx, err) || errors.Is(err, bus.ErrNotOwner) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveFor)
	defer cancel()
	at := p.at
	at.trial = p.found
	if err := p.store(ctx, p.committed, at); err != nil {
		p.log.Debug("note of a begun claim stays behind", "offset", p.committed, "error", err)
	}
	p.begun = false
}

// crashed reports an injected crash, here or elsewhere in the process.
func crashed(ctx context.Context, err error) bool {
	if _, ok := errors.AsType[*faultError](err); ok {
		return true
	}
	_, ok := errors.AsType[*faultError](context.Cause(ctx))
	return ok
}

// gate lets the partitions of a process work at the same time, or one record
// alone, so that it is known whose fault it is if the process ends. A nil gate
// is for tests and for those who have one partition.
type gate struct{ mu sync.RWMutex }

func (g *gate) share() (leave func()) {
	if g == nil {
		return func() {}
	}
	g.mu.RLock()
	return g.mu.RUnlock
}

func (g *gate) alone() (leave func()) {
	if g == nil {
		return func() {}
	}
	g.mu.Lock()
	return g.mu.Unlock
}
