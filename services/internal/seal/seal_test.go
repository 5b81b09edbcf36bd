package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/control/controltest"
	"github.com/stormbell/stormbell/services/internal/embedded/embeddedtest"
	"github.com/stormbell/stormbell/services/internal/seal"
)

const canary = "whsec_canary-7f3a9c"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newRoot(t testing.TB) *seal.Root {
	t.Helper()
	root, err := seal.CreateRoot(filepath.Join(t.TempDir(), "key"))
	require.NoError(t, err)
	return root
}

func place() seal.Place {
	return seal.Place{Tenant: "acme", Kind: "subscription", ID: "s1", Field: "secret"}
}

func TestSealedValueOpensInItsPlaceOnly(t *testing.T) {
	view := controltest.Open(t, embeddedtest.Start(t).Addr())
	s := seal.New(newRoot(t), view, quiet(), time.Now)
	sealed, err := s.Seal(t.Context(), place(), seal.NewSecret(canary))
	require.NoError(t, err)
	other, err := s.Seal(t.Context(), seal.Place{Tenant: "other", Kind: "subscription", ID: "s1", Field: "secret"}, seal.NewSecret("x"))
	require.NoError(t, err)
	require.NotEqual(t, other.Kek, sealed.Kek)

	raw, err := proto.Marshal(sealed)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "canary")
	plain, err := s.Open(place(), sealed)
	require.NoError(t, err)
	require.Equal(t, canary, plain.Reveal())

	for name, change := range map[string]func(*seal.Place, *controlv1.Sealed){
		"tenant":             func(p *seal.Place, _ *controlv1.Sealed) { p.Tenant = "other" },
		"tenant and its key": func(p *seal.Place, v *controlv1.Sealed) { p.Tenant, v.Kek = "other", other.Kek },
		"kind":               func(p *seal.Place, _ *controlv1.Sealed) { p.Kind = "destination" },
		"id":                 func(p *seal.Place, _ *controlv1.Sealed) { p.ID = "s2" },
		"field":              func(p *seal.Place, _ *controlv1.Sealed) { p.Field = "url" },
		"parts shifted":      func(p *seal.Place, _ *controlv1.Sealed) { p.ID, p.Field = "s1s", "ecret" },
		"version":            func(_ *seal.Place, v *controlv1.Sealed) { v.Version++ },
		"salt":               func(_ *seal.Place, v *controlv1.Sealed) { v.Salt[0] ^= 1 },
		"short salt":         func(_ *seal.Place, v *controlv1.Sealed) { v.Salt = v.Salt[1:] },
		"truncated":          func(_ *seal.Place, v *controlv1.Sealed) { v.Ciphertext = v.Ciphertext[:len(v.Ciphertext)-1] },
		"nothing":            func(_ *seal.Place, v *controlv1.Sealed) { v.Ciphertext = nil },
	} {
		t.Run(name, func(t *testing.T) {
			p, v := place(), proto.CloneOf(sealed)
			change(&p, v)
			_, err := s.Open(p, v)
			require.Error(t, err)
			require.NotContains(t, err.Error(), canary)
		})
	}
	for i := range sealed.Ciphertext {
		v := proto.CloneOf(sealed)
		v.Ciphertext[i] ^= 0x80
		_, err := s.Open(place(), v)
		require.ErrorIs(t, err, seal.ErrSealed, "byte %d flipped", i)
	}
}

func TestTwoProcessesMakeATenantsFirstKey(t *testing.T) {
	broker := embeddedtest.Start(t)
	root := newRoot(t)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		values []*controlv1.Sealed
	)
	for range 2 {
		view := controltest.Open(t, broker.Addr())
		s := seal.New(root, view, quiet(), time.Now)
		for range 4 {
			wg.Go(func() {
				v, err := s.Seal(t.Context(), place(), seal.NewSecret(canary))
				mu.Lock()
				defer mu.Unlock()
				if values = append(values, v); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	s := seal.New(root, controltest.Open(t, broker.Addr()), quiet(), time.Now)
	for _, v := range values {
		plain, err := s.Open(place(), v)
		require.NoError(t, err)
		require.Equal(t, canary, plain.Reveal())
	}
}

func TestRotation(t *testing.T) {
	view := controltest.Open(t, embeddedtest.Start(t).Addr())
	oldKey := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	newKey := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32))
	before, err := seal.ParseRoot(oldKey)
	require.NoError(t, err)
	both, err := seal.ParseRoot("# old\n" + oldKey + "\n\n" + newKey + "\n")
	require.NoError(t, err)
	after, err := seal.ParseRoot(newKey)
	require.NoError(t, err)

	first, err := seal.New(before, view, quiet(), time.Now).Seal(t.Context(), place(), seal.NewSecret("one"))
	require.NoError(t, err)
	s := seal.New(both, view, quiet(), func() time.Time { return time.Now().Add(time.Second) })
	require.NoError(t, s.Rotate(t.Context(), "acme"))
	second, err := s.Seal(t.Context(), place(), seal.NewSecret("two"))
	require.NoError(t, err)
	require.NotEqual(t, first.Kek, second.Kek)
	for want, v := range map[string]*controlv1.Sealed{"one": first, "two": second} {
		plain, err := s.Open(place(), v)
		require.NoError(t, err)
		require.Equal(t, want, plain.Reveal())
	}
	_, err = seal.New(after, view, quiet(), time.Now).Open(place(), first)
	require.ErrorIs(t, err, seal.ErrNoKey)
	_, err = seal.New(after, view, quiet(), time.Now).Open(place(), second)
	require.NoError(t, err)

	require.NoError(t, view.Delete(t.Context(), control.KEKKey("acme", second.Kek)))
	_, err = seal.New(after, view, quiet(), time.Now).Open(place(), second)
	require.ErrorIs(t, err, seal.ErrNoKey, "a destroyed tenant key takes its values along")
}

func TestRewrappedKeysNeedTheLastRootOnly(t *testing.T) {
	view := controltest.Open(t, embeddedtest.Start(t).Addr())
	oldKey := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	newKey := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32))
	root, err := seal.ParseRoot(oldKey)
	require.NoError(t, err)
	s := seal.New(root, view, quiet(), time.Now)
	first, err := s.Seal(t.Context(), place(), seal.NewSecret("one"))
	require.NoError(t, err)
	n, err := s.Rewrap(t.Context(), view.TenantKeys())
	require.NoError(t, err)
	require.Zero(t, n)

	both, err := seal.ParseRoot(oldKey + "\n" + newKey)
	require.NoError(t, err)
	require.True(t, both.Has(root.Last()))
	require.False(t, root.Has(both.Last()))
	root.Replace(both) // in a sealer that runs
	n, err = s.Rewrap(t.Context(), view.TenantKeys())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Len(t, view.TenantKeys(), 1)
	require.Equal(t, both.Last(), view.TenantKeys()[0].GetRootId())

	after, err := seal.ParseRoot(newKey)
	require.NoError(t, err)
	for _, root := range []*seal.Root{both, after} {
		plain, err := seal.New(root, view, quiet(), time.Now).Open(place(), first)
		require.NoError(t, err)
		require.Equal(t, "one", plain.Reveal())
	}
	before, err := seal.ParseRoot(oldKey)
	require.NoError(t, err)
	lacks := seal.New(before, view, quiet(), time.Now)
	_, err = lacks.Open(place(), first)
	require.ErrorIs(t, err, seal.ErrNoKey)
	_, err = lacks.Rewrap(t.Context(), view.TenantKeys())
	require.ErrorIs(t, err, seal.ErrNoKey, "what does not open is left as it is")
	require.Equal(t, both.Last(), view.TenantKeys()[0].GetRootId())
}

func TestRootFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	_, err := seal.LoadRoot(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	root, err := seal.CreateRoot(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	loaded, err := seal.LoadRoot(path)
	require.NoError(t, err)
	require.Equal(t, root.Last(), loaded.Last())
	_, err = seal.CreateRoot(path)
	require.ErrorIs(t, err, os.ErrExist, "a key is never replaced")
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.NoError(t, os.Chmod(path, 0o640))
	_, err = seal.LoadRoot(path)
	require.ErrorContains(t, err, "chmod 600")
	for name, text := range map[string]string{"empty": "", "comment only": "# x\n", "short": "c2hvcnQ=", "not base64": "?"} {
		_, err := seal.ParseRoot(text)
		require.Error(t, err, name)
	}
	require.Equal(t, "[redacted] [redacted]", fmt.Sprintf("%v %#v", root, root))
}

func TestSecretNeverPrints(t *testing.T) {
	type config struct {
		Password seal.Secret
		Pointer  *seal.Secret
	}
	s := seal.NewSecret(canary)
	c := config{s, &s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		fmt.Fprintf(&out, verb+" ", s)
		fmt.Fprintf(&out, verb+" ", &s)
		fmt.Fprintf(&out, verb+" ", c)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "a", s, "b", &s, "c", c)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "a", s, "b", &s, "c", c)
	require.NoError(t, json.NewEncoder(&out).Encode(c))
	require.NoError(t, yaml.NewEncoder(&out).Encode(c))
	require.NotContains(t, out.String(), "canary")
	require.NotContains(t, out.String(), fmt.Sprintf("%x", "canary"))
	require.Contains(t, out.String(), "[redacted]")
	var back config
	require.NoError(t, json.Unmarshal([]byte(`{"Password":"p"}`), &back))
	require.Equal(t, "p", back.Password.Reveal())
	require.NoError(t, yaml.Unmarshal([]byte("password: q"), &back))
	require.Equal(t, "q", back.Password.Reveal())
}

// memory is a key store for the fuzzer, which a broker would slow down.
type memory struct{ key *controlv1.TenantKey }

func (m *memory) TenantKey(_ string, version uint32) (*controlv1.TenantKey, bool) {
	return m.key, m.key != nil && m.key.Version == version
}
func (m *memory) NewestTenantKey(string) (*controlv1.TenantKey, bool) { return m.key, m.key != nil }
func (m *memory) Put(_ context.Context, objects ...*controlv1.Control) error {
	m.key = objects[0].GetTenantKey()
	return nil
}

func FuzzOpen(f *testing.F) {
	s := seal.New(newRoot(f), new(memory), quiet(), time.Now)
	good, err := s.Seal(f.Context(), place(), seal.NewSecret(canary))
	require.NoError(f, err)
	f.Add(good.Version, good.Kek, good.Salt, good.Ciphertext)
	f.Add(uint32(0), uint32(0), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, version, kek uint32, salt, ciphertext []byte) {
		plain, err := s.Open(place(), &controlv1.Sealed{Version: version, Kek: kek, Salt: salt, Ciphertext: ciphertext})
		if err == nil {
			require.Equal(t, good.Ciphertext, ciphertext)
			require.Equal(t, canary, plain.Reveal())
		}
	})
}

func FuzzParseRoot(f *testing.F) {
	f.Add("# x\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := seal.ParseRoot(text)
		require.Equal(t, err != nil, root == nil)
	})
}
