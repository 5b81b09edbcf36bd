// Package correlator turns events into alerts, in two stages. Detect matches
// each event against exactly the Sigma rules that it was stamped with.
// Correlate, one owner per partition of `detections`, folds what matched into
// windows and says what they add up to.
//
// It refuses to decide anything by its own clock, by the order in which
// records arrive, or by what its store remembers that the log does not say:
// alerts are a function of the accepted records, and the store may lose
// everything.
package correlator
