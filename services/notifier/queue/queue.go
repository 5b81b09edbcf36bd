// Package queue remembers which webhook deliveries are due: one shard per
// partition of `alerts`, in it one virtual queue per endpoint, leases with
// fencing, and an outbox of attempts.
//
// It decides nothing: when a task is due, what an attempt means and whom an
// alert goes to comes from its caller. It is not the truth either. Everything
// in it can be made again from the topics `alerts` and `deliveries`, and every
// call says which offset its caller has seen applied, so that a store that
// lost something is found out by the next call.
package queue

import (
	"errors"
	"fmt"
)

// Nowhere is the applied offset of a shard of which nothing is known.
const Nowhere int64 = -1

// A Message is what the deliveries of one alert share.
type Message struct {
	// Alert names the message: by the alert's id, or what an update of it is called.
	Alert string
	// Body is kept as it is for every attempt.
	Body []byte
	// WrittenMS is when the alert's record was written, Unix milliseconds.
	WrittenMS int64
	Tasks     []Task
}

// A Task is one delivery that is still to be made.
type Task struct {
	// Endpoint names the virtual queue.
	Endpoint string
	// DueMS is when it may be claimed, Unix milliseconds.
	DueMS int64
	// State is the caller's.
	State []byte
}

// A Batch is the effect of the records [Prev, Next) of `alerts`.
type Batch struct {
	// Token is the owner's, as given to Acquire.
	Token string
	// Prev is the applied offset that the batch continues, or Nowhere.
	Prev, Next int64
	Messages   []Message
}

// A Room says how many tasks of an endpoint may be claimed at the most.
type Room struct {
	Endpoint string
	Max      int
	// NotBeforeMS, if in the future, keeps the endpoint's queue closed until then.
	NotBeforeMS int64
}

// A Request asks for due tasks.
type Request struct {
	Token string
	// Applied is the least offset that must have been applied.
	Applied int64
	// NowMS is the owner's clock, and LeaseMS when the claim ends by itself.
	NowMS, LeaseMS int64
	// Fence identifies this claim; no two claims ever have the same.
	Fence string
	// Limit bounds the tasks of this call.
	Limit int
	// Default is the room of endpoints that Rooms does not list.
	Default int
	Rooms   []Room
}

// A Leased task is the caller's until the lease ends.
type Leased struct {
	Endpoint, Alert, Fence string
	State, Body            []byte
}

// A Claim answers a Request.
type Claim struct {
	Tasks []Leased
	// NextMS is when the next task after Request.NowMS comes due; 0: none.
	NextMS int64
	// OldestMS is WrittenMS of the oldest alert with a task left; 0: none.
	OldestMS int64
	// Depth is the number of tasks left, leased ones included.
	Depth int64
}

// A Settlement ends a lease.
type Settlement struct {
	Applied                int64
	Endpoint, Alert, Fence string
	// DueMS is when the task is due again; 0 ends the task.
	DueMS int64
	// State replaces the task's state, unless nil.
	State []byte
	// Record goes into the outbox in the same step, unless nil.
	Record []byte
}

// An Entry of the outbox. ID is the store's, ascending in its order.
type Entry struct {
	ID     string
	Alert  string
	Record []byte
}

// RefusedError is returned by a call that changed nothing because the shard is
// not as its caller believed.
type RefusedError struct {
	// Foreign: another owner has acquired the shard.
	Foreign bool
	// Applied is the shard's applied offset, or Nowhere if all is lost.
	Applied int64
}

func (e *RefusedError) Error() string {
	switch {
	case e.Foreign:
		return "another owner has acquired the shard"
	case e.Applied == Nowhere:
		return "the shard's queue is lost and must be rebuilt from the log"
	}
	return fmt.Sprintf("the shard's queue is at offset %d, not where it was", e.Applied)
}

// ErrStale is returned where a lease is no longer the caller's: it ended and
// the task was claimed again, or settled. Nothing was changed.
var ErrStale = errors.New("lease has ended")
