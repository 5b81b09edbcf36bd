package correlator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/state"
)

const narrowCall = 256 << 10

// openNarrow opens a folder on a store that takes calls of so many bytes.
func openNarrow(t *testing.T, cfg Config, p *plan, store *narrow) *folder {
	t.Helper()
	f := openFolder(t, cfg, p, 1000, store)
	f.limit = store.bytes
	return f
}

// TestRecordsThatNoCallTakes folds records of which some keep much: those that
// fit fold as they do where all fit, in smaller calls, and the one that does not go
// to `dlq`.
func TestRecordsThatNoCallTakes(t *testing.T) {
	p := compile(t, DefaultConfig(), ruleA+`
title: Some
id: some
correlation: {type: event_count, rules: [rule-a], group-by: [user], timespan: 10s, condition: {gte: 3}}
---
title: Above
id: above
correlation: {type: event_count, rules: [some], group-by: [file], timespan: 1h, condition: {gte: 1}}
`)
	some, above := p.correlations["some"], p.correlations["above"]
	feedOf := func(large bool) *feed {
		l := &feed{p: p}
		put := func(user string, carries int) {
			l.put(schemaDetection, &detectionv1.Detection{
				Tenant: "t", CorrelationId: some.ID, CorrelationRevision: some.Revision, RuleIds: some.Rules[:1], Group: []string{user},
				EventId: fmt.Sprint(user, "-", carries), TimeMs: t0, IngestMs: t0, UpstreamOffset: int64(len(l.records)), Raw: []byte(`{"action":"a"}`),
				Parents: []*detectionv1.Link{{CorrelationId: above.ID, CorrelationRevision: above.Revision, Group: []string{strings.Repeat("f", carries)}}},
			})
		}
		for i := range 12 {
			put(fmt.Sprint("user-", i), 70_000)
		}
		if large {
			put("user-0", narrowCall*2/3) // it is kept whole, and what it carries
		}
		for i := range 12 {
			put(fmt.Sprint("user-", i), 10)
			put(fmt.Sprint("user-", i), 20)
		}
		return l
	}
	fold := func(l *feed, f *folder) (signals []string, dead []*dlqv1.DeadLetter) {
		for f.applied.Offset < int64(len(l.records)) {
			var entries []state.Entry
			var err error
			if f.applied.Step > 0 {
				_, entries, err = f.drainSome(t.Context())
			} else {
				_, entries, err = f.fold(t.Context(), l.records[max(f.applied.Offset, 0):])
			}
			require.NoError(t, err)
			for _, e := range entries {
				m, ok := decodeMessage(e.Body)
				require.True(t, ok)
				switch m.kind {
				case toDLQ:
					dead = append(dead, new(dlqv1.DeadLetter))
					require.NoError(t, proto.Unmarshal(m.value, dead[len(dead)-1]))
				case toDetections:
					sig := new(detectionv1.Signal)
					require.NoError(t, proto.Unmarshal(m.value, sig))
					signals = append(signals, sig.GetEventId())
				}
			}
		}
		slices.Sort(signals)
		return signals, dead
	}
	cfg := DefaultConfig()
	cfg.BatchBytes = maxBatchBytes
	want, dead := fold(feedOf(false), openFolder(t, cfg, p, 1000, state.NewMemory()))
	require.Len(t, want, 36)
	require.Empty(t, dead)
	store := &narrow{newLossy(), narrowCall}
	l := feedOf(true)
	got, dead := fold(l, openNarrow(t, cfg, p, store))
	require.Equal(t, want, got)
	require.Len(t, dead, 1)
	require.EqualValues(t, 12, dead[0].GetOffset())
	require.Contains(t, dead[0].GetReason(), "does not fit into one write")

	// A rebuild says so again, should `dlq` have it no more, and nothing else.
	store.rollback(0)
	f := openNarrow(t, cfg, p, store)
	f.silent = int64(len(l.records))
	got, dead = fold(l, f)
	require.Empty(t, got)
	require.Len(t, dead, 1)
}

// TestGroupsThatNoCallTakesTogether lets the watermark change much of many groups,
// each of which fits.
func TestGroupsThatNoCallTakesTogether(t *testing.T) {
	cfg := DefaultConfig()
	p := compile(t, cfg, ruleA+`
title: New
id: new
stormbell: {type: new_value, rules: [rule-a], group-by: [user], field: ip, history: 2m, learn: 1s}
`)
	l, of := &feed{p: p}, p.correlations["new"]
	show := func(user, value int, at int64) {
		l.put(schemaDetection, &detectionv1.Detection{
			Tenant: "t", CorrelationId: of.ID, CorrelationRevision: of.Revision, RuleIds: of.Rules[:1], Group: []string{fmt.Sprint(user)},
			Values: []string{fmt.Sprintf("%0100d", value)}, EventId: fmt.Sprint("e", len(l.records)), TimeMs: at, IngestMs: at, UpstreamOffset: int64(len(l.records)),
		})
	}
	const users, values = 12, 600
	for user := range users {
		for v := range values {
			show(user, v, t0)
		}
	}
	for user := range users { // every second one is shown again; the others are forgotten
		for v := range values / 2 {
			show(user, 2*v, t0+100_000)
		}
	}
	l.watermark(t0 + cfg.Lateness.Milliseconds() + 110_000)
	l.watermark(t0 + cfg.Lateness.Milliseconds() + 150_000)
	run := func(f *folder) (fields [][]state.Field) {
		foldAll(t, f, l)
		for user := range users {
			got, err := f.store.Load(t.Context(), 0, []string{stateKey(&detectionv1.Detection{
				Tenant: "t", CorrelationId: of.ID, CorrelationRevision: of.Revision, Group: []string{fmt.Sprint(user)},
			}, false)})
			require.NoError(t, err)
			fields = append(fields, got[0])
		}
		return fields
	}
	want := run(openFolder(t, cfg, p, 1000, state.NewMemory()))
	require.Greater(t, sizeOf(want[0]), 30_000)
	cfg.BatchBytes = minBatchBytes
	require.Equal(t, want, run(openNarrow(t, cfg, p, &narrow{newLossy(), narrowCall})))
}
