package correlator

import (
	"context"
	"fmt"

	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/state"
)

// drainDue decides and closes what the watermark has made due, one bounded call
// at a time, and returns once nothing is due. It is safe to repeat: what is
// decided is marked so, and what is closed has left the due index, by the same
// call. After each it tells what the outbox has got.
func (f *folder) drainDue(ctx context.Context, told func(entries []state.Entry) error) error {
	for {
		done, entries, err := f.drainSome(ctx)
		if err != nil {
			return err
		}
		if err := told(entries); done || err != nil {
			return err
		}
	}
}

func (f *folder) drainSome(ctx context.Context) (done bool, entries []state.Entry, err error) {
	defer f.gate.share()()
	if f.long != nil {
		entries, err = f.snapshotOn(ctx)
		return false, entries, err
	}
	for level := range f.due {
		w := max(f.watermarkOf(uint32(level)), window.Now)
		if w < f.due[level] {
			continue
		}
		keys, least, err := f.dueGroups(ctx, uint32(level), w)
		if err != nil {
			return false, nil, err
		}
		if len(keys) > 0 {
			entries, err = f.closeGroups(ctx, keys, w)
			return false, entries, err
		}
		f.due[level] = least
	}
	if f.applied.Step == 0 {
		return true, nil, nil
	}
	return true, nil, (&step{f: f, seq: f.seq}).write(ctx, state.Position{Offset: f.applied.Offset + 1})
}

// closeGroups takes as many of the groups as one call may, and says what they
// fire unless it has been said before. The rest stays due.
func (f *folder) closeGroups(ctx context.Context, keys []string, w int64) ([]state.Entry, error) {
	groups, err := f.closing(ctx, keys)
	if err != nil {
		return nil, err
	}
	s := &step{f: f, before: f.meta, seq: f.seq}
	fields, closed := 0, 0
	var quiet []*group // that say nothing any more, and whose snapshots are due
	for _, g := range groups {
		if fields > maxClosedFields || s.full() {
			break
		}
		closed++
		held := g.win.Held()
		fired, err := s.advance(ctx, g, w)
		if err != nil {
			return nil, err
		}
		if lost := g.win.Lost(); lost != (window.Lost{}) {
			s.lost(f.applied.Offset, tenantRule{g.of.tenant, g.of.correlation}, lost)
		}
		fields += fieldsPerGroup + (held-g.win.Held())/recordsPerField
		f.cache.lost(g, held, g.win.Held())
		for i := range fired {
			if err := s.decided(ctx, g, &fired[i]); err != nil {
				return nil, err
			}
		}
		if g.win.Empty() && g.counted {
			g.counted = false
			s.count(f.tallies[g.tally], -1)
			s.forget(g)
		}
		if len(fired) > 0 {
			g.snap.change(w)
		} else if !g.win.Empty() && g.snap.due(g.key) <= w {
			quiet = append(quiet, g)
		}
		s.touch(g)
	}
	if err := s.snapshots(ctx, quiet, w); err != nil {
		return nil, err
	}
	next := state.Position{Offset: f.applied.Offset, Step: f.applied.Step + 1}
	if f.local != nil {
		return nil, s.write(ctx, next)
	}
	b := s.batch(next)
	if err := b.Fits(f.limit); err != nil {
		s.rollback()
		if f.long = nil; closed > 1 {
			return f.closeGroups(ctx, keys[:closed/2], w)
		}
		return nil, fmt.Errorf("group %s of partition %d: %w", keys[0], f.partition, err)
	}
	return s.entries, f.commit(ctx, s.finish(b))
}

// Bounds of what one call closes: a group that is not dropped whole loses about
// a field for each so many records, and changes a few more.
const (
	maxClosedFields = state.MaxBatchFields / 4
	fieldsPerGroup  = 16
	recordsPerField = 32
)

// closing returns groups that are due, with what is known of their correlations.
func (f *folder) closing(ctx context.Context, keys []string) ([]*group, error) {
	var missing, tallies []string
	for _, key := range keys {
		if f.cache.get(key) == nil {
			missing = append(missing, key)
		}
	}
	if err := f.loadKeys(ctx, missing, nil); err != nil {
		return nil, err
	}
	groups := make([]*group, len(keys))
	asked := make(map[string]bool)
	for i, key := range keys {
		g := f.cache.get(key)
		if g == nil {
			return nil, fmt.Errorf("group %s of partition %d is due and does not exist: flush the store, the log rebuilds it", key, f.partition)
		}
		if groups[i] = g; f.tallies[g.tally] == nil && !asked[g.tally] {
			asked[g.tally] = true
			tallies = append(tallies, g.tally)
		}
	}
	return groups, f.loadKeys(ctx, nil, tallies)
}
