package gateway

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/status"
	"github.com/stormbell/stormbell/services/sigma"
)

// correlationBody is a correlation in force, and how it is doing.
type correlationBody struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Type  string `json:"type"`
	Level string `json:"level,omitempty"`
	// Condition is as a rule says it.
	Condition string   `json:"condition,omitempty"`
	GroupBy   []string `json:"group_by"`
	// Timespan is in seconds.
	Timespan float64 `json:"timespan_seconds"`
	Revision string  `json:"revision"`
	Depth    int     `json:"depth"`
	Shadow   bool    `json:"shadow,omitempty"`

	// Fired counts alerts and signals.
	Fired      countBody `json:"fired"`
	OpenGroups int64     `json:"open_groups"`
	// Left out are: late and early events, where the watermark decides; events
	// without a field of group-by, or with a value that cannot be taken; events of
	// groups that would have been too many, and those that full groups have let go.
	// Cut are windows in which other rules ruled, or of which a full group lacked
	// events.
	Late      countBody `json:"late"`
	Early     countBody `json:"early"`
	Ungrouped countBody `json:"ungrouped"`
	Skipped   countBody `json:"skipped"`
	Refused   countBody `json:"refused"`
	Shed      countBody `json:"shed"`
	Cut       countBody `json:"cut"`
}

type correlationsBody struct {
	Since *time.Time `json:"since,omitempty"`
	// Watermark is the least of stage correlate, Age how far it lay behind.
	Watermark    *time.Time        `json:"watermark,omitempty"`
	Age          *float64          `json:"watermark_age_seconds,omitempty"`
	Correlations []correlationBody `json:"correlations"`
}

// openGroupBody is a group that waits for more.
type openGroupBody struct {
	Group map[string]string `json:"group"`
	// Count is what the condition counts in the window of the latest event.
	Count    int64      `json:"count"`
	AtLeast  bool       `json:"at_least,omitempty"`
	Events   int64      `json:"events"`
	First    *time.Time `json:"first_time,omitempty"`
	Last     *time.Time `json:"last_time,omitempty"`
	Revision string     `json:"revision"`
	// Due is the watermark at which the group decides or forgets something next,
	// Expires how many seconds the watermark is away from it.
	Due     *time.Time `json:"due,omitempty"`
	Expires *float64   `json:"expires_in_seconds,omitempty"`
}

type groupsBody struct {
	Rule       string          `json:"rule"`
	Title      string          `json:"title"`
	Condition  string          `json:"condition,omitempty"`
	Revision   string          `json:"revision"`
	OpenGroups int64           `json:"open_groups"`
	Groups     []openGroupBody `json:"groups"`
}

// describe says what is known of a correlation without any figures.
func describe(c *sigma.Correlation) correlationBody {
	b := correlationBody{
		ID: c.ID, Title: c.Title, Type: string(c.Type), Level: c.Level, Condition: c.Condition.String(),
		GroupBy: append([]string{}, c.GroupBy...), Timespan: float64(c.Timespan) / 1000, Revision: c.Revision, Depth: c.Depth, Shadow: c.Shadow,
	}
	return b
}

// correlationsNow are the correlations in force for a tenant, with figures; ok is
// false where it has answered.
func (s *Service) correlationsNow(c *gin.Context, tenant string) (list []correlationBody, sum *status.Summary, ok bool) {
	all, own := s.deps.Control.Manifests(tenant)
	known, err := s.ruledBy(c.Request.Context(), all, own)
	if err != nil {
		refuse(c, s.controlProblem(c, err))
		return nil, nil, false
	}
	sum = new(status.Summary)
	if s.deps.Reports != nil {
		sum = s.deps.Reports.Tenant(tenant)
	}
	list = append([]correlationBody{}, known.correlations...)
	for i := range list {
		if r := sum.Rules[list[i].ID]; r != nil {
			list[i].count(r)
		}
	}
	return list, sum, true
}

func (b *correlationBody) count(r *status.RuleCount) {
	b.Fired, b.OpenGroups = showCount(r.Hits), r.OpenGroups
	b.Late, b.Early, b.Ungrouped = showCount(r.Late), showCount(r.Early), showCount(r.Ungrouped)
	b.Skipped, b.Refused, b.Cut = showCount(r.Skipped), showCount(r.Refused), showCount(r.Cut)
	b.Shed = showCount(r.Shed)
}

// watermark is that of stage correlate, as it was told.
func watermark(sum *status.Summary) (at *time.Time, age *float64) {
	st := sum.Stages["correlate"]
	if st == nil || st.WatermarkMS == 0 {
		return nil, nil
	}
	behind := float64(st.AgeMS) / 1000
	return optionalTime(st.WatermarkMS), &behind
}

func (s *Service) listCorrelations(c *gin.Context, id control.Identity) {
	list, sum, ok := s.correlationsNow(c, id.Tenant)
	if !ok {
		return
	}
	out := correlationsBody{Since: optionalTime(sum.SinceMS), Correlations: list}
	out.Watermark, out.Age = watermark(sum)
	answer(c, http.StatusOK, out)
}

func (s *Service) listGroups(c *gin.Context, id control.Identity) {
	list, sum, ok := s.correlationsNow(c, id.Tenant)
	if !ok {
		return
	}
	for i := range list {
		if b := &list[i]; b.ID == c.Param("rule") {
			out := groupsBody{Rule: b.ID, Title: b.Title, Condition: b.Condition, Revision: b.Revision, OpenGroups: b.OpenGroups, Groups: []openGroupBody{}}
			if r := sum.Rules[b.ID]; r != nil {
				out.Groups = showGroups(r.Groups, b.GroupBy, sum)
			}
			answer(c, http.StatusOK, out)
			return
		}
	}
	refuse(c, newProblem(http.StatusNotFound, codeNotFound, "no correlation in force has this id: see GET /v1/correlations"))
}

// maxGroupsShown is how many groups are shown, of whatever many processes.
const maxGroupsShown = 50

func showGroups(groups []status.Group, groupBy []string, sum *status.Summary) []openGroupBody {
	out := []openGroupBody{}
	at, _ := watermark(sum)
	for _, g := range groups[:min(len(groups), maxGroupsShown)] {
		b := openGroupBody{
			Group: make(map[string]string, len(g.Values)), Count: g.Count, AtLeast: g.AtLeast, Events: g.Events, Revision: g.Revision,
			First: optionalTime(g.FirstMS), Last: optionalTime(g.LastMS), Due: optionalTime(g.DueMS),
		}
		for i, v := range g.Values {
			if i < len(groupBy) {
				b.Group[groupBy[i]] = v
			}
		}
		if at != nil && b.Due != nil {
			left := max(0, b.Due.Sub(*at).Seconds())
			b.Expires = &left
		}
		out = append(out, b)
	}
	return out
}
