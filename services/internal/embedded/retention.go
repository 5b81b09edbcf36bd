package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Retention is ours because the engine's own forgets who still has to read:
// it goes by age and size alone, compacts by deleting before it writes, and
// lets the offsets of idle groups expire. All of that is switched off (see
// engineConfig), and whole segments are trimmed here, never the last one of a
// partition, so that no partition forgets its end.

// Status is what the last retention pass found.
type Status struct {
	LogBytes  int64 // on disk, with what was produced since the pass
	MaxBytes  int64
	FreeBytes int64 // of the file system; -1 where unknown
	Trimmed   int64 // bytes since Open
	Full      string
	Failed    error // final: the log must be opened anew

	Refused        int64 // connections closed by the guard
	SyncRounds     int64
	EngineWarnings int64
	EngineErrors   int64
}

// candidate is a segment that may be trimmed.
type candidate struct {
	part partition
	seg  segment
	next int64 // offset behind it
}

// Enforce makes one retention pass: it trims what may go and brings Full up to
// date. A pass is safe at any time and several do not overlap.
func (b *Broker) Enforce(ctx context.Context) error {
	b.pass.Lock()
	defer b.pass.Unlock()
	produced := b.produced.Load()
	l, err := b.record(ctx)
	if err != nil {
		// What an earlier pass recorded still holds and may free the disk.
		l = b.durable
		err = fmt.Errorf("record what is durable: %w", err)
	} else {
		b.durable = l
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, b.trim(ctx, l, produced))
}

func (b *Broker) trim(ctx context.Context, l ledger, produced int64) error {
	parts, err := listLog(b.root())
	if err != nil {
		return fmt.Errorf("list log: %w", err)
	}
	used, err := diskUsage(b.root())
	if err != nil {
		return fmt.Errorf("measure log: %w", err)
	}
	now := b.clock()
	want := b.excess(used)
	candidates, held := b.candidates(parts, l, now)
	var errs []error
	left := b.limited(parts)
	for _, c := range candidates { // oldest first
		if now.Sub(c.seg.written) < b.cfg.Retention && want <= 0 && !b.beyond(c, left[c.part], now) {
			continue
		}
		if err := b.admin.trim(ctx, c.part, c.next); err != nil {
			errs = append(errs, err)
			break
		}
		left[c.part] -= c.seg.size
		used -= c.seg.size
		want -= c.seg.size
		b.trimmed.Add(c.seg.size)
		b.log.Info("trimmed the log", "partition", c.part.String(), "before_offset", c.next, "bytes", c.seg.size, "written", c.seg.written)
	}
	return errors.Join(append(errs, b.judge(used, produced, held))...)
}

// limited returns the bytes of the partitions whose topics have a limit.
func (b *Broker) limited(parts map[partition][]segment) map[partition]int64 {
	sizes := make(map[partition]int64)
	for p, segments := range parts {
		if _, ok := b.cfg.Limits[p.topic]; ok {
			sizes[p] = totalSize(segments)
		}
	}
	return sizes
}

// beyond reports whether a segment is more than its topic's limit allows, of
// whose partition so many bytes are left.
func (b *Broker) beyond(c candidate, left int64, now time.Time) bool {
	limit, ok := b.cfg.Limits[c.part.topic]
	return ok && (now.Sub(c.seg.written) >= limit.Age || left > limit.Bytes)
}

// excess returns how many bytes to free. Trimming begins an eighth below the
// cap, so that a log which may be trimmed never comes to refuse events.
func (b *Broker) excess(used int64) int64 {
	want := used - b.cfg.LogMaxBytes*7/8
	if free, known, err := freeBytes(b.cfg.Dir); err == nil && known {
		want = max(want, 2*b.cfg.MinFreeBytes-free)
	}
	return want
}

// hold says what keeps a segment from being trimmed.
type hold struct {
	bytes int64
	why   string
}

// candidates returns the segments that may go, oldest first, and what holds
// most of the others.
func (b *Broker) candidates(parts map[partition][]segment, l ledger, now time.Time) ([]candidate, hold) {
	var (
		free  []candidate
		worst hold
	)
	floors := b.floors(parts, l)
	for _, p := range sortedPartitions(parts) {
		segments := parts[p]
		here := hold{}
		for i := range len(segments) - 1 {
			next := segments[i+1].base
			why := b.held(p, segments[i], next, floors[p], now)
			if why == "" && segments[len(segments)-1].size == 0 && i == len(segments)-2 {
				why = "it is the last of its partition"
			}
			if why != "" {
				here = hold{totalSize(segments[i:]), why}
				break
			}
			free = append(free, candidate{p, segments[i], next})
		}
		if here.why != "" && here.bytes > worst.bytes {
			worst = here
		}
	}
	slices.SortStableFunc(free, func(a, b candidate) int { return a.seg.written.Compare(b.seg.written) })
	return inOrder(free), worst
}

// inOrder drops candidates that would be trimmed before an older offset of
// their own partition: clocks may have gone back between two writes.
func inOrder(free []candidate) []candidate {
	reached := make(map[partition]int64)
	kept := free[:0]
	for _, c := range free {
		if c.seg.base >= reached[c.part] {
			reached[c.part] = c.next
			kept = append(kept, c)
		}
	}
	return kept
}

// floor is the least offset that must stay in a partition, and for whom.
type floor struct {
	offset int64
	why    string
}

// floors returns the committed offsets that hold the consumed topics.
func (b *Broker) floors(parts map[partition][]segment, l ledger) map[partition]floor {
	groups := make(map[string]map[string]bool) // by topic
	offsets := make(map[commit]int64)
	for _, c := range l.Commits {
		if groups[c.Topic] == nil {
			groups[c.Topic] = make(map[string]bool)
		}
		groups[c.Topic][c.Group] = true
		offsets[c.key()] = c.Offset
	}
	floors := make(map[partition]floor)
	for p := range parts {
		if !slices.Contains(b.cfg.Consumed, p.topic) {
			continue
		}
		least := floor{0, fmt.Sprintf("no consumer group has committed an offset in %s", p.topic)}
		first := true
		for group := range groups[p.topic] {
			// Without an offset here the group has read nothing here.
			offset := offsets[commit{Group: group, Topic: p.topic, Partition: p.index}]
			if first || offset < least.offset {
				least = floor{offset, fmt.Sprintf("group %s has read %s up to offset %d", group, p, offset)}
			}
			first = false
		}
		floors[p] = least
	}
	return floors
}

// held returns why seg must stay, or nothing.
func (b *Broker) held(p partition, seg segment, next int64, group floor, now time.Time) string {
	if slices.Contains(b.cfg.Keep, p.topic) {
		return p.topic + " is never trimmed, only compacted at a start"
	}
	if group.why != "" && next > group.offset {
		return group.why
	}
	if rebuild := b.floor.Load(); rebuild != nil {
		if offset := (*rebuild)(p.topic, int(p.index)); offset >= 0 {
			if next > offset {
				return fmt.Sprintf("a rebuild reads %s from offset %d", p, offset)
			}
			return ""
		}
	}
	if keep := b.cfg.Rebuild[p.topic]; now.Sub(seg.written) < keep {
		return fmt.Sprintf("a rebuild reads the last %s of %s", keep, p.topic)
	}
	return ""
}

// judge decides whether new events must be refused until the next pass.
func (b *Broker) judge(used, produced int64, held hold) error {
	free, known, err := freeBytes(b.cfg.Dir)
	if err != nil {
		err = fmt.Errorf("measure free space: %w", err)
	}
	if !known {
		free = -1
	}
	if b.writeFailed.Load() {
		if probe := b.probe(); probe == nil {
			b.writeFailed.Store(false)
			b.log.Info("the disk takes writes again")
		}
	}
	b.state.Lock()
	defer b.state.Unlock()
	b.used, b.free, b.measured, b.heldBy = used, free, produced, held.why
	reason := b.fullLocked()
	if reason != b.told {
		b.told = reason
		if reason != "" {
			b.log.Error("the log takes no new events", "reason", reason)
		} else {
			b.log.Info("the log takes new events again")
		}
	}
	return err
}

// fullLocked returns why new events must be refused, or nothing.
func (b *Broker) fullLocked() string {
	used := b.used + b.produced.Load() - b.measured
	switch {
	case b.sync.failure() != nil:
		return fmt.Sprintf("%v: check the disk and restart", b.sync.failure())
	case b.writeFailed.Load():
		return "the disk refused a write: free space on the file system of " + b.cfg.Dir
	case b.free >= 0 && b.free < b.cfg.MinFreeBytes:
		return fmt.Sprintf("%d bytes are free on the file system of %s, at least %d must be: free space", b.free, b.cfg.Dir, b.cfg.MinFreeBytes)
	case used >= b.cfg.LogMaxBytes && b.heldBy != "":
		return fmt.Sprintf("the log holds %d of at most %d bytes and the rest must stay: %s: let it catch up, or raise --log-max-bytes", used, b.cfg.LogMaxBytes, b.heldBy)
	case used >= b.cfg.LogMaxBytes:
		return fmt.Sprintf("the log holds %d of at most %d bytes and is about to be trimmed", used, b.cfg.LogMaxBytes)
	}
	return ""
}

// Full reports whether new events must be refused, and why: the log or the
// disk is full of records that must stay, or the disk failed. It is cheap
// enough to be asked before each request.
func (b *Broker) Full() (bool, string) {
	b.state.Lock()
	defer b.state.Unlock()
	reason := b.fullLocked()
	return reason != "", reason
}

// Status returns figures for metrics.
func (b *Broker) Status() Status {
	_, reason := b.Full()
	b.state.Lock()
	defer b.state.Unlock()
	return Status{
		LogBytes:       b.used + b.produced.Load() - b.measured,
		MaxBytes:       b.cfg.LogMaxBytes,
		FreeBytes:      b.free,
		Trimmed:        b.trimmed.Load(),
		Full:           reason,
		Failed:         b.sync.failure(),
		Refused:        b.guard.refused.Load(),
		SyncRounds:     b.sync.rounds.Load(),
		EngineWarnings: b.engine.warnings.Load(),
		EngineErrors:   b.engine.errors.Load(),
	}
}

// probe writes as much as a small batch needs, and takes it back.
func (b *Broker) probe() error {
	path := filepath.Join(b.cfg.Dir, "probe.tmp")
	err := os.WriteFile(path, make([]byte, minSegmentBytes), 0o600)
	if err == nil {
		err = syncDir(path)
	}
	return errors.Join(err, os.Remove(path))
}
