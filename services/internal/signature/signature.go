// Package signature signs and verifies webhooks by Standard Webhooks 1.0.0,
// version v1: HMAC-SHA256 over "id.timestamp.body".
//
// It keeps no secrets and does no I/O. The asymmetric version v1a is not
// offered.
package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Names of the headers.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const (
	prefix = "whsec_"
	// Tolerance is how far a timestamp may be from the receiver's clock.
	Tolerance = 5 * time.Minute
	minKey    = 24
	maxKey    = 64
	newKey    = 24 // needs no padding, which some libraries refuse to go without
)

// NewSecret returns a fresh secret in its printed form, whsec_….
func NewSecret() string {
	key := make([]byte, newKey)
	_, _ = rand.Read(key)
	return prefix + base64.StdEncoding.EncodeToString(key)
}

// A Key signs. It is the bytes behind a secret.
type Key []byte

// String hides the key.
func (Key) String() string { return "[redacted]" }

// ParseSecret reads a secret. Errors say what is wrong with its form and hold
// nothing of it.
func ParseSecret(secret string) (Key, error) {
	text, ok := strings.CutPrefix(secret, prefix)
	if !ok {
		if strings.HasPrefix(secret, "v1,") {
			return nil, errors.New(`signing secret begins with "v1,": leave that out, a secret begins with whsec_`)
		}
		return nil, errors.New("signing secret does not begin with whsec_")
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("signing secret is not base64 behind whsec_, padding included")
	}
	if len(key) < minKey || len(key) > maxKey {
		return nil, fmt.Errorf("signing secret has %d bytes: use %d to %d", len(key), minKey, maxKey)
	}
	return key, nil
}

// Sign returns the header webhook-signature for an attempt at a time. While a
// rotation lasts previous is the key before; the current one's entry stands
// last, where receivers that read only one entry look.
func Sign(id string, at time.Time, body []byte, current, previous Key) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	entry := entryOf(current, id, stamp, body)
	if len(previous) > 0 {
		return entryOf(previous, id, stamp, body) + " " + entry
	}
	return entry
}

func entryOf(key Key, id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(id + "." + stamp + "."))
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// maxEntries bounds how many signatures a request may offer.
const maxEntries = 16

// Verify returns nil if one of the offered signatures is the key's and the
// timestamp is within Tolerance of now. The errors of a stranger's request
// tell apart what its sender has to mend.
func Verify(key Key, id, timestamp, signatures string, body []byte, now time.Time) error {
	if id == "" || timestamp == "" || signatures == "" {
		return errors.New("webhook headers are missing: webhook-id, webhook-timestamp and webhook-signature are needed")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("webhook-timestamp is not in Unix seconds")
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > Tolerance || age < -Tolerance {
		return errors.New("webhook-timestamp is more than five minutes from this clock: it was replayed, or a clock is wrong")
	}
	want := entryOf(key, id, timestamp, body)
	for i, entry := range strings.Fields(signatures) {
		if i == maxEntries {
			break
		}
		if hmac.Equal([]byte(entry), []byte(want)) {
			return nil
		}
	}
	return errors.New("no signature is this secret's")
}
