package kafka

import (
	"context"
	"fmt"

	kafkago "github.com/segmentio/kafka-go"
)

// SetTopic changes a setting of a topic: a max.message.bytes of 1 makes one that
// takes no record.
func (c *Cluster) SetTopic(ctx context.Context, topic, name, value string) error {
	client := &kafkago.Client{Addr: kafkago.TCP(c.Brokers()...), Timeout: probeLimit}
	resp, err := client.IncrementalAlterConfigs(ctx, &kafkago.IncrementalAlterConfigsRequest{
		Resources: []kafkago.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafkago.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafkago.ConfigOperationSet}},
		}},
	})
	if err != nil {
		return fmt.Errorf("set %s of topic %s: %w", name, topic, err)
	}
	for _, r := range resp.Resources {
		if r.Error != nil {
			return fmt.Errorf("set %s of topic %s: %w", name, topic, r.Error)
		}
	}
	return nil
}

// Committed adds up the offsets that a consumer group has committed for the
// first partitions of a topic.
func (c *Cluster) Committed(ctx context.Context, group, topic string, partitions int) (sum int64, err error) {
	client := &kafkago.Client{Addr: kafkago.TCP(c.Brokers()...), Timeout: probeLimit}
	var all []int
	for p := range partitions {
		all = append(all, p)
	}
	resp, err := client.OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: all}})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return 0, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return 0, fmt.Errorf("offset of group %s in %s/%d: %w", group, topic, p.Partition, p.Error)
		}
		sum += max(p.CommittedOffset, 0)
	}
	return sum, nil
}
