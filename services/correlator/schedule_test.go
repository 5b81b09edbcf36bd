package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/redistest"
	"github.com/stormbell/stormbell/services/internal/state"
)

// These tests try every schedule of a small scope: two owners of one partition
// of four records, each of which may fold one record or on to the end, lose the reply
// to a fold, publish, die between publishing and trimming, and commit the frontier, at any time,
// while the store falls back to any prefix of what it was told.

const (
	// depthEnv is how many things happen in a schedule; `make model` sets it.
	depthEnv = "STORMBELL_MODEL_DEPTH"
	// scheduleEnv is one schedule to repeat, as a failure names it.
	scheduleEnv = "STORMBELL_MODEL_SCHEDULE"

	// Depth 6 has more than 10^4 schedules, depth 8 more than 10^6; each step
	// multiplies them by six at least. Under the race detector five must do.
	depth          = 5
	leastSchedules = 1700
)

const scopeRules = `
title: A
id: rule-a
logsource: {product: test}
detection: {s: {action: a}, condition: s}
---
title: Two
id: two
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 2}}
`

// scopeLog is what the partition holds: two alerts in two buckets, the second
// of which needs an event of the first, and a watermark that closes the group.
func scopeLog(p *plan) []Record {
	l := &feed{p: p}
	l.detect("t", "two", "u", "e0", t0+2000, t0+2000)
	l.detect("t", "two", "u", "e1", t0+8000, t0+8000)
	l.detect("t", "two", "u", "e2", t0+12_000, t0+12_000)
	l.watermark(t0 + 10*3_600_000)
	return l.records
}

// choices is one schedule: at each place, which of how many things happened.
type choices struct {
	at, of []int
	n      int
}

func (c *choices) next(of int) int {
	if c.n == len(c.at) {
		c.at, c.of = append(c.at, 0), append(c.of, of)
	}
	c.of[c.n] = of
	c.n++
	return c.at[c.n-1]
}

// advance moves on to the next schedule, behind all that begin as this one did
// up to where it ended. It reports false where there is none.
func (c *choices) advance() bool {
	c.at, c.of = c.at[:c.n], c.of[:c.n]
	for c.n = 0; len(c.at) > 0; {
		last := len(c.at) - 1
		if c.at[last]++; c.at[last] < c.of[last] {
			return true
		}
		c.at, c.of = c.at[:last], c.of[:last]
	}
	return false
}

func (c *choices) String() string {
	var b strings.Builder
	for i, at := range c.at {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strconv.Itoa(at))
	}
	return b.String()
}

// chosen reads a schedule that a failure has named.
func chosen(t *testing.T, text string) *choices {
	t.Helper()
	c := new(choices)
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		require.NoError(t, err, "%s=%s", scheduleEnv, text)
		c.at, c.of = append(c.at, n), append(c.of, math.MaxInt)
	}
	return c
}

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

// A scope is what all schedules have in common.
type scope struct {
	t       *testing.T
	plan    *plan
	counts  *counts
	records []Record
	empty   func() Store
	// clean is the group at each position of a fold without a fault, alerts the
	// ids that the records below each offset add up to, bodies theirs.
	clean  map[state.Position][]state.Field
	alerts map[int64][]string
	bodies map[string]string
	key    string
	seen   map[string]int
	// defect spoils an owner, for the test of the test.
	defect func(*session)
}

func newScope(t *testing.T, empty func() Store) *scope {
	t.Helper()
	p := compile(t, modelConfig(), scopeRules)
	s := &scope{
		t: t, plan: p, counts: noCounts(t), records: scopeLog(p), empty: empty, seen: make(map[string]int),
		clean: make(map[state.Position][]state.Field), alerts: make(map[int64][]string), bodies: make(map[string]string),
	}
	s.reference()
	return s
}

// reference folds once without a fault.
func (s *scope) reference() {
	w := s.world()
	o := w.own()
	require.NotNil(s.t, o)
	items, err := o.f.decode(context.Background(), s.records[:1])
	require.NoError(s.t, err)
	s.key = items[0].key
	w.store.committed = func(at state.Position) { s.clean[at] = w.group() }
	var ids []string
	for range s.records {
		records, _, err := w.log.Fetch(context.Background(), TopicDetections, 0, o.next)
		require.NoError(s.t, err)
		require.NoError(s.t, o.batches(context.Background(), records))
		for w.step(o.publisher) {
		}
		for _, r := range w.log.all(TopicAlerts)[len(ids):] {
			ids = append(ids, string(r.Key))
			s.bodies[string(r.Key)] = string(r.Value)
		}
		s.alerts[o.next] = append([]string(nil), ids...)
	}
	require.Len(s.t, ids, 2)
	require.Empty(s.t, w.group(), "the watermark has closed the group")
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

// run is one schedule. It reports false where its last choice changed nothing:
// then it was another, shorter one.
func (s *scope) run(c *choices, depth int) (w *world, whole bool) {
	w = s.world()
	for range depth {
		if !w.act(c) {
			return w, false
		}
		if w.check(); len(w.problems) > 0 {
			return w, true
		}
	}
	w.settle()
	return w, true
}

// every tries all schedules of a depth and returns how many there are, and
// what is wrong in the first that fails.
func (s *scope) every(depth int) (n int, wrong string) {
	for c := new(choices); ; {
		w, whole := s.run(c, depth)
		if whole {
			n++
		}
		if len(w.problems) > 0 {
			return n, fmt.Sprintf("repeat with %s=%s\n%s\n%s", scheduleEnv, c, strings.Join(w.did, "\n"), strings.Join(w.problems, "\n"))
		}
		if !c.advance() {
			return n, ""
		}
	}
}

func inMemory() Store { return state.NewMemory() }

// TestEverySchedule tries them all on the store in memory.
func TestEverySchedule(t *testing.T) {
	long(t)
	t.Parallel() // the one on Redis mostly waits
	s := newScope(t, inMemory)
	if text := os.Getenv(scheduleEnv); text != "" {
		c := chosen(t, text)
		w, _ := s.run(c, len(c.at))
		t.Log(strings.Join(w.did, "\n"))
		require.Empty(t, w.problems)
		return
	}
	depth, least := depth, leastSchedules
	if text := os.Getenv(depthEnv); text != "" {
		var err error
		depth, err = strconv.Atoi(text)
		require.NoError(t, err)
		least *= int(math.Pow(6, float64(depth-5)))
	}
	began := time.Now()
	n, wrong := s.every(depth)
	require.Empty(t, wrong)
	t.Logf("%d schedules of %d steps in %s: %v", n, depth, time.Since(began).Round(time.Millisecond), s.seen)
	require.GreaterOrEqual(t, n, least)
	happened(t, s.seen, "own", "fold", "fold, reply lost", "fold, reply lost, again", "publish", "publish, die", "commit", "rollback", "owner ended", "refused")
}

// TestEveryScheduleOnRedis tries those of a smaller depth on the real scripts.
func TestEveryScheduleOnRedis(t *testing.T) {
	long(t)
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	admin := server.Client(t)
	cfg := state.DefaultConfig()
	cfg.Addrs = []string{server.Addr}
	store, err := state.OpenRedis(t.Context(), cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	s := newScope(t, func() Store {
		require.NoError(t, admin.FlushDB(t.Context()).Err())
		return store
	})
	n, wrong := s.every(depth)
	require.Empty(t, wrong)
	t.Logf("%d schedules of %d steps: %v", n, depth, s.seen)
	require.GreaterOrEqual(t, n, leastSchedules)
}

// TestEveryScheduleNotices seeds defects into the protocol: all schedules of a
// small depth find each.
func TestEveryScheduleNotices(t *testing.T) {
	long(t)
	for name, tc := range map[string]struct {
		empty  func() Store
		defect func(*session)
		want   string
	}{
		"a write is not compared with what is there": {empty: func() Store { return &unfenced{Store: state.NewMemory()} }, want: "is not the fold"},
		"the frontier does not wait for the outbox": {defect: func(s *session) {
			s.publisher.acked = math.MaxInt64 - 1
		}, want: "not acknowledged"},
		"what is new counts as said before": {defect: func(s *session) { s.f.silent = math.MaxInt64 }, want: "neither in the outbox"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScope(t, inMemory)
			if tc.empty != nil {
				s.empty = tc.empty
			}
			s.defect = tc.defect
			_, wrong := s.every(5)
			require.Contains(t, wrong, tc.want)
			text, _, _ := strings.Cut(strings.TrimPrefix(wrong, "repeat with "+scheduleEnv+"="), "\n")
			c := chosen(t, text)
			w, _ := s.run(c, len(c.at))
			require.Contains(t, strings.Join(w.problems, "\n"), tc.want, "the schedule repeats it")
		})
	}
}

// unfenced takes every write, whoever it comes from and whatever it was
// computed from.
type unfenced struct{ Store }

func (s *unfenced) Commit(ctx context.Context, partition int32, b *state.Batch) error {
	err := s.Store.Commit(ctx, partition, b)
	if refused, ok := errors.AsType[*state.RefusedError](err); ok && b.Token != "nobody" {
		part, failed := s.Acquire(ctx, partition, b.Token)
		if failed != nil {
			return failed
		}
		forced := cloneBatch(b)
		forced.Prev = refused.Applied
		if !forced.Prev.Less(forced.Next) {
			forced.Next = state.Position{Offset: forced.Prev.Offset, Step: forced.Prev.Step + 1}
		}
		for i := range forced.Outbox {
			forced.Outbox[i].Seq = part.Seq + 1 + int64(i)
		}
		return s.Store.Commit(ctx, partition, forced)
	}
	return err
}
