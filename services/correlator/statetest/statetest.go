// Package statetest holds every store of stage correlate to the same
// behaviour. A store that passes may stand behind the correlator; it says
// nothing about speed or about what survives a restart.
package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/internal/state"
)

// Fixture is a store that is empty when a test gets it, and what can happen
// to it.
type Fixture struct {
	Store correlator.Store
	// Save returns a function that takes the store back to where it is now,
	// as a failover or a truncated append-only file does.
	Save func() (restore func())
	// Flush loses everything.
	Flush func()
}

// Run runs the suite. open is called once per test.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, *harness)
	}{
		{"empty at first", testEmpty},
		{"commit and load", testCommit},
		{"fields are set and removed", testFields},
		{"compare and set", testCompareAndSet},
		{"steps of one offset", testSteps},
		{"lost reply", testLostReply},
		{"zombie owner", testZombie},
		{"partitions are apart", testPartitions},
		{"outbox is trimmed up to a sequence", testOutbox},
		{"outbox sequence has no gaps", testSequence},
		{"due index is bounded and ordered", testDue},
		{"each level has a due index of its own", testLevels},
		{"tail lost", testTailLost},
		{"all lost", testAllLost},
		{"bad batches change nothing", testBadBatches},
		{"hostile bytes stay in their place", testHostile},
		{"large batch", testLarge},
		{"two owners at once", testTwoOwners},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, &harness{Fixture: open(t), t: t})
		})
	}
}

const part = int32(3)

type harness struct {
	Fixture
	t *testing.T
}

func (h *harness) acquire(token string) state.Partition {
	h.t.Helper()
	p, err := h.Store.Acquire(h.t.Context(), part, token)
	require.NoError(h.t, err)
	return p
}

func (h *harness) commit(b *state.Batch) {
	h.t.Helper()
	require.NoError(h.t, h.Store.Commit(h.t.Context(), part, b))
}

// refused demands that a batch is refused for a reason.
func (h *harness) refused(b *state.Batch, reason string, applied state.Position, foreign bool) {
	h.t.Helper()
	h.refusal(h.Store.Commit(h.t.Context(), part, b), reason, applied, foreign)
}

func (h *harness) refusal(err error, reason string, applied state.Position, foreign bool) {
	h.t.Helper()
	var r *state.RefusedError
	require.ErrorAs(h.t, err, &r)
	require.Equal(h.t, state.RefusedError{Reason: reason, Applied: applied, Foreign: foreign}, *r)
}

func (h *harness) load(key string) map[string]string {
	h.t.Helper()
	got, err := h.Store.Load(h.t.Context(), part, []string{key})
	require.NoError(h.t, err)
	require.Len(h.t, got, 1)
	fields := make(map[string]string)
	for _, f := range got[0] {
		fields[f.Name] = string(f.Value)
	}
	return fields
}

func (h *harness) seqs(after int64, limit int) []int64 {
	h.t.Helper()
	entries, err := h.Store.Outbox(h.t.Context(), part, after, limit)
	require.NoError(h.t, err)
	seqs := []int64{}
	for _, e := range entries {
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

func at(offset int64) state.Position { return state.Position{Offset: offset} }

func set(key string, due int64, pairs ...string) state.Change {
	c := state.Change{Key: key, Due: due}
	for i := 0; i < len(pairs); i += 2 {
		c.Fields = append(c.Fields, state.Field{Name: pairs[i], Value: []byte(pairs[i+1])})
	}
	return c
}

func entry(seq, offset int64) state.Entry {
	return state.Entry{Seq: seq, Offset: offset, Body: fmt.Appendf(nil, "body %d", seq)}
}

func testEmpty(t *testing.T, h *harness) {
	p := h.acquire("a")
	require.Equal(t, state.Nowhere, p.Applied)
	require.Zero(t, p.Seq)
	require.Empty(t, p.Meta)
	require.Equal(t, int64(state.Never), p.Due)
	require.Empty(t, h.load("none"))
	require.Empty(t, h.seqs(0, 10))
	keys, least, err := h.Store.Due(t.Context(), part, 0, 1<<50, 10)
	require.NoError(t, err)
	require.Empty(t, keys)
	require.Equal(t, int64(state.Never), least)
}

func testCommit(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{
		Token: "a", Prev: state.Nowhere, Next: at(10), Meta: []byte("meta\x00\xff"),
		Changes: []state.Change{set("g1", 500, "meta", "m1", "p0", "x"), set("g2", state.Never, "meta", "m2")},
		Outbox:  []state.Entry{entry(1, 4), entry(2, 9)},
	})
	p := h.acquire("b")
	require.Equal(t, state.Partition{Applied: at(10), Meta: []byte("meta\x00\xff"), Seq: 2, First: 1, Due: 500}, p)
	require.Equal(t, map[string]string{"meta": "m1", "p0": "x"}, h.load("g1"))
	require.Equal(t, map[string]string{"meta": "m2"}, h.load("g2"))
	got, err := h.Store.Outbox(t.Context(), part, 0, 10)
	require.NoError(t, err)
	require.Equal(t, []state.Entry{entry(1, 4), entry(2, 9)}, got)

	many, err := h.Store.Load(t.Context(), part, []string{"g2", "none", "g1"})
	require.NoError(t, err)
	require.Len(t, many, 3)
	require.Equal(t, []state.Field{{Name: "meta", Value: []byte("m2")}}, many[0])
	require.Empty(t, many[1])
	require.Equal(t, []state.Field{{Name: "meta", Value: []byte("m1")}, {Name: "p0", Value: []byte("x")}}, many[2])
}

func testFields(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(1), Changes: []state.Change{set("g", 7, "a", "1", "b", "2", "c", "")}})
	require.Equal(t, map[string]string{"a": "1", "b": "2", "c": ""}, h.load("g"), "an empty value is a value")
	change := set("g", 9, "b", "3", "d", "4")
	change.Fields = append(change.Fields, state.Field{Name: "a"}, state.Field{Name: "missing"})
	h.commit(&state.Batch{Token: "a", Prev: at(1), Next: at(2), Changes: []state.Change{change}})
	require.Equal(t, map[string]string{"b": "3", "c": "", "d": "4"}, h.load("g"))
	h.commit(&state.Batch{Token: "a", Prev: at(2), Next: at(3), Changes: []state.Change{{Key: "g", Drop: true}, {Key: "never was", Drop: true}}})
	require.Empty(t, h.load("g"))
	require.Equal(t, int64(state.Never), h.acquire("b").Due, "a dropped group leaves the due index")
}

func testCompareAndSet(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(10), Meta: []byte("one")})
	for name, prev := range map[string]state.Position{"nothing": state.Nowhere, "older": at(9), "newer": at(11), "other step": {Offset: 10, Step: 1}} {
		t.Run(name, func(t *testing.T) {
			b := &state.Batch{
				Token: "a", Prev: prev, Next: at(20), Meta: []byte("two"),
				Changes: []state.Change{set("g", 1, "f", "v")}, Outbox: []state.Entry{entry(1, 1)},
			}
			h.refused(b, "applied", at(10), false)
			require.Empty(t, h.load("g"))
			require.Empty(t, h.seqs(0, 10))
		})
	}
	p := h.acquire("b")
	require.Equal(t, at(10), p.Applied)
	require.Equal(t, "one", string(p.Meta))
	require.Equal(t, int64(state.Never), p.Due)
}

func testSteps(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(10)})
	h.commit(&state.Batch{Token: "a", Prev: at(10), Next: state.Position{Offset: 10, Step: 1}})
	h.commit(&state.Batch{Token: "a", Prev: state.Position{Offset: 10, Step: 1}, Next: state.Position{Offset: 10, Step: 2}})
	h.refused(&state.Batch{Token: "a", Prev: state.Position{Offset: 10, Step: 1}, Next: at(11)}, "applied", state.Position{Offset: 10, Step: 2}, false)
	require.Equal(t, state.Position{Offset: 10, Step: 2}, h.acquire("b").Applied)
}

func testLostReply(t *testing.T, h *harness) {
	h.acquire("a")
	b := &state.Batch{
		Token: "a", Prev: state.Nowhere, Next: at(5), Changes: []state.Change{set("g", 1, "f", "v")},
		Outbox: []state.Entry{entry(1, 1), entry(2, 2)},
	}
	h.commit(b)
	require.NoError(t, h.Store.Trim(t.Context(), part, "a", 1))
	h.commit(b)
	h.commit(b)
	require.Equal(t, []int64{2}, h.seqs(0, 10), "a repetition appends nothing")
	require.Equal(t, int64(2), h.acquire("a2").Seq)
	h.refused(b, "owner", at(5), true)
}

func testZombie(t *testing.T, h *harness) {
	h.acquire("old")
	h.commit(&state.Batch{Token: "old", Prev: state.Nowhere, Next: at(1), Outbox: []state.Entry{entry(1, 0)}})
	require.Equal(t, at(1), h.acquire("new").Applied)
	h.refused(&state.Batch{Token: "old", Prev: at(1), Next: at(2), Outbox: []state.Entry{entry(2, 1)}}, "owner", at(1), true)
	h.refusal(h.Store.Trim(t.Context(), part, "old", 1), "owner", at(1), true)
	require.Equal(t, []int64{1}, h.seqs(0, 10))
	h.commit(&state.Batch{Token: "new", Prev: at(1), Next: at(2), Outbox: []state.Entry{entry(2, 1)}})
	require.Equal(t, []int64{1, 2}, h.seqs(0, 10))
}

func testPartitions(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(1), Changes: []state.Change{set("g", 1, "f", "v")}, Outbox: []state.Entry{entry(1, 0)}})
	p, err := h.Store.Acquire(t.Context(), part+1, "b")
	require.NoError(t, err)
	require.Equal(t, state.Nowhere, p.Applied)
	got, err := h.Store.Load(t.Context(), part+1, []string{"g"})
	require.NoError(t, err)
	require.Empty(t, got[0])
	out, err := h.Store.Outbox(t.Context(), part+1, 0, 10)
	require.NoError(t, err)
	require.Empty(t, out)
}

func testOutbox(t *testing.T, h *harness) {
	h.acquire("a")
	var entries []state.Entry
	for i := range int64(25) {
		entries = append(entries, entry(i+1, i/2))
	}
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(100), Outbox: entries})
	require.Equal(t, []int64{1, 2, 3}, h.seqs(0, 3))
	require.Equal(t, []int64{4, 5}, h.seqs(3, 2))
	require.Equal(t, []int64{25}, h.seqs(24, 100))
	for _, upTo := range []int64{10, 10, 4, 0} {
		require.NoError(t, h.Store.Trim(t.Context(), part, "a", upTo))
		require.Equal(t, int64(11), h.seqs(0, 1)[0], "trimmed up to %d", upTo)
	}
	require.Equal(t, int64(11), h.acquire("a").First)
	require.NoError(t, h.Store.Trim(t.Context(), part, "a", 1000), "beyond the end")
	require.Empty(t, h.seqs(0, 10))
	p := h.acquire("a")
	require.Equal(t, int64(25), p.Seq, "the sequence outlives its entries")
	require.Equal(t, int64(26), p.First, "nothing is left")
	h.commit(&state.Batch{Token: "a", Prev: at(100), Next: at(101), Outbox: []state.Entry{entry(26, 100)}})
	require.Equal(t, []int64{26}, h.seqs(0, 10))
}

func testSequence(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(1), Outbox: []state.Entry{entry(1, 0)}})
	for _, first := range []int64{1, 3, 0} {
		b := &state.Batch{Token: "a", Prev: at(1), Next: at(2), Outbox: []state.Entry{entry(first, 1)}, Changes: []state.Change{set("g", 1, "f", "v")}}
		h.refused(b, "sequence", at(1), false)
	}
	require.Empty(t, h.load("g"))
	require.Equal(t, []int64{1}, h.seqs(0, 10))
}

func testDue(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(1), Changes: []state.Change{
		set("c", 1_700_000_000_300, "f", "1"), set("a", 1_700_000_000_100, "f", "1"),
		set("b2", 1_700_000_000_200, "f", "1"), set("b1", 1_700_000_000_200, "f", "1"), set("n", state.Never, "f", "1"),
	}})
	due := func(watermark int64, limit int) []string {
		keys, least, err := h.Store.Due(t.Context(), part, 0, watermark, limit)
		require.NoError(t, err)
		require.Equal(t, int64(1_700_000_000_100), least)
		return keys
	}
	require.Empty(t, due(1_700_000_000_099, 10))
	require.Empty(t, due(-1, 10))
	require.Equal(t, []string{"a"}, due(1_700_000_000_100, 10))
	require.Equal(t, []string{"a", "b1", "b2"}, due(1_700_000_000_299, 10))
	require.Equal(t, []string{"a", "b1"}, due(1_700_000_000_299, 2))
	require.Equal(t, []string{"a", "b1", "b2", "c"}, due(1_700_000_000_300, 10), "reading takes nothing away")

	h.commit(&state.Batch{Token: "a", Prev: at(1), Next: at(2), Changes: []state.Change{
		set("a", 1_700_000_000_400), set("b1", state.Never),
		{Key: "b2", Drop: true},
		set("n", 1_700_000_000_250),
		{Key: "c", SameDue: true, Fields: []state.Field{{Name: "f", Value: []byte("2")}}},
		{Key: "z", SameDue: true, Due: 1},
	}})
	keys, least, err := h.Store.Due(t.Context(), part, 0, 1_700_000_000_500, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"n", "c", "a"}, keys)
	require.Equal(t, int64(1_700_000_000_250), least)
	require.Equal(t, int64(1_700_000_000_250), h.acquire("b").Due)
}

// testLevels holds the due index of a level apart from the others.
func testLevels(t *testing.T, h *harness) {
	h.acquire("a")
	leveled := func(key string, level uint32, due int64) state.Change {
		c := set(key, due, "f", "1")
		c.Level = level
		return c
	}
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(1), Changes: []state.Change{
		leveled("a", 1, 1_700_000_000_100), leveled("b", state.MaxLevel, -5), leveled("c", 0, 1_700_000_000_300), leveled("d", 1, 1_700_000_000_200),
	}})
	for _, tc := range []struct {
		level uint32
		to    int64
		want  []string
		least int64
	}{
		{0, 1_700_000_000_299, nil, 1_700_000_000_300},
		{0, 1 << 45, []string{"c"}, 1_700_000_000_300},
		{1, 1_700_000_000_100, []string{"a"}, 1_700_000_000_100},
		{1, 1 << 45, []string{"a", "d"}, 1_700_000_000_100},
		{2, 1 << 45, nil, state.Never},
		{state.MaxLevel, -6, nil, -5},
		{state.MaxLevel, 0, []string{"b"}, -5},
	} {
		keys, least, err := h.Store.Due(t.Context(), part, tc.level, tc.to, 10)
		require.NoError(t, err)
		require.Equal(t, tc.least, least)
		require.ElementsMatch(t, tc.want, keys)
	}
	gone := leveled("c", 0, state.Never)
	h.commit(&state.Batch{Token: "a", Prev: at(1), Next: at(2), Changes: []state.Change{gone}})
	require.Equal(t, int64(state.Never), h.acquire("b").Due, "the due time of a partition is that of level 0")
}

func testTailLost(t *testing.T, h *harness) {
	h.acquire("a")
	first := &state.Batch{Token: "a", Prev: state.Nowhere, Next: at(10), Meta: []byte("1"), Changes: []state.Change{set("g", 5, "f", "1")}, Outbox: []state.Entry{entry(1, 3)}}
	h.commit(first)
	restore := h.Save()
	h.commit(&state.Batch{Token: "a", Prev: at(10), Next: at(20), Meta: []byte("2"), Changes: []state.Change{set("g", 6, "f", "2"), set("h", 7, "f", "1")}, Outbox: []state.Entry{entry(2, 12)}})
	restore()
	h.refused(&state.Batch{Token: "a", Prev: at(20), Next: at(30)}, "applied", at(10), false)
	require.Equal(t, state.Partition{Applied: at(10), Meta: []byte("1"), Seq: 1, First: 1, Due: 5}, h.acquire("b"))
	require.Equal(t, map[string]string{"f": "1"}, h.load("g"))
	require.Empty(t, h.load("h"))
	require.Equal(t, []int64{1}, h.seqs(0, 10), "position, groups and outbox are one prefix")
	h.commit(&state.Batch{Token: "b", Prev: at(10), Next: at(20), Outbox: []state.Entry{entry(2, 12)}})
	require.Equal(t, []int64{1, 2}, h.seqs(0, 10))
}

func testAllLost(t *testing.T, h *harness) {
	h.acquire("a")
	h.commit(&state.Batch{Token: "a", Prev: state.Nowhere, Next: at(10), Changes: []state.Change{set("g", 5, "f", "1")}, Outbox: []state.Entry{entry(1, 1), entry(2, 3)}})
	h.Flush()
	h.refused(&state.Batch{Token: "a", Prev: at(10), Next: at(20)}, "owner", state.Nowhere, false)
	h.refusal(h.Store.Trim(t.Context(), part, "a", 2), "owner", state.Nowhere, false)
	require.Equal(t, state.Nowhere, h.acquire("b").Applied)
	h.commit(&state.Batch{Token: "b", Prev: state.Nowhere, Next: at(5), Outbox: []state.Entry{entry(1, 4)}})
	h.refusal(h.Store.Trim(t.Context(), part, "a", 2), "owner", at(5), true)
	require.Equal(t, []int64{1}, h.seqs(0, 10), "an old trim spares new entries")
}

func testBadBatches(t *testing.T, h *harness) {
	h.acquire("a")
	long := string(bytes.Repeat([]byte("k"), state.MaxKeyBytes+1))
	for name, b := range map[string]*state.Batch{
		"no token":        {Prev: state.Nowhere, Next: at(1)},
		"no progress":     {Token: "a", Prev: at(1), Next: at(1)},
		"backwards":       {Token: "a", Prev: at(2), Next: at(1)},
		"empty key":       {Token: "a", Prev: state.Nowhere, Next: at(1), Changes: []state.Change{set("", 1, "f", "v")}},
		"long key":        {Token: "a", Prev: state.Nowhere, Next: at(1), Changes: []state.Change{set(long, 1, "f", "v")}},
		"gap in outbox":   {Token: "a", Prev: state.Nowhere, Next: at(1), Outbox: []state.Entry{entry(1, 0), entry(3, 0)}},
		"too many groups": {Token: "a", Prev: state.Nowhere, Next: at(1), Changes: make([]state.Change, state.MaxBatchChanges+1)},
		"too large":       {Token: "a", Prev: state.Nowhere, Next: at(1), Meta: make([]byte, state.MaxBatchBytes+1)},
	} {
		t.Run(name, func(t *testing.T) {
			err := h.Store.Commit(t.Context(), part, b)
			require.Error(t, err)
			require.False(t, state.IsRefused(err))
		})
	}
	require.Equal(t, state.Nowhere, h.acquire("b").Applied)
}

func testHostile(t *testing.T, h *harness) {
	h.acquire("{a}\r\n\x00")
	keys := []string{"{}", "{x}", "a\r\nDEL b", "\x00", "}:{", "*", "\xff\xfe"}
	var changes []state.Change
	for i, k := range keys {
		changes = append(changes, set(k, int64(i+1), "{f}\r\n", k))
	}
	h.commit(&state.Batch{Token: "{a}\r\n\x00", Prev: state.Nowhere, Next: at(1), Changes: changes})
	for _, k := range keys {
		require.Equal(t, map[string]string{"{f}\r\n": k}, h.load(k))
	}
	got, _, err := h.Store.Due(t.Context(), part, 0, 100, 100)
	require.NoError(t, err)
	require.Equal(t, keys, got)
}

func testLarge(t *testing.T, h *harness) {
	h.acquire("a")
	b := &state.Batch{Token: "a", Prev: state.Nowhere, Next: at(1)}
	value := string(bytes.Repeat([]byte("v"), 400))
	for i := range state.MaxBatchChanges {
		b.Changes = append(b.Changes, set(fmt.Sprintf("g%04d", i), int64(i), "meta", value))
	}
	wide := state.Change{Key: "g0000", Due: 0}
	for i := range 9000 {
		wide.Fields = append(wide.Fields, state.Field{Name: fmt.Sprintf("p%d", i), Value: []byte("x")})
	}
	b.Changes[0] = wide
	for i := range int64(3000) {
		b.Outbox = append(b.Outbox, entry(i+1, 0))
	}
	h.commit(b)
	require.Len(t, h.load("g0000"), 9000)
	require.Equal(t, map[string]string{"meta": value}, h.load("g1999"))
	require.Len(t, h.seqs(0, 5000), 3000)
	keys, _, err := h.Store.Due(t.Context(), part, 0, 1<<40, 5000)
	require.NoError(t, err)
	require.Len(t, keys, state.MaxBatchChanges)

	drop := &state.Batch{Token: "a", Prev: at(1), Next: at(2)}
	for i := range state.MaxBatchChanges {
		drop.Changes = append(drop.Changes, state.Change{Key: fmt.Sprintf("g%04d", i), Drop: true})
	}
	h.commit(drop)
	require.Equal(t, int64(state.Never), h.acquire("b").Due)
	require.Empty(t, h.load("g0000"))
}

// testTwoOwners lets two owners that know nothing of each other fold the same
// log: every position is applied once, and the outbox has no gap.
func testTwoOwners(t *testing.T, h *harness) {
	const last = 200
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		wg.Go(func() {
			for turn := 0; ; turn++ {
				if done, err := fold(t.Context(), h.Store, fmt.Sprint(name, turn), last); err != nil {
					t.Errorf("owner %s: %v", name, err)
					return
				} else if done {
					return
				}
			}
		})
	}
	wg.Wait()
	p := h.acquire("c")
	require.Equal(t, at(last), p.Applied)
	require.Equal(t, int64(last), p.Seq)
	entries, err := h.Store.Outbox(t.Context(), part, 0, last+1)
	require.NoError(t, err)
	require.Len(t, entries, last)
	for i, e := range entries {
		require.Equal(t, int64(i), e.Offset)
	}
	require.Equal(t, map[string]string{"n": fmt.Sprint(last)}, h.load("count"))
}

// fold counts records, one per batch, until it is refused or done.
func fold(ctx context.Context, s correlator.Store, token string, last int64) (done bool, err error) {
	p, err := s.Acquire(ctx, part, token)
	if err != nil {
		return false, err
	}
	from := p.Applied
	for offset := max(from.Offset, 0); offset < last; offset++ {
		next := at(offset + 1)
		err := s.Commit(ctx, part, &state.Batch{
			Token: token, Prev: from, Next: next,
			Changes: []state.Change{set("count", 1, "n", fmt.Sprint(offset+1))},
			Outbox:  []state.Entry{entry(offset+1, offset)},
		})
		if _, ok := errors.AsType[*state.RefusedError](err); ok {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		from = next
	}
	return true, nil
}
