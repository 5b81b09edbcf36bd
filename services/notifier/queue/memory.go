package queue

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"slices"
	"strconv"
	"sync"
)

// Memory keeps queues in the process. It is empty at start, so that its owner
// rebuilds it from the log. Its methods are safe for concurrent use.
type Memory struct {
	mu     sync.Mutex
	shards map[int]*memShard
}

type memShard struct {
	owner   string
	applied int64
	seq     int64
	depth   int64
	lines   map[string]*line
	alerts  map[string]*memAlert
	open    []*memAlert // by WrittenMS as far as the log is; finished ones are skipped
	outbox  []Entry
}

type memAlert struct {
	body      []byte
	writtenMS int64
	left      int
}

// line is the virtual queue of one endpoint: pending and leased tasks.
type line struct {
	tasks map[string]*memTask
	due   dueHeap
	// closedMS is when the queue opens again.
	closedMS int64
}

type memTask struct {
	alert string
	dueMS int64
	fence string
	state []byte
	at    int
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{shards: make(map[int]*memShard)} }

func (m *Memory) shard(partition int) *memShard {
	s, ok := m.shards[partition]
	if !ok {
		s = &memShard{applied: Nowhere, lines: make(map[string]*line), alerts: make(map[string]*memAlert)}
		m.shards[partition] = s
	}
	return s
}

// Flush loses everything.
func (m *Memory) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.shards)
}

// Acquire makes token the owner of a shard and returns its applied offset, or
// Nowhere.
func (m *Memory) Acquire(_ context.Context, partition int, token string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(partition)
	s.owner = token
	return s.applied, nil
}

func (s *memShard) refuse(token string) error {
	return &RefusedError{Foreign: s.owner != "" && s.owner != token, Applied: s.applied}
}

// Create adds the tasks of a batch and moves the applied offset, all or
// nothing. A task that exists stays as it is. A batch that was applied already,
// and whose reply was lost, succeeds. Errors may be a RefusedError.
func (m *Memory) Create(_ context.Context, partition int, b *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(partition)
	switch {
	case s.owner != b.Token:
		return s.refuse(b.Token)
	case s.applied == b.Next:
		return nil
	case s.applied != b.Prev:
		return s.refuse(b.Token)
	}
	for i := range b.Messages {
		s.add(&b.Messages[i])
	}
	s.applied = b.Next
	return nil
}

func (s *memShard) add(msg *Message) {
	if len(msg.Tasks) == 0 {
		return
	}
	a, ok := s.alerts[msg.Alert]
	if !ok {
		a = &memAlert{body: bytes.Clone(msg.Body), writtenMS: msg.WrittenMS}
		s.alerts[msg.Alert] = a
		s.open = append(s.open, a)
	}
	for _, t := range msg.Tasks {
		l, ok := s.lines[t.Endpoint]
		if !ok {
			l = &line{tasks: make(map[string]*memTask)}
			s.lines[t.Endpoint] = l
		}
		if _, ok := l.tasks[msg.Alert]; ok {
			continue
		}
		task := &memTask{alert: msg.Alert, dueMS: t.DueMS, state: bytes.Clone(t.State)}
		l.tasks[msg.Alert] = task
		heap.Push(&l.due, task)
		a.left++
		s.depth++
	}
}

// Claim leases due tasks, those of the longest waiting endpoints first.
// Errors may be a RefusedError.
func (m *Memory) Claim(_ context.Context, partition int, r *Request) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(partition)
	if s.owner != r.Token || s.applied < r.Applied {
		return Claim{}, s.refuse(r.Token)
	}
	rooms := make(map[string]int, len(r.Rooms))
	for _, room := range r.Rooms {
		rooms[room.Endpoint] = room.Max
		if l := s.lines[room.Endpoint]; l != nil && room.NotBeforeMS > r.NowMS {
			l.closedMS = room.NotBeforeMS
		}
	}
	var out Claim
	for _, name := range s.ready(r.NowMS) {
		room, ok := rooms[name]
		if !ok {
			room = r.Default
		}
		l := s.lines[name]
		for ; room > 0 && len(out.Tasks) < r.Limit && l.due[0].dueMS <= r.NowMS; room-- {
			t := l.due[0]
			t.fence, t.dueMS = r.Fence, r.LeaseMS
			heap.Fix(&l.due, 0)
			out.Tasks = append(out.Tasks, Leased{
				Endpoint: name, Alert: t.alert, Fence: t.fence,
				State: bytes.Clone(t.state), Body: bytes.Clone(s.alerts[t.alert].body),
			})
		}
	}
	out.Depth = s.depth
	for _, l := range s.lines {
		if next := l.nextMS(); next > r.NowMS && (out.NextMS == 0 || next < out.NextMS) {
			out.NextMS = next
		}
	}
	out.OldestMS = s.oldestMS()
	return out, nil
}

func (l *line) nextMS() int64 { return max(l.due[0].dueMS, l.closedMS) }

// ready returns the endpoints that may be served, the longest waiting first.
func (s *memShard) ready(now int64) []string {
	var names []string
	for name, l := range s.lines {
		if l.nextMS() <= now {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.lines[a].nextMS(), s.lines[b].nextMS()), cmp.Compare(a, b))
	})
	return names
}

func (s *memShard) oldestMS() int64 {
	for len(s.open) > 0 && s.open[0].left == 0 {
		s.open[0] = nil
		s.open = s.open[1:]
	}
	var oldest int64
	if len(s.open) > 0 {
		oldest = s.open[0].writtenMS
	}
	return oldest
}

// Settle ends a lease: the attempt's record and when the task is next due, or
// that it is done, are written in one step. It is the fence that must be
// current, not the owner: a request that was under way while its shard moved
// still counts. Errors may be ErrStale or a RefusedError.
func (m *Memory) Settle(_ context.Context, partition int, t *Settlement) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(partition)
	if s.applied < t.Applied {
		return s.refuse(s.owner)
	}
	l := s.lines[t.Endpoint]
	if l == nil || l.tasks[t.Alert] == nil || l.tasks[t.Alert].fence != t.Fence {
		return ErrStale
	}
	if t.Record != nil {
		s.seq++
		s.outbox = append(s.outbox, Entry{ID: strconv.FormatInt(s.seq, 10), Alert: t.Alert, Record: bytes.Clone(t.Record)})
	}
	task := l.tasks[t.Alert]
	task.fence = ""
	if t.DueMS != 0 {
		task.dueMS = t.DueMS
		heap.Fix(&l.due, task.at)
		if t.State != nil {
			task.state = bytes.Clone(t.State)
		}
		return nil
	}
	heap.Remove(&l.due, task.at)
	delete(l.tasks, t.Alert)
	if len(l.tasks) == 0 {
		delete(s.lines, t.Endpoint)
	}
	s.depth--
	if a := s.alerts[t.Alert]; a.left == 1 {
		a.left = 0
		a.body = nil
		delete(s.alerts, t.Alert)
	} else {
		a.left--
	}
	return nil
}

// Outbox returns the first entries that were not trimmed.
func (m *Memory) Outbox(_ context.Context, partition, limit int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(partition)
	return slices.Clone(s.outbox[:min(limit, len(s.outbox))]), nil
}

// Trim drops the outbox up to and with an entry. An owner that is no longer,
// or an entry that is not there, changes nothing and fails with a
// RefusedError or ErrStale.
func (m *Memory) Trim(_ context.Context, partition int, token, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(partition)
	if s.owner != token {
		return s.refuse(token)
	}
	i := slices.IndexFunc(s.outbox, func(e Entry) bool { return e.ID == id })
	if i < 0 {
		return ErrStale
	}
	s.outbox = slices.Clone(s.outbox[i+1:])
	return nil
}

// dueHeap orders tasks by when they are due; ties by alert.
type dueHeap []*memTask

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].dueMS, h[j].dueMS), cmp.Compare(h[i].alert, h[j].alert)) < 0
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *dueHeap) Push(x any) {
	t := x.(*memTask) //nolint:forcetypeassert // only container/heap calls it
	t.at = len(*h)
	*h = append(*h, t)
}

func (h *dueHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.at = -1
	return t
}
