package control

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	controlv1 "github.com/stormbell/stormbell/proto/stormbell/control/v1"
)

// ErrMalformed is wrapped by every error of Decode.
var ErrMalformed = errors.New("malformed control record")

// ErrTooLarge is wrapped by errors of Put and PushRules for an object that does
// not fit into a record: nothing of it was written.
var ErrTooLarge = errors.New("too large to be stored")

const (
	hashBytes = 32
	// maxRecordBytes keeps a record below the usual 1 MiB limit of a broker.
	maxRecordBytes = 1_000_000
	maxIDBytes     = 200
)

// Key returns the record key of an object, or "" if the object is of a kind
// that this version does not know or lacks the fields that name it.
func Key(object *controlv1.Control) string {
	switch o := object.GetObject().(type) {
	case *controlv1.Control_Tenant:
		return TenantKey(o.Tenant.GetId())
	case *controlv1.Control_TenantKey:
		return KEKKey(o.TenantKey.GetTenant(), o.TenantKey.GetVersion())
	case *controlv1.Control_ApiKey:
		return APIKeyKey(o.ApiKey.GetId())
	case *controlv1.Control_Subscription:
		return SubscriptionKey(o.Subscription.GetTenant(), o.Subscription.GetId())
	case *controlv1.Control_Rule:
		return RuleKey(o.Rule.GetHash())
	case *controlv1.Control_Manifest:
		return ManifestKey(o.Manifest.GetScope(), o.Manifest.GetHash())
	case *controlv1.Control_Silence:
		return join("silence", o.Silence.GetTenant(), o.Silence.GetId())
	}
	return ""
}

// TenantKey returns the record key of a tenant.
func TenantKey(id string) string { return join("tenant", id) }

// KEKKey returns the record key of one version of a tenant's key-encryption key.
func KEKKey(tenant string, version uint32) string {
	return join("kek", tenant, strconv.FormatUint(uint64(version), 10))
}

// APIKeyKey returns the record key of an API key.
func APIKeyKey(id string) string { return join("key", id) }

// SubscriptionKey returns the record key of a subscription.
func SubscriptionKey(tenant, id string) string { return join("subscription", tenant, id) }

// RuleKey returns the record key of a rule.
func RuleKey(hash []byte) string { return join("rule", hex.EncodeToString(hash)) }

// ManifestKey returns the record key of a manifest; the scope of all tenants
// is empty.
func ManifestKey(scope string, hash []byte) string {
	if !plain(scope) || len(hash) != hashBytes {
		return ""
	}
	return "manifest/" + scope + "/" + hex.EncodeToString(hash)
}

// join builds a key of parts, or returns "" if a part could be mistaken for
// two or is missing.
func join(kind string, parts ...string) string {
	for _, part := range parts {
		if part == "" || !plain(part) {
			return ""
		}
	}
	return kind + "/" + strings.Join(parts, "/")
}

// plain reports whether s can be a part of a key: letters, digits, "-", "_"
// and "." only.
func plain(s string) bool {
	if len(s) > maxIDBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Decode reads the value of a record and checks that it belongs under its
// key. An object of a kind that this version does not know is (nil, nil), so
// that an older reader outlives a newer writer. Errors wrap ErrMalformed and
// hold nothing of the value.
func Decode(key string, value []byte) (*controlv1.Control, error) {
	if len(value) > maxRecordBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(value), maxRecordBytes)
	}
	object := new(controlv1.Control)
	if err := proto.Unmarshal(value, object); err != nil {
		return nil, fmt.Errorf("%w: not a protobuf message", ErrMalformed)
	}
	if object.GetObject() == nil {
		return nil, nil
	}
	want := Key(object)
	if want == "" {
		return nil, fmt.Errorf("%w: the object lacks the fields that name it", ErrMalformed)
	}
	if want != key {
		return nil, fmt.Errorf("%w: the object belongs under another key", ErrMalformed)
	}
	return object, check(object)
}

// check refuses objects whose fields contradict each other.
func check(object *controlv1.Control) error {
	switch o := object.GetObject().(type) {
	case *controlv1.Control_ApiKey:
		if len(o.ApiKey.GetHash()) != hashBytes || o.ApiKey.GetTenant() == "" {
			return fmt.Errorf("%w: API key without hash or tenant", ErrMalformed)
		}
	case *controlv1.Control_Rule:
		if sum := RuleHash(o.Rule.GetSource()); !bytes.Equal(sum, o.Rule.GetHash()) {
			return fmt.Errorf("%w: rule whose hash is not that of its source", ErrMalformed)
		}
	case *controlv1.Control_Manifest:
		if !bytes.Equal(ManifestHash(o.Manifest.GetEntries()), o.Manifest.GetHash()) {
			return fmt.Errorf("%w: manifest whose hash is not that of its entries", ErrMalformed)
		}
	}
	return nil
}

// encode returns the record of an object.
func encode(object *controlv1.Control) (Record, error) {
	key := Key(object)
	if key == "" {
		return Record{}, errors.New("control object lacks the fields that name it, or they hold other characters than letters, digits, '-', '_' and '.'")
	}
	if err := check(object); err != nil {
		return Record{}, fmt.Errorf("%s: %w", key, err)
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(object)
	if err != nil {
		return Record{}, fmt.Errorf("encode %s: %w", key, err)
	}
	if len(value) > maxRecordBytes {
		return Record{}, fmt.Errorf("%w: %s takes %d bytes, at most %d fit", ErrTooLarge, key, len(value), maxRecordBytes)
	}
	return Record{Key: key, Value: value}, nil
}
