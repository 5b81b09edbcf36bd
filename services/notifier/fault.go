package notifier

// A Point is a place at which a crash must do no harm.
type Point string

// The points, in the order in which an alert passes them.
const (
	PointRouted    Point = "notifier.routed"    // the decision is acknowledged, no task exists
	PointCreated   Point = "notifier.created"   // tasks exist, the offset is not committed
	PointClaimed   Point = "notifier.claimed"   // leased, not sent
	PointSent      Point = "notifier.sent"      // answered, not settled
	PointSettled   Point = "notifier.settled"   // settled, the attempt is in the outbox
	PointPublished Point = "notifier.published" // the attempt is acknowledged, not trimmed
	PointTrimmed   Point = "notifier.trimmed"   // trimmed
)

// Points are all of them.
func Points() []Point {
	return []Point{PointRouted, PointCreated, PointClaimed, PointSent, PointSettled, PointPublished, PointTrimmed}
}

// Fault is called at each point; an error ends Run as a crash would, with
// nothing flushed and no lease given back. A nil Fault does nothing.
type Fault func(p Point) error

func (f Fault) at(p Point) error {
	if f == nil {
		return nil
	}
	if err := f(p); err != nil {
		return &faultError{err}
	}
	return nil
}

// faultError is an injected crash.
type faultError struct{ err error }

func (e *faultError) Error() string { return "injected fault: " + e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }
