// Package spans is a small OTLP/HTTP receiver: processes export to it, and it
// answers which spans a trace has. It keeps everything in memory and samples
// nothing, so it is for tests and demonstrations.
package spans

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const maxExport = 64 << 20 // bytes of one request, unpacked

// A Span is what was exported of one.
type Span struct {
	ID, Parent, Trace string // hexadecimal
	Name, Service     string
	Start, End        time.Time
	// Attributes with a text, a whole number or a truth as value, as text.
	Attributes map[string]string
	// Links are the trace ids of spans that this one is linked to.
	Links []string
	// Failed is true if the span ended with an error.
	Failed bool
}

// A Collector takes what processes export over OTLP/HTTP: spans, which it
// decodes, and all the rest, which it keeps as bytes. It is safe for
// concurrent use.
type Collector struct {
	server *http.Server
	url    string
	served chan struct{}

	mu    sync.Mutex
	spans map[string]Span // by span id
	bytes [][]byte
}

// Listen starts a collector on a free loopback port. The caller must call Close.
func Listen(ctx context.Context) (*Collector, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start collector of spans: %w", err)
	}
	c := &Collector{spans: map[string]Span{}, url: "http://" + l.Addr().String(), served: make(chan struct{})}
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(c.served)
		_ = c.server.Serve(l) // Close ends it
	}()
	return c, nil
}

// Close ends the collector.
func (c *Collector) Close() error {
	err := c.server.Close()
	<-c.served
	if err != nil {
		return fmt.Errorf("close collector of spans: %w", err)
	}
	return nil
}

// Env has a process export the signals (traces, logs, metrics) to the collector
// almost at once.
func (c *Collector) Env(signals ...string) []string {
	env := []string{
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BLRP_SCHEDULE_DELAY=100",
		"OTEL_METRIC_EXPORT_INTERVAL=1000", "OTEL_TRACES_SAMPLER=always_on",
	}
	for _, signal := range signals {
		env = append(env, "OTEL_EXPORTER_OTLP_"+strings.ToUpper(signal)+"_ENDPOINT="+c.url+"/v1/"+signal)
	}
	return env
}

// ServeHTTP takes one export.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := body(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var req collectorpb.ExportTraceServiceRequest
	if r.URL.Path == "/v1/traces" && proto.Unmarshal(raw, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes = append(c.bytes, raw)
	for _, resource := range req.GetResourceSpans() {
		service := attributes(resource.GetResource().GetAttributes())["service.name"]
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				one := decoded(s)
				one.Service = service
				c.spans[one.ID] = one
			}
		}
	}
}

func body(r *http.Request) ([]byte, error) {
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zip, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, fmt.Errorf("read export: %w", err)
		}
		in = zip
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxExport+1))
	if err == nil && len(raw) > maxExport {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, fmt.Errorf("read export: %w", err)
	}
	return raw, nil
}

func decoded(s *tracepb.Span) Span {
	one := Span{
		ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()), Trace: hex.EncodeToString(s.GetTraceId()),
		Name: s.GetName(), Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
		Attributes: attributes(s.GetAttributes()), Failed: s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
	}
	for _, l := range s.GetLinks() {
		one.Links = append(one.Links, hex.EncodeToString(l.GetTraceId()))
	}
	return one
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	all := make(map[string]string, len(list))
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		case *commonpb.AnyValue_BoolValue:
			all[a.GetKey()] = strconv.FormatBool(v.BoolValue)
		}
	}
	return all
}

// Of returns the spans of a trace by span id.
func (c *Collector) Of(trace string) map[string]Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]Span{}
	for id, s := range c.spans {
		if s.Trace == trace {
			out[id] = s
		}
	}
	return out
}

// Exported is all that has come, as bytes.
func (c *Collector) Exported() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.bytes)
}

// Path is the way from a root, which need not be exported itself, down to the
// span with the given id. It is nil while a span on the way is missing.
func (c *Collector) Path(trace, id, root string) []Span {
	all := c.Of(trace)
	var path []Span
	for at := id; at != root; at = all[at].Parent {
		s, ok := all[at]
		if !ok || len(path) > len(all) {
			return nil
		}
		path = append(path, s)
	}
	slices.Reverse(path)
	return path
}

// Under returns the children of a span in the order of their start.
func (c *Collector) Under(trace, parent string) []Span {
	var found []Span
	for _, s := range c.Of(trace) {
		if s.Parent == parent {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b Span) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID)) })
	return found
}
