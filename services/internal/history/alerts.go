package history

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// Filter chooses alerts: those that have one of the values of each list that
// is not empty, and all else that is set.
type Filter struct {
	RuleIDs, Tags, Sources []string
	// Groups are values of group-by, whatever their field.
	Groups []string
	// MinLevel is the least severe level.
	MinLevel string
	// From and To bound the alert's own time, both ends in; zero is open.
	From, To time.Time
	// Title is a part of the rule's title, in any case.
	Title string
}

// Alert is one that the log holds.
type Alert struct {
	*alertv1.Alert
	// Written is when it was written to the log.
	Written time.Time
}

const schemaAlert = "stormbell.alert.v1.Alert"

// Alerts lists a tenant's alerts, at most limit of them.
func (h *History) Alerts(ctx context.Context, tenant string, f Filter, limit int, cursor string) (Page[Alert], error) {
	f.Title = strings.ToLower(f.Title)
	return walk(ctx, h, &query[Alert]{
		topic: bus.TopicAlerts, partitions: h.partitions, name: queryName(bus.TopicAlerts, tenant, f), limit: limit,
		show: func(r *bus.Record) (Alert, string, bool) {
			a, ok := readAlert(r, tenant)
			if !ok || alert.TypeOf(a.Alert) != alert.Type || !f.matches(a.Alert) {
				return a, "", false
			}
			return a, a.GetId(), true
		},
	}, cursor)
}

// readAlert decodes a tenant's alert.
func readAlert(r *bus.Record, tenant string) (Alert, bool) {
	if string(r.Header(event.HeaderTenant)) != tenant || string(r.Header(event.HeaderSchema)) != schemaAlert {
		return Alert{}, false
	}
	a := new(alertv1.Alert)
	if proto.Unmarshal(r.Value, a) != nil || a.GetTenant() != tenant || a.GetId() != string(r.Key) {
		return Alert{}, false // the notifier has put it into dlq
	}
	return Alert{a, r.Time}, true
}

// queryName stands for a query in its cursors.
func queryName(of ...any) (n [queryBytes]byte) {
	text, _ := json.Marshal(of) // strings, lists of them and times
	h := sha256.Sum256(text)
	return [queryBytes]byte(h[:])
}

func (f *Filter) matches(a *alertv1.Alert) bool {
	r := a.GetRule()
	return among(f.RuleIDs, r.GetId()) && common(f.Tags, r.GetTags()) && common(f.Sources, a.GetSources()) &&
		(len(f.Groups) == 0 || slices.ContainsFunc(a.GetGroup(), func(g *alertv1.GroupValue) bool { return slices.Contains(f.Groups, g.GetValue()) })) &&
		alert.Severity(r.GetLevel()) >= alert.Severity(f.MinLevel) &&
		(f.From.IsZero() || a.GetTimeMs() >= f.From.UnixMilli()) && (f.To.IsZero() || a.GetTimeMs() <= f.To.UnixMilli()) &&
		(f.Title == "" || strings.Contains(strings.ToLower(r.GetTitle()), f.Title))
}

func among(want []string, have string) bool { return len(want) == 0 || slices.Contains(want, have) }

func common(want, have []string) bool {
	return len(want) == 0 || slices.ContainsFunc(want, func(v string) bool { return slices.Contains(have, v) })
}

// Alert looks up one of a tenant's alerts, and what became of it.
func (h *History) Alert(ctx context.Context, tenant, id string) (Alert, Routing, error) {
	partition := bus.Partition([]byte(id), h.partitions)
	r, err := h.alerts[partition].find(ctx, h.log, id, h.budget())
	if err != nil {
		return Alert{}, Routing{}, err
	}
	a, ok := readAlert(r, tenant)
	if !ok {
		return Alert{}, Routing{}, ErrNotFound
	}
	routing, err := h.routing(ctx, partition, a)
	return a, routing, err
}
