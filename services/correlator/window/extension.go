package window

import "fmt"

// The kinds that take the events of a group one after the other, as the
// watermark settles their order.
const (
	Absence  Kind = iota + 20 // of an event after another, or of the next heartbeat
	NewValue                  // that the group has not shown for long
	Travel                    // between two places, too fast
	Rate                      // of events, against the group's own
)

// Extension is what a spec of these kinds has beside the timespan: durations
// in milliseconds, 0 where the kind has none.
type Extension struct {
	// Forget is how long a heartbeat that has stopped stays known.
	Forget int64
	// History is how long a value, or a group, stays known.
	History int64
	// Learn is how old a group must be before it fires.
	Learn int64
	// Baseline is how far back a rate is compared, in whole timespans.
	Baseline int64
	// Ratio is how many thousandths of the baseline a rate must come to.
	Ratio int64
	// Median says that the baseline is the median of its periods, not their mean.
	Median bool
	// MaxSpeed in km/h and MinDistance in m.
	MaxSpeed, MinDistance int64
	// Tactics is how many a total of Risk must have.
	Tactics int64
}

const (
	// MaxValues is how many values a group of NewValue remembers. While it is
	// full, a value that it does not know says nothing.
	MaxValues = MaxRecords
	// maxPeriods is how many periods a baseline has at most.
	maxPeriods = 20_000
	// maxRatio keeps products of counts far from overflow.
	maxRatio = 1_000_000
)

// sequential reports whether events are taken one after the other.
func (k Kind) sequential() bool { return k >= Absence && k <= Rate }

func (s *Spec) validateExtension() error {
	x := &s.Extension
	for _, d := range []int64{x.Forget, x.History, x.Learn, x.Baseline, s.Suppress} {
		if d < 0 || d > maxSpan {
			return fmt.Errorf("a duration of %d ms: must be from 0 to ten years", d)
		}
	}
	switch {
	case s.Kind == Absence && s.Rules > 2:
		return fmt.Errorf("absence of %d rules: has a trigger and one that is missing", s.Rules)
	case s.Kind == NewValue && (x.History <= 0 || x.Learn > x.History):
		return fmt.Errorf("a history of %d ms, learnt for %d ms: must be above 0 and not shorter", x.History, x.Learn)
	case s.Kind == Travel && (x.MaxSpeed <= 0 || x.MaxSpeed > maxRatio || x.MinDistance <= 0):
		return fmt.Errorf("%d km/h over at least %d m: must be above 0", x.MaxSpeed, x.MinDistance)
	case s.Kind != Rate:
		return nil
	case x.Baseline%s.Timespan != 0 || s.periods() < 2 || s.periods() > maxPeriods:
		return fmt.Errorf("a baseline of %d ms: must be 2 to %d timespans of %d ms", x.Baseline, maxPeriods, s.Timespan)
	case x.Learn < s.Timespan || x.Learn > x.Baseline:
		return fmt.Errorf("learnt for %d ms: must be from the timespan of %d ms to the baseline of %d ms", x.Learn, s.Timespan, x.Baseline)
	case x.Ratio < 1000 || x.Ratio > maxRatio || s.Min < 1 || s.Min > MaxRecords:
		return fmt.Errorf("at least %d and %d thousandths of the baseline: must be from 1 to %d, and from 1000 to %d", s.Min, x.Ratio, MaxRecords, maxRatio)
	}
	return nil
}

// periods is how many periods the baseline has.
func (s *Spec) periods() int64 { return s.Extension.Baseline / s.Timespan }

// Memory is how far back a rule must look to decide on an event, in milliseconds.
//
// What a group has forgotten by then decides nothing: the values of NewValue and
// the age that counts are those of events within history + learn, since a group
// that was silent for its history begins anew, and one that was not has shown
// something in the history before its learning. The same holds of Rate, whose
// periods must all be whole and lie behind the group's first.
func (s *Spec) Memory() int64 {
	x := &s.Extension
	switch s.Kind {
	case Absence:
		return max(s.Timespan, x.Forget)
	case NewValue:
		return x.History + x.Learn
	case Rate:
		return 2*x.Baseline + 2*s.Timespan
	default:
		return s.Timespan + s.Gap
	}
}

// valued reports whether the kind looks at values.
func (s *Spec) valued() bool { return s.Kind == NewValue || s.Kind == Travel }

// triggered reports whether one rule's event demands another's.
func (s *Spec) triggered() bool { return s.Kind == Absence && s.Rules == 2 }

// hasValue reports whether a record has what a sequential kind looks at.
func (s *Spec) hasValue(r *Record) bool {
	if s.Kind == Travel {
		_, ok := parsePlace(r.Value)
		return ok && r.HasValue
	}
	return s.Kind != NewValue || r.HasValue && r.Value != ""
}
