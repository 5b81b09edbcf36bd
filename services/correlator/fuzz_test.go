package correlator

import (
	"testing"

	"github.com/stretchr/testify/require"

	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/state"
)

func FuzzDecodeMessage(f *testing.F) {
	m := message{kind: toAlerts, key: []byte("k"), value: []byte("v"), headers: newHeaders(schemaAlert, "t")}
	f.Add(m.encode())
	f.Add((&message{kind: toDLQ}).encode())
	f.Add([]byte{toAlerts, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := decodeMessage(b)
		if !ok {
			return
		}
		again, ok := decodeMessage(m.encode())
		require.True(t, ok)
		require.Len(t, again.headers, len(m.headers))
		require.Equal(t, string(m.key)+"|"+string(m.value), string(again.key)+"|"+string(again.value))
	})
}

func FuzzDecodeMeta(f *testing.F) {
	m := meta{marks: marks{{0, 1}: {7, 8}, {1, 0}: {9, -3}}, lookBack: 5}
	f.Add(m.encode())
	m.reigns = reigns{{"", "manifest", 3, 4, open}, {"t", "", noUpstream, unseen, 9}}
	f.Add(m.encode())
	f.Add(m.marks.append([]byte{1, 20}))
	f.Add([]byte{metaVersion, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := decodeMeta(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, again)
		m.marks.watermark(0, 3)
	})
}

func FuzzParseProgress(f *testing.F) {
	f.Add(progress{ingest: 1, watermark: unseen, lookBack: 3}.String())
	f.Add("v1 w=9223372036854775808")
	f.Add("v2")
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parseProgress(s)
		if !ok {
			require.Equal(t, progress{ingest: unseen, watermark: unseen}, p)
			return
		}
		again, ok := parseProgress(p.String())
		require.True(t, ok)
		require.Equal(t, p, again)
	})
}

func FuzzParseIdentity(f *testing.F) {
	spec := &window.Spec{Kind: window.TemporalOrdered, Timespan: 1000, Lateness: 5, Min: 2, Rules: 3, StrictTies: true, Suppress: 9000}
	f.Add(identity(spec, &detectionv1.Detection{Tenant: "t", CorrelationId: "c", CorrelationRevision: "r", Group: []string{"g", ""}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, name, err := parseIdentity(b)
		if err != nil {
			return
		}
		require.NoError(t, spec.Validate())
		again, name2, err := parseIdentity(identity(&spec, &detectionv1.Detection{Tenant: name.tenant, CorrelationId: name.correlation, CorrelationRevision: name.revision, Group: name.group}))
		require.NoError(t, err)
		require.Equal(t, spec, again)
		require.Equal(t, name, name2)
		g, ok, err := newNames().openGroup("k", []state.Field{{Name: identityField, Value: b}})
		if err == nil {
			require.True(t, ok)
			g.win.Advance(0)
		}
	})
}

func FuzzTally(f *testing.F) {
	f.Add([]byte{2, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var x, y tally
		if x.decode([]state.Field{{Name: tallyField, Value: b}}) != nil || x.groups == 0 {
			return
		}
		require.NoError(t, y.decode(x.change().Fields))
		require.Equal(t, x, y)
	})
}

// FuzzDetect gives stage detect and the fold bytes that no gateway and no stage
// has written.
func FuzzFold(f *testing.F) {
	f.Add([]byte("\x0a\x01t"), schemaDetection)
	f.Add([]byte{8, 1, 16, 2}, schemaWatermark)
	f.Add([]byte{1}, schemaRuling)
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, value []byte, schema string) {
		fold := newFolder(t, 10)
		rec := Record{Topic: TopicDetections, Offset: 0, Value: value, Headers: newHeaders(schema, "t")}
		n, _, err := fold.fold(t.Context(), []Record{rec})
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}
