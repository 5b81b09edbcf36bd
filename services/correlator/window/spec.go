// Package window folds detections into the state of correlations and says when
// they fire. It is pure: no I/O, no clock, no randomness, no map order. Times
// are arguments, in Unix milliseconds.
//
// A Group is the state of one correlation for one set of group values. The
// package decides qualification and buckets; it knows nothing of Kafka, Redis,
// alert ids or Sigma's syntax.
package window

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Kind is how a correlation's condition is measured.
type Kind uint8

// The kinds that may fire at once: with a lower bound alone their conditions are
// monotone, a further record never takes a qualification away.
const (
	EventCount      Kind = iota + 1 // distinct events
	ValueCount                      // distinct values
	Temporal                        // distinct rules
	TemporalOrdered                 // distinct rules, by distinct events in listed order
	ValueSum                        // numbers added up; below zero none counts where it fires at once
)

// The kinds that measure what more records may take away again.
const (
	ValueAvg        Kind = iota + 6 // mean of numbers
	ValuePercentile                 // percentile of numbers, or share of an event's own value
	ValueMedian                     // 50th percentile
)

// Risk adds up scores, and may demand tactics too. It fires at once.
const Risk Kind = 9

const (
	// EarlyAllowance is how far an event time may lie ahead of its ingest, and
	// the slack that the design adds to every reach and horizon, in milliseconds.
	EarlyAllowance = 5 * 60 * 1000
	// MaxLevel is the highest Level of a Spec.
	MaxLevel = 16
	// MaxRules is how many rules a temporal correlation may refer to.
	MaxRules = 64
	// MaxRecords is how many records a group keeps. Beyond it the oldest by
	// event time goes and counts read "at least".
	MaxRecords = 100_000
	// maxChoices bounds the orders that are tried where fewer rules than all do.
	maxChoices = 1000
	// maxSpan keeps sums of times and spans far from overflow: ten years.
	maxSpan = 10 * 366 * 24 * 3600 * 1000
)

// Spec is what a correlation demands, as plain data. All durations are in
// milliseconds.
type Spec struct {
	Kind Kind
	// Timespan T: both ends of [t−T, t] are in.
	Timespan int64
	// Lateness L: the largest lateness of the sources that the rule can match, or
	// the rule's own.
	Lateness int64
	// OwnLateness says that L is the rule's own: then it alone says what is late
	// where the watermark decides, whatever the source of a record allows.
	OwnLateness bool
	// Min is the least count that fires: `gt: n` is n+1, `gte: n` is n. For the
	// temporal kinds it counts distinct rules.
	Min int
	// Rules is how many rules the correlation refers to; bit i of Record.Rules
	// stands for the i-th in listed order.
	Rules int
	// StrictTies refuses to count events of one millisecond as ordered.
	StrictTies bool
	// Level is the highest chain level of the signals that the correlation counts:
	// 0 where it refers to detection rules only. The watermark that Advance gets
	// is that of this level.
	Level uint32
	// Suppress widens the bucket of an alert; 0 is Timespan.
	Suppress int64
	// Bounds are the condition where Min does not say it; the second is used
	// with the first only.
	Bounds [2]Bound
	// Expr is a condition over rules, in place of Min and Bounds, as a program in
	// reverse Polish notation: a byte below MaxRules says whether that rule was
	// seen, one from ExprAbsent on that there is nothing of it at all.
	Expr string
	// Shape is what a window is; Gap the longest silence within a session.
	Shape Shape
	Gap   int64
	// Percentile is which one is measured, a decimal number from 0 to 100; empty
	// is the share of an event's own value.
	Percentile string
	// AnyAge takes no record for late or early, whatever its times say: ingest
	// times mean nothing.
	AnyAge bool
	// Before and After are how far beyond a window, at either end, what it counts
	// was decided by: where that is signals.
	Before, After int64
	// Updates says that a bucket which has fired says at its close what it came to,
	// of kinds that fire at once.
	Updates bool
	// Extension is what the sequential kinds have beside these.
	Extension Extension
}

// Bound compares what is measured with a number.
type Bound struct {
	Op Op
	// Number is a decimal number as written.
	Number string
}

// Op is a comparison.
type Op uint8

// The comparisons.
const (
	GT Op = iota + 1
	GTE
	LT
	LTE
	EQ
	NEQ
)

// Operators of Expr.
const (
	ExprAnd    = MaxRules
	ExprOr     = MaxRules + 1
	ExprAbsent = 2 * MaxRules
	maxExpr    = 1024
)

// Shape is how event times are cut into windows.
type Shape uint8

// The shapes: a window of its own for each event, which ends there; windows
// next to each other; windows between silences.
const (
	Sliding Shape = iota
	Tumbling
	Session
)

// Validate reports why a spec can't be folded: a bound that is exceeded, or a
// threshold that no group could ever hold.
func (s *Spec) Validate() error {
	switch {
	case !s.Kind.sequential() && (s.Kind < EventCount || s.Kind > Risk):
		return fmt.Errorf("unknown kind %d", s.Kind)
	case s.Timespan <= 0 || s.Timespan > maxSpan:
		return fmt.Errorf("timespan of %d ms: must be above 0 and at most ten years", s.Timespan)
	case s.Lateness < 0 || s.Lateness > maxSpan:
		return fmt.Errorf("lateness of %d ms: must be from 0 to ten years", s.Lateness)
	case s.Suppress != 0 && !s.Kind.sequential() && (s.Suppress < s.Timespan || s.Suppress > maxSpan):
		return fmt.Errorf("suppress of %d ms: must be at least the timespan of %d ms", s.Suppress, s.Timespan)
	case s.Before < 0 || s.After < 0:
		return fmt.Errorf("parts that were decided by %d ms before a window and %d ms after it: must not be below 0", s.Before, s.After)
	case s.Level > MaxLevel:
		return fmt.Errorf("level of %d: chains have at most %d", s.Level, MaxLevel)
	case s.Rules < 1 || s.Rules > MaxRules:
		return fmt.Errorf("%d rules: a correlation refers to 1 to %d", s.Rules, MaxRules)
	case s.Updates && (!s.AtOnce() || s.Kind == Risk):
		return errors.New("updates of a rule whose condition waits for the end of its windows: it says all that there is at once")
	case s.Kind.sequential():
		return s.validateExtension()
	case s.Kind == Risk:
		if why := s.validateRisk(); why != "" {
			return errors.New(why)
		}
		return nil
	case s.Shape > Session:
		return fmt.Errorf("unknown shape of windows %d", s.Shape)
	case s.Shape == Session && (s.Gap <= 0 || s.Gap > s.Timespan), s.Shape != Session && s.Gap != 0:
		return fmt.Errorf("gap of %d ms: a session has one, above 0 and at most its timespan of %d ms", s.Gap, s.Timespan)
	}
	switch {
	case s.Expr != "":
		return s.validateExpr()
	case s.Bounds[0].Op != 0:
		return s.validateBounds()
	}
	return s.validateMin()
}

func (s *Spec) validateMin() error {
	switch {
	case s.measures():
		return errors.New("a condition on numbers without a bound")
	case s.Min < 1:
		return fmt.Errorf("a threshold of %d would fire without an event: use absence", s.Min)
	case s.Min > MaxRecords:
		return fmt.Errorf("a threshold of %d needs more events than the %d that a group keeps", s.Min, MaxRecords)
	case s.temporal() && s.Min > s.Rules:
		return fmt.Errorf("a threshold of %d rules can't be reached by %d", s.Min, s.Rules)
	case s.Kind == TemporalOrdered && choices(s.Rules, s.Min) > maxChoices:
		return fmt.Errorf("%d of %d rules in order are more than %d ways to fire: demand all, or refer to fewer rules", s.Min, s.Rules, maxChoices)
	}
	return nil
}

func (s *Spec) validateExpr() error {
	switch {
	case !s.temporal() || s.Min != 0 || s.Bounds[0].Op != 0:
		return errors.New("a condition over rules beside another")
	case s.Kind == TemporalOrdered && choices(s.Rules, 1) > maxChoices:
		return fmt.Errorf("a condition over %d rules in order has more than %d ways to hold: refer to fewer rules", s.Rules, maxChoices)
	}
	if why := checkExpr(s.Expr, s.Rules); why != "" {
		return errors.New("the condition over rules: " + why)
	}
	return nil
}

func (s *Spec) validateBounds() error {
	if s.Min != 0 {
		return errors.New("a threshold beside other bounds")
	}
	if s.Kind == TemporalOrdered && choices(s.Rules, 1) > maxChoices {
		return fmt.Errorf("%d rules in order are more than %d ways to count: refer to fewer rules", s.Rules, maxChoices)
	}
	for i, b := range s.Bounds {
		if i > 0 && b.Op == 0 && b.Number == "" {
			continue
		}
		if b.Op < GT || b.Op > NEQ {
			return fmt.Errorf("unknown comparison %d", b.Op)
		}
		if s.measures() {
			if ok, _ := isNumber(b.Number); !ok {
				return fmt.Errorf("bound %q: a number has at most %d digits before the point and %d behind it", b.Number, wholeDigits, fracDigits)
			}
			continue
		}
		n, err := strconv.ParseInt(b.Number, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("bound %q: must be a whole number", b.Number)
		}
		if n > MaxRecords {
			return fmt.Errorf("a bound of %d needs more events than the %d that a group keeps", n, MaxRecords)
		}
	}
	if s.Percentile != "" {
		x, _, ok := parseNumber(s.Percentile)
		if !ok || x.Sign() < 0 || s.Kind != ValuePercentile {
			return fmt.Errorf("percentile %q: must be a number from 0 to 100", s.Percentile)
		}
		if hundred, _, _ := parseNumber("100"); x.Cmp(hundred) > 0 {
			return fmt.Errorf("percentile %q: must be a number from 0 to 100", s.Percentile)
		}
	}
	return nil
}

// AtOnce reports whether the condition is monotone, so that a bucket fires with
// the record that completes it. Otherwise the watermark decides.
func (s *Spec) AtOnce() bool {
	switch {
	case s.Kind.sequential():
		return false
	case s.Shape == Session:
		return false // a late event can join two
	case s.Kind == ValueSum:
		return s.Bounds[1].Op == 0 && (s.Bounds[0].Op == GT || s.Bounds[0].Op == GTE)
	case s.Expr != "":
		return !slices.ContainsFunc([]byte(s.Expr), func(op byte) bool { return op >= ExprAbsent })
	}
	return s.Bounds[0].Op == 0
}

// measures reports whether bounds compare numbers that values add up to, share
// whether the percentage of an event's own value.
func (s *Spec) measures() bool { return ValueSum <= s.Kind && s.Kind <= ValueMedian }

func (s *Spec) share() bool { return s.Kind == ValuePercentile && s.Percentile == "" }

// Numbers reports whether values are numbers.
func (s *Spec) Numbers() bool { return s.measures() && !s.share() }

// tallied reports whether records are counted by value.
func (s *Spec) tallied() bool { return s.Kind == ValueCount || s.Kind == Risk || s.measures() }

// Reason is why a record does not count.
type Reason uint8

// The reasons.
const (
	Counts     Reason = iota
	NoRule            // it matched none of the rules
	NoValue           // it lacks the value that counts
	NotANumber        // its value is none
	Negative          // its value is below zero, where sums only grow
	IsLate            // older than the lateness of its source or of the rule, where the watermark decides
	IsEarly           // ahead of its ingest, where the watermark decides
)

// Judge says whether a record counts. Add leaves out what does not.
func (s *Spec) Judge(r *Record) Reason {
	switch {
	case r.Rules == 0:
		return NoRule
	case s.tallied() && !r.HasValue, s.Kind.sequential() && !s.hasValue(r):
		return NoValue
	case s.AtOnce() || s.AnyAge:
		return s.judgeNumber(r.Value)
	case r.Late && !s.OwnLateness || r.Ingest-r.Time > s.Lateness:
		// The flag is of the source's lateness, which may be shorter or longer than L.
		return IsLate
	case r.Early || r.Time-r.Ingest > EarlyAllowance:
		return IsEarly
	}
	return s.judgeNumber(r.Value)
}

func (s *Spec) judgeNumber(v string) Reason {
	if s.Kind == Risk {
		if _, ok := ParseScore(v); !ok {
			return NoValue
		}
		return Counts
	}
	if !s.Numbers() {
		return Counts
	}
	ok, negative := isNumber(v)
	switch {
	case !ok:
		return NotANumber
	case negative && s.AtOnce():
		return Negative
	}
	return Counts
}

// choices is in how many ways at least k of n rules can be chosen, or a number
// above maxChoices.
func choices(n, k int) int {
	sum, c := 0, 1 // c is n over i, for i falling from n
	for i := n; i >= k; i-- {
		if sum += c; sum > maxChoices {
			return sum
		}
		c = c * i / (n - i + 1)
	}
	return sum
}

// Reach is R = T + L + 5 min: how far apart the ingest times of records that
// qualify together may lie. It is also how long past its ingest the watermark
// must be before a record is dropped: nothing later could reach it.
func (s *Spec) Reach() int64 { return s.Memory() + s.Lateness + EarlyAllowance }

// Lag is how far below the watermark the ingest times may lie of events that a
// group has yet to say something of: what the watermark has passed by more is
// said. Kinds that take events in order do so at once, or, of an absence, a
// timespan later, however much they remember.
func (s *Spec) Lag() int64 {
	switch {
	case s.Kind == Absence:
		return s.Timespan + s.Lateness + EarlyAllowance
	case s.Kind.sequential():
		return s.Lateness + EarlyAllowance
	}
	return s.Reach()
}

// Span is how far before and after an event the records lie by which the group
// decides what it says of it, with all by which these were decided. How a group
// of NewValue or Rate began is known to it.
func (s *Spec) Span() (before, after int64) {
	switch {
	case s.Kind == NewValue || s.Kind == Rate:
	case s.Kind == Absence:
		after = s.Timespan
	case s.Shape == Sliding:
		before = s.Timespan
	default:
		before, after = s.Timespan+s.Gap, s.Timespan+s.Gap
	}
	return before + s.Before, after + s.After
}

// LookBack is how far before the watermark a rebuild has to start reading:
// memory + bucket + L + 5 min. The caller adds the produce slack S and, along
// chains, the look-backs of the children.
//
// Sessions add twice their timespan and a gap: where a rebuild begins amid
// events without a silence, it takes so long until its cuts are those of one
// that has seen the beginning.
func (s *Spec) LookBack() int64 {
	back := s.Reach() + s.Width()
	if s.Shape == Session {
		back += 2*s.Timespan + s.Gap
	}
	return back
}

// Width is the width of an alert's bucket.
func (s *Spec) Width() int64 {
	switch {
	case s.Suppress > 0:
		return s.Suppress
	case s.Kind.sequential() && s.Kind != Rate:
		return 0 // each event is a bucket by itself
	}
	return s.Timespan
}

// Bucket is the bucket of an event time: floor(t / Width), also below zero. A
// window next to others is in the bucket of its start as a whole, and so is a
// session in that of its first event.
func (s *Spec) Bucket(t int64) int64 {
	if s.Shape == Tumbling {
		t = s.start(t)
	}
	return floor(t, s.Width())
}

// begins is the first event time of a bucket.
func (s *Spec) begins(bucket int64) int64 {
	t := bucket * s.Width()
	if s.Shape == Tumbling {
		return -floor(-t, s.Timespan) * s.Timespan
	}
	return t
}

// start is the first event time of the window of an event time.
func (s *Spec) start(t int64) int64 {
	if s.Shape == Tumbling {
		return floor(t, s.Timespan) * s.Timespan
	}
	return t - s.Timespan
}

// end is the first event time behind the window of an event time.
func (s *Spec) end(t int64) int64 {
	if s.Shape == Tumbling {
		return s.start(t) + s.Timespan
	}
	return t + 1
}

// floor is a / b, rounded down, for b above zero.
func floor(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (s *Spec) temporal() bool { return s.Kind == Temporal || s.Kind == TemporalOrdered }
