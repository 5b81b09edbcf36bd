package event_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/stormbell/stormbell/proto/stormbell/event/v1"
	"github.com/stormbell/stormbell/services/internal/event"
)

func toProto(e *event.Event) *eventv1.Event {
	return &eventv1.Event{
		Id: e.ID, Tenant: e.Tenant, Source: e.Source, Format: e.Format,
		Product: e.Product, Service: e.Service, Category: e.Category, StrictLogsource: e.StrictLogsource,
		TimeMs: e.TimeMS, OwnTime: e.OwnTime, IngestMs: e.IngestMS, LatenessMs: e.LatenessMS,
		Late: e.Late, Early: e.Early,
		ManifestAll: e.ManifestAll, ManifestTenant: e.ManifestTenant, Raw: e.Raw,
	}
}

func full() event.Event {
	return event.Event{
		ID: "6f0c", Tenant: "default", Source: "trail", Format: "cloudtrail", Product: "aws", Service: "cloudtrail",
		Category: "audit", StrictLogsource: true, TimeMS: 1_700_000_000_123, OwnTime: true, IngestMS: 1_700_000_001_000,
		LatenessMS: 600_000, Late: true, Early: true,
		ManifestAll: bytes.Repeat([]byte{1}, 32), ManifestTenant: bytes.Repeat([]byte{2}, 32), Raw: []byte(`{"a":1}`),
	}
}

func TestCodecEqualsTheContract(t *testing.T) {
	extremes := full()
	extremes.TimeMS, extremes.IngestMS, extremes.LatenessMS = math.MinInt64, math.MaxInt64, -1
	for name, e := range map[string]event.Event{
		"empty":    {},
		"full":     full(),
		"extremes": extremes,
		"raw only": {Raw: []byte("{}")},
		"unicode":  {ID: "é世界", Raw: []byte(`"\u0000"`)},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(toProto(&e))
			require.NoError(t, err)
			got := event.Encode([]byte("before"), &e)
			require.Equal(t, append([]byte("before"), want...), got)
			require.LessOrEqual(t, len(want), event.MaxOverhead+len(e.ID)+len(e.Tenant)+len(e.Source)+len(e.Format)+
				len(e.Product)+len(e.Service)+len(e.Category)+len(e.ManifestAll)+len(e.ManifestTenant)+len(e.Raw))

			back, err := event.Decode(want)
			require.NoError(t, err)
			require.Equal(t, e, back)
		})
	}
}

func TestDecodeSkipsWhatItDoesNotKnow(t *testing.T) {
	e := full()
	b := event.Encode(nil, &e)
	b = protowire.AppendString(protowire.AppendTag(b, 99, protowire.BytesType), "new")
	b = protowire.AppendFixed64(protowire.AppendTag(b, 3, protowire.Fixed64Type), 7)
	got, err := event.Decode(b)
	require.NoError(t, err)
	require.Equal(t, e, got)
}

func TestDecodeRefuses(t *testing.T) {
	e := full()
	whole := event.Encode(nil, &e)
	for name, b := range map[string][]byte{
		"cut":           whole[:len(whole)-1],
		"not UTF-8":     {0x0a, 1, 0xff},
		"field zero":    {0x02, 1, 1},
		"endless int":   {0x48, 0xff, 0xff},
		"group, no end": {0x0b},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := event.Decode(b)
			require.ErrorIs(t, err, event.ErrMalformed)
		})
	}
}

func TestTick(t *testing.T) {
	want, err := proto.Marshal(&eventv1.Tick{IngestMs: 1_700_000_000_000})
	require.NoError(t, err)
	b := event.EncodeTick(nil, 1_700_000_000_000)
	require.Equal(t, want, b)
	got, err := event.DecodeTick(b)
	require.NoError(t, err)
	require.EqualValues(t, 1_700_000_000_000, got)
	_, err = event.DecodeTick(b[:3])
	require.ErrorIs(t, err, event.ErrMalformed)
	_, err = event.DecodeTick([]byte{0x0b})
	require.ErrorIs(t, err, event.ErrMalformed)
}

func TestFlags(t *testing.T) {
	const now, lateness = 1_000_000_000, 600_000
	for name, c := range map[string]struct {
		time        int64
		late, early bool
	}{
		"on time":       {now, false, false},
		"at lateness":   {now - lateness, false, false},
		"past lateness": {now - lateness - 1, true, false},
		"at the margin": {now + event.EarlyMS, false, false},
		"ahead":         {now + event.EarlyMS + 1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			late, early := event.Flags(c.time, now, lateness)
			require.Equal(t, c.late, late)
			require.Equal(t, c.early, early)
		})
	}
}

func TestHash(t *testing.T) {
	// From: printf '\0\0\0\1l\0\0\0\1a\0\0\0\0' | sha256sum, first 20 bytes in base32hex.
	const want = "oe8r5cupitevu610mnu6huf20sj9l49d"
	require.Equal(t, want, event.Hash("l", "a", ""))
	require.Equal(t, want, event.Hash("l", []byte("a"), nil))
	require.NotEqual(t, event.Hash("l", "ab", "c"), event.Hash("l", "a", "bc"))
	require.NotEqual(t, event.Hash("l", "a"), event.Hash("l", "a", ""))
	require.NotEqual(t, event.Hash("l", "a"), event.Hash[string]("la"))
	require.Equal(t, event.Hash("stormbell-event-1", "t", "json", "k"), event.ID("t", "json", "k"))
	require.Regexp(t, "^[0-9a-v]{32}$", event.ID("t", "json"))
}

func FuzzDecode(f *testing.F) {
	e := full()
	f.Add(event.Encode(nil, &e))
	f.Add([]byte{0x0a, 1, 0xff})
	f.Add([]byte{0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := event.Decode(b)
		var want eventv1.Event
		wantErr := proto.Unmarshal(b, &want)
		if wantErr != nil {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		// Unknown fields are dropped by design.
		want.ProtoReflect().SetUnknown(nil)
		require.True(t, proto.Equal(&want, toProto(&got)))
	})
}

func BenchmarkEncode(b *testing.B) {
	e := full()
	e.Raw = bytes.Repeat([]byte("x"), 1400)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = event.Encode(buf[:0], &e)
	}
}

func BenchmarkDecode(b *testing.B) {
	e := full()
	e.Raw = bytes.Repeat([]byte("x"), 1400)
	buf := event.Encode(nil, &e)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
