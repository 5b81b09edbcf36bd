//go:build unix

// Package bench_test measures package sigma on lanes of events, on one core,
// beside RSigma where that is installed: `make bench-sigma`.
package bench_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/sigma"
)

const (
	defaultEvents = 100_000
	runs          = 3 // the median counts
	tiled         = 40
)

func TestBenchSigma(t *testing.T) {
	if os.Getenv("STORMBELL_BENCH_SIGMA") == "" {
		t.Skip("a measurement, not a test: run make bench-sigma")
	}
	corpora := filepath.Join("..", "..", "..", "..", "shared", "corpora")
	if shared := os.Getenv("SHARED"); shared != "" {
		corpora = filepath.Join(shared, "corpora")
	}
	rules := filepath.Join(corpora, "sigmahq", "rules")
	if _, err := os.Stat(rules); err != nil {
		t.Skipf("no public rules: %v (set SHARED)", err)
	}
	n := defaultEvents
	if s := os.Getenv("STORMBELL_BENCH_EVENTS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	runtime.GOMAXPROCS(1)
	rsigma := other(t)
	all, aws := load(t, rules), load(t, filepath.Join(rules, "cloud", "aws"))
	fmt.Println("| Lane | B/event | Routed | Matches | Ours, events/s | RSigma | Ratio |\n| --- | --- | --- | --- | --- | --- | --- |")
	only := os.Getenv("STORMBELL_BENCH_LANE")
	for _, l := range lanes() {
		if !strings.Contains(l.name, only) {
			continue
		}
		row(t, rsigma, l.name, all, rules, l.events(n))
	}
	if !strings.Contains("CloudTrail", only) {
		return
	}
	trail := cloudTrail(t, filepath.Join(corpora, "invictus-cloudtrail"), filepath.Join(corpora, "stratus"))
	many := slices.Repeat(trail, max(1, min(tiled, n/len(trail))))
	row(t, rsigma, "CloudTrail, AWS rules", aws, filepath.Join(rules, "cloud", "aws"), many)
	row(t, rsigma, "CloudTrail, all rules", all, rules, many)
	twice(aws, many)
}

// other is the RSigma that RSIGMA or the PATH names, if any.
func other(t *testing.T) string {
	t.Helper()
	name := os.Getenv("RSIGMA")
	if name == "" {
		name = "rsigma"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Log("no rsigma on the PATH or named by RSIGMA: ours alone. cargo install rsigma --version 0.23.0 --locked")
		return ""
	}
	out, err := exec.CommandContext(t.Context(), path, "--version").Output()
	require.NoError(t, err)
	version, _, _ := strings.Cut(string(out), "\n")
	fmt.Printf("beside %s, both on one core; %s\n\n", version, runtime.Version())
	return path
}

// twice measures by the clock what a second worker adds, which only a machine
// with two idle cores shows.
func twice(set *sigma.Set, events [][]byte) {
	runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(1)
	took := func(workers int) time.Duration {
		var all []time.Duration
		for range runs + 1 {
			start := time.Now()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					m := set.Matcher()
					var dst []*sigma.Rule
					for i := w; i < len(events); i += workers {
						dst = m.Match(sigma.Event{Raw: events[i]}, dst[:0])
					}
				})
			}
			wg.Wait()
			all = append(all, time.Since(start))
		}
		return median(all[1:])
	}
	one, two := took(1), took(2)
	fmt.Printf("\nmatching alone, CloudTrail, AWS rules, by the clock: one worker %.0f events/s, two %.0f, ratio %.2f\n",
		perSecond(len(events), one), perSecond(len(events), two), one.Seconds()/two.Seconds())
}

// row measures a lane without and with routing and prints both.
func row(t *testing.T, rsigma, name string, set *sigma.Set, rules string, events [][]byte) {
	t.Helper()
	size := 0
	for _, e := range events {
		size += len(e) + 1
	}
	for _, routed := range []bool{false, true} {
		counts, rate := ours(set, events, routed)
		matches := 0
		for _, c := range counts {
			matches += c
		}
		theirs, ratio := "", ""
		if rsigma != "" {
			others, their := rsigmaRun(t, rsigma, rules, events, routed)
			theirs, ratio = strconv.Itoa(int(their)), fmt.Sprintf("%.1f", rate/their)
			if difference := compare(counts, others); difference != "" {
				ratio += " (matches differ)"
				t.Errorf("%s, routed %t: matches of rules, ours/theirs: %s", name, routed, difference)
			}
			sameSets(t, rsigma, name, set, rules, events, routed)
		}
		fmt.Printf("| %s | %d | %t | %d | %.0f | %s | %s |\n", name, size/len(events), routed, matches, rate, theirs, ratio)
	}
}

// cpu is the processor time that a process has used: on a machine that others
// use too it says more than the wall clock.
func cpu(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func used(who int) time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(who, &u) != nil {
		return 0
	}
	return cpu(&u)
}

// ours reads lines, matches them and writes a line for each match, as the other
// engine does.
func ours(set *sigma.Set, events [][]byte, routed bool) (counts map[string]int, rate float64) {
	input := append(bytes.Join(events, []byte("\n")), '\n')
	var spent []time.Duration
	for range runs + 1 { // the first fills caches
		type tally struct {
			head string
			n    int
		}
		tallies := map[*sigma.Rule]*tally{}
		m := set.Matcher()
		out := bufio.NewWriterSize(io.Discard, 1<<16)
		var dst []*sigma.Rule
		start := used(syscall.RUSAGE_SELF)
		lines := bufio.NewReaderSize(bytes.NewReader(input), 1<<20)
		for {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				break
			}
			for _, r := range m.Match(sigma.Event{Raw: line, Own: routed}, dst[:0]) {
				c := tallies[r]
				if c == nil {
					c = &tally{head: fmt.Sprintf(`{"rule":%q,"title":%q,"level":%q}`+"\n", r.ID, r.Title, r.Level)}
					tallies[r] = c
				}
				c.n++
				_, _ = out.WriteString(c.head)
			}
		}
		_ = out.Flush()
		spent = append(spent, used(syscall.RUSAGE_SELF)-start)
		counts = map[string]int{}
		for r, c := range tallies {
			counts[r.ID] = c.n
		}
	}
	return counts, perSecond(len(events), median(spent[1:]))
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// rsigmaRun measures RSigma on the same events; the time to load its rules is
// taken off.
func rsigmaRun(t *testing.T, rsigma, rules string, events [][]byte, routed bool) (counts map[string]int, rate float64) {
	t.Helper()
	input := append(bytes.Join(events, []byte("\n")), '\n')
	args := []string{"engine", "eval", "-r", rules, "--quiet", "--output-format", "ndjson"}
	if routed {
		args = append(args, "--logsource-routing")
	}
	run := func(in []byte) (time.Duration, []byte) {
		cmd := exec.CommandContext(t.Context(), rsigma, args...)
		cmd.Env = append(os.Environ(), "RAYON_NUM_THREADS=1")
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil && cmd.ProcessState == nil {
			require.NoError(t, err)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), out
	}
	var idle, busy []time.Duration
	var out []byte
	for range runs {
		var d time.Duration
		d, _ = run(nil)
		idle = append(idle, d)
		d, out = run(input)
		busy = append(busy, d)
	}
	counts = map[string]int{}
	for line := range bytes.Lines(out) {
		var match struct {
			RuleID string `json:"rule_id"`
		}
		require.NoError(t, json.Unmarshal(line, &match), "%s", line)
		require.NotEmpty(t, match.RuleID, "%s", line)
		counts[match.RuleID]++
	}
	return counts, perSecond(len(events), median(busy)-median(idle))
}

// checked is how many events of a lane are compared one by one.
const checked = 5000

// sameSets demands that both find the same rules in each of a lane's first
// events, which are numbered for it.
func sameSets(t *testing.T, rsigma, name string, set *sigma.Set, rules string, events [][]byte, routed bool) {
	t.Helper()
	const number = `{"stormbell_event_number":`
	var input bytes.Buffer
	ours, theirs := map[string]bool{}, map[string]bool{}
	m := set.Matcher()
	for i, e := range events[:min(len(events), checked)] {
		numbered := append(strconv.AppendInt([]byte(number), int64(i), 10), ',')
		numbered = append(numbered, e[1:]...)
		input.Write(append(numbered, '\n'))
		for _, r := range m.Match(sigma.Event{Raw: numbered, Own: routed}, nil) {
			ours[strconv.Itoa(i)+" "+r.ID] = true
		}
	}
	args := []string{"engine", "eval", "-r", rules, "--quiet", "--output-format", "ndjson", "--include-event"}
	if routed {
		args = append(args, "--logsource-routing")
	}
	cmd := exec.CommandContext(t.Context(), rsigma, args...)
	cmd.Stdin = &input
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	for line := range bytes.Lines(out) {
		var match struct {
			RuleID string `json:"rule_id"`
			Event  struct {
				Number *int `json:"stormbell_event_number"`
			} `json:"event"`
		}
		require.NoError(t, json.Unmarshal(line, &match), "%s", line)
		require.NotNil(t, match.Event.Number, "%s", line)
		theirs[strconv.Itoa(*match.Event.Number)+" "+match.RuleID] = true
	}
	var differ []string
	for pair := range ours {
		if !theirs[pair] {
			differ = append(differ, "only ours "+pair)
		}
	}
	for pair := range theirs {
		if !ours[pair] {
			differ = append(differ, "only theirs "+pair)
		}
	}
	if slices.Sort(differ); len(differ) > 0 {
		t.Errorf("%s, routed %t: %d pairs of event and rule differ: %s", name, routed, len(differ), strings.Join(differ[:min(len(differ), 5)], ", "))
	}
}

// compare says which rules were found more or less often, at most three.
func compare(ours, theirs map[string]int) string {
	var out []string
	for id, n := range ours {
		if theirs[id] != n {
			out = append(out, fmt.Sprintf("%s %d/%d", id, n, theirs[id]))
		}
	}
	for id, n := range theirs {
		if _, ok := ours[id]; !ok {
			out = append(out, fmt.Sprintf("%s 0/%d", id, n))
		}
	}
	slices.Sort(out)
	return strings.Join(out[:min(len(out), 3)], ", ")
}

func load(t *testing.T, dir string) *sigma.Set {
	t.Helper()
	var docs []sigma.Document
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yml" {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		d, _ := sigma.Parse(src, path)
		docs = append(docs, d...)
		return nil
	}))
	set, _ := sigma.Compile(docs, sigma.Options{})
	require.NotEmpty(t, set.Rules())
	return set
}

func cloudTrail(t *testing.T, dirs ...string) [][]byte {
	t.Helper()
	var events [][]byte
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".json" {
				return err
			}
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var file struct{ Records []json.RawMessage }
			if json.Unmarshal(src, &file) != nil || file.Records == nil {
				if json.Unmarshal(src, &file.Records) != nil {
					return nil
				}
			}
			for _, r := range file.Records {
				var b bytes.Buffer
				require.NoError(t, json.Compact(&b, r))
				events = append(events, b.Bytes())
			}
			return nil
		}))
	}
	require.NotEmpty(t, events)
	return events
}
