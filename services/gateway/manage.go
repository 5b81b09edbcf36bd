package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
)

// maxManageBytes bounds the body of a management request but for rules.
const maxManageBytes = 64 << 10

// decode reads a management request, which is one JSON object. Unknown members
// are refused: a misspelt one would else be lost without a word.
func decode(c *gin.Context, into any, limit int64) *problem {
	text, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge, fmt.Sprintf("more than %d bytes", limit))
	case err != nil:
		return newProblem(http.StatusRequestTimeout, codeTimeout, "the body did not arrive whole in time")
	case !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")):
		return newProblem(http.StatusBadRequest, codeMalformedBody, "the body must be one JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err = d.Decode(into); err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return newProblem(http.StatusBadRequest, codeMalformedBody, "there is text after the JSON object")
	}
	var (
		wrong  *json.UnmarshalTypeError
		noTime *time.ParseError
	)
	switch {
	case errors.As(err, &wrong):
		return invalid(fieldError{wrong.Field, "must be " + jsonType(wrong.Type)})
	case errors.As(err, &noTime):
		return invalid(fieldError{"expires_at", "must be a time such as 2030-01-31T12:00:00Z"})
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid(fieldError{strings.Trim(name, `"`), "is not a known member"})
	}
	return newProblem(http.StatusBadRequest, codeMalformedBody, "the body is not the JSON object that is expected here")
}

// jsonType names what a member must be.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Pointer:
		return jsonType(t.Elem())
	default:
		return "a number"
	}
}

// A changeLock makes the changes of one tenant at this gateway follow each
// other whole. Tenants do not wait for each other.
type changeLock struct {
	mu      sync.Mutex
	tenants map[string]*sync.Mutex
}

// lock returns what unlocks it.
func (l *changeLock) lock(tenant string) (unlock func()) {
	l.mu.Lock()
	one := l.tenants[tenant]
	if one == nil {
		one = new(sync.Mutex)
		l.tenants[tenant] = one
	}
	l.mu.Unlock()
	one.Lock()
	return one.Unlock
}

// controlProblem is the answer to a change that did not come into force, or of
// which that is not known.
func (s *Service) controlProblem(c *gin.Context, err error) *problem {
	ctx := c.Request.Context()
	if errors.Is(err, control.ErrTooLarge) {
		return newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge, err.Error())
	}
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
