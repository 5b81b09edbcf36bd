package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

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

// AwaitInSync returns when every partition of every topic has all of its copies
// in sync.
func (c *Cluster) AwaitInSync(ctx context.Context) error {
	client := &kafkago.Client{Addr: kafkago.TCP(c.Brokers()...), Timeout: probeLimit}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		behind, err := outOfSync(ctx, client)
		if err == nil && behind == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until copies are in sync, %s is not: %w", behind, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// outOfSync names a partition that lacks a copy, empty where none does.
func outOfSync(ctx context.Context, client *kafkago.Client) (string, error) {
	resp, err := client.Metadata(ctx, &kafkago.MetadataRequest{})
	if err != nil {
		return "", fmt.Errorf("metadata: %w", err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.Error != nil || len(p.Isr) < len(p.Replicas) || p.Leader.ID < 0 {
				return fmt.Sprintf("%s/%d", t.Name, p.ID), nil
			}
		}
	}
	return "", nil
}

// Records counts the records that a topic holds, and the bytes that they take
// on the disk of node i.
func (c *Cluster) Records(ctx context.Context, i int, topic string, partitions int) (records, size int64, err error) {
	client := &kafkago.Client{Addr: kafkago.TCP(c.Brokers()...), Timeout: probeLimit}
	var ask []kafkago.OffsetRequest
	for p := range partitions {
		ask = append(ask, kafkago.FirstOffsetOf(p), kafkago.LastOffsetOf(p))
		logs, err := filepath.Glob(filepath.Join(c.nodes[i].data, fmt.Sprintf("%s-%d", topic, p), "*.log"))
		if err != nil {
			return 0, 0, fmt.Errorf("look for the log of %s/%d: %w", topic, p, err)
		}
		for _, path := range logs {
			info, err := os.Stat(path)
			if err != nil {
				return 0, 0, fmt.Errorf("look at the log of %s/%d: %w", topic, p, err)
			}
			size += info.Size()
		}
	}
	resp, err := client.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: ask}})
	if err != nil {
		return 0, 0, fmt.Errorf("offsets of %s: %w", topic, err)
	}
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return 0, 0, fmt.Errorf("offsets of %s/%d: %w", topic, p.Partition, p.Error)
		}
		records += p.LastOffset - p.FirstOffset
	}
	return records, size, nil
}
