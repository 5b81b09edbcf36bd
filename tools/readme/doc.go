// Package readme runs what README.md tells its reader to type, and compares
// what comes out with what README.md shows.
//
// A block of shell lines stands behind an HTML comment: `run` runs it and
// compares its output with the text block that follows; `start NAME` leaves it
// running; `see NAME` is a text block whose lines must come out of what runs
// under that name. Ids, times and ports are the same for the comparison.
package readme
