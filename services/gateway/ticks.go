package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/event"
)

const (
	// silence is how long a partition may be without a record before it gets
	// a tick.
	silence = time.Second
	// tickInterval is how often silence is looked for.
	tickInterval = silence / 4
	tickBytes    = 64
)

// tick appends ticks to silent partitions each time due delivers, until ctx
// ends. A tick that is not acknowledged is no fault: the next one makes up for
// it.
func (s *Service) tick(ctx context.Context, due <-chan time.Time) {
	var (
		wg   sync.WaitGroup
		busy = make([]chan struct{}, len(s.partitions.load)) // one tick under way per partition
		fail = make([]bool, len(busy))                       // the last tick failed; guarded by busy
	)
	for i := range busy {
		busy[i] = make(chan struct{}, 1)
	}
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		}
		now := s.deps.Clock().UnixMilli()
		for p := range busy {
			if now-s.partitions.written[p].Load() < silence.Milliseconds() {
				continue
			}
			select {
			case busy[p] <- struct{}{}:
			default:
				continue
			}
			wg.Go(func() {
				defer func() { <-busy[p] }()
				s.tickOne(ctx, p, &fail[p])
			})
		}
	}
}

// tickOne reports the first failure of a row, and its end.
func (s *Service) tickOne(ctx context.Context, partition int, failing *bool) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ProduceTimeout)
	defer cancel()
	// Built and read by whoever calls build; read here only after success.
	var ingest int64
	err := s.deps.Producer.Submit(ctx, partition, tickBytes, func(dst []bus.Message) []bus.Message {
		ingest = s.deps.Clock().UnixMilli()
		return append(dst, bus.Message{Value: event.EncodeTick(nil, ingest), Headers: []bus.Header{{Key: event.HeaderSchema, Value: []byte(event.SchemaTick)}}})
	})
	if err != nil {
		if parent.Err() == nil && !*failing {
			*failing = true
			s.deps.Log.WarnContext(ctx, "ticks are not acknowledged: windows of silent partitions wait", "partition", partition, "error", err)
		}
		return
	}
	if *failing {
		*failing = false
		s.deps.Log.InfoContext(ctx, "ticks are acknowledged again", "partition", partition)
	}
	s.partitions.wrote(partition, ingest)
	s.metrics.ticks.Add(ctx, 1)
}
