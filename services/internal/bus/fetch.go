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
	maxWait = 250 * time.Millisecond
	// maxFetch is in bytes as stored: compressed.
	maxFetch = 1 << 20
)

// Fetch reads records from an offset on, about 1 MiB of compressed batches at
// most, and waits up to 250 ms where there is none: then it returns none and no
// error. end is the offset behind the last record of the partition. An offset
// that the log does not hold is an *OutOfRangeError. In a compacted topic the
// first record may come later than asked for.
func (c *Client) Fetch(ctx context.Context, topic string, partition int, offset int64) (records []Record, end int64, err error) {
	return c.FetchAtMost(ctx, topic, partition, offset, maxFetch)
}

// FetchAtMost is Fetch with another bound on the bytes of compressed batches;
// one batch comes in any case. What comes is decompressed whole, so that who
// needs few records asks for few bytes.
func (c *Client) FetchAtMost(ctx context.Context, topic string, partition int, offset int64, bytes int) (records []Record, end int64, err error) {
	f, err := c.fetchAtMost(ctx, topic, partition, offset, bytes)
	return f.records, f.end, err
}

type fetched struct {
	records  []Record
	end      int64
	throttle time.Duration // for so long the broker tells us to wait
}

func (c *Client) fetch(ctx context.Context, topic string, partition int, offset int64) (fetched, error) {
	return c.fetchAtMost(ctx, topic, partition, offset, maxFetch)
}

func (c *Client) fetchAtMost(ctx context.Context, topic string, partition int, offset int64, bytes int) (fetched, error) {
	if err := ctx.Err(); err != nil {
		return fetched{}, err
	}
	if offset < 0 { // the library gives some of them a meaning
		return fetched{}, c.outOfRange(ctx, topic, partition, offset)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.Fetch(ctx, &kafka.FetchRequest{
		Topic: c.full(topic), Partition: partition, Offset: offset,
		MinBytes: 1, MaxBytes: int64(min(bytes, maxFetch)), MaxWait: maxWait,
	})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.OffsetOutOfRange) || (err == nil && res.LogStartOffset > offset) {
		return fetched{}, c.outOfRange(ctx, topic, partition, offset)
	}
	var records []Record
	if err == nil {
		records, err = readAll(res.Records, topic, partition, offset)
	}
	if err != nil {
		return fetched{}, fmt.Errorf("fetch %s/%d at %d: %w", topic, partition, offset, c.cause(ctx, err))
	}
	return fetched{records, res.HighWatermark, res.Throttle}, nil
}

// outOfRange is the OutOfRangeError, or why the range can't be told. A broker
// that says so while the log holds the offset has yet to catch up as its leader:
// that passes.
func (c *Client) outOfRange(ctx context.Context, topic string, partition int, offset int64) error {
	first, end, err := c.Offsets(ctx, topic, partition)
	if err != nil {
		return err
	}
	if first <= offset && offset <= end {
		return fmt.Errorf("fetch %s/%d at %d: %w", topic, partition, offset, kafka.OffsetNotAvailable)
	}
	return &OutOfRangeError{Topic: topic, Partition: partition, Offset: offset, First: first, End: end}
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
		if k.Offset < offset { // a batch may begin before the offset that was asked for
			release(k.Key, k.Value)
			continue
		}
		rec, err := convert(k)
		if err != nil {
			return nil, err
		}
		rec.Topic, rec.Partition = topic, partition
		out = append(out, rec)
	}
}

// convert copies a record out of the response's buffers and gives those back.
func convert(k *kafka.Record) (Record, error) {
	defer release(k.Key, k.Value)
	key, kerr := protocol.ReadAll(k.Key)
	value, verr := protocol.ReadAll(k.Value)
	if err := errors.Join(kerr, verr); err != nil {
		return Record{}, err
	}
	rec := Record{Offset: k.Offset, Time: k.Time, Key: key, Value: value}
	if len(k.Headers) > 0 {
		rec.Headers = make([]Header, len(k.Headers))
		for i, h := range k.Headers {
			rec.Headers[i] = Header{Key: h.Key, Value: h.Value}
		}
	}
	return rec, nil
}

func release(parts ...protocol.Bytes) {
	for _, p := range parts {
		if p != nil {
			_ = p.Close() // of memory: can't fail
		}
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

func (c *Client) listOffsets(ctx context.Context, topic string, reqs ...kafka.OffsetRequest) (offsets kafka.PartitionOffsets, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = c.retry(ctx, "list offsets of "+topic, func() (err error) {
		offsets, err = c.listOffsetsOnce(ctx, topic, reqs)
		return err
	})
	if err != nil {
		return kafka.PartitionOffsets{}, fmt.Errorf("offsets of %s/%d: %w", topic, reqs[0].Partition, err)
	}
	return offsets, nil
}

func (c *Client) listOffsetsOnce(ctx context.Context, topic string, reqs []kafka.OffsetRequest) (kafka.PartitionOffsets, error) {
	res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{c.full(topic): reqs}})
	if err != nil {
		return kafka.PartitionOffsets{}, err
	}
	for _, p := range res.Topics[c.full(topic)] {
		return p, p.Error
	}
	return kafka.PartitionOffsets{}, kafka.UnknownTopicOrPartition
}

const (
	// emptyLooks is how often a broker must say that there is nothing where its
	// end says there is something before that counts as compacted away: an end
	// may be younger than the records of its answer.
	emptyLooks = 3
	// patience is how many long polls Read waits for an end that the log should
	// have reached already: about 10 s, enough for a new leader to catch up.
	patience = 40
)

// Read hands the records of a partition from an offset up to another to fn, in
// batches, and returns when it has seen all below to. Faults that may pass are
// waited out. to must be no greater than an end that the broker has told: a log
// that does not reach it within about 10 s has lost its tail, an
// *OutOfRangeError.
func (c *Client) Read(ctx context.Context, topic string, partition int, from, to int64, fn func([]Record) error) error {
	attempt, empty := 0, 0
	for from < to {
		f, err := c.fetch(ctx, topic, partition, from)
		if err != nil {
			if ctx.Err() != nil || !temporary(err) {
				return err
			}
			c.complain(ctx, attempt, "read "+topic, err)
			pause(ctx, attempt)
			attempt++
			continue
		}
		attempt = 0
		records := below(f.records, to)
		switch {
		case len(records) > 0:
			if err := fn(records); err != nil {
				return err
			}
			from, empty = records[len(records)-1].Offset+1, 0
		case len(f.records) > 0:
			return nil // the next record stands behind to
		case f.throttle > 0:
			wait(ctx, min(f.throttle, time.Second))
		default:
			empty++
		}
		if f.end >= to && empty >= emptyLooks {
			return nil
		}
		if empty >= patience {
			return c.tailLost(ctx, topic, partition, to)
		}
	}
	return nil
}

func below(records []Record, to int64) []Record {
	n := len(records)
	for n > 0 && records[n-1].Offset >= to {
		n--
	}
	return records[:n]
}

func (c *Client) tailLost(ctx context.Context, topic string, partition int, to int64) error {
	first, end, err := c.Offsets(ctx, topic, partition)
	if err != nil {
		return err
	}
	return &OutOfRangeError{Topic: topic, Partition: partition, Offset: to - 1, First: first, End: end}
}

// Follow hands every record of a partition from an offset on to fn, in batches,
// until ctx ends, fn returns an error or the log does not hold the offset; it
// returns that error, never nil. Faults that may pass are waited out.
func (c *Client) Follow(ctx context.Context, topic string, partition int, from int64, fn func([]Record) error) error {
	for attempt := 0; ; {
		f, err := c.fetch(ctx, topic, partition, from)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !temporary(err):
			return err
		case err != nil:
			c.complain(ctx, attempt, "follow "+topic, err)
			pause(ctx, attempt)
			attempt++
			continue
		}
		attempt = 0
		if len(f.records) == 0 {
			wait(ctx, min(f.throttle, time.Second))
			continue
		}
		if err := fn(f.records); err != nil {
			return err
		}
		from = f.records[len(f.records)-1].Offset + 1
	}
}
