package gateway

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
)

// A problem is the body of every answer that is not a success, as RFC 9457
// describes it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Code is stable, for programs.
	Code string `json:"code"`
	// Detail says what is wrong and what to do about it.
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// Errors name the members of the request that are wrong.
	Errors []fieldError `json:"errors,omitempty"`
	// Rejected lists the records that are wrong.
	Rejected          []rejection `json:"rejected,omitempty"`
	RejectedTruncated int         `json:"rejected_truncated,omitempty"`

	retryAfter time.Duration
}

// A fieldError names a member of a request and what is wrong with it.
type fieldError struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// Codes of problems.
const (
	codeBadRequest      = "bad_request"
	codeMalformedBody   = "malformed_body"
	codeNoEvents        = "no_valid_events"
	codeUnknownSource   = "unknown_source"
	codeUnauthorized    = "unauthorized"
	codeWrongScope      = "wrong_scope"
	codeSourceDenied    = "source_not_allowed"
	codeNotFound        = "not_found"
	codeMethod          = "method_not_allowed"
	codeBodyTooLarge    = "body_too_large"
	codeTooManyRecords  = "too_many_records"
	codeUnsupportedType = "unsupported_media_type"
	codeInvalid         = "invalid_field"
	codeQuota           = "quota_exceeded"
	codeNotReplayable   = "not_replayable"
	codeUnavailable     = "unavailable"
	codeTimeout         = "request_timeout"
	codeInternal        = "internal"
)

func newProblem(status int, code, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// unavailable is the answer where a later attempt may succeed.
func unavailable(detail string, after time.Duration) *problem {
	p := newProblem(http.StatusServiceUnavailable, codeUnavailable, detail)
	p.retryAfter = after
	return p
}

// invalid is the answer to a request whose members are wrong.
func invalid(errs ...fieldError) *problem {
	p := newProblem(http.StatusBadRequest, codeInvalid, "the request holds values that cannot be used")
	p.Errors = errs
	return p
}

// refuse answers with p and ends the handling of the request.
func refuse(c *gin.Context, p *problem) {
	p.RequestID = requestID(c)
	if p.retryAfter > 0 {
		seconds := max(1, int(math.Ceil(p.retryAfter.Seconds())))
		c.Header("Retry-After", strconv.Itoa(seconds))
	}
	if p.Status == http.StatusUnauthorized {
		c.Header("WWW-Authenticate", "Bearer")
	}
	c.Abort()
	send(c, p.Status, "application/problem+json", p)
}

// answer sends v as JSON.
func answer(c *gin.Context, status int, v any) { send(c, status, "application/json", v) }

func send(c *gin.Context, status int, contentType string, v any) {
	text, err := json.Marshal(v)
	if err != nil { // our own types: cannot be
		status, text = http.StatusInternalServerError, []byte(`{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`)
	}
	h := c.Writer.Header()
	h.Set("Cache-Control", "no-store") // some answers hold a secret, none keeps
	h.Set("X-Content-Type-Options", "nosniff")
	c.Data(status, contentType, append(text, '\n'))
}
