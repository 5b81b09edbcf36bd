// Package program runs Stormbell's programs as child processes: it waits until
// one says that it serves, asks its admin port, and ends it by process id.
package program

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/stormbell/stormbell/tools/child"
)

const (
	pollEvery  = 10 * time.Millisecond
	readyLimit = 2 * time.Minute
)

// A Process is one of Stormbell's programs. It can be killed and started again,
// with the same arguments, any number of times.
type Process struct {
	// Name is unique within its deployment, Kind is the program's role.
	Name, Kind string
	argv, env  []string
	log        string

	mu    sync.Mutex
	proc  *child.Process
	ready readyLine
}

// New describes a process without starting it. env, NAME=value, is added to the
// caller's environment; all that it prints goes to the end of the file log.
func New(name, kind string, argv, env []string, log string) *Process {
	return &Process{Name: name, Kind: kind, argv: argv, env: env, log: log}
}

// readyLine is what a program prints once it serves.
type readyLine struct {
	Message string `json:"msg"`
	Listen  string `json:"listen"`
	Admin   string `json:"admin"`
	Rules   struct{ OK, Rejected int }
}

// Program is the path of the program.
func (p *Process) Program() string { return p.argv[0] }

// Replace has the next start run another program, with the same arguments.
func (p *Process) Replace(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.argv[0] = path
}

// Setenv has the next start add env to the caller's environment, and nothing
// else.
func (p *Process) Setenv(env ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.env = env
}

// Signal sends a signal: SIGSTOP and SIGCONT make a process that is away for a
// while.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil {
		return fmt.Errorf("signal %s: it is not running", p.Name)
	}
	return p.proc.Signal(sig)
}

// AwaitEnd returns when the process has ended by itself.
func (p *Process) AwaitEnd(ctx context.Context) error {
	p.mu.Lock()
	proc := p.proc
	p.mu.Unlock()
	select {
	case <-proc.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s has not ended: %w; it said:\n%s", p.Name, ctx.Err(), child.Tail(p.log))
	}
}

// Launch starts the process without waiting for it to be ready.
func (p *Process) Launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	proc, err := child.Start(p.argv, p.log, p.env...)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.proc = proc
	return nil
}

// Start starts the process and returns when it says that it is ready.
func (p *Process) Start(ctx context.Context) error {
	from, err := size(p.log)
	if err != nil {
		return err
	}
	if err := p.Launch(); err != nil {
		return err
	}
	return p.AwaitReady(ctx, from)
}

func size(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at log: %w", err)
	}
	return info.Size(), nil
}

// AwaitReady returns when the ready line stands in the log behind a place.
func (p *Process) AwaitReady(ctx context.Context, from int64) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	p.mu.Lock()
	proc := p.proc
	p.mu.Unlock()
	for {
		line, ok, err := readyIn(p.log, from)
		if err != nil {
			return err
		}
		if ok {
			p.mu.Lock()
			p.ready = line
			p.mu.Unlock()
			return nil
		}
		select {
		case <-proc.Done():
			return fmt.Errorf("%s ended before it was ready: %w; it said:\n%s", p.Name, proc.Err(), child.Tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; it said:\n%s", p.Name, ctx.Err(), child.Tail(p.log))
		case <-tick.C:
		}
	}
}

// readyIn looks for the ready line, which alone names the admin port.
func readyIn(path string, from int64) (readyLine, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return readyLine{}, false, fmt.Errorf("read log: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return readyLine{}, false, fmt.Errorf("read log: %w", err)
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line readyLine
		if bytes.Contains(lines.Bytes(), []byte(`"msg":"ready"`)) && json.Unmarshal(lines.Bytes(), &line) == nil && line.Admin != "" {
			return line, true, nil
		}
	}
	return readyLine{}, false, nil // a line that is being written is read again
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end((*child.Process).Kill)
}

// Stop ends the process with SIGTERM.
func (p *Process) Stop(grace time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end(func(c *child.Process) error { return c.Stop(grace) })
}

// end must be called with mu held.
func (p *Process) end(how func(*child.Process) error) error {
	if p.proc == nil {
		return nil
	}
	if err := how(p.proc); err != nil {
		return fmt.Errorf("end %s: %w", p.Name, err)
	}
	p.proc = nil
	return nil
}

// Pid is the process id, 0 while it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil {
		return 0
	}
	return p.proc.Pid()
}

// Rules is how many rules it said were in force and rejected.
func (p *Process) Rules() (ok, rejected int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready.Rules.OK, p.ready.Rules.Rejected
}

// Said counts how often a text is in all that it printed.
func (p *Process) Said(text string) (int, error) {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return 0, fmt.Errorf("read log of %s: %w", p.Name, err)
	}
	return bytes.Count(b, []byte(text)), nil
}

// LogFile is the path of all that it printed.
func (p *Process) LogFile() string { return p.log }

// Admin fetches a page of the admin port.
func (p *Process) Admin(ctx context.Context, path string) (int, string, error) {
	p.mu.Lock()
	addr := p.ready.Admin
	p.mu.Unlock()
	return get(ctx, "http://"+addr+path)
}

func get(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", fmt.Errorf("build request: %w", err)
	}
	req.Close = true // servers come and go
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("get %s: %w", url, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return 0, "", fmt.Errorf("read %s: %w", url, err)
	}
	return resp.StatusCode, string(body), nil
}

// Every polls ok until it holds, for what has no channel to wait on. Looking takes
// a fifth of the time at most, so that who is looked at gets on, and no pause is long.
func Every(ctx context.Context, what string, ok func() bool) error {
	for {
		began := time.Now()
		if ok() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-time.After(min(max(pollEvery, 4*time.Since(began)), 20*pollEvery)):
		}
	}
}
