package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/history"
)

// alertsBody is a page of alerts, each as a webhook carries it in `data`.
type alertsBody struct {
	Alerts []json.RawMessage `json:"alerts"`
	// Next goes on where this page ends, Newer begins behind its first page.
	Next  string `json:"next,omitempty"`
	Newer string `json:"newer,omitempty"`
}

// alertBody is one alert and what became of it.
type alertBody struct {
	Alert json.RawMessage `json:"alert"`
	Type  string          `json:"type"`
	// WebhookID is the `webhook-id` of its deliveries.
	WebhookID string    `json:"webhook_id"`
	WrittenAt time.Time `json:"written_at"`
	// RoutedAt is when it was decided whom it goes to.
	RoutedAt   *time.Time     `json:"routed_at,omitempty"`
	Deliveries []deliveryBody `json:"deliveries"`
	// DeliveriesIncomplete says that the log was not read to its end.
	DeliveriesIncomplete bool `json:"deliveries_incomplete,omitempty"`
}

type deliveryBody struct {
	WebhookID   string        `json:"webhook"`
	Name        string        `json:"name,omitempty"`
	URL         string        `json:"url,omitempty"`
	State       history.State `json:"state"`
	Attempts    int           `json:"attempts"`
	LastAt      *time.Time    `json:"last_at,omitempty"`
	StatusCode  int           `json:"status_code,omitempty"`
	Error       string        `json:"error,omitempty"`
	NextAttempt *time.Time    `json:"next_attempt_at,omitempty"`
}

const (
	defaultPage = 100
	maxPage     = 1000
	maxCursor   = 16 << 10
)

// lookBack admits a bounded number of requests that read the log: they must not
// disturb those that write it.
func (s *Service) lookBack(handle func(*gin.Context, control.Identity)) func(*gin.Context, control.Identity) {
	return func(c *gin.Context, id control.Identity) {
		select {
		case s.readers <- struct{}{}:
			defer func() { <-s.readers }()
			handle(c, id)
		default:
			p := newProblem(http.StatusTooManyRequests, codeQuota, fmt.Sprintf("%d requests look back into the log already, as many as may at a time: try again", cap(s.readers)))
			p.retryAfter = time.Second
			refuse(c, p)
		}
	}
}

func (s *Service) listAlerts(c *gin.Context, id control.Identity) {
	q := newParameters(c.Request.URL.Query())
	f := history.Filter{
		RuleIDs: q.list("rule"), Tags: q.list("tag"), Sources: q.list("source"), Groups: q.list("group"),
		MinLevel: q.level("level"), From: q.time("from"), To: q.time("to"), Title: q.one("title", maxFilterBytes),
	}
	limit, cursor := q.page()
	if p := q.problem(); p != nil {
		refuse(c, p)
		return
	}
	page, err := s.history.Alerts(c.Request.Context(), id.Tenant, f, limit, cursor)
	if err != nil {
		refuse(c, s.historyProblem(c, err))
		return
	}
	out := alertsBody{Alerts: []json.RawMessage{}, Next: page.Next, Newer: page.Newer}
	for _, a := range page.Items {
		data, err := alert.Data(a.Alert)
		if err != nil {
			continue // the notifier has put it into dlq
		}
		out.Alerts = append(out.Alerts, data)
	}
	answer(c, http.StatusOK, out)
}

func (s *Service) getAlert(c *gin.Context, id control.Identity) {
	a, routing, err := s.history.Alert(c.Request.Context(), id.Tenant, c.Param("id"))
	if err != nil {
		refuse(c, s.historyProblem(c, err))
		return
	}
	data, err := alert.Data(a.Alert)
	if err != nil {
		refuse(c, newProblem(http.StatusNotFound, codeNotFound, "the alert with this id cannot be shown: see the dead letters"))
		return
	}
	out := alertBody{
		Alert: data, Type: alert.TypeOf(a.Alert), WebhookID: alert.WebhookID(a.Alert), WrittenAt: a.Written.UTC(),
		RoutedAt: someTime(routing.Routed), Deliveries: []deliveryBody{}, DeliveriesIncomplete: routing.Unfinished,
	}
	for _, d := range routing.Deliveries {
		one := deliveryBody{
			WebhookID: d.Endpoint, State: d.State, Attempts: d.Attempts, LastAt: someTime(d.LastTime),
			StatusCode: d.StatusCode, Error: d.Error, NextAttempt: someTime(d.NextDue),
		}
		if sub, ok := s.deps.Control.Subscription(id.Tenant, d.Endpoint); ok {
			one.Name, one.URL = sub.GetName(), sub.GetDisplayUrl()
		}
		out.Deliveries = append(out.Deliveries, one)
	}
	answer(c, http.StatusOK, out)
}

func someTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// historyProblem is the answer where the log could not be looked into.
func (s *Service) historyProblem(c *gin.Context, err error) *problem {
	ctx := c.Request.Context()
	switch {
	case errors.Is(err, history.ErrCursor):
		return invalid(fieldError{"cursor", "does not belong to this query: leave it out to begin anew"})
	case errors.Is(err, history.ErrNotFound):
		return newProblem(http.StatusNotFound, codeNotFound, "nothing of this tenant in the log has this id, or no longer: see topics.retention")
	case errors.Is(err, history.ErrTooOld):
		return newProblem(http.StatusNotFound, codeNotFound, err.Error())
	case errors.Is(err, history.ErrUnfinished):
		return unavailable(err.Error(), time.Second)
	case !errors.Is(err, context.Canceled):
		s.deps.Log.WarnContext(ctx, "log cannot be read", "request_id", requestID(c), "error", err)
	}
	return unavailable("the log cannot be read at the moment: try again", time.Second)
}

// parameters reads a query and remembers what is wrong with it. Those that are
// not known are refused: a misspelt one would else be lost without a word.
type parameters struct {
	values url.Values
	errs   []fieldError
}

func newParameters(values url.Values) *parameters { return &parameters{values: values} }

func (q *parameters) bad(name, reason string) { q.errs = append(q.errs, fieldError{name, reason}) }

func (q *parameters) list(name string) []string {
	values := q.values[name]
	delete(q.values, name)
	if len(values) > maxFilterValues {
		q.bad(name, fmt.Sprintf("is there more than %d times", maxFilterValues))
	}
	for _, v := range values {
		if v == "" || len(v) > maxFilterBytes {
			q.bad(name, fmt.Sprintf("has a value that is empty or longer than %d bytes", maxFilterBytes))
			break
		}
	}
	return values
}

func (q *parameters) one(name string, most int) string {
	values := q.values[name]
	delete(q.values, name)
	switch {
	case len(values) == 0:
		return ""
	case len(values) > 1:
		q.bad(name, "is there more than once")
	case len(values[0]) > most:
		q.bad(name, fmt.Sprintf("is longer than %d bytes", most))
	}
	return values[0]
}

func (q *parameters) level(name string) string {
	level := q.one(name, maxFilterBytes)
	switch level {
	case "", "informational", "low", "medium", "high", "critical":
	default:
		q.bad(name, "must be informational, low, medium, high or critical")
	}
	return level
}

func (q *parameters) time(name string) time.Time {
	text := q.one(name, maxFilterBytes)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		q.bad(name, "must be a time such as 2030-01-31T12:00:00Z")
	}
	return t
}

// page returns how much is asked for, and from where.
func (q *parameters) page() (limit int, cursor string) {
	limit = defaultPage
	if text := q.one("limit", maxFilterBytes); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			q.bad("limit", fmt.Sprintf("must be a number from 1 to %d", maxPage))
		}
	}
	return limit, q.one("cursor", maxCursor)
}

// problem is what is wrong, nil if nothing is.
func (q *parameters) problem() *problem {
	for name := range q.values {
		q.bad(name[:min(len(name), maxFilterBytes)], "is not a known parameter")
	}
	if len(q.errs) == 0 {
		return nil
	}
	return invalid(q.errs...)
}
