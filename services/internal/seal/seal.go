// Package seal keeps small secrets (signing secrets, webhook URLs, custom
// headers) unreadable at rest.
//
// A root key, from a file or the environment, wraps one key-encryption key per
// tenant; each value is sealed under a key derived from its tenant's with a
// salt of its own, by AES-256-GCM, and bound to the place where it stands, so
// a sealed value that is moved to another tenant, object or field does not
// open. All primitives are in the FIPS 140-3 module of the standard library.
// It seals no files and no streams, and nothing of a secret is in its errors.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// Keys is where the wrapped keys of tenants are kept.
type Keys interface {
	TenantKey(tenant string, version uint32) (*controlv1.TenantKey, bool)
	NewestTenantKey(tenant string) (*controlv1.TenantKey, bool)
	Put(ctx context.Context, objects ...*controlv1.Control) error
}

// Place is where a sealed value stands. A value opens only there.
type Place struct {
	Tenant string
	Kind   string // of object, such as "subscription"
	ID     string // of the object
	Field  string // of the object, such as "secret"
}

var (
	// ErrSealed is wrapped by errors of Open for a value that will not open
	// at a later attempt either: it was changed or moved.
	ErrSealed = errors.New("sealed value does not open: it was changed, or moved from another place")
	// ErrNoKey is wrapped by errors for a key that is not known here: the
	// tenant's key was destroyed or has not arrived, or the root key is another.
	ErrNoKey = errors.New("key of a sealed value is not known")
)

const (
	// MaxBytes is the largest secret that can be sealed.
	MaxBytes = 64 << 10

	formatVersion = 1
	saltBytes     = 32
	overheadBytes = 28 // nonce and tag
	valueLabel    = "stormbell sealed value v1"
	wrapLabel     = "stormbell tenant key v1"
	maxCached     = 10_000
)

// Sealer seals and opens values. Its methods are safe for concurrent use.
type Sealer struct {
	root  *Root
	keys  Keys
	log   *slog.Logger
	clock func() time.Time

	mu    sync.Mutex
	cache map[string][]byte // unwrapped keys by their wrapped bytes
	first map[string]*sync.Mutex
}

// New returns a sealer for the tenants' keys in keys.
func New(root *Root, keys Keys, log *slog.Logger, clock func() time.Time) *Sealer {
	return &Sealer{root: root, keys: keys, log: log, clock: clock, cache: make(map[string][]byte), first: make(map[string]*sync.Mutex)}
}

// Seal seals a secret for a place. The first secret of a tenant makes the
// tenant's key and waits until it is stored.
func (s *Sealer) Seal(ctx context.Context, place Place, secret Secret) (*controlv1.Sealed, error) {
	if len(secret.value) > MaxBytes {
		return nil, fmt.Errorf("seal %s %s: %d bytes, at most %d", place.Kind, place.Field, len(secret.value), MaxBytes)
	}
	version, kek, err := s.newest(ctx, place.Tenant)
	if err != nil {
		return nil, fmt.Errorf("seal %s %s: %w", place.Kind, place.Field, err)
	}
	sealed := &controlv1.Sealed{Version: formatVersion, Kek: version, Salt: make([]byte, saltBytes)}
	_, _ = rand.Read(sealed.Salt)
	aead, err := derive(kek, sealed.Salt, valueLabel)
	if err != nil {
		return nil, fmt.Errorf("seal %s %s: %w", place.Kind, place.Field, err)
	}
	sealed.Ciphertext = aead.Seal(nil, nil, []byte(secret.value), place.aad(sealed.Version)) //nolint:gosec // G407: this AEAD takes no nonce, it makes a random one
	return sealed, nil
}

// Open returns the secret that was sealed for a place. Errors wrap ErrSealed
// or ErrNoKey.
func (s *Sealer) Open(place Place, sealed *controlv1.Sealed) (Secret, error) {
	if sealed.GetVersion() != formatVersion || len(sealed.GetSalt()) != saltBytes ||
		len(sealed.GetCiphertext()) < overheadBytes || len(sealed.GetCiphertext()) > MaxBytes+overheadBytes {
		return Secret{}, fmt.Errorf("open %s %s: %w", place.Kind, place.Field, ErrSealed)
	}
	record, ok := s.keys.TenantKey(place.Tenant, sealed.GetKek())
	if !ok {
		return Secret{}, fmt.Errorf("open %s %s: key %d of tenant %q: %w", place.Kind, place.Field, sealed.GetKek(), place.Tenant, ErrNoKey)
	}
	kek, err := s.unwrap(place.Tenant, record)
	if err != nil {
		return Secret{}, fmt.Errorf("open %s %s: %w", place.Kind, place.Field, err)
	}
	aead, err := derive(kek, sealed.GetSalt(), valueLabel)
	if err != nil {
		return Secret{}, fmt.Errorf("open %s %s: %w", place.Kind, place.Field, err)
	}
	plain, err := aead.Open(nil, nil, sealed.GetCiphertext(), place.aad(sealed.GetVersion()))
	if err != nil {
		return Secret{}, fmt.Errorf("open %s %s: %w", place.Kind, place.Field, ErrSealed)
	}
	return Secret{string(plain)}, nil
}

// newest returns the tenant's key for new values, and makes the first one.
func (s *Sealer) newest(ctx context.Context, tenant string) (uint32, []byte, error) {
	if record, ok := s.keys.NewestTenantKey(tenant); ok {
		kek, err := s.unwrap(tenant, record)
		return record.GetVersion(), kek, err
	}
	lock := s.firstLock(tenant) // held for as long as the key takes to be stored
	lock.Lock()
	defer lock.Unlock()
	if _, ok := s.keys.NewestTenantKey(tenant); !ok {
		if err := s.Rotate(ctx, tenant); err != nil {
			return 0, nil, err
		}
	}
	// Another process may have made one at the same time: both stay, and
	// either will do.
	record, ok := s.keys.NewestTenantKey(tenant)
	if !ok {
		return 0, nil, fmt.Errorf("key of tenant %q was removed while it was made: %w", tenant, ErrNoKey)
	}
	kek, err := s.unwrap(tenant, record)
	return record.GetVersion(), kek, err
}

func (s *Sealer) firstLock(tenant string) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first[tenant] == nil {
		s.first[tenant] = new(sync.Mutex)
	}
	return s.first[tenant]
}

// Rotate makes a new key for a tenant, for the values sealed from now on. What
// was sealed before still opens.
func (s *Sealer) Rotate(ctx context.Context, tenant string) error {
	random := make([]byte, 4+keyBytes)
	_, _ = rand.Read(random)
	record := &controlv1.TenantKey{
		Tenant:    tenant,
		Version:   max(binary.BigEndian.Uint32(random), 1),
		RootId:    s.root.Last(),
		CreatedMs: s.clock().UnixMilli(),
	}
	var err error
	if record.Wrapped, err = s.wrap(record, random[4:]); err != nil {
		return fmt.Errorf("wrap key of tenant %q: %w", tenant, err)
	}
	if err := s.keys.Put(ctx, &controlv1.Control{Object: &controlv1.Control_TenantKey{TenantKey: record}}); err != nil {
		return fmt.Errorf("store key of tenant %q: %w", tenant, err)
	}
	s.log.InfoContext(ctx, "tenant key made", "tenant", tenant, "version", record.Version)
	return nil
}

// Rewrap wraps those of the given tenant keys anew that are not under the last
// root key, and returns how many: thereafter the root keys before it are not
// needed. The keys themselves stay, and what they seal. It may be repeated.
func (s *Sealer) Rewrap(ctx context.Context, records []*controlv1.TenantKey) (int, error) {
	done := 0
	for _, old := range records {
		last := s.root.Last()
		if old.GetRootId() == last {
			continue
		}
		kek, err := s.unwrap(old.GetTenant(), old)
		if err != nil {
			return done, err
		}
		record := &controlv1.TenantKey{Tenant: old.GetTenant(), Version: old.GetVersion(), RootId: last, CreatedMs: old.GetCreatedMs()}
		if record.Wrapped, err = s.wrap(record, kek); err != nil {
			return done, fmt.Errorf("wrap key of tenant %q: %w", old.GetTenant(), err)
		}
		if err := s.keys.Put(ctx, &controlv1.Control{Object: &controlv1.Control_TenantKey{TenantKey: record}}); err != nil {
			return done, fmt.Errorf("store key of tenant %q: %w", old.GetTenant(), err)
		}
		done++
	}
	return done, nil
}

func (s *Sealer) wrap(record *controlv1.TenantKey, kek []byte) ([]byte, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt)
	aead, err := derive(s.root.key(record.GetRootId()), salt, wrapLabel)
	if err != nil {
		return nil, err
	}
	return aead.Seal(salt, nil, kek, wrapAAD(record)), nil //nolint:gosec // G407: this AEAD takes no nonce, it makes a random one
}

func (s *Sealer) unwrap(tenant string, record *controlv1.TenantKey) ([]byte, error) {
	name := fmt.Sprintf("%s/%d/%s", tenant, record.GetVersion(), record.GetWrapped())
	s.mu.Lock()
	kek, ok := s.cache[name]
	s.mu.Unlock()
	if ok {
		return kek, nil
	}
	root := s.root.key(record.GetRootId())
	if root == nil {
		return nil, fmt.Errorf("key of tenant %q needs the root key %q, which the root key file does not hold: add it: %w", tenant, record.GetRootId(), ErrNoKey)
	}
	wrapped := record.GetWrapped()
	if len(wrapped) != saltBytes+keyBytes+overheadBytes || record.GetTenant() != tenant {
		return nil, fmt.Errorf("key of tenant %q: %w", tenant, ErrSealed)
	}
	aead, err := derive(root, wrapped[:saltBytes], wrapLabel)
	if err != nil {
		return nil, err
	}
	if kek, err = aead.Open(nil, nil, wrapped[saltBytes:], wrapAAD(record)); err != nil {
		return nil, fmt.Errorf("key of tenant %q: %w", tenant, ErrSealed)
	}
	s.log.Info("tenant key unwrapped", "tenant", tenant, "version", record.GetVersion())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= maxCached {
		clear(s.cache)
	}
	s.cache[name] = kek
	return kek, nil
}

// derive returns the cipher of one value.
func derive(key, salt []byte, label string) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, key, salt, label, keyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (p Place) aad(version uint32) []byte {
	return appendParts(nil, valueLabel, p.Tenant, p.Kind, p.ID, p.Field, fmt.Sprint(version))
}

func wrapAAD(record *controlv1.TenantKey) []byte {
	return appendParts(nil, wrapLabel, record.GetTenant(), fmt.Sprint(record.GetVersion()), record.GetRootId())
}

// appendParts appends each part behind its length, so that no two lists of
// parts give the same bytes.
func appendParts(dst []byte, parts ...string) []byte {
	for _, part := range parts {
		dst = binary.BigEndian.AppendUint64(dst, uint64(len(part)))
		dst = append(dst, part...)
	}
	return dst
}
