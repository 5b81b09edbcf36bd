package window

import (
	"fmt"
	"math"
)

// absence holds, with a trigger, the trigger's events that still wait for what
// is to follow; without one, the last heartbeat.
//
// A trigger at t waits for the other rule in (t, t+T]: an event of the same
// millisecond has no known order, and a detection is not lost. An event that
// matches both ends the wait of those before it and begins its own.
type absence struct {
	*sequence
	// said is true where the held heartbeat has been found missing.
	said bool
}

func (m *absence) take(e *entry) *Firing {
	if !m.spec.triggered() {
		for len(m.held) > 1 {
			m.release(m.held[0])
		}
		m.said = false
		return nil
	}
	if e.rules&2 != 0 {
		for m.held[0].time < e.time {
			m.release(m.held[0])
		}
	}
	if e.rules&1 == 0 {
		m.release(e)
	}
	return nil
}

func (m *absence) pass(t int64) *Firing {
	if len(m.held) == 0 || m.said && m.held[0].time+m.forget() >= t {
		return nil
	}
	e := m.held[0]
	if m.said {
		m.release(e)
		m.said = false
		return nil
	}
	end := e.time + m.spec.Timespan
	if end >= t {
		return nil
	}
	f := m.firing(e, e.time, end, e)
	if m.spec.triggered() {
		m.release(e)
	} else {
		m.said = true
	}
	return f
}

// superfluous is a heartbeat, or an event that is waited for, between two others
// that lie at most T apart. Nothing is said of it, nor otherwise of another for want
// of it:
//
// Let b lie between a and c. b is not the last before a silence, since c follows
// within T. Whatever of x < b the silence is that b ends (a heartbeat x, or a trigger,
// with b in (x, x+T]): if x < a then a ends it as well, since a lies in (x, b]; if not
// then c does, since x ≥ a and c ≤ a+T. The same holds of what is let go later: its
// neighbours then lie at most T apart, and so do those of what was let go between
// them before.
//
// A trigger is, too, that does not end a wait itself, and is followed within T by
// what it waits for.
func (m *absence) superfluous(before, e, after *entry) bool {
	switch t := m.spec.Timespan; {
	case after == nil:
		return false
	case !m.spec.triggered():
		return before != nil && after.time-before.time <= t
	case e.rules == 1:
		return after.rules&2 != 0 && e.time < after.time && after.time-e.time <= t
	default:
		return e.rules == 2 && before != nil && before.rules&after.rules&2 != 0 && after.time-before.time <= t
	}
}

func (m *absence) forget() int64 { return max(m.spec.Extension.Forget, m.spec.Timespan) }

func (m *absence) due() int64 {
	switch {
	case len(m.held) == 0:
		return math.MaxInt64
	case m.said:
		return m.held[0].time + m.forget() + 1
	default:
		return m.held[0].time + m.spec.Timespan + 1
	}
}

func (m *absence) size() int { return 0 }

func (m *absence) changes(dst []Change) []Change {
	said := byte(0)
	if m.said {
		said = 1
	}
	return append(dst, Change{Field: "sa", Value: []byte{said}})
}

func (m *absence) load(field string, value []byte) error {
	if field != "sa" || len(value) != 1 || value[0] > 1 {
		return fmt.Errorf("%w: field %q", errCorrupt, field)
	}
	m.said = value[0] == 1
	return nil
}
