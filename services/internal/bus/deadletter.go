package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/event"
)

// schemaDead is the value of the header schema in the topic dlq.
const schemaDead = "stormbell.dlq.v1.DeadLetter"

const (
	maxReason = 2000
	// MaxDead is how large a dead letter may be: brokers take one megabyte.
	MaxDead = 900_000
	// left ends the reason where key, value and headers stay behind.
	left = " (too large to keep: read it at its offset)"
)

// DeadKey is the key of a dead letter: the same however often it is written.
func DeadKey(topic string, partition int, offset int64) string {
	return fmt.Sprintf("%s/%d/%d", topic, partition, offset)
}

// DeadLetter is what the topic dlq holds of a record that could not be
// processed: the record, whole, with the stage and the reason. It is a pure
// function of its arguments. Once it is acknowledged, and only then, the caller
// may pass over the record. Where it would be too large for a broker, key, value
// and headers stay behind, and the reason says so: a record must not hold up
// its partition by its size.
func DeadLetter(r *Record, stage, reason string, attempts int) (Message, error) {
	d := &dlqv1.DeadLetter{
		Topic: r.Topic, Partition: int32(r.Partition), Offset: r.Offset, Stage: stage,
		Reason:   strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "\uFFFD"),
		Attempts: uint32(max(attempts, 0)),
		Key:      r.Key, Value: r.Value, Tenant: strings.ToValidUTF8(string(r.Header(event.HeaderTenant)), "\uFFFD"),
	}
	if !r.Time.IsZero() {
		d.TimeMs = r.Time.UnixMilli()
	}
	m := Message{
		Key:     []byte(DeadKey(r.Topic, r.Partition, r.Offset)),
		Headers: []Header{{Key: event.HeaderSchema, Value: []byte(schemaDead)}},
	}
	if d.GetTenant() != "" {
		m.Headers = append(m.Headers, Header{Key: event.HeaderTenant, Value: []byte(d.GetTenant())})
	}
	for _, h := range r.Headers {
		d.Headers = append(d.Headers, &dlqv1.Header{Key: strings.ToValidUTF8(h.Key, "\uFFFD"), Value: h.Value})
		if h.Key == event.HeaderTraceparent || h.Key == event.HeaderTracestate {
			m.Headers = append(m.Headers, h)
		}
	}
	var err error
	if m.Value, err = marshalDead(d); err == nil && len(m.Value) > MaxDead {
		m.Value, err = marshalDead(lighten(d))
	}
	if err != nil {
		return Message{}, fmt.Errorf("dead letter of %s: %w", m.Key, err)
	}
	return m, nil
}

func marshalDead(d *dlqv1.DeadLetter) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(d)
}

// lighten leaves the record itself behind.
func lighten(d *dlqv1.DeadLetter) *dlqv1.DeadLetter {
	d.Key, d.Value, d.Headers = nil, nil, nil
	d.Reason += left
	return d
}

// ReadDeadLetter reads a record of the topic dlq. ok is false for what is no
// dead letter. whole is false where the record itself was left behind.
func ReadDeadLetter(r *Record) (d *dlqv1.DeadLetter, whole, ok bool) {
	d = new(dlqv1.DeadLetter)
	if string(r.Header(event.HeaderSchema)) != schemaDead || proto.Unmarshal(r.Value, d) != nil {
		return nil, false, false
	}
	return d, !strings.HasSuffix(d.GetReason(), left), true
}

// produceDead writes dead letters that a broker found too large together, one
// after the other, and without the record where one is too large alone.
func (c *Client) produceDead(ctx context.Context, partition int, msgs []Message) error {
	for _, m := range msgs {
		_, err := c.Produce(ctx, TopicDLQ, partition, []Message{m})
		d, whole, ok := ReadDeadLetter(&Record{Value: m.Value, Headers: m.Headers})
		if errors.Is(err, ErrTooLarge) && ok && whole {
			if m.Value, err = marshalDead(lighten(d)); err == nil {
				_, err = c.Produce(ctx, TopicDLQ, partition, []Message{m})
			}
		}
		if err != nil {
			return fmt.Errorf("dead letter of %s: %w", m.Key, err)
		}
	}
	return nil
}
