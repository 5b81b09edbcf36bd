package correlator

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/state"
)

// local is what a folder has in place of a store where nothing is to survive
// it. All groups stay decoded, detections come as they are, and what is said
// leaves as it is: what decides is the same, and none of it is encoded.
type local struct {
	groups map[localName]*group
	values []byte     // scratch
	said   []said     // since taken
	due    *dueGroups // once the watermark moves; see closing
	brief  bool       // alerts are; see Evaluation.Brief
}

// localName is a group among all of one plan: what stateKey hashes.
type localName struct {
	of     *correlation
	tenant string
	values string // that of a single one, else each behind its length
}

// said is an alert, or another message.
type said struct {
	offset int64
	alert  *alertv1.Alert
	msg    *message
}

func newLocal() *local { return &local{groups: make(map[localName]*group)} }

// objects are what events became where there is no log.
type objects struct {
	alerts     []*alertv1.Alert
	detections []detected
}

// take takes a detection that needs no look at how it is encoded: one that is
// far from too large, and of text.
func (o *objects) take(d *detected) bool {
	if o == nil || !utf8.ValidString(d.of.id) || !utf8.ValidString(d.of.source) {
		return false
	}
	size := len(d.of.raw) + len(d.of.id)
	for _, v := range d.group {
		size += len(v)
	}
	for _, v := range d.values {
		size += len(v)
	}
	if size > maxDetection/4 || len(d.parents) > 0 {
		return false
	}
	o.detections = append(o.detections, *d)
	return true
}

// extent is how much there is, and cut makes it so again.
func (o *objects) extent() extent {
	if o == nil {
		return extent{}
	}
	return extent{alerts: len(o.alerts), detections: len(o.detections)}
}

func (o *objects) cut(to extent) {
	if o != nil {
		o.alerts, o.detections = o.alerts[:to.alerts], o.detections[:to.detections]
	}
}

// take returns what has been said since it was asked last.
func (l *local) take() []said {
	out := l.said
	l.said = nil
	return out
}

// group is the one of that name, nil where there is none.
func (l *local) group(of *correlation, tenant string, group []string) *group {
	return l.groups[localName{of, tenant, string(l.valuesOf(group))}]
}

// valuesOf are the values in a group's name.
func (l *local) valuesOf(group []string) []byte {
	b := l.values[:0]
	if len(group) == 1 { // as all of its correlation have
		b = append(b, group[0]...)
	} else {
		for _, v := range group {
			b = protowire.AppendString(b, v)
		}
	}
	l.values = b
	return b
}

// foldLocal folds items, each whole or, with an error, not to be folded again.
func (f *folder) foldLocal(ctx context.Context, items []item) error {
	s := &step{f: f}
	for i := range items {
		if err := s.try(ctx, &items[i]); err != nil {
			return err
		}
		f.applied = state.Position{Offset: items[i].rec.Offset + 1}
	}
	s.written()
	return nil
}

// group is that of an item, nil where it is new.
func (f *folder) group(it *item) *group {
	if f.local == nil {
		return f.cache.get(it.key)
	}
	g := f.local.group(it.cor, it.det.GetTenant(), it.det.GetGroup())
	if g == nil || !g.counted {
		it.key = stateKey(it.det, it.cor.Shadow)
		if key := f.tallyKey(it); f.tallies[key] == nil {
			f.tallies[key] = newTally(key)
		}
	}
	return g
}

// put adds a group that is new.
func (f *folder) put(g *group, it *item) {
	if f.local != nil {
		g.win.Unstored()
		g.place = -1
		g.local = localName{it.cor, it.det.GetTenant(), string(f.local.valuesOf(it.det.GetGroup()))}
		f.local.groups[g.local] = g
	}
	f.cache.put(g)
}

// written is write without a store.
func (s *step) written() {
	l := s.f.local
	for _, g := range s.dirty {
		g.dirty, g.stored, g.name = false, true, nil
		empty := g.win.Empty()
		if empty {
			s.f.cache.remove(g)
			delete(l.groups, g.local)
		}
		if l.due != nil {
			l.due.moved(g, empty)
		}
	}
	for _, t := range s.tallies {
		t.dirty = false
	}
}

// dueGroups returns the keys of groups of a level that are due at a watermark,
// in the order of a store, and the least due time that is left where none is.
func (f *folder) dueGroups(ctx context.Context, level uint32, w int64) (keys []string, least int64, err error) {
	if f.local == nil {
		return f.store.Due(ctx, f.partition, level, w, f.cfg.BatchRecords) //nolint:wrapcheck // the store says what failed
	}
	if f.local.due == nil {
		f.local.due = new(dueGroups)
		for _, g := range f.local.groups {
			f.local.due.moved(g, false)
		}
	}
	keys, least = f.local.due.first(level, w)
	return keys, least, nil
}

// dueGroups are groups in the order in which the watermark reaches them.
type dueGroups struct{ levels [state.MaxLevel + 1]dueHeap }

// dueAtOnce is how many groups are looked up at a time.
const dueAtOnce = 256

func (d *dueGroups) first(level uint32, w int64) (keys []string, least int64) {
	h := &d.levels[level]
	var due []*group
	for len(*h) > 0 && (*h)[0].due <= w && len(due) < dueAtOnce {
		due = append(due, heap.Pop(h).(*group))
	}
	for _, g := range due {
		keys = append(keys, g.key)
		heap.Push(h, g)
	}
	if len(*h) == 0 {
		return keys, math.MaxInt64
	}
	return keys, (*h)[0].due
}

// moved takes a group whose due time may have changed, or that is gone.
func (d *dueGroups) moved(g *group, gone bool) {
	h := &d.levels[g.spec.Level]
	g.due = g.next()
	switch {
	case gone && g.place >= 0:
		heap.Remove(h, g.place)
	case gone:
	case g.place < 0:
		heap.Push(h, g)
	default:
		heap.Fix(h, g.place)
	}
}

// dueHeap is a heap by due time, then key.
type dueHeap []*group

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].due, h[j].due), cmp.Compare(h[i].key, h[j].key)) < 0
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	g := x.(*group) //nolint:forcetypeassert // of this package alone
	g.place = len(*h)
	*h = append(*h, g)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	(*h)[last] = nil
	*h, g.place = (*h)[:last], -1
	return g
}
