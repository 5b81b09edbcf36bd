package sigma

import "strings"

// LogSource names where events come from; rules name what they apply to with
// the same three dimensions. Compile lower-cases the rules' values, Match those
// of events.
type LogSource struct {
	Product  string
	Service  string
	Category string
}

// Rule is a compiled detection rule. It is immutable.
type Rule struct {
	ID          string
	Name        string
	Title       string
	Description string
	Status      string
	Author      string
	// Level is informational, low, medium, high or critical; empty if not given.
	Level      string
	Tags       []string
	References []string
	// Fields are those that the author wants shown.
	Fields    []string
	LogSource LogSource
	// Revision names what decides whether the rule matches, as 32 hex digits:
	// it changes with the log source and detection, not with the metadata.
	Revision string
	// Alerts says that a match is an alert by itself: no correlation refers to
	// the rule, or one that does says `generate: true`.
	Alerts bool
	// Shadow says that such an alert is counted and goes to nobody (`stormbell:
	// shadow`). It is no part of the revision.
	Shadow bool
	// Correlations are those that refer to the rule directly, in the set's order.
	Correlations []*Correlation
	File         string
	Line         int

	risk  int64 // its own score, or unrated
	index int   // position in its Set
	class int   // position of its log source in Set.classes
	expr  *expr
	// active are the transformations of pipelines that hold for the rule.
	active []*transformation
}

// Correlation is a compiled correlation rule, as plain data: its evaluation
// belongs to the caller. It is immutable.
type Correlation struct {
	ID          string
	Name        string
	Title       string
	Description string
	Status      string
	Author      string
	// Level is the correlation's own, else the highest of the referred rules.
	Level      string
	Tags       []string
	References []string
	Type       CorrelationType
	// Rules are the ids of the referred rules and correlations in listed order.
	Rules []string
	// GroupBy are field names or aliases; empty means one group.
	GroupBy []string
	// Timespan is in milliseconds; both ends of a window are in.
	Timespan  int64
	Condition Condition
	// Field are the fields whose values count, for the value_… types: several
	// are one tuple.
	Field []string
	// Percentile is which percentile value_percentile compares, a number from 0
	// to 100 as written. Empty: the share of the event's own value among the
	// window's events, in percent.
	Percentile string
	// Aliases maps an alias and a referred rule's id to the field that it stands for.
	Aliases map[string]map[string]string
	// Generate says that the referred rules alert by themselves too.
	Generate bool
	// StrictTies refuses to count events of the same millisecond as ordered
	// (`stormbell: ties: strict`).
	StrictTies bool
	// Lateness overrides that of the sources, in milliseconds; −1 is not given
	// (`stormbell: lateness`).
	Lateness int64
	// Suppress widens the alert's bucket, in milliseconds; 0 is not given
	// (`stormbell: suppress`).
	Suppress int64
	// Updates says that at a bucket's close its alert is told again, with what it
	// came to (`stormbell: updates`).
	Updates bool
	// Window is how event times are cut into windows; empty is Sliding
	// (`stormbell: window`). Gap, in milliseconds, is the longest silence within a
	// session (`stormbell: gap`).
	Window Window
	Gap    int64
	// Extension is what a type that `stormbell: type` adds has beside these. Its
	// field or location is Field, its trigger, if any, the first of Rules.
	Extension Extension
	// Scores are what its rules add to a risk, by id; those that add nothing are
	// not among Rules.
	Scores map[string]Score
	// Revision names what decides when the correlation fires, as 32 hex digits,
	// its referred rules' revisions included. That of a risk is of what it says
	// itself.
	Revision string
	// Alerts says that firing is an alert: no correlation refers to this one, or
	// one that does says `generate: true`.
	Alerts bool
	// Shadow says that such an alert is counted and goes to nobody (`stormbell:
	// shadow`). It is no part of the revision.
	Shadow bool
	// Parents are the correlations that refer to this one directly, Children the
	// correlations that it refers to.
	Parents, Children []*Correlation
	// Depth is the chain level: 1 refers to detection rules only, n + 1 to a
	// correlation of depth n.
	Depth int
	File  string
	Line  int

	risk       int64 // its own score, or unrated
	ways       []way
	extractors map[string]*extractor // by way
	// renamed are the fields that pipelines call otherwise in events of a rule,
	// by the way to it and the field's name.
	renamed map[string]map[string]string
}

// Window is how event times are cut into windows.
type Window string

// The values of `stormbell: window`.
const (
	Sliding  Window = "sliding"
	Tumbling Window = "tumbling"
	Session  Window = "session"
)

// CorrelationType is how a correlation's condition is measured.
type CorrelationType string

// The types of the specification, and those that `stormbell: type` adds.
const (
	EventCount       CorrelationType = "event_count"
	ValueCount       CorrelationType = "value_count"
	Temporal         CorrelationType = "temporal"
	TemporalOrdered  CorrelationType = "temporal_ordered"
	ValueSum         CorrelationType = "value_sum"
	ValueAvg         CorrelationType = "value_avg"
	ValuePercentile  CorrelationType = "value_percentile"
	ValueMedian      CorrelationType = "value_median"
	Absence          CorrelationType = "absence"
	NewValue         CorrelationType = "new_value"
	ImpossibleTravel CorrelationType = "impossible_travel"
	Rate             CorrelationType = "rate"
	Risk             CorrelationType = "risk"
)

// Op compares a measured number with a bound.
type Op string

// The operators of the specification.
const (
	GT  Op = "gt"
	GTE Op = "gte"
	LT  Op = "lt"
	LTE Op = "lte"
	EQ  Op = "eq"
	NEQ Op = "neq"
)

// Bound is one comparison of a condition.
type Bound struct {
	Op Op
	// Count is the threshold of the counting types.
	Count int64
	// Number is the threshold as written, for types that measure other numbers.
	Number string
}

// Condition says when a correlation fires: one bound, or a lower and an upper
// one (in this order) that must both hold.
type Condition struct {
	Bounds []Bound
	// Expression is the boolean expression over rule names of a temporal
	// correlation, as written; empty otherwise.
	Expression string
	// Tree is Expression with names resolved to ids; nil without one.
	Tree *Expression
}

// String is the condition in one line, as a rule writes it: "gte 3", "gt 1 and
// lte 5", or an expression; empty where there is none.
func (c Condition) String() string {
	if c.Expression != "" {
		return c.Expression
	}
	parts := make([]string, len(c.Bounds))
	for i, b := range c.Bounds {
		parts[i] = string(b.Op) + " " + b.Number
	}
	return strings.Join(parts, " and ")
}

// AtOnce reports whether the condition is monotone, so that it holds from the
// first event that satisfies it, and the least count that does.
func (c Condition) AtOnce() (least int64, ok bool) {
	if len(c.Bounds) != 1 {
		return 0, false
	}
	switch b := c.Bounds[0]; b.Op {
	case GTE:
		return b.Count, true
	case GT:
		return b.Count + 1, true
	default:
		return 0, false
	}
}

// Holds reports whether count satisfies every bound.
func (c Condition) Holds(count int64) bool {
	for _, b := range c.Bounds {
		var ok bool
		switch b.Op {
		case GT:
			ok = count > b.Count
		case GTE:
			ok = count >= b.Count
		case LT:
			ok = count < b.Count
		case LTE:
			ok = count <= b.Count
		case EQ:
			ok = count == b.Count
		case NEQ:
			ok = count != b.Count
		}
		if !ok {
			return false
		}
	}
	return len(c.Bounds) > 0
}
