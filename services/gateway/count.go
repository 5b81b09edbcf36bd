package gateway

import (
	"github.com/stormbell/stormbell/services/internal/status"
)

// Reports add up what all processes have counted; *status.View is one.
type Reports interface {
	Tenant(id string) *status.Summary
}

// countAccepted counts a batch once its events are acknowledged.
func (s *Service) countAccepted(b *batch, late int) {
	if len(b.events) == 0 {
		return
	}
	t, now := s.deps.Status.Tenant(b.tenant), s.deps.Clock().UnixMilli()
	t.Received.Add(int64(len(b.events)), now)
	t.Late.Add(int64(late), now)
	early, run := int64(0), int64(0)
	last := status.Source{}
	for i := range b.events {
		e := &b.events[i]
		if e.Early {
			early++
		}
		// Most requests are of one source: it is looked up once.
		src := status.Source{Product: e.Product, Service: e.Service, Category: e.Category, Strict: e.StrictLogsource}
		if run > 0 && src != last {
			t.Source(last).Add(run, now)
			run = 0
		}
		last = src
		run++
	}
	t.Source(last).Add(run, now)
	t.Early.Add(early, now)
}

// countRejected counts the records of a batch that were not taken.
func (s *Service) countRejected(b *batch) {
	if n := b.rejections(); n > 0 {
		s.deps.Status.Tenant(b.tenant).Rejected.Add(int64(n), s.deps.Clock().UnixMilli())
	}
}
