package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/status"
)

// statusBody says how things are, to the eye of a tenant.
type statusBody struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	Tenant string `json:"tenant"`
	// Sources are the names that requests can use.
	Sources []string `json:"sources"`
	// Partitions is the count of the topic events.
	Partitions int `json:"partitions"`
	// Manifests are the rule sets that events are stamped with.
	Manifests manifestsBody `json:"manifests"`

	// Since is when the oldest of the processes that count began; none has told
	// anything yet where it is missing.
	Since *time.Time `json:"since,omitempty"`
	// Counts are the tenant's.
	Counts     countsBody `json:"counts"`
	OpenGroups int64      `json:"open_groups"`
	// WatermarkAge is how far the least watermark lies behind, in seconds.
	WatermarkAge *float64      `json:"watermark_age_seconds,omitempty"`
	LogSources   []logSource   `json:"log_sources"`
	Webhooks     []hookCount   `json:"webhooks"`
	Stages       []stageBody   `json:"stages"`
	Hints        []status.Hint `json:"hints"`
}

// countsBody are the figures along the journey.
type countsBody struct {
	Received   countBody `json:"received"`
	Rejected   countBody `json:"rejected"`
	Late       countBody `json:"late"`
	Early      countBody `json:"early"`
	Matched    countBody `json:"matched"`
	Detections countBody `json:"detections"`
	Alerts     countBody `json:"alerts"`
	// Shadowed are alerts of rules in the shadow, which go to nobody.
	Shadowed     countBody `json:"shadow_alerts"`
	Unsubscribed countBody `json:"unsubscribed_alerts"`
	Delivered    countBody `json:"delivered"`
	Retrying     countBody `json:"retrying"`
	Parked       countBody `json:"parked"`
	DLQ          countBody `json:"dlq"`
}

// countBody is how often something happened, and when last.
type countBody struct {
	Count int64      `json:"count"`
	Last  *time.Time `json:"last,omitempty"`
}

func showCount(c status.Count) countBody { return countBody{c.N, optionalTime(c.LastMS)} }

// logSource is what events have asserted.
type logSource struct {
	Product  string    `json:"product"`
	Service  string    `json:"service"`
	Category string    `json:"category"`
	Events   countBody `json:"events"`
}

// hookCount are the figures of a webhook that has had deliveries.
type hookCount struct {
	ID        string    `json:"id"`
	Delivered countBody `json:"delivered"`
	Failed    countBody `json:"failed_attempts"`
	Parked    countBody `json:"parked"`
	// Error is why the last attempt failed; it is missing after a success.
	Error string `json:"error,omitempty"`
}

// stageBody is a part of the journey over all processes that run it.
type stageBody struct {
	Name       string `json:"name"`
	Instances  int    `json:"instances"`
	Partitions int    `json:"partitions"`
	Lag        int64  `json:"lag"`
}

func (s *Service) getStatus(c *gin.Context, id control.Identity) {
	all, own := s.deps.Control.Manifests(id.Tenant)
	out := statusBody{
		Ready: true, Tenant: id.Tenant, Sources: s.sources.names(), Partitions: s.deps.Partitions,
		Manifests:  manifestsBody{hexOf(all), hexOf(own)},
		LogSources: []logSource{}, Webhooks: []hookCount{}, Stages: []stageBody{}, Hints: []status.Hint{},
	}
	if err := s.Ready(); err != nil {
		out.Ready, out.Reason = false, err.Error()
	}
	if s.deps.Reports != nil {
		sum := s.deps.Reports.Tenant(id.Tenant)
		out.show(sum)
		known, err := s.ruledBy(c.Request.Context(), all, own)
		if err != nil {
			refuse(c, s.controlProblem(c, fmt.Errorf("%w: %w", control.ErrUnavailable, err)))
			return
		}
		out.Hints = append(out.Hints, sum.Hints(&status.Setting{
			Rules: known.rules, Webhooks: s.webhooksInForce(id.Tenant), NowMS: s.deps.Clock().UnixMilli(),
		})...)
	}
	answer(c, http.StatusOK, out)
}

// webhooksInForce are those that alerts may go to.
func (s *Service) webhooksInForce(tenant string) (out []status.Webhooked) {
	now := s.deps.Clock().UnixMilli()
	for _, sub := range s.deps.Control.Subscriptions(tenant) {
		if !sub.GetDisabled() && (sub.GetExpiresMs() == 0 || sub.GetExpiresMs() > now) {
			out = append(out, status.Webhooked{ID: sub.GetId(), SinceMS: cmp.Or(sub.GetUpdatedMs(), sub.GetCreatedMs())})
		}
	}
	return out
}

func (b *statusBody) show(sum *status.Summary) {
	b.Since = optionalTime(sum.SinceMS)
	b.Counts = countsBody{
		Received: showCount(sum.Received), Rejected: showCount(sum.Rejected), Late: showCount(sum.Late), Early: showCount(sum.Early),
		Matched: showCount(sum.Matched), Detections: showCount(sum.Detections), Alerts: showCount(sum.Alerts), Shadowed: showCount(sum.Shadowed),
		Unsubscribed: showCount(sum.Unheard), Delivered: showCount(sum.Delivered),
		Retrying: countBody{sum.Retrying, optionalTime(sum.Failed.LastMS)},
		Parked:   showCount(sum.Parked), DLQ: showCount(sum.Dead),
	}
	for _, r := range sum.Rules {
		b.OpenGroups += r.OpenGroups
	}
	for _, src := range sum.Sources {
		b.LogSources = append(b.LogSources, logSource{src.Product, src.Service, src.Category, showCount(src.Count)})
	}
	for _, w := range sum.Webhooks {
		b.Webhooks = append(b.Webhooks, hookCount{w.ID, showCount(w.Delivered), showCount(w.Failed), showCount(w.Parked), w.Error})
	}
	for _, name := range slices.Sorted(maps.Keys(sum.Stages)) {
		st := sum.Stages[name]
		b.Stages = append(b.Stages, stageBody{name, st.Instances, st.Partitions, st.Lag})
		if st.WatermarkMS != 0 {
			age := float64(st.AgeMS) / 1000
			b.WatermarkAge = &age
		}
	}
}
