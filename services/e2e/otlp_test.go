package e2e_test

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
)

// A collector takes what processes export over OTLP/HTTP: spans, which it
// decodes, and all the rest, which it keeps as bytes.
type collector struct {
	url string

	mu    sync.Mutex
	spans map[string]span // by span id
	bytes [][]byte
}

type span struct {
	id, parent, trace, name, service string
	links                            []string // trace ids
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: map[string]span{}}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// env has a process export to it at once.
func (c *collector) env(signals ...string) []string {
	env := []string{
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BLRP_SCHEDULE_DELAY=100",
		"OTEL_METRIC_EXPORT_INTERVAL=1000", "OTEL_TRACES_SAMPLER=always_on",
	}
	for _, signal := range signals {
		env = append(env, "OTEL_EXPORTER_OTLP_"+strings.ToUpper(signal)+"_ENDPOINT="+c.url+"/v1/"+signal)
	}
	return env
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zip, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = zip
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes = append(c.bytes, raw)
	if r.URL.Path != "/v1/traces" {
		return
	}
	var req collectorpb.ExportTraceServiceRequest
	if proto.Unmarshal(raw, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, resource := range req.GetResourceSpans() {
		service := attribute(resource.GetResource().GetAttributes(), "service.name")
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				one := span{
					id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()),
					trace: hex.EncodeToString(s.GetTraceId()), name: s.GetName(), service: service,
				}
				for _, l := range s.GetLinks() {
					one.links = append(one.links, hex.EncodeToString(l.GetTraceId()))
				}
				c.spans[one.id] = one
			}
		}
	}
}

func attribute(list []*commonpb.KeyValue, key string) string {
	for _, a := range list {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// of returns the spans of a trace by span id.
func (c *collector) of(trace string) map[string]span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]span{}
	for id, s := range c.spans {
		if s.trace == trace {
			out[id] = s
		}
	}
	return out
}

// exported is all that has come, as bytes.
func (c *collector) exported() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([][]byte(nil), c.bytes...)
}

// requirePath asserts that a span descends from the span with the id root, and
// returns the names on the way, the span's own last.
func requirePath(t *testing.T, spans map[string]span, id, root string) []string {
	t.Helper()
	var names []string
	for at := id; at != root; at = spans[at].parent {
		s, ok := spans[at]
		require.True(t, ok, "span %s, an ancestor of %q, was not exported or has another trace id; there are %v", at, spans[id].name, spans)
		require.Less(t, len(names), len(spans), "spans run in a circle")
		names = append([]string{s.name}, names...)
	}
	return names
}
