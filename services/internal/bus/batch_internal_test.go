package bus

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
)

// codecs are all that a batch may be compressed with.
func codecs() []kafka.Compression {
	return []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
}

func messages() []Message {
	shared := []Header{{Key: "schema", Value: []byte("s")}, {Key: "none"}, {Key: "empty", Value: []byte{}}}
	msgs := []Message{
		{Value: []byte("value alone")},
		{Key: []byte("key"), Value: []byte("value"), Headers: shared},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte("tombstone"), Headers: shared[:1]},
		{},
	}
	for i := range 200 { // lengths of one, two and three bytes of varint
		msgs = append(msgs, Message{Key: []byte(strings.Repeat("k", i)), Value: []byte(strings.Repeat(fmt.Sprint(i), i*i/4))})
	}
	return msgs
}

// TestBatchIsWhatTheLibraryEncodes compares byte by byte with the encoder of
// the client library, which is not used because of its cost.
func TestBatchIsWhatTheLibraryEncodes(t *testing.T) {
	now := time.UnixMilli(1_767_225_600_123)
	b, err := newBatcher(0)
	require.NoError(t, err)
	for _, n := range []int{1, 5, 205} {
		msgs := messages()[:n]
		records := make([]protocol.Record, n)
		for i, m := range msgs {
			records[i] = protocol.Record{Time: now, Key: bytesOf(m.Key), Value: bytesOf(m.Value)}
			for _, h := range m.Headers {
				records[i].Headers = append(records[i].Headers, protocol.Header{Key: h.Key, Value: h.Value})
			}
		}
		var want bytes.Buffer
		_, err := (&protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(records...)}).WriteTo(&want)
		require.NoError(t, err)
		got, err := io.ReadAll(b.request(b.encode(msgs), now))
		require.NoError(t, err)
		require.Equal(t, want.Bytes(), got, "%d records", n)
	}
}

func bytesOf(b []byte) protocol.Bytes {
	if b == nil {
		return nil
	}
	return protocol.NewBytes(b)
}

// TestBatchReadsBack has the client library decode batches of every codec, out
// of buffers that are used again.
func TestBatchReadsBack(t *testing.T) {
	for _, codec := range codecs() {
		t.Run(codec.String(), func(t *testing.T) {
			b, err := newBatcher(codec)
			require.NoError(t, err)
			for _, n := range []int{205, 1, 30} {
				msgs := messages()[:n]
				out := b.encode(msgs)
				if n > 100 && codec != 0 {
					require.Equal(t, codec, out.codec)
					require.Less(t, len(out.records), len(out.buffer.plain)/2)
				}
				for range 2 { // as often as it is sent
					requireReadsBack(t, msgs, b.request(out, time.Now()))
				}
				b.release(out)
			}
		})
	}
}

func requireReadsBack(t *testing.T, msgs []Message, r io.Reader) {
	t.Helper()
	var whole bytes.Buffer
	_, err := io.Copy(&whole, r)
	require.NoError(t, err)
	var set protocol.RecordSet
	_, err = set.ReadFrom(&whole)
	require.NoError(t, err)
	for i, m := range msgs {
		rec, err := set.Records.ReadRecord()
		require.NoError(t, err)
		require.EqualValues(t, i, rec.Offset)
		for _, side := range []struct {
			want []byte
			got  protocol.Bytes
		}{{m.Key, rec.Key}, {m.Value, rec.Value}} {
			got, err := protocol.ReadAll(side.got)
			require.NoError(t, err)
			require.Equal(t, string(side.want), string(got))
			require.Equal(t, side.want == nil, side.got == nil, "nothing is not the same as empty")
		}
		require.Len(t, rec.Headers, len(m.Headers))
		for j, h := range m.Headers {
			require.Equal(t, h.Key, rec.Headers[j].Key)
			require.Equal(t, string(h.Value), string(rec.Headers[j].Value))
		}
	}
	_, err = set.Records.ReadRecord()
	require.ErrorIs(t, err, io.EOF)
}

// BenchmarkEncode is what a batch of 500 CloudTrail-like records costs before
// it is written to a connection.
func BenchmarkEncode(b *testing.B) {
	var msgs []Message
	size := 0
	for i := range 500 {
		m := Message{Value: fmt.Appendf(nil, `{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/u%d","accountId":"111122223333"},`+
			`"eventTime":"2026-03-01T10:%02d:%02dZ","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-central-1","sourceIPAddress":"198.51.100.%d",`+
			`"userAgent":"aws-cli/2.15","requestParameters":{"bucketName":"b%d","key":"k/%08x"},"responseElements":null,"eventID":"%032x"}`,
			i%7, i/60%60, i%60, i%200, i%3, i*2654435761, i*i*7919)}
		size += len(m.Value)
		msgs = append(msgs, m)
	}
	for _, codec := range codecs() {
		b.Run(codec.String(), func(b *testing.B) {
			e, err := newBatcher(codec)
			require.NoError(b, err)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				out := e.encode(msgs)
				if _, err := io.Copy(io.Discard, e.request(out, time.Now())); err != nil {
					b.Fatal(err)
				}
				e.release(out)
			}
		})
	}
}
