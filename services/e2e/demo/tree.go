package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/e2e/program"
	"github.com/stormbell/stormbell/services/e2e/spans"
)

// A row is one line of a trace: a span, or the hop between two.
type row struct {
	depth     int
	who, what string
	from      time.Time
	took      time.Duration
	hop       bool
}

// tree shows an alert's way, from the request to the subscriber. All but the
// two ends are spans that the services have exported.
func (s *show) tree(ctx context.Context, a *alert, sent request) error {
	parts := strings.Split(a.delivery.Headers.Get("traceparent"), "-")
	if len(parts) != 4 || parts[1] != sent.trace {
		return fmt.Errorf("the webhook's traceparent %q is not of the event's trace %s", a.delivery.Headers.Get("traceparent"), sent.trace)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var path []spans.Span
	err := program.Every(ctx, "the spans of the alert's trace were exported", func() bool {
		path = s.spans.Path(sent.trace, parts[2], sent.span)
		return path != nil
	})
	if err != nil {
		return err
	}
	if len(path) != 4 {
		return fmt.Errorf("the trace has %d spans on the way to the webhook, not 4: request, match, window, attempt", len(path))
	}
	rows, err := s.rows(a, sent, path)
	if err != nil {
		return err
	}
	s.head("One alert's trace: " + plain(a.Rule.Title))
	s.say("  %s", s.dim("trace id "+sent.trace+", from the request to the subscriber, exported over OTLP by the services"))
	s.say("  %s", s.dim(fmt.Sprintf("%s %9s %9s", pad("", treeWidth), "begins", "takes")))
	whole := a.delivery.At.Sub(sent.sent)
	for _, r := range rows {
		s.say("  %s", s.line(&r, sent.sent, whole))
	}
	s.say("  %s", s.dim("A hop is the time until the next stage has the record: batch, write, fsync and fetch."))
	return nil
}

func (s *show) rows(a *alert, sent request, path []spans.Span) ([]row, error) {
	post, match, fire, deliver := path[0], path[1], path[2], path[3]
	var route spans.Span
	for _, one := range s.spans.Under(sent.trace, fire.ID) {
		if one.Name == "notify route" {
			route = one
		}
	}
	if route.ID == "" {
		return nil, errors.New("the trace lacks the span of the alert's routing")
	}
	length := func(p *spans.Span) time.Duration { return p.End.Sub(p.Start) }
	log := "log"
	if s.opts.Cluster {
		log = "Kafka"
	}
	hop := func(depth int, topic string, from time.Time, to *spans.Span) row {
		return row{depth, log, "topic " + topic, from, max(0, to.Start.Sub(from)), true}
	}
	return []row{
		{0, "client", "POST " + sent.path, sent.sent, sent.took, false},
		{1, "gateway", fmt.Sprintf("%s: %s, acks=all", post.Name, post.Attributes["http.response.status_code"]), post.Start, length(&post), false},
		hop(2, "events", post.Start, &match),
		{2, "correlator", fmt.Sprintf("%s: rules matched: %s", match.Name, match.Attributes["stormbell.rules"]), match.Start, length(&match), false},
		hop(3, "detections", match.End, &fire),
		{3, "correlator", fmt.Sprintf("%s: the window, %s counted, %d linked", fire.Name, fire.Attributes["stormbell.count"], len(fire.Links)), fire.Start, length(&fire), false},
		hop(4, "alerts, through the outbox", fire.End, &route),
		{4, "notifier", fmt.Sprintf("%s: endpoints: %s", route.Name, route.Attributes["stormbell.endpoints"]), route.Start, length(&route), false},
		hop(4, "deliveries: the decision is kept", route.End, &deliver),
		{4, "notifier", fmt.Sprintf("%s: attempt %s, answer %s", deliver.Name, deliver.Attributes["stormbell.attempt"], deliver.Attributes["http.response.status_code"]), deliver.Start, length(&deliver), false},
		{5, "subscriber", "received and verified", a.delivery.At, 0, false},
	}, nil
}

const (
	treeWidth = 64
	barWidth  = 24
)

// line draws a row.
func (s *show) line(r *row, begin time.Time, whole time.Duration) string {
	branch := ""
	if r.depth > 0 {
		branch = strings.Repeat("  ", r.depth-1) + "└─"
	}
	text := pad(branch+pad(r.who, 11)+r.what, treeWidth)
	offset := r.from.Sub(begin)
	left := min(max(int(int64(barWidth)*int64(offset)/int64(whole)), 0), barWidth-1)
	length := min(max(int(int64(barWidth)*int64(r.took)/int64(whole)), 1), barWidth-left)
	bar := strings.Repeat(" ", left) + strings.Repeat("━", length)
	if r.hop {
		return s.dim(fmt.Sprintf("%s %9s %9s  %s", text, brief(offset), brief(r.took), strings.ReplaceAll(bar, "━", "╌")))
	}
	took := brief(r.took)
	if r.took == 0 {
		took = ""
	}
	return fmt.Sprintf("%s %9s %9s  %s", text, brief(offset), took, s.paint("36", bar))
}
