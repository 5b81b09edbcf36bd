package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// retry calls do until it succeeds, fails for good, or ctx ends, and returns
// what do returned last. It says in the log what is being waited for.
func (c *Client) retry(ctx context.Context, what string, do func() error) error {
	for attempt := 0; ; attempt++ {
		err := do()
		if err == nil {
			return nil
		}
		err = c.cause(ctx, err)
		if !temporary(err) || ctx.Err() != nil {
			return err
		}
		c.complain(ctx, attempt, what, err)
		if !pause(ctx, attempt) {
			return err
		}
	}
}

// complain logs the 8th, 16th, 32nd … failure in a row: about a second after
// the first, then less and less often. A fault that passes is not worth a line.
func (c *Client) complain(ctx context.Context, attempt int, what string, err error) {
	if attempt >= 8 && bits.OnesCount(uint(attempt)) == 1 {
		c.log.WarnContext(ctx, "kafka request failed, trying again", "request", what, "attempts", attempt, "error", err)
	}
}

// cause finds out why the cluster's layout is not known: the transport says
// only that it has no such topic, also where it could not reach any broker or
// was not let in.
func (c *Client) cause(ctx context.Context, err error) error {
	if !errors.Is(err, protocol.ErrNoTopic) {
		return err
	}
	_, merr := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}})
	switch {
	case merr == nil || ctx.Err() != nil:
		return err
	case errors.Is(merr, io.EOF), errors.Is(merr, io.ErrUnexpectedEOF):
		return fmt.Errorf("the broker hung up at once: check kafka.tls, and kafka.sasl with its password: %w", merr)
	}
	return merr
}

// temporary reports whether an error may pass by itself. A topic or leader that
// is not known yet is one: metadata takes a moment to spread.
func temporary(err error) bool {
	if k, ok := errors.AsType[kafka.Error](err); ok {
		return k.Temporary() || k == kafka.BrokerNotAvailable || k == kafka.ReplicaNotAvailable
	}
	if _, ok := errors.AsType[protocol.Error](err); ok {
		return !errors.Is(err, protocol.ErrNoRecord)
	}
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.DeadlineExceeded)
}

// pause waits, longer each time up to a second, and reports false once ctx is
// done.
func pause(ctx context.Context, attempt int) bool {
	return wait(ctx, min(time.Second, 10*time.Millisecond<<min(attempt, 7)))
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
