package correlator

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/correlator/geo"
	"github.com/stormbell/stormbell/services/correlator/window"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// Values of a detection for impossible_travel: where the event came from, as
// stage detect knew it. So whatever becomes of the database of places, what was
// folded stays as it is.
const (
	placeLat = iota
	placeLon
	placeName
	placeValues
)

// located puts the place of an event where the value of the location field
// stood; false where it has none.
func (m *matching) located(e *event.Event, v *sigma.Values) bool {
	var service struct {
		Name string `json:"eventSource"`
	}
	_ = json.Unmarshal(e.Raw, &service) // what is no text is no service
	p, ok := m.d.places.Locate(geo.Source{Value: v.Fields[0], Region: m.entities.Read(e.Raw).GetRegion(), Service: service.Name})
	if !ok {
		return false
	}
	lat, lon, _ := strings.Cut(window.Place(p.Lat, p.Lon), ",")
	v.Fields = []string{placeLat: lat, placeLon: lon, placeName: p.Name}
	return true
}

// valueOf is the value that a window counts, of those of a detection.
func (c *correlation) valueOf(values []string) string {
	if c.spec.Kind == window.Travel && len(values) == placeValues {
		return values[placeLat] + "," + values[placeLon]
	}
	if c.spec.Numbers() && len(values) == 1 {
		return values[0] // Judge says whether it is a number
	}
	return tuple(values)
}

// how says in words how a rule of an extension type came to fire; nothing of the
// others.
func (c *correlation) how(f *window.Firing, kept []kept) string {
	if c.spec == nil {
		return ""
	}
	x := &c.spec.Extension
	span := func(ms int64) string { return alert.Span(time.Duration(ms) * time.Millisecond) }
	within := ""
	if c.spec.Kind >= window.ValueSum {
		long := f.End - f.Start
		if f.Update {
			long = f.Events[len(f.Events)-1].Time - f.Events[0].Time
		}
		within = fmt.Sprintf(" over %d events within %s", f.Count, span(long))
	}
	switch c.spec.Kind {
	case window.ValueSum:
		return ", adding up to " + f.Measured + within
	case window.ValueAvg:
		return ", " + f.Measured + " on average" + within
	case window.ValueMedian:
		return ", with a median of " + f.Measured + within
	case window.ValuePercentile:
		if c.spec.Percentile == "" {
			return ", a value of which " + f.Measured + " % are" + within
		}
		return ", with " + f.Measured + " at percentile " + c.spec.Percentile + within
	case window.Absence:
		if c.spec.Rules == 1 {
			return ", and nothing more within " + span(c.spec.Timespan)
		}
		return fmt.Sprintf(", and %q did not follow within %s", c.missing, span(c.spec.Timespan))
	case window.NewValue:
		return ", the first time with " + c.shown(keptAt(kept, 0)) + " in " + span(x.History)
	case window.Travel:
		return fmt.Sprintf(",%s %d km apart, within %s", between(keptAt(kept, 0), keptAt(kept, 1)), f.Metres/1000, span(f.End-f.Start))
	case window.Risk:
		return c.scoring(f)
	case window.Rate:
		return fmt.Sprintf(", %d times within %s, where %s is usual", f.Count, span(c.spec.Timespan), thousandths(f.Baseline))
	default:
		return ""
	}
}

// keptAt are the values of what was kept at a place.
func keptAt(all []kept, i int) []string {
	if i >= len(all) {
		return nil
	}
	return all[i].values
}

// shown are the values of an event with the fields that they are of.
func (c *correlation) shown(values []string) string {
	if len(values) != len(c.Field) {
		return "this " + strings.Join(c.Field, " and ")
	}
	parts := make([]string, len(c.Field))
	for i, v := range values {
		parts[i] = c.Field[i] + " " + v
	}
	return strings.Join(parts, " and ")
}

func between(a, b []string) string {
	if len(a) != placeValues || len(b) != placeValues {
		return ""
	}
	from, to := a[placeName], b[placeName]
	if from == "" || to == "" {
		return ""
	}
	return " at " + from + " and " + to + ","
}

func thousandths(n int64) string {
	return strconv.FormatFloat(float64(n/10)/100, 'f', -1, 64)
}
