package child_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/stormbell/stormbell/tools/child"
)

// parentEnv makes the test binary act as a parent that starts a child and hangs.
const parentEnv = "STORMBELL_TEST_PARENT"

func TestMain(m *testing.M) {
	if log := os.Getenv(parentEnv); log != "" {
		p, err := child.Start([]string{"sleep", "600"}, log)
		if err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString(strconv.Itoa(p.Pid()) + "\n")
		select {}
	}
	goleak.VerifyTestMain(m)
}

func TestChildDiesWithAKilledParent(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no parent-death signal on this system")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	parent := exec.CommandContext(t.Context(), self)
	parent.Env = append(os.Environ(), parentEnv+"="+filepath.Join(t.TempDir(), "log"))
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	require.True(t, alive(pid))

	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	require.Eventually(t, func() bool { return !alive(pid) }, 10*time.Second, 5*time.Millisecond)
}

// alive is false for a zombie: where nobody reaps orphans, it stays one.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestStop(t *testing.T) {
	tests := []struct {
		name   string
		script string
		grace  time.Duration
		want   string
	}{
		{"polite", `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done`, time.Minute, "bye"},
		{"deaf", `trap '' TERM; echo ready; while :; do sleep 0.01; done`, 50 * time.Millisecond, "ready"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			p, err := child.Start([]string{"sh", "-c", tt.script}, log)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return child.Tail(log) == "ready" }, 10*time.Second, 5*time.Millisecond)
			require.NoError(t, p.Err())
			require.NoError(t, p.Stop(tt.grace))
			require.NoError(t, p.Stop(tt.grace), "a second stop does nothing")
			require.ErrorIs(t, syscall.Kill(p.Pid(), 0), syscall.ESRCH)
			require.Contains(t, child.Tail(log), tt.want)
		})
	}
}

func TestKillTellsHowItEnded(t *testing.T) {
	p, err := child.Start([]string{"sleep", "600"}, filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	require.NoError(t, p.Kill(), "a second kill does nothing")
	require.ErrorContains(t, p.Err(), "killed")
}

func TestStartAddsToTheEnvironment(t *testing.T) {
	t.Setenv("STORMBELL_TEST_A", "parent")
	log := filepath.Join(t.TempDir(), "log")
	p, err := child.Start([]string{"sh", "-c", "echo $STORMBELL_TEST_A $STORMBELL_TEST_B"}, log, "STORMBELL_TEST_B=added")
	require.NoError(t, err)
	<-p.Done()
	require.Equal(t, "parent added", child.Tail(log))
}

func TestStartOfAMissingProgramNamesIt(t *testing.T) {
	_, err := child.Start([]string{"no-such-program"}, filepath.Join(t.TempDir(), "log"))
	require.ErrorContains(t, err, "no-such-program")
}

func TestFreePortsDiffer(t *testing.T) {
	ports, err := child.FreePorts(t.Context(), 50)
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, p := range ports {
		require.False(t, seen[p], "port %d twice", p)
		seen[p] = true
	}
}

func TestTailIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("a line of a log\n", 10_000)+"the end\n"), 0o600))
	tail := child.Tail(path)
	require.Less(t, len(tail), 5<<10)
	require.True(t, strings.HasSuffix(tail, "the end"))
	require.True(t, strings.HasPrefix(tail, "a line"), "no half line")
	require.Contains(t, child.Tail(path+"-absent"), "no log")
}

func TestMissing(t *testing.T) {
	require.Equal(t, []string{"no-such-program"}, child.Missing("sh", "no-such-program"))
}
