package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// traced adds the ids of the span in the context.
type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }

// leveled drops what is less severe than a level.
type leveled struct {
	slog.Handler
	level slog.Level
}

func (h leveled) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level && h.Handler.Enabled(ctx, level)
}

func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(attrs), h.level}
}

func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.level}
}

// redacting blots out attributes that are named like secrets. It is the last
// line of defence: secrets should have a type that does not print.
type redacting struct{ slog.Handler }

func (h redacting) Handle(ctx context.Context, r slog.Record) error {
	hit := false
	r.Attrs(func(a slog.Attr) bool {
		hit = suspicious(a)
		return !hit
	})
	if !hit {
		return h.Handler.Handle(ctx, r)
	}
	clean := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(blot(a))
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

func (h redacting) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		clean = append(clean, blot(a))
	}
	return redacting{h.Handler.WithAttrs(clean)}
}

func (h redacting) WithGroup(name string) slog.Handler { return redacting{h.Handler.WithGroup(name)} }

// forbidden reports whether an attribute key names a secret.
func forbidden(key string) bool {
	switch strings.ToLower(key) {
	case "token", "secret", "authorization", "password", "api_key", "apikey", "credential", "private_key":
		return true
	}
	return false
}

func suspicious(a slog.Attr) bool {
	return forbidden(a.Key) || (a.Value.Kind() == slog.KindGroup && slices.ContainsFunc(a.Value.Group(), suspicious))
}

func blot(a slog.Attr) slog.Attr {
	if forbidden(a.Key) {
		return slog.String(a.Key, "[redacted]")
	}
	if a.Value.Kind() != slog.KindGroup {
		return a
	}
	group := make([]slog.Attr, 0, len(a.Value.Group()))
	for _, member := range a.Value.Group() {
		group = append(group, blot(member))
	}
	return slog.Attr{Key: a.Key, Value: slog.GroupValue(group...)}
}
