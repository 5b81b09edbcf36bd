// Package controltest opens views of a real broker's topic for tests.
package controltest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/internal/control"
)

// Topic is the topic that Log uses.
const Topic = "stormbell.control"

// Log is a control.Log on a broker without authentication.
type Log struct {
	client    *kafka.Client
	transport *kafka.Transport
}

// NewLog creates the topic on a broker if it is missing. It ends with the test.
func NewLog(t testing.TB, addr string) *Log {
	t.Helper()
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	l := &Log{transport: transport, client: &kafka.Client{Addr: kafka.TCP(addr), Transport: transport, Timeout: 10 * time.Second}}
	resp, err := l.client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: Topic, NumPartitions: 1, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "compact"}},
	}}})
	require.NoError(t, err)
	if err := resp.Errors[Topic]; err != nil {
		require.ErrorIs(t, err, kafka.TopicAlreadyExists)
	}
	return l
}

// Open returns a view of the broker's topic that follows it until the test ends.
func Open(t testing.TB, addr string) *control.View {
	t.Helper()
	v := control.Open(control.DefaultConfig(), NewLog(t, addr), slog.New(slog.DiscardHandler), time.Now)
	Run(t, v)
	return v
}

// Run lets a view follow its log until the test ends, and returns once it is ready.
func Run(t testing.TB, v *control.View) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = v.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	require.NoError(t, v.AwaitReady(t.Context()))
}

// Append implements control.Log.
func (l *Log) Append(ctx context.Context, records ...control.Record) error {
	batch := make([]kafka.Record, 0, len(records))
	for _, r := range records {
		rec := kafka.Record{Key: kafka.NewBytes([]byte(r.Key))}
		if r.Value != nil {
			rec.Value = kafka.NewBytes(r.Value)
		}
		batch = append(batch, rec)
	}
	resp, err := l.client.Produce(ctx, &kafka.ProduceRequest{Topic: Topic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(batch...)})
	if err != nil {
		return err
	}
	return resp.Error
}

// End implements control.Log.
func (l *Log) End(ctx context.Context) (int64, error) {
	_, end, err := l.bounds(ctx)
	return end, err
}

// Start implements control.Log.
func (l *Log) Start(ctx context.Context) (int64, error) {
	start, _, err := l.bounds(ctx)
	return start, err
}

func (l *Log) bounds(ctx context.Context) (start, end int64, err error) {
	resp, err := l.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		Topic: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0)},
	}})
	if err != nil {
		return 0, 0, err
	}
	p := resp.Topics[Topic][0]
	return p.FirstOffset, p.LastOffset, p.Error
}

// Read implements control.Log.
func (l *Log) Read(ctx context.Context, from int64) ([]control.Record, int64, error) {
	resp, err := l.client.Fetch(ctx, &kafka.FetchRequest{Topic: Topic, Offset: from, MinBytes: 1, MaxBytes: 4 << 20, MaxWait: 250 * time.Millisecond})
	if err != nil {
		return nil, 0, err
	}
	if errors.Is(resp.Error, kafka.OffsetOutOfRange) {
		return nil, 0, control.ErrOutOfRange
	}
	if resp.Error != nil {
		return nil, 0, resp.Error
	}
	var out []control.Record
	next := from
	for {
		r, err := resp.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		if r.Offset < from {
			continue
		}
		rec := control.Record{Offset: r.Offset}
		if r.Key != nil {
			key, err := kafka.ReadAll(r.Key)
			if err != nil {
				return nil, 0, err
			}
			rec.Key = string(key)
		}
		if r.Value != nil {
			if rec.Value, err = kafka.ReadAll(r.Value); err != nil {
				return nil, 0, err
			}
			if rec.Value == nil {
				rec.Value = []byte{}
			}
		}
		out = append(out, rec)
		next = r.Offset + 1
	}
	if len(out) == 0 && resp.HighWatermark > next {
		next = resp.HighWatermark
	}
	return out, next, nil
}
