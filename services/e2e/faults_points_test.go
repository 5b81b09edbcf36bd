package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/services/correlator"
	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/gateway"
	"github.com/stormbell/stormbell/services/notifier"
	"github.com/stormbell/stormbell/tools/child"
)

// crashAtEnv is what programs built with the tag fault read.
const crashAtEnv = "STORMBELL_CRASH_AT"

// A crashPoint is one by its name, and whether it is reached once per record
// and not once per batch.
type crashPoint struct {
	name string
	many bool
}

// crashPoints are those of each service.
func crashPoints() map[string][]crashPoint {
	all := map[string][]crashPoint{}
	for _, p := range gateway.Points() {
		all["gateway"] = append(all["gateway"], crashPoint{name: string(p)})
	}
	for _, p := range correlator.Points() {
		all["correlator"] = append(all["correlator"], crashPoint{string(p), p == correlator.PointMatch || p == correlator.PointFold})
	}
	for _, p := range notifier.Points() {
		all["notifier"] = append(all["notifier"], crashPoint{name: string(p)})
	}
	return all
}

// faultPoints has processes kill themselves at every named point under load.
// A process that starts again is told the next place to die at.
func faultPoints(t *testing.T, r *rig.Runner) string {
	rig.BuildTagged(t, "fault")
	// Whichever partitions a correlator owns have something to match.
	o := prepare(t, r, rig.Options{Settings: map[string]string{"gateway": fmt.Sprintf("tenant_partitions: %d", rig.Partitions)}})
	o.load(5 * pace) // what is to be read again grows all the while
	n := times(1, 20)
	g, ctx := errgroup.WithContext(within(t, time.Duration(n)*10*time.Minute))
	died, recovery := make(chan string, 1000), make(chan time.Duration, 1000)
	if r.Kind == rig.Embedded {
		g.Go(func() error {
			all := crashPoints()
			return dieAt(ctx, o, o.d.Processes[0], append(append(all["gateway"], all["correlator"]...), all["notifier"]...), n, died, recovery)
		})
	} else {
		for kind, points := range crashPoints() {
			g.Go(func() error { return dieAt(ctx, o, o.of(kind)[0], points, n, died, recovery) })
		}
	}
	require.NoError(t, g.Wait())
	close(died)
	close(recovery)
	hit := map[string]int{}
	for p := range died {
		hit[p]++
	}
	for _, points := range crashPoints() {
		for _, p := range points {
			require.Equal(t, n, hit[p.name], "the process has died at %s", p.name)
		}
	}
	most := time.Duration(0)
	for d := range recovery {
		most = max(most, d)
	}
	return fmt.Sprintf("%d points, %d deaths at each; all partitions read again after %s at most; %s", len(hit), n, most.Round(time.Millisecond), o.judge())
}

// dieAt has a process die at each of the points n times, and start again.
func dieAt(ctx context.Context, o *ordeal, p *rig.Process, points []crashPoint, n int, died chan<- string, recovery chan<- time.Duration) error {
	r := rand.New(rand.NewPCG(o.seed, uint64(len(points))))
	for range n {
		for _, point := range points {
			// Not at the first time: what has ended there must have got on before.
			at := 2 + r.IntN(3)
			if point.many {
				at = 30 + r.IntN(50)
			}
			if err := p.Stop(patience); err != nil { // one that is killed stays in its groups until they miss it
				return err
			}
			p.Setenv(fmt.Sprintf("%s=%s:%d", crashAtEnv, point.name, at))
			last := "crash at " + point.name + "\n"
			before, err := p.Said(last)
			if err != nil {
				return err
			}
			if err := startDeadly(ctx, o, p); err != nil {
				return err
			}
			if err := p.AwaitEnd(ctx); err != nil {
				return fmt.Errorf("at %s: %w", point.name, err)
			}
			if said, err := p.Said(last); err != nil || said == before {
				return errors.Join(fmt.Errorf("it ended before %s:\n%s", point.name, child.Tail(p.LogFile())), err)
			}
			died <- point.name
			took, err := recovered(ctx, o, p)
			if err != nil {
				return fmt.Errorf("after %s: %w", point.name, err)
			}
			recovery <- took
		}
	}
	return nil
}

// startDeadly starts a process that is to die, which it may do before it is ready.
func startDeadly(ctx context.Context, o *ordeal, p *rig.Process) error {
	defer o.hush()()
	if err := p.Start(ctx); err != nil && !strings.Contains(err.Error(), "ended before it was ready") {
		return err
	}
	if o.d.Kind == rig.Embedded {
		alive, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			defer cancel()
			_ = p.AwaitEnd(alive)
		}()
		_ = o.d.AwaitDrained(alive) // or it has died, of which the caller waits to hear
	}
	return nil
}

// recovered starts a process that has died and returns once every stage has caught
// up, and how long it took until all partitions were read again. A process that dies
// over and over with one record in hand would bury that.
func recovered(ctx context.Context, o *ordeal, p *rig.Process) (took time.Duration, err error) {
	defer o.hush()()
	began := time.Now()
	p.Setenv()
	if err := p.Start(ctx); err != nil {
		return 0, err
	}
	if err := o.d.AwaitOwned(ctx); err != nil {
		return 0, err
	}
	took = time.Since(began)
	return took, o.d.AwaitDrained(ctx)
}

// hush ends the load until load is called, where whoever starts reads all that
// there was: else there were ever more.
func (o *ordeal) hush() (load func()) {
	if o.d.Kind != rig.Embedded {
		return func() {}
	}
	o.quiet.Add(1)
	return func() { o.quiet.Add(-1) }
}
