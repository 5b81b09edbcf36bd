package correlator

import (
	"context"
	"math"
	"slices"

	"github.com/stormbell/stormbell/services/internal/state"
	"github.com/stormbell/stormbell/services/internal/status"
)

// fullest are the groups that displays show: of each correlation of a partition
// those that hold most of what its condition counts, as of when they changed
// last. They are found as groups are written, not by looking at all.
type fullest struct {
	lists map[string]*fullList // by tally
}

type fullList struct {
	rule   tenantRule
	groups map[string]*status.Group // by key
	stale  bool
	// none of them counts less than least, so that most others need no look at all.
	least int64
}

const (
	// shownGroups is how many groups of a correlation are shown.
	shownGroups = 10
	// maxFullest bounds the correlations of which groups are shown.
	maxFullest = 500
)

func newFullest() *fullest { return &fullest{lists: make(map[string]*fullList)} }

// note takes a group that has changed.
func (f *fullest) note(g *group) {
	list := f.lists[g.tally]
	if list == nil {
		if len(f.lists) >= maxFullest {
			return
		}
		list = &fullList{rule: tenantRule{g.of.tenant, g.of.correlation}, groups: make(map[string]*status.Group, shownGroups)}
		f.lists[g.tally] = list
	}
	fill := g.win.Fill()
	if list.groups[g.key] == nil && len(list.groups) >= shownGroups {
		least, count := "", int64(fill.Count)
		if count <= list.least {
			return
		}
		for key, s := range list.groups {
			if s.Count < count || s.Count == count && least != "" && key < least {
				least, count = key, s.Count
			}
		}
		if least == "" {
			list.least = count
			return
		}
		delete(list.groups, least)
	}
	list.stale = true
	list.least = min(list.least, int64(fill.Count))
	list.groups[g.key] = &status.Group{
		Values: g.of.group, Revision: g.of.revision, Count: int64(fill.Count), Events: int64(fill.Events),
		FirstMS: fill.First, LastMS: fill.Last, DueMS: g.next(), AtLeast: fill.AtLeast,
	}
}

const (
	// surveyed is how many groups of a level a new owner looks at, so many at a time.
	surveyed, surveyedAtOnce = 1000, 16
	// surveyedShare is which part of the cache it fills at most.
	surveyedShare = 8
)

// survey looks at groups that a former owner has left, those that are due first, so
// that displays know of them before they change. It is best effort: what fails here
// fails again where it matters.
func (f *folder) survey(ctx context.Context) {
	if f.local != nil || f.applied == state.Nowhere {
		return
	}
	for level := range f.meta.levels + 1 {
		keys, _, err := f.store.Due(ctx, f.partition, level, math.MaxInt64, surveyed)
		if err != nil {
			return
		}
		for some := range slices.Chunk(keys, surveyedAtOnce) {
			groups, err := f.closing(ctx, some)
			if err != nil {
				f.cache.clear()
				clear(f.tallies)
				return
			}
			for _, g := range groups {
				f.full.note(g)
				f.named[g.tally] = tenantRule{g.of.tenant, g.of.correlation}
			}
			if f.cache.used > f.cache.limit/surveyedShare || len(f.named) >= maxTallies {
				return
			}
		}
	}
}

// gone takes a group that is no more.
func (f *fullest) gone(g *group) {
	if list := f.lists[g.tally]; list != nil && list.groups[g.key] != nil {
		delete(list.groups, g.key)
		list.stale = true
	}
}

// show tells the board what has changed, and how many groups there are where that
// is known: an owner that took them over has seen none of them begin.
func (f *fullest) show(board *status.Board, partition int32, tallies map[string]*tally) {
	for tally, list := range f.lists {
		if !list.stale {
			continue
		}
		list.stale = false
		if t := tallies[tally]; t != nil {
			board.Open(partition, tally, list.rule.tenant, list.rule.rule, t.groups)
		}
		groups := make([]status.Group, 0, len(list.groups))
		for _, g := range list.groups {
			groups = append(groups, *g)
		}
		board.Fullest(partition, tally, list.rule.tenant, list.rule.rule, groups)
		if len(groups) == 0 {
			delete(f.lists, tally)
		}
	}
}
