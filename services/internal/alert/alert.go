// Package alert builds alerts and writes them as subscribers see them: the id,
// the summary, the bounded lists and the JSON body of at most 20,000 bytes. It
// is pure: no I/O, no clock.
package alert

import (
	"cmp"
	"slices"
	"strconv"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	detectionv1 "github.com/stormbell/stormbell/proto/stormbell/detection/v1"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Types of webhooks about alerts.
const (
	Type        = "stormbell.alert.v1"
	TypeUpdated = "stormbell.alert.updated.v1"
	TypeTest    = "stormbell.test.v1"
)

// OverflowRule is the rule of the alert that says that a correlation has more
// groups than it may have: from then on alerts may be missing.
const OverflowRule = "stormbell-groups-overflow"

// FullRule is the rule of the alert that says that a group of a correlation holds as
// much as it may: from then on alerts of it may be missing.
const FullRule = "stormbell-group-full"

const (
	idLabel         = "stormbell-alert-1"
	occurrenceLabel = "stormbell-occurrence-1"
	webhookIDLabel  = "stormbell-webhook-1"
)

// StandAloneID is the id of an alert of a detection rule: a pure function of
// tenant, rule and event, late or not.
func StandAloneID(tenant, ruleID, revision, eventID string) string {
	return event.Hash(idLabel, tenant, ruleID, revision, eventID)
}

// CorrelationID is the id of an alert of a correlation: one for each group and
// bucket, which is floor(event time / timespan or suppress).
func CorrelationID(tenant, ruleID, revision string, group []string, bucket int64) string {
	parts := make([]string, 0, len(group)+4)
	parts = append(parts, tenant, ruleID, revision)
	parts = append(parts, group...)
	return event.Hash(idLabel, append(parts, strconv.FormatInt(bucket, 10))...)
}

// OccurrenceID is the id of an alert of a correlation that is told for an event
// and not for a bucket of them.
func OccurrenceID(tenant, ruleID, revision string, group []string, eventID string) string {
	parts := make([]string, 0, len(group)+4)
	parts = append(parts, tenant, ruleID, revision)
	parts = append(parts, group...)
	return event.Hash(occurrenceLabel, append(parts, eventID)...)
}

// WebhookID is the `webhook-id` of every attempt to deliver the alert: the same
// for all subscribers and retries, another for each type of the same alert.
func WebhookID(a *alertv1.Alert) string {
	return "msg_" + event.Hash(webhookIDLabel, a.GetTenant(), TypeOf(a), a.GetId())
}

// TypeOf is the webhook's type.
func TypeOf(a *alertv1.Alert) string {
	if a.GetType() == "" {
		return Type
	}
	return a.GetType()
}

// Finding is what a stage knows when a rule fires.
type Finding struct {
	// Type of the webhook; empty is Type.
	Type   string
	ID     string
	Tenant string
	Rule   *alertv1.Rule
	// Group holds the fields and values of group-by; empty for a detection rule.
	Group []*alertv1.GroupValue
	// TimeMS and IngestMS are those of the event that qualifies and of the
	// record that made it so.
	TimeMS, IngestMS int64
	StartMS, EndMS   int64
	// Count is what the condition counted; Total the distinct events in the window.
	Count, Total int
	AtLeast      bool
	// Condition is what Count had to satisfy, in Sigma's words.
	Condition string
	// Events in order of (time, id): all, or the first and the last.
	Events  []Contribution
	TraceID string
	// BaseURL of the dashboard; empty: no link.
	BaseURL string
	// How is how the rule came to fire, a clause of the summary in place of how
	// often something was.
	How string
	// Summary in place of the sentence that is made of the rest.
	Summary string
	// Risk is what a risk adds up to; nil for all else.
	Risk *alertv1.Risk
}

// Contribution is one event of a Finding. Entities, Source and Raw are set for
// those that are shown whole.
type Contribution struct {
	ID       string
	TimeMS   int64
	RuleID   string
	Late     bool
	Entities *detectionv1.Entities
	Source   string
	Raw      []byte
	// Compact says that EntityReader.ReadCompact has said so of Raw.
	Compact bool
}

// New gives the alert of a finding, cut to what a webhook may carry.
func New(f *Finding) *alertv1.Alert {
	a := &alertv1.Alert{
		Type: f.Type, Id: f.ID, TimeMs: f.TimeMS, Tenant: f.Tenant, Rule: f.Rule, Group: f.Group,
		Window:      &alertv1.Window{StartMs: f.StartMS, EndMs: f.EndMS},
		Count:       uint64(max(f.Count, 0)),
		AtLeast:     f.AtLeast,
		Condition:   cut(oneLine(f.Condition), maxText),
		EventsTotal: uint64(max(f.Total, len(f.Events))),
		TraceId:     f.TraceID, IngestMs: f.IngestMS, Risk: boundRisk(f.Risk),
	}
	if f.BaseURL != "" {
		a.Link = f.BaseURL + "/alerts/" + f.ID
	}
	if n := len(f.Events); n > 0 {
		a.FirstTimeMs, a.LastTimeMs = f.Events[0].TimeMS, f.Events[n-1].TimeMS
	}
	if len(f.Events) > 0 {
		events := make([]alertv1.Event, len(f.Events)) // they live as long as the alert
		a.Events = make([]*alertv1.Event, len(f.Events))
		for i := range f.Events {
			c, e := &f.Events[i], &events[i]
			e.Id, e.TimeMs, e.RuleId, e.Late, e.Event = c.ID, c.TimeMS, c.RuleID, c.Late, c.Raw
			a.Events[i] = e
			addEntities(a, c)
		}
	}
	a.Truncated = len(f.Events) < int(a.GetEventsTotal())
	boundLists(a)
	if a.Summary = cut(oneLine(f.Summary), 2*maxText); a.Summary == "" {
		a.Summary = summary(a, f.How)
	}
	fit(a, f.Events)
	return a
}

// NewBrief gives what AppendBrief writes of an alert: nothing of its events but
// how many there are.
func NewBrief(f *Finding) *alertv1.Alert {
	return &alertv1.Alert{
		Type: f.Type, Id: f.ID, TimeMs: f.TimeMS, Tenant: f.Tenant, Rule: f.Rule, Group: f.Group, IngestMs: f.IngestMS,
		Window: &alertv1.Window{StartMs: f.StartMS, EndMs: f.EndMS},
		Count:  uint64(max(f.Count, 0)), AtLeast: f.AtLeast, EventsTotal: uint64(max(f.Total, 0)),
	}
}

func addEntities(a *alertv1.Alert, c *Contribution) {
	e := c.Entities
	add := func(list *[]string, values ...string) {
		for _, v := range values {
			if v != "" && !slices.Contains(*list, v) {
				*list = append(*list, v)
			}
		}
	}
	add(&a.Principals, e.GetPrincipal())
	add(&a.SourceIps, e.GetSourceIp())
	add(&a.Accounts, e.GetAccount())
	add(&a.Regions, e.GetRegion())
	add(&a.Actions, e.GetAction())
	add(&a.Resources, e.GetResources()...)
	add(&a.Outcomes, e.GetOutcome())
	add(&a.Sources, c.Source)
}

const (
	maxListed = 10
	maxText   = 256 // runes
	maxTags   = 30
	// maxSignals and maxSignalText bound what a risk is made of.
	maxSignals    = 20
	maxSignalText = 80 // runes
)

// boundRisk leaves out what does not fit: signals come with the greatest score
// first, and leave in order of time.
func boundRisk(r *alertv1.Risk) *alertv1.Risk {
	if r == nil {
		return nil
	}
	r.Signals = r.GetSignals()[:min(len(r.GetSignals()), maxSignals)]
	for _, s := range r.GetSignals() {
		s.Title, s.RuleId = cut(oneLine(s.GetTitle()), maxSignalText), cut(s.GetRuleId(), maxSignalText)
	}
	slices.SortStableFunc(r.GetSignals(), func(a, b *alertv1.Scored) int { return cmp.Compare(a.GetTimeMs(), b.GetTimeMs()) })
	return r
}

func boundLists(a *alertv1.Alert) {
	for _, l := range []*[]string{&a.Principals, &a.SourceIps, &a.Accounts, &a.Regions, &a.Actions, &a.Resources, &a.Outcomes, &a.Sources} {
		if len(*l) > maxListed {
			*l = (*l)[:maxListed]
			a.Truncated = true
		}
		for i, v := range *l {
			(*l)[i] = cut(v, maxText)
		}
	}
	if len(a.GetRule().GetTags()) > maxTags || len([]rune(a.GetRule().GetTitle())) > maxText {
		r := a.GetRule()
		a.Rule = &alertv1.Rule{
			Id: r.GetId(), Title: cut(r.GetTitle(), maxText), Level: r.GetLevel(), Type: r.GetType(),
			Tags: r.GetTags()[:min(len(r.GetTags()), maxTags)], Revision: r.GetRevision(),
		}
	}
	for i, g := range a.GetGroup() {
		if len(g.GetValue()) > maxText {
			a.Group[i] = &alertv1.GroupValue{Field: g.GetField(), Value: cut(g.GetValue(), maxText)}
			a.Truncated = true
		}
	}
}

// cut shortens by runes and marks it.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// Severity orders levels; one that is not known is the least.
func Severity(level string) int {
	return slices.Index([]string{"low", "medium", "high", "critical"}, level)
}
