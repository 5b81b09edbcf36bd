package control

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

func FuzzDecode(f *testing.F) {
	_, record, err := NewAPIKey(NewKey{Tenant: "acme"}, time.UnixMilli(1))
	require.NoError(f, err)
	entries := []*controlv1.ManifestEntry{{Rule: RuleHash([]byte("a")), File: "a.yml", Line: 1}}
	for _, o := range []*controlv1.Control{
		{Object: &controlv1.Control_ApiKey{ApiKey: record}},
		{Object: &controlv1.Control_Rule{Rule: &controlv1.Rule{Hash: RuleHash([]byte("a")), Source: []byte("a")}}},
		{Object: &controlv1.Control_Manifest{Manifest: &controlv1.Manifest{Hash: ManifestHash(entries), Entries: entries}}},
		{Object: &controlv1.Control_Subscription{Subscription: &controlv1.Subscription{Tenant: "acme", Id: "x"}}},
		{Object: &controlv1.Control_TenantKey{TenantKey: &controlv1.TenantKey{Tenant: "acme", Version: 1}}},
		{Object: &controlv1.Control_Tenant{Tenant: &controlv1.Tenant{Id: "acme"}}},
		{Object: &controlv1.Control_Silence{Silence: &controlv1.Silence{Tenant: "acme", Id: "s"}}},
	} {
		r, err := encode(o)
		require.NoError(f, err)
		f.Add(r.Key, r.Value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		d := newDraft(new(snapshot))
		d.remove(key)
		object, err := Decode(key, value)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		if object == nil {
			return
		}
		d.put(object, 1)
		again, err := encode(object)
		require.NoError(t, err)
		require.Equal(t, key, again.Key)
		back, err := Decode(again.Key, again.Value)
		require.NoError(t, err)
		require.True(t, proto.Equal(object, back))
		d.remove(key)
		require.Empty(t, d.keys)
		require.Empty(t, d.byHash)
		require.Empty(t, d.rules)
	})
}

func TestDraftLeavesItsBaseAlone(t *testing.T) {
	d := newDraft(new(snapshot))
	d.put(&controlv1.Control{Object: &controlv1.Control_TenantKey{TenantKey: &controlv1.TenantKey{Tenant: "a", Version: 1}}}, 1)
	base := d.snapshot
	d = newDraft(&base)
	d.put(&controlv1.Control{Object: &controlv1.Control_TenantKey{TenantKey: &controlv1.TenantKey{Tenant: "a", Version: 2}}}, 2)
	d.remove("kek/a/1")
	require.Len(t, base.keks["a"], 1)
	require.Contains(t, base.keks["a"], uint32(1))
	require.Contains(t, d.keks["a"], uint32(2))
	require.NotContains(t, d.keks["a"], uint32(1))
}

func BenchmarkAuthenticate(b *testing.B) {
	plain, record, err := NewAPIKey(NewKey{Tenant: "acme"}, time.UnixMilli(1))
	require.NoError(b, err)
	d := newDraft(new(snapshot))
	d.put(&controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: record}}, 1)
	v := Open(DefaultConfig(), nil, nil, time.Now)
	v.publish(d, 2)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Authenticate(b.Context(), plain); err != nil {
			b.Fatal(err)
		}
	}
}
