package correlator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/state"
)

// TestHotGroupsAreCompacted folds what fires in every bucket of one group: it
// stays small in the store, and says the same where its owner dies at any time
// and where nothing of it was folded before.
func TestHotGroupsAreCompacted(t *testing.T) {
	f := newFolder(t, 10)
	l := &feed{p: f.plans.(always).plan}
	spec := l.p.correlations["count"].spec
	const events, buckets = 12_000, 4
	random := rand.New(rand.NewPCG(1, 2))
	begin := spec.Bucket(t0) * spec.Timespan
	for i := range int64(events) {
		at := begin + i*spec.Timespan*buckets/events
		l.detect("t", "count", "hot", fmt.Sprint("e", i), at, at+random.Int64N(1000))
		if i%50 == 0 {
			l.watermark(at - 1000)
		}
	}
	want := foldAll(t, f, l)
	require.Len(t, want, buckets)
	require.True(t, want[1].GetAtLeast())
	require.EqualValues(t, 1000, want[1].GetCount())
	c := l.p.correlations["count"]
	key := stateKey(&detectionv1.Detection{Tenant: "t", CorrelationId: c.ID, CorrelationRevision: c.Revision, Group: []string{"hot"}}, false)
	fields, err := f.store.Load(t.Context(), 0, []string{key})
	require.NoError(t, err)
	size := 0
	for _, field := range fields[0] {
		size += len(field.Value)
	}
	require.Less(t, size, 200<<10)
	require.Less(t, f.cache.used, int64(4<<20))

	store, part := state.NewMemory(), &feed{p: l.p}
	var got []*alertv1.Alert
	for len(part.records) < len(l.records) {
		part.records = l.records[:min(len(l.records), len(part.records)+random.IntN(900))]
		got = append(got, foldAll(t, openFolder(t, f.cfg, l.p, 10, store), part)...)
	}
	requireSameAlerts(t, want, got)

	// A rebuild begins somewhere before what it still has to say.
	late := openFolder(t, f.cfg, l.p, 10, state.NewMemory())
	part = &feed{p: l.p, records: slices.Clone(l.records[events/buckets-500:])}
	for i := range part.records {
		part.records[i].Offset = int64(i)
	}
	got = foldAll(t, late, part)
	requireSameAlerts(t, want[2:], got[len(got)-2:])
}

func requireSameAlerts(t *testing.T, want, got []*alertv1.Alert) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, proto.Equal(want[i], got[i]), "%v\n%v", want[i], got[i])
	}
}
