package correlator

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/state"
)

// TestFullGroupIsTold once an hour, by the records alone: whoever folds them, and
// from wherever, says the same.
func TestFullGroupIsTold(t *testing.T) {
	cfg := modelConfig()
	cfg.BatchRecords, cfg.BatchBytes, cfg.CacheBytes = 500, 768<<10, 256<<20
	p := compile(t, cfg, decidedRules)
	l := &feed{p: p}
	const over = 50
	for i := range int64(window.MaxRecords + over) {
		l.detect("t", "few", "bob", fmt.Sprintf("e%06d", i), t0+10*i, t0+10*i)
	}
	l.detect("t", "few", "eve", "x", t0, t0+hourMS) // a group of its own, which has room
	l.detect("t", "few", "bob", "y", t0+hourMS, t0+hourMS)
	l.detect("t", "few", "bob", "z", t0+hourMS, t0+hourMS)
	f := openFolder(t, cfg, p, 10, state.NewMemory())
	want := foldAll(t, f, l)
	require.Len(t, want, 2, "one an hour")
	a := want[0]
	require.Equal(t, alert.FullRule, a.GetRule().GetId())
	require.Equal(t, "A group is full", a.GetRule().GetTitle())
	require.Equal(t, "meta", a.GetRule().GetType())
	require.Equal(t, []string{"correlation", "few", "user", "bob"}, []string{
		a.GetGroup()[0].GetField(), a.GetGroup()[0].GetValue(), a.GetGroup()[1].GetField(), a.GetGroup()[1].GetValue(),
	})
	require.Contains(t, a.GetSummary(), "limit of 100000 records")
	require.Contains(t, a.GetSummary(), "left undecided")
	rule := f.counts.board.Tenant("t").Rule("few")
	require.EqualValues(t, over+2, rule.Shed.Value())
	require.EqualValues(t, over+2, rule.Cut.Value(), "each of these events had a window")

	var got []*alertv1.Alert
	store, part := state.NewMemory(), &feed{p: p}
	for _, n := range []int{window.MaxRecords, window.MaxRecords + 7, window.MaxRecords + over, len(l.records)} {
		part.records = l.records[:n]
		got = append(got, foldAll(t, openFolder(t, cfg, p, 10, store), part)...)
	}
	require.Equal(t, idsOf(want), idsOf(got))

	part.records = l.records[:window.MaxRecords]
	again := openFolder(t, cfg, p, 10, state.NewMemory())
	foldAll(t, again, part)
	clear(again.tallies) // as where there are many
	require.Equal(t, idsOf(want), idsOf(foldAll(t, again, l)))
	silent := openFolder(t, cfg, p, 10, state.NewMemory())
	silent.silent = int64(len(l.records))
	require.Empty(t, foldAll(t, silent, l))
	require.Zero(t, silent.counts.board.Tenant("t").Rule("few").Shed.Value())
}

func idsOf(alerts []*alertv1.Alert) (ids []string) {
	for _, a := range alerts {
		ids = append(ids, a.GetId())
	}
	slices.Sort(ids)
	return ids
}

// TestTallyRemembersWhatWasTold also of one that was written before groups were
// told to be full.
func TestTallyRemembersWhatWasTold(t *testing.T) {
	was := newTally("k")
	was.groups, was.said = 3, 7
	short := was.change().Fields
	read := newTally("k")
	require.NoError(t, read.decode(short))
	require.Equal(t, []int64{3, 7, unseen}, []int64{read.groups, read.said, read.saidFull})
	was.saidFull = 9
	require.NoError(t, read.decode(was.change().Fields))
	require.Equal(t, []int64{3, 7, 9}, []int64{read.groups, read.said, read.saidFull})
}
