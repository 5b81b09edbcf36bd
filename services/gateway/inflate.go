package gateway

import (
	"errors"
	"fmt"
	"io"
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

// growth is the step in which a body's buffer grows and its memory is asked for.
const growth = 256 << 10

// An intake reads bodies into memory: decompressed, bounded one by one and all
// together. Buffers are used again, so that a steady load allocates nothing.
type intake struct {
	maxBody int64
	budget  atomic.Int64 // bytes that bodies may still take

	buffers sync.Pool // of *bodyBuffer
	gzips   sync.Pool // of *gzip.Reader
	zstds   sync.Pool // of *zstd.Decoder
}

// A bodyBuffer holds one body. Release gives it back.
type bodyBuffer struct {
	in    *intake
	bytes []byte
	taken int64 // of the budget
}

func newIntake(maxBody, maxInflight int64) *intake {
	in := &intake{maxBody: maxBody}
	in.budget.Store(maxInflight)
	return in
}

// read returns the decoded body of a request. The caller releases the result.
func (in *intake) read(r *http.Request) (*bodyBuffer, error) {
	buf, _ := in.buffers.Get().(*bodyBuffer)
	if buf == nil {
		buf = &bodyBuffer{in: in}
	}
	if err := in.fill(buf, r); err != nil {
		buf.release()
		return nil, err
	}
	return buf, nil
}

func (in *intake) fill(buf *bodyBuffer, r *http.Request) error {
	if r.ContentLength > in.maxBody {
		return errBodyTooLarge
	}
	// What does not compress is no larger when compressed, but for a margin.
	plain := &plainReader{r: r.Body, left: in.maxBody + growth}
	switch strings.ToLower(r.Header.Get("Content-Encoding")) {
	case "", "identity":
		return buf.fill(plain, r.ContentLength)
	case "gzip", "x-gzip":
		return in.gunzip(buf, plain)
	case "zstd":
		return in.unzstd(buf, plain)
	default:
		return errEncoding
	}
}

func (in *intake) gunzip(buf *bodyBuffer, plain *plainReader) error {
	z, _ := in.gzips.Get().(*gzip.Reader)
	var err error
	if z == nil {
		z, err = gzip.NewReader(plain)
	} else {
		err = z.Reset(plain)
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
	if err := b.reserve(max(size, 0) + 1); err != nil {
		return err
	}
	b.bytes = b.bytes[:0]
	for {
		if len(b.bytes) == cap(b.bytes) {
			// Doubling keeps the copies few, the reserve keeps them counted.
			if err := b.reserve(int64(2 * cap(b.bytes))); err != nil {
				return err
			}
		}
		n, err := r.Read(b.bytes[len(b.bytes):cap(b.bytes)])
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
	size = (size + growth - 1) / growth * growth
	if size > b.taken {
		if b.in.budget.Add(b.taken-size) < 0 {
			b.in.budget.Add(size - b.taken)
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
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
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
