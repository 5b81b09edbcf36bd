package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/alert"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/event"
	"github.com/stormbell/stormbell/services/internal/history"
)

// Replays appends what is replayed; *bus.Client is one.
type Replays interface {
	Produce(ctx context.Context, topic string, partition int, msgs []bus.Message) (base int64, err error)
}

// deadBody is a record that could not be processed.
type deadBody struct {
	ID        string `json:"id"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Stage     string `json:"stage"`
	Reason    string `json:"reason"`
	Attempts  uint32 `json:"attempts"`
	// At is when it was put aside, WrittenAt when it was written.
	At        time.Time  `json:"at"`
	WrittenAt *time.Time `json:"written_at,omitempty"`
	TraceID   string     `json:"trace_id,omitempty"`
	// ReplayOf is the dead record that this one was a replay of.
	ReplayOf string `json:"replay_of,omitempty"`
	// Kind and RecordID say what it is: an event, a detection, an alert.
	Kind       string `json:"kind,omitempty"`
	RecordID   string `json:"record_id,omitempty"`
	Replayable bool   `json:"replayable"`
	WhyNot     string `json:"why_not,omitempty"`
	// Size counts the record's bytes; 0 where it was too large to be kept.
	Size int `json:"size"`

	// Content is what it holds, Bytes its beginning where that cannot be told.
	// They are left out of lists.
	Content   json.RawMessage `json:"content,omitempty"`
	Bytes     []byte          `json:"bytes,omitempty"`
	Truncated bool            `json:"truncated,omitempty"`
}

type deadList struct {
	DeadLetters []deadBody `json:"dead_letters"`
	Next        string     `json:"next,omitempty"`
	Newer       string     `json:"newer,omitempty"`
}

// replayBody says where the replayed record stands.
type replayBody struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	RecordID  string `json:"record_id"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Note      string `json:"note"`
}

const (
	maxContentBytes = 64 << 10
	maxShownBytes   = 4 << 10
)

func (s *Service) listDeadLetters(c *gin.Context, id control.Identity) {
	q := newParameters(c.Request.URL.Query())
	f := history.DeadFilter{Topic: q.one("topic", maxFilterBytes), Stage: q.one("stage", maxFilterBytes), Reason: q.one("reason", maxFilterBytes)}
	limit, cursor := q.page()
	if p := q.problem(); p != nil {
		refuse(c, p)
		return
	}
	page, err := s.history.DeadLetters(c.Request.Context(), id.Tenant, f, limit, cursor)
	if err != nil {
		refuse(c, s.historyProblem(c, err))
		return
	}
	out := deadList{DeadLetters: []deadBody{}, Next: page.Next, Newer: page.Newer}
	for i := range page.Items {
		body, _ := showDead(&page.Items[i])
		out.DeadLetters = append(out.DeadLetters, body)
	}
	answer(c, http.StatusOK, out)
}

func (s *Service) getDeadLetter(c *gin.Context, id control.Identity) {
	d, err := s.history.DeadLetter(c.Request.Context(), id.Tenant, c.Param("id"))
	if err != nil {
		refuse(c, s.historyProblem(c, err))
		return
	}
	body, content := showDead(&d)
	body.Content = contentOf(content)
	switch {
	case len(body.Content) > maxContentBytes:
		body.Content, body.Truncated = nil, true
	case body.Content == nil:
		body.Bytes = d.GetValue()[:min(len(d.GetValue()), maxShownBytes)]
		body.Truncated = len(d.GetValue()) > maxShownBytes
	}
	answer(c, http.StatusOK, body)
}

func (s *Service) replayDeadLetter(c *gin.Context, id control.Identity) {
	ctx := c.Request.Context()
	d, err := s.history.DeadLetter(ctx, id.Tenant, c.Param("id"))
	if err != nil {
		refuse(c, s.historyProblem(c, err))
		return
	}
	content, err := d.Content()
	var m bus.Message
	if err == nil {
		all, own := s.deps.Control.Manifests(id.Tenant)
		m, err = d.Replay(s.deps.Clock().UnixMilli(), all, own)
	}
	if no, ok := errors.AsType[*history.NotReplayableError](err); ok {
		refuse(c, newProblem(http.StatusConflict, codeNotReplayable, no.Why))
		return
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.ProduceTimeout)
		defer cancel()
		var at int64
		at, err = s.deps.Replays.Produce(ctx, d.GetTopic(), int(d.GetPartition()), []bus.Message{m})
		if err == nil {
			s.deps.Log.InfoContext(ctx, "dead letter replayed", "tenant", id.Tenant, "dead_letter", d.ID, "offset", at, "by_key_id", id.KeyID)
			answer(c, http.StatusOK, replayBody{
				ID: d.ID, Kind: content.Kind, RecordID: content.ID, Topic: d.GetTopic(), Partition: d.GetPartition(), Offset: at,
				Note: fmt.Sprintf("a new record under the old id of its %s: if it is replayed again, that adds nothing", content.Kind),
			})
			return
		}
	}
	s.deps.Log.WarnContext(ctx, "dead letter not replayed", "request_id", requestID(c), "dead_letter", d.ID, "error", err)
	refuse(c, unavailable("the broker did not acknowledge the replay: send it again, twice is harmless", time.Second))
}

// showDead returns what lists hold, and what the record holds if that can be told.
func showDead(d *history.Dead) (deadBody, history.Content) {
	out := deadBody{
		ID: d.ID, Topic: d.GetTopic(), Partition: d.GetPartition(), Offset: d.GetOffset(), Stage: d.GetStage(),
		Reason: d.GetReason(), Attempts: d.GetAttempts(), At: d.Buried.UTC(), WrittenAt: optionalTime(d.GetTimeMs()),
		TraceID: traceIDOf(d.Header(event.HeaderTraceparent)), ReplayOf: d.Header(history.HeaderReplayOf), Size: len(d.GetValue()),
	}
	content, err := d.Content()
	if err != nil {
		out.WhyNot = err.Error()
		if !d.Whole {
			out.WhyNot = "the record was too large to be kept here: it is looked up where it stood when it is shown or replayed"
		}
		return out, content
	}
	out.Kind, out.RecordID, out.Replayable = content.Kind, content.ID, true
	return out, content
}

// traceIDOf takes the trace id out of a traceparent.
func traceIDOf(traceparent string) string {
	const version, id = len("00-"), 32
	if len(traceparent) < version+id || !isHex(traceparent[version:version+id]) {
		return ""
	}
	return traceparent[version : version+id]
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// contentOf shows what a record holds; nil where it is no JSON.
func contentOf(c history.Content) json.RawMessage {
	type eventBody struct {
		ID       string          `json:"id"`
		Time     time.Time       `json:"time"`
		Ingest   time.Time       `json:"ingest_time"`
		Source   string          `json:"source,omitempty"`
		Product  string          `json:"product,omitempty"`
		Service  string          `json:"service,omitempty"`
		Category string          `json:"category,omitempty"`
		Rules    []string        `json:"rule_ids,omitempty"`
		Of       string          `json:"correlation_id,omitempty"`
		Group    []string        `json:"group,omitempty"`
		Event    json.RawMessage `json:"event,omitempty"`
	}
	var body any
	switch {
	case c.Alert != nil:
		data, err := alert.Data(c.Alert)
		if err != nil {
			return nil
		}
		return data
	case c.Event != nil:
		e := c.Event
		body = eventBody{
			ID: e.ID, Time: timeOf(e.TimeMS), Ingest: timeOf(e.IngestMS), Source: e.Source,
			Product: e.Product, Service: e.Service, Category: e.Category, Event: e.Raw,
		}
	case c.Detection != nil:
		d := c.Detection
		body = eventBody{
			ID: d.GetEventId(), Time: timeOf(d.GetTimeMs()), Ingest: timeOf(d.GetIngestMs()), Source: d.GetSource(),
			Rules: d.GetRuleIds(), Of: d.GetCorrelationId(), Group: d.GetGroup(), Event: d.GetRaw(),
		}
	default:
		return nil
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil
	}
	return text
}
