package up

import (
	"context"
	"strings"
	"sync/atomic"
	"time"
)

// floorFunc returns the first offset of a partition that a rebuild would read.
// It may block.
type floorFunc func(ctx context.Context, topic string, partition int) int64

// floors remembers what services have last said about what they still need.
type floors struct {
	prefix     string
	partitions int
	asked      map[string]floorFunc
	last       map[string][]atomic.Int64
}

func newFloors(prefix string, partitions int) *floors {
	return &floors{prefix: prefix, partitions: partitions, asked: make(map[string]floorFunc), last: make(map[string][]atomic.Int64)}
}

// ask makes service the one that knows about a topic. Before it has answered,
// all of the topic stays.
func (f *floors) ask(topic string, service floorFunc) {
	f.asked[topic] = service
	f.last[topic] = make([]atomic.Int64, f.partitions)
}

// known returns the last answer without waiting; −1 for topics that nobody
// knows about, for which the broker has rules of its own.
func (f *floors) known(topic string, partition int) int64 {
	last := f.last[strings.TrimPrefix(topic, f.prefix)]
	if partition < 0 || partition >= len(last) {
		return -1
	}
	return last[partition].Load()
}

func (f *floors) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		for topic, service := range f.asked {
			for p := range f.last[topic] {
				f.last[topic][p].Store(service(ctx, topic, p))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
