package trial

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	alertv1 "github.com/stormbell/stormbell/proto/stormbell/alert/v1"
	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/sigma"
)

// tenant is whose events these are.
const tenant = "default"

// begin is when the first event without a time happens: an hour, and a day,
// before which no window is open.
func begin() time.Time { return time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC) }

// probe is one event of a test.
type probe struct {
	event.Event
	line int // of its step
}

func (p *probe) source() sigma.LogSource {
	return sigma.LogSource{Product: p.Product, Service: p.Service, Category: p.Category}
}

// events decodes the events of a test as a gateway would.
func (r *runner) events(t *test) ([]probe, *fault) {
	decoders := make(map[string]*gateway.Decoder)
	var out []probe
	next := begin()
	for i := range t.steps {
		s := &t.steps[i]
		d := decoders[s.source]
		if d == nil {
			var err error
			if d, err = gateway.NewDecoder(r.settings.Gateway, tenant, s.source); err != nil {
				return nil, &fault{s.line, err.Error()}
			}
			decoders[s.source] = d
		}
		for n := range s.repeat {
			raw, wrong := s.copy(n, len(out), next)
			if wrong != nil {
				return nil, wrong
			}
			events, rejected, err := d.Lines(raw)
			switch {
			case err != nil:
				return nil, &fault{s.line, err.Error()}
			case len(rejected) > 0:
				return nil, &fault{s.line, "the event is rejected: " + rejected[0].Detail}
			case len(events) != 1:
				return nil, &fault{s.line, "event: must be one JSON object"}
			}
			p := probe{events[0], s.line}
			p.TimeMS = s.time(n, &p.Event, next)
			next = time.UnixMilli(p.TimeMS).UTC().Add(time.Second)
			out = append(out, p)
		}
	}
	return out, nil
}

// time is when the n-th copy happens: its own time, or where it has none a
// second after the event before it; `at` and `every` move it.
func (s *step) time(n int, e *event.Event, next time.Time) int64 {
	by := (s.at + time.Duration(n)*s.every).Milliseconds()
	switch {
	case e.OwnTime && lookup(s.event, "eventTime") == nil && lookup(s.event, "eventVersion") != nil:
		return e.TimeMS // copy has written it
	case e.OwnTime:
		return e.TimeMS + by
	default:
		return s.due(n, next).UnixMilli()
	}
}

// due is when the n-th copy of an event without a time happens.
func (s *step) due(n int, next time.Time) time.Time {
	switch {
	case s.hasAt:
		return begin().Add(s.at + time.Duration(n)*s.every)
	case n > 0 && s.every > 0:
		return next.Add(s.every - time.Second)
	default:
		return next
	}
}

// copy returns the n-th copy of an event as JSON. A CloudTrail record gets what
// makes it one and is tedious to write: id and time.
func (s *step) copy(n, index int, next time.Time) ([]byte, *fault) {
	if s.event.Kind != yaml.MappingNode {
		return []byte(s.event.Value), nil
	}
	record := s.event
	if version := lookup(record, "eventVersion"); version != nil {
		filled := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: record.Line}
		text := func(v string) *yaml.Node {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Line: record.Line}
		}
		set(filled, text("eventVersion"), text(version.Value)) // 1.11 without quotes is a number
		switch id := lookup(record, "eventID"); {
		case id == nil:
			set(filled, text("eventID"), text(fmt.Sprintf("test-event-%d", index+1)))
		case s.repeat > 1:
			set(filled, text("eventID"), text(id.Value+"-"+strconv.Itoa(n+1)))
		}
		if lookup(record, "eventTime") == nil {
			set(filled, text("eventTime"), text(s.due(n, next).Format("2006-01-02T15:04:05.999Z")))
		}
		record = merge(record, filled)
	}
	return appendJSON(nil, record, strconv.Itoa(n+1))
}

// outcome is what rules said to the events of a test.
type outcome struct {
	matches map[string][]int   // by detection rule: the events, from 0
	alerts  map[string][]alert // by correlation
	left    []string           // why events were left out
}

// run matches events and folds them, one by one.
func (r *runner) run(ctx context.Context, events []probe) (*outcome, error) {
	out := &outcome{matches: make(map[string][]int), alerts: make(map[string][]alert)}
	evaluation, err := correlator.NewEvaluation(ctx, r.settings.Correlator, r.set)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller names the test
	}
	matcher, evaluator := r.set.Matcher(), evaluation.Evaluator()
	fired := func(a *alertv1.Alert) error {
		if r.set.Correlation(a.GetRule().GetId()) == nil {
			return nil
		}
		group := make(map[string]string)
		for _, g := range a.GetGroup() {
			group[g.GetField()] = g.GetValue()
		}
		out.alerts[a.GetRule().GetId()] = append(out.alerts[a.GetRule().GetId()], alert{group, a.GetCount()})
		return nil
	}
	var hits []*sigma.Rule
	for i := range events {
		p := &events[i]
		hits = matcher.Match(p.sigma(), hits[:0])
		if err := matcher.Err(); err != nil {
			return nil, fmt.Errorf("event %d (line %d) cannot be read: %w", i+1, p.line, err)
		}
		for _, rule := range hits {
			out.matches[rule.ID] = append(out.matches[rule.ID], i)
		}
		matched, err := evaluator.Match(ctx, []event.Event{p.Event})
		if err != nil {
			return nil, fmt.Errorf("event %d (line %d): %w", i+1, p.line, err)
		}
		if err := evaluation.Fold(ctx, matched, fired, func(reason string) { out.left = append(out.left, reason) }); err != nil {
			return nil, fmt.Errorf("event %d (line %d): %w", i+1, p.line, err)
		}
	}
	if err := evaluation.Close(ctx, fired); err != nil {
		return nil, fmt.Errorf("close windows: %w", err)
	}
	return out, nil
}

func (p *probe) sigma() sigma.Event {
	return sigma.Event{Raw: p.Raw, LogSource: p.source(), Strict: p.StrictLogsource}
}
