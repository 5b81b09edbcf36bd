package state

import (
	"bytes"
	"container/heap"
	"context"
	"maps"
	"slices"
	"sync"
)

// Memory keeps state in the process. It is empty at start, so that whoever
// reads it rebuilds from the log. Its methods are safe for concurrent use.
type Memory struct {
	mu         sync.Mutex
	partitions map[int32]*memPartition
}

type memPartition struct {
	owner   string
	applied Position
	meta    []byte
	seq     int64
	groups  map[string]*memGroup
	due     [MaxLevel + 1]dueHeap
	outbox  []Entry // ascending Seq
}

type memGroup struct {
	key    string
	fields map[string][]byte
	level  uint32
	due    int64
	at     int // index in the heap; -1: not in it
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{partitions: make(map[int32]*memPartition)} }

func (m *Memory) partition(p int32) *memPartition {
	part, ok := m.partitions[p]
	if !ok {
		part = &memPartition{applied: Nowhere, groups: make(map[string]*memGroup)}
		m.partitions[p] = part
	}
	return part
}

// Acquire makes token the only one whose writes to the partition are taken,
// and returns what is there.
func (m *Memory) Acquire(_ context.Context, partition int32, token string) (Partition, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.partition(partition)
	p.owner = token
	due := int64(Never)
	if h := p.due[0]; len(h) > 0 {
		due = h[0].due
	}
	first := p.seq + 1
	if len(p.outbox) > 0 {
		first = p.outbox[0].Seq
	}
	return Partition{Applied: p.applied, Meta: bytes.Clone(p.meta), Seq: p.seq, First: first, Due: due}, nil
}

// Commit applies a batch whole, or fails with a RefusedError. A batch that
// was applied already, and whose reply was lost, succeeds.
func (m *Memory) Commit(_ context.Context, partition int32, b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.partition(partition)
	switch {
	case p.owner != b.Token:
		return p.refuse("owner", b.Token)
	case p.applied == b.Next:
		return nil
	case p.applied != b.Prev:
		return p.refuse("applied", b.Token)
	case len(b.Outbox) > 0 && b.Outbox[0].Seq != p.seq+1:
		return p.refuse("sequence", b.Token)
	}
	for i := range b.Changes {
		p.change(&b.Changes[i])
	}
	for _, e := range b.Outbox {
		e.Body = bytes.Clone(e.Body)
		p.outbox = append(p.outbox, e)
		p.seq = e.Seq
	}
	p.applied, p.meta = b.Next, bytes.Clone(b.Meta)
	return nil
}

func (p *memPartition) refuse(reason, token string) error {
	return &RefusedError{Reason: reason, Applied: p.applied, Foreign: p.owner != "" && p.owner != token}
}

func (p *memPartition) change(c *Change) {
	g, ok := p.groups[c.Key]
	if c.Drop {
		if ok {
			p.setDue(g, Never)
			delete(p.groups, c.Key)
		}
		return
	}
	if !ok {
		g = &memGroup{key: c.Key, fields: make(map[string][]byte, len(c.Fields)), level: c.Level, due: Never, at: -1}
		p.groups[c.Key] = g
	}
	for _, f := range c.Fields {
		if f.Value == nil {
			delete(g.fields, f.Name)
		} else {
			g.fields[f.Name] = bytes.Clone(f.Value)
		}
	}
	if !c.SameDue {
		p.setDue(g, c.Due)
	}
}

func (p *memPartition) setDue(g *memGroup, due int64) {
	was, h := g.due, &p.due[g.level]
	g.due = due
	switch {
	case due == Never && g.at >= 0:
		heap.Remove(h, g.at)
	case due != Never && g.at < 0:
		heap.Push(h, g)
	case due != was && g.at >= 0:
		heap.Fix(h, g.at)
	}
}

// Load returns the fields of groups, by their keys, each sorted by name; a
// group that does not exist has none.
func (m *Memory) Load(_ context.Context, partition int32, keys []string) ([][]Field, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.partition(partition)
	out := make([][]Field, len(keys))
	for i, key := range keys {
		g, ok := p.groups[key]
		if !ok {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(g.fields)) {
			out[i] = append(out[i], Field{Name: name, Value: bytes.Clone(g.fields[name])})
		}
	}
	return out, nil
}

// Due returns at most limit keys of groups of a level whose due time is at most
// watermark, in order of (due, key), and the least due time of the level.
func (m *Memory) Due(_ context.Context, partition int32, level uint32, watermark int64, limit int) (keys []string, least int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := &m.partition(partition).due[level]
	least = Never
	if len(*due) > 0 {
		least = (*due)[0].due
	}
	var taken []*memGroup
	for len(*due) > 0 && len(taken) < limit && (*due)[0].due <= watermark {
		taken = append(taken, heap.Pop(due).(*memGroup))
	}
	for _, g := range taken {
		keys = append(keys, g.key)
		heap.Push(due, g)
	}
	return keys, least, nil
}

// Outbox returns at most limit entries behind a sequence number, in order.
func (m *Memory) Outbox(_ context.Context, partition int32, after int64, limit int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.partition(partition)
	i, _ := slices.BinarySearchFunc(p.outbox, after+1, bySeq)
	n := min(len(p.outbox)-i, limit)
	return slices.Clone(p.outbox[i : i+n]), nil
}

// Trim removes the outbox entries up to and including a sequence number, or
// fails with a RefusedError if token is not the owner's.
func (m *Memory) Trim(_ context.Context, partition int32, token string, upTo int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.partition(partition)
	if p.owner != token {
		return p.refuse("owner", token)
	}
	i, _ := slices.BinarySearchFunc(p.outbox, upTo+1, bySeq)
	clear(p.outbox[:i])
	p.outbox = p.outbox[i:]
	return nil
}

func bySeq(e Entry, seq int64) int {
	switch {
	case e.Seq < seq:
		return -1
	case e.Seq > seq:
		return 1
	default:
		return 0
	}
}

// dueHeap orders groups by (due, key), as a sorted set of Redis does.
type dueHeap []*memGroup

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].key < h[j].key
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *dueHeap) Push(v any) {
	g := v.(*memGroup)
	g.at = len(*h)
	*h = append(*h, g)
}

func (h *dueHeap) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	g.at = -1
	return g
}
