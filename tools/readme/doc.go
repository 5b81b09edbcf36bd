// Package readme runs what README.md and the guides tell their reader to type,
// and compares what comes out with what they show.
//
// Each page is one reader: a directory, a home and ports of their own, with the
// program in ./bin; README.md is the first and builds it. A fenced block stands
// behind an HTML comment that says what becomes of it:
//
//   - `run`: a shell runs it, and prints the text block that follows, line by
//     line; lines of `…` stand for any that are left out;
//   - `quiet`: a shell runs it, and prints nothing;
//   - `start NAME`: it is left running;
//   - `see NAME`: a text block whose lines come out of what runs under that
//     name, in this order;
//   - `file PATH`: it is what the file holds;
//   - `elsewhere: WHERE`: it is not run here; the page says where it was.
//
// Every block of shell lines has such a comment. Ids, times, figures of rules
// and ports are the same for the comparison.
package readme
