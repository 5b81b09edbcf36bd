package gateway

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/formats/body"
	"github.com/stormbell/stormbell/services/formats/jsonscan"
	"github.com/stormbell/stormbell/services/internal/control"
	"github.com/stormbell/stormbell/services/internal/tenant"
)

// accepted is the answer to POST /v1/events where at least one record was
// taken, or none was sent.
type accepted struct {
	Accepted int `json:"accepted"`
	// Late counts accepted events that were older than their source's lateness.
	Late int `json:"late"`
	// IDs are those of the accepted events, in the order of the request.
	IDs               []string    `json:"ids"`
	Rejected          []rejection `json:"rejected,omitempty"`
	RejectedTruncated int         `json:"rejected_truncated,omitempty"`
}

const (
	headerSource         = "Stormbell-Source"
	headerIdempotencyKey = "Idempotency-Key"
	maxIdempotencyKey    = 255
	// maxMembers bounds those of a record's outermost object: a list of them
	// takes ten times the memory of the shortest ones' text.
	maxMembers = 10_000
)

func (s *Service) postEvents(c *gin.Context, id control.Identity) {
	o, p := s.originOf(c, id)
	if p == nil {
		p = s.admit(id.Tenant)
	}
	lines := false
	if p == nil {
		lines, p = isLines(c.GetHeader("Content-Type"))
	}
	if p != nil {
		refuse(c, p)
		return
	}
	buf, err := s.intake.read(c.Request, id.Tenant)
	if err != nil {
		refuse(c, s.bodyProblem(err))
		return
	}
	b := s.batch(o)
	p, keep := s.ingest(c, b, buf.bytes, lines)
	if keep {
		// Someone may still be writing these bytes to the broker.
		buf.abandon()
	} else {
		s.batches.Put(b)
		buf.release()
	}
	if p != nil {
		refuse(c, p)
	}
}

// ingest takes the records of a body and answers, or returns the refusal. If
// keep is set, body and batch may still be read by the producer.
func (s *Service) ingest(c *gin.Context, b *batch, text []byte, lines bool) (p *problem, keep bool) {
	limits := body.Limits{Records: s.cfg.MaxRecords, Depth: s.cfg.MaxDepth, Members: maxMembers}
	var err error
	switch {
	case isText(b.source.format):
		_, err = b.textLines(text, limits.Records)
	case lines:
		err = body.Lines(text, limits, b)
	default:
		err = body.JSON(text, limits, b)
	}
	if err != nil {
		return s.splitProblem(err), false
	}
	ctx := c.Request.Context()
	s.metrics.reject(ctx, b)
	s.countRejected(b)
	if len(b.events) == 0 && b.rejections() > 0 {
		p := newProblem(http.StatusBadRequest, codeNoEvents, "none of the records can be taken: see rejected")
		p.Rejected, p.RejectedTruncated = b.rejected, b.rejectedMore
		return p, false
	}
	if wait := s.quotas.Take(b.tenant, s.quota(b.tenant), len(b.events), b.rawBytes, s.deps.Clock()); wait > 0 {
		return quotaProblem(wait), false
	}
	if len(b.events) > 0 {
		if err := s.produce(ctx, b); err != nil {
			return s.produceProblem(ctx, requestID(c), err), true
		}
	}
	out := accepted{Accepted: len(b.events), IDs: make([]string, len(b.events)), Rejected: b.rejected, RejectedTruncated: b.rejectedMore}
	for i := range b.events {
		out.IDs[i] = b.events[i].ID
		if b.events[i].Late {
			out.Late++
		}
	}
	s.metrics.accept(ctx, b, out.Late)
	s.countAccepted(b, out.Late)
	answer(c, http.StatusAccepted, out)
	return nil, false
}

func (s *Service) batch(o origin) *batch {
	b, _ := s.batches.Get().(*batch)
	if b == nil {
		b = new(batch)
	}
	b.reset(o)
	return b
}

// originOf finds out where a request comes from.
func (s *Service) originOf(c *gin.Context, id control.Identity) (origin, *problem) {
	o := origin{tenant: id.Tenant, requestID: requestID(c), maxRecordBytes: s.cfg.MaxRecordBytes}
	name := c.GetHeader(headerSource)
	if inQuery, ok := c.GetQuery("source"); ok {
		if name != "" && name != inQuery {
			return o, newProblem(http.StatusBadRequest, codeBadRequest, "the query and the header "+headerSource+" name different sources: send one")
		}
		name = inQuery
	}
	if len(id.Sources) > 0 && (name == "" || !id.MayUse(name)) {
		return o, newProblem(http.StatusForbidden, codeSourceDenied,
			"this key may only send as "+list(id.Sources)+": name one of them with ?source= or the header "+headerSource)
	}
	o.source = s.sources[name]
	if o.source == nil {
		return o, newProblem(http.StatusBadRequest, codeUnknownSource, "unknown source: "+s.sources.unknown()+", or leave it out")
	}
	o.idempotencyKey = c.GetHeader(headerIdempotencyKey)
	if len(o.idempotencyKey) > maxIdempotencyKey {
		return o, newProblem(http.StatusBadRequest, codeBadRequest, fmt.Sprintf("the header %s is longer than %d bytes", headerIdempotencyKey, maxIdempotencyKey))
	}
	return o, nil
}

// admit refuses what cannot be kept anyway, before its body is read.
func (s *Service) admit(tenantID string) *problem {
	if s.deps.Full != nil {
		if full, why := s.deps.Full(); full {
			return unavailable("no room for events: "+why, 10*time.Second)
		}
	}
	if wait := s.quotas.Wait(tenantID, s.quota(tenantID), s.deps.Clock()); wait > 0 {
		return quotaProblem(wait)
	}
	return nil
}

// quota is the tenant's own, or else the configured one.
func (s *Service) quota(id string) tenant.Quota {
	q := tenant.Quota{EventsPerSecond: s.cfg.EventsPerSecond, BytesPerSecond: s.cfg.BytesPerSecond}
	if t, ok := s.deps.Control.Tenant(id); ok {
		if n := t.GetEventsPerSecond(); n > 0 {
			q.EventsPerSecond = n
		}
		if n := t.GetBytesPerSecond(); n > 0 {
			q.BytesPerSecond = n
		}
	}
	return q
}

func quotaProblem(wait time.Duration) *problem {
	p := newProblem(http.StatusTooManyRequests, codeQuota, "the tenant's quota is used up: send less, or ask for more")
	p.retryAfter = wait
	return p
}

// isLines reports whether the body is judged line by line.
func isLines(contentType string) (bool, *problem) {
	if contentType == "" {
		return false, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err == nil {
		switch media {
		case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines":
			return true, nil
		case "application/json", "text/json", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded":
			// The last ones are what tools say that know nothing better.
			return false, nil
		}
		if strings.HasSuffix(media, "+json") {
			return false, nil
		}
	}
	return false, newProblem(http.StatusUnsupportedMediaType, codeUnsupportedType,
		"send application/json or application/x-ndjson, compressed with Content-Encoding: gzip or zstd or not at all")
}

func (s *Service) bodyProblem(err error) *problem {
	switch {
	case errors.Is(err, errBodyTooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge,
			fmt.Sprintf("more than %d bytes after decompression: send less at a time, or raise max_body_bytes", s.cfg.MaxBodyBytes))
	case errors.Is(err, errBudget):
		return unavailable("too many large requests at a time", time.Second)
	case errors.Is(err, errEncoding):
		return newProblem(http.StatusUnsupportedMediaType, codeUnsupportedType, "unknown Content-Encoding: use gzip or zstd")
	case errors.Is(err, errBodyRead):
		return newProblem(http.StatusRequestTimeout, codeTimeout, "the body did not arrive whole in time")
	default:
		return newProblem(http.StatusBadRequest, codeMalformedBody, "the body does not decompress as its Content-Encoding says")
	}
}

func (s *Service) splitProblem(err error) *problem {
	var syntax *jsonscan.SyntaxError
	switch {
	case errors.Is(err, body.ErrTooMany):
		return newProblem(http.StatusRequestEntityTooLarge, codeTooManyRecords,
			fmt.Sprintf("more than %d records: send less at a time, or raise max_records", s.cfg.MaxRecords))
	case errors.As(err, &syntax):
		return newProblem(http.StatusBadRequest, codeMalformedBody, "the body is not JSON: "+syntax.Error())
	default:
		return newProblem(http.StatusBadRequest, codeMalformedBody, err.Error())
	}
}

// list names things in a sentence.
func list(names []string) string { return strings.Join(slices.Sorted(slices.Values(names)), ", ") }
