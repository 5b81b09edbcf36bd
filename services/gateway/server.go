package gateway

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/stormbell/stormbell/services/internal/control"
)

// HeaderRequestID names each request in answers and logs. A client's own is
// not taken over.
const HeaderRequestID = "X-Request-Id"

// routes lists what the API serves. The OpenAPI document is held against it.
func (s *Service) routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.HandleMethodNotAllowed = true
	r.RedirectTrailingSlash = false
	_ = r.SetTrustedProxies(nil) // only fails for proxies that do not parse
	r.Use(s.observe, s.recover, s.bound)
	r.NoRoute(func(c *gin.Context) {
		refuse(c, newProblem(http.StatusNotFound, codeNotFound, "no such path"))
	})
	r.NoMethod(func(c *gin.Context) {
		refuse(c, newProblem(http.StatusMethodNotAllowed, codeMethod, "this path does not take "+c.Request.Method))
	})

	r.GET("/healthz", func(c *gin.Context) { c.String(http.StatusOK, "ok\n") })
	r.GET("/readyz", s.getReady)

	v1 := r.Group("/v1")
	v1.POST("/events", s.with(control.ScopeIngest, s.postEvents))
	v1.GET("/status", s.with(control.ScopeRead, s.getStatus))
	v1.GET("/correlations", s.with(control.ScopeRead, s.listCorrelations))
	v1.GET("/correlations/:rule/groups", s.with(control.ScopeRead, s.listGroups))

	v1.GET("/alerts", s.with(control.ScopeRead, s.lookBack(s.listAlerts)))
	v1.GET("/alerts/:id", s.with(control.ScopeRead, s.lookBack(s.getAlert)))
	v1.GET("/dlq", s.with(control.ScopeRead, s.lookBack(s.listDeadLetters)))
	v1.GET("/dlq/:id", s.with(control.ScopeRead, s.lookBack(s.getDeadLetter)))
	v1.POST("/dlq/:id/replay", s.with(control.ScopeManage, s.lookBack(s.replayDeadLetter)))

	v1.GET("/webhooks", s.with(control.ScopeRead, s.listWebhooks))
	v1.POST("/webhooks", s.with(control.ScopeManage, s.createWebhook))
	v1.GET("/webhooks/:id", s.with(control.ScopeRead, s.getWebhook))
	v1.PATCH("/webhooks/:id", s.with(control.ScopeManage, s.changeWebhook))
	v1.DELETE("/webhooks/:id", s.with(control.ScopeManage, s.deleteWebhook))
	v1.POST("/webhooks/:id/test", s.with(control.ScopeManage, s.testWebhook))

	v1.GET("/keys", s.with(control.ScopeManage, s.listKeys))
	v1.POST("/keys", s.with(control.ScopeManage, s.createKey))
	v1.DELETE("/keys/:id", s.with(control.ScopeManage, s.revokeKey))

	v1.GET("/rules", s.with(control.ScopeRead, s.listRules))
	v1.GET("/rules/:id", s.with(control.ScopeRead, s.getRule))
	v1.PUT("/rules", s.with(control.ScopeManage, s.pushRules))
	v1.POST("/rules/diff", s.with(control.ScopeRead, s.diffRules))

	v1.POST("/backtests", s.with(control.ScopeManage, s.backtest))
	return r
}

// with admits requests whose key has a scope.
func (s *Service) with(scope string, handle func(*gin.Context, control.Identity)) gin.HandlerFunc {
	return func(c *gin.Context) {
		id, p := s.authenticate(c.Request)
		if p == nil && !id.Has(scope) {
			p = newProblem(http.StatusForbidden, codeWrongScope,
				fmt.Sprintf("this needs a key with the scope %q; this key has %s", scope, strings.Join(id.Scopes, ", ")))
		}
		if p != nil {
			s.hurry(c)
			refuse(c, p)
			return
		}
		handle(c, id)
	}
}

// hurry bounds how long the rest of a refused body is waited for: who is let in
// by nobody must not hold a connection as long as who is.
func (s *Service) hurry(c *gin.Context) {
	if c.Request.ContentLength == 0 {
		return
	}
	// Fails only where there is no connection, as in no real server.
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(refusedBodyTimeout))
}

const refusedBodyTimeout = time.Second

func (s *Service) authenticate(r *http.Request) (control.Identity, *problem) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	key = strings.TrimSpace(key)
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return control.Identity{}, newProblem(http.StatusUnauthorized, codeUnauthorized, "send an API key: Authorization: Bearer KEY")
	}
	id, err := s.deps.Control.Authenticate(r.Context(), key)
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, control.ErrUnavailable):
		return id, unavailable("the API key cannot be checked at the moment", time.Second)
	case errors.Is(err, control.ErrExpiredKey):
		return id, newProblem(http.StatusUnauthorized, codeUnauthorized, "this API key has expired: create another")
	case errors.Is(err, control.ErrRevokedKey):
		return id, newProblem(http.StatusUnauthorized, codeUnauthorized, "this API key was revoked: create another")
	default:
		return id, newProblem(http.StatusUnauthorized, codeUnauthorized, "unknown API key")
	}
}

// observe names, traces and measures a request.
func (s *Service) observe(c *gin.Context) {
	begin := s.deps.Clock()
	ctx := propagation.TraceContext{}.Extract(c.Request.Context(), propagation.HeaderCarrier(c.Request.Header))
	route := c.FullPath()
	if route == "" {
		route = "other"
	}
	ctx, span := s.tracer.Start(ctx, c.Request.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", c.Request.Method), attribute.String("http.route", route)))
	defer span.End()
	c.Request = c.Request.WithContext(ctx)
	c.Header(HeaderRequestID, newRequestID())
	c.Next()
	status := c.Writer.Status()
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, http.StatusText(status))
	}
	s.metrics.request(ctx, route, status, s.deps.Clock().Sub(begin))
}

// recover answers 500 where a handler panics, and goes on.
func (s *Service) recover(c *gin.Context) {
	defer func() {
		what := recover()
		if what == nil {
			return
		}
		if err, ok := what.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(what)
		}
		s.deps.Log.ErrorContext(c.Request.Context(), "handler panicked",
			"request_id", requestID(c), "route", c.FullPath(), "panic", fmt.Sprint(what), "stack", string(debug.Stack()))
		if !c.Writer.Written() {
			refuse(c, newProblem(http.StatusInternalServerError, codeInternal, "this is a fault of the gateway: report it with the request id"))
		}
	}()
	c.Next()
}

// bound sends clients elsewhere once the gateway is told to stop, and refuses
// their requests once it does.
func (s *Service) bound(c *gin.Context) {
	if s.leaving.Load() {
		c.Header("Connection", "close")
	}
	if s.draining.Load() {
		refuse(c, unavailable("this gateway is stopping: try again", time.Second))
		return
	}
	c.Next()
}

func (s *Service) getReady(c *gin.Context) {
	if err := s.Ready(); err != nil {
		refuse(c, unavailable(err.Error(), time.Second))
		return
	}
	c.String(http.StatusOK, "ready\n")
}

func requestID(c *gin.Context) string { return c.Writer.Header().Get(HeaderRequestID) }

func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// traceID is the trace of ctx in lower-case hex, empty without one.
func traceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

// traceHeaders are the W3C headers of ctx for records, in a fixed order.
func traceHeaders(ctx context.Context) (traceparent, tracestate string) {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"], carrier["tracestate"]
}
