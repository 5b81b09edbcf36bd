package correlator

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
)

// memLog is a model of Kafka: a log is a slice, a group an offset.
type memLog struct {
	mu     sync.Mutex
	parts  map[string][][]bus.Record
	now    time.Time
	groups map[place]*committed
	// fetch is how many records a fetch returns.
	fetch int
	// produce decides what the next produce does.
	outcome outcome
	// died is called where a produce fails.
	died func()
	// onCommit sees every commit that the log takes.
	onCommit func(p place, offset int64)
}

type place struct {
	topic     string
	partition int
}

type committed struct {
	offset     int64
	metadata   string
	generation int
}

type outcome int

const (
	written       outcome = iota
	lost                  // nothing is written
	unknown               // all is written, and nobody learns of it
	half                  // some is written
	writtenOnce           // all is written, the first reply is lost, the next attempt is told
	commitLost            // the commit does not arrive
	commitUnknown         // it arrives, and nobody learns of it
)

var errOutcome = errors.New("outcome unknown")

func newMemLog(partitions int) *memLog {
	l := &memLog{parts: make(map[string][][]bus.Record), groups: make(map[place]*committed), fetch: 100, now: time.UnixMilli(1_800_000_000_000)}
	for _, topic := range []string{TopicEvents, TopicDetections, TopicAlerts, TopicDLQ, TopicState} {
		l.parts[topic] = make([][]bus.Record, partitions)
	}
	return l
}

func (l *memLog) append(topic string, partition int, msgs []bus.Message) {
	log := l.parts[topic][partition]
	for _, m := range msgs {
		log = append(log, bus.Record{Topic: topic, Partition: partition, Offset: int64(len(log)), Time: l.now, Key: m.Key, Value: m.Value, Headers: m.Headers})
	}
	l.parts[topic][partition] = log
}

func (l *memLog) Fetch(_ context.Context, topic string, partition int, offset int64) ([]bus.Record, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.parts[topic][partition]
	end := int64(len(log))
	if offset < 0 || offset > end {
		return nil, 0, &bus.OutOfRangeError{Topic: topic, Partition: partition, Offset: offset, End: end}
	}
	return log[offset:min(end, offset+int64(l.fetch))], end, nil
}

func (l *memLog) Offsets(_ context.Context, topic string, partition int) (first, end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return 0, int64(len(l.parts[topic][partition])), nil
}

func (l *memLog) OffsetAtTime(_ context.Context, topic string, partition int, t time.Time) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.parts[topic][partition] {
		if !r.Time.Before(t) {
			return r.Offset, nil
		}
	}
	return int64(len(l.parts[topic][partition])), nil
}

func (l *memLog) Partitions(_ context.Context, topic string) (int, error) {
	return len(l.parts[topic]), nil
}

func (l *memLog) Produce(_ context.Context, topic string, partition int, msgs []bus.Message) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	base := int64(len(l.parts[topic][partition]))
	return base, l.write(len(msgs), func(n int) { l.append(topic, partition, msgs[:n]) })
}

func (l *memLog) ProduceKeyed(_ context.Context, topic string, msgs []bus.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(len(msgs), func(n int) {
		for _, m := range msgs[:n] {
			l.append(topic, bus.Partition(m.Key, len(l.parts[topic])), []bus.Message{m})
		}
	})
}

func (l *memLog) write(n int, put func(n int)) error {
	was := l.outcome
	l.outcome = written
	switch was {
	case lost:
	case unknown, writtenOnce:
		put(n)
	case half:
		put(n / 2)
	default:
		l.outcome = was
		put(n)
		return nil
	}
	if was != writtenOnce {
		l.died()
	}
	return errOutcome
}

// claim makes the caller the owner of a partition in the eyes of the group.
func (l *memLog) claim(topic string, partition int) *claim {
	p := place{topic, partition}
	g := l.groups[p]
	if g == nil {
		g = &committed{offset: -1}
		l.groups[p] = g
	}
	g.generation++
	mine := g.generation
	return &claim{Partition: partition, Committed: g.offset, Metadata: g.metadata, Commit: func(_ context.Context, offset int64, metadata string) error {
		if g.generation != mine {
			return bus.ErrNotOwner
		}
		was := l.outcome
		if was == commitLost || was == commitUnknown {
			l.outcome = written
		}
		if was != commitLost {
			l.onCommit(p, offset)
			g.offset, g.metadata = offset, metadata
		}
		if was == commitLost || was == commitUnknown {
			return errOutcome
		}
		return nil
	}}
}

// all returns the records of a topic.
func (l *memLog) all(topic string) (out []bus.Record) {
	for _, p := range l.parts[topic] {
		out = append(out, p...)
	}
	return out
}
