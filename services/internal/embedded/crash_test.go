package embedded

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// child serves a log until it is killed.
func child(dir string) {
	b, err := Open(testConfig(dir), quiet(), time.Now)
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(1)
	}
	fmt.Println("ready", b.Addr())
	_ = b.Run(context.Background())
}

// startChild re-executes the test binary as a broker on dir.
func startChild(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	require.True(t, ok, line)
	return cmd, addr
}

// acknowledged maps the offset of each acknowledged batch to its value.
type acknowledged struct {
	mu      sync.Mutex
	offsets map[int]map[int64]string // by partition
}

// produceUntilKilled writes from several connections until one fails.
func (a *acknowledged) produceUntilKilled(addr string, round int) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			transport := &kafka.Transport{}
			defer transport.CloseIdleConnections()
			c := &kafka.Client{Addr: kafka.TCP(addr), Transport: transport, Timeout: 5 * time.Second}
			for i := 0; ; i++ {
				part := (worker + i) % 2
				value := fmt.Sprintf("%d-%d-%d-%s", round, worker, i, strings.Repeat("x", rand.IntN(2000)))
				offset, err := produce(context.Background(), c, events, part, []byte(value))
				if err != nil {
					return
				}
				a.mu.Lock()
				a.offsets[part][offset] = value
				a.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	const rounds = 20
	dir := t.TempDir()
	ledger := acknowledged{offsets: map[int]map[int64]string{0: {}, 1: {}}}
	for round := range rounds {
		cmd, addr := startChild(t, dir)
		if round == 0 {
			transport := &kafka.Transport{}
			createTopic(t, &kafka.Client{Addr: kafka.TCP(addr), Transport: transport}, events, 2)
			transport.CloseIdleConnections()
		}
		timer := time.AfterFunc(time.Duration(20+rand.IntN(100))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		ledger.produceUntilKilled(addr, round)
		timer.Stop()
		_ = cmd.Process.Kill()
		require.Error(t, cmd.Wait(), "killed")
	}
	b := mustOpen(t, testConfig(dir), time.Now)
	c := client(t, b)
	total := 0
	for part, want := range ledger.offsets {
		got := readAll(t, c, events, part, 0)
		for offset, value := range want {
			require.Less(t, offset, int64(len(got)), "acknowledged record is gone")
			require.Equal(t, value, got[offset])
		}
		total += len(want)
	}
	require.Greater(t, total, rounds, "the rounds must have produced")
	t.Logf("%d records acknowledged in %d rounds, none lost", total, rounds)
}
