package embedded

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// partition names one partition of one topic.
type partition struct {
	topic string
	index int32
}

func comparePartitions(a, b partition) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.index, b.index))
}

func (p partition) String() string { return fmt.Sprintf("%s/%d", p.topic, p.index) }

// request is what the guard knows of a frame that it lets pass.
type request struct {
	key, version int16
	correlation  int32
	produced     []partition
	body         kmsg.Request
}

const (
	// headerBytes is the fixed part of every request header: key, version
	// and correlation id.
	headerBytes = 8
	// controlFrameBytes caps requests that carry no records. A decoded array
	// is some hundred times larger than its shortest encoding, so this also
	// bounds the memory that one request can claim.
	controlFrameBytes = 1 << 20
	// loginFrameBytes caps what a connection may send before it has
	// authenticated.
	loginFrameBytes = 4 << 10

	maxNewTopics     = 100
	maxNewPartitions = 1024
)

// protocol returns the newest version of each request that the broker speaks:
// the last ones without tagged fields. Decoding those takes time by the number
// of tags that a frame claims, up to half a minute for twenty bytes.
func protocol() *kversion.Versions { return kversion.V2_3_0() }

// served reports whether clients may send requests with this key. Left out is
// what would bypass our retention (DeleteRecords, DeleteTopics, changed
// settings), transactions, and the administration of users.
func served(key int16) bool {
	switch kmsg.Key(key) {
	case kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata,
		kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.FindCoordinator,
		kmsg.JoinGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.SyncGroup,
		kmsg.DescribeGroups, kmsg.ListGroups, kmsg.DeleteGroups,
		kmsg.SASLHandshake, kmsg.SASLAuthenticate, kmsg.ApiVersions,
		kmsg.CreateTopics, kmsg.DescribeConfigs,
		kmsg.OffsetForLeaderEpoch, kmsg.InitProducerID:
		return true
	}
	return false
}

// errFrame marks bytes that are not a request which this broker serves.
var errFrame = errors.New("not a request that this broker serves")

// errNewer marks a request for the versions we speak in a version that we do
// not. It is no offence, and has an answer of its own.
var errNewer = errors.New("newer request for the supported versions")

// inspect decodes one frame without its length and refuses all that the
// engine behind the guard might not survive. It never panics.
func inspect(frame []byte, versions *kversion.Versions) (req request, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: decoding failed: %v", errFrame, r)
		}
	}()
	if len(frame) < headerBytes {
		return req, fmt.Errorf("%w: %d bytes", errFrame, len(frame))
	}
	req.key = int16(binary.BigEndian.Uint16(frame))
	req.version = int16(binary.BigEndian.Uint16(frame[2:]))
	req.correlation = int32(binary.BigEndian.Uint32(frame[4:]))
	if !served(req.key) {
		return req, fmt.Errorf("%w: key %d", errFrame, req.key)
	}
	newest, ok := versions.LookupMaxKeyVersion(req.key)
	if ok && req.version > newest && kmsg.Key(req.key) == kmsg.ApiVersions {
		return req, errNewer
	}
	if !ok || req.version < 0 || req.version > newest {
		return req, fmt.Errorf("%w: key %d version %d", errFrame, req.key, req.version)
	}
	req.body = kmsg.RequestForKey(req.key)
	req.body.SetVersion(req.version)
	reader := kbin.Reader{Src: frame[headerBytes:]}
	reader.NullableString() // client id
	if err := reader.Complete(); err != nil {
		return req, fmt.Errorf("%w: header: %w", errFrame, err)
	}
	if err := req.body.ReadFrom(reader.Src); err != nil {
		return req, fmt.Errorf("%w: key %d version %d: %w", errFrame, req.key, req.version, err)
	}
	return req, req.check()
}

// check applies the limits that only the decoded request shows.
func (r *request) check() error {
	switch body := r.body.(type) {
	case *kmsg.ProduceRequest:
		if body.Acks == 0 {
			return fmt.Errorf("%w: produce without acknowledgement: use acks=all", errFrame)
		}
		if body.TransactionID != nil {
			return fmt.Errorf("%w: transactional produce", errFrame)
		}
		for _, topic := range body.Topics {
			for _, part := range topic.Partitions {
				r.produced = append(r.produced, partition{topic.Topic, part.Partition})
			}
		}
	case *kmsg.CreateTopicsRequest:
		if len(body.Topics) > maxNewTopics {
			return fmt.Errorf("%w: %d new topics, at most %d", errFrame, len(body.Topics), maxNewTopics)
		}
		for _, topic := range body.Topics {
			if topic.NumPartitions > maxNewPartitions || len(topic.ReplicaAssignment) > maxNewPartitions {
				return fmt.Errorf("%w: topic with %d partitions, at most %d", errFrame, topic.NumPartitions, maxNewPartitions)
			}
		}
	}
	return nil
}

// frameLimit returns the largest frame allowed for a request key.
func frameLimit(key int16, produceLimit int64) int64 {
	if kmsg.Key(key) == kmsg.Produce {
		return produceLimit
	}
	return min(controlFrameBytes, produceLimit)
}

// appendResponse appends resp as a complete frame.
func appendResponse(dst []byte, resp kmsg.Response, correlation int32) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlation))
	if resp.IsFlexible() && kmsg.Key(resp.Key()) != kmsg.ApiVersions {
		dst = append(dst, 0)
	}
	dst = resp.AppendTo(dst)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}
