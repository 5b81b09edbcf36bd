package status

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
)

// Bounds of one report, which is one record.
const (
	maxReported = 3000 // rules of all tenants
	maxText     = 200  // bytes of a failure, or of a name
	maxLacking  = 4    // fields of a rule
	maxShown    = 10   // groups of a rule
	maxGroups   = 1000 // of all rules
)

// counted are all counters as a report says them, without gauges.
func (b *Board) counted() *statusv1.Report {
	r := &statusv1.Report{Cut: b.tenants.full.Load()}
	open, full := b.groups(), b.fullest()
	left, groups := maxReported, maxGroups
	for _, id := range slices.Sorted(maps.Keys(b.tenants.load())) {
		t := b.Tenant(id).report(id, open, full, &left)
		for _, rule := range t.GetRules() {
			rule.Groups = rule.GetGroups()[:min(len(rule.GetGroups()), maxShown, groups)]
			groups -= len(rule.GetGroups())
		}
		r.Cut = r.Cut || left < 0 || b.Tenant(id).full()
		r.Tenants = append(r.Tenants, t)
	}
	return r
}

// gauges are the stages as they are now.
func (b *Board) gauges() []*statusv1.Stage {
	b.mu.Lock()
	stages := slices.Clone(b.stages)
	b.mu.Unlock()
	var out []*statusv1.Stage
	for _, ask := range stages {
		if s := ask(); s != nil {
			out = append(out, s)
		}
	}
	return out
}

type tenantRule struct{ tenant, rule string }

// groups adds up open groups over partitions.
func (b *Board) groups() map[tenantRule]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[tenantRule]int64)
	for _, g := range b.open {
		out[tenantRule{g.tenant, g.rule}] += g.n
	}
	return out
}

// fullest are the groups that are shown, of all partitions, the fullest first.
func (b *Board) fullest() map[tenantRule][]*statusv1.Group {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[tenantRule][]*statusv1.Group)
	for _, f := range b.full {
		key := tenantRule{f.tenant, f.rule}
		for _, g := range f.groups {
			values := make([]string, len(g.Values))
			for i, v := range g.Values {
				values[i] = cut(v)
			}
			out[key] = append(out[key], &statusv1.Group{
				Values: values, Revision: g.Revision, Count: g.Count, Events: g.Events, AtLeast: g.AtLeast,
				FirstMs: g.FirstMS, LastMs: g.LastMS, DueMs: g.DueMS,
			})
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b *statusv1.Group) int {
			return cmp.Or(cmp.Compare(b.GetCount(), a.GetCount()), slices.Compare(a.GetValues(), b.GetValues()), strings.Compare(a.GetRevision(), b.GetRevision()))
		})
	}
	return out
}

func (t *Tenant) full() bool {
	return t.sources.full.Load() || t.rules.full.Load() || t.webhooks.full.Load()
}

func (t *Tenant) report(id string, open map[tenantRule]int64, full map[tenantRule][]*statusv1.Group, left *int) *statusv1.Tenant {
	out := &statusv1.Tenant{
		Id: id, Received: t.Received.report(), Rejected: t.Rejected.report(), Late: t.Late.report(), Early: t.Early.report(),
		Matched: t.Matched.report(), Detections: t.Detections.report(), Alerts: t.Alerts.report(), Shadowed: t.Shadowed.report(),
		Unheard: t.Unheard.report(), Delivered: t.Delivered.report(), Failed: t.Failed.report(), Parked: t.Parked.report(),
		RetriesBegun: t.RetriesBegun.n.Load(), RetriesEnded: t.RetriesEnded.n.Load(), Dead: t.Dead.report(),
	}
	for s, c := range t.sources.load() {
		out.Sources = append(out.Sources, &statusv1.Source{
			Product: cut(s.Product), Service: cut(s.Service), Category: cut(s.Category), Strict: s.Strict, Events: c.report(),
		})
	}
	slices.SortFunc(out.Sources, func(a, b *statusv1.Source) int {
		return strings.Compare(sourceName(a)+a.GetCategory(), sourceName(b)+b.GetCategory())
	})
	rules := t.rules.load()
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		r := rules[rule].report(rule)
		r.OpenGroups, r.Groups = open[tenantRule{id, rule}], full[tenantRule{id, rule}]
		if r.Hits == nil && r.Ungrouped == nil && r.OpenGroups == 0 && len(r.Groups) == 0 && len(r.Lacking) == 0 &&
			r.Late == nil && r.Early == nil && r.Skipped == nil && r.Cut == nil && r.Refused == nil && r.Shed == nil {
			continue
		}
		if *left--; *left >= 0 {
			out.Rules = append(out.Rules, r)
		}
	}
	webhooks := t.webhooks.load()
	for _, hook := range slices.Sorted(maps.Keys(webhooks)) {
		out.Webhooks = append(out.Webhooks, webhooks[hook].report(hook))
	}
	return out
}

func sourceName(s *statusv1.Source) string { return s.GetProduct() + "/" + s.GetService() }

func (r *Rule) report(id string) *statusv1.Rule {
	out := &statusv1.Rule{
		Id: id, Hits: r.Hits.report(), Ungrouped: r.Ungrouped.report(), Shadowed: r.Shadowed.report(),
		Late: r.Late.report(), Early: r.Early.report(), Skipped: r.Skipped.report(), Cut: r.Cut.report(),
		Refused: r.Refused.report(), Shed: r.Shed.report(),
	}
	if out.Hits != nil {
		return out // it works: what it lacked elsewhere says nothing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range slices.Sorted(maps.Keys(r.wanted)) {
		if !r.had[f] && len(out.Lacking) < maxLacking {
			out.Lacking = append(out.Lacking, cut(f))
		}
	}
	if len(out.Lacking) > 0 {
		out.Near = r.near
	}
	return out
}

func (w *Webhook) report(id string) *statusv1.Webhook {
	out := &statusv1.Webhook{Id: id, Delivered: w.Delivered.report(), Failed: w.Failed.report(), Parked: w.Parked.report()}
	if failure := w.failure.Load(); failure != nil {
		out.Error = *failure
	}
	return out
}

// cut shortens foreign text and makes it fit for a record.
func cut(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
