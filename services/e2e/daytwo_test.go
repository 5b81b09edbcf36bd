package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/kafka"
)

const (
	// dayTwoEnv names the only rows to run, separated by commas.
	dayTwoEnv = "STORMBELL_DAYTWO"
	// previousEnv is the tag or commit of the version before.
	previousEnv = "STORMBELL_PREVIOUS"
)

// A chore is a row of what operators do to a cluster that is at work. Its run
// returns a figure.
type chore struct {
	name string
	run  func(t *testing.T, r *rig.Runner) string
	// slow leaves it to whoever names it: it takes minutes.
	slow bool
}

func chores() []chore {
	return []chore{
		{name: "keys", run: choreKeys, slow: true},
		{name: "restore", run: choreRestore},
		{name: "upgrade", run: choreUpgrade, slow: true},
		{name: "brokers", run: choreBrokers, slow: true},
		{name: "capacity", run: choreCapacity, slow: true},
	}
}

// TestDayTwo runs every row. `make test-daytwo` runs the slow ones too and
// prints the table.
func TestDayTwo(t *testing.T) {
	named := os.Getenv(dayTwoEnv)
	var rows []string
	var r *rig.Runner
	for _, c := range chores() {
		if c.slow && named == "" || named != "" && !slices.Contains(strings.Split(named, ","), c.name) {
			continue
		}
		began := time.Now()
		t.Run(c.name, func(st *testing.T) {
			rig.Select(st, rig.Cluster)
			if r == nil {
				r = rig.NewRunner(t, rig.Cluster) // Kafka lives as long as the table
			}
			figure := c.run(st, r)
			st.Log(figure)
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s", c.name, time.Since(began).Round(time.Second), figure))
		})
	}
	t.Log("\n" + table(append([]string{"chore\ttook\tfigure"}, rows...)))
}

// choreUpgrade starts a cluster of the version before, replaces one process
// after the other by this version, and then back again, under a load.
func choreUpgrade(t *testing.T, r *rig.Runner) string {
	ref := os.Getenv(previousEnv)
	require.NotEmpty(t, ref, "%s names the tag or commit of the version before: use `make test-daytwo`", previousEnv)
	now := os.Getenv(rig.BinEnv)
	before, commit := rig.BuildRef(t, ref)
	t.Setenv(rig.BinEnv, before)
	// Its own rules: it need not know what later ones say.
	o := begin(t, r, rig.Options{Rules: filepath.Join(before, "services/e2e", crashRules)})
	mixed := 0
	for _, programs := range []string{now, before, now} {
		for _, p := range o.d.Processes {
			o.progress()
			replace(t, p, programs)
			mixed++
		}
		o.progress()
		t.Setenv(rig.BinEnv, programs)
	}
	return fmt.Sprintf("from %s up, down and up again, %d processes replaced; answers %v; %s", commit, mixed, o.client.Statuses(), o.judge())
}

// replace ends a process politely and starts it with the program of another
// directory.
func replace(t *testing.T, p *rig.Process, programs string) {
	t.Helper()
	require.NoError(t, p.Stop(time.Minute))
	p.Replace(programs + "/" + p.Kind)
	require.NoError(t, p.Start(t.Context()))
}

// choreBrokers loses the machine of one broker after the other, disk and all. An
// empty one takes its place under the same id, and is in sync before the next
// goes.
func choreBrokers(t *testing.T, _ *rig.Runner) string {
	three := &rig.Runner{Kind: rig.Cluster, Kafka: kafka.ForTest(t, func(o *kafka.Options) { o.Nodes = 3 })}
	o := begin(t, three, rig.Options{})
	var synced []string
	for node := range 3 {
		o.progress()
		require.NoError(t, three.Kafka.Replace(t.Context(), node))
		began := time.Now()
		o.progress()
		require.NoError(t, three.Kafka.AwaitInSync(within(t, patience)))
		synced = append(synced, time.Since(began).Round(100*time.Millisecond).String())
	}
	o.progress()
	return fmt.Sprintf("3 brokers replaced, in sync %s after each was back; answers %v; %s", strings.Join(synced, ", "), o.client.Statuses(), o.judge())
}
