package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var (
	errBodyTooLarge = errors.New("body too large")
	errBudget       = errors.New("too many bodies in memory")
	errEncoding     = errors.New("unknown content encoding")
	errCompressed   = errors.New("body does not decompress")
	errBodyRead     = errors.New("body ended early")
)

// growth is the step in which a large body's buffer grows and its memory is
// asked for; smaller ones double from firstStep.
const (
	growth    = 256 << 10
	firstStep = 16 << 10
)

// An intake reads bodies into memory: decompressed, bounded one by one and all
// together. Buffers are used again, so that a steady load allocates nothing.
type intake struct {
	maxBody int64
	budget  atomic.Int64 // bytes that bodies may still take
	share   int64        // of the budget that one tenant may have
	tenants sync.Map     // of *atomic.Int64: what each has taken

	buffers sync.Pool // of *bodyBuffer
	gzips   sync.Pool // of *gzip.Reader
	zstds   sync.Pool // of *zstd.Decoder
}

// A bodyBuffer holds one body. Release gives it back.
type bodyBuffer struct {
	in    *intake
	bytes []byte
	taken int64         // of the budget
	owner *atomic.Int64 // what the tenant has taken
}

func newIntake(maxBody, maxInflight int64) *intake {
	// One body that is compressed must fit with what it becomes.
	in := &intake{maxBody: maxBody, share: max(maxInflight/2, min(maxInflight, 2*maxBody+2*growth))}
	in.budget.Store(maxInflight)
	return in
}

// read returns the decoded body of a tenant's request. The caller releases the
// result.
func (in *intake) read(r *http.Request, tenant string) (*bodyBuffer, error) {
	buf := in.buffer(tenant)
	if err := in.fill(buf, r, tenant); err != nil {
		buf.release()
		return nil, err
	}
	return buf, nil
}

func (in *intake) buffer(tenant string) *bodyBuffer {
	buf, ok := in.buffers.Get().(*bodyBuffer)
	if !ok {
		buf = &bodyBuffer{in: in}
	}
	owner, ok := in.tenants.Load(tenant)
	if !ok {
		owner, _ = in.tenants.LoadOrStore(tenant, new(atomic.Int64))
	}
	buf.owner, _ = owner.(*atomic.Int64)
	return buf
}

func (in *intake) fill(buf *bodyBuffer, r *http.Request, tenant string) error {
	if r.ContentLength > in.maxBody {
		return errBodyTooLarge
	}
	// What does not compress is no larger when compressed, but for a margin.
	plain := &plainReader{r: r.Body, left: in.maxBody + growth}
	switch strings.ToLower(r.Header.Get("Content-Encoding")) {
	case "", "identity":
		return buf.fill(plain, r.ContentLength)
	case "gzip", "x-gzip":
		packed := in.buffer(tenant)
		defer packed.release()
		return in.gunzip(buf, packed, plain, r.ContentLength)
	case "zstd":
		return in.unzstd(buf, plain)
	default:
		return errEncoding
	}
}

// gunzip reads the compressed body whole first: the decompressor is faster on
// bytes than on a stream.
func (in *intake) gunzip(buf, packed *bodyBuffer, plain *plainReader, size int64) error {
	if err := packed.fill(plain, size); err != nil {
		return plain.blame(err)
	}
	from := bytes.NewReader(packed.bytes)
	z, _ := in.gzips.Get().(*gzip.Reader)
	var err error
	if z == nil {
		z, err = gzip.NewReader(from)
	} else {
		err = z.Reset(from)
	}
	if err == nil {
		err = buf.fill(z, -1)
	}
	if z != nil {
		in.gzips.Put(z)
	}
	return plain.blame(err)
}

// zstdWindow bounds the memory of one decoder. Encoders stay below it unless
// they are told to use long windows.
const zstdWindow = 8 << 20

func (in *intake) unzstd(buf *bodyBuffer, plain *plainReader) error {
	z, _ := in.zstds.Get().(*zstd.Decoder)
	var err error
	if z == nil {
		z, err = zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(uint64(in.maxBody)+growth))
	} else {
		err = z.Reset(plain)
	}
	if err == nil {
		err = buf.fill(z, -1)
	}
	if z != nil {
		if e := z.Reset(nil); e == nil {
			in.zstds.Put(z)
		}
	}
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return errBodyTooLarge // a window that we refuse is asked for by larger bodies only
	}
	return plain.blame(err)
}

// fill reads r to its end; size is how much is expected, or negative.
func (b *bodyBuffer) fill(r io.Reader, size int64) error {
	// A length that is only announced takes no more than the first step.
	if err := b.reserve(min(max(size, 0), firstStep-1) + 1); err != nil {
		return err
	}
	b.bytes = b.bytes[:0]
	for {
		if int64(len(b.bytes)) == b.taken {
			// Doubling keeps the copies few, the reserve keeps them counted.
			if err := b.reserve(2 * b.taken); err != nil {
				return err
			}
		}
		n, err := r.Read(b.bytes[len(b.bytes):b.taken])
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case int64(len(b.bytes)) > b.in.maxBody:
			return errBodyTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// reserve makes room for size bytes, at most one step more than a body may have.
func (b *bodyBuffer) reserve(size int64) error {
	size = min(size, b.in.maxBody+1)
	if size > growth {
		size = (size + growth - 1) / growth * growth
	} else {
		size = max(firstStep, int64(1)<<bits.Len64(uint64(size-1)))
	}
	if more := size - b.taken; more > 0 {
		// Half of it is left to others.
		if b.in.budget.Add(-more) < 0 || b.owner.Add(more) > b.in.share {
			b.in.budget.Add(more)
			b.owner.Add(-more)
			return errBudget
		}
		b.taken = size
	}
	if int64(cap(b.bytes)) < size {
		grown := make([]byte, len(b.bytes), size)
		copy(grown, b.bytes)
		b.bytes = grown
	}
	return nil
}

// keep bounds the buffers that wait for the next body.
const keepBuffer = 4 << 20

// release ends the use of the body; its bytes may be written over.
func (b *bodyBuffer) release() {
	b.giveBack()
	if cap(b.bytes) <= keepBuffer {
		b.bytes = b.bytes[:0]
		b.in.buffers.Put(b)
	}
}

// abandon ends the use of the body without using its bytes again: someone may
// still be reading them.
func (b *bodyBuffer) abandon() { b.giveBack() }

func (b *bodyBuffer) giveBack() {
	b.in.budget.Add(b.taken)
	b.owner.Add(-b.taken)
	b.taken = 0
}

// A plainReader reads the body as it arrives and remembers its own failure, to
// tell a cut connection from a body that is not what it says.
type plainReader struct {
	r    io.Reader
	left int64
	err  error
}

func (p *plainReader) Read(b []byte) (int, error) {
	if p.left <= 0 {
		p.err = errBodyTooLarge
		return 0, p.err
	}
	n, err := p.r.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			p.err = errBodyTooLarge
		} else {
			p.err = fmt.Errorf("%w: %w", errBodyRead, err)
		}
		return n, p.err
	}
	return n, err
}

// blame finds the reason for a decompressor's error.
func (p *plainReader) blame(err error) error {
	switch {
	case err == nil || errors.Is(err, errBodyTooLarge) || errors.Is(err, errBudget):
		return err
	case p.err != nil:
		return p.err
	default:
		return fmt.Errorf("%w: %w", errCompressed, err)
	}
}
