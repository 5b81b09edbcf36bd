package correlator

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/stormbell/stormbell/proto/stormbell/state/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/ownership"
	"github.com/stormbell/stormbell/services/internal/state"
)

// narrow is a store that takes calls of so many bytes.
type narrow struct {
	*lossy
	bytes int
}

func (s *narrow) Commit(ctx context.Context, partition int32, b *state.Batch) error {
	if err := b.Fits(s.bytes); err != nil {
		return err
	}
	return s.lossy.Commit(ctx, partition, b)
}

// longSnapshots are one group that is many calls large, and of which a snapshot
// is due at a watermark that lets half of the group go.
type longSnapshots struct {
	t     *testing.T
	cfg   Config
	feed  *feed
	store *narrow
	at    int64 // offset of the watermark
	w     int64
	key   string
	log   []bus.Message
}

func newLongSnapshots(t *testing.T) *longSnapshots {
	t.Helper()
	cfg := longConfig()
	cfg.BatchRecords, cfg.BatchBytes = 500, minBatchBytes
	l := &longSnapshots{t: t, cfg: cfg, feed: &feed{p: longRules(t, cfg)}}
	// Beside the bound of a call a store takes what one record or field has more.
	l.store = &narrow{newLossy(), 2*minBatchBytes + 8<<10}
	for i := range int64(12_000) {
		at := t0 + i + i/6000*4_400_000
		l.feed.detect("t", "order", "bob", fmt.Sprintf("%064d", i), at, at)
	}
	f := l.open()
	foldAll(t, f, l.feed)
	l.at, l.w = int64(len(l.feed.records)), t0+4_400_000+120_000
	l.feed.watermark(l.w)
	_, _, err := f.fold(t.Context(), l.feed.records[l.at:])
	require.NoError(t, err)
	due, _, err := l.store.Due(t.Context(), 0, 0, l.w, 10)
	require.NoError(t, err)
	require.Len(t, due, 1)
	l.key = due[0]
	return l
}

func (l *longSnapshots) open() *folder { return openFolder(l.t, l.cfg, l.feed.p, 10, l.store) }

func (l *longSnapshots) fields() []state.Field {
	got, err := l.store.Load(l.t.Context(), 0, []string{l.key})
	require.NoError(l.t, err)
	return slices.DeleteFunc(got[0], func(f state.Field) bool { return f.Name == snapshotField })
}

// due reports whether a snapshot of the group is, by what the store has of it.
func (l *longSnapshots) due() bool {
	got, err := l.store.Load(l.t.Context(), 0, []string{l.key})
	require.NoError(l.t, err)
	snap := newSnapshot(l.cfg.SnapshotEvery.Milliseconds())
	at := slices.IndexFunc(got[0], func(f state.Field) bool { return f.Name == snapshotField })
	require.NoError(l.t, snap.decode(got[0][at].Value))
	return snap.due(l.key) <= l.w
}

// drain makes the calls that are due, and ends the owner after some of them. It
// returns how many there were.
func (l *longSnapshots) drain(dies ...int) (calls int) {
	l.log = nil
	f := l.open()
	for {
		due := l.due()
		done, entries, err := f.drainSome(l.t.Context())
		require.NoError(l.t, err)
		for _, e := range entries {
			require.Equal(l.t, l.at, e.Offset)
			require.True(l.t, due, "it is due until its last part is said")
			m, ok := decodeMessage(e.Body)
			require.True(l.t, ok)
			require.EqualValues(l.t, toState, m.kind)
			l.log = append(l.log, bus.Message{Key: m.key, Value: m.value})
		}
		if done {
			require.Equal(l.t, state.Position{Offset: l.at + 1}, f.applied)
			return calls
		}
		if calls++; slices.Contains(dies, calls) {
			f = l.open()
		}
	}
}

// session is one on the first of what the log has.
func (l *longSnapshots) session(log []bus.Message) *session {
	kafka := newMemLog(1)
	kafka.append(TopicState, 0, log)
	for _, r := range l.feed.records {
		kafka.append(TopicDetections, 0, []bus.Message{{Key: r.Key, Value: r.Value, Headers: r.Headers}})
	}
	f := l.open()
	c := &correlator{
		cfg: l.cfg, reader: kafka, producer: kafka, store: l.store, plans: f.plans, tracer: f.tracer, counts: f.counts,
		log: slog.New(slog.DiscardHandler), clock: time.Now, events: 1, share: 10, owned: ownership.New[progress](),
	}
	return &session{c: c, claim: kafka.claim(TopicDetections, 0), f: f, log: c.log}
}

// TestSnapshotOfManyCalls writes a group that no call takes: whichever owners die
// amid it, nothing is a snapshot before its last part, and the parts are the same.
func TestSnapshotOfManyCalls(t *testing.T) {
	l := newLongSnapshots(t)
	begun, before := len(l.store.history), l.fields()
	calls := l.drain()
	require.Greater(t, calls, 5)
	want := l.log
	require.Less(t, len(l.fields()), len(before)-10, "the watermark lets go of much by the same calls")
	require.Greater(t, sizeOf(l.fields()), 3*minBatchBytes)
	for die := range calls {
		l.store.rollback(begun)
		l.drain(die, die+2)
		have := make(map[string][]byte)
		for i, m := range l.log {
			if before, ok := have[string(m.Key)]; ok {
				require.True(t, bytes.Equal(before, m.Value), "a part that is repeated is the same")
			}
			have[string(m.Key)] = m.Value
			found, _, err := l.session(l.log[:i+1]).findSnapshots(t.Context())
			require.NoError(t, err)
			require.Len(t, found, len(have)/len(want), "it is there once all of it is")
		}
		var fields []state.Field
		for _, m := range want {
			part := new(statev1.Snapshot)
			require.NoError(t, proto.Unmarshal(have[string(m.Key)], part))
			fields = join(fields, part.GetFields())
		}
		require.Equal(t, l.fields(), fields)
		require.Len(t, have, len(want))
		require.Zero(t, l.drain(), "it is not due again")
	}
}

// TestRestoreOfManyCalls brings a group back that no call takes, whichever owners
// die amid it, and nothing of one that has gone meanwhile.
func TestRestoreOfManyCalls(t *testing.T) {
	l := newLongSnapshots(t)
	l.drain()
	want := l.fields()
	restore := func(log []bus.Message) *folder {
		s := l.session(log)
		require.EqualValues(t, -1, s.f.applied.Offset)
		require.NoError(t, s.restore(t.Context()))
		return s.f
	}
	l.store.rollback(0)
	restore(l.log)
	require.Equal(t, want, l.fields())
	whole := slices.Clone(l.store.history)
	require.Greater(t, len(whole), 5)
	other := relaid(t, l.log)
	for die := range whole {
		l.store.history = slices.Clone(whole)
		l.store.rollback(die + 1)
		partly := len(l.store.history)
		f := restore(l.log)
		require.Equal(t, want, l.fields())
		require.EqualValues(t, 1, f.tallies[tallyKey("t", "order", l.feed.p.correlations["order"].Revision)].groups)

		l.store.rollback(partly)
		restore(other)
		require.Equal(t, want[:len(want)-1], l.fields(), "nothing is left of another snapshot")

		l.store.rollback(partly)
		restore(append(slices.Clone(l.log), bus.Message{Key: l.log[0].Key}))
		require.Empty(t, l.fields(), "nor of one that is there no more")
	}
}

// relaid is a snapshot without its last field.
func relaid(t *testing.T, log []bus.Message) []bus.Message {
	t.Helper()
	log = slices.Clone(log)
	last, part := &log[len(log)-1], new(statev1.Snapshot)
	require.NoError(t, proto.Unmarshal(last.Value, part))
	part.Fields = part.GetFields()[:len(part.GetFields())-1]
	var err error
	last.Value, err = marshal(part)
	require.NoError(t, err)
	return log
}

// TestPartsFitIntoRecords divides fields of any size and joins them again.
func TestPartsFitIntoRecords(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var fields []state.Field
		for i := range 1 + random.IntN(8) {
			most := []int{1, 1000, partBytes, maxDetection, 3 * maxDetection}[random.IntN(5)]
			fields = append(fields, state.Field{Name: fmt.Sprint("p", i), Value: bytes.Repeat([]byte{byte(i)}, random.IntN(most+1))})
		}
		var got []state.Field
		for _, part := range split(fields, partBytes) {
			value, err := marshal(&statev1.Snapshot{Parts: 1, WatermarkMs: t0, Fields: part, Sum: 1})
			require.NoError(t, err)
			require.Less(t, len(value), 1_000_000, "brokers take a megabyte")
			require.True(t, len(part) == 1 || len(value) < partBytes+1000)
			got = join(got, part)
		}
		require.Len(t, got, len(fields))
		for i := range fields {
			require.Equal(t, fields[i].Name, got[i].Name)
			require.True(t, bytes.Equal(fields[i].Value, got[i].Value))
		}
	}
}
