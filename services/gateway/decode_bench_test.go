package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/stormbell/stormbell/services/formats/body"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

// BenchmarkDecode measures all that happens to a body but for HTTP and the
// broker: read, decompress, split, check, identify, date and encode.
func BenchmarkDecode(b *testing.B) {
	single := []byte(`{"action":"login_failed","user":{"name":"alice","id":1042},"source_ip":"198.51.100.7","timestamp":"2026-03-01T10:11:12.345Z","product":"okta"}`)
	host := bytes.Repeat([]byte(`{"time":"2026-03-01T10:11:12Z","product":"linux","category":"process_creation","Hostname":"web-1","User":"www-data","Image":"/usr/bin/curl","CommandLine":"curl -s https://example.com","ParentImage":"/bin/sh","ProcessId":4711,"ParentProcessId":4001,"CurrentDirectory":"/srv"}`+"\n"), 500)
	for _, bench := range []struct {
		name    string
		records int
		gzip    bool
		source  string
		body    []byte
	}{
		{"cloudtrail-ndjson-500-gzip", 500, true, "", trailLines(b, 500)},
		{"cloudtrail-ndjson-500", 500, false, "", trailLines(b, 500)},
		{"agent-ndjson-500", 500, false, SourceAgent, host},
		{"json-single", 1, false, "", single},
	} {
		b.Run(bench.name, func(b *testing.B) { benchmarkDecode(b, bench.body, bench.records, bench.gzip, bench.source) })
	}
}

func benchmarkDecode(b *testing.B, text []byte, records int, zip bool, from string) {
	cfg := DefaultConfig()
	all, err := newSources(cfg)
	require.NoError(b, err)
	m, err := newMetrics(metricnoop.NewMeterProvider(), all, func() int64 { return 0 })
	require.NoError(b, err)
	s := &Service{cfg: cfg, sources: all, metrics: m, intake: newIntake(cfg.MaxBodyBytes, cfg.MaxInflightBytes)}
	sent := text
	header := http.Header{}
	if zip {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write(text)
		require.NoError(b, err)
		require.NoError(b, w.Close())
		sent = z.Bytes()
		header.Set("Content-Encoding", "gzip")
	}
	limits := body.Limits{Records: cfg.MaxRecords, Depth: cfg.MaxDepth, Members: maxMembers}
	reader := bytes.NewReader(sent)
	r := &http.Request{Header: header, Body: readCloser{reader}, ContentLength: int64(len(sent))}
	a := newArena()
	headers := headersOf(context.Background(), event.SchemaEvent, "acme")
	var dst []bus.Message
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(sent)
		buf, err := s.intake.read(r, "acme")
		require.NoError(b, err)
		bt := s.batch(origin{tenant: "acme", requestID: "r", source: all[from], maxRecordBytes: cfg.MaxRecordBytes})
		require.NoError(b, body.Lines(buf.bytes, limits, bt))
		require.Len(b, bt.events, records)
		_, size := chunk(bt.events)
		dst = a.encode(dst[:0], bt.events, size, headers, 1_700_000_000_000, nil, nil)
		s.batches.Put(bt)
		buf.release()
	}
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// trailLines returns so many real CloudTrail records, one a line.
func trailLines(tb testing.TB, n int) []byte {
	tb.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	paths, err := filepath.Glob(filepath.Join(shared, "corpora/invictus-cloudtrail/CloudTrail/*.json"))
	require.NoError(tb, err)
	if len(paths) == 0 {
		tb.Skip("invictus-cloudtrail is not there: set SHARED to the directory that holds corpora/")
	}
	var out bytes.Buffer
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(tb, err)
		var file struct{ Records []json.RawMessage }
		require.NoError(tb, json.Unmarshal(text, &file))
		for _, r := range file.Records {
			require.NoError(tb, json.Compact(&out, r))
			out.WriteByte('\n')
			if n--; n == 0 {
				return out.Bytes()
			}
		}
	}
	tb.Fatal("too few records")
	return nil
}
