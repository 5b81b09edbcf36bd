package state

import (
	"bytes"
	"maps"
	"slices"
)

// Save returns a function that takes the store back to where it is now.
func (m *Memory) Save() (restore func()) {
	saved := m.copyAll()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.partitions = saved
	}
}

// Flush loses everything.
func (m *Memory) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.partitions)
}

func (m *Memory) copyAll() map[int32]*memPartition {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[int32]*memPartition)
	for n, p := range m.partitions {
		c := &memPartition{owner: p.owner, applied: p.applied, meta: bytes.Clone(p.meta), seq: p.seq, outbox: slices.Clone(p.outbox), groups: make(map[string]*memGroup)}
		for _, g := range p.groups {
			copied := &memGroup{key: g.key, fields: maps.Clone(g.fields), level: g.level, due: Never, at: -1}
			c.groups[g.key] = copied
			c.setDue(copied, g.due)
		}
		out[n] = c
	}
	return out
}
