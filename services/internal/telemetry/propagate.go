package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// Propagator returns the W3C trace context alone. Baggage, which may hold
// anything, is neither read nor written.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// A Header is a header of a Kafka record.
type Header interface {
	~struct {
		Key   string
		Value []byte
	}
}

// plainHeader is what every Header converts to and from.
type plainHeader = struct {
	Key   string
	Value []byte
}

// carrier adapts headers to the propagator.
type carrier[H Header] struct{ headers []H }

func (c *carrier[H]) Get(key string) string {
	for _, h := range c.headers {
		if p := plainHeader(h); p.Key == key {
			return string(p.Value)
		}
	}
	return ""
}

func (c *carrier[H]) Set(key, value string) {
	for i, h := range c.headers {
		if plainHeader(h).Key == key {
			c.headers[i] = H(plainHeader{key, []byte(value)})
			return
		}
	}
	c.headers = append(c.headers, H(plainHeader{key, []byte(value)}))
}

func (c *carrier[H]) Keys() []string {
	keys := make([]string, 0, len(c.headers))
	for _, h := range c.headers {
		keys = append(keys, plainHeader(h).Key)
	}
	return keys
}

// Inject writes the trace context of ctx into the headers of a record and
// returns them.
func Inject[H Header](ctx context.Context, headers []H) []H {
	c := &carrier[H]{headers}
	propagation.TraceContext{}.Inject(ctx, c)
	return c.headers
}

// Extract returns ctx with the trace context that the headers of a record
// hold, if they hold a valid one.
func Extract[H Header](ctx context.Context, headers []H) context.Context {
	return propagation.TraceContext{}.Extract(ctx, &carrier[H]{headers})
}
