package window

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// travel holds the last event, each of which has a place. Two that follow one
// another are impossible where they lie at least MinDistance apart and nobody is
// that fast. Copies of an event with other places are one event.
type travel struct {
	*sequence
}

func (m *travel) take(e *entry) *Firing {
	if len(m.held) == 1 {
		return nil
	}
	last := m.held[0]
	if last.id == e.id {
		m.release(e)
		return nil
	}
	defer m.release(last)
	from, _ := parsePlace(last.value)
	to, _ := parsePlace(e.value)
	metres, took := from.distance(to), e.time-last.time
	x := &m.spec.Extension
	// A metre a millisecond is 3,600 km/h.
	if took > m.spec.Timespan || metres < x.MinDistance || metres*3600 <= x.MaxSpeed*took {
		return nil
	}
	f := m.firing(e, last.time, e.time, last, e)
	f.Metres = metres
	return f
}

func (m *travel) pass(t int64) *Firing {
	if len(m.held) > 0 && m.held[0].time+m.spec.Timespan < t {
		m.release(m.held[0])
	}
	return nil
}

func (m *travel) due() int64 {
	if len(m.held) == 0 {
		return math.MaxInt64
	}
	return m.held[0].time + m.spec.Timespan + 1
}

func (m *travel) size() int { return 0 }

func (m *travel) changes(dst []Change) []Change { return dst }

func (m *travel) load(field string, _ []byte) error {
	return fmt.Errorf("%w: field %q", errCorrupt, field)
}

// place is a point on the Earth, in degrees.
type place struct{ lat, lon float64 }

// Place writes a point as Record.Value of Travel has it, in degrees with four
// decimals, which is about ten metres.
func Place(lat, lon float64) string {
	return strconv.FormatFloat(lat, 'f', 4, 64) + "," + strconv.FormatFloat(lon, 'f', 4, 64)
}

func parsePlace(s string) (place, bool) {
	lat, lon, _ := strings.Cut(s, ",")
	a, err := strconv.ParseFloat(lat, 64)
	if err != nil || math.IsNaN(a) || math.Abs(a) > 90 {
		return place{}, false
	}
	b, err := strconv.ParseFloat(lon, 64)
	if err != nil || math.IsNaN(b) || math.Abs(b) > 180 {
		return place{}, false
	}
	return place{a, b}, true
}

// distance is the great-circle distance in whole metres, on a sphere: true to
// half a percent.
func (p place) distance(q place) int64 {
	const radius, degree = 6_371_000, math.Pi / 180
	lat1, lat2 := p.lat*degree, q.lat*degree
	a, b := math.Sin((lat2-lat1)/2), math.Sin((q.lon-p.lon)*degree/2)
	h := float64(a*a) + float64(math.Cos(lat1)*math.Cos(lat2)*float64(b*b))
	return int64(math.Round(2 * radius * math.Asin(math.Sqrt(min(1, h)))))
}
