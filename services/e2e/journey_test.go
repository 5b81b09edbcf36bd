package e2e_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/tools/child"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/oracle"
)

const cloudTrailRules = "testdata/rules/cloudtrail"

// corpus returns the files of a public corpus, or skips the test.
func corpus(t *testing.T, pattern ...string) []string {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	files, err := filepath.Glob(filepath.Join(append([]string{shared, "corpora"}, pattern...)...))
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skipf("no corpus %s in %s: set SHARED", pattern[0], shared)
	}
	return files
}

// testJourney posts real CloudTrail files by the command line. The webhooks that
// arrive are those that the oracle names, and other people's libraries verify
// them.
func testJourney(t *testing.T, r *rig.Runner) {
	files := corpus(t, "invictus-cloudtrail", "CloudTrail", "*.json")
	// An embedded deployment has its rules from a directory, a cluster by push.
	opts := rig.Options{}
	if r.Kind == rig.Embedded {
		opts.Rules = cloudTrailRules
	}
	d := r.Start(t, opts)
	if r.Kind == rig.Cluster {
		out, _, err := d.Stormbell(t.Context(), 0, "rules", "push", cloudTrailRules)
		require.NoError(t, err, out)
		d.PushRules(t, cloudTrailRules) // the same again: returns when all gateways have them
	}
	receiver := newReceiver(t, ledger.Behave{})
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte(receiver.Secret()), 0o600))
	_, _, err := d.Stormbell(t.Context(), 0, "webhooks", "add", receiver.URL("/hook"), "--name", "journey", "--secret-file", secret)
	require.NoError(t, err)

	out, _, err := d.Stormbell(t.Context(), len(d.URLs)-1, append([]string{"send"}, files...)...)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Logf("stormbell send: %s", lines[len(lines)-1])

	// The events carry their own time and all came at once, so that the files
	// say what must be found; the topic is asked at the end.
	rules, settings := rulesOf(t, cloudTrailRules)
	want, err := oracle.Alerts(rules, cloudTrailOf(t, files), settings)
	require.NoError(t, err)
	kinds := map[string]bool{}
	for _, a := range want {
		kinds[a.RuleID] = true
	}
	require.Len(t, kinds, 5, "each correlation and the rule that stands alone find something")
	err = receiver.Await(within(t, patience), func(got []ledger.Delivery) bool { return len(ledger.Alerts(got)) >= len(want) })
	if err != nil {
		t.Log(err) // the judge says which are lost
	}
	t.Run("Python", func(t *testing.T) { verifyByPython(t, receiver) })
	d.Stop(t)

	topics := d.Records(t, bus.TopicEvents, bus.TopicAlerts, bus.TopicDLQ)
	require.Empty(t, topics[bus.TopicDLQ])
	v := &verdict{
		rules: rules, settings: settings, told: slices.Collect(maps.Keys(idsOf(t, files))), events: accepted(t, topics[bus.TopicEvents]),
		alerts: alertIDs(t, topics[bus.TopicAlerts]), deliveries: receiver.Deliveries(),
	}
	found, err := v.judge()
	require.NoError(t, err)
	require.Empty(t, found)
	t.Logf("%d events, %d alerts", len(v.told), len(want))
}

// cloudTrailOf reads files as what is accepted of them.
func cloudTrailOf(t *testing.T, files []string) []oracle.Record {
	t.Helper()
	var out []oracle.Record
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var file struct{ Records []json.RawMessage }
		require.NoError(t, json.Unmarshal(text, &file))
		for _, raw := range file.Records {
			var e struct {
				EventID   string
				EventTime time.Time
			}
			require.NoError(t, json.Unmarshal(raw, &e))
			out = append(out, oracle.Record{
				Offset: int64(len(out)), ID: e.EventID, Tenant: "default", Product: "aws", Service: "cloudtrail", StrictLogsource: true,
				TimeMS: e.EventTime.UnixMilli(), Raw: raw,
			})
		}
	}
	return out
}

func idsOf(t *testing.T, files []string) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, r := range cloudTrailOf(t, files) {
		ids[r.ID] = true
	}
	return ids
}

const pythonLibrary = "standardwebhooks==1.1.0"

// verifyByPython has the official library for Python verify what came. It skips
// where there is no Python or the library cannot be had.
func verifyByPython(t *testing.T, r *ledger.Receiver) {
	t.Helper()
	child.Require(t, "python3")
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	venv := filepath.Join(cache, "stormbell", "e2e", strings.ReplaceAll(pythonLibrary, "==", "-"))
	python := filepath.Join(venv, "bin", "python")
	if exec.CommandContext(t.Context(), python, "-c", "import standardwebhooks").Run() != nil {
		for _, argv := range [][]string{{"python3", "-m", "venv", venv}, {python, "-m", "pip", "install", "--quiet", pythonLibrary}} {
			if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
				if os.Getenv(child.RequireEnv) == "1" {
					require.NoError(t, err, "%s", out)
				}
				t.Skipf("%s cannot be had: %v: %s", pythonLibrary, err, out)
			}
		}
	}
	got := r.Deliveries()
	var in bytes.Buffer
	for i := range got {
		require.NoError(t, json.NewEncoder(&in).Encode(&got[i]))
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/verify.py")
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+r.Secret())
	cmd.Stdin = &in
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, strconv.Itoa(len(got)), strings.TrimSpace(string(out)))
	t.Logf("%s verified %d deliveries", pythonLibrary, len(got))
}
