package sigma

type (
	meta           struct{}
	detection      struct{}
	correlationDoc struct{}
	expr           struct{}
	extractor      struct{}
)

// Parse splits src into YAML documents and parses each into a rule. Documents
// with errors are left out and reported. file is the name that problems carry.
func Parse(src []byte, file string) ([]Document, []Problem) { return ParseAt(src, file, 1) }

// ParseAt is Parse for a document that was cut out of file at the given line.
func ParseAt(src []byte, file string, line int) ([]Document, []Problem) { return nil, nil }

// Options are what a deployment decides about a rule set. The zero value is valid.
type Options struct {
	// Placeholders are the values of `%name%` under the modifier expand, by name.
	Placeholders map[string][]string
	// Accept, if set, may refuse a correlation that the caller can't evaluate:
	// its error rejects the correlation and becomes the problem's message.
	Accept func(*Correlation) error
}

// Compile builds a Set of the documents that are good; the others, and
// correlations that refer to them, are left out and reported. It never returns
// a nil Set.
func Compile(docs []Document, opts Options) (*Set, []Problem) { return &Set{}, nil }

// Set is a compiled rule set. It is immutable and safe for concurrent use.
type Set struct {
	rules        []*Rule
	correlations []*Correlation
}

// Rules are the detection rules in the order of their documents.
func (s *Set) Rules() []*Rule { return s.rules }

// Correlations are the correlation rules, each after those it refers to.
func (s *Set) Correlations() []*Correlation { return s.correlations }

// Rule is the detection rule with this id, or nil.
func (s *Set) Rule(id string) *Rule { return nil }

// Correlation is the correlation rule with this id, or nil.
func (s *Set) Correlation(id string) *Correlation { return nil }

// Matcher returns scratch space for matching. One goroutine may use it at a time.
func (s *Set) Matcher() *Matcher { return &Matcher{} }

// Matcher matches events against its Set. It reuses its buffers, so it belongs
// to one goroutine.
type Matcher struct{}

// Event is what is matched.
type Event struct {
	// Raw is one JSON object.
	Raw []byte
	// LogSource is what the event's source asserts about it.
	LogSource LogSource
	// Strict says that the source asserts all three dimensions, empty ones too:
	// a rule applies only where each dimension that it names is equal. Otherwise
	// dimensions that the source leaves empty exclude nothing.
	Strict bool
}

// Match appends the rules that match the event to dst, in the set's order.
// Where Raw is not a JSON object nothing matches and Err says why.
func (m *Matcher) Match(ev Event, dst []*Rule) []*Rule { return dst }

// Err is why the last event could not be read, or nil.
func (m *Matcher) Err() error { return nil }

// Values are what a correlation takes from an event.
type Values struct {
	// Group are the values in the order of GroupBy.
	Group []string
	// Fields are the values of the correlation's Field, one tuple.
	Fields []string
	// Incomplete says that a value of Field is missing or null: the event's
	// tuple does not count.
	Incomplete bool
}

// Extract takes from raw what correlation c needs of an event for which the
// referred rule (an id in c.Rules) matched. It is false where a field of
// group-by is missing or null: such an event is not counted. Values are exact
// text; objects and arrays are compact JSON.
func (m *Matcher) Extract(raw []byte, c *Correlation, rule string) (Values, bool) {
	return Values{}, false
}
