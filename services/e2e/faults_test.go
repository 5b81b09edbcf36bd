package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

// faultEnv names the only rows to run, separated by commas.
const faultEnv = "STORMBELL_FAULT"

// A fault is a row of what Stormbell must bear. Its run returns a figure.
type fault struct {
	name string
	// runners are those on which it means something.
	runners []string
	run     func(t *testing.T, r *rig.Runner) string
	// fullOnly leaves it out of the short form: another scenario is that, or it
	// takes minutes.
	fullOnly bool
}

func faults() []fault {
	both, embedded, cluster := []string{rig.Embedded, rig.Cluster}, []string{rig.Embedded}, []string{rig.Cluster}
	whole := embedded // and short
	if full() {
		whole = both
	}
	return []fault{
		{name: "kills", runners: both, run: faultKills, fullOnly: true}, // Crash
		{name: "points", runners: whole, run: faultPoints},
		{name: "redis-kills", runners: cluster, run: faultRedisKills},
		{name: "redis-tails", runners: cluster, run: faultRedisTails, fullOnly: true}, // CutTail
		{name: "redis-flushes", runners: cluster, run: faultRedisFlushes},
		{name: "redis-replies", runners: cluster, run: faultReplies},
		{name: "kafka-kills", runners: cluster, run: faultKafkaKills},
		{name: "kafka-rolling", runners: cluster, run: faultKafkaRolling, fullOnly: true},
		{name: "zombie", runners: cluster, run: faultZombie},
		{name: "joins", runners: cluster, run: faultJoins},
		{name: "copies", runners: whole, run: faultCopies},
		{name: "alerts-down", runners: cluster, run: faultAlertsDown},
		{name: "cardinality", runners: cluster, run: faultCardinality},
		{name: "hot-group", runners: cluster, run: faultHotGroup},
		{name: "poison", runners: cluster, run: faultPoison},
	}
}

// TestFaults runs every row on its runners. In the short form it takes seconds
// a row; `make faults` runs the full one and prints the table.
func TestFaults(t *testing.T) {
	var rows []string
	wanted := strings.FieldsFunc(os.Getenv(faultEnv), func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		require.True(t, slices.ContainsFunc(faults(), func(f fault) bool { return f.name == name }), "%s: there is no fault %q", faultEnv, name)
	}
	kafkas := map[string]*rig.Runner{}
	for _, f := range faults() {
		if len(wanted) > 0 && !slices.Contains(wanted, f.name) || f.fullOnly && !full() {
			continue
		}
		for _, kind := range f.runners {
			figure, began := "", time.Now()
			// Kafka lives as long as the whole table.
			t.Run(f.name+"/"+kind, func(st *testing.T) {
				rig.Select(st, kind)
				if kafkas[kind] == nil {
					kafkas[kind] = rig.NewRunner(t, kind)
				}
				figure = f.run(st, kafkas[kind])
				st.Log(figure)
				result := "pass"
				if st.Failed() {
					result = "FAIL"
				}
				rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", f.name, kind, result, time.Since(began).Round(time.Second), figure))
			})
			if figure == "" && t.Failed() {
				rows = append(rows, fmt.Sprintf("%s\t%s\tFAIL\t%s\t", f.name, kind, time.Since(began).Round(time.Second)))
			}
		}
	}
	t.Log("\n" + table(append([]string{"fault\trunner\tresult\ttook\tfigure"}, rows...)))
}

// table lines up what tabs separate.
func table(rows []string) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	_, _ = w.Write([]byte(strings.Join(rows, "\n") + "\n")) // to memory
	_ = w.Flush()
	return out.String()
}

// faultKills is the crash scenario with a million events and fifty deaths.
func faultKills(t *testing.T, r *rig.Runner) string {
	return crashed(t, r, crashSize{events: 1_000_000, groups: 1000, kills: 50, least: 4000})
}
