//go:build unix

package tiltfile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// editsEnv says how often each file is edited.
const editsEnv = "STORMBELL_EDITS"

// An edit changes a text in a source file that the program says on a port.
type edit struct {
	name, file, old string
	paths           []string // host ports are offsets from the first: "1/healthz"
	ready           []int    // offsets of the admin ports that must be ready after it
}

func edits(mode string) []edit {
	gateway := edit{"gateway", "services/gateway/server.go", `"/healthz", func(c *gin.Context) { c.String(http.StatusOK, "ok%s\n")`, []string{"0/healthz"}, []int{1}}
	shared := edit{"shared by all", "services/internal/telemetry/admin.go", `w.Write([]byte("ok%s\n"))`, []string{"1/healthz"}, []int{1}}
	if mode == "embedded" {
		return []edit{gateway, shared}
	}
	correlator := edit{"correlator", "services/correlator/counts.go", `"Records not yet read, by stage and partition%s."`, []string{"2/metrics"}, []int{2}}
	notifier := edit{"notifier", "services/notifier/counts.go", `"Alerts not yet routed, by partition%s."`, []string{"3/metrics"}, []int{3}}
	shared.paths, shared.ready = []string{"1/healthz", "2/healthz", "3/healthz"}, []int{1, 2, 3}
	if mode == "kubernetes" { // the stages of the correlator are apart
		correlator.paths, correlator.ready = append(correlator.paths, "6/metrics"), append(correlator.ready, 6)
		shared.paths, shared.ready = append(shared.paths, "6/healthz"), append(shared.ready, 6)
	}
	return []edit{gateway, correlator, notifier, shared}
}

// BenchmarkEdit measures how long it takes under `tilt up` until the edit of a
// Go file is served: the file is written in a copy of the repository, and the
// new text read from the port of the program that contains it. It needs
// STORMBELL_TILT.
func BenchmarkEdit(b *testing.B) {
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv(editsEnv)); err == nil {
		rounds = n
	}
	for _, mode := range []string{"cluster", "embedded", "kubernetes"} {
		b.Run(mode, func(b *testing.B) { measure(b, mode, rounds) })
	}
}

func measure(b *testing.B, mode string, rounds int) {
	args := here(b, mode)
	dir, first := clone(b), ports(b)
	args = append(args, "--data", filepath.Join(b.TempDir(), "data"), "--port", strconv.Itoa(first))
	defer down(b, mode, dir, args)
	ctx, cancel := context.WithCancel(b.Context())
	cmd := tilt(ctx, b, dir, append([]string{"up", "--port", "0", "--web-mode", "prod", "--stream", "--"}, args...)...)
	log, err := os.Create(filepath.Join(b.TempDir(), "log"))
	require.NoError(b, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(b, cmd.Start())
	defer func() {
		cancel()
		_ = cmd.Wait() // interrupted
		if b.Failed() {
			text, _ := os.ReadFile(log.Name())
			b.Log(string(text[max(0, len(text)-8<<10):]))
		}
	}()
	w := &watcher{b: b, first: first, client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	for _, e := range edits(mode) {
		w.ready(e.ready, patience)
	}
	for _, e := range edits(mode) {
		var served, ready []time.Duration
		load := loadAverage()
		for i := range rounds {
			mark := fmt.Sprintf(" %d", i+1)
			began := change(b, filepath.Join(dir, e.file), e.old, i, mark)
			for _, path := range e.paths {
				w.says(path, strings.TrimSuffix(spoken(fmt.Sprintf(e.old, mark)), "\n"), patience)
			}
			served = append(served, time.Since(began))
			w.ready(e.ready, patience)
			ready = append(ready, time.Since(began))
		}
		slices.Sort(served)
		slices.Sort(ready)
		b.Logf("%s, edit of %s: served %.1f s median, %.1f s worst; ready %.1f s, %.1f s; of %d; load %s",
			mode, e.name, served[rounds/2].Seconds(), served[rounds-1].Seconds(), ready[rounds/2].Seconds(), ready[rounds-1].Seconds(), rounds, load)
	}
}

// spoken is what stands between the first quotes of a text that ends there.
func spoken(code string) string {
	parts := strings.Split(code, `"`)
	return strings.ReplaceAll(parts[len(parts)-2], `\n`, "\n")
}

// change writes the next mark in place of the one before and returns when.
func change(b *testing.B, file, old string, round int, mark string) time.Time {
	b.Helper()
	before := ""
	if round > 0 {
		before = fmt.Sprintf(" %d", round)
	}
	text, err := os.ReadFile(file)
	require.NoError(b, err)
	changed := strings.Replace(string(text), fmt.Sprintf(old, before), fmt.Sprintf(old, mark), 1)
	require.NotEqual(b, string(text), changed, "%s lacks the text to edit", file)
	began := time.Now()
	require.NoError(b, os.WriteFile(file, []byte(changed), 0o600))
	return began
}

// clone copies what belongs to the repository as it is now, so that edits do
// not disturb who works on it.
func clone(b *testing.B) string {
	b.Helper()
	list := exec.CommandContext(b.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	require.NoError(b, err)
	dir := b.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		require.NoError(b, err)
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(b, err)
		require.NoError(b, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700))
		require.NoError(b, os.WriteFile(filepath.Join(dir, name), text, info.Mode().Perm()))
	}
	return dir
}

// A watcher polls the ports of what Tilt runs.
type watcher struct {
	b      *testing.B
	first  int
	client *http.Client
}

func (w *watcher) get(path string) (status int, body string) {
	w.b.Helper()
	offset, rest, _ := strings.Cut(path, "/")
	n, err := strconv.Atoi(offset)
	require.NoError(w.b, err)
	request, err := http.NewRequestWithContext(w.b.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/%s", w.first+n, rest), nil)
	require.NoError(w.b, err)
	response, err := w.client.Do(request)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, string(text)
}

func (w *watcher) says(path, want string, limit time.Duration) {
	w.b.Helper()
	require.Eventually(w.b, func() bool {
		_, body := w.get(path)
		return strings.Contains(body, want)
	}, limit, 20*time.Millisecond, "%s does not say %q", path, want)
}

func (w *watcher) ready(admins []int, limit time.Duration) {
	w.b.Helper()
	for _, n := range admins {
		require.Eventually(w.b, func() bool {
			status, _ := w.get(fmt.Sprintf("%d/readyz", n))
			return status == http.StatusOK
		}, limit, 20*time.Millisecond, "port %d is not ready", w.first+n)
	}
}

// listens says whether a loopback port is taken.
func listens(tb testing.TB, port int) bool {
	tb.Helper()
	var config net.ListenConfig
	l, err := config.Listen(tb.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return true
	}
	require.NoError(tb, l.Close())
	return false
}

// loadAverage is the machine's of the last minute, where it says so.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
