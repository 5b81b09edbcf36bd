package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// compaction removes records that a later one with the same key replaces. It
// runs before the engine starts, segment by segment, oldest first, each
// replaced in one step: the engine's own compaction deletes all segments
// before it writes the new ones, and a crash between the two loses the topic.
//
// The last segment is never changed. Records keep their offsets.
type compaction struct {
	table  *crc32.Table
	before time.Time        // tombstones older than this go as well
	latest map[string]int64 // offset of the last record of each key
}

// compact rewrites the segments of one partition and returns what is left.
func (v *verifier) compact(p partition, segments []segment) ([]segment, error) {
	if len(segments) < 2 {
		return segments, nil
	}
	c := compaction{table: v.table, before: v.clock().Add(-v.cfg.Retention), latest: make(map[string]int64)}
	for _, s := range segments {
		raw, err := v.read(s.path)
		if err != nil {
			return nil, err
		}
		c.note(raw)
	}
	var kept []segment
	var removed int64
	for i, s := range segments {
		if i < len(segments)-1 {
			raw, err := v.read(s.path)
			if err != nil {
				return nil, err
			}
			left, changed := c.filter(raw)
			if changed {
				if err := replaceSegment(s.path, left); err != nil {
					return nil, fmt.Errorf("compact %s: %w", p, err)
				}
				removed += s.size - int64(len(left))
				s.size = int64(len(left))
			}
		}
		if s.size > 0 {
			kept = append(kept, s)
		}
	}
	if removed > 0 {
		v.log.Info("compacted the log", "partition", p.String(), "removed_bytes", removed)
	}
	return kept, nil
}

// eachBatch calls do for every batch in a segment that has been checked.
func (c *compaction) eachBatch(raw []byte, do func(raw []byte, batch kmsg.RecordBatch, records []kmsg.Record)) {
	for len(raw) > 0 {
		_, _, size, ok := batchSpan(raw, c.table)
		if !ok {
			return
		}
		var batch kmsg.RecordBatch
		var records []kmsg.Record
		// What cannot be decoded stays as it is and replaces nothing.
		if err := batch.ReadFrom(raw[:size]); err == nil {
			records, _ = kfake.BatchRecords(batch)
		}
		do(raw[:size], batch, records)
		raw = raw[size:]
	}
}

func (c *compaction) note(raw []byte) {
	c.eachBatch(raw, func(_ []byte, batch kmsg.RecordBatch, records []kmsg.Record) {
		for _, r := range records {
			if r.Key != nil {
				c.latest[string(r.Key)] = batch.FirstOffset + int64(r.OffsetDelta)
			}
		}
	})
}

// filter returns the batches of a segment without the records that go.
func (c *compaction) filter(raw []byte) (left []byte, changed bool) {
	c.eachBatch(raw, func(raw []byte, batch kmsg.RecordBatch, records []kmsg.Record) {
		var kept []kmsg.Record
		for _, r := range records {
			if c.keeps(batch, r) {
				kept = append(kept, r)
			}
		}
		switch {
		case len(kept) == len(records):
			left = append(left, raw...)
			return
		case len(kept) > 0:
			left = c.appendBatch(left, batch, kept)
		}
		changed = true
	})
	return left, changed
}

func (c *compaction) keeps(batch kmsg.RecordBatch, r kmsg.Record) bool {
	if r.Key == nil {
		return true
	}
	if c.latest[string(r.Key)] > batch.FirstOffset+int64(r.OffsetDelta) {
		return false
	}
	written := time.UnixMilli(batch.FirstTimestamp + r.TimestampDelta64)
	return r.Value != nil || written.After(c.before)
}

// appendBatch encodes batch with only the kept records, uncompressed. It still
// spans the same offsets.
func (c *compaction) appendBatch(dst []byte, batch kmsg.RecordBatch, kept []kmsg.Record) []byte {
	const compression = 0x0007
	batch.Attributes &^= compression
	batch.NumRecords = int32(len(kept))
	batch.Records = nil
	for _, r := range kept {
		batch.Records = r.AppendTo(batch.Records)
	}
	start := len(dst)
	dst = batch.AppendTo(dst)
	raw := dst[start:]
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-lengthFixed))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[crcFrom:], c.table))
	return dst
}

// replaceSegment puts left in the place of a segment, or removes it.
func replaceSegment(path string, left []byte) error {
	if len(left) == 0 {
		return errors.Join(os.Remove(path), syncDir(filepath.Dir(path)))
	}
	return writeDurable(path, left)
}
