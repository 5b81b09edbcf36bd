package event

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of stormbell.event.v1.Event.
const (
	fieldID protowire.Number = iota + 1
	fieldTenant
	fieldSource
	fieldFormat
	fieldProduct
	fieldService
	fieldCategory
	fieldStrict
	fieldTime
	fieldOwnTime
	fieldIngest
	fieldLateness
	fieldLate
	fieldEarly
	fieldManifestAll
	fieldManifestTenant
	fieldRaw
)

const fieldTickIngest protowire.Number = 1

// ErrMalformed is wrapped by every error of Decode and DecodeTick: the bytes
// will not decode at a later attempt either.
var ErrMalformed = errors.New("malformed event record")

// Encode appends e to dst and returns the extended slice. The bytes equal the
// deterministic encoding of stormbell.event.v1.Event. The strings of e must
// be valid UTF-8, or no reader will accept the record.
func Encode(dst []byte, e *Event) []byte {
	dst = appendString(dst, fieldID, e.ID)
	dst = appendString(dst, fieldTenant, e.Tenant)
	dst = appendString(dst, fieldSource, e.Source)
	dst = appendString(dst, fieldFormat, e.Format)
	dst = appendString(dst, fieldProduct, e.Product)
	dst = appendString(dst, fieldService, e.Service)
	dst = appendString(dst, fieldCategory, e.Category)
	dst = appendBool(dst, fieldStrict, e.StrictLogsource)
	dst = appendInt(dst, fieldTime, e.TimeMS)
	dst = appendBool(dst, fieldOwnTime, e.OwnTime)
	dst = appendInt(dst, fieldIngest, e.IngestMS)
	dst = appendInt(dst, fieldLateness, e.LatenessMS)
	dst = appendBool(dst, fieldLate, e.Late)
	dst = appendBool(dst, fieldEarly, e.Early)
	dst = appendBytes(dst, fieldManifestAll, e.ManifestAll)
	dst = appendBytes(dst, fieldManifestTenant, e.ManifestTenant)
	return appendBytes(dst, fieldRaw, e.Raw)
}

// MaxOverhead bounds how many bytes Encode adds to the lengths of the
// strings and byte slices of an event.
const MaxOverhead = 160

// Decode reads one record. The byte slices of the result are parts of b and
// live as long as b is not changed; its strings are copies. Unknown fields are
// skipped, so that an older reader understands a newer writer. Errors wrap
// ErrMalformed.
func Decode(b []byte) (Event, error) {
	var (
		e    Event
		text [fieldCategory + 1]span
		end  int // of the last string
	)
	for at := 0; at < len(b); {
		num, typ, n := consumeTag(b[at:])
		if n < 0 {
			return Event{}, fmt.Errorf("%w: tag at byte %d: %w", ErrMalformed, at, protowire.ParseError(n))
		}
		at += n
		switch {
		case num > fieldRaw || typ != wireType(num):
			n = protowire.ConsumeFieldValue(num, typ, b[at:])
		case typ == protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b[at:]); n >= 0 {
				e.setVarint(num, v)
			}
		default:
			var v []byte
			if v, n = protowire.ConsumeBytes(b[at:]); n < 0 {
				break
			}
			if num > fieldCategory {
				e.setBytes(num, v)
				break
			}
			if !utf8.Valid(v) {
				return Event{}, fmt.Errorf("%w: field %d is not UTF-8", ErrMalformed, num)
			}
			text[num] = span{at + n - len(v), at + n}
			end = at + n
		}
		if n < 0 {
			return Event{}, fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
		}
		at += n
	}
	// One copy serves all strings: they stand side by side at the start.
	all := string(b[:end])
	for num, s := range text {
		e.setString(protowire.Number(num), all[s.from:s.to])
	}
	return e, nil
}

// EncodeTick appends the Tick with the given ingest time, Unix milliseconds.
func EncodeTick(dst []byte, ingestMS int64) []byte {
	return appendInt(dst, fieldTickIngest, ingestMS)
}

// DecodeTick returns the ingest time of a Tick. Errors wrap ErrMalformed.
func DecodeTick(b []byte) (ingestMS int64, err error) {
	for at := 0; at < len(b); {
		num, typ, n := consumeTag(b[at:])
		if n < 0 {
			return 0, fmt.Errorf("%w: tick: %w", ErrMalformed, protowire.ParseError(n))
		}
		at += n
		if num == fieldTickIngest && typ == protowire.VarintType {
			var v uint64
			if v, n = protowire.ConsumeVarint(b[at:]); n >= 0 {
				ingestMS = signed(v)
			}
		} else {
			n = protowire.ConsumeFieldValue(num, typ, b[at:])
		}
		if n < 0 {
			return 0, fmt.Errorf("%w: tick: %w", ErrMalformed, protowire.ParseError(n))
		}
		at += n
	}
	return ingestMS, nil
}

// span is a part of the record that is being decoded.
type span struct{ from, to int }

// errNumber is how protowire reports a field number out of range.
const errNumber = -2

// consumeTag is protowire.ConsumeTag, which lets numbers pass that no field can
// have.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	num, typ, n := protowire.ConsumeTag(b)
	if n >= 0 && !num.IsValid() {
		return num, typ, errNumber
	}
	return num, typ, n
}

func wireType(num protowire.Number) protowire.Type {
	switch num {
	case fieldStrict, fieldTime, fieldOwnTime, fieldIngest, fieldLateness, fieldLate, fieldEarly:
		return protowire.VarintType
	default:
		return protowire.BytesType
	}
}

func (e *Event) setVarint(num protowire.Number, v uint64) {
	switch num {
	case fieldStrict:
		e.StrictLogsource = v != 0
	case fieldTime:
		e.TimeMS = signed(v)
	case fieldOwnTime:
		e.OwnTime = v != 0
	case fieldIngest:
		e.IngestMS = signed(v)
	case fieldLateness:
		e.LatenessMS = signed(v)
	case fieldLate:
		e.Late = v != 0
	case fieldEarly:
		e.Early = v != 0
	}
}

func (e *Event) setBytes(num protowire.Number, v []byte) {
	v = slices.Clip(v)
	switch num {
	case fieldManifestAll:
		e.ManifestAll = v
	case fieldManifestTenant:
		e.ManifestTenant = v
	case fieldRaw:
		e.Raw = v
	}
}

func (e *Event) setString(num protowire.Number, v string) {
	switch num {
	case fieldID:
		e.ID = v
	case fieldTenant:
		e.Tenant = v
	case fieldSource:
		e.Source = v
	case fieldFormat:
		e.Format = v
	case fieldProduct:
		e.Product = v
	case fieldService:
		e.Service = v
	case fieldCategory:
		e.Category = v
	}
}

func appendString(dst []byte, num protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), v)
}

func appendBytes(dst []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), v)
}

func appendInt(dst []byte, num protowire.Number, v int64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), unsigned(v))
}

func appendBool(dst []byte, num protowire.Number, v bool) []byte {
	if !v {
		return dst
	}
	return append(protowire.AppendTag(dst, num, protowire.VarintType), 1)
}

// unsigned and signed convert in two's complement, as int64 fields are encoded.
func unsigned(v int64) uint64 {
	if v >= 0 {
		return uint64(v)
	}
	return math.MaxUint64 - uint64(-(v + 1))
}

func signed(v uint64) int64 {
	if v <= math.MaxInt64 {
		return int64(v)
	}
	return -int64(math.MaxUint64-v) - 1
}
