package correlator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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

	// Each step multiplies schedules by nine or so. Under the race detector five
	// must do.
	depth = 5
)

// leastSchedules are ten thousand of depth 6 and a million of depth 8.
func leastSchedules(depth int) int { return int(math.Pow10(depth - 2)) }

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
	// given is how many are the same in all schedules.
	given int
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
	for c.n = 0; len(c.at) > c.given; {
		last := len(c.at) - 1
		if c.at[last]++; c.at[last] < c.of[last] {
			return true
		}
		c.at, c.of = c.at[:last], c.of[:last]
	}
	return false
}

// begin is the first schedule with the given choices.
func begin(given []int) *choices {
	c := &choices{at: slices.Clone(given), given: len(given)}
	for range given {
		c.of = append(c.of, math.MaxInt)
	}
	return c
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
	var all []int
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		require.NoError(t, err, "%s=%s", scheduleEnv, text)
		all = append(all, n)
	}
	return begin(all)
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

// every tries all schedules of a depth that begin with what is given, and
// returns how many there are, and what is wrong in the first that fails.
func (s *scope) every(depth int, given ...int) (n int, wrong string) {
	for c := begin(given); ; {
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

// beginnings are all schedules of a depth in which every step changes something.
func (s *scope) beginnings(depth int) (all [][]int) {
	for c := new(choices); ; {
		if _, whole := s.run(c, depth); whole {
			all = append(all, slices.Clone(c.at))
		}
		if !c.advance() {
			return all
		}
	}
}

// everyInParallel does what every does on all processors. It says where it is
// once a minute.
func everyInParallel(t *testing.T, depth int, empty func() Store) (n int, seen map[string]int) {
	const shared = 3 // steps that one goroutine's share have in common
	beginnings := newScope(t, empty).beginnings(min(shared, depth))
	var (
		mu        sync.Mutex
		taken     int
		said      = time.Now()
		processor = func(t *testing.T) {
			t.Parallel()
			s := newScope(t, empty)
			for {
				mu.Lock()
				if taken == len(beginnings) {
					for what, times := range s.seen {
						seen[what] += times
					}
					mu.Unlock()
					return
				}
				given := beginnings[taken]
				taken++
				mu.Unlock()
				some, wrong := s.every(depth, given...)
				require.Empty(t, wrong)
				mu.Lock()
				if n += some; time.Since(said) > time.Minute {
					said = time.Now()
					t.Logf("%d schedules, %d of %d beginnings", n, taken, len(beginnings))
				}
				mu.Unlock()
			}
		}
	)
	seen = make(map[string]int)
	t.Run("processors", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(i), processor)
		}
	})
	return n, seen
}

func inMemory() Store { return state.NewMemory() }

// TestEverySchedule tries them all on the store in memory.
func TestEverySchedule(t *testing.T) {
	long(t)
	t.Parallel() // the one on Redis mostly waits
	if text := os.Getenv(scheduleEnv); text != "" {
		s, c := newScope(t, inMemory), chosen(t, text)
		w, _ := s.run(c, len(c.at))
		t.Log(strings.Join(w.did, "\n"))
		require.Empty(t, w.problems)
		return
	}
	depth := depth
	if text := os.Getenv(depthEnv); text != "" {
		var err error
		depth, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	began := time.Now()
	n, seen := everyInParallel(t, depth, inMemory)
	t.Logf("%d schedules of %d steps in %s: %v", n, depth, time.Since(began).Round(time.Millisecond), seen)
	require.GreaterOrEqual(t, n, leastSchedules(depth))
	happened(t, seen, "own", "fold", "fold, reply lost", "fold, reply lost, again", "publish", "publish, die", "commit", "rollback", "owner ended", "refused")
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
	require.GreaterOrEqual(t, n, leastSchedules(depth))
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
