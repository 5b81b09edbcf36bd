package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"time"

	"github.com/stretchr/testify/require"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/state"
)

// prefixes is a store that can fall back to any prefix of the calls it took.
type prefixes struct {
	Store
	empty   func() Store
	history []func(Store)
	// Of the next commit: nobody learns of it, or who did it hears nothing and
	// does it again.
	dropReply, again bool
	// committed sees every position that the store reaches.
	committed func(state.Position)
}

func (s *prefixes) Acquire(ctx context.Context, partition int32, token string) (state.Partition, error) {
	s.history = append(s.history, func(m Store) { _, _ = m.Acquire(ctx, partition, token) })
	return s.Store.Acquire(ctx, partition, token)
}

func (s *prefixes) Commit(ctx context.Context, partition int32, b *state.Batch) error {
	c := cloneBatch(b)
	err := s.Store.Commit(ctx, partition, b)
	if err == nil && s.again {
		s.again = false
		err = s.Store.Commit(ctx, partition, cloneBatch(c))
	}
	if err == nil {
		s.committed(b.Next)
		s.history = append(s.history, func(m Store) { _ = m.Commit(ctx, partition, c) })
		if s.dropReply {
			s.dropReply = false
			return errReply
		}
	}
	return err
}

func (s *prefixes) Trim(ctx context.Context, partition int32, token string, upTo int64) error {
	s.history = append(s.history, func(m Store) { _ = m.Trim(ctx, partition, token, upTo) })
	return s.Store.Trim(ctx, partition, token, upTo)
}

func (s *prefixes) rollback(n int) {
	s.Store = s.empty()
	s.history = s.history[:n]
	for _, f := range s.history {
		f(s.Store)
	}
}

// world is one schedule's log, store and owners.
type world struct {
	*scope
	log      *memLog
	store    *prefixes
	owners   [2]*session
	fresh    *session // was opened, and nothing has happened since
	die      bool     // where a publisher has published
	folds    func(*Record)
	problems []string
	did      []string
}

func (s *scope) world() *world {
	w := &world{scope: s, log: newMemLog(1)}
	w.store = &prefixes{Store: s.empty(), empty: s.empty, committed: func(state.Position) {}}
	w.log.fetch, w.log.onCommit = 1, func(place, int64) {}
	w.log.died = func() {}
	for _, r := range s.records {
		w.log.append(TopicDetections, 0, []bus.Message{{Key: r.Key, Value: r.Value, Headers: r.Headers}})
	}
	w.log.onCommit = func(p place, offset int64) {
		said := w.said()
		for _, id := range w.alerts[offset] {
			if !said[id] {
				w.problems = append(w.problems, fmt.Sprintf("%d is committed and alert %s is not acknowledged", offset, id))
			}
		}
	}
	return w
}

func (w *world) said() map[string]bool {
	out := make(map[string]bool)
	for _, r := range w.log.all(TopicAlerts) {
		out[string(r.Key)] = true
	}
	return out
}

func (w *world) group() []state.Field {
	got, err := w.store.Load(context.Background(), 0, []string{w.key})
	require.NoError(w.t, err)
	return got[0]
}

func (w *world) own() *session {
	c := &correlator{
		cfg: modelConfig(), reader: w.log, producer: w.log, store: w.store, plans: always{w.plan}, tracer: tracenoop.Tracer{}, counts: w.counts,
		fault: w.fault, log: slog.New(slog.DiscardHandler), clock: func() time.Time { return w.log.now }, events: 1,
		share: math.MaxInt64, owned: ownership.New[progress](),
	}
	c.owned.Enter(0, errOpening)
	// Where a fetch brings several records, each is computed while the one before
	// is written.
	c.cfg.BatchRecords = 1
	o, err := c.open(context.Background(), w.log.claim(TopicDetections, 0))
	require.NoError(w.t, err)
	if err := o.finish(context.Background()); err != nil {
		require.True(w.t, state.IsRefused(err), "%v", err)
		return nil
	}
	if w.defect != nil {
		w.defect(o)
	}
	return o
}

func (w *world) fault(p Point, r *Record) error {
	if p == PointFold && w.folds != nil {
		w.folds(r)
	}
	if p == PointPublished && w.die {
		return errors.New("crash")
	}
	return nil
}

// step publishes once and reports whether anything was.
func (w *world) step(p *publisher) bool {
	moved, err := p.step(context.Background())
	return moved == nil && err == nil
}

// act does one of what may happen next and reports false where it changes
// nothing.
func (w *world) act(c *choices) bool {
	const perOwner = 8
	owners := 1
	if w.owners[0] != nil || w.owners[1] != nil {
		owners = 2 // before, one is as good as the other
	}
	n := c.next(owners*perOwner + len(w.store.history))
	if n >= owners*perOwner {
		calls := n - owners*perOwner
		w.did = append(w.did, fmt.Sprintf("the store falls back to its first %d of %d calls", calls, len(w.store.history)))
		w.seen["rollback"]++
		w.fresh = nil
		w.store.rollback(calls)
		return true
	}
	who, what := n/perOwner, n%perOwner
	names := [perOwner]string{"own", "fold", "fold, reply lost", "fold, reply lost, again", "publish", "publish, die", "commit", "fold on"}
	w.did = append(w.did, fmt.Sprintf("%c: %s", 'A'+rune(who), names[what]))
	w.seen[names[what]]++
	fresh := w.fresh
	w.fresh = nil
	if what == 0 {
		if fresh != nil && fresh == w.owners[who] {
			return false
		}
		w.owners[who] = w.own()
		w.fresh = w.owners[who]
		return true
	}
	if w.owners[who] == nil {
		return false
	}
	return w.acts(who, what)
}

func (w *world) acts(who, what int) bool {
	o, ctx := w.owners[who], context.Background()
	var err error
	switch what {
	case 1, 2, 3, 7:
		// A reply that is lost has the next record computed ahead.
		w.log.fetch = [...]int{1: 1, 2: 2, 3: 1, 7: len(w.records)}[what]
		defer func() { w.log.fetch = 1 }()
		records, _, failed := w.log.Fetch(ctx, TopicDetections, 0, o.next)
		require.NoError(w.t, failed)
		if len(records) == 0 {
			return false
		}
		w.store.dropReply, w.store.again = what == 2, what == 3
		err = o.batches(ctx, records)
		w.store.dropReply, w.store.again = false, false
	case 4, 5:
		w.die = what == 5
		moved, failed := o.publisher.step(ctx)
		w.die = false
		if moved != nil {
			return false
		}
		err = failed
	case 6:
		before := o.committed
		if err = o.commit(ctx); err == nil && o.committed == before {
			return false
		}
	}
	if err != nil {
		w.seen["owner ended"]++
		if state.IsRefused(err) {
			w.seen["refused"]++
		}
		o.probation.leave(ctx, err)
		w.owners[who] = nil
	}
	return true
}

// check holds the store and the log to the promises, at any moment: the state
// is a fold of a prefix, and what that has said is in the outbox or
// acknowledged, under one body.
func (w *world) check() {
	part := w.look()
	if part == state.Nowhere {
		return
	}
	if got := w.group(); !reflect.DeepEqual(got, w.clean[part]) {
		w.problems = append(w.problems, fmt.Sprintf("the state at %s is not the fold of the records below", part))
	}
	there := w.said()
	entries, err := w.store.Outbox(context.Background(), 0, 0, 100)
	require.NoError(w.t, err)
	for _, e := range entries {
		m, ok := decodeMessage(e.Body)
		require.True(w.t, ok)
		there[string(m.key)] = true
	}
	for _, id := range w.alerts[part.Offset] {
		if !there[id] {
			w.problems = append(w.problems, fmt.Sprintf("the state is at %s and alert %s is neither in the outbox nor acknowledged", part, id))
		}
	}
}

// look is where the store is. It asks the way that changes nothing: a commit
// that nobody's token allows.
func (w *world) look() state.Position {
	err := w.store.Store.Commit(context.Background(), 0, &state.Batch{Token: "nobody", Prev: state.Nowhere, Next: state.Position{}})
	refused, ok := errors.AsType[*state.RefusedError](err)
	require.True(w.t, ok, "%v", err)
	return refused.Applied
}

// settle lets one last owner come to rest and holds the alerts to those of the
// run without faults.
func (w *world) settle() {
	ctx := context.Background()
	o := w.own()
	require.NotNil(w.t, o)
	w.log.fetch = len(w.records)
	for int(o.next) < len(w.records) {
		records, _, err := w.log.Fetch(ctx, TopicDetections, 0, o.next)
		require.NoError(w.t, err)
		require.NoError(w.t, o.batches(ctx, records))
	}
	for w.step(o.publisher) {
	}
	require.NoError(w.t, o.commit(ctx))
	end := int64(len(w.records))
	// Of a store that lost everything when all was committed nothing is to be read.
	nothing := w.look() == state.Nowhere && o.f.silent == end
	if w.look() != (state.Position{Offset: end}) && !nothing || w.group() != nil {
		w.problems = append(w.problems, "the state is not that of all records")
	}
	said := w.said()
	for id := range w.bodies {
		if !said[id] {
			w.problems = append(w.problems, "missing "+id)
		}
	}
	for _, r := range w.log.all(TopicAlerts) {
		if body, ok := w.bodies[string(r.Key)]; !ok {
			w.problems = append(w.problems, "spurious "+string(r.Key))
		} else if body != string(r.Value) {
			w.problems = append(w.problems, "a second body of "+string(r.Key))
		}
	}
}
