package event

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
)

const (
	idLabel = "stormbell-event-1"
	// hashBytes of the digest are kept: 160 bits, 32 characters.
	hashBytes = 20
)

// Hash is the identity of a list of values: the first 20 bytes of the SHA-256
// over label and parts, each preceded by its length in four bytes big-endian,
// as 32 characters of lower-case base32hex. The label keeps hashes of
// different kinds of things apart.
func Hash[T ~string | ~[]byte](label string, parts ...T) string {
	size := 4 + len(label)
	for _, p := range parts {
		size += 4 + len(p)
	}
	b := make([]byte, 0, size)
	b = appendPart(b, label)
	for _, p := range parts {
		b = appendPart(b, p)
	}
	sum := sha256.Sum256(b)
	var text [hashBytes * 8 / 5]byte // without padding: 20 bytes fill 32 characters
	base32.HexEncoding.Encode(text[:], sum[:hashBytes])
	for i, c := range text {
		if c >= 'A' {
			text[i] = c + 'a' - 'A'
		}
	}
	return string(text[:])
}

// ID is the identity of an event whose provider gives it none: a Hash of the
// tenant, the format and the key, which depends on the format.
func ID(tenant, format string, key ...string) string {
	return Hash(idLabel, append([]string{tenant, format}, key...)...)
}

func appendPart[T ~string | ~[]byte](b []byte, p T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
}
