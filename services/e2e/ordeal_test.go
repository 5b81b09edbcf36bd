package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/oracle"
)

const crashRules = "testdata/rules/crash"

// An ordeal is a deployment under a load that goes on until somebody has seen
// enough, and a judge at its end.
type ordeal struct {
	t       *testing.T
	rules   string // their directory
	d       *rig.Deployment
	healthy *ledger.Receiver
	client  *ledger.Client
	began   time.Time
	seed    uint64
	stop    chan struct{}
	ended   chan error
	quiet   atomic.Int32 // how many want no load for now

	mu   sync.Mutex
	sent []crashEvent
	// dead is how many records are in `dlq` for a reason.
	dead int
	// without leaves out of the load what holds it.
	without string
	pulse   *pulse // of the load
	probes  int
}

// alone is in the events of the load that make alerts alone, without stage correlate.
const alone = `"Root"`

// poisonHeader marks records of `events` that are not events.
const poisonHeader = "poison"

// pace is the time between two batches of a load that goes on: a thousand
// events a second, half of which are stories. Of more the oracle would have
// millions to judge, where a fault lasts for minutes.
const pace = batch * time.Millisecond

// begin starts a deployment and a load on it.
func begin(t *testing.T, r *rig.Runner, opts rig.Options) *ordeal {
	t.Helper()
	o := prepare(t, r, opts)
	o.load(pace)
	return o
}

// prepare starts a deployment and a subscriber, with the rules of the crash scenario
// where there are no others.
func prepare(t *testing.T, r *rig.Runner, opts rig.Options) *ordeal {
	t.Helper()
	opts.Rules, opts.Settings = cmp.Or(opts.Rules, crashRules), timely(opts.Settings)
	o := &ordeal{t: t, rules: opts.Rules, seed: seedOfCrash(t), d: r.Start(t, opts), healthy: newReceiver(t, ledger.Behave{}), began: time.Now()}
	o.d.Subscribe(t, 0, o.healthy)
	o.client = newClient(t, o.d)
	return o
}

// load posts batches, one at each tick, until rest is called.
func (o *ordeal) load(every time.Duration) {
	o.stop, o.ended, o.pulse = make(chan struct{}), make(chan error, 1), newPulse(o.seed)
	ctx := o.t.Context()
	go func() { o.ended <- o.stream(ctx, every) }()
}

func (o *ordeal) stream(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		for events := range slices.Chunk(newLoad(o.seed+n, 5000, 60, o.began, decided()...).sent, batch) {
			if o.without != "" {
				events = slices.DeleteFunc(events, func(e crashEvent) bool { return bytes.Contains(e.raw, []byte(o.without)) })
			}
			if err := o.post(ctx, o.pulse.with(events)); err != nil {
				return err
			}
			for again := true; again; again = o.quiet.Load() > 0 {
				select {
				case <-o.stop:
					return nil
				case <-tick.C:
				}
			}
		}
	}
}

// rest ends the load.
func (o *ordeal) rest() {
	o.t.Helper()
	close(o.stop)
	select {
	case err := <-o.ended:
		require.NoError(o.t, err)
	case <-within(o.t, patience).Done():
		o.t.Fatal("the load does not end: nothing is accepted")
	}
}

// post posts events until they are accepted.
func (o *ordeal) post(ctx context.Context, events []crashEvent) error {
	var body bytes.Buffer
	for _, e := range events {
		body.Write(e.raw)
		body.WriteByte('\n')
	}
	if _, err := o.client.Post(ctx, ledger.Batch{ContentType: "application/x-ndjson", Body: body.Bytes(), Events: len(events)}); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = append(o.sent, events...)
	return nil
}

// progress returns when some more webhooks of correlations have come.
func (o *ordeal) progress() {
	o.t.Helper()
	from := len(o.healthy.Deliveries())
	require.NoError(o.t, o.healthy.Await(within(o.t, patience), func(got []ledger.Delivery) bool { return correlated(got[from:]) >= 5 }))
}

// correlated counts the deliveries that stage correlate has a part in.
func correlated(got []ledger.Delivery) (n int) {
	for i := range got {
		if !bytes.Contains(got[i].Body, []byte(`"type":"detection"`)) {
			n++
		}
	}
	return n
}

// await returns when so many events are accepted.
func (o *ordeal) await(events int) {
	o.t.Helper()
	limit := patience + time.Duration(events)*5*pace/batch
	require.NoError(o.t, rig.Every(within(o.t, limit), "events are accepted", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.sent) >= events
	}))
}

// more returns when so many more events are accepted.
func (o *ordeal) more(events int) {
	o.t.Helper()
	o.mu.Lock()
	events += len(o.sent)
	o.mu.Unlock()
	o.await(events)
}

// judge ends the load, waits until all is delivered and compares with the
// oracle. It returns what there was.
func (o *ordeal) judge() string {
	t := o.t
	t.Helper()
	if o.stop != nil {
		o.rest()
	}
	events := pass(t, o.d)
	rules, settings := timelyRules(t, o.rules)
	want, err := oracle.Alerts(rules, events, settings)
	require.NoError(t, err)
	require.NotEmpty(t, want)
	if o.pulse != nil && o.rules == crashRules {
		requireDecided(t, want, 2)
	}
	limit := patience + time.Duration(len(o.sent))*time.Millisecond
	if err := o.healthy.Await(within(t, limit), func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) >= len(want) }); err != nil {
		t.Log(err) // the judge says which are lost
	}
	require.NoError(t, o.d.AwaitDrained(within(t, patience)))
	o.d.Stop(t)
	topics := o.d.Records(t, bus.TopicAlerts, bus.TopicDLQ)
	dead := map[string]bool{} // what a new owner reads again it buries again
	for i := range topics[bus.TopicDLQ] {
		dead[string(topics[bus.TopicDLQ][i].Key)] = true
	}
	require.Len(t, dead, o.dead)
	v := &verdict{
		rules: rules, settings: settings, told: o.client.Accepted(), events: events, want: want,
		alerts: alertIDs(t, topics[bus.TopicAlerts]), deliveries: o.healthy.Deliveries(),
	}
	found, err := v.judge()
	require.NoError(t, err)
	require.Empty(t, found)
	return fmt.Sprintf("%d events, %d alerts, %d records of them, %d webhooks", len(v.told), len(want), len(v.alerts), len(v.deliveries))
}

// probe posts what makes a new group fire and returns how long it took until
// the webhook came.
func (o *ordeal) probe() time.Duration {
	o.t.Helper()
	o.probes++
	a := &author{r: rand.New(rand.NewPCG(o.seed, uint64(o.probes))), base: o.began.UnixMilli() - spread - fiveMin, n: 1_000_000 * o.probes}
	user := fmt.Sprintf("probe-%d-of-%d", o.probes, o.seed)
	posted := time.Now()
	require.NoError(o.t, o.post(o.t.Context(), a.logins(user, true).events))
	from := 0
	require.NoError(o.t, o.healthy.Await(within(o.t, patience), func(got []ledger.Delivery) bool {
		for ; from < len(got); from++ {
			if bytes.Contains(got[from].Body, []byte(user)) {
				return true
			}
		}
		return false
	}))
	return time.Since(posted)
}

// probeAll returns the least and greatest of n probes, and their 99th percentile.
func (o *ordeal) probeAll(n int) latencies {
	o.t.Helper()
	var all latencies
	for range n {
		all = append(all, o.probe())
	}
	slices.Sort(all)
	return all
}

// latencies are sorted.
type latencies []time.Duration

func (l latencies) p99() time.Duration { return l[len(l)*99/100] }

func (l latencies) String() string {
	return fmt.Sprintf("%s (median), %s (p99)", l[len(l)/2].Round(time.Millisecond), l.p99().Round(time.Millisecond))
}

// ids are those of the alerts in the topic, sorted, each once. The deployment
// must have been stopped.
func (o *ordeal) ids() []string {
	ids := alertIDs(o.t, o.d.Records(o.t, bus.TopicAlerts)[bus.TopicAlerts])
	slices.Sort(ids)
	return slices.Compact(ids)
}

// of returns the processes of a service; embedded, the one that is all.
func (o *ordeal) of(kind string) (out []*rig.Process) {
	for _, p := range o.d.Processes {
		if p.Kind == kind || p.Kind == "up" {
			out = append(out, p)
		}
	}
	return out
}

const faultsEnv = "STORMBELL_FAULTS" // full

// full says that the full forms of faults are asked for.
func full() bool { return os.Getenv(faultsEnv) == "full" }

// times is how often a fault happens: as often as the promise says in the full
// form, a few times in the short one.
func times(short, whole int) int {
	if full() {
		return whole
	}
	return short
}
