// Package settings holds the settings of the correlator, so that a program that
// reads them need not link the correlator. What they may be is checked there.
package settings

import "time"

// Config says what a correlator does and how much it holds in memory.
type Config struct {
	// Stages is detect, correlate or both.
	Stages string `yaml:"stages" env:"STAGES"`
	// Slack S is the difference of clocks and the delay of produces that the
	// watermark allows for. All correlators of a cluster must agree on it.
	Slack time.Duration `yaml:"slack" env:"SLACK"`
	// Lateness is L where no entry of Sources says more.
	Lateness time.Duration `yaml:"lateness" env:"LATENESS"`
	// Sources are those with a larger lateness.
	Sources []Source `yaml:"sources"`
	// Retention is how long `detections` is kept: no rule may look back further.
	Retention time.Duration `yaml:"retention" env:"RETENTION"`
	// Forward is the least time between two watermarks that detect forwards
	// from one partition.
	Forward time.Duration `yaml:"forward" env:"FORWARD"`
	// BatchRecords and BatchBytes bound what one call of the store carries.
	BatchRecords int `yaml:"batch_records" env:"BATCH_RECORDS"`
	BatchBytes   int `yaml:"batch_bytes" env:"BATCH_BYTES"`
	// CacheBytes bounds the groups that one partition keeps decoded.
	CacheBytes int64 `yaml:"cache_bytes" env:"CACHE_BYTES"`
	// OutboxEntries bounds what is folded and not yet acknowledged; the fold
	// of a partition rests while its outbox is longer.
	OutboxEntries int64 `yaml:"outbox_entries" env:"OUTBOX_ENTRIES"`
	// Groups is how many groups a correlation of a tenant may have; each
	// partition takes an equal share. New ones beyond it are refused, and an
	// alert says so.
	Groups int64 `yaml:"groups" env:"GROUPS"`
	// SnapshotOver is the longest memory of a rule whose groups a rebuild reads
	// from `detections`. Those of rules with a longer one go to the topic `state`
	// as well, each SnapshotEvery after a change or up to a quarter of that later.
	SnapshotOver  time.Duration `yaml:"snapshot_over" env:"SNAPSHOT_OVER"`
	SnapshotEvery time.Duration `yaml:"snapshot_every" env:"SNAPSHOT_EVERY"`
	// Commit is the time between two commits of a partition's frontier.
	Commit time.Duration `yaml:"commit" env:"COMMIT"`
	// Attempts is how often a record is tried before it goes to `dlq`.
	Attempts int `yaml:"attempts" env:"ATTEMPTS"`
	// RuleSets is how many pairs of manifests stay compiled.
	RuleSets int `yaml:"rule_sets" env:"RULE_SETS"`
	// GeoFile is a database of places in MaxMind's format (MMDB), by which
	// impossible_travel locates addresses; without one it goes by AWS region.
	GeoFile string `yaml:"geo_file" env:"GEO_FILE"`
	// BaseURL is the dashboard's, for links in alerts; empty means no links.
	BaseURL string `yaml:"base_url" env:"BASE_URL"`
}

// Source says how late the events of a log source may arrive.
type Source struct {
	Product  string `yaml:"product"`
	Service  string `yaml:"service"`
	Category string `yaml:"category"`
	// Lateness is L of the source.
	Lateness time.Duration `yaml:"lateness"`
}

// Default returns the settings of both stages in one process.
func Default() Config {
	return Config{
		Stages: "both", Slack: time.Minute, Lateness: 30 * time.Minute, Retention: 7 * 24 * time.Hour,
		Forward: time.Second, BatchRecords: 500, BatchBytes: 768 << 10, CacheBytes: 64 << 20,
		OutboxEntries: 100_000, Groups: 100_000, SnapshotOver: 24 * time.Hour, SnapshotEvery: time.Hour, Commit: 500 * time.Millisecond, Attempts: 3, RuleSets: 64,
	}
}
