package embedded

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Config says where the log lives and how much of it is kept.
type Config struct {
	// Dir is the directory of the log. It is created with mode 0700 if it
	// does not exist, and locked while the broker is open.
	Dir string
	// LogMaxBytes caps the bytes on disk of all topics together. Reaching it
	// trims what may go; where nothing may go, Full reports it.
	LogMaxBytes int64
	// MinFreeBytes is the free space of the file system below which Full
	// reports that the disk is nearly full. Zero switches the check off.
	MinFreeBytes int64
	// Sync makes an acknowledgement wait until the record is on stable
	// storage. Without it a power cut may take acknowledged records; a crash
	// of the process never does.
	Sync bool
	// Auth makes every connection authenticate with the credential that Open
	// mints, so that other users of the machine can neither read nor write.
	Auth bool
	// AllowCorrupt opens a log with damaged or missing records, which are
	// then gone. Open without it refuses and names the damage.
	AllowCorrupt bool
	// Interval is the time between two retention passes of Run.
	Interval time.Duration
	// SegmentBytes is the size at which a new segment file is begun; trimming
	// removes whole segments. Zero derives it from LogMaxBytes.
	SegmentBytes int64
	// MaxFrameBytes caps one request. It bounds the largest produce.
	MaxFrameBytes int64

	// Retention is the age at which records of trimmable topics may go.
	Retention time.Duration
	// Keep names topics that are never trimmed.
	Keep []string
	// Consumed names topics that are trimmed only behind the committed
	// offset of every consumer group that reads them, and not at all before
	// the first group has committed.
	Consumed []string
	// Rebuild is, per topic, the age below which no record is trimmed even
	// where the cap is reached, because a rebuild reads it again. A floor set
	// with SetFloor takes its place partition by partition.
	Rebuild map[string]time.Duration
	// Limits are, per topic, bounds narrower than Retention and the cap.
	Limits map[string]Limit
}

// Limit bounds a topic of its own: what is older or beyond goes in any case.
type Limit struct {
	Age   time.Duration
	Bytes int64
}

// day is the length of a day without leap seconds.
const day = 24 * time.Hour

// DefaultConfig returns the settings of `stormbell up` for a log in dir.
func DefaultConfig(dir string) Config {
	// A webhook is retried for 75 hours, and 25 hours cover the longest
	// memory that is not snapshotted, with lateness and clock margins.
	const memory, retries = 25 * time.Hour, 75 * time.Hour
	return Config{
		Dir:           dir,
		LogMaxBytes:   1 << 30,
		MinFreeBytes:  64 << 20,
		Sync:          true,
		Auth:          true,
		Interval:      10 * time.Second,
		MaxFrameBytes: 16 << 20,
		Retention:     7 * day,
		Keep:          []string{"stormbell.control", "stormbell.state"},
		Consumed:      []string{"stormbell.events", "stormbell.detections", "stormbell.alerts"},
		Rebuild: map[string]time.Duration{
			"stormbell.detections": memory,
			"stormbell.alerts":     retries + memory,
			"stormbell.deliveries": retries + memory,
		},
		Limits: map[string]Limit{"stormbell.status": {Age: day, Bytes: 32 << 20}},
	}
}

const (
	minLogBytes     = 1 << 20
	minSegmentBytes = 64 << 10
	maxSegmentBytes = 64 << 20
	minFrameBytes   = 64 << 10
	maxFrameBytes   = 256 << 20
)

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("embedded broker: no directory: set --data")
	case c.LogMaxBytes < minLogBytes:
		return fmt.Errorf("embedded broker: log cap of %d bytes: use at least %d", c.LogMaxBytes, minLogBytes)
	case c.MinFreeBytes < 0:
		return fmt.Errorf("embedded broker: minimum free space of %d bytes: use 0 or more", c.MinFreeBytes)
	case c.Interval <= 0:
		return fmt.Errorf("embedded broker: retention interval of %s: use more than 0", c.Interval)
	case c.SegmentBytes != 0 && (c.SegmentBytes < minSegmentBytes || c.SegmentBytes > maxSegmentBytes):
		return fmt.Errorf("embedded broker: segments of %d bytes: use %d to %d, or 0 to derive it", c.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	case c.MaxFrameBytes < minFrameBytes || c.MaxFrameBytes > maxFrameBytes:
		return fmt.Errorf("embedded broker: request limit of %d bytes: use %d to %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes)
	case c.Retention <= 0:
		return fmt.Errorf("embedded broker: retention of %s: use more than 0", c.Retention)
	}
	for _, topic := range slices.Sorted(maps.Keys(c.Rebuild)) {
		if keep := c.Rebuild[topic]; keep > c.Retention {
			return fmt.Errorf("embedded broker: retention of %s is shorter than the %s that a rebuild of %s reads: raise it", c.Retention, keep, topic)
		}
	}
	return nil
}

// segmentBytes keeps the part of the log that trimming cannot reach, the last
// segment of each of some two dozen partitions, below a fifth of the cap.
func (c Config) segmentBytes() int64 {
	if c.SegmentBytes != 0 {
		return c.SegmentBytes
	}
	return min(max(c.LogMaxBytes/128, minSegmentBytes), maxSegmentBytes)
}
