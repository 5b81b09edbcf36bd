package bus

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Offsets in the head of a record batch of magic 2, as Kafka's protocol guide
// ("Record Batch") lays it out. The checksum covers all from the attributes on.
const (
	batchLengthAt     = 8
	batchEpochAt      = 12
	batchMagicAt      = 16
	batchChecksumAt   = 17
	batchAttributesAt = 21
	batchLastDeltaAt  = 23
	batchFirstTimeAt  = 27
	batchMaxTimeAt    = 35
	batchProducerAt   = 43
	batchSequenceAt   = 53
	batchCountAt      = 57
	batchHead         = 61
)

// A batcher encodes record batches. The client library can do so too, but
// copies each record through pages three times and compresses them in windows
// that cost more than they save: that was a third of what a gateway spent.
type batcher struct {
	codec      kafka.Compression
	castagnoli *crc32.Table
	compress   compressor // nil for none
	buffers    sync.Pool  // of *batchBuffer
}

// batchBuffer is the memory of one batch.
type batchBuffer struct{ plain, packed []byte }

func newBatcher(codec kafka.Compression) (*batcher, error) {
	c, err := newCompressor(codec)
	if err != nil {
		return nil, err
	}
	return &batcher{codec: codec, castagnoli: crc32.MakeTable(crc32.Castagnoli), compress: c}, nil
}

// A batch is encoded records on their way to a broker.
type batch struct {
	count   int
	codec   kafka.Compression
	records []byte // as sent
	buffer  *batchBuffer
}

// encode copies messages into a batch. Give it back with release once no
// request can be reading it.
func (b *batcher) encode(msgs []Message) batch {
	buf, _ := b.buffers.Get().(*batchBuffer)
	if buf == nil {
		buf = new(batchBuffer)
	}
	buf.plain = appendRecords(buf.plain[:0], msgs)
	out := batch{count: len(msgs), records: buf.plain, buffer: buf}
	if b.compress != nil {
		buf.packed = b.compress(buf.packed[:0], buf.plain)
		// What does not get smaller is spared the work of unpacking.
		if len(buf.packed) < len(buf.plain) {
			out.codec, out.records = b.codec, buf.packed
		}
	}
	return out
}

// maxKept is the largest buffer that is kept for the next batch.
const maxKept = 2 << 20

func (b *batcher) release(out batch) {
	if cap(out.buffer.plain) <= maxKept && cap(out.buffer.packed) <= maxKept {
		b.buffers.Put(out.buffer)
	}
}

// request is the batch as it is sent at a time, behind its length: all its
// records get that time. They are shared by all attempts, the head is each
// one's own.
func (b *batcher) request(out batch, now time.Time) io.Reader {
	be := binary.BigEndian
	whole := be.AppendUint32(make([]byte, 0, 4+batchHead), uint32(batchHead+len(out.records)))
	whole = whole[:cap(whole)]
	head := whole[4:]
	be.PutUint32(head[batchLengthAt:], uint32(batchHead-batchEpochAt+len(out.records)))
	be.PutUint32(head[batchEpochAt:], ^uint32(0)) // the broker knows its epoch
	head[batchMagicAt] = 2
	be.PutUint16(head[batchAttributesAt:], uint16(out.codec))
	be.PutUint32(head[batchLastDeltaAt:], uint32(out.count-1))
	be.PutUint64(head[batchFirstTimeAt:], uint64(now.UnixMilli()))
	be.PutUint64(head[batchMaxTimeAt:], uint64(now.UnixMilli()))
	for i := batchProducerAt; i < batchCountAt; i++ {
		head[i] = 0xff // no producer id, epoch and sequence: not idempotent
	}
	be.PutUint32(head[batchCountAt:], uint32(out.count))
	sum := crc32.Update(crc32.Checksum(head[batchAttributesAt:], b.castagnoli), b.castagnoli, out.records)
	be.PutUint32(head[batchChecksumAt:], sum)
	return &parts{whole, out.records}
}

// parts reads two slices after each other, without a copy where the reader
// can take them whole.
type parts [2][]byte

// Read implements io.Reader.
func (p *parts) Read(dst []byte) (int, error) {
	n := copy(dst, p[0])
	p[0] = p[0][n:]
	m := copy(dst[n:], p[1])
	p[1] = p[1][m:]
	if n+m == 0 && len(dst) > 0 {
		return 0, io.EOF
	}
	return n + m, nil
}

// WriteTo implements io.WriterTo.
func (p *parts) WriteTo(w io.Writer) (n int64, err error) {
	for i := range p {
		m, err := w.Write(p[i])
		n += int64(m)
		p[i] = p[i][m:]
		if err != nil {
			return n, err //nolint:wrapcheck // io.Copy's callers want it as it is
		}
	}
	return n, nil
}

// appendRecords appends the records of a batch, uncompressed. Their times do
// not differ from that of the batch.
func appendRecords(dst []byte, msgs []Message) []byte {
	for i := range msgs {
		m := &msgs[i]
		dst = binary.AppendVarint(dst, int64(recordSize(m, i)))
		dst = append(dst, 0, 0) // attributes, and the difference in time
		dst = binary.AppendVarint(dst, int64(i))
		dst = appendBytes(dst, m.Key)
		dst = appendBytes(dst, m.Value)
		dst = binary.AppendVarint(dst, int64(len(m.Headers)))
		for _, h := range m.Headers {
			dst = binary.AppendVarint(dst, int64(len(h.Key)))
			dst = append(dst, h.Key...)
			dst = appendBytes(dst, h.Value)
		}
	}
	return dst
}

// recordSize is the length of a record behind its own length.
func recordSize(m *Message, delta int) int {
	n := 2 + varintSize(delta) + bytesSize(m.Key) + bytesSize(m.Value) + varintSize(len(m.Headers))
	for _, h := range m.Headers {
		n += varintSize(len(h.Key)) + len(h.Key) + bytesSize(h.Value)
	}
	return n
}

// appendBytes tells nothing (nil) from what is empty.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(len(b)) + len(b)
}

// varintSize is the length of n >= 0 in zigzag coding.
func varintSize(n int) int {
	size := 1
	for u := uint64(n) << 1; u >= 0x80; u >>= 7 {
		size++
	}
	return size
}
