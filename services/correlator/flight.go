package correlator

import (
	"context"

	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/state"
)

// The folder computes the next step while the call that writes the last one is
// under way. Calls do not overlap: each is made when the one before has succeeded,
// so that the store sees them in order, each compared and set. What is computed
// ahead is told to nobody; where the call before it fails or is refused, the folder
// is thrown away, and that with it.

// A write is a step that is computed: the call of the store that it takes.
type write struct{ batch *state.Batch }

// flight is a call that is under way.
type flight struct {
	done chan error
	// landed is called once it has succeeded; nil: there is nothing to do.
	landed func() error
}

// write commits the step. After an error the folder is of no use.
func (s *step) write(ctx context.Context, next state.Position) error {
	f := s.f
	if f.local != nil {
		s.written()
		f.applied = next
		return nil
	}
	return f.commit(ctx, s.finish(s.batch(next)))
}

// commit makes a call and waits for it.
func (f *folder) commit(ctx context.Context, w *write) error {
	if err := f.launch(ctx, w, nil); err != nil {
		return err
	}
	return f.land()
}

// batch is the step's call. What is in it changes no more, and groups have told
// their changes: the step is finished with it, or rolled back.
func (s *step) batch(next state.Position) *state.Batch {
	f := s.f
	b := &state.Batch{Token: f.token, Prev: f.applied, Next: next, Meta: f.meta.encode(), Outbox: s.entries}
	b.Changes = make([]state.Change, 0, len(s.dirty)+len(s.tallies))
	var scratch []window.Change
	for _, g := range s.dirty {
		scratch = g.win.Changes(scratch[:0])
		b.Changes = append(b.Changes, g.change(scratch))
	}
	for _, t := range s.tallies {
		b.Changes = append(b.Changes, t.change())
	}
	return b
}

// finish makes the folder what it is after the step's call.
func (s *step) finish(b *state.Batch) *write {
	f := s.f
	f.applied, f.seq = b.Next, s.seq
	for i, g := range s.dirty {
		g.dirty = false
		g.stored, g.name = true, nil
		if b.Changes[i].Drop {
			f.cache.remove(g)
			f.full.gone(g)
			continue
		}
		if !b.Changes[i].SameDue {
			g.due = b.Changes[i].Due
		}
		f.full.note(g)
	}
	for _, t := range s.tallies {
		t.dirty, t.stored = false, t.groups > 0
		if of, ok := f.named[t.key]; ok {
			f.counts.board.Open(f.partition, t.key, of.tenant, of.rule, t.groups)
		}
	}
	if len(f.tallies) > maxTallies {
		clear(f.tallies)
	}
	f.cache.shrink()
	return &write{b}
}

// launch makes a call once the one before has landed. After an error the folder is
// of no use.
func (f *folder) launch(ctx context.Context, w *write, landed func() error) error {
	if err := f.land(); err != nil {
		return err
	}
	if err := f.fault.at(PointFolded, nil); err != nil {
		return err
	}
	fly := &flight{done: make(chan error, 1), landed: landed}
	f.flight = fly
	go func() { fly.done <- f.store.Commit(ctx, f.partition, w.batch) }()
	return nil
}

// land waits for the call that is under way, if there is one: until its context ends
// at most. After an error the folder is of no use.
func (f *folder) land() error {
	fly := f.flight
	if fly == nil {
		return nil
	}
	f.flight = nil
	if err := <-fly.done; err != nil {
		return err
	}
	clear(f.attempts)
	if err := f.fault.at(PointApplied, nil); err != nil {
		return err
	}
	if fly.landed == nil {
		return nil
	}
	return fly.landed()
}

// leave waits for the call that is under way, of which nobody will hear.
func (f *folder) leave() {
	if f.flight != nil {
		<-f.flight.done //nolint:errcheck // the owner ends, and the next one finds out
		f.flight = nil
	}
}
