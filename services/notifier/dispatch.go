package notifier

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/stormbell/stormbell/services/notifier/queue"
)

// maxClaim bounds the tasks of one claim.
const maxClaim = 128

// dispatcher claims what is due in one shard and has it tried, as long as one
// owner lasts.
type dispatcher struct {
	*shard
	woken chan struct{} // one pending wake-up
	fault chan error    // the first injected fault of an attempt
	wg    sync.WaitGroup
}

func newDispatcher(s *shard) *dispatcher {
	return &dispatcher{shard: s, woken: make(chan struct{}, 1), fault: make(chan error, 1)}
}

// wake has it look at the queue again.
func (d *dispatcher) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// run claims until ctx ends or the queue refuses. Requests then under way may
// end within Config.Grace; their leases are fenced and outlive the owner.
func (d *dispatcher) run(ctx context.Context) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer d.courier.endpoints.leave(d)
	err := d.claims(ctx, requests)
	var fault *faultError
	if errors.As(err, &fault) || errors.As(context.Cause(ctx), &fault) {
		d.crashed.Store(true)
		cancel()
	}
	grace := time.AfterFunc(d.cfg.Grace, cancel)
	d.wg.Wait()
	grace.Stop()
	return err
}

func (d *dispatcher) claims(ctx, requests context.Context) error {
	for failures := 0; ; {
		select {
		case err := <-d.fault:
			return err
		default:
		}
		if ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // the end of the claim
		}
		claim, limit, err := d.claim(requests)
		var refused *queue.RefusedError
		var fault *faultError
		switch {
		case err == nil:
			failures = 0
		case errors.As(err, &refused), errors.As(err, &fault):
			return err
		default:
			d.log.WarnContext(ctx, "queue cannot be claimed from, trying again", "error", err)
			sleep(ctx, backoff(failures))
			failures++
			continue
		}
		if limit > 0 && len(claim.Tasks) == limit {
			continue
		}
		if err := d.rest(ctx, claim.NextMS); err != nil {
			return err
		}
	}
}

// rest waits until something may be due.
func (d *dispatcher) rest(ctx context.Context, nextMS int64) error {
	wait := d.cfg.Poll
	if nextMS != 0 {
		wait = min(wait, max(0, time.UnixMilli(nextMS).Sub(d.courier.clock())))
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the end of the claim
	case err := <-d.fault:
		return err
	case <-d.woken:
	case <-t.C:
	}
	return nil
}

// claim leases what is due and starts it. What it has leased when its owner
// ends is started all the same.
func (d *dispatcher) claim(ctx context.Context) (queue.Claim, int, error) {
	now := d.courier.clock()
	limit, rooms := d.courier.endpoints.rooms(now, d)
	before := d.tracker.before()
	claim, err := d.queue.Claim(ctx, d.partition, &queue.Request{
		Token: d.token, Applied: before.offset, NowMS: now.UnixMilli(), LeaseMS: now.Add(d.cfg.Lease).UnixMilli(),
		Fence: rand.Text(), Limit: limit, Default: firstLimit, Rooms: rooms,
	})
	if err != nil {
		return claim, limit, err //nolint:wrapcheck // the queue says what failed
	}
	d.tracker.observed(before, claim.OldestMS)
	d.counts.set(gaugeDepth, d.partition, claim.Depth)
	d.counts.set(gaugeOldest, d.partition, claim.OldestMS)
	if len(claim.Tasks) > 0 {
		if err := d.courier.fault.at(PointClaimed); err != nil {
			return claim, limit, err
		}
	}
	for i := range claim.Tasks {
		l := &claim.Tasks[i]
		if !d.courier.endpoints.begin(l.Endpoint, now, d) {
			// Another shard was faster: the endpoint has no room left.
			d.wg.Go(func() { _ = d.settle(ctx, l, d.courier.again(giveBack)) }) // no attempt, no fault
			continue
		}
		d.wg.Go(func() { d.deliver(ctx, l) })
	}
	return claim, limit, nil
}

// giveBack is how long a task rests for which there was no room after all.
const giveBack = 20 * time.Millisecond

func (d *dispatcher) deliver(ctx context.Context, l *queue.Leased) {
	v, err := d.courier.try(ctx, l)
	d.courier.endpoints.end(l.Endpoint, d.courier.clock(), v.result, v.throttle, v.after)
	if err == nil {
		err = d.settle(ctx, l, v)
	}
	if err != nil {
		select {
		case d.fault <- err:
		default:
		}
	}
}

// settle writes what became of a task, in one atomic call. It tries until the
// queue answers or the lease has ended. An error is an injected fault.
func (d *dispatcher) settle(ctx context.Context, l *queue.Leased, v verdict) error {
	if d.crashed.Load() {
		return nil
	}
	// Where requests are cancelled, their ends are still to be written, if that
	// is quick.
	requests := ctx
	ctx, cancel := context.WithTimeout(context.WithoutCancel(requests), d.cfg.Lease)
	defer cancel()
	defer context.AfterFunc(requests, func() { time.AfterFunc(d.cfg.Grace, cancel) })()
	s := &queue.Settlement{Applied: d.tracker.at(), Endpoint: l.Endpoint, Alert: l.Alert, Fence: l.Fence, DueMS: v.dueMS, State: v.state}
	if v.attempt != nil {
		record, err := marshal(v.attempt)
		if err != nil {
			d.log.ErrorContext(ctx, "attempt cannot be encoded", "error", err)
			return nil
		}
		s.Record = record
	}
	for n := 0; ; n++ {
		err := d.queue.Settle(ctx, d.partition, s)
		var refused *queue.RefusedError
		switch {
		case err == nil:
			return d.settled(v)
		case errors.Is(err, queue.ErrStale):
			if n > 0 { // the call before may have written it
				return d.settled(v)
			}
			d.counts.outlived()
			d.log.WarnContext(ctx, "lease has ended before its attempt, which is not counted", "alert", l.Alert, "webhook", l.Endpoint)
			return nil
		case errors.As(err, &refused):
			d.log.WarnContext(ctx, "queue has lost what it held, attempt is not counted", "alert", l.Alert, "webhook", l.Endpoint)
			d.wake()
			return nil
		}
		d.log.WarnContext(ctx, "attempt is not written, trying again", "error", err)
		if d.crashed.Load() || !sleep(ctx, backoff(n)) {
			return nil
		}
	}
}

func (d *dispatcher) settled(v verdict) error {
	if v.attempt != nil {
		d.counts.settled(&v)
		if err := d.courier.fault.at(PointSettled); err != nil {
			return err
		}
		d.publisher.wake()
	}
	if v.dueMS != 0 {
		d.wake() // it may be due before the next look
	}
	return nil
}
