package window

import "encoding/binary"

// A full group lets go of its oldest record by event time for each new one. What
// that makes of its alerts:
//
// A rule that fires at once, of a kind that only grows, says no more than it would
// have: alerts may be missing.
//
// What the watermark decides counts all of a window, and a window of which records
// may have gone says nothing but what is certain: that a condition holds which
// further records can't take away, and does by those that are left. All others are
// left undecided, and counted. Records go in order of time, so those may have gone
// that are not later than the latest that has: the floor. It is stored, until no
// window reaches down to it any more.
//
// Sessions are known by all events of their run. A record that goes before its
// session has been looked at is put into one then, and what comes before it from
// there on is too late: it is lost, and may have changed where the sessions of the
// run begin, which then are blurred until a silence, or a cut that does not depend
// on where the run began.

// Lost is what a full group has lost.
type Lost struct {
	// Shed are records that it has let go, or not taken, for want of room.
	Shed int
	// Cut are the windows of events that it has left undecided for that.
	Cut int
	// Full: it will have no room for what a record has shown, unless something else
	// is forgotten.
	Full bool
}

// Lost is what the group has lost since it was asked last. It is not stored.
func (g *Group) Lost() (l Lost) {
	from := &g.lost
	if g.sequence != nil {
		from = &g.sequence.lost
	}
	l, *from = *from, Lost{}
	return l
}

// Crowded reports whether Lost may have something to say after so many more records.
func (g *Group) Crowded(n int) bool {
	if q := g.sequence; q != nil {
		m, ok := q.machine.(*rate)
		return q.lacking() || q.len()+n > q.room || ok && m.ahead.last.id != ""
	}
	return g.overflow || g.Held()+n > g.room
}

// missing is what a decider knows of records that have gone.
type missing struct {
	// floor is the greatest event time of those; never where there is none.
	floor int64
	// blurred: where the open session, or the next of its run, begins is not known.
	blurred bool
}

func (m *missing) some() bool { return m.floor > never || m.blurred }

// lacks reports whether records may lack in a window that begins at start.
func (m *missing) lacks(start int64) bool { return start <= m.floor || m.blurred }

func (m *missing) append(b []byte) []byte {
	if b = binary.AppendVarint(b, m.floor); m.blurred {
		return append(b, 1)
	}
	return append(b, 0)
}

func (m *missing) decode(from *decoder) {
	m.floor, m.blurred = max(never, from.varint()), from.byte() == 1
}

// lose takes notice that the group's first record goes, because it is full.
func (d *decider) lose(g *Group, r *record) {
	d.missing.floor = max(d.missing.floor, r.time)
	open := d.open && r.time >= d.start
	if r.time < d.closed && !open {
		return // what it can still do is to lack
	}
	g.lost.Cut++
	if g.spec.Shape == Session && r.time >= d.closed {
		if d.open && r.time >= d.until(g.spec) {
			d.open = false // nothing of it is left to decide
		}
		d.join(g.spec, r.time)
		d.closed = r.time
	}
}

// overtaken takes notice of a record that comes before one that has gone.
func (d *decider) overtaken(g *Group, t int64) {
	if t > d.missing.floor || g.spec.Shape != Session {
		return // the watermark has broken its promise
	}
	g.pages.meta = true
	g.lost.Shed++
	g.lost.Cut++
	d.missing.blurred = d.missing.blurred || t >= d.run-g.spec.Gap
}

// opened takes notice of a group as it was stored: of one that was full before
// floors were, all that has gone was no later than its first record.
func (m *missing) opened(g *Group) {
	if g.overflow && !m.some() && g.recs.len() > 0 {
		m.floor = g.recs.first().time
	}
}

// mend forgets the floor where no window reaches down to it any more.
func (d *decider) mend(g *Group) {
	from := g.spec.start(d.closed)
	if g.spec.Shape == Session {
		if from = d.closed; d.open {
			from = d.start
		}
	}
	if d.missing.floor < from {
		d.missing.floor = never
	}
	g.overflow = d.missing.some()
}

// sure reports whether a condition that a window meets is one that it would meet
// with further records, too.
func (a *aggregate) sure(g *Group, c *condition, count, lo, hi int) bool {
	switch {
	case g.spec.measures():
		return false
	case g.spec.Expr == "":
		return c.sure(count)
	case g.spec.Kind == TemporalOrdered:
		return g.orderedBy(g.listed(lo, hi), ^uint64(0)) > 0
	}
	return exprHolds(g.spec.Expr, a.seen, ^uint64(0))
}

// sure reports whether a count, and every greater one, meets every bound.
func (c *condition) sure(count int) bool {
	for _, b := range c.bounds {
		switch b.op {
		case GT, GTE:
			if !b.op.holds(count - b.count) {
				return false
			}
		case NEQ:
			if count <= b.count {
				return false
			}
		default:
			return false
		}
	}
	return true
}
