package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
)

const maxReason = 2000

// DeadLetter writes a record that could not be processed to the topic dlq,
// whole, with the stage and the reason, and returns once that is acknowledged:
// only then may the caller pass over the record. Where the broker takes no more
// bytes than the record already has, key, value and headers stay behind, and
// the reason says so: a record must not hold up its partition by its size.
func (c *Client) DeadLetter(ctx context.Context, r *Record, stage, reason string, attempts int) error {
	d := &dlqv1.DeadLetter{
		Topic: r.Topic, Partition: int32(r.Partition), Offset: r.Offset,
		Stage: stage, Reason: strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "\uFFFD"),
		Attempts: uint32(max(attempts, 0)),
		Key:      r.Key, Value: r.Value, TimeMs: time.Now().UnixMilli(),
		Tenant: strings.ToValidUTF8(string(r.Header("tenant")), "\uFFFD"),
	}
	for _, h := range r.Headers {
		d.Headers = append(d.Headers, &dlqv1.Header{Key: strings.ToValidUTF8(h.Key, "\uFFFD"), Value: h.Value})
	}
	err := c.bury(ctx, d)
	if errors.Is(err, ErrTooLarge) {
		d.Key, d.Value, d.Headers = nil, nil, nil
		d.Reason += " (too large to keep: read it at its offset)"
		err = c.bury(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("dead-letter %s/%d at %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return nil
}

func (c *Client) bury(ctx context.Context, d *dlqv1.DeadLetter) error {
	b, err := proto.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode dead letter: %w", err)
	}
	headers := []Header{{Key: "schema", Value: []byte("stormbell.dlq.v1.DeadLetter")}}
	_, err = c.Produce(ctx, TopicDLQ, 0, []Message{{Value: b, Headers: headers}})
	return err
}
