// Package e2e_test holds the scenarios that Stormbell must pass as a whole. Each
// is written once and runs on the embedded default and on a cluster with a
// real Kafka and a real Redis.
package e2e_test

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stormbell/stormbell/services/e2e/rig"
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(rig.Main(m, testing.Short()))
}

// A scenario runs on deployments that it asks the runner for.
type scenario struct {
	name string
	run  func(t *testing.T, r *rig.Runner)
}

func scenarios() []scenario {
	return []scenario{
		{"Journey", testJourney},
		{"Counting", testCounting},
		{"Status", testStatus},
		{"OwnWrites", testOwnWrites},
		{"Trace", testTrace},
		{"Secrets", testSecrets},
		{"Bomb", testBomb},
		{"Restart", testRestart},
		{"FlushAll", testFlushAll},
		{"CutTail", testCutTail},
		{"Reload", testReload},
		{"Absent", testAbsent},
		{"DeadLetters", testDeadLetters},
		{"Crash", testCrash},
	}
}

func TestEmbedded(t *testing.T) { runAll(t, rig.Embedded) }

func TestCluster(t *testing.T) { runAll(t, rig.Cluster) }

func runAll(t *testing.T, kind string) {
	r := rig.NewRunner(t, kind)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) { s.run(t, r) })
	}
}

// within bounds a wait, far above what it takes, so that a hung run ends with
// its logs and not with the test binary's time-out.
func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

const patience = 3 * time.Minute

func replaceOnce(s, old, by string) string { return strings.Replace(s, old, by, 1) }
