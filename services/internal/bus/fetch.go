package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// OutOfRangeError says that an offset is not in the log: it was trimmed, or lies
// beyond the end. The bus never moves an offset by itself.
type OutOfRangeError struct {
	Topic     string
	Partition int
	Offset    int64
	// First is the first offset in the log, End the one behind the last.
	First, End int64
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("offset %d of %s/%d is not in the log, which holds %d to %d", e.Offset, e.Topic, e.Partition, e.First, e.End-1)
}

const (
	maxWait  = 250 * time.Millisecond
	maxFetch = 4 << 20
)

// Fetch reads records from an offset on, about 4 MiB at most, and waits up to
// 250 ms where there is none: then it returns none and no error. end is the
// offset behind the last record of the partition.
func (c *Client) Fetch(ctx context.Context, topic string, partition int, offset int64) (records []Record, end int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	res, err := c.kafka.Fetch(ctx, &kafka.FetchRequest{
		Topic: c.full(topic), Partition: partition, Offset: offset,
		MinBytes: 1, MaxBytes: maxFetch, MaxWait: maxWait,
	})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.OffsetOutOfRange) {
		first, end, oerr := c.Offsets(ctx, topic, partition)
		if oerr != nil {
			return nil, 0, oerr
		}
		return nil, 0, &OutOfRangeError{Topic: topic, Partition: partition, Offset: offset, First: first, End: end}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("fetch %s/%d at %d: %w", topic, partition, offset, err)
	}
	if res.LogStartOffset > offset {
		return nil, 0, &OutOfRangeError{Topic: topic, Partition: partition, Offset: offset, First: res.LogStartOffset, End: res.HighWatermark}
	}
	records, err = readAll(res.Records, topic, partition, offset)
	if err != nil {
		return nil, 0, fmt.Errorf("fetch %s/%d at %d: %w", topic, partition, offset, err)
	}
	return records, res.HighWatermark, nil
}

func readAll(r kafka.RecordReader, topic string, partition int, offset int64) ([]Record, error) {
	var out []Record
	for {
		k, err := r.ReadRecord()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			// The last batch of a response may be cut off; what came whole is good.
			if len(out) > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
				return out, nil
			}
			return nil, err
		}
		rec := Record{Topic: topic, Partition: partition, Offset: k.Offset, Time: k.Time}
		key, kerr := protocol.ReadAll(k.Key)
		value, verr := protocol.ReadAll(k.Value)
		if err := errors.Join(kerr, verr); err != nil {
			return nil, err
		}
		// A batch may begin before the offset that was asked for.
		if k.Offset < offset {
			continue
		}
		rec.Key, rec.Value = key, value
		if len(k.Headers) > 0 {
			rec.Headers = make([]Header, len(k.Headers))
			for i, h := range k.Headers {
				rec.Headers[i] = Header{Key: h.Key, Value: h.Value}
			}
		}
		out = append(out, rec)
	}
}

// Offsets returns the first offset of a partition and the one behind its last.
func (c *Client) Offsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	res, err := c.listOffsets(ctx, topic, kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition))
	if err != nil {
		return 0, 0, err
	}
	return res.FirstOffset, res.LastOffset, nil
}

// OffsetAtTime is the first offset with a write time of t or later; the end of
// the partition where there is none.
func (c *Client) OffsetAtTime(ctx context.Context, topic string, partition int, t time.Time) (int64, error) {
	_, end, err := c.Offsets(ctx, topic, partition)
	if err != nil {
		return 0, err
	}
	res, err := c.listOffsets(ctx, topic, kafka.TimeOffsetOf(partition, t))
	if err != nil {
		return 0, err
	}
	for o := range res.Offsets {
		if o >= 0 {
			return o, nil
		}
	}
	return end, nil
}

func (c *Client) listOffsets(ctx context.Context, topic string, reqs ...kafka.OffsetRequest) (kafka.PartitionOffsets, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProduceTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{c.full(topic): reqs}})
		if err == nil {
			for _, p := range res.Topics[c.full(topic)] {
				if p.Error != nil {
					err = p.Error
					break
				}
				return p, nil
			}
			if err == nil {
				err = kafka.UnknownTopicOrPartition
			}
		}
		if !temporary(err) || !pause(ctx, attempt) {
			return kafka.PartitionOffsets{}, fmt.Errorf("offsets of %s/%d: %w", topic, reqs[0].Partition, err)
		}
	}
}

// Read hands the records of a partition from an offset up to another to fn, in
// batches, and returns when it has seen all below to. Faults that may pass are
// waited out.
func (c *Client) Read(ctx context.Context, topic string, partition int, from, to int64, fn func([]Record) error) error {
	for attempt := 0; from < to; {
		records, end, err := c.Fetch(ctx, topic, partition, from)
		if err != nil {
			if temporary(err) && pause(ctx, attempt) {
				attempt++
				continue
			}
			return err
		}
		attempt = 0
		for i := range records {
			if records[i].Offset >= to {
				records = records[:i]
				from = to
				break
			}
		}
		if len(records) == 0 {
			if from < to && end >= to {
				return nil // what stood there is compacted away
			}
			continue
		}
		if err := fn(records); err != nil {
			return err
		}
		from = max(from, records[len(records)-1].Offset+1)
	}
	return nil
}

// Follow hands every record of a partition from an offset on to fn, in batches,
// until ctx ends or fn returns an error. Faults that may pass are waited out.
func (c *Client) Follow(ctx context.Context, topic string, partition int, from int64, fn func([]Record) error) error {
	for attempt := 0; ; {
		records, _, err := c.Fetch(ctx, topic, partition, from)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !temporary(err):
			return err
		case err != nil:
			pause(ctx, attempt)
			attempt++
			continue
		}
		attempt = 0
		if len(records) == 0 {
			continue
		}
		if err := fn(records); err != nil {
			return err
		}
		from = records[len(records)-1].Offset + 1
	}
}
