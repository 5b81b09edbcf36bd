// Package status is what a process counts for whoever asks how things are, and
// the sum of what all processes have counted.
//
// A Board counts, a Publisher writes what it has counted to the topic `status`,
// and a View adds up what stands there. All of it is best-effort: nothing that
// is promised depends on it, a lost report costs a display a moment, and
// counting takes neither a lock nor an allocation where events pass.
package status

import (
	"maps"
	"sync"
	"sync/atomic"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
)

// Bounds of what one process counts apart; what comes beyond them is counted
// nowhere, and the report says so.
const (
	maxTenants  = 1000
	maxSources  = 64   // of a tenant
	maxRules    = 2000 // of a tenant
	maxWebhooks = 200  // of a tenant
	maxFields   = 64   // of a rule
	maxOpen     = 20_000
)

// Counter is how often something happened, and when last.
type Counter struct{ n, last atomic.Int64 }

// Add counts n more, at a time in Unix milliseconds.
func (c *Counter) Add(n, nowMS int64) {
	if n > 0 {
		c.n.Add(n)
		c.last.Store(nowMS)
	}
}

// Value is how often it happened.
func (c *Counter) Value() int64 { return c.n.Load() }

func (c *Counter) report() *statusv1.Count {
	if n := c.n.Load(); n > 0 {
		return &statusv1.Count{N: n, LastMs: c.last.Load()}
	}
	return nil
}

// table is a map that is read without a lock and grows up to a limit.
type table[K comparable, V any] struct {
	all  atomic.Pointer[map[K]*V]
	mu   sync.Mutex // of who adds
	full atomic.Bool
	rest V // takes what does not fit
}

func (t *table[K, V]) get(key K, limit int) *V {
	if all := t.all.Load(); all != nil {
		if v := (*all)[key]; v != nil {
			return v
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.load()
	if v := old[key]; v != nil {
		return v
	}
	if len(old) >= limit {
		t.full.Store(true)
		return &t.rest
	}
	fresh := make(map[K]*V, len(old)+1)
	maps.Copy(fresh, old)
	v := new(V)
	fresh[key] = v
	t.all.Store(&fresh)
	return v
}

func (t *table[K, V]) load() map[K]*V {
	if all := t.all.Load(); all != nil {
		return *all
	}
	return nil
}

// Board is what one process has counted. It is safe for concurrent use.
type Board struct {
	tenants table[string, Tenant]

	mu     sync.Mutex
	stages []func() *statusv1.Stage
	open   map[openKey]openGroups
	full   map[openKey]fullGroups
}

// openKey is one correlation's revision in one partition.
type openKey struct {
	partition int32
	tally     string
}

type openGroups struct {
	tenant, rule string
	n            int64
}

type fullGroups struct {
	tenant, rule string
	groups       []Group
}

// Group is an open group of a correlation.
type Group struct {
	// Values are in the order of group-by.
	Values   []string
	Revision string
	// Count is what the condition counts in the window of the latest event, at
	// least that where AtLeast; Events is all that the group remembers.
	Count, Events int64
	AtLeast       bool
	// FirstMS and LastMS are the times of the outermost events, DueMS is the
	// watermark at which it decides or forgets something next.
	FirstMS, LastMS, DueMS int64
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	return &Board{open: make(map[openKey]openGroups), full: make(map[openKey]fullGroups)}
}

// Tenant returns the counters of a tenant.
func (b *Board) Tenant(id string) *Tenant { return b.tenants.get(id, maxTenants) }

// Watch adds a stage whose gauges each report asks for.
func (b *Board) Watch(stage func() *statusv1.Stage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stages = append(b.stages, stage)
}

// Open says how many groups of a correlation a partition holds; tally names its
// revision.
func (b *Board) Open(partition int32, tally, tenant, rule string, n int64) {
	b.Tenant(tenant).Rule(rule) // so that the report has it
	b.mu.Lock()
	defer b.mu.Unlock()
	key := openKey{partition, tally}
	if n <= 0 {
		delete(b.open, key)
	} else if _, known := b.open[key]; known || len(b.open) < maxOpen {
		b.open[key] = openGroups{tenant, rule, n}
	}
}

// Fullest says which groups of a correlation in a partition are the fullest.
func (b *Board) Fullest(partition int32, tally, tenant, rule string, groups []Group) {
	b.Tenant(tenant).Rule(rule) // so that the report has it
	b.mu.Lock()
	defer b.mu.Unlock()
	key := openKey{partition, tally}
	if len(groups) == 0 {
		delete(b.full, key)
	} else if _, known := b.full[key]; known || len(b.full) < maxOpen {
		b.full[key] = fullGroups{tenant, rule, groups}
	}
}

// Left forgets the groups of a partition that has another owner now.
func (b *Board) Left(partition int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.open, func(k openKey, _ openGroups) bool { return k.partition == partition })
	maps.DeleteFunc(b.full, func(k openKey, _ fullGroups) bool { return k.partition == partition })
}

// Source is a log source as events assert it.
type Source struct {
	Product, Service, Category string
	// Strict: it asserts empty dimensions too.
	Strict bool
}

// Tenant are the counters of one tenant.
type Tenant struct {
	// By the gateway.
	Received, Rejected, Late, Early Counter
	// By the correlator.
	Matched, Detections, Alerts, Shadowed Counter
	// By the notifier.
	Unheard, Delivered, Failed, Parked Counter
	// RetriesBegun counts deliveries whose first attempt failed, RetriesEnded
	// those of them that came to an end.
	RetriesBegun, RetriesEnded Counter
	// By all.
	Dead Counter

	sources  table[Source, Counter]
	rules    table[string, Rule]
	webhooks table[string, Webhook]
}

// Source returns the counter of a log source's events.
func (t *Tenant) Source(s Source) *Counter { return t.sources.get(s, maxSources) }

// Rule returns the counters of a rule.
func (t *Tenant) Rule(id string) *Rule { return t.rules.get(id, maxRules) }

// Webhook returns the counters of a webhook.
func (t *Tenant) Webhook(id string) *Webhook { return t.webhooks.get(id, maxWebhooks) }

// Webhook are the counters of one webhook.
type Webhook struct {
	Delivered, Failed, Parked Counter
	failure                   atomic.Pointer[string]
}

// Said keeps why the last attempt failed; nothing after a success.
func (w *Webhook) Said(failure string) {
	if failure == "" {
		w.failure.Store(nil)
		return
	}
	failure = cut(failure)
	w.failure.Store(&failure)
}

// Rule are the counters of one rule.
type Rule struct {
	// Hits are matches of a detection rule and firings of a correlation.
	Hits Counter
	// Ungrouped are matches that a correlation left out for want of a field.
	Ungrouped Counter
	// Late and Early are events that a rule which the watermark decides left out,
	// Skipped those whose value is none that it can take.
	Late, Early, Skipped Counter
	// Cut are windows left undecided because other rules ruled within them, or their
	// group was full.
	Cut Counter
	// Refused are detections of groups that would have been too many.
	Refused Counter
	// Shed are records that groups had no room for.
	Shed Counter
	// Shadowed are its alerts that went to nobody.
	Shadowed Counter

	mu       sync.Mutex
	revision string
	near     int64
	had      map[string]bool // fields that some event had
	wanted   map[string]bool // those that an event lacked which fitted otherwise
}

// Hit reports whether the rule has matched yet.
func (r *Rule) Hit() bool { return r.Hits.n.Load() > 0 }

// Look notes of an event that a rule without hits was put to: fields that the
// rule needs and the event has, those that it lacks, and whether it fits but
// for them.
func (r *Rule) Look(revision string, near bool, has, lacks []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.had == nil || r.revision != revision {
		r.revision, r.near, r.had, r.wanted = revision, 0, make(map[string]bool), make(map[string]bool)
	}
	note(r.had, has)
	if near {
		r.near++
		note(r.wanted, lacks)
	}
}

func note(into map[string]bool, fields []string) {
	for _, f := range fields {
		if len(into) < maxFields {
			into[f] = true
		}
	}
}
