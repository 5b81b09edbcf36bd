package spans_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/stormbell/stormbell/services/e2e/spans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	trace = "000102030405060708090a0b0c0d0e0f"
	root  = "0000000000000001"
)

func span(id, parent byte, name string, start int) *tracepb.Span {
	traceID := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	at := uint64(start) * uint64(time.Millisecond)
	return &tracepb.Span{
		TraceId: traceID, SpanId: []byte{0, 0, 0, 0, 0, 0, 0, id}, ParentSpanId: []byte{0, 0, 0, 0, 0, 0, 0, parent}, Name: name,
		StartTimeUnixNano: at, EndTimeUnixNano: at + uint64(time.Millisecond),
		Attributes: []*commonpb.KeyValue{
			{Key: "n", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 7}}},
			{Key: "s", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "text"}}},
			{Key: "b", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
		},
		Links: []*tracepb.Span_Link{{TraceId: traceID}},
	}
}

func TestCollector(t *testing.T) {
	c, err := spans.Listen(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	url := ""
	for _, v := range c.Env("traces") {
		if at, ok := strings.CutPrefix(v, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="); ok {
			url = at
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(body []byte, encoding string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Encoding", encoding)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	body, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "svc"}},
		}}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
			span(4, 3, "leaf", 5), span(2, 1, "first", 1), span(3, 2, "second", 3), span(5, 3, "earlier leaf", 4), span(7, 6, "orphan", 9), span(8, 9, "circle", 9), span(9, 8, "circle", 9),
		}}},
	}}})
	require.NoError(t, err)
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, err = zip.Write(body)
	require.NoError(t, err)
	require.NoError(t, zip.Close())

	require.Equal(t, http.StatusBadRequest, post([]byte("not protobuf"), ""))
	require.Equal(t, http.StatusBadRequest, post([]byte("not gzip"), "gzip"))
	require.Empty(t, c.Exported())
	require.Equal(t, http.StatusOK, post(packed.Bytes(), "gzip"))
	require.Equal(t, [][]byte{body}, c.Exported())

	require.Len(t, c.Of(trace), 7)
	require.Empty(t, c.Of(strings.Repeat("0", 32)))
	leaf := c.Of(trace)["0000000000000004"]
	require.Equal(t, map[string]string{"n": "7", "s": "text", "b": "true"}, leaf.Attributes)
	require.Equal(t, "svc", leaf.Service)
	require.Equal(t, time.Millisecond, leaf.End.Sub(leaf.Start))
	require.Equal(t, []string{trace}, leaf.Links)

	names := func(list []spans.Span) (all []string) {
		for _, s := range list {
			all = append(all, s.Name)
		}
		return all
	}
	require.Equal(t, []string{"first", "second", "leaf"}, names(c.Path(trace, leaf.ID, root)))
	require.Nil(t, c.Path(trace, "0000000000000007", root), "a span on the way is missing")
	require.Nil(t, c.Path(trace, "0000000000000008", root), "a circle has no root")
	require.Equal(t, []string{"earlier leaf", "leaf"}, names(c.Under(trace, "0000000000000003")))
}
