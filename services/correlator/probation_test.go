package correlator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/ownership"
)

// enough is more processes than may die of one record, the first ones that go
// without notes, one that leaves a stretch, and all attempts included.
const enough = patience + 2 + 3

// letters are the dead letters in a log, by what they are of.
func letters(t require.TestingT, records []bus.Record) map[string][]*dlqv1.DeadLetter {
	out := make(map[string][]*dlqv1.DeadLetter)
	for _, r := range records {
		d := new(dlqv1.DeadLetter)
		require.NoError(t, proto.Unmarshal(r.Value, d))
		key := fmt.Sprintf("%s/%d/%d", d.GetTopic(), d.GetPartition(), d.GetOffset())
		require.Equal(t, key, string(r.Key))
		out[key] = append(out[key], d)
	}
	return out
}

// lives starts process after process until all is done, and returns the most
// that died in one partition.
func (m *model) lives() int {
	m.crash, m.panics, m.log.outcome, m.log.fetch = "", 0, written, 100
	most := 0
	for _, live := range []func(ctx context.Context, p int) error{m.liveDetecting, m.liveCorrelating} {
		for p := range modelPartitions {
			died := 0
			for {
				err := live(context.Background(), p)
				if err == nil {
					break
				}
				require.True(m.t, crashed(context.Background(), err), "%v", err)
				died++
				require.Less(m.t, died, 100, "it goes on for ever")
			}
			most = max(most, died)
		}
	}
	return most
}

func (m *model) liveDetecting(ctx context.Context, p int) error {
	m.openDetector(p)
	d := m.detectors[p][len(m.detectors[p])-1]
	if err := d.d.goCarefully(ctx, d.m, d.s); err != nil {
		return err
	}
	for int(d.m.next) < len(m.log.parts[TopicEvents][p]) {
		w, err := d.d.step(ctx, d.m)
		if err = errors.Join(err, d.m.failed); err != nil {
			return err
		}
		require.NoError(m.t, d.d.produce(ctx, d.d.log, w))
		d.s.took(w)
		require.NoError(m.t, d.s.forward(ctx))
		require.NoError(m.t, d.s.proved(ctx))
	}
	return nil
}

func (m *model) liveCorrelating(ctx context.Context, p int) error {
	c := m.correlator()
	c.owned.Enter(p, errOpening)
	s, err := c.open(ctx, m.log.claim(TopicDetections, p))
	require.NoError(m.t, err)
	require.NoError(m.t, s.finish(ctx))
	for int(s.next) < len(m.log.parts[TopicDetections][p]) {
		records, _, err := m.log.Fetch(ctx, TopicDetections, p, s.next)
		require.NoError(m.t, err)
		if err := s.batches(ctx, records); err != nil {
			return err
		}
	}
	for moved := (<-chan struct{})(nil); moved == nil; {
		moved, err = s.publisher.step(ctx)
		require.NoError(m.t, err)
	}
	require.NoError(m.t, s.commit(ctx))
	m.sessions[p] = []*session{s}
	return nil
}

// TestModelOfDeadlyEvents has events of which the process dies every time, under
// all other faults: each of them goes to `dlq`, and the rest is as if they had
// not been there.
func TestModelOfDeadlyEvents(t *testing.T) {
	p := compile(t, modelConfig(), testRules)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := newModel(rt, p, noCounts(t), store)
		chosen := rapid.SliceOfNDistinct(rapid.IntRange(0, 15), 1, 3, rapid.ID).Draw(rt, "deadly")
		m.deadly = func(point Point, r *Record) bool {
			return point == PointMatch && slices.ContainsFunc(chosen, func(i int) bool {
				return i < len(m.events) && m.events[i].partition == r.Partition && m.at[i] == r.Offset
			})
		}
		m.run(append(m.actions(), m.faults(store)...))
		store.dropReply, store.fail = false, false
		require.LessOrEqual(rt, m.lives(), enough*len(chosen))
		m.settle()
		var rest []accepted
		dead := letters(rt, m.log.all(TopicDLQ))
		for i, a := range m.events {
			if !slices.Contains(chosen, i) || a.tick {
				rest = append(rest, a)
				continue
			}
			key := fmt.Sprintf("events/%d/%d", a.partition, m.at[i])
			require.Contains(rt, dead, key)
			for _, d := range dead[key] {
				require.Equal(rt, reasonEnded, d.GetReason())
				require.GreaterOrEqual(rt, d.GetAttempts(), uint32(m.cfg.Attempts))
				require.NotEmpty(rt, d.GetValue())
			}
			delete(dead, key)
			seen["dead"]++
		}
		require.Empty(rt, dead, "what is good is not passed over")
		want := expected(m.cfg, m.plan, rest, nil)
		require.Equal(rt, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(m.said())))
		seen["alerts"] += len(want)
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	t.Log(seen)
	happened(t, seen, "alerts", "dead", "deadly", "careful", "flush")
}

// TestModelOfDeadlyDetections is the same for the fold. At the end the store is
// lost, and the records would fold by now: they are passed over all the same.
func TestModelOfDeadlyDetections(t *testing.T) {
	p := compile(t, modelConfig(), testRules)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		store := newLossy()
		m := newModel(rt, p, noCounts(t), store)
		chosen := rapid.SliceOfNDistinct(rapid.IntRange(0, 25), 1, 3, rapid.ID).Draw(rt, "deadly")
		is := func(r *Record) bool {
			return header(r.Headers, event.HeaderSchema) == schemaDetection && slices.Contains(chosen, int(r.Offset))
		}
		m.deadly = func(point Point, r *Record) bool { return point == PointFold && is(r) }
		m.log.onCommit = func(place, int64) {}
		m.run(append(m.actions(), m.faults(store)...))
		store.dropReply, store.fail = false, false
		require.LessOrEqual(rt, m.lives(), enough*len(chosen))
		m.settle()
		m.checkDeadly(is, seen)

		m.deadly = nil
		store.rollback(0)
		m.settle()
		m.checkDeadly(is, seen)
		store.rollback(rapid.IntRange(0, len(store.history)).Draw(rt, "calls"))
		m.settle()
		m.checkDeadly(is, seen)
		for k, n := range m.seen {
			seen[k] += n
		}
	})
	t.Log(seen)
	happened(t, seen, "alerts", "dead", "deadly", "flush")
}

// checkDeadly demands exactly the deadly records in `dlq`, and the alerts of all
// others.
func (m *model) checkDeadly(is func(*Record) bool, seen map[string]int) {
	dead := letters(m.t, m.log.all(TopicDLQ))
	least, most := make(map[string]bool), make(map[string]bool)
	for p, log := range m.log.parts[TopicDetections] {
		events := make(map[string]bool) // that a deadly record is of
		for i := range log {
			if is(&log[i]) {
				key := fmt.Sprintf("detections/%d/%d", p, log[i].Offset)
				require.Contains(m.t, dead, key)
				require.Equal(m.t, reasonEnded, dead[key][0].GetReason())
				delete(dead, key)
				events[detectedEvent(m.t, &log[i])] = true
				seen["dead"]++
			}
		}
		rest := slices.DeleteFunc(slices.Clone(log), func(r bus.Record) bool { return is(&r) })
		maps.Copy(most, m.ofDetections(rest))
		// A copy may be there and be ignored, since it came after the watermark.
		rest = slices.DeleteFunc(rest, func(r bus.Record) bool { return events[detectedEvent(m.t, &r)] })
		maps.Copy(least, m.ofDetections(rest))
	}
	require.Empty(m.t, dead, "what is good is not passed over")
	// What an update counts lies between the two; that there is one only grows.
	coarse := func(set map[string]bool) map[string]bool {
		out := make(map[string]bool, len(set))
		for name := range set {
			name, _, _ = strings.Cut(name, ",")
			out[name] = true
		}
		return out
	}
	said := coarse(m.said())
	least, most = coarse(least), coarse(most)
	for _, a := range m.events { // those of the rule that stands alone
		delete(said, oracleHash("stormbell-alert-1", a.tenant, "rule-x", m.plan.set.Rule("rule-x").Revision, a.id))
	}
	for id := range least {
		require.True(m.t, said[id], "missing %s", id)
	}
	for id := range said {
		require.True(m.t, most[id], "spurious %s", id)
	}
	seen["alerts"] += len(said)
}

func detectedEvent(t require.TestingT, r *bus.Record) string {
	if header(r.Headers, event.HeaderSchema) != schemaDetection {
		return ""
	}
	var d detectionv1.Detection
	require.NoError(t, proto.Unmarshal(r.Value, &d))
	return d.GetEventId()
}

// TestRestartsBlameNobody ends owners again and again, in good order amid a
// record and by death between records, and passes nothing over.
func TestRestartsBlameNobody(t *testing.T) {
	log := newMemLog(1)
	log.onCommit = func(place, int64) {}
	records := make([]bus.Message, 3*stretch)
	log.append(TopicEvents, 0, records)
	ctx := t.Context()
	at := log.parts[TopicEvents][0]
	r := func() *probation {
		c := log.claim(TopicEvents, 0)
		at, _ := parseProgress(c.Metadata)
		p := newProbation(c, at, 3, slog.New(slog.DiscardHandler))
		require.NoError(t, p.begin(ctx, 0, max(0, c.Committed), int64(len(records))))
		return p
	}
	for range 20 { // processes die before they take anything
		r()
	}
	p := r()
	require.True(t, p.careful())
	n, alone := p.take(at)
	require.Equal(t, stretch, n)
	require.False(t, alone)
	require.NoError(t, p.mark(ctx, at[:n]))
	for range 20 { // owners end in good order amid the first record
		p = r()
		n, alone = p.take(at)
		require.Equal(t, 1, n)
		require.True(t, alone)
		require.NoError(t, p.mark(ctx, at[:1]))
		p.leave(ctx, context.Canceled)
	}
	offset, _ := p.blamed()
	require.Negative(t, offset)
	for i := range 10 { // each process dies at another record
		p = r()
		for k := range i {
			require.NoError(t, p.mark(ctx, at[k:k+1]))
			require.NoError(t, p.unmark(ctx))
			require.NoError(t, p.passed(ctx, int64(k+1)))
		}
		require.NoError(t, p.mark(ctx, at[i:i+1]))
	}
	offset, _ = r().blamed()
	require.Negative(t, offset)
	for range 3 { // and now all at one
		p = r()
		require.NoError(t, p.mark(ctx, at[7:8]))
	}
	p = r()
	offset, tries := p.blamed()
	require.EqualValues(t, 7, offset)
	require.Equal(t, 3, tries)
	require.NoError(t, p.commit(ctx, int64(len(records)), progress{ingest: 5}))
	require.Equal(t, progress{ingest: 5}.String(), log.groups[place{TopicEvents, 0}].metadata, "no note is left")
}

// TestProgressOfBefore reads what was committed before there were notes.
func TestProgressOfBefore(t *testing.T) {
	p, ok := parseProgress("v1 ingest=7 w=8 back=9")
	require.True(t, ok)
	require.Equal(t, progress{ingest: 7, watermark: 8, lookBack: 9}, p)
	require.Equal(t, "v1 ingest=7 w=8 back=9", p.String())
	p.trial = trial{1, 2, 3, 4, 5}
	again, ok := parseProgress(p.String())
	require.True(t, ok)
	require.Equal(t, p, again)
}

// TestSkipIsHonoured loses the store after a record was skipped that would have
// completed a window, and that would fold by now.
func TestSkipIsHonoured(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprint("forgotten ", forgotten), func(t *testing.T) {
			cfg, log, store := modelConfig(), newMemLog(1), newLossy()
			log.onCommit = func(place, int64) {}
			l := &feed{p: compile(t, cfg, testRules)}
			for i := range 3 {
				l.detect("t", "count", "u", fmt.Sprint(i), t0, t0)
			}
			for _, r := range l.records {
				log.append(TopicDetections, 0, []bus.Message{{Value: r.Value, Headers: r.Headers}})
			}
			c := &correlator{
				cfg: cfg, reader: log, producer: log, store: store, plans: always{l.p}, tracer: tracenoop.Tracer{}, counts: noCounts(t),
				log: slog.New(slog.DiscardHandler), clock: time.Now, events: 1, share: math.MaxInt64, owned: ownership.New[progress](),
				fault: func(p Point, r *Record) error {
					if p == PointFold && r.Offset == 1 {
						panic("today")
					}
					return nil
				},
			}
			live := func() {
				c.owned.Enter(0, errOpening)
				s, err := c.open(t.Context(), log.claim(TopicDetections, 0))
				require.NoError(t, err)
				records, _, err := log.Fetch(t.Context(), TopicDetections, 0, s.next)
				require.NoError(t, err)
				require.NoError(t, s.batches(t.Context(), records))
				for moved := (<-chan struct{})(nil); moved == nil; {
					moved, err = s.publisher.step(t.Context())
					require.NoError(t, err)
				}
			}
			live()
			require.Len(t, letters(t, log.all(TopicDLQ)), 1)
			require.Empty(t, log.all(TopicAlerts))
			c.fault = nil
			store.rollback(0)
			if forgotten {
				log.parts[TopicDLQ][0] = nil
			}
			live()
			if forgotten {
				require.Len(t, log.all(TopicAlerts), 1, "without the record of the skip this test would show nothing")
				return
			}
			require.Empty(t, log.all(TopicAlerts))
			require.Len(t, log.all(TopicDLQ), 1, "it is skipped silently")
		})
	}
}

// TestDeadlyRecords is the whole on a real broker, with all partitions in one
// process: it is the deadly records that go, whatever else was under way.
func TestDeadlyRecords(t *testing.T) {
	j := newJourney(t)
	manifest := j.push(testRules)
	fault := func(p Point, r *Record) error {
		if p == PointMatch && bytes.Contains(r.Value, []byte("deadly-match")) || p == PointFold && bytes.Contains(r.Value, []byte("deadly-fold")) {
			return errors.New("the process has died")
		}
		return nil
	}
	events := someEvents(200, "deadly")
	now := time.Now().UnixMilli()
	j.post(events[:100], manifest)
	j.post([]accepted{
		{partition: 1, id: "deadly-match", tenant: "t1", time: now, ingest: now, fields: map[string]string{"action": "x"}},
		{partition: 3, id: "deadly-fold", tenant: "t1", time: now, ingest: now, fields: map[string]string{"action": "c"}},
	}, manifest)
	j.post(events[100:], manifest)

	died := 0
	for rested := false; !rested; {
		// As the gateway does: what was committed and not told yet is told now.
		j.tick()
		s, err := New(j.cfg, Deps{
			Reader: j.bus, Producer: j.bus, Group: j.bus, Control: j.view, Store: j.store, Log: slog.New(slog.DiscardHandler),
			Tracers: j.tracer, Meters: metricnoop.NewMeterProvider(), Clock: time.Now, Fault: fault,
		})
		require.NoError(t, err)
		j.mu.Lock()
		j.running = []*Service{s}
		j.mu.Unlock()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		require.Eventually(t, func() bool {
			select {
			case err := <-done:
				require.ErrorContains(t, err, "the process has died")
				died++
				return true
			default:
				rested = j.idle()
				return rested
			}
		}, time.Minute, 20*time.Millisecond)
		stop()
		if rested {
			require.NoError(t, <-done)
		}
		require.Less(t, died, 100, "it goes on for ever")
	}
	t.Log("processes that died:", died)
	dead := letters(t, j.read(TopicDLQ))
	topics := make(map[string]bool)
	for _, list := range dead { // a detection may be there twice
		topics[list[0].GetTopic()] = true
		require.Equal(t, reasonEnded, list[0].GetReason())
		require.EqualValues(t, j.cfg.Attempts, list[0].GetAttempts())
		require.Contains(t, string(list[0].GetValue()), "deadly-")
	}
	require.Len(t, topics, 2)
	want := withoutUpdates(expected(j.cfg, compile(t, j.cfg, testRules), events, nil))
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(j.alerts())))
}

// TestLeaveIsHeard ends owners of a real group in good order: a broker takes
// their last commit while the group is being left.
func TestLeaveIsHeard(t *testing.T) {
	j := newJourney(t)
	j.produce(TopicEvents, 0, bus.Message{Value: []byte("x")})
	var found []trial
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		err := j.bus.Consume(ctx, bus.GroupConfig{ID: "leave", Topics: []string{TopicEvents}}, func(ctx context.Context, c *bus.Claim) error {
			if c.Partition == 0 {
				at, _ := parseProgress(c.Metadata)
				found = append(found, at.trial)
				p := newProbation(&claim{Committed: c.Committed, Metadata: c.Metadata, Commit: c.Commit}, at, 3, slog.New(slog.DiscardHandler))
				if err := p.begin(ctx, 0, 0, 1); err != nil {
					return err
				}
				if len(found) == 1 {
					p.begun = false // this one dies
				}
				cancel()
				<-ctx.Done()
				p.leave(ctx, ctx.Err())
			}
			<-ctx.Done()
			return ctx.Err()
		})
		cancel()
		require.NoError(t, err)
	}
	died := trial{tries: 1, until: 1}
	require.Equal(t, []trial{{}, died, died}, found)
}
