package correlator

import (
	"errors"
	"fmt"
	"time"

	"github.com/stormbell/stormbell/services/correlator/settings"
)

// Config says what a correlator does and how much it holds in memory.
type Config settings.Config

// Source says how late the events of a log source may arrive.
type Source = settings.Source

// DefaultConfig returns the settings of both stages in one process.
func DefaultConfig() Config { return Config(settings.Default()) }

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Stages != "detect" && c.Stages != "correlate" && c.Stages != "both":
		return fmt.Errorf("correlator: stages %q: use detect, correlate or both", c.Stages)
	case c.Slack <= 0:
		return fmt.Errorf("correlator: slack of %s: use more than 0", c.Slack)
	case c.Lateness < 0:
		return fmt.Errorf("correlator: lateness of %s: use 0 or more", c.Lateness)
	case c.Retention <= 0:
		return fmt.Errorf("correlator: retention of %s: use that of the topic detections", c.Retention)
	case c.Forward <= 0 || c.Commit <= 0:
		return errors.New("correlator: forward and commit: use more than 0")
	case c.BatchRecords < 1 || c.BatchRecords > maxBatchRecords:
		return fmt.Errorf("correlator: batch_records of %d: use 1 to %d", c.BatchRecords, maxBatchRecords)
	case c.BatchBytes < minBatchBytes || c.BatchBytes > maxBatchBytes:
		return fmt.Errorf("correlator: batch_bytes of %d: use %d to %d", c.BatchBytes, minBatchBytes, maxBatchBytes)
	case c.CacheBytes < 1<<20:
		return fmt.Errorf("correlator: cache_bytes of %d: use at least 1 MiB", c.CacheBytes)
	case c.OutboxEntries < 1:
		return fmt.Errorf("correlator: outbox_entries of %d: use 1 or more", c.OutboxEntries)
	case c.Groups < 1:
		return fmt.Errorf("correlator: groups of %d: use 1 or more", c.Groups)
	case c.SnapshotOver <= 0 || c.SnapshotEvery < time.Second:
		return errors.New("correlator: snapshot_over and snapshot_every: use more than 0 and at least 1s")
	case c.Attempts < 1:
		return fmt.Errorf("correlator: attempts of %d: use 1 or more", c.Attempts)
	case c.RuleSets < 1:
		return fmt.Errorf("correlator: rule_sets of %d: use 1 or more", c.RuleSets)
	}
	for _, s := range c.Sources {
		if s.Lateness < 0 {
			return fmt.Errorf("correlator: source %s/%s: lateness of %s: use 0 or more", s.Product, s.Service, s.Lateness)
		}
	}
	return nil
}

// Limits of one call of the store: at most 2,000 keys and about 1 MB.
const (
	maxBatchRecords = 1000
	minBatchBytes   = 64 << 10
	maxBatchBytes   = 1 << 20
)

func (c Config) detects() bool    { return c.Stages != "correlate" }
func (c Config) correlates() bool { return c.Stages != "detect" }
