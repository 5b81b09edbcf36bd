package embedded

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// adminTimeout bounds one request to the engine, which answers from memory.
const adminTimeout = 30 * time.Second

// admin asks the engine over an in-process connection, past the guard.
type admin struct {
	dial     func() (net.Conn, error)
	versions *kversion.Versions

	mu          sync.Mutex // one request at a time
	conn        net.Conn
	correlation int32
}

// commit is a consumer group's offset in one partition.
type commit struct {
	Group     string  `json:"group"`
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Metadata  *string `json:"metadata,omitempty"`
}

func (c commit) key() commit { return commit{Group: c.Group, Topic: c.Topic, Partition: c.Partition} }

func (a *admin) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil {
		return nil
	}
	err := a.conn.Close()
	a.conn = nil
	return err
}

// ask sends req in the newest version that the engine speaks.
func ask[R kmsg.Response](ctx context.Context, a *admin, req kmsg.Request) (resp R, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	version, ok := a.versions.LookupMaxKeyVersion(req.Key())
	if !ok {
		return resp, fmt.Errorf("the broker's engine does not know %s", kmsg.NameForKey(req.Key()))
	}
	req.SetVersion(min(version, req.MaxVersion()))
	if a.conn == nil {
		if a.conn, err = a.dial(); err != nil {
			return resp, err
		}
	}
	out, err := a.roundTrip(ctx, req)
	if err != nil {
		err = errors.Join(fmt.Errorf("ask the broker's engine for %s: %w", kmsg.NameForKey(req.Key()), err), a.conn.Close())
		a.conn = nil
		return resp, err
	}
	return out.(R), nil
}

func (a *admin) roundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	deadline := time.Now().Add(adminTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := a.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	a.correlation++
	var formatter kmsg.RequestFormatter
	if _, err := a.conn.Write(formatter.AppendRequest(nil, req, a.correlation)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(a.conn, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(a.conn, frame); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	reader := kbin.Reader{Src: frame}
	reader.Int32() // correlation id: one request at a time
	if resp.IsFlexible() {
		kmsg.SkipTags(&reader)
	}
	return resp, resp.ReadFrom(reader.Src)
}

// ends returns the offset after the last record of each partition.
func (a *admin) ends(ctx context.Context, topics map[string]topicInfo) (map[partition]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for name, info := range topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = name
		for i := range info.Partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = int32(i), -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := ask[*kmsg.ListOffsetsResponse](ctx, a, req)
	if err != nil {
		return nil, err
	}
	ends := make(map[partition]int64)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("end of %s/%d: %w", t.Topic, p.Partition, err)
			}
			ends[partition{t.Topic, p.Partition}] = p.Offset
		}
	}
	return ends, nil
}

// commits returns all offsets of all consumer groups.
func (a *admin) commits(ctx context.Context) ([]commit, error) {
	groups, err := ask[*kmsg.ListGroupsResponse](ctx, a, kmsg.NewPtrListGroupsRequest())
	if err != nil {
		return nil, err
	}
	var all []commit
	for _, g := range groups.Groups {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group, req.Topics = g.Group, nil // of all topics
		resp, err := ask[*kmsg.OffsetFetchResponse](ctx, a, req)
		if err != nil {
			return nil, err
		}
		if resp.ErrorCode == kerr.GroupIDNotFound.Code {
			continue // gone meanwhile
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, fmt.Errorf("offsets of group %s: %w", g.Group, err)
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("offset of group %s in %s/%d: %w", g.Group, t.Topic, p.Partition, err)
				}
				if p.Offset >= 0 {
					all = append(all, commit{g.Group, t.Topic, p.Partition, p.Offset, p.Metadata})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b commit) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all, nil
}

// setCommit stores an offset for a group without members.
func (a *admin) setCommit(ctx context.Context, c commit) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = c.Group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = c.Topic
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.Metadata = c.Partition, c.Offset, c.Metadata
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.OffsetCommitResponse](ctx, a, req)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("set offset of group %s in %s/%d: %w", c.Group, c.Topic, c.Partition, err)
			}
		}
	}
	return nil
}

// trim deletes the records of p before offset.
func (a *admin) trim(ctx context.Context, p partition, offset int64) error {
	req := kmsg.NewPtrDeleteRecordsRequest()
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = p.topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = p.index, offset
	t.Partitions = append(t.Partitions, rp)
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.DeleteRecordsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("trim %s/%d to %d: %w", t.Topic, p.Partition, offset, err)
			}
		}
	}
	return nil
}
