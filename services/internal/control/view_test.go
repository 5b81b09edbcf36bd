package control_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/control/controltest"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(k *controlv1.APIKey) *controlv1.Control {
	return &controlv1.Control{Object: &controlv1.Control_ApiKey{ApiKey: k}}
}

func subscription(tenant, id, revision string) *controlv1.Control {
	return &controlv1.Control{Object: &controlv1.Control_Subscription{Subscription: &controlv1.Subscription{Tenant: tenant, Id: id, Revision: revision}}}
}

func newKey(t *testing.T, spec control.NewKey) (string, *controlv1.APIKey) {
	t.Helper()
	plain, record, err := control.NewAPIKey(spec, time.Now())
	require.NoError(t, err)
	return plain, record
}

func TestKeyWorksEverywhereAtOnce(t *testing.T) {
	broker := embeddedtest.Start(t)
	writer, reader := controltest.Open(t, broker.Addr()), controltest.Open(t, broker.Addr())
	for i := range 20 {
		plain, record := newKey(t, control.NewKey{Tenant: "acme", Name: fmt.Sprint(i), Scopes: []string{"ingest", "read"}, Sources: []string{"trail"}})
		require.NoError(t, writer.Put(t.Context(), key(record)))
		id, err := reader.Authenticate(t.Context(), plain)
		require.NoError(t, err)
		require.Equal(t, control.Identity{Tenant: "acme", KeyID: record.Id, Scopes: []string{"ingest", "read"}, Sources: []string{"trail"}}, id)
		require.True(t, id.Has("read"))
		require.False(t, id.Has("manage"))
		require.False(t, id.MayUse("other"))
	}
	require.Len(t, reader.Keys("acme"), 20)
	require.Empty(t, reader.Keys("other"))
}

func TestAuthenticateRefuses(t *testing.T) {
	broker := embeddedtest.Start(t)
	v := controltest.Open(t, broker.Addr())
	now := time.Now()
	good, goodRecord := newKey(t, control.NewKey{Tenant: "acme"})
	expired, expiredRecord := newKey(t, control.NewKey{Tenant: "acme", Expires: now.Add(-time.Millisecond)})
	later, laterRecord := newKey(t, control.NewKey{Tenant: "acme", Expires: now.Add(time.Hour)})
	revoked, revokedRecord := newKey(t, control.NewKey{Tenant: "acme"})
	revokedRecord.RevokedMs = 1
	deleted, deletedRecord := newKey(t, control.NewKey{Tenant: "acme"})
	stranger, _ := newKey(t, control.NewKey{Tenant: "acme"})
	require.NoError(t, v.Put(t.Context(), key(goodRecord), key(expiredRecord), key(laterRecord), key(revokedRecord), key(deletedRecord)))
	require.NoError(t, v.Delete(t.Context(), control.APIKeyKey(deletedRecord.Id)))
	last := good[len(good)-1]
	flipped := good[:len(good)-1] + string('0'+(last-'0'+1)%8)
	for name, tc := range map[string]struct {
		key  string
		want error
	}{
		"good":              {good, nil},
		"not yet expired":   {later, nil},
		"expired":           {expired, control.ErrExpiredKey},
		"revoked":           {revoked, control.ErrRevokedKey},
		"deleted":           {deleted, control.ErrUnknownKey},
		"never stored":      {stranger, control.ErrUnknownKey},
		"one character off": {flipped, control.ErrUnknownKey},
		"empty":             {"", control.ErrUnknownKey},
		"too long":          {good + "x", control.ErrUnknownKey},
		"other prefix":      {"sbx_" + good[4:], control.ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Authenticate(t.Context(), tc.key)
			require.ErrorIs(t, err, tc.want)
		})
	}
}

func TestUnknownKeysShareLookups(t *testing.T) {
	broker := embeddedtest.Start(t)
	log := &countingLog{Log: controltest.NewLog(t, broker.Addr())}
	v := control.Open(control.DefaultConfig(), log, slog.New(slog.DiscardHandler), time.Now)
	controltest.Run(t, v)
	before := log.ends.Load()
	begin := time.Now()
	var wg sync.WaitGroup
	for range 200 {
		plain, _ := newKey(t, control.NewKey{Tenant: "acme"})
		wg.Go(func() {
			_, err := v.Authenticate(t.Context(), plain)
			if !errors.Is(err, control.ErrUnknownKey) {
				t.Errorf("got %v, want %v", err, control.ErrUnknownKey)
			}
		})
	}
	wg.Wait()
	allowed := int64(time.Since(begin)/control.DefaultConfig().LookupInterval) + 2
	require.LessOrEqual(t, log.ends.Load()-before, allowed)
}

type countingLog struct {
	control.Log
	ends atomic.Int64
	down atomic.Bool
}

func (l *countingLog) Offsets(ctx context.Context) (start, end int64, err error) {
	l.ends.Add(1)
	if l.down.Load() {
		return 0, 0, errors.New("down")
	}
	return l.Log.Offsets(ctx)
}

func TestUnavailableLogIsNotAnUnknownKey(t *testing.T) {
	broker := embeddedtest.Start(t)
	log := &countingLog{Log: controltest.NewLog(t, broker.Addr())}
	v := control.Open(control.DefaultConfig(), log, slog.New(slog.DiscardHandler), time.Now)
	controltest.Run(t, v)
	known, record := newKey(t, control.NewKey{Tenant: "acme"})
	require.NoError(t, v.Put(t.Context(), key(record)))
	log.down.Store(true)
	_, err := v.Authenticate(t.Context(), known)
	require.NoError(t, err)
	unknown, _ := newKey(t, control.NewKey{Tenant: "acme"})
	_, err = v.Authenticate(t.Context(), unknown)
	require.ErrorIs(t, err, control.ErrUnavailable)
	require.ErrorIs(t, v.Put(t.Context(), key(record)), control.ErrUnavailable)
}

func TestRevocationReachesOtherViews(t *testing.T) {
	broker := embeddedtest.Start(t)
	writer, reader := controltest.Open(t, broker.Addr()), controltest.Open(t, broker.Addr())
	plain, record := newKey(t, control.NewKey{Tenant: "acme"})
	require.NoError(t, writer.Put(t.Context(), key(record)))
	_, err := reader.Authenticate(t.Context(), plain)
	require.NoError(t, err)
	changed := reader.Changed()
	record.RevokedMs = time.Now().UnixMilli()
	require.NoError(t, writer.Put(t.Context(), key(record)))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	select {
	case <-changed:
	case <-ctx.Done():
		t.Fatal("revocation did not arrive within 5 s")
	}
	_, err = reader.Authenticate(t.Context(), plain)
	require.ErrorIs(t, err, control.ErrRevokedKey)
}

func TestSubscriptionsAreSortedAndSeparate(t *testing.T) {
	broker := embeddedtest.Start(t)
	v := controltest.Open(t, broker.Addr())
	require.NoError(t, v.Put(t.Context(),
		subscription("acme", "b", "1"), subscription("acme", "a", "1"), subscription("acme", "c", "1"),
		subscription("acme", "b", "2"), subscription("other", "a", "1")))
	before := v.Subscriptions("acme")
	require.NoError(t, v.Delete(t.Context(), control.SubscriptionKey("acme", "a")))
	require.Len(t, before, 3, "a slice that was read must not change")
	var got []string
	for _, s := range v.Subscriptions("acme") {
		got = append(got, s.GetId()+s.GetRevision())
	}
	require.Equal(t, []string{"b2", "c1"}, got)
	_, ok := v.Subscription("other", "b")
	require.False(t, ok)
	_, ok = v.Subscription("other", "a")
	require.True(t, ok)
}

func docs(sources ...string) []control.Document {
	var out []control.Document
	for i, s := range sources {
		out = append(out, control.Document{File: "rules.yml", Line: i + 1, Source: []byte(s)})
	}
	return out
}

func TestPushRules(t *testing.T) {
	broker := embeddedtest.Start(t)
	v := controltest.Open(t, broker.Addr())
	ctx := t.Context()
	first, err := v.PushRules(ctx, "", docs("a: 1", "b: 2"))
	require.NoError(t, err)
	all, own := v.Manifests("acme")
	require.Equal(t, first, all)
	require.Nil(t, own)

	offset := v.Offset()
	again, err := v.PushRules(ctx, "", docs("a: 1", "b: 2"))
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, offset, v.Offset(), "the same set in force is not written again")

	second, err := v.PushRules(ctx, "", docs("a: 1", "c: 3"))
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	mine, err := v.PushRules(ctx, "acme", docs("d: 4"))
	require.NoError(t, err)
	all, own = v.Manifests("acme")
	require.Equal(t, second, all)
	require.Equal(t, mine, own)

	back, err := v.PushRules(ctx, "", docs("b: 2", "a: 1"))
	require.NoError(t, err)
	require.Equal(t, first, back, "order does not matter")
	all, _ = v.Manifests("")
	require.Equal(t, first, all)

	other := controltest.Open(t, broker.Addr())
	all, own = other.Manifests("acme")
	require.Equal(t, first, all, "the last in the log is in force")
	require.Equal(t, mine, own)
	for _, hash := range [][]byte{first, second, mine} {
		require.NoError(t, other.AwaitManifest(ctx, hash), "earlier manifests stay")
	}
	m, ok := other.Manifest(second)
	require.True(t, ok)
	require.Len(t, m.GetEntries(), 2)
	r, ok := other.Rule(m.GetEntries()[0].GetRule())
	require.True(t, ok)
	require.Contains(t, []string{"a: 1", "c: 3"}, string(r.GetSource()))

	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, other.AwaitManifest(short, control.RuleHash([]byte("nowhere"))), context.DeadlineExceeded)
}

func TestPushManyRules(t *testing.T) {
	broker := embeddedtest.Start(t)
	v := controltest.Open(t, broker.Addr())
	var many []control.Document
	for i := range 3200 {
		many = append(many, control.Document{File: "many.yml", Line: i, Source: []byte(fmt.Sprintf("id: %d\n%s", i, strings.Repeat("x", 1000)))})
	}
	hash, err := v.PushRules(t.Context(), "", many)
	require.NoError(t, err)
	other := controltest.Open(t, broker.Addr())
	require.NoError(t, other.AwaitManifest(t.Context(), hash))
}

func TestCorruptRecordsAreSkipped(t *testing.T) {
	broker := embeddedtest.Start(t)
	log := controltest.NewLog(t, broker.Addr())
	v := controltest.Open(t, broker.Addr())
	plain, record := newKey(t, control.NewKey{Tenant: "acme"})
	require.NoError(t, log.Append(t.Context(),
		control.Record{Key: "key/abc", Value: []byte("\xff\xff\xff")},
		control.Record{Key: "", Value: []byte{}},
		control.Record{Key: "manifest/", Value: nil},
		control.Record{Key: "future/thing", Value: []byte{0xba, 0x3e, 0x00}},
	))
	require.NoError(t, v.Put(t.Context(), key(record)))
	_, err := v.Authenticate(t.Context(), plain)
	require.NoError(t, err)
	require.Equal(t, int64(1), v.Corrupt())
}

func TestPutRefusesWhatCannotBeRead(t *testing.T) {
	broker := embeddedtest.Start(t)
	v := controltest.Open(t, broker.Addr())
	for name, object := range map[string]*controlv1.Control{
		"nothing":            {},
		"slash in an id":     subscription("a/b", "c", "1"),
		"no id":              subscription("acme", "", "1"),
		"key without a hash": key(&controlv1.APIKey{Id: "x", Tenant: "acme"}),
		"foreign rule hash": {Object: &controlv1.Control_Rule{Rule: &controlv1.Rule{
			Hash: control.RuleHash([]byte("a")), Source: []byte("b"),
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, v.Put(t.Context(), object))
			require.Zero(t, v.Offset())
		})
	}
}

func TestSyncSeesAllThatWasAcknowledged(t *testing.T) {
	broker := embeddedtest.Start(t)
	writer, v := controltest.Open(t, broker.Addr()), controltest.Open(t, broker.Addr())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				id := fmt.Sprintf("s-%d-%d", i, j)
				err := writer.Put(t.Context(), subscription("acme", id, "1"))
				if err == nil {
					err = v.Sync(t.Context())
				}
				if _, ok := v.Subscription("acme", id); err != nil || !ok {
					t.Errorf("%s: found %v, error %v", id, ok, err)
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, v.Subscriptions("acme"), 80)
}

func TestPushTooMuch(t *testing.T) {
	v := controltest.Open(t, embeddedtest.Start(t).Addr())
	docs := make([]control.Document, 6000)
	for i := range docs {
		docs[i] = control.Document{File: strings.Repeat("d/", 80) + fmt.Sprint(i), Line: 1, Source: fmt.Append(nil, "title: ", i)}
	}
	before := v.Offset()
	_, err := v.PushRules(t.Context(), "acme", docs)
	require.ErrorIs(t, err, control.ErrTooLarge)
	require.NotErrorIs(t, err, control.ErrUnavailable)
	require.NoError(t, v.Sync(t.Context()))
	require.Equal(t, before, v.Offset(), "nothing was written")
}
