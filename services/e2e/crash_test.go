package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/oracle"
)

// crashSize is how much the crash scenario does. The small one runs on every
// change, the full one by `make test-crash`.
type crashSize struct{ events, groups, kills, least int }

const (
	crashEnv = "STORMBELL_CRASH"      // full
	seedEnv  = "STORMBELL_CRASH_SEED" // repeats a run
	batch    = 100
	workers  = 4
)

func sizeOfCrash() crashSize {
	if os.Getenv(crashEnv) == "full" {
		return crashSize{events: 200_000, groups: 300, kills: 20, least: 1000}
	}
	return crashSize{events: 20_000, groups: 40, kills: 6, least: 100}
}

func seedOfCrash(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("repeat with %s=%d", seedEnv, seed)
	return seed
}

// testCrash posts events while processes are killed. Whatever was accepted must
// be there, and the alerts must be those that the oracle finds, each delivered
// under one id with one body, though another endpoint hangs.
func testCrash(t *testing.T, r *rig.Runner) { t.Log(crashed(t, r, sizeOfCrash())) }

func crashed(t *testing.T, r *rig.Runner, size crashSize) string {
	t.Helper()
	seed := seedOfCrash(t)
	d := r.Start(t, rig.Options{Rules: crashRules, Settings: timely(nil)})
	healthy, hanging := newReceiver(t, ledger.Behave{}), newReceiver(t, ledger.Behave{Hang: true})
	d.Subscribe(t, 0, healthy)
	d.Subscribe(t, 0, hanging)
	now := time.Now()
	l := newLoad(seed, size.events, size.groups, now, decided()...)
	client := newClient(t, d)

	g, ctx := errgroup.WithContext(within(t, 2*time.Hour))
	killer := newKiller(d, seed, size, healthy)
	progress := &progress{holds: killer.deaths, pulse: newPulse(seed)}
	g.Go(func() error { return progress.send(ctx, client, l) })
	g.Go(func() error { return killer.run(ctx, progress) })
	require.NoError(t, g.Wait())
	recovery := killer.times()
	posted := time.Since(now)

	// Of stories the exact ingest times do not matter: everything was taken in within
	// minutes. They do for beats.
	events := pass(t, d)
	rules, settings := timelyRules(t, crashRules)
	want, err := oracle.Alerts(rules, events, settings)
	require.NoError(t, err)
	l.requireSound(t, want)
	requireDecided(t, want, 8)
	require.GreaterOrEqual(t, len(want), size.least)
	err = healthy.Await(within(t, patience+time.Duration(size.events)*time.Millisecond), func(got []ledger.Delivery) bool {
		return len(ledger.Alerts(got)) >= len(want)
	})
	delivered := time.Since(now)
	if err != nil {
		t.Log(err) // the judge says which are lost
	}
	require.NotEmpty(t, hanging.Deliveries(), "the endpoint that hangs was never tried")
	require.NoError(t, d.AwaitDrained(within(t, patience)))
	d.Stop(t)

	topics := d.Records(t, bus.TopicEvents, bus.TopicDetections, bus.TopicAlerts, bus.TopicDLQ)
	require.Empty(t, topics[bus.TopicDLQ])
	v := &verdict{
		rules: rules, settings: settings, told: client.Accepted(), events: events, want: want,
		alerts: alertIDs(t, topics[bus.TopicAlerts]), deliveries: healthy.Deliveries(),
	}
	found, err := v.judge()
	require.NoError(t, err)
	require.Empty(t, found)
	require.Len(t, v.told, len(l.ids)+progress.pulse.n, "every event was accepted in the end")
	for _, topic := range []string{bus.TopicEvents, bus.TopicDetections, bus.TopicAlerts} {
		require.Len(t, counts(topics[topic]), rig.Partitions, "all partitions of %s take part", topic)
	}
	if full() { // of the small form it is not known what else the machine does
		require.Less(t, recovery.p99(), 15*time.Second)
	}
	return fmt.Sprintf("%s: %d events (%d distinct) posted in %s, %d alerts delivered %s after the start in %d requests, %d records in alerts; %d kills; all partitions read again after %s, %s at most, of %d that no other came before; answers %v",
		d.Kind, len(l.sent), len(l.ids), posted.Round(time.Millisecond), len(want), delivered.Round(time.Millisecond), len(v.deliveries), len(v.alerts),
		size.kills, recovery, recovery[len(recovery)-1].Round(time.Millisecond), len(recovery), client.Statuses())
}

func newClient(t *testing.T, d *rig.Deployment) *ledger.Client {
	t.Helper()
	c, err := ledger.NewClient(filepath.Join(t.TempDir(), "client.ledger"), d.Key, d.URLs...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// progress is how many events were accepted so far.
type progress struct {
	pulse *pulse // nil: there is none
	// holds stop the sending at their place until what is to happen there has.
	holds   []*death
	events  atomic.Int64
	mu      sync.Mutex
	waiting []mark
}

type mark struct {
	at   int64
	open chan struct{}
}

// reached returns a channel that is closed once so many events are accepted.
func (p *progress) reached(events int64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := mark{events, make(chan struct{})}
	if p.events.Load() >= events {
		close(m.open)
		return m.open
	}
	p.waiting = append(p.waiting, m)
	return m.open
}

func (p *progress) add(events int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.events.Add(int64(events))
	p.waiting = slices.DeleteFunc(p.waiting, func(m mark) bool {
		if m.at <= now {
			close(m.open)
		}
		return m.at <= now
	})
}

// send posts the load in batches by several workers.
func (p *progress) send(ctx context.Context, client *ledger.Client, l *load) error {
	batches := make(chan []crashEvent, workers)
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			for events := range batches {
				story := len(events)
				if p.pulse != nil {
					events = p.pulse.with(events)
				}
				var body bytes.Buffer
				for _, e := range events {
					body.Write(e.raw)
					body.WriteByte('\n')
				}
				if _, err := client.Post(ctx, ledger.Batch{ContentType: "application/x-ndjson", Body: body.Bytes(), Events: len(events)}); err != nil {
					return err
				}
				p.add(story)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(batches)
		sent := int64(0)
		for events := range slices.Chunk(l.sent, batch) {
			for _, h := range p.holds {
				if h.at > sent {
					break
				}
				select {
				case <-h.happened:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			sent += int64(len(events))
			select {
			case batches <- events:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return g.Wait()
}

// A death is a SIGKILL at a place in the load.
type death struct {
	at       int64
	victim   *rig.Process
	happened chan struct{}
}

// A killer ends processes while the load is sent and worked on.
type killer struct {
	d       *rig.Deployment
	deaths  []*death
	healthy *ledger.Receiver

	watches  sync.WaitGroup
	mu       sync.Mutex
	recovery latencies
}

// newKiller decides by the seed who dies where: spread over the load, each
// process at least once where there are deaths enough.
func newKiller(d *rig.Deployment, seed uint64, size crashSize, healthy *ledger.Receiver) *killer {
	r := rand.New(rand.NewPCG(seed, 13))
	k := &killer{d: d, healthy: healthy}
	var order []*rig.Process
	part := int64(size.events / size.kills)
	for i := range int64(size.kills) {
		if len(order) == 0 {
			order = slices.Clone(d.Processes)
			r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		// Half a part lies between two deaths at least, in which alerts fall due.
		k.deaths = append(k.deaths, &death{at: i*part + part/4 + r.Int64N(part/2), victim: order[0], happened: make(chan struct{})})
		order = order[1:]
	}
	return k
}

// run kills each victim once the load is there and, but for the first, a webhook
// has arrived since the death before: so each hits a pipeline that works, though
// maybe not yet all of it. In full every other one is given the time to recover.
func (k *killer) run(ctx context.Context, p *progress) error {
	defer k.watches.Wait()
	another := func() {}
	for i, death := range k.deaths {
		before := len(k.healthy.Deliveries())
		select {
		case <-p.reached(death.at):
		case <-ctx.Done():
			return ctx.Err()
		}
		if i > 0 {
			if err := k.healthy.Await(ctx, func(got []ledger.Delivery) bool { return len(got) > before }); err != nil {
				return err
			}
		}
		another()
		began := time.Now()
		if err := death.victim.Kill(); err != nil {
			return err
		}
		close(death.happened)
		if err := death.victim.Start(ctx); err != nil {
			return err
		}
		if full() && i%2 == 0 {
			k.watch(ctx, began)
			continue
		}
		watched, cancel := context.WithCancel(ctx)
		another = cancel
		k.watches.Go(func() { k.watch(watched, began) })
	}
	return nil
}

// watch notes how long it is from a death until somebody reads all partitions
// again, unless another death comes first.
func (k *killer) watch(ctx context.Context, died time.Time) {
	if err := k.d.AwaitOwned(ctx); err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.recovery = append(k.recovery, time.Since(died))
}

// times are the recoveries that were seen to their ends, sorted.
func (k *killer) times() latencies {
	k.mu.Lock()
	defer k.mu.Unlock()
	slices.Sort(k.recovery)
	return k.recovery
}
