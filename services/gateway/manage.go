package gateway

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
)

// maxManageBytes bounds the body of a management request but for rules.
const maxManageBytes = 64 << 10

// decode reads a management request. Unknown members are refused: a
// misspelt one would else be lost without a word.
func decode(c *gin.Context, into any, limit int64) *problem {
	d := json.NewDecoder(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return newProblem(http.StatusBadRequest, codeMalformedBody, "there is more than one JSON value")
	}
	var (
		tooLarge *http.MaxBytesError
		wrong    *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge, fmt.Sprintf("more than %d bytes", limit))
	case errors.As(err, &wrong):
		return invalid(fieldError{wrong.Field, "must be of type " + wrong.Type.String()})
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid(fieldError{strings.Trim(name, `"`), "is not a known member"})
	}
	return newProblem(http.StatusBadRequest, codeMalformedBody, "the body is not the JSON object that is expected here")
}

// controlProblem is the answer to a change that did not come into force, or of
// which that is not known.
func (s *Service) controlProblem(c *gin.Context, err error) *problem {
	ctx := c.Request.Context()
	if errors.Is(err, control.ErrUnavailable) {
		s.deps.Log.WarnContext(ctx, "management change not acknowledged", "request_id", requestID(c), "error", err)
		return unavailable("the change was not acknowledged in time: it may be in force, look before you send it again", 2*time.Second)
	}
	s.deps.Log.ErrorContext(ctx, "management change failed", "request_id", requestID(c), "error", err)
	return newProblem(http.StatusInternalServerError, codeInternal, "the change could not be stored: see the gateway's log under this request id")
}

// newID returns a random identity of 100 bits.
func newID(prefix string) string {
	b := make([]byte, 15)
	_, _ = rand.Read(b)
	return prefix + strings.ToLower(base32.HexEncoding.EncodeToString(b))[:20]
}

func timeOf(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// optionalTime is nil for 0, which stands for never.
func optionalTime(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := timeOf(ms)
	return &t
}

func hexOf(hash []byte) string { return hex.EncodeToString(hash) }
