//go:build unix

package readme_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	root = "../.."
	// patience bounds the wait for a line.
	patience = time.Minute
)

// block is a fenced block with the comment that stands before it.
type block struct {
	what, name string // run, quiet, start, see or file
	line       int
	text       string
	want       string // of a run: the text block that follows
}

// TestReadme goes through README.md and then each guide as a reader does.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles and runs all of Stormbell")
	}
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, guides)
	bin := filepath.Join(t.TempDir(), "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	for _, page := range append([]string{filepath.Join(root, "README.md")}, guides...) {
		name, err := filepath.Rel(root, page)
		require.NoError(t, err)
		if !t.Run(name, func(t *testing.T) { read(t, page, name, bin) }) && name == "README.md" {
			return // it builds what the others run
		}
	}
}

// read does what a page says.
func read(t *testing.T, page, name, bin string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, program := range []string{"make", "curl", "python3", "npm"} {
		used := regexp.MustCompile("(?m)^" + program + "\\b")
		if _, err := exec.LookPath(program); err != nil && used.Match(text) {
			require.NotEqual(t, "1", os.Getenv("STORMBELL_REQUIRE_REAL"), "%s is missing: run make setup", program)
			t.Skipf("%s needs %s", name, program)
		}
	}
	s := newSession(t, bin)
	for _, b := range parse(t, name, string(text)) {
		where := fmt.Sprintf("%s:%d", name, b.line)
		switch b.what {
		case "start":
			s.start(b.name, b.text)
		case "see":
			s.see(where, b.name, b.text)
		case "file":
			s.file(b.name, b.text)
		case "quiet":
			require.Empty(t, s.run(where, b.text), where)
		case "run":
			got := s.run(where, b.text)
			require.True(t, shows(normal(b.want), normal(got)), "%s\nwant:\n%s\ngot:\n%s", where, normal(b.want), normal(got))
		}
	}
}

// TestBlocksAreMarked holds that each command of a page is run, or says where
// it was.
func TestBlocksAreMarked(t *testing.T) {
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	require.NoError(t, err)
	for _, page := range append(guides, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		before := ""
		for n, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "```sh") {
				require.Regexp(t, `^<!-- (run|quiet|start [a-z]+|file \S+|elsewhere: .+) -->$`, before, "%s:%d: say what becomes of the block", page, n+1)
			}
			if line != "" {
				before = line
			}
		}
	}
}

func TestShows(t *testing.T) {
	for _, tc := range []struct {
		want, got string
		shown     bool
	}{
		{"a\nb", "a\nb", true},
		{"a\nb", "a\nc", false},
		{"a", "a\nb", false},
		{"a\n…", "a\nb\nc", true},
		{"a\n…\nc", "a\nb\nc", true},
		{"a\n…\nd", "a\nb\nc", false},
		{"…\nc", "a\nb\nc", true},
		{"…\nb", "a\nb\nc", false},
		{"", "", true},
		{"", "a", false},
	} {
		require.Equal(t, tc.shown, shows(tc.want, tc.got), "%q %q", tc.want, tc.got)
	}
}

// shows reports whether lines are what a page shows of them: a line of … stands
// for any number of lines.
func shows(want, got string) bool {
	var match func(want, got []string) bool
	match = func(want, got []string) bool {
		switch {
		case len(want) == 0:
			return len(got) == 0
		case want[0] == "…":
			return match(want[1:], got) || len(got) > 0 && match(want, got[1:])
		}
		return len(got) > 0 && want[0] == got[0] && match(want[1:], got[1:])
	}
	return match(strings.Split(want, "\n"), strings.Split(got, "\n"))
}

func parse(t *testing.T, page, text string) (blocks []block) {
	t.Helper()
	comment := regexp.MustCompile(`^<!-- (run|quiet|start|see|file)(?: ([\w./-]+))? -->$`)
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		m := comment.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		b := block{what: m[1], name: m[2], line: i + 1}
		b.text, i = fenced(t, page, lines, i+1)
		if b.what == "run" {
			b.want, i = fenced(t, page, lines, i+1)
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// fenced returns the next block and the line of its end.
func fenced(t *testing.T, page string, lines []string, from int) (text string, end int) {
	t.Helper()
	for from < len(lines) && !strings.HasPrefix(lines[from], "```") {
		from++
	}
	end = from + 1
	for end < len(lines) && lines[end] != "```" {
		end++
	}
	require.Less(t, end, len(lines), "%s:%d: a fenced block is missing or has no end", page, from)
	return strings.Join(lines[from+1:end], "\n"), end
}

// session is the directory and the environment of one reader.
type session struct {
	t       *testing.T
	dir     string
	env     []string
	ports   *strings.Replacer
	running map[string]*output
}

func newSession(t *testing.T, bin string) *session {
	t.Helper()
	s := &session{t: t, dir: t.TempDir(), running: make(map[string]*output)}
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		if slices.Contains([]string{"bin", ".bin", ".git"}, e.Name()) {
			continue
		}
		at, err := filepath.Abs(filepath.Join(root, e.Name()))
		require.NoError(t, err)
		require.NoError(t, os.Symlink(at, filepath.Join(s.dir, e.Name())))
	}
	require.NoError(t, os.Symlink(bin, filepath.Join(s.dir, "bin")))
	home := t.TempDir()
	api, admin := freeAddr(t), freeAddr(t)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HOME=") && !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "STORMBELL_") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "HOME="+home, "STORMBELL_GATEWAY_LISTEN="+api, "STORMBELL_TELEMETRY_ADMIN="+admin, "STORMBELL_URL=http://"+api)
	// Go's own directories hang on the home directory.
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOENV"} {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		require.NoError(t, err)
		s.env = append(s.env, name+"="+strings.TrimSpace(string(out)))
	}
	swap := []string{"127.0.0.1:8080", api, "127.0.0.1:8081", admin}
	for _, receiver := range []string{"127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"} {
		swap = append(swap, receiver, freeAddr(t))
	}
	s.ports = strings.NewReplacer(swap...)
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func (s *session) command(script string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), "sh", "-eu", "-c", s.ports.Replace(script))
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // make and what it starts end together
	return cmd
}

// run returns what a block prints.
func (s *session) run(where, script string) string {
	s.t.Helper()
	out, err := s.command(script).CombinedOutput()
	require.NoError(s.t, err, "%s: %s", where, out)
	return string(out)
}

// file writes what a page tells to write.
func (s *session) file(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(s.t, os.WriteFile(path, []byte(s.ports.Replace(text)+"\n"), 0o644))
}

// start leaves a block running until the test ends.
func (s *session) start(name, script string) {
	s.t.Helper()
	cmd, out := s.command(script), &output{news: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(s.t, cmd.Start())
	s.running[name] = out
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		out.end()
		close(ended)
	}()
	s.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
}

// see waits until all lines have come out, in their order.
func (s *session) see(where, name, want string) {
	s.t.Helper()
	out := s.running[name]
	require.NotNil(s.t, out, "%s: nothing runs as %q", where, name)
	deadline := time.After(patience)
	for {
		text, news, ended := out.read()
		if contains(normal(text), normal(want)) {
			return
		}
		require.False(s.t, ended, "%s: %q has ended\nwant:\n%s\ngot:\n%s", where, name, want, text)
		select {
		case <-news:
		case <-deadline:
			require.Fail(s.t, "not seen", "%s\nwant:\n%s\ngot:\n%s", where, want, text)
		}
	}
}

// contains reports whether the lines of want are among those of text, in order.
func contains(text, want string) bool {
	rest := strings.Split(text, "\n")
	for line := range strings.SplitSeq(want, "\n") {
		i := slices.Index(rest, line)
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	return true
}

// output is what a running block has printed so far.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ended bool
	news  chan struct{} // closed when there is more
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.tellLocked()
	return o.text.Write(p)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.tellLocked()
}

func (o *output) tellLocked() {
	close(o.news)
	o.news = make(chan struct{})
}

func (o *output) read() (text string, news <-chan struct{}, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.news, o.ended
}

// normal replaces what differs from run to run.
func normal(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{`sbk_[0-9a-v_]+`, "KEY"},
		{`(msg|wh)_[0-9a-v]+`, "${1}_ID"},
		{`\b[0-9a-v]{32}\b`, "ID"},
		{`\b[0-9a-f]{64}\b`, "HASH"},
		{`whsec_[A-Za-z0-9+/=]+`, "SECRET"},
		{`\b[0-9a-f]{32}\b`, "HASH"},
		{`"rules":\{"ok":[0-9]+`, `"rules":{"ok":N`},
		{`: version [0-9a-f]{12}\b`, ": version V"},
		{`manifest: [0-9a-f]+`, "manifest: HASH"},
		{`"revision":"[0-9a-z]+"`, `"revision":"R"`},
		{`time: [0-9.]+ s, events per second: [0-9]+`, "time: T"},
		{`after [0-9]+ ms`, "after N ms"},
		{`\b[0-9]+[smh] ago`, "N ago"},
		{`127\.0\.0\.1:[0-9]+`, "ADDRESS"},
		{`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`, "TIME"},
		{`"file":"[^"]*"`, `"file":"FILE"`},
		{`[ \t]+(\n|$)`, "$1"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return strings.TrimSpace(text)
}
