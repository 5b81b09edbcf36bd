package control

import (
	"context"
	"errors"
)

// Record is one entry of the topic.
type Record struct {
	Offset int64
	Key    string
	// Value is nil where the object was removed.
	Value []byte
}

// A Log is the one partition of the topic `control`.
type Log interface {
	// Append writes records in their order and returns nil only once the
	// broker has acknowledged all of them with acks=all. After an error any
	// number of them may still be written. The offsets of records are ignored.
	Append(ctx context.Context, records ...Record) error
	// Offsets returns the first offset that can be read and the one that the
	// next record will get. All records acknowledged before the call lie below
	// the latter.
	Offsets(ctx context.Context) (start, end int64, err error)
	// Read returns records from an offset on, and the offset to read next. It
	// waits about a second for records if there are none yet, and then returns
	// none. Offsets may have gaps, which next has passed. It fails with
	// ErrOutOfRange if the log no longer holds or does not yet hold the offset.
	Read(ctx context.Context, from int64) (records []Record, next int64, err error)
}

// ErrOutOfRange is returned by Log.Read for an offset that is not in the log.
var ErrOutOfRange = errors.New("offset is not in the log")
