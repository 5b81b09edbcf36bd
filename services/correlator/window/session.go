package window

// A session is what a group of events without a silence above gap is, cut where
// it lasts long.
//
// A run is all events between two silences. It is cut a first time one timespan
// after its start, so that no session that is shorter ever is, and from there on
// at the multiples of the timespan, wherever the run began: so the cuts depend
// on what lies a bounded time before them, and a rebuild finds them again.
type session struct {
	open      bool
	start     int64 // of the session
	run, last int64 // of the latest run: its start, its latest event
}

// cutAt is the event time at which the open session ends at the latest.
func (d *session) cutAt(s *Spec) int64 {
	if d.start == d.run {
		return d.run + s.Timespan + 1
	}
	return (floor(d.start, s.Timespan) + 1) * s.Timespan
}

// until is the first event time at which no event can belong to the session.
func (d *session) until(s *Spec) int64 { return min(d.last+s.Gap+1, d.cutAt(s)) }

// sessions puts the events before limit into sessions and decides those that
// have come to their end.
func (d *decider) sessions(g *Group, limit int64) (out []Firing, done bool) {
	for d.hi < g.recs.len() {
		t := g.recs.at(d.hi).time
		if t >= limit {
			break
		}
		if d.open && t >= d.until(g.spec) {
			if out = d.finish(g, out); len(out) >= MaxFirings {
				limit = t
				break
			}
		}
		d.join(g.spec, t)
		d.slide(g, d.start, g.recs.upper(t))
	}
	if d.open && d.until(g.spec) <= limit && len(out) < MaxFirings {
		out = d.finish(g, out)
	}
	d.closed = limit
	if limit = d.closed; d.open {
		limit = min(limit, d.start)
	}
	d.forget(g, limit)
	d.mend(g)
	return out, len(out) < MaxFirings
}

// join puts the next event time into the open session, or begins one with it.
func (d *decider) join(s *Spec, t int64) {
	if !d.open {
		d.open, d.start = true, t
		// A run that has lasted so long by the event before is cut at the multiples of
		// the timespan, wherever it began until its start as it is known.
		if t-d.last > s.Gap || d.last > d.run+s.Timespan {
			d.missing.blurred = false
		}
		if t-d.last > s.Gap {
			d.run = t
		}
	}
	d.last = t
}

// finish decides the open session. Where it says too much for one call it stays
// open, and what it has said is marked so.
func (d *decider) finish(g *Group, out []Firing) []Firing {
	f := Firing{Bucket: g.spec.Bucket(d.start), Start: d.start, End: d.last}
	for j := d.hi - 1; j >= d.lo; j-- {
		if len(out) >= MaxFirings {
			return out
		}
		out = d.at(g, j, f, out)
	}
	for _, r := range g.recs.each(d.lo, d.hi) {
		d.sum.leave(g, r)
		delete(d.traces, r.seq)
	}
	d.open, d.lo = false, d.hi
	d.sum.emptied(g)
	return out
}
