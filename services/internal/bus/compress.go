package bus

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go"
)

// A compressor appends the compressed src to dst. It is safe for concurrent
// use.
type compressor func(dst, src []byte) []byte

func newCompressor(codec kafka.Compression) (compressor, error) {
	switch codec {
	case kafka.Snappy:
		return snappy, nil
	case kafka.Lz4:
		w := lz4.NewWriter(nil)
		if err := w.Apply(lz4Options()...); err != nil {
			return nil, fmt.Errorf("lz4: %w", err)
		}
		return streams(func(w io.Writer) stream {
			z := lz4.NewWriter(w)
			_ = z.Apply(lz4Options()...) // they were good above
			return z
		}), nil
	case kafka.Gzip:
		return streams(func(w io.Writer) stream { return gzip.NewWriter(w) }), nil
	case kafka.Zstd:
		// EncodeAll keeps no state between calls, and waits where more call
		// than there are processors.
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return func(dst, src []byte) []byte { return enc.EncodeAll(src, dst) }, nil
	default:
		return nil, nil //nolint:nilnil // no compression is a compression
	}
}

// snappy compresses in one block. Kafka's clients expect it in the frame of
// the Java library for streams (xerial): a magic, two versions, and blocks
// with their lengths.
func snappy(dst, src []byte) []byte {
	dst = append(dst, 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0)
	head := len(dst)
	if need := head + s2.MaxEncodedLen(len(src)); cap(dst) < need {
		dst = append(make([]byte, 0, need), dst...)
	}
	block := s2.EncodeSnappy(dst[head:cap(dst)], src)
	binary.BigEndian.PutUint32(dst[head-4:], uint32(len(block)))
	return dst[:head+len(block)]
}

// lz4Options keep what a block looks back on in the processor's cache. The
// batch has a checksum of its own.
func lz4Options() []lz4.Option {
	return []lz4.Option{lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)}
}

// A stream is a writer that can start anew.
type stream interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// streams makes a compressor of writers that it keeps for the next time.
func streams(open func(w io.Writer) stream) compressor {
	pool := sync.Pool{New: func() any { return open(io.Discard) }}
	return func(dst, src []byte) []byte {
		out := appender{dst}
		w, _ := pool.Get().(stream)
		w.Reset(&out)
		// An appender takes everything.
		_, _ = w.Write(src)
		_ = w.Close()
		w.Reset(io.Discard)
		pool.Put(w)
		return out.bytes
	}
}

type appender struct{ bytes []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.bytes = append(a.bytes, p...)
	return len(p), nil
}
