package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// The scopes that a key can have.
const (
	ScopeIngest = "ingest"
	ScopeRead   = "read"
	ScopeManage = "manage"
	// ScopeOperate is for what concerns all tenants.
	ScopeOperate = "operate"
)

// Errors of Authenticate that a caller tells apart.
var (
	// ErrUnknownKey is returned for what is not a key, or not one of ours.
	ErrUnknownKey = errors.New("unknown API key")
	// ErrExpiredKey is returned for a genuine key after its expiry.
	ErrExpiredKey = errors.New("expired API key")
	// ErrRevokedKey is returned for a genuine key that was revoked.
	ErrRevokedKey = errors.New("revoked API key")
	// ErrUnavailable is returned where only the log could tell and did not
	// answer in time. The same call may succeed later.
	ErrUnavailable = errors.New("control log does not answer")
)

// Identity is what a credential stands for. Its slices must not be changed.
type Identity struct {
	Tenant string
	KeyID  string
	Scopes []string
	// Sources that may be named; empty is all.
	Sources []string
}

// Has reports whether the identity has a scope.
func (i Identity) Has(scope string) bool { return slices.Contains(i.Scopes, scope) }

// MayUse reports whether the identity may name a source.
func (i Identity) MayUse(source string) bool {
	return len(i.Sources) == 0 || slices.Contains(i.Sources, source)
}

func identityOf(k *controlv1.APIKey) Identity {
	scopes := k.GetScopes()
	if len(scopes) == 0 {
		scopes = []string{ScopeIngest}
	}
	return Identity{Tenant: k.GetTenant(), KeyID: k.GetId(), Scopes: scopes, Sources: k.GetSources()}
}

const (
	keyPrefix   = "sbk_" // lets secret scanners recognise a leaked key
	keyIDBytes  = 10
	secretBytes = 32
	keyIDLen    = keyIDBytes * 8 / 5
	secretLen   = (secretBytes*8 + 4) / 5
	keyLen      = len(keyPrefix) + keyIDLen + 1 + secretLen
)

func keyEncoding() *base32.Encoding {
	return base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)
}

// NewKey describes the key that NewAPIKey makes.
type NewKey struct {
	Tenant string
	Name   string
	// Scopes the key has; none is ingest alone.
	Scopes []string
	// Sources it may name; none is all.
	Sources []string
	// Expires is the zero time for a key without expiry.
	Expires time.Time
}

// NewAPIKey mints a key of 256 random bits. The plain key is returned once
// and exists nowhere else: put the record, show the key, forget it.
func NewAPIKey(spec NewKey, now time.Time) (plain string, record *controlv1.APIKey, err error) {
	plain = MintKey()
	record, err = KeyRecord(plain, spec, now)
	if err != nil {
		return "", nil, err
	}
	return plain, record, nil
}

// MintKey returns a new plain key of 256 random bits, which nobody knows yet.
func MintKey() string {
	raw := make([]byte, keyIDBytes+secretBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	return keyPrefix + keyEncoding().EncodeToString(raw[:keyIDBytes]) + "_" + keyEncoding().EncodeToString(raw[keyIDBytes:])
}

// KeyRecord describes a key that MintKey has made, so that putting the record
// makes it known. Errors never hold the key.
func KeyRecord(plain string, spec NewKey, now time.Time) (*controlv1.APIKey, error) {
	id := keyID(plain)
	if id == "" {
		return nil, errors.New("this is no API key: make one with `stormbell keys mint`")
	}
	if join("tenant", spec.Tenant) == "" {
		return nil, fmt.Errorf("tenant %q: use letters, digits, '-', '_' and '.'", spec.Tenant)
	}
	scopes := spec.Scopes
	if len(scopes) == 0 {
		scopes = []string{ScopeIngest}
	}
	for _, scope := range scopes {
		if scope != ScopeIngest && scope != ScopeRead && scope != ScopeManage && scope != ScopeOperate {
			return nil, fmt.Errorf("scope %q: use %s, %s, %s or %s", scope, ScopeIngest, ScopeRead, ScopeManage, ScopeOperate)
		}
	}
	sum := sha256.Sum256([]byte(plain))
	record := &controlv1.APIKey{
		Id: id, Tenant: spec.Tenant, Name: spec.Name, Hash: sum[:],
		Scopes: slices.Clone(scopes), Sources: slices.Clone(spec.Sources), CreatedMs: now.UnixMilli(),
	}
	if !spec.Expires.IsZero() {
		record.ExpiresMs = spec.Expires.UnixMilli()
	}
	return record, nil
}

// keyID returns the public part of a key, or "" if it does not look like one.
func keyID(key string) string {
	if len(key) != keyLen || !strings.HasPrefix(key, keyPrefix) || key[len(keyPrefix)+keyIDLen] != '_' {
		return ""
	}
	return key[len(keyPrefix) : len(keyPrefix)+keyIDLen]
}

// Authenticate returns what a key stands for. A well-formed key that the view
// does not know is looked up in the log once before it is refused, so a key
// works everywhere as soon as it was created; a flood of such keys shares a
// few look-ups per second. Errors are ErrUnknownKey, ErrExpiredKey,
// ErrRevokedKey or wrap ErrUnavailable, and never hold the key.
func (v *View) Authenticate(ctx context.Context, key string) (Identity, error) {
	id := keyID(key)
	if id == "" {
		return Identity{}, ErrUnknownKey
	}
	entry, ok := v.snap.Load().keys[id]
	if !ok {
		if err := v.lookups.wait(ctx, v.cfg.SyncTimeout); err != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if entry, ok = v.snap.Load().keys[id]; !ok {
			return Identity{}, ErrUnknownKey
		}
	}
	sum := sha256.Sum256([]byte(key))
	if subtle.ConstantTimeCompare(sum[:], entry.GetHash()) != 1 {
		return Identity{}, ErrUnknownKey
	}
	if entry.GetRevokedMs() != 0 {
		return Identity{}, ErrRevokedKey
	}
	if expires := entry.GetExpiresMs(); expires != 0 && v.clock().UnixMilli() >= expires {
		return Identity{}, ErrExpiredKey
	}
	return entry.identity, nil
}
