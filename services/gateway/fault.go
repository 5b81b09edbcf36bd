package gateway

// A Point is a place at which a crash must do no harm.
type Point string

// The points, in the order in which a request passes them.
const (
	PointTaken    Point = "gateway.taken"    // read and judged, nothing is written
	PointProduced Point = "gateway.produced" // acknowledged by the broker, not answered
)

// Points are all of them.
func Points() []Point { return []Point{PointTaken, PointProduced} }

// Fault is called at each point; an error fails the request as a broker that
// does not acknowledge would. A nil Fault does nothing.
type Fault func(p Point) error

func (f Fault) at(p Point) error {
	if f == nil {
		return nil
	}
	return f(p)
}
