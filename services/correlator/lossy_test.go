package correlator

import (
	"bytes"
	"context"
	"errors"

	"github.com/stormbell/stormbell/services/internal/state"
)

// lossy is a store in memory that may lose its tail, everything, or a reply.
type lossy struct {
	*state.Memory
	history []func(*state.Memory)
	dropped int // groups
	// Of the next commit.
	dropReply, fail bool
}

var errReply = errors.New("no reply")

func newLossy() *lossy { return &lossy{Memory: state.NewMemory()} }

func (s *lossy) did(f func(*state.Memory)) { s.history = append(s.history, f) }

func (s *lossy) Acquire(ctx context.Context, partition int32, token string) (state.Partition, error) {
	s.did(func(m *state.Memory) { _, _ = m.Acquire(context.WithoutCancel(ctx), partition, token) })
	return s.Memory.Acquire(ctx, partition, token)
}

func (s *lossy) Commit(ctx context.Context, partition int32, b *state.Batch) error {
	if s.fail {
		s.fail = false
		return errReply
	}
	c := cloneBatch(b)
	err := s.Memory.Commit(ctx, partition, b)
	if err == nil {
		for _, change := range b.Changes {
			if change.Drop {
				s.dropped++
			}
		}
		s.did(func(m *state.Memory) { _ = m.Commit(context.WithoutCancel(ctx), partition, c) })
		if s.dropReply {
			s.dropReply = false
			return errReply
		}
	}
	return err
}

func (s *lossy) Trim(ctx context.Context, partition int32, token string, upTo int64) error {
	s.did(func(m *state.Memory) { _ = m.Trim(context.WithoutCancel(ctx), partition, token, upTo) })
	return s.Memory.Trim(ctx, partition, token, upTo)
}

// rollback loses all but the first n calls.
func (s *lossy) rollback(n int) {
	s.Memory = state.NewMemory()
	s.history = s.history[:n]
	for _, f := range s.history {
		f(s.Memory)
	}
}

func cloneBatch(b *state.Batch) *state.Batch {
	c := *b
	c.Meta = bytes.Clone(b.Meta)
	c.Changes = nil
	for _, change := range b.Changes {
		fields := change.Fields
		change.Fields = nil
		for _, f := range fields {
			change.Fields = append(change.Fields, state.Field{Name: f.Name, Value: bytes.Clone(f.Value)})
		}
		c.Changes = append(c.Changes, change)
	}
	c.Outbox = nil
	for _, e := range b.Outbox {
		e.Body = bytes.Clone(e.Body)
		c.Outbox = append(c.Outbox, e)
	}
	return &c
}
