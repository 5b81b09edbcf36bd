package notifier

import (
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	deliveryv1 "github.com/stormbell/stormbell/proto/stormbell/delivery/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// ledger is what a shard's partition of `deliveries` says: which alerts are
// decided, and what is left to do of those that are yet to be put into the
// queue. The first decision on an alert counts.
type ledger struct {
	// next is the offset of `deliveries` to read next.
	next int64
	// from is the first offset of `alerts` of which the queue holds nothing.
	from int64
	// decided holds alerts by their names, order their times, oldest first.
	decided map[name]struct{}
	order   []aged
	newest  int64
	keep    time.Duration
	// open holds what is left to do by alert, for decisions on records from
	// `from` on, until it is taken.
	open    map[name]work
	skipped int
}

// work is what is left to do for one alert.
type work struct {
	offset int64 // of the alert
	left   []pending
}

// name stands for what a notice is called: there may be millions.
type name [16]byte

func nameOf(alert string) name {
	h := sha256.Sum256([]byte(alert))
	return name(h[:16])
}

type aged struct {
	alert name
	atMS  int64
}

// pending is a delivery as the log has it.
type pending struct {
	endpoint string
	attempts int
	// dueMS is when the next attempt is due; 0 before the first.
	dueMS int64
	// first is the traceparent of the first attempt.
	first string
}

func newLedger(from int64, keep time.Duration) *ledger {
	return &ledger{from: from, keep: keep, decided: make(map[name]struct{}), open: make(map[name]work)}
}

// apply reads records in the order of the log. What cannot be read is counted
// and skipped: the topic holds our own records only.
func (l *ledger) apply(records []bus.Record) {
	for i := range records {
		r := &records[i]
		if r.Offset < l.next {
			continue
		}
		l.next = r.Offset + 1
		switch string(r.Header(event.HeaderSchema)) {
		case schemaRouted:
			d := new(deliveryv1.Routed)
			if proto.Unmarshal(r.Value, d) != nil {
				l.skipped++
				continue
			}
			l.decide(d, r.Time.UnixMilli())
		case schemaAttempt:
			a := new(deliveryv1.Attempt)
			if proto.Unmarshal(r.Value, a) != nil {
				l.skipped++
				continue
			}
			l.attempted(a)
		}
	}
}

func (l *ledger) decide(d *deliveryv1.Routed, atMS int64) {
	id := nameOf(noticeName(d.GetAlertId(), d.GetType()))
	if _, ok := l.decided[id]; ok {
		return
	}
	l.decided[id] = struct{}{}
	l.order = append(l.order, aged{id, atMS})
	l.newest = max(l.newest, atMS)
	l.forget()
	if d.GetAlertOffset() < l.from {
		return // the queue has had it
	}
	left := make([]pending, len(d.GetTargets()))
	for i, t := range d.GetTargets() {
		left[i].endpoint = t.GetEndpointId()
	}
	if len(left) > 0 {
		l.open[id] = work{d.GetAlertOffset(), left}
	}
}

// forget drops decisions too old for another copy of their alert to appear.
func (l *ledger) forget() {
	n := 0
	for n < len(l.order) && l.order[n].atMS < l.newest-l.keep.Milliseconds() {
		if _, waits := l.open[l.order[n].alert]; waits {
			break
		}
		delete(l.decided, l.order[n].alert)
		n++
	}
	l.order = l.order[n:]
}

func (l *ledger) attempted(a *deliveryv1.Attempt) {
	id := nameOf(noticeName(a.GetAlertId(), a.GetType()))
	w := l.open[id]
	for i := range w.left {
		p := &w.left[i]
		if p.endpoint != a.GetEndpointId() {
			continue
		}
		if a.GetOutcome() != deliveryv1.Outcome_OUTCOME_FAILED {
			if w.left = slices.Delete(w.left, i, i+1); len(w.left) == 0 {
				delete(l.open, id)
				return
			}
			l.open[id] = w
			return
		}
		if a.GetNumber() == 1 {
			p.first = traceparentOf(a.GetTraceId(), a.GetSpanId())
		}
		if n := int(a.GetNumber()); n >= p.attempts {
			p.attempts, p.dueMS = n, a.GetNextDueMs()
		}
		return
	}
}

// known reports whether an alert is decided.
func (l *ledger) known(alert string) bool {
	_, ok := l.decided[nameOf(alert)]
	return ok
}

// take returns, once, what is left to do for an alert.
func (l *ledger) take(alert string) []pending {
	id := nameOf(alert)
	left := l.open[id].left
	delete(l.open, id)
	return left
}

// passed drops what is left to do for alerts below an offset: their records
// were read, or are no longer in the log.
func (l *ledger) passed(offset int64) {
	maps.DeleteFunc(l.open, func(_ name, w work) bool { return w.offset < offset })
}
