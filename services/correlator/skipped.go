package correlator

import (
	"context"
	"errors"
	"fmt"

	dlqv1 "github.com/stormbell/stormbell/proto/stormbell/dlq/v1"
	"github.com/stormbell/stormbell/services/internal/bus"
)

// skipped returns the records of a partition of `detections`, from an offset
// on, that are in `dlq`. Whoever folds them again must skip them again, also
// where they would fold by now: what followed was folded without them. It reads
// `dlq` from the write time of the first of them to its present end.
func (c *correlator) skipped(ctx context.Context, partition int, from int64) (map[int64]bool, error) {
	records, _, err := c.reader.Fetch(ctx, TopicDetections, partition, from)
	if err != nil {
		return nil, fmt.Errorf("look for what was skipped: %w", err)
	}
	if len(records) == 0 {
		return nil, nil
	}
	// Clocks of writers differ.
	since := records[0].Time.Add(-c.cfg.Slack)
	n, err := c.producer.Partitions(ctx, TopicDLQ)
	if err != nil {
		return nil, fmt.Errorf("look for what was skipped: %w", err)
	}
	skipped := make(map[int64]bool)
	for p := range n {
		first, end, err := c.reader.Offsets(ctx, TopicDLQ, p)
		if err == nil && first < end {
			var at int64
			if at, err = c.reader.OffsetAtTime(ctx, TopicDLQ, p, since); err == nil {
				err = c.readDead(ctx, p, max(first, at), end, func(d *dlqv1.DeadLetter) {
					if d.GetTopic() == TopicDetections && d.GetStage() == stageCorrelate && int(d.GetPartition()) == partition && d.GetOffset() >= from {
						skipped[d.GetOffset()] = true
					}
				})
			}
		}
		if err != nil {
			return nil, fmt.Errorf("look for what was skipped: %w", err)
		}
	}
	return skipped, nil
}

// readDead reads a partition of `dlq` from an offset up to another.
func (c *correlator) readDead(ctx context.Context, partition int, at, end int64, see func(*dlqv1.DeadLetter)) error {
	for at < end {
		records, _, err := c.reader.Fetch(ctx, TopicDLQ, partition, at)
		if gap, ok := errors.AsType[*bus.OutOfRangeError](err); ok && gap.First > at {
			at = gap.First // removed while it was read
			continue
		}
		if err != nil {
			return err //nolint:wrapcheck // the caller says what for
		}
		for i := range records {
			at = records[i].Offset + 1
			if d, _, ok := bus.ReadDeadLetter(&records[i]); ok && at <= end {
				see(d)
			}
		}
	}
	return nil
}
