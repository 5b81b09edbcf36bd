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
	}
	return nil
}

// Specs are all topics of Stormbell.
func (c *TopicsConfig) Specs() []TopicSpec {
	return []TopicSpec{
		{Name: TopicEvents, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicDetections, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicAlerts, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicDeliveries, Partitions: c.Partitions, Retention: c.Retention},
		{Name: TopicDLQ, Partitions: 1, Retention: c.Retention},
		{Name: TopicControl, Partitions: 1, Compacted: true},
		{Name: TopicState, Partitions: c.Partitions, Compacted: true},
	}
}

// EnsureTopics creates the topics that are missing and checks those that are
// there. A count of partitions that differs is an error. What else differs is
// returned as sentences for the operator's eyes.
func (c *Client) EnsureTopics(ctx context.Context, cfg TopicsConfig) (differs []string, err error) {
	for attempt := 0; ; attempt++ {
		differs, err = c.ensureTopics(ctx, cfg)
		if err == nil || !temporary(err) || !pause(ctx, attempt) {
			return differs, err
		}
	}
}

func (c *Client) ensureTopics(ctx context.Context, cfg TopicsConfig) ([]string, error) {
	meta, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	found := map[string]int{}
	for _, t := range meta.Topics {
		if t.Error == nil {
			found[t.Name] = len(t.Partitions)
		}
	}
	var create []kafka.TopicConfig
	var present []TopicSpec
	for _, s := range cfg.Specs() {
		n, ok := found[c.full(s.Name)]
		if !ok {
			create = append(create, c.topicConfig(s, cfg))
			continue
		}
		if n != s.Partitions {
			return nil, fmt.Errorf("topic %s has %d partitions, configured are %d: the count is fixed once the topic is there; set topics.partitions to %d, or move to new topics under another kafka.topic_prefix", c.full(s.Name), n, s.Partitions, n)
		}
		present = append(present, s)
	}
	if err := c.createTopics(ctx, create); err != nil {
		return nil, err
	}
	differs, err := c.checkTopics(ctx, present)
	if err != nil {
		return nil, err
	}
	return append(differs, c.checkBroker(ctx, cfg, meta.Brokers)...), nil
}

func (c *Client) topicConfig(s TopicSpec, cfg TopicsConfig) kafka.TopicConfig {
	t := kafka.TopicConfig{Topic: c.full(s.Name), NumPartitions: s.Partitions, ReplicationFactor: cfg.ReplicationFactor}
	for k, v := range s.want() {
		t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
	}
	if cfg.MinInSyncReplicas > 0 {
		t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(cfg.MinInSyncReplicas)})
	}
	return t
}

func (s *TopicSpec) want() map[string]string {
	if s.Compacted {
		return map[string]string{"cleanup.policy": "compact"}
	}
	ms := int64(-1)
	if s.Retention > 0 {
		ms = s.Retention.Milliseconds()
	}
	return map[string]string{"cleanup.policy": "delete", "retention.ms": strconv.FormatInt(ms, 10)}
}

func (c *Client) createTopics(ctx context.Context, topics []kafka.TopicConfig) error {
	if len(topics) == 0 {
		return nil
	}
	res, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
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

func (c *Client) checkTopics(ctx context.Context, specs []TopicSpec) ([]string, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	req := &kafka.DescribeConfigsRequest{}
	for _, s := range specs {
		req.Resources = append(req.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: c.full(s.Name), ConfigNames: []string{"cleanup.policy", "retention.ms"},
		})
	}
	res, err := c.kafka.DescribeConfigs(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	var differs []string
	for _, s := range specs {
		want := s.want()
		for _, r := range res.Resources {
			if r.ResourceName != c.full(s.Name) {
				continue
			}
			for _, e := range r.ConfigEntries {
				if w, ok := want[e.ConfigName]; ok && w != e.ConfigValue {
					differs = append(differs, fmt.Sprintf("topic %s has %s=%s, wanted is %s: change it with kafka-configs, or the configuration here", c.full(s.Name), e.ConfigName, e.ConfigValue, w))
				}
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
