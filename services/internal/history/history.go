// Package history looks back into the log: which alerts there were and what
// became of each, and which records could not be processed. It reads topics as
// they are, backwards from their ends, in bounded steps, while others write. It
// keeps nothing but an index of ids, made when it is asked for one.
package history

import (
	"context"
	"errors"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// Log is what of the broker is read; *bus.Client is one.
type Log interface {
	FetchAtMost(ctx context.Context, topic string, partition int, offset int64, bytes int) (records []bus.Record, end int64, err error)
	Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error)
	OffsetAtTime(ctx context.Context, topic string, partition int, t time.Time) (int64, error)
}

// Limits bound the work of one call. A call ends a little above them.
type Limits struct {
	// Records and Bytes bound what is read, Answer the bytes of the records
	// that are found.
	Records, Bytes, Answer int
	Time                   time.Duration
}

// DefaultLimits keep a call below about a second of one core.
func DefaultLimits() Limits {
	return Limits{Records: 50_000, Bytes: 128 << 20, Answer: 8 << 20, Time: 5 * time.Second}
}

var (
	// ErrCursor says that a cursor is not one of this log and this query.
	ErrCursor = errors.New("the cursor does not belong to this query: leave it out to begin anew")
	// ErrNotFound says that nothing has this id, or no longer.
	ErrNotFound = errors.New("nothing in the log has this id")
	// ErrUnfinished says that the bound was reached before the id was found. The
	// next call goes on from there.
	ErrUnfinished = errors.New("the log is long and not searched to its beginning yet: ask again to go on")
	// ErrTooOld says that the id is not among the newest ones that are indexed.
	ErrTooOld = errors.New("nothing among the newest records has this id, and older ones are not indexed: list them with the time of the alert")
)

// History reads the log of one deployment. It is safe for concurrent use.
type History struct {
	log        Log
	partitions int // of alerts and deliveries
	limits     Limits
	clock      func() time.Time
	alerts     []*index
	dead       *index
}

// maxIndexed bounds the ids that are remembered of a topic, about 50 bytes each;
// twice as many where that many are written while ids are looked up.
const maxIndexed = 500_000

// New returns the history in topics of which `alerts` and `deliveries` have so
// many partitions.
func New(log Log, partitions int, limits Limits, clock func() time.Time) *History {
	h := &History{log: log, partitions: partitions, limits: limits, clock: clock}
	for p := range partitions {
		h.alerts = append(h.alerts, newIndex(bus.TopicAlerts, p, maxIndexed/partitions))
	}
	h.dead = newIndex(bus.TopicDLQ, 0, maxIndexed)
	return h
}

// budget is what is left of the limits.
type budget struct {
	records, bytes int
	until          time.Time
	clock          func() time.Time
}

func (h *History) budget() *budget {
	return &budget{records: h.limits.Records, bytes: h.limits.Bytes, until: h.clock().Add(h.limits.Time), clock: h.clock}
}

func (b *budget) spend(records []bus.Record) {
	b.records -= len(records)
	for i := range records {
		b.bytes -= weight(&records[i])
	}
}

func (b *budget) spent() bool { return b.records <= 0 || b.bytes <= 0 || !b.clock().Before(b.until) }

func weight(r *bus.Record) int { return len(r.Key) + len(r.Value) + 100 }
