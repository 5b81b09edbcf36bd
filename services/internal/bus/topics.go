package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// TopicSpec is how a topic has to be.
type TopicSpec struct {
	// Name without the prefix.
	Name       string
	Partitions int
	// Retention of a topic that is not compacted; 0 is for ever.
	Retention time.Duration
	Compacted bool
}

// TopicsConfig says how topics are made.
type TopicsConfig struct {
	// Partitions of events, detections, alerts and deliveries. It can't change
	// once the topics are there.
	Partitions int `yaml:"partitions" env:"PARTITIONS"`
	// ReplicationFactor of new topics; −1 is the broker's default.
	ReplicationFactor int `yaml:"replication_factor" env:"REPLICATION_FACTOR"`
	// MinInSyncReplicas of new topics; 0 is the broker's default.
	MinInSyncReplicas int `yaml:"min_in_sync_replicas" env:"MIN_IN_SYNC_REPLICAS"`
	// Retention of all topics that are not compacted.
	Retention time.Duration `yaml:"retention" env:"RETENTION"`
}

// DefaultTopicsConfig is for a cluster.
func DefaultTopicsConfig() TopicsConfig {
	return TopicsConfig{Partitions: 24, ReplicationFactor: -1, Retention: 7 * 24 * time.Hour}
}

// Validate names the first key that can't work, and why.
func (c *TopicsConfig) Validate() error {
	switch {
	case c.Partitions < 1 || c.Partitions > 1024:
		return fmt.Errorf("topics.partitions: %d must be from 1 to 1024", c.Partitions)
	case c.Retention < 76*time.Hour:
		return fmt.Errorf("topics.retention: %s is less than the 76h that retries of webhooks need", c.Retention)
	case c.ReplicationFactor == 0 || c.ReplicationFactor < -1:
		return fmt.Errorf("topics.replication_factor: %d must be positive, or -1 for the broker's default", c.ReplicationFactor)
	case c.MinInSyncReplicas < 0 || c.ReplicationFactor > 0 && c.MinInSyncReplicas > c.ReplicationFactor:
		return fmt.Errorf("topics.min_in_sync_replicas: %d must be from 0, the broker's default, to topics.replication_factor: else nothing can be written", c.MinInSyncReplicas)
	}
	return nil
}

// StatusRetention is how long reports are kept of which nothing but a display
// depends.
const StatusRetention = 24 * time.Hour

// Specs are all topics of Stormbell.
func (c *TopicsConfig) Specs() []TopicSpec {
	return []TopicSpec{
		{Name: TopicEvents, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicDetections, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicAlerts, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicDeliveries, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicDLQ, Partitions: 1, Retention: c.Retention},
		{Name: TopicStatus, Partitions: 1, Retention: StatusRetention},
		{Name: TopicControl, Partitions: 1, Compacted: true},
		{Name: TopicState, Partitions: c.Partitions, Compacted: true},
	}
}

// EnsureTopics creates the topics that are missing, waits until all can be
// written, and checks them. A count of partitions that differs is an error. What
// else differs is returned as sentences for the operator's eyes; nothing that
// exists is changed. It waits until ctx ends for brokers that do not answer.
func (c *Client) EnsureTopics(ctx context.Context, cfg TopicsConfig) (differs []string, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	brokers, err := c.createMissing(ctx, cfg)
	if err != nil {
		return nil, err
	}
	err = c.retry(ctx, "describe topics", func() (err error) {
		differs, err = c.checkTopics(ctx, cfg)
		return err
	})
	if err != nil {
		return nil, err
	}
	return append(differs, c.checkBroker(ctx, cfg, brokers)...), nil
}

// startupGrace is how long a cluster may say that it has too few brokers for
// the replicas asked for: they may still be starting.
const startupGrace = 30 * time.Second

// createMissing returns once all topics are there as they have to be, whoever
// created them, and knows the brokers then.
func (c *Client) createMissing(ctx context.Context, cfg TopicsConfig) ([]kafka.Broker, error) {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		missing, brokers, err := c.missing(ctx, cfg)
		if err == nil && len(missing) == 0 {
			return brokers, nil
		}
		if err == nil {
			err = c.createTopics(ctx, missing, cfg)
		}
		switch {
		case err == nil: // look again: another process may have been faster, with other settings
		case errors.Is(err, kafka.InvalidReplicationFactor) && time.Since(began) < startupGrace, temporary(err):
			c.complain(ctx, attempt, "create topics", err)
		default:
			return nil, err
		}
		if !pause(ctx, attempt) {
			return nil, fmt.Errorf("topics are not ready: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// missing returns the topics that are not there yet. It is an error if one has
// another count of partitions, or one without a leader, which passes.
func (c *Client) missing(ctx context.Context, cfg TopicsConfig) ([]TopicSpec, []kafka.Broker, error) {
	meta, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	found := map[string]kafka.Topic{}
	for _, t := range meta.Topics {
		found[t.Name] = t
	}
	var missing []TopicSpec
	for _, s := range cfg.Specs() {
		t, ok := found[c.full(s.Name)]
		if !ok || errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			missing = append(missing, s)
			continue
		}
		if t.Error != nil {
			return nil, nil, fmt.Errorf("topic %s: %w", c.full(s.Name), t.Error)
		}
		if n := len(t.Partitions); n != s.Partitions {
			return nil, nil, fmt.Errorf("topic %s has %d partitions, configured are %d: the count is fixed once the topic is there; set topics.partitions to %d, or move to new topics under another kafka.topic_prefix", c.full(s.Name), n, s.Partitions, n)
		}
		for _, p := range t.Partitions {
			if errors.Is(p.Error, kafka.LeaderNotAvailable) {
				return nil, nil, fmt.Errorf("topic %s, partition %d: %w", c.full(s.Name), p.ID, p.Error)
			}
		}
	}
	return missing, meta.Brokers, nil
}

func (c *Client) topicConfig(s TopicSpec, cfg TopicsConfig) kafka.TopicConfig {
	t := kafka.TopicConfig{Topic: c.full(s.Name), NumPartitions: s.Partitions, ReplicationFactor: cfg.ReplicationFactor}
	for _, w := range s.wanted(cfg) {
		if w.set {
			t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: w.key, ConfigValue: w.value})
		}
	}
	return t
}

// setting is how a topic should be configured. Those that are not set on
// creation are the broker's to decide, and only looked at.
type setting struct {
	key, value string
	set        bool
	why        string
}

func (s *TopicSpec) wanted(cfg TopicsConfig) []setting {
	list := []setting{
		// Write times by one clock: those of many senders differ, and replay
		// starts by write time.
		{"message.timestamp.type", "LogAppendTime", true, "replay looks records up by the time of their write"},
		{"unclean.leader.election.enable", "false", false, "acknowledged records can be lost"},
	}
	if cfg.MinInSyncReplicas > 0 {
		list = append(list, setting{"min.insync.replicas", strconv.Itoa(cfg.MinInSyncReplicas), true, "acknowledged records have fewer copies, or need more brokers"})
	}
	if s.Compacted {
		return append(list, setting{"cleanup.policy", "compact", true, "records that are still needed may be deleted"})
	}
	ms := int64(-1)
	if s.Retention > 0 {
		ms = s.Retention.Milliseconds()
	}
	return append(list,
		setting{"cleanup.policy", "delete", true, "records without a key can't be compacted, and others must not be"},
		setting{"retention.ms", strconv.FormatInt(ms, 10), true, "records are kept for another time"},
		setting{"retention.bytes", "-1", false, "records are deleted before their time"},
	)
}

func (c *Client) createTopics(ctx context.Context, specs []TopicSpec, cfg TopicsConfig) error {
	req := &kafka.CreateTopicsRequest{}
	for _, s := range specs {
		req.Topics = append(req.Topics, c.topicConfig(s, cfg))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.CreateTopics(ctx, req)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for name, err := range res.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	return nil
}

func (c *Client) checkTopics(ctx context.Context, cfg TopicsConfig) ([]string, error) {
	req := &kafka.DescribeConfigsRequest{}
	specs := cfg.Specs()
	for _, s := range specs {
		var keys []string
		for _, w := range s.wanted(cfg) {
			keys = append(keys, w.key)
		}
		req.Resources = append(req.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: c.full(s.Name), ConfigNames: keys,
		})
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.DescribeConfigs(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	found := map[string]map[string]string{}
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("describe topic %s: %w", r.ResourceName, r.Error)
		}
		found[r.ResourceName] = map[string]string{}
		for _, e := range r.ConfigEntries {
			found[r.ResourceName][e.ConfigName] = e.ConfigValue
		}
	}
	var differs []string
	for _, s := range specs {
		for _, w := range s.wanted(cfg) {
			if is, ok := found[c.full(s.Name)][w.key]; ok && is != w.value {
				differs = append(differs, fmt.Sprintf("topic %s has %s=%s, wanted is %s: %s; change it with kafka-configs, or the configuration here", c.full(s.Name), w.key, is, w.value, w.why))
			}
		}
	}
	return differs, nil
}

// checkBroker compares how long the broker remembers the offsets of a group
// that is away. It is silent where the broker does not tell.
func (c *Client) checkBroker(ctx context.Context, cfg TopicsConfig, brokers []kafka.Broker) []string {
	const key = "offsets.retention.minutes"
	if len(brokers) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeBroker, ResourceName: strconv.Itoa(brokers[0].ID), ConfigNames: []string{key},
	}}})
	if err != nil {
		return nil
	}
	for _, r := range res.Resources {
		for _, e := range r.ConfigEntries {
			minutes, err := strconv.Atoi(e.ConfigValue)
			if e.ConfigName == key && err == nil && time.Duration(minutes)*time.Minute < cfg.Retention {
				return []string{fmt.Sprintf("broker has %s=%d, less than the retention of %s: a consumer that is away for longer loses its place", key, minutes, cfg.Retention)}
			}
		}
	}
	return nil
}
