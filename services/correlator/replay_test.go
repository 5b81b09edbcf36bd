package correlator

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/history"
)

// TestReplayedDetectionsAreFolded: what detect has said of its own partitions
// makes a copy of what it wrote, and none of a replay. A second replay adds
// nothing.
func TestReplayedDetectionsAreFolded(t *testing.T) {
	f := newFolder(t, 10)
	l := &feed{p: f.plans.(always).plan}
	l.detect("t", "count", "bob", "a", t0, t0)
	l.detect("t", "count", "bob", "b", t0, t0)
	lost := &feed{p: l.p}
	lost.detect("t", "count", "bob", "c", t0, t0) // it died, and the log went on
	l.put(schemaWatermark, &detectionv1.Watermark{NextOffset: 1000, WatermarkMs: t0})
	l.records = append(l.records, lost.records[0])
	l.records[len(l.records)-1].Offset = int64(len(l.records) - 1)
	require.Empty(t, foldAll(t, f, l), "a copy of what was written before the watermark")

	dead, err := bus.DeadLetter(&lost.records[0], stageCorrelate, "boom", 3)
	require.NoError(t, err)
	letter, whole, ok := bus.ReadDeadLetter(&bus.Record{Value: dead.Value, Headers: dead.Headers})
	require.True(t, ok)
	again := func() (alerts int) {
		d := history.Dead{DeadLetter: proto.CloneOf(letter), Whole: whole}
		m, err := d.Replay(t0+1000, nil, nil)
		require.NoError(t, err)
		l.records = append(l.records, Record{Topic: TopicDetections, Offset: int64(len(l.records)), Key: m.Key, Value: m.Value, Headers: m.Headers})
		got := foldAll(t, f, l)
		for _, a := range got {
			require.Equal(t, "c", a.GetEvents()[2].GetId())
		}
		return len(got)
	}
	require.Equal(t, 1, again())
	require.Zero(t, again())
}
