package embedded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// aged opens a broker whose clock is ahead of the files by age.
func aged(t *testing.T, cfg Config, age time.Duration) (*Broker, *testClock) {
	clock := &testClock{now: time.Now().Add(age)}
	return mustOpen(t, cfg, clock.Now), clock
}

func TestEnforceTrimsByAge(t *testing.T) {
	for name, tc := range map[string]struct {
		topic   string
		age     time.Duration
		commits map[string]int64
		floor   int64 // -2: none set
		trimmed bool
	}{
		"events read by all":                  {topic: events, age: 8 * day, commits: map[string]int64{"a": 300, "b": 300}, floor: -2, trimmed: true},
		"events read by one of two":           {topic: events, age: 8 * day, commits: map[string]int64{"a": 300, "b": 0}, floor: -2},
		"events read by nobody":               {topic: events, age: 8 * day, floor: -2},
		"events too young":                    {topic: events, age: 6 * day, commits: map[string]int64{"a": 300}, floor: -2},
		"events held by a rebuild":            {topic: events, age: 8 * day, commits: map[string]int64{"a": 300}, floor: 0},
		"events not held by the rebuild":      {topic: events, age: 8 * day, commits: map[string]int64{"a": 300}, floor: 300, trimmed: true},
		"events with a rebuild not known":     {topic: events, age: 8 * day, commits: map[string]int64{"a": 300}, floor: -1, trimmed: true},
		"deliveries have no groups":           {topic: "stormbell.deliveries", age: 8 * day, floor: -2, trimmed: true},
		"dead letters have no groups":         {topic: "stormbell.dlq", age: 8 * day, floor: -2, trimmed: true},
		"control never":                       {topic: control, age: 8 * day, commits: map[string]int64{"a": 300}, floor: 300},
		"control never, not after a decade":   {topic: control, age: 3650 * day, floor: 300},
		"state never":                         {topic: "stormbell.state", age: 8 * day, floor: 300},
		"state never, not after a decade off": {topic: "stormbell.state", age: 3650 * day, floor: -2},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := aged(t, testConfig(t.TempDir()), tc.age)
			c := client(t, b)
			createTopic(t, c, tc.topic, 1)
			fill(t, c, tc.topic, 0, 300, 1000)
			for group, offset := range tc.commits {
				setOffset(t, c, group, tc.topic, offset)
			}
			if tc.floor > -2 {
				b.SetFloor(func(string, int) int64 { return tc.floor })
			}
			require.NoError(t, b.Enforce(t.Context()))
			first, next := offsets(t, c, tc.topic, 0)
			require.Equal(t, int64(300), next)
			if tc.trimmed {
				require.Greater(t, first, int64(200), "all but the last segment")
				require.Less(t, first, int64(300), "never the last segment")
			} else {
				require.Zero(t, first)
			}
		})
	}
}

func TestEnforceKeepsWhatAGroupHasNotRead(t *testing.T) {
	b, _ := aged(t, testConfig(t.TempDir()), 8*day)
	c := client(t, b)
	createTopic(t, c, events, 2)
	fill(t, c, events, 0, 300, 1000)
	fill(t, c, events, 1, 300, 1000)
	setOffset(t, c, "a", events, 150)
	require.NoError(t, b.Enforce(t.Context()))
	first, _ := offsets(t, c, events, 0)
	require.Positive(t, first)
	require.LessOrEqual(t, first, int64(150))
	first, _ = offsets(t, c, events, 1)
	require.Zero(t, first, "the group has read nothing here")
}

// An emptied partition would begin again at offset 0 after a restart, below
// the groups' offsets, and what is written next would never be read.
func TestTrimmedPartitionKeepsItsEnd(t *testing.T) {
	cfg := testConfig(t.TempDir())
	b, _ := aged(t, cfg, 8*day)
	c := client(t, b)
	createTopic(t, c, events, 1)
	fill(t, c, events, 0, 300, 1000)
	setOffset(t, c, "a", events, 300)
	require.NoError(t, b.Enforce(t.Context()))
	trimmed, _ := offsets(t, c, events, 0)
	require.NoError(t, b.Close())

	b, _ = aged(t, cfg, 16*day)
	c = client(t, b)
	first, next := offsets(t, c, events, 0)
	require.Equal(t, trimmed, first)
	require.Equal(t, int64(300), next)
	require.NoError(t, b.Enforce(t.Context()))
	require.Equal(t, int64(300), mustProduce(t, c, events, 0, []byte("new")))
	require.Equal(t, []string{"new"}, readAll(t, c, events, 0, groupOffset(t, c, "a", 0)))
}

func TestOpenRefusesGroupBeyondTheEnd(t *testing.T) {
	cfg := testConfig(t.TempDir())
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	fill(t, c, events, 0, 10, 100)
	setOffset(t, c, "correlator", events, 10)
	require.NoError(t, b.Close())
	// What an emptied partition leaves behind, and no ledger that knows more.
	require.NoError(t, os.RemoveAll(partitionDir(b.root(), partition{events, 0})))
	require.NoError(t, os.Remove(filepath.Join(cfg.Dir, ledgerName)))

	_, err := Open(cfg, quiet(), time.Now)
	require.ErrorContains(t, err, "group correlator has read stormbell.events/0 up to offset 10, but it ends at 0")
	require.ErrorContains(t, err, "--allow-corrupt")
	_, err = Open(cfg, quiet(), time.Now)
	require.Error(t, err, "a refusal must not heal the log")

	cfg.AllowCorrupt = true
	b = mustOpen(t, cfg, time.Now)
	c = client(t, b)
	require.Zero(t, groupOffset(t, c, "correlator", 0))
}

// The engine would delete by age, and offsets by the age of their commit.
func TestRestartAfterEightDaysOff(t *testing.T) {
	cfg := testConfig(t.TempDir())
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, control, 1, kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"})
	createTopic(t, c, events, 1)
	old := time.Now().Add(-8 * day)
	_, err := c.Produce(t.Context(), &kafka.ProduceRequest{
		Topic: control, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes([]byte("v")), Time: old}),
	})
	require.NoError(t, err)
	fill(t, c, events, 0, 10, 100)
	setOffset(t, c, "correlator", events, 7)
	require.NoError(t, b.Close())
	age(t, b.root(), old)

	// Its timers are set to run at once and show what they would delete.
	b, err = open(cfg, quiet(), time.Now, map[string]string{"offsets.retention.check.interval.ms": "20"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	c = client(t, b)
	b.kafka.ApplyRetention()
	require.NoError(t, b.Enforce(t.Context()))
	looks := time.NewTicker(20 * time.Millisecond)
	defer looks.Stop()
	for range 10 {
		<-looks.C
		require.Equal(t, int64(7), groupOffset(t, c, "correlator", 0))
	}
	require.Equal(t, []string{"v"}, readAll(t, c, control, 0, 0))
	require.Len(t, readAll(t, c, events, 0, 7), 3)
}

// capped has a log that is full after about a megabyte.
func capped(t *testing.T) Config {
	cfg := testConfig(t.TempDir())
	cfg.LogMaxBytes = minLogBytes
	return cfg
}

func TestCapReachedByWhatMustStay(t *testing.T) {
	b := mustOpen(t, capped(t), time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	setOffset(t, c, "correlator", events, 0) // stopped before its first record
	full, reason := b.Full()
	require.False(t, full, reason)
	fill(t, c, events, 0, 110, 10_000)
	full, _ = b.Full()
	require.True(t, full, "noticed without a pass")

	require.NoError(t, b.Enforce(t.Context()))
	full, reason = b.Full()
	require.True(t, full)
	require.Contains(t, reason, "group correlator has read stormbell.events/0 up to offset 0")
	require.Contains(t, reason, "--log-max-bytes")
	first, next := offsets(t, c, events, 0)
	require.Zero(t, first, "nothing is deleted")
	require.Equal(t, int64(110), next)

	setOffset(t, c, "correlator", events, 110)
	require.NoError(t, b.Enforce(t.Context()))
	full, reason = b.Full()
	require.False(t, full, reason)
	first, next = offsets(t, c, events, 0)
	require.Positive(t, first)
	require.Equal(t, int64(110), next)
	require.Less(t, b.Status().LogBytes, int64(minLogBytes))
	require.Positive(t, b.Status().Trimmed)
}

func TestCapReachedByWhatARebuildReads(t *testing.T) {
	const topic = "stormbell.deliveries"
	b, clock := aged(t, capped(t), 0)
	c := client(t, b)
	createTopic(t, c, topic, 1)
	fill(t, c, topic, 0, 110, 10_000)
	require.NoError(t, b.Enforce(t.Context()))
	full, reason := b.Full()
	require.True(t, full)
	require.Contains(t, reason, "a rebuild reads the last 100h0m0s of stormbell.deliveries")
	clock.Advance(101 * time.Hour)
	require.NoError(t, b.Enforce(t.Context()))
	full, reason = b.Full()
	require.False(t, full, reason)
	first, _ := offsets(t, c, topic, 0)
	require.Positive(t, first)
	require.Less(t, first, int64(60), "no more than the cap asks for")
}

func TestCapTrimsOldestFirst(t *testing.T) {
	b := mustOpen(t, capped(t), time.Now)
	c := client(t, b)
	for _, topic := range []string{"stormbell.dlq", events, control} {
		createTopic(t, c, topic, 1)
	}
	fill(t, c, control, 0, 30, 10_000)
	fill(t, c, "stormbell.dlq", 0, 30, 10_000)
	fill(t, c, events, 0, 40, 10_000)
	setOffset(t, c, "correlator", events, 40)
	require.NoError(t, b.Enforce(t.Context()))
	for topic, trimmed := range map[string]bool{control: false, "stormbell.dlq": true, events: false} {
		first, _ := offsets(t, c, topic, 0)
		require.Equal(t, trimmed, first > 0, topic)
	}
}

func TestRunTrimsWhenMuchWasWritten(t *testing.T) {
	cfg := capped(t)
	cfg.Interval = time.Hour
	b := mustOpen(t, cfg, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	c := client(t, b)
	createTopic(t, c, "stormbell.dlq", 1)
	fill(t, c, "stormbell.dlq", 0, 400, 10_000)
	require.Eventually(t, func() bool { full, _ := b.Full(); return !full }, 5*time.Second, 10*time.Millisecond)
	first, _ := offsets(t, c, "stormbell.dlq", 0)
	require.Greater(t, first, int64(200))
	cancel()
	require.NoError(t, <-done)
}

func TestLimitsAreNarrower(t *testing.T) {
	for name, tc := range map[string]struct {
		limit   Limit
		age     time.Duration
		trimmed bool
	}{
		"young and small":   {Limit{day, 1 << 30}, time.Hour, false},
		"older than may be": {Limit{day, 1 << 30}, 25 * time.Hour, true},
		"more than may be":  {Limit{day, 150_000}, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			const topic = "stormbell.status"
			cfg := testConfig(t.TempDir())
			cfg.Limits = map[string]Limit{topic: tc.limit}
			b, _ := aged(t, cfg, tc.age)
			c := client(t, b)
			for _, topic := range []string{topic, "stormbell.dlq"} {
				createTopic(t, c, topic, 1)
				fill(t, c, topic, 0, 300, 1000)
			}
			require.NoError(t, b.Enforce(t.Context()))
			first, _ := offsets(t, c, topic, 0)
			require.Equal(t, tc.trimmed, first > 0)
			first, _ = offsets(t, c, "stormbell.dlq", 0)
			require.Zero(t, first, "others keep theirs")
		})
	}
}

// What only memory knew must not decide what is trimmed.
func TestTrimmingGoesByRecordedOffsets(t *testing.T) {
	b, _ := aged(t, testConfig(t.TempDir()), 8*day)
	c := client(t, b)
	createTopic(t, c, events, 1)
	fill(t, c, events, 0, 300, 1000)
	setOffset(t, c, "a", events, 0)
	require.NoError(t, b.Enforce(t.Context()))
	setOffset(t, c, "a", events, 300)
	// The ledger cannot be replaced: its name is taken by a directory.
	ledger := filepath.Join(b.cfg.Dir, ledgerName)
	require.NoError(t, os.Remove(ledger))
	require.NoError(t, os.MkdirAll(filepath.Join(ledger, "taken"), 0o700))
	require.ErrorContains(t, b.Enforce(t.Context()), "record what is durable")
	first, _ := offsets(t, c, events, 0)
	require.Zero(t, first)
	require.NoError(t, os.RemoveAll(ledger))
	require.NoError(t, b.Enforce(t.Context()))
	first, _ = offsets(t, c, events, 0)
	require.Positive(t, first)
}

func TestLostGroupOffsetIsPutBack(t *testing.T) {
	cfg := testConfig(t.TempDir())
	b := mustOpen(t, cfg, time.Now)
	c := client(t, b)
	createTopic(t, c, events, 1)
	fill(t, c, events, 0, 10, 100)
	setOffset(t, c, "a", events, 10)
	require.NoError(t, b.Close())
	require.NoError(t, os.Truncate(filepath.Join(b.root(), "groups.log"), 0))
	b = mustOpen(t, cfg, time.Now)
	require.Equal(t, int64(10), groupOffset(t, client(t, b), "a", 0))
}

func TestConfigValidate(t *testing.T) {
	require.NoError(t, DefaultConfig("x").Validate())
	for name, change := range map[string]func(*Config){
		"no directory":                   func(c *Config) { c.Dir = "" },
		"tiny cap":                       func(c *Config) { c.LogMaxBytes = 1 },
		"negative free space":            func(c *Config) { c.MinFreeBytes = -1 },
		"no interval":                    func(c *Config) { c.Interval = 0 },
		"tiny segments":                  func(c *Config) { c.SegmentBytes = 1 },
		"huge segments":                  func(c *Config) { c.SegmentBytes = 1 << 30 },
		"tiny requests":                  func(c *Config) { c.MaxFrameBytes = 1 },
		"huge requests":                  func(c *Config) { c.MaxFrameBytes = 1 << 40 },
		"no retention":                   func(c *Config) { c.Retention = 0 },
		"retention shorter than rebuild": func(c *Config) { c.Retention = day },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig("x")
			change(&cfg)
			require.ErrorContains(t, cfg.Validate(), "embedded broker: ")
		})
	}
}

// age sets the times of all files and of all commits in the engine's log of
// group offsets back to when.
func age(t *testing.T, root string, when time.Time) {
	t.Helper()
	parts, err := listLog(root)
	require.NoError(t, err)
	for _, segments := range parts {
		for _, s := range segments {
			require.NoError(t, os.Chtimes(s.path, when, when))
		}
	}
	path := filepath.Join(root, "groups.log")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	changed, n := backdateCommits(t, raw, when)
	require.Positive(t, n, "commits in %q", fmt.Sprintf("%.200q", raw))
	require.NoError(t, os.WriteFile(path, changed, 0o600))
}
