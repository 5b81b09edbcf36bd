package e2e_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/program"
	"github.com/stormbell/stormbell/services/e2e/rig"
)

const refusedWrites = "stormbell_correlator_refused_writes_total"

// owned is how many partitions of `detections` a process owns; none where it is away.
func owned(t *testing.T, p *rig.Process) int {
	t.Helper()
	return len(program.Fleet{Processes: []*rig.Process{p}}.Correlated(t.Context()))
}

// faultZombie stops a correlator for longer than its session lasts, until the
// other one owns everything, and lets it go on. What it then writes is refused.
// After long stops most have nothing left to write: the call under way has met its
// time-out. Shorter ones follow until one was refused.
func faultZombie(t *testing.T, r *rig.Runner) string {
	o := prepare(t, r, rig.Options{})
	o.without = alone
	o.load(pace)
	both := o.of("correlator")
	refused, rounds := 0.0, 0
	least, stop := times(1, 5), time.Duration(times(0, 60))*time.Second
	for ; rounds < least || refused == 0 && rounds < least+30; rounds++ {
		if rounds == least {
			stop = 0
		}
		o.progress()
		stopped, other := both[rounds%2], both[(rounds+1)%2]
		writes := program.Fleet{Processes: []*rig.Process{stopped}}
		before := writes.Sum(t.Context(), refusedWrites)
		began := time.Now()
		require.NoError(t, stopped.Signal(syscall.SIGSTOP))
		require.NoError(t, rig.Every(within(t, patience), "the other one owns every partition", func() bool {
			return owned(t, other) == rig.Partitions && time.Since(began) > stop
		}))
		o.progress()
		require.NoError(t, stopped.Signal(syscall.SIGCONT))
		require.NoError(t, rig.Every(within(t, patience), "both own partitions", func() bool {
			n, m := owned(t, stopped), owned(t, other)
			return n > 0 && m > 0 && n+m == rig.Partitions
		}))
		refused += writes.Sum(t.Context(), refusedWrites) - before
	}
	require.Positive(t, refused, "no write of a zombie was refused: the run shows nothing")
	return fmt.Sprintf("%d times; %v writes refused; %s", rounds, refused, o.judge())
}

// faultJoins has correlators come and go. Something that they found together is
// delivered all the time.
func faultJoins(t *testing.T, r *rig.Runner) string {
	o := prepare(t, r, rig.Options{})
	o.without = alone
	o.load(pace)
	o.progress()
	n, every := times(4, 30), time.Duration(times(0, 10))*time.Second
	began := time.Now()
	var guest *rig.Process
	for i := range n {
		due := began.Add(time.Duration(i) * every)
		require.NoError(t, rig.Every(within(t, patience), "it is time", func() bool { return time.Now().After(due) }))
		if guest == nil {
			guest = o.d.Join(t, "correlator", fmt.Sprintf("guest-%d", i))
			require.NoError(t, rig.Every(within(t, patience), "the guest owns a partition", func() bool { return owned(t, guest) > 0 }))
		} else {
			if i%4 == 1 {
				require.NoError(t, guest.Stop(patience))
			} else {
				require.NoError(t, guest.Kill())
			}
			guest = nil
		}
		o.progress()
	}
	took := time.Since(began)
	got := o.healthy.Deliveries()
	longest := time.Duration(0)
	for i := 1; i < len(got); i++ {
		longest = max(longest, got[i].At.Sub(got[i-1].At))
	}
	if full() {
		require.Less(t, longest, 10*time.Second)
	}
	return fmt.Sprintf("%d joins and leaves in %s; longest time without a webhook of a correlation %s; %s", n, took.Round(time.Second), longest.Round(time.Millisecond), o.judge())
}
