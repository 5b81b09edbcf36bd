package window

import (
	"iter"
	"math"
	"slices"
	"sort"
)

// chunkRecords is how many records a chunk holds at most: what a newcomer out
// of order moves, and not all records after it.
const chunkRecords = 128

// A timeline holds records in the order of compare, in chunks, so that an
// insertion costs the same wherever it is. An index counts from the first
// record that is left.
type timeline struct {
	chunks []chunk // none is empty
	gone   int     // records taken from the front so far
	most   int     // in a chunk
}

type chunk struct {
	recs []record
	end  int   // records up to here, those that are gone included
	last int64 // time of the last record
	// oldest is the least ingest time, or below it where records were shifted.
	oldest int64
	// newest is the greatest ingest time, or above it.
	newest int64
	// untold is how many records are so.
	untold int
}

func newTimeline() timeline { return timeline{most: chunkRecords} }

// fill takes records, which are in order, in place of what was there.
func (l *timeline) fill(recs []record) {
	clear(l.chunks)
	l.chunks, l.gone = l.chunks[:0], 0
	for _, r := range recs {
		l.push(r)
	}
}

func (l *timeline) len() int {
	if len(l.chunks) == 0 {
		return 0
	}
	return l.chunks[len(l.chunks)-1].end - l.gone
}

// at is the record at an index. It is good until the timeline changes.
func (l *timeline) at(i int) *record {
	c, o := l.locate(i)
	return &l.chunks[c].recs[o]
}

func (l *timeline) first() *record { return &l.chunks[0].recs[0] }

func (l *timeline) latest() *record {
	recs := l.chunks[len(l.chunks)-1].recs
	return &recs[len(recs)-1]
}

// locate is the chunk of an index and the offset there.
func (l *timeline) locate(i int) (c, offset int) {
	abs := i + l.gone
	c = len(l.chunks) - 1
	if c > 0 && abs < l.chunks[c-1].end {
		c = sort.Search(c, func(k int) bool { return abs < l.chunks[k].end })
	}
	return c, abs - l.begin(c)
}

// begin is what end was before the chunk's first record.
func (l *timeline) begin(c int) int { return l.chunks[c].end - len(l.chunks[c].recs) }

// lower is the index of the first record with a time of at least t.
func (l *timeline) lower(t int64) int {
	return l.search(t, func(r *record) bool { return r.time >= t })
}

// upper is the index of the first record with a time above t.
func (l *timeline) upper(t int64) int {
	if t == math.MaxInt64 {
		return l.len()
	}
	return l.lower(t + 1)
}

// place is the index of the first record that is not before r.
func (l *timeline) place(r *record) int {
	return l.search(r.time, func(x *record) bool { return compare(x, r) >= 0 })
}

// search is the index of the first record that meets ok. All before it have
// times of at most t and none with a later time fails.
func (l *timeline) search(t int64, ok func(r *record) bool) int {
	n := len(l.chunks)
	if n == 0 || l.chunks[n-1].last < t {
		return l.len()
	}
	c := 0
	if n > 1 {
		c = sort.Search(n-1, func(k int) bool {
			x := &l.chunks[k]
			return x.last >= t && ok(&x.recs[len(x.recs)-1])
		})
	}
	recs := l.chunks[c].recs
	return l.begin(c) - l.gone + sort.Search(len(recs), func(k int) bool { return ok(&recs[k]) })
}

// each yields the records from one index up to another.
func (l *timeline) each(from, to int) iter.Seq2[int, *record] {
	return func(yield func(int, *record) bool) {
		if from >= to {
			return
		}
		c, o := l.locate(from)
		for i := from; i < to; c, o = c+1, 0 {
			recs := l.chunks[c].recs
			for ; o < len(recs) && i < to; o, i = o+1, i+1 {
				if !yield(i, &recs[o]) {
					return
				}
			}
		}
	}
}

func (l *timeline) all() iter.Seq2[int, *record] { return l.each(0, l.len()) }

// push appends the last record.
func (l *timeline) push(r record) {
	n := len(l.chunks)
	switch {
	case n == 0:
		l.chunks = append(l.chunks, chunk{end: l.gone, oldest: math.MaxInt64, newest: math.MinInt64}) // small groups stay small
	case len(l.chunks[n-1].recs) >= l.most:
		l.chunks = append(l.chunks, chunk{recs: make([]record, 0, l.most), end: l.chunks[n-1].end, oldest: math.MaxInt64, newest: math.MinInt64})
	}
	c := &l.chunks[len(l.chunks)-1]
	c.recs = append(c.recs, r)
	c.end++
	c.last = r.time
	c.enter(&r)
}

// enter counts a record in.
func (c *chunk) enter(r *record) {
	c.oldest, c.newest = min(c.oldest, r.ingest), max(c.newest, r.ingest)
	if r.untold {
		c.untold++
	}
}

// told notes that the record at an index was reported.
func (l *timeline) told(i int) {
	c, o := l.locate(i)
	l.chunks[c].recs[o].untold = false
	l.chunks[c].untold--
}

// put puts a record in the place of one that carried nothing and is equal to it in
// order, but for its ingest time.
func (l *timeline) put(i int, r record) {
	c, o := l.locate(i)
	l.chunks[c].recs[o] = r
	l.chunks[c].enter(&r)
}

// untold is the index of the first record from an index on that carries what has
// not been reported, or the end. Most have been, so that most chunks are passed
// over.
func (l *timeline) untold(i int) int {
	if i >= l.len() {
		return l.len()
	}
	c, o := l.locate(i)
	for ; c < len(l.chunks); c, o = c+1, 0 {
		x := &l.chunks[c]
		if x.untold == 0 {
			continue
		}
		for ; o < len(x.recs); o++ {
			if x.recs[o].untold {
				return l.begin(c) + o - l.gone
			}
		}
	}
	return l.len()
}

// insert puts a record at an index, which place gave.
func (l *timeline) insert(i int, r record) {
	if i == l.len() {
		l.push(r)
		return
	}
	c, o := l.locate(i)
	if len(l.chunks[c].recs) >= l.most {
		l.split(c)
		c, o = l.locate(i)
	}
	x := &l.chunks[c]
	x.recs = slices.Insert(x.recs, o, r)
	x.enter(&r)
	for k := c; k < len(l.chunks); k++ {
		l.chunks[k].end++
	}
}

// split makes two chunks of one.
func (l *timeline) split(c int) {
	recs := l.chunks[c].recs
	half := len(recs) / 2
	later := chunk{recs: append(make([]record, 0, l.most), recs[half:]...), end: l.chunks[c].end, last: l.chunks[c].last, oldest: l.chunks[c].oldest, newest: l.chunks[c].newest}
	clear(recs[half:])
	l.chunks[c].recs = recs[:half]
	l.chunks[c].end -= len(later.recs)
	l.chunks[c].last = recs[half-1].time
	for i := range later.recs {
		if later.recs[i].untold {
			later.untold++
		}
	}
	l.chunks[c].untold -= later.untold
	l.chunks = slices.Insert(l.chunks, c+1, later)
}

// shift takes the first record away.
func (l *timeline) shift() {
	x := &l.chunks[0]
	if x.recs[0].untold {
		x.untold--
	}
	x.recs[0] = record{}
	x.recs = x.recs[1:]
	l.gone++
	if len(x.recs) == 0 {
		l.chunks[0] = chunk{}
		l.chunks = l.chunks[1:]
	}
}

// oldest is the least ingest time, or below it.
func (l *timeline) oldest() int64 {
	least := int64(math.MaxInt64)
	for i := range l.chunks {
		least = min(least, l.chunks[i].oldest)
	}
	return least
}

// spread is how far the ingest times of the records lo to hi lie apart, or more.
func (l *timeline) spread(lo, hi int) int64 {
	first, _ := l.locate(lo)
	last, _ := l.locate(hi - 1)
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	for i := first; i <= last; i++ {
		oldest, newest = min(oldest, l.chunks[i].oldest), max(newest, l.chunks[i].newest)
	}
	return newest - oldest
}

// drop takes away all records with an ingest time below least, each of which
// it shows before, with the index that it had.
func (l *timeline) drop(least int64, show func(i int, r *record)) {
	at, kept := 0, l.chunks[:0] // at is the index before anything was taken
	for _, c := range l.chunks {
		n := len(c.recs)
		if c.oldest < least {
			c.sift(least, func(o int, r *record) { show(at+o, r) })
		}
		at += n
		if len(c.recs) > 0 {
			kept = append(kept, c)
		}
	}
	clear(l.chunks[len(kept):])
	l.chunks, l.gone = kept, 0
	end := 0
	for i := range l.chunks {
		end += len(l.chunks[i].recs)
		l.chunks[i].end = end
	}
}

// sift is drop for one chunk; what is left stays where its memory is.
func (c *chunk) sift(least int64, show func(offset int, r *record)) {
	kept := c.recs[:0]
	c.oldest, c.newest, c.untold = math.MaxInt64, math.MinInt64, 0
	for o := range c.recs {
		r := &c.recs[o]
		if r.ingest < least {
			show(o, r)
			continue
		}
		c.enter(r)
		kept = append(kept, *r)
	}
	clear(c.recs[len(kept):])
	if c.recs = kept; len(kept) > 0 {
		c.last = kept[len(kept)-1].time
	}
}
