package event

import (
	"crypto/sha256"
	"encoding/binary"
)

const (
	idLabel = "stormbell-event-1"
	// hashBytes of the digest are kept: 160 bits, 32 characters.
	hashBytes = 20
	// usualBytes are enough for most lists of values.
	usualBytes = 256
	// base32hex is the alphabet of RFC 4648, section 7, in lower case.
	base32hex = "0123456789abcdefghijklmnopqrstuv"
)

// Hash is the identity of a list of values: the first 20 bytes of the SHA-256
// over label and parts, each preceded by its length in four bytes big-endian,
// as 32 characters of lower-case base32hex. The label keeps hashes of
// different kinds of things apart.
func Hash[T ~string | ~[]byte](label string, parts ...T) string {
	var space [usualBytes]byte // more is rare
	b := appendPart(space[:0], label)
	for _, p := range parts {
		b = appendPart(b, p)
	}
	sum := sha256.Sum256(b)
	var text [hashBytes * 8 / 5]byte // without padding: 20 bytes fill 32 characters
	for i := range hashBytes / 5 {
		five := sum[5*i:]
		bits := uint64(binary.BigEndian.Uint32(five))<<8 | uint64(five[4])
		for k := range 8 {
			text[8*i+k] = base32hex[bits>>(35-5*k)&31]
		}
	}
	return string(text[:])
}

// ID is the identity of an event whose provider gives it none: a Hash of the
// tenant, the format and the key, which depends on the format.
func ID(tenant, format string, key ...string) string {
	var space [6]string // more is rare
	return Hash(idLabel, append(append(space[:0], tenant, format), key...)...)
}

func appendPart[T ~string | ~[]byte](b []byte, p T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
}
