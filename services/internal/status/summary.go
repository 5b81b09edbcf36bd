package status

import (
	"cmp"
	"slices"
	"strings"

	statusv1 "github.com/stormbell/stormbell/proto/stormbell/status/v1"
)

// Count is how often something happened, and when last, in Unix milliseconds.
type Count struct{ N, LastMS int64 }

func (c *Count) add(more *statusv1.Count) {
	c.N += more.GetN()
	c.LastMS = max(c.LastMS, more.GetLastMs())
}

// Summary is what all processes have counted for one tenant, and how the parts
// of the journey are.
type Summary struct {
	// SinceMS is when the oldest of the processes that count started; 0 where
	// none has reported.
	SinceMS int64
	// Cut says that there was more to count than a report takes.
	Cut bool

	Received, Rejected, Late, Early    Count
	Matched, Detections, Alerts        Count
	Shadowed                           Count
	Unheard, Delivered, Failed, Parked Count
	Dead                               Count
	// Retrying is how many deliveries wait to be tried again.
	Retrying int64

	Sources  []SourceCount // the most frequent first
	Rules    map[string]*RuleCount
	Webhooks []*WebhookCount // by id
	// Stages are those that some process runs at present, by name.
	Stages map[string]*Stage
}

// SourceCount is how many events a log source has brought.
type SourceCount struct {
	Source
	Count
}

// RuleCount is what is known of one rule.
type RuleCount struct {
	Hits, Ungrouped, Shadowed Count
	// Late, Early and Skipped are events, Cut windows, that a rule left out.
	Late, Early, Skipped, Cut Count
	// Refused are detections of groups that would have been too many, Shed records
	// that groups had no room for.
	Refused, Shed    Count
	OpenGroups, Near int64
	Lacking          []string
	// Groups are the fullest, the fullest first, as live processes tell.
	Groups []Group
}

// WebhookCount is what is known of one webhook.
type WebhookCount struct {
	ID                        string
	Delivered, Failed, Parked Count
	// Error is why the last attempt failed; empty after a success.
	Error string
}

// Stage is a part of the journey over all processes that run it.
type Stage struct {
	Instances, Partitions int
	Lag                   int64
	// WatermarkMS is the least, 0 where there is none; AgeMS how far it lay behind
	// when it was told.
	WatermarkMS, AgeMS int64
}

// Tenant adds up what is known of a tenant.
func (v *View) Tenant(id string) *Summary {
	now := v.clock().UnixMilli()
	s := &Summary{Rules: make(map[string]*RuleCount), Stages: make(map[string]*Stage)}
	sources, webhooks := make(map[Source]Count), make(map[string]*WebhookCount)
	begun, ended := int64(0), int64(0)
	reports := v.current(now)
	slices.SortFunc(reports, func(a, b *statusv1.Report) int { return cmp.Compare(a.GetTimeMs(), b.GetTimeMs()) })
	for _, r := range reports {
		if s.SinceMS == 0 || r.GetStartedMs() < s.SinceMS {
			s.SinceMS = r.GetStartedMs()
		}
		s.Cut = s.Cut || r.GetCut()
		live := !r.GetEnded() && now <= r.GetValidMs()
		if live {
			s.stages(r)
		}
		for _, t := range r.GetTenants() {
			if t.GetId() != id {
				continue
			}
			s.counts(t)
			begun, ended = begun+t.GetRetriesBegun(), ended+t.GetRetriesEnded()
			s.rules(t, live)
			for _, src := range t.GetSources() {
				key := Source{src.GetProduct(), src.GetService(), src.GetCategory(), src.GetStrict()}
				c := sources[key]
				c.add(src.GetEvents())
				sources[key] = c
			}
			addWebhooks(webhooks, t)
		}
	}
	s.Retrying = max(0, begun-ended)
	for src, c := range sources {
		s.Sources = append(s.Sources, SourceCount{src, c})
	}
	slices.SortFunc(s.Sources, func(a, b SourceCount) int {
		return cmp.Or(cmp.Compare(b.N, a.N), strings.Compare(a.Product, b.Product), strings.Compare(a.Service, b.Service), strings.Compare(a.Category, b.Category))
	})
	for _, w := range webhooks {
		s.Webhooks = append(s.Webhooks, w)
	}
	slices.SortFunc(s.Webhooks, func(a, b *WebhookCount) int { return strings.Compare(a.ID, b.ID) })
	return s
}

func (s *Summary) counts(t *statusv1.Tenant) {
	for _, c := range []struct {
		into *Count
		more *statusv1.Count
	}{
		{&s.Received, t.GetReceived()},
		{&s.Rejected, t.GetRejected()},
		{&s.Late, t.GetLate()},
		{&s.Early, t.GetEarly()},
		{&s.Matched, t.GetMatched()},
		{&s.Detections, t.GetDetections()},
		{&s.Shadowed, t.GetShadowed()},
		{&s.Alerts, t.GetAlerts()},
		{&s.Unheard, t.GetUnheard()},
		{&s.Delivered, t.GetDelivered()},
		{&s.Failed, t.GetFailed()},
		{&s.Parked, t.GetParked()},
		{&s.Dead, t.GetDead()},
	} {
		c.into.add(c.more)
	}
}

func (s *Summary) stages(r *statusv1.Report) {
	for _, g := range r.GetStages() {
		st := s.Stages[g.GetName()]
		if st == nil {
			st = new(Stage)
			s.Stages[g.GetName()] = st
		}
		st.Instances++
		st.Partitions += int(g.GetPartitions())
		st.Lag += g.GetLag()
		if w := g.GetWatermarkMs(); w != 0 && (st.WatermarkMS == 0 || w < st.WatermarkMS) {
			st.WatermarkMS, st.AgeMS = w, r.GetTimeMs()-w
		}
	}
}

func (s *Summary) rules(t *statusv1.Tenant, live bool) {
	for _, r := range t.GetRules() {
		c := s.Rules[r.GetId()]
		if c == nil {
			c = new(RuleCount)
			s.Rules[r.GetId()] = c
		}
		c.Hits.add(r.GetHits())
		c.Ungrouped.add(r.GetUngrouped())
		c.Shadowed.add(r.GetShadowed())
		c.Late.add(r.GetLate())
		c.Early.add(r.GetEarly())
		c.Skipped.add(r.GetSkipped())
		c.Cut.add(r.GetCut())
		c.Refused.add(r.GetRefused())
		c.Shed.add(r.GetShed())
		if live {
			c.OpenGroups += r.GetOpenGroups()
			c.groups(r.GetGroups())
		}
		c.Near += r.GetNear()
		c.Lacking = append(c.Lacking, r.GetLacking()...)
		slices.Sort(c.Lacking)
		c.Lacking = slices.Compact(c.Lacking)
	}
}

// addWebhooks adds a tenant's of one report; reports come in the order of their
// times, so that the last error is the newest.
func addWebhooks(into map[string]*WebhookCount, t *statusv1.Tenant) {
	for _, w := range t.GetWebhooks() {
		c := into[w.GetId()]
		if c == nil {
			c = &WebhookCount{ID: w.GetId()}
			into[w.GetId()] = c
		}
		newest := max(w.GetDelivered().GetLastMs(), w.GetFailed().GetLastMs(), w.GetParked().GetLastMs())
		if newest >= max(c.Delivered.LastMS, c.Failed.LastMS, c.Parked.LastMS) {
			c.Error = w.GetError()
		}
		c.Delivered.add(w.GetDelivered())
		c.Failed.add(w.GetFailed())
		c.Parked.add(w.GetParked())
	}
}

// groups adds the groups that one process shows.
func (c *RuleCount) groups(more []*statusv1.Group) {
	for _, g := range more {
		c.Groups = append(c.Groups, Group{
			Values: g.GetValues(), Revision: g.GetRevision(), Count: g.GetCount(), Events: g.GetEvents(), AtLeast: g.GetAtLeast(),
			FirstMS: g.GetFirstMs(), LastMS: g.GetLastMs(), DueMS: g.GetDueMs(),
		})
	}
	slices.SortFunc(c.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Values, b.Values), strings.Compare(a.Revision, b.Revision))
	})
}
