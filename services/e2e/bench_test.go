package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/rig"
	"github.com/stormbell/stormbell/tools/ledger"
	"github.com/stormbell/stormbell/tools/loadgen"
)

// secondsEnv is how long each measurement lasts.
const secondsEnv = "BENCH_SECONDS"

func benchTime(b *testing.B) time.Duration {
	b.Helper()
	text := os.Getenv(secondsEnv)
	if text == "" {
		return 10 * time.Second
	}
	n, err := strconv.Atoi(text)
	require.NoError(b, err)
	return time.Duration(n) * time.Second
}

// triggerEvery is how many events there are to one that fires.
const triggerEvery = 200

// withTriggers makes every 200th event one that a correlation fires at, in a
// group of its own that names it.
func withTriggers(seed uint64, run string) func([]byte, int, time.Time) []byte {
	plain := loadgen.CloudTrail(seed)
	return func(dst []byte, n int, at time.Time) []byte {
		dst = plain(dst, n, at)
		if n%triggerEvery == 0 {
			name := fmt.Sprintf(`"eventName":"BenchTrigger","triggerID":"%s-%d","was":`, run, n)
			dst = bytes.Replace(dst, []byte(`"eventName":`), []byte(name), 1)
		}
		return dst
	}
}

// journeys measures one deployment.
type journeys struct {
	b        *testing.B
	d        *rig.Deployment
	receiver *ledger.Receiver
	seed     uint64
}

// measured is one row.
type measured struct {
	load loadgen.Summary
	// sustained counts until the last alert had arrived.
	sustained float64
	// alert is the time from when the triggering event was meant to be sent to
	// its webhook, in µs.
	alert *hdrhistogram.Histogram
	// perCPU is events per second of the processor time that Stormbell used: it
	// says what the machine could do if nothing else ran on it.
	perCPU float64
}

// run sends a load and waits for the webhook of every trigger.
func (j *journeys) run(cfg loadgen.Config) measured {
	j.b.Helper()
	j.seed++
	name := fmt.Sprintf("run%d", j.seed)
	cfg.URLs, cfg.Key, cfg.Event = j.d.URLs, j.d.Key, withTriggers(j.seed, name)
	before := cpuOf(j.b, j.d.Processes[0].Pid())
	res, err := loadgen.Run(j.b.Context(), cfg)
	require.NoError(j.b, err)
	require.Empty(j.b, res.Errors, "requests were refused")
	want := (res.Accepted + triggerEvery - 1) / triggerEvery
	arrived := map[int]time.Time{}
	seen := 0
	require.NoError(j.b, j.receiver.Await(j.b.Context(), func(got []ledger.Delivery) bool {
		for ; seen < len(got); seen++ {
			if n, ok := triggerOf(&got[seen], name); ok {
				if _, again := arrived[n]; !again {
					arrived[n] = got[seen].At
				}
			}
		}
		return len(arrived) >= want
	}))
	used := cpuOf(j.b, j.d.Processes[0].Pid()) - before
	m := measured{perCPU: float64(res.Accepted) / used.Seconds(), load: res.Summary(), alert: hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)}
	last := res.Start
	for n, at := range arrived {
		if at.After(last) {
			last = at
		}
		require.NoError(j.b, m.alert.RecordValue(max(at.Sub(cfg.IntendedAt(res.Start, n)).Microseconds(), 1)))
	}
	m.sustained = float64(res.Accepted) / max(last.Sub(res.Start), res.Took).Seconds()
	return m
}

func triggerOf(d *ledger.Delivery, run string) (int, bool) {
	_, rest, ok := strings.Cut(string(d.Body), `"group":{"triggerID":"`+run+`-`)
	if !ok {
		return 0, false
	}
	text, _, _ := strings.Cut(rest, `"`)
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// BenchmarkJourney prints the table of docs/performance.md: the embedded default
// with synced writes, load and receiver on the same machine.
func BenchmarkJourney(b *testing.B) {
	r := rig.NewRunner(b, rig.Embedded)
	for b.Loop() {
		d := r.Start(b, rig.Options{Rules: "testdata/rules/bench"})
		receiver, err := ledger.NewReceiver(b.Context(), ledger.NewSecret(), ledger.Behave{})
		require.NoError(b, err)
		d.Subscribe(b, 0, receiver)
		j := &journeys{b: b, d: d, receiver: receiver}
		long := benchTime(b)
		j.run(loadgen.Config{Batch: 100, Duration: long / 5, Concurrency: 4}) // warm-up
		single := j.run(loadgen.Config{Batch: 1, Duration: long, Concurrency: 64})
		batches := j.run(loadgen.Config{Batch: 100, Duration: long, Concurrency: 32})
		rows := []struct {
			what string
			m    measured
			open bool
		}{
			{"single posts, as fast as answers come (64 at a time)", single, false},
			{"batches of 100, as fast as answers come (32 at a time)", batches, false},
			{"single posts, 5,000/s", j.run(loadgen.Config{Batch: 1, Rate: 5000, Duration: long, Concurrency: 256}), true},
			{"single posts, 70 % load", j.run(loadgen.Config{Batch: 1, Rate: 0.7 * single.sustained, Duration: long, Concurrency: 256}), true},
			{"batches of 100, 70 % load", j.run(loadgen.Config{Batch: 100, Rate: 0.7 * batches.sustained, Duration: long, Concurrency: 64}), true},
		}
		fmt.Println("\n| Load | events/s in | events/s through to the webhook | ingest p50 / p99 / p99.9, ms | event → webhook p50 / p99, ms | events per CPU second | generator, cores |")
		fmt.Println("|---|---|---|---|---|---|---|")
		for _, row := range rows {
			s := row.m.load
			ingest, alert := "–", "–"
			if row.open { // a closed loop hides how long others had to wait
				ingest = fmt.Sprintf("%.1f / %.1f / %.1f", s.P50, s.P99, s.P999)
				alert = fmt.Sprintf("%.0f / %.0f", millis(row.m.alert, 50), millis(row.m.alert, 99))
			}
			fmt.Printf("| %s | %.0f | %.0f | %s | %s | %.0f | %.2f |\n", row.what, s.EventsPerSecond, row.m.sustained, ingest, alert, row.m.perCPU, s.Cores)
		}
		accepts, ready := j.restart()
		fmt.Printf("\nRestart after kill -9 with %.0f MB of log: an event accepted after %s, ready after %s\n\n",
			float64(sizeOf(b, d.LogDir()))/1e6, accepts.Round(time.Millisecond), ready.Round(time.Millisecond))
		require.NoError(b, receiver.Close())
		b.ReportMetric(single.sustained, "single-events/s")
		b.ReportMetric(batches.sustained, "batch-events/s")
	}
}

func millis(h *hdrhistogram.Histogram, p float64) float64 {
	return float64(h.ValueAtQuantile(p)) / 1000
}

// restart kills the process and says how long it takes until it accepts an
// event and until it says that it is ready in all its parts.
func (j *journeys) restart() (accepts, ready time.Duration) {
	j.b.Helper()
	p := j.d.Processes[0]
	require.NoError(j.b, p.Kill())
	began := time.Now()
	require.NoError(j.b, p.Start(j.b.Context()))
	j.d.Post(j.b, 0, []byte(`{"action":"none"}`))
	accepts = time.Since(began)
	require.NoError(j.b, rig.Every(j.b.Context(), "it is ready", func() bool {
		status, _, err := p.Admin(j.b.Context(), "/readyz")
		return err == nil && status == 200
	}))
	return accepts, time.Since(began)
}

func sizeOf(b *testing.B, dir string) int64 {
	b.Helper()
	total := int64(0)
	require.NoError(b, walk(dir, func(_ string, size int64) { total += size }))
	return total
}

// BenchmarkGateway measures how many events a second of the gateway's processor
// time takes in, against a real Kafka with acks=all.
func BenchmarkGateway(b *testing.B) {
	r := rig.NewRunner(b, rig.Cluster)
	d := r.Start(b, rig.Options{Services: []string{"gateway"}, Copies: 1})
	cfg := loadgen.Config{URLs: d.URLs, Key: d.Key, Batch: 500, Gzip: true, Concurrency: 4, Duration: benchTime(b) / 5}
	_, err := loadgen.Run(b.Context(), cfg) // warm-up
	require.NoError(b, err)
	cfg.Duration = benchTime(b)
	for b.Loop() {
		before := cpuOf(b, d.Processes[0].Pid())
		res, err := loadgen.Run(b.Context(), cfg)
		require.NoError(b, err)
		require.Empty(b, res.Errors)
		used := cpuOf(b, d.Processes[0].Pid()) - before
		perCPU := float64(res.Accepted) / used.Seconds()
		fmt.Printf("\ngateway: %d events in %s, %.0f/s; %s of its processor time: %.0f events per CPU second; the generator took %.2f cores\n\n",
			res.Accepted, res.Took.Round(time.Millisecond), res.Rate(), used, perCPU, res.Summary().Cores)
		b.ReportMetric(perCPU, "events/cpu-s")
	}
}

// ticksPerSecond is USER_HZ, which Linux fixes for all that programs see.
const ticksPerSecond = 100

// cpuOf is the processor time of a process, from /proc.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	total := 0
	for _, i := range []int{11, 12} { // utime and stime, counted from the state
		n, err := strconv.Atoi(fields[i])
		require.NoError(b, err)
		total += n
	}
	return time.Duration(total) * time.Second / ticksPerSecond
}
