package correlator

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/state"
)

// TestEvaluationFoldsAsTheStoreDoes: without a store, and without a byte of
// encoding, the alerts are the same whole alerts in the same order.
func TestEvaluationFoldsAsTheStoreDoes(t *testing.T) {
	for name, rules := range map[string]string{"at once": testRules, "decided": decidedRules, "extended": extendedRules} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			p := compile(t, cfg, rules)
			for _, c := range p.correlations {
				c.spec.AnyAge = true
			}
			random := rand.New(rand.NewPCG(3, 4))
			events := make([]event.Event, 300)
			for i := range events {
				a := accepted{id: fmt.Sprintf("e-%d", random.IntN(270)), tenant: "t", time: t0 + random.Int64N(400_000), ingest: t0, fields: map[string]string{
					"action": string(rune('a' + random.IntN(3))), "user": fmt.Sprint("u", random.IntN(4)), "actor": fmt.Sprint("u", random.IntN(4)),
					"ip": fmt.Sprint(random.IntN(5)), "zone": fmt.Sprint(1 + random.IntN(2)),
				}}
				_, value := a.record()
				var err error
				events[i], err = event.Decode(value)
				require.NoError(t, err)
				events[i].Late, events[i].Early = false, false
			}
			want := stored(t, cfg, p, slices.Clone(events))

			e, err := NewEvaluation(t.Context(), cfg, p.set)
			require.NoError(t, err)
			var got []*alertv1.Alert
			heard := func(a *alertv1.Alert) error { //nolint:unparam // what Fold and Close take
				got = append(got, a)
				return nil
			}
			evaluator := e.Evaluator()
			for chunk := range slices.Chunk(events, 100) {
				m, err := evaluator.Match(t.Context(), chunk)
				require.NoError(t, err)
				require.NoError(t, e.Fold(t.Context(), m, heard, func(reason string) { require.Fail(t, reason) }))
			}
			require.NoError(t, e.Close(t.Context(), heard))
			require.Greater(t, len(want), 20)
			require.Len(t, got, len(want))
			for i := range want {
				require.True(t, proto.Equal(want[i], got[i]), "%d: %s\n%s", i, want[i], got[i])
			}
		})
	}
}

// stored gives the alerts of correlations as stage correlate does with a store.
func stored(t *testing.T, cfg Config, p *plan, events []event.Event) []*alertv1.Alert {
	t.Helper()
	m := &matching{
		d:      &detector{cfg: cfg, plans: always{p}, tracer: tracenoop.Tracer{}, counts: noCounts(t), log: slog.New(slog.DiscardHandler)},
		ingest: unseen, alone: true,
	}
	m.reset()
	w, l := &work{ingest: unseen}, &feed{p: p}
	for i := range events {
		require.NoError(t, m.event(t.Context(), &bus.Record{Topic: TopicEvents}, &events[i], w))
	}
	for _, d := range w.detections {
		l.records = append(l.records, Record{Topic: TopicDetections, Offset: int64(len(l.records)), Key: d.Key, Value: d.Value, Headers: d.Headers})
	}
	l.watermark(afterAll)
	return foldAll(t, openFolder(t, cfg, p, 1000, state.NewMemory()), l)
}
