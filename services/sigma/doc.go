// Package sigma is a Sigma rule engine: it parses detection rules, correlations,
// filters and pipelines, compiles them into an immutable Set and matches JSON
// events against it. It follows the Sigma specification 2.1.0 and, where that is
// silent, pySigma. Everything that is decided here is in docs/sigma.md.
//
// # From rules to matches
//
//	docs, problems := sigma.Parse(src, "rules.yml") // one Document each
//	set, more := sigma.Compile(docs, sigma.Options{}) // what is good of them
//	m := set.Matcher() // one for each goroutine
//	rules := m.Match(sigma.Event{Raw: line}, nil)
//
// Parse knows one file; references between rules, filters and placeholders are
// for Compile, which takes the documents of all files at once. Both return what
// is wrong as Problems, with file, line and field, and go on with the rest: a
// Problem of severity Error has rejected its document, a Warning has not. What
// can't be run is refused there, so no rule is loaded that could not match for
// a lack of ours.
//
// A Set is safe for concurrent use. It caches, behind a lock, what it works out
// for each log source that events assert; a Matcher remembers those it has met
// and then takes no lock. An event that matches nothing costs no allocation.
//
// # Correlations
//
// The package keeps no state between events: a Correlation is plain data for
// whoever counts, Rule.Correlations says which ones a match is for, and
// Matcher.Extract reads the group and the values that count from the event.
//
// # Why, and what never
//
// Explain says of each part of a rule whether it holds for an event. Lint finds
// rules that no event can match, Set.Coverage tells rules by log source.
//
// # What to rely on
//
// It does no I/O, reads no clock and has no state of its own. All that comes
// from outside is bounded by the constants Max…, never by elapsed time, so the
// same rules are accepted everywhere. A Revision changes where, and only where,
// what decides a match does. Exported names keep their meaning; new fields of
// structs and new kinds of Step and CorrelationType may come.
package sigma
