package correlator

// A Point is a place at which a crash must do no harm.
type Point string

// The points, in the order in which a record passes them.
const (
	PointMatch     Point = "detect.match"        // before an event is matched
	PointProduced  Point = "detect.produced"     // its records are acknowledged, its offset is not committed
	PointFold      Point = "correlate.fold"      // before a detection is folded
	PointFolded    Point = "correlate.folded"    // computed, not written
	PointApplied   Point = "correlate.applied"   // written, not published
	PointPublished Point = "correlate.published" // acknowledged, not trimmed
	PointTrimmed   Point = "correlate.trimmed"   // trimmed, not committed
)

// Points are all of them.
func Points() []Point {
	return []Point{PointMatch, PointProduced, PointFold, PointFolded, PointApplied, PointPublished, PointTrimmed}
}

// Fault is called at each point; an error ends Run as a crash would, with
// nothing flushed. It may panic at PointMatch and PointFold, as rules might. A
// nil Fault does nothing. The record is nil where several are meant.
type Fault func(p Point, r *Record) error

func (f Fault) at(p Point, r *Record) error {
	if f == nil {
		return nil
	}
	if err := f(p, r); err != nil {
		return &faultError{err}
	}
	return nil
}

// faultError is an injected crash.
type faultError struct{ err error }

func (e *faultError) Error() string { return "injected fault: " + e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }
