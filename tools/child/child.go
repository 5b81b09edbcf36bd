// Package child runs a foreign server as a child of a test or a command: its
// output goes to a file, it is ended by its own process id, and on Linux it
// dies with its parent, however the parent ends.
//
// It knows nothing of what it runs, never restarts anything by itself and never
// looks for processes by name.
package child

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// tailBytes bounds how much of a log an error message or a test report shows.
const tailBytes = 4 << 10

// A Process is one running child. Its methods are safe for concurrent use.
type Process struct {
	pid  int
	done chan struct{}
	err  error // set before done is closed
}

// Start runs argv with its output appended to the file logPath, and returns once
// the process exists. env, in the form NAME=value, is added to the parent's
// environment. The caller must end the process with Kill or Stop.
func Start(argv []string, logPath string, env ...string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", argv[0], err)
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the callers fix the program; its life is not bounded by a context but by Kill and Stop
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = attributes()
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	go p.own(cmd, log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return p, nil
}

// own starts cmd and waits for it on one thread: Linux sends the parent-death
// signal when the starting thread ends, so that thread must outlive the child.
func (p *Process) own(cmd *exec.Cmd, log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() { _ = log.Close() }() // written by the child, nothing of ours is buffered
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.pid = cmd.Process.Pid
	started <- nil
	p.err = cmd.Wait()
	close(p.done)
}

// Pid is the process id. It is stale once Done is closed.
func (p *Process) Pid() int { return p.pid }

// Done is closed when the process has ended and has been reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended; it is nil while the process runs and after a
// clean exit.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Kill ends the process with SIGKILL, so that it has no chance to tidy up, and
// returns when it is gone. Killing an ended process does nothing.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL, 0) }

// Stop asks the process to end with SIGTERM, waits for at most grace and then
// kills it. Stopping an ended process does nothing.
func (p *Process) Stop(grace time.Duration) error { return p.end(syscall.SIGTERM, grace) }

func (p *Process) end(sig syscall.Signal, grace time.Duration) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.signal(sig); err != nil {
		return err
	}
	if sig != syscall.SIGKILL {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.done:
			return nil
		case <-timer.C:
		}
		if err := p.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	<-p.done
	return nil
}

// Signal sends sig, for instance SIGSTOP and SIGCONT. Signalling an ended
// process does nothing.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
		return p.signal(sig)
	}
}

func (p *Process) signal(sig syscall.Signal) error {
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// Tail returns the last lines of the file at path, a few kilobytes of them, and
// says so if it cannot be read.
func Tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return strings.TrimSpace(string(b))
}
