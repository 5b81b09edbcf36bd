package embedded

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// batchHeader is the fixed part of a record batch of format 2: offset, length,
// leader epoch, magic, CRC, attributes, last offset delta, two timestamps,
// producer id and epoch, sequence, count.
const (
	batchHeader  = 61
	lengthFixed  = 12 // offset and length are not part of the length
	crcFrom      = 21
	batchMagicAt = 16
)

// batchSpan decodes the frame of the batch at the start of raw: its offsets
// and size. ok is false where there is no whole, undamaged batch.
func batchSpan(raw []byte, table *crc32.Table) (first, next int64, size int, ok bool) {
	if len(raw) < batchHeader || raw[batchMagicAt] != 2 {
		return 0, 0, 0, false
	}
	first = int64(binary.BigEndian.Uint64(raw))
	length := int32(binary.BigEndian.Uint32(raw[8:]))
	delta := int32(binary.BigEndian.Uint32(raw[23:]))
	if first < 0 || delta < 0 || length < batchHeader-lengthFixed || int64(length) > int64(len(raw)-lengthFixed) {
		return 0, 0, 0, false
	}
	size = lengthFixed + int(length)
	if crc32.Checksum(raw[crcFrom:size], table) != binary.BigEndian.Uint32(raw[17:]) {
		return 0, 0, 0, false
	}
	return first, first + int64(delta) + 1, size, true
}

// summaryName is the engine's summary of a partition.
const summaryName = "snapshot.json"

// castagnoli returns the polynomial of the CRC in record batches.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// checkedSegment is what reading one segment shows.
type checkedSegment struct {
	next   int64 // offset after the last whole batch
	good   int64 // bytes up to there
	gap    bool  // offsets are missing between two batches
	beyond int64 // offset of a whole batch behind damage, or -1
}

// checkSegment reads raw, whose first record should have offset base.
func checkSegment(raw []byte, base int64, table *crc32.Table) checkedSegment {
	c := checkedSegment{next: base, beyond: -1}
	for int(c.good) < len(raw) {
		first, next, size, ok := batchSpan(raw[c.good:], table)
		if !ok || first < c.next {
			break
		}
		c.gap = c.gap || first > c.next
		c.next = next
		c.good += int64(size)
	}
	// What follows a torn write is garbage; a whole batch means that bytes
	// before it were damaged after they had been written.
	for at := int(c.good) + 1; at+batchHeader <= len(raw); at++ {
		if raw[at+batchMagicAt] != 2 {
			continue
		}
		if first, _, _, ok := batchSpan(raw[at:], table); ok && first >= c.next && first-c.next < math.MaxUint32 {
			c.beyond = first
			break
		}
	}
	return c
}

// verifier reads the whole log before the engine does, because the engine
// cuts at damage with no more than a warning.
type verifier struct {
	cfg   Config
	root  string
	log   *slog.Logger
	clock func() time.Time
	table *crc32.Table

	known       map[partition]int64 // ends that were durable
	damage      []error
	sound       []sound
	compacted   map[string]bool // topics whose offsets may have holes
	buffer      bytes.Buffer
	done, total int64
	began, told time.Time
}

// verify checks the log and, unless it is damaged, prepares the engine's
// start: a torn tail is cut, and each partition gets a summary that spares the
// engine from decoding every record into memory.
func (v *verifier) verify() error {
	parts, err := listLog(v.root)
	if err != nil {
		return fmt.Errorf("list log: %w", err)
	}
	if err := v.checkTopics(parts); err != nil {
		return err
	}
	for _, segments := range parts {
		v.total += totalSize(segments)
	}
	v.began = v.clock()
	for _, p := range sortedPartitions(parts) {
		if err := v.check(p, parts[p]); err != nil {
			return fmt.Errorf("check log of %s: %w", p, err)
		}
	}
	for p, end := range v.known {
		if _, ok := parts[p]; !ok && end > 0 {
			v.damaged("%s: its directory is missing, %d records were known", p, end)
		}
	}
	if len(v.damage) == 0 {
		return v.prepare()
	}
	err = errors.Join(v.damage...)
	if v.cfg.AllowCorrupt {
		v.log.Error("log is damaged, going on without the lost records", "error", err)
		return v.prepare()
	}
	return fmt.Errorf("the log in %s is damaged and stormbell does not start, so that nothing is lost silently: "+
		"restore the directory from a backup, or start once with --allow-corrupt to go on without the lost records:\n%w", v.cfg.Dir, err)
}

func (v *verifier) damaged(format string, args ...any) {
	v.damage = append(v.damage, fmt.Errorf(format, args...))
}

func sortedPartitions[V any](m map[partition]V) []partition {
	parts := make([]partition, 0, len(m))
	for p := range m {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, comparePartitions)
	return parts
}

// checkTopics holds the directories against the list of topics: without it
// the engine would begin an empty log and hide what is there.
func (v *verifier) checkTopics(parts map[partition][]segment) error {
	if len(parts) == 0 && len(v.known) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(v.root, "meta.json")); err != nil {
		return fmt.Errorf("log in %s has records but no readable meta.json: restore it from a backup: %w", v.cfg.Dir, err)
	}
	topics, err := knownTopics(v.root)
	if err != nil {
		return fmt.Errorf("log in %s has records but no readable list of topics: restore topics.json from a backup: %w", v.cfg.Dir, err)
	}
	v.compacted = make(map[string]bool)
	for name, topic := range topics {
		v.compacted[name] = topic.compacted()
	}
	for p, segments := range parts {
		if int(p.index) >= topics[p.topic].Partitions && totalSize(segments) > 0 {
			v.damaged("%s: has records but the list of topics does not know it", p)
		}
	}
	return nil
}

// sound is what of a partition is undamaged.
type sound struct {
	part     partition
	segments []segment
	good     []int64 // bytes to keep of each segment
	next     int64   // offset after the last record
}

// check reads one partition and notes its damage. It changes nothing.
func (v *verifier) check(p partition, segments []segment) error {
	found := sound{part: p, segments: segments}
	last := len(segments) - 1
	for last > 0 && segments[last].size == 0 {
		last-- // begun, but not written before the disk was full or the process killed
	}
	for i, seg := range segments {
		raw, err := v.read(seg.path)
		if err != nil {
			return err
		}
		c := checkSegment(raw, seg.base, v.table)
		found.good = append(found.good, c.good)
		if len(raw) == 0 && i >= last {
			continue
		}
		if !v.compacted[p.topic] && (c.gap || (i > 0 && seg.base != found.next)) {
			v.damaged("%s: records are missing in or before %s (the segment before ends at offset %d)", p, seg.path, found.next)
		}
		found.next = c.next
		// The end of a write that never finished is no damage.
		switch {
		case c.beyond >= 0:
			v.damaged("%s: damaged at byte %d of %s (offset %d), with whole records behind it from offset %d", p, c.good, seg.path, c.next, c.beyond)
		case i < last && c.good < int64(len(raw)):
			v.damaged("%s: damaged at byte %d of %s (offset %d)", p, c.good, seg.path, c.next)
		}
		v.progress(int64(len(raw)))
	}
	if known := v.known[p]; found.next < known {
		v.damaged("%s: ends at offset %d, but records up to %d were stored: %d are gone", p, found.next, known, known-found.next)
	}
	v.sound = append(v.sound, found)
	return nil
}

// read returns a file's content, valid until the next call.
func (v *verifier) read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	v.buffer.Reset()
	_, err = v.buffer.ReadFrom(f)
	return v.buffer.Bytes(), errors.Join(err, f.Close())
}

// prepare removes all that is not sound and writes the summaries.
func (v *verifier) prepare() error {
	for _, s := range v.sound {
		var kept []segment
		for i, seg := range s.segments {
			var err error
			switch good := s.good[i]; {
			case good == 0:
				err = os.Remove(seg.path)
			case good < seg.size:
				v.log.Warn("removing an unfinished or damaged part of the log", "partition", s.part.String(), "bytes", seg.size-good, "file", seg.path)
				err = os.Truncate(seg.path, good)
			}
			if err != nil {
				return fmt.Errorf("cut log of %s: %w", s.part, err)
			}
			if seg.size = s.good[i]; seg.size > 0 {
				kept = append(kept, seg)
			}
		}
		if v.compacted[s.part.topic] && slices.Contains(v.cfg.Keep, s.part.topic) {
			var err error
			if kept, err = v.compact(s.part, kept); err != nil {
				return err
			}
		}
		// Without a summary the engine reads more, so a full disk is no
		// reason not to start: that may be what makes room.
		dir := partitionDir(v.root, s.part)
		if err := v.summarise(dir, kept, s.next); err != nil {
			v.log.Warn("cannot write a summary, loading takes more memory", "partition", s.part.String(), "error", err)
			if err := os.Remove(filepath.Join(dir, summaryName)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove the outdated summary of %s: %w", s.part, err)
			}
		}
	}
	return nil
}

// summarise writes the file with which the engine starts without replaying.
func (v *verifier) summarise(dir string, segments []segment, next int64) error {
	type info struct {
		Base int64 `json:"base_offset"`
		Size int64 `json:"size"`
	}
	summary := struct {
		Version   int       `json:"version"`
		High      int64     `json:"high_watermark"`
		Stable    int64     `json:"last_stable_offset"`
		Start     int64     `json:"log_start_offset"`
		CreatedAt time.Time `json:"created_at"`
		Segments  []info    `json:"segments"`
	}{Version: 1, High: next, Stable: next, CreatedAt: v.began}
	if len(segments) == 0 {
		return nil
	}
	summary.Start = segments[0].base
	for _, s := range segments {
		summary.Segments = append(summary.Segments, info{s.base, s.size})
	}
	raw, err := json.Marshal(summary)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, summaryName), raw, 0o600)
}

// progress logs once a second when the check takes longer than that.
func (v *verifier) progress(n int64) {
	v.done += n
	now := v.clock()
	if last := max(v.began.UnixNano(), v.told.UnixNano()); now.UnixNano()-last < int64(time.Second) {
		return
	}
	v.told = now
	v.log.Info("checking the log", "done_bytes", v.done, "total_bytes", v.total, "elapsed", now.Sub(v.began).String())
}
