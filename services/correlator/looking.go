package correlator

import (
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/sigma"
)

// looking looks, for one claim, into some of the events for rules that have
// never matched: which fit an event but for a field that it lacks? A rule whose
// field never occurs says nothing by itself.
type looking struct {
	tenant string
	source status.Source
	seen   *int
	counts map[lookingKey]*int
	board  *status.Tenant
}

type lookingKey struct {
	tenant string
	source status.Source
}

// Of each tenant and log source, the first events are looked into, and then one
// of many: looking costs as much as asking all rules without their index.
const (
	lookFirst = 64
	lookEvery = 512
)

// due reports whether an event is to be looked into.
func (l *looking) due(board *status.Board, e *event.Event) bool {
	src := status.Source{Product: e.Product, Service: e.Service, Category: e.Category, Strict: e.StrictLogsource}
	if l.seen == nil || l.tenant != e.Tenant || l.source != src {
		key := lookingKey{e.Tenant, src}
		if l.counts == nil || len(l.counts) > maxRemembered {
			l.counts = make(map[lookingKey]*int)
		}
		if l.counts[key] == nil {
			l.counts[key] = new(int)
		}
		l.tenant, l.source, l.seen, l.board = e.Tenant, src, l.counts[key], board.Tenant(e.Tenant)
	}
	*l.seen++
	return *l.seen <= lookFirst || *l.seen%lookEvery == 0
}

// into looks into the event that was matched last.
func (l *looking) into(e *event.Event, p *plan, matcher *sigma.Matcher) {
	src := sigma.LogSource{Product: e.Product, Service: e.Service, Category: e.Category}
	for _, r := range p.set.Rules() {
		if !r.LogSource.Applies(src, e.StrictLogsource) {
			continue
		}
		counted := l.board.Rule(r.ID)
		if counted.Hit() {
			continue
		}
		near, has, lacks := matcher.Near(r)
		counted.Look(r.Revision, near, has, lacks)
	}
}
