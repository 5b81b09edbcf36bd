package correlator

import (
	"container/list"
	"fmt"

	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/state"
)

// identityField holds what a group is of; the window's fields have longer
// names than one character or are called "m". See also snapshotField.
const identityField = "i"

// group is one group of a correlation, decoded.
type group struct {
	key   string
	tally string // key of its correlation's tally
	of    groupName
	spec  *window.Spec
	win   *window.Group
	// name is the identity, until it is stored.
	name []byte
	// stored says that the store has the identity, due what its index says.
	stored bool
	due    int64
	dirty  bool
	// counted says that the tally includes it.
	counted bool
	bytes   int64
	snap    snapshot
	at      *list.Element
	again   bool // it has been used since it came
	// Where there is no store: the name among the groups, and the place among those
	// that are due; below 0 outside.
	local localName
	place int
}

// next is the watermark at which there is something to do.
func (g *group) next() int64 { return min(g.win.Next(), g.snap.due(g.key)) }

// openGroup decodes what the store has of a group; ok is false if it has none.
func (n *names) openGroup(key string, fields []state.Field) (g *group, ok bool, err error) {
	if len(fields) == 0 {
		return nil, false, nil
	}
	g = &group{key: key, stored: true, counted: true, due: unseen, bytes: groupOverhead, snap: newSnapshot(0)}
	parts := make([]window.Change, 0, len(fields))
	for _, f := range fields {
		g.bytes += 2 * int64(len(f.Value))
		if f.Name == identityField {
			if g.spec, g.of, err = n.identity(f.Value); err != nil {
				return nil, false, err
			}
			g.tally = n.tallyKey(g.of.tenant, g.of.correlation, g.of.revision)
			continue
		}
		if f.Name == snapshotField {
			if err = g.snap.decode(f.Value); err != nil {
				return nil, false, err
			}
			continue
		}
		parts = append(parts, window.Change{Field: f.Name, Value: f.Value})
	}
	if g.spec == nil {
		return nil, false, errIdentity
	}
	if g.win, err = window.Decode(g.spec, parts); err != nil {
		return nil, false, fmt.Errorf("%w: %w", errIdentity, err)
	}
	return g, true, nil
}

// groupOverhead is about what an empty group takes in memory.
const groupOverhead = 1 << 10

// cache holds decoded groups, up to a number of bytes. A group is only let go
// between two batches.
//
// Those that have been used again since they came keep most of the room: where
// more groups take turns than there is room for, the last one used is not the
// first to be needed, and what is there would always go before its turn.
type cache struct {
	limit  int64
	used   int64
	tried  int64 // of used, by groups that have not been used again
	groups map[string]*group
	// Of *group, the latest first.
	fresh, proven *list.List
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, groups: make(map[string]*group), fresh: list.New(), proven: list.New()}
}

// get is the group that a record is of.
func (c *cache) get(key string) *group { return c.groups[key] }

// use is get for a batch in the making: the group is needed once more.
func (c *cache) use(key string) *group {
	g := c.groups[key]
	switch {
	case g == nil:
	case g.again:
		c.proven.MoveToFront(g.at)
	default:
		c.fresh.Remove(g.at)
		g.at, g.again = c.proven.PushFront(g), true
		c.tried -= g.bytes
	}
	return g
}

func (c *cache) put(g *group) {
	g.at, g.again = c.fresh.PushFront(g), false
	c.groups[g.key] = g
	c.used += g.bytes
	c.tried += g.bytes
}

// grew accounts for what a group has taken in.
func (c *cache) grew(g *group, by int) {
	g.bytes += int64(by)
	c.used += int64(by)
	if !g.again {
		c.tried += int64(by)
	}
}

// lost accounts for what a group of so many records has let go of.
func (c *cache) lost(g *group, before, after int) {
	if before > after && g.bytes > groupOverhead {
		c.grew(g, -int(float64(g.bytes-groupOverhead)*float64(before-after)/float64(before)))
	}
}

func (c *cache) remove(g *group) {
	delete(c.groups, g.key)
	c.used -= g.bytes
	if g.again {
		c.proven.Remove(g.at)
		return
	}
	c.fresh.Remove(g.at)
	c.tried -= g.bytes
}

// triedShare is which part of the cache groups have that have not been used again.
const triedShare = 4

// shrink lets go of the groups that were used longest ago, first of those that
// have not been used again.
func (c *cache) shrink() {
	for c.used > c.limit && len(c.groups) > 0 {
		if last := c.proven.Back(); last != nil && c.tried <= c.limit/triedShare {
			g := c.proven.Remove(last).(*group) //nolint:forcetypeassert // nothing else is in it
			g.at, g.again = c.fresh.PushFront(g), false
			c.tried += g.bytes
			continue
		}
		c.remove(c.fresh.Back().Value.(*group))
	}
}

func (c *cache) clear() {
	c.used, c.tried = 0, 0
	clear(c.groups)
	c.fresh.Init()
	c.proven.Init()
}
