// Package redis starts a real redis-server for tests and measurements: on a free
// loopback port, with its own directory, and with the faults that a fold must
// survive (a kill, a lost tail of the append-only file).
//
// It is no client, runs one server without replicas, and never touches a server
// that it did not start.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stormbell/stormbell/tools/certs"
	"github.com/stormbell/stormbell/tools/child"
)

const (
	program     = "redis-server"
	startLimit  = 30 * time.Second // loading a large append-only file included
	stopGrace   = 10 * time.Second
	pollEvery   = 10 * time.Millisecond
	portRetries = 3
)

// Options say what to start. The zero value is a server in memory, without
// TLS, that lets anyone on loopback in.
type Options struct {
	// Dir keeps the data, the configuration and the log. Empty: a temporary
	// directory that Stop removes.
	Dir string
	// Port is the TCP port on 127.0.0.1; 0 takes a free one.
	Port int
	// AppendOnly keeps every write in the append-only file.
	AppendOnly bool
	// Fsync says when that file is synced: always, everysec (the default) or no.
	Fsync string
	// MaxMemory in bytes, with the policy noeviction; 0 is no limit.
	MaxMemory int64
	// TLS serves TLS only, with a certificate made for the purpose.
	TLS bool
	// User and Password, set together, add an ACL user that may do everything
	// and close the default user.
	User, Password string
}

// A Server is one redis-server. Its methods are safe for concurrent use.
type Server struct {
	opts    Options
	dir     string
	ownsDir bool
	certs   certs.Files
	tls     *tls.Config

	mu   sync.Mutex
	proc *child.Process // nil while it is not running
}

// Start writes a configuration, starts redis-server and returns when it answers
// PING; ctx bounds the start, not the life. The caller must call Stop. On
// error nothing is left running and the message ends with the server's last
// words.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if missing := child.Missing(program); len(missing) > 0 {
		return nil, fmt.Errorf("start redis: %s is not installed: run make setup", program)
	}
	if (opts.User == "") != (opts.Password == "") {
		return nil, errors.New("start redis: user and password must be set together")
	}
	s := &Server{opts: opts, dir: opts.Dir}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.removeDir())
	}
	var err error
	for range portRetries {
		if err = s.launch(ctx, opts.Port); err == nil {
			return s, nil
		}
		if opts.Port != 0 || !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return nil, errors.Join(err, s.removeDir())
}

func (s *Server) prepare() error {
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "stormbell-redis-")
		if err != nil {
			return fmt.Errorf("make directory of redis: %w", err)
		}
		s.dir, s.ownsDir = dir, true
	} else if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make directory of redis: %w", err)
	}
	if !s.opts.TLS {
		return nil
	}
	var err error
	if s.certs, err = certs.Write(s.dir, time.Now()); err != nil {
		return fmt.Errorf("make certificates of redis: %w", err)
	}
	s.tls, err = certs.ClientConfig(s.certs)
	return err
}

func (s *Server) launch(ctx context.Context, port int) error {
	if port == 0 {
		ports, err := child.FreePorts(ctx, 1)
		if err != nil {
			return err
		}
		port = ports[0]
	}
	s.opts.Port = port
	if err := os.WriteFile(s.path("redis.conf"), []byte(s.config()), 0o600); err != nil {
		return fmt.Errorf("write configuration of redis: %w", err)
	}
	return s.Restart(ctx)
}

func (s *Server) config() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("bind 127.0.0.1")
	line("protected-mode no")
	line("dir %q", s.dir)
	line("daemonize no")
	line(`save ""`)
	line("maxmemory %d", s.opts.MaxMemory)
	line("maxmemory-policy noeviction")
	if s.opts.TLS {
		line("port 0\ntls-port %d", s.opts.Port)
		line("tls-cert-file %q\ntls-key-file %q\ntls-ca-cert-file %q\ntls-auth-clients no", s.certs.Cert, s.certs.Key, s.certs.CA)
	} else {
		line("port %d", s.opts.Port)
	}
	if s.opts.AppendOnly {
		fsync := s.opts.Fsync
		if fsync == "" {
			fsync = "everysec"
		}
		line("appendonly yes\nappendfsync %s", fsync)
		// A crash leaves a torn last write: load what is before it. Without
		// rewrites all writes stay in one file, so that CutTail means something.
		line("aof-load-truncated yes\nauto-aof-rewrite-percentage 0")
	}
	if s.opts.User != "" {
		line("user default off")
		line("user %s on >%s ~* &* +@all", s.opts.User, s.opts.Password)
	}
	return b.String()
}

// Addr is host:port of the server. It stays the same across Kill and Restart.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.opts.Port)) }

// TLSConfig trusts the server's certificate; it is nil without TLS. Clone it
// before changing it.
func (s *Server) TLSConfig() *tls.Config { return s.tls }

// CAFile is the PEM file of the authority that signed the server's
// certificate; it is empty without TLS.
func (s *Server) CAFile() string { return s.certs.CA }

// User and Password are what a client must present; both empty: nothing.
func (s *Server) User() string { return s.opts.User }

// Password belongs to User.
func (s *Server) Password() string { return s.opts.Password }

// Dir is where the server keeps its data.
func (s *Server) Dir() string { return s.dir }

// LogFile is the path of the server's log.
func (s *Server) LogFile() string { return s.path("redis.log") }

// Pid is the process id, 0 while the server is not running.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0
	}
	return s.proc.Pid()
}

// Kill ends the server with SIGKILL. What it had not written is lost.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(func(p *child.Process) error { return p.Kill() })
}

// end must be called with mu held.
func (s *Server) end(how func(*child.Process) error) error {
	if s.proc == nil {
		return nil
	}
	if err := how(s.proc); err != nil {
		return err
	}
	s.proc = nil
	return nil
}

// Restart starts the server again on the same port and directory, ending it
// with SIGKILL first if it still runs, and returns when it has loaded its data
// and answers.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.end(func(p *child.Process) error { return p.Kill() }); err != nil {
		return err
	}
	p, err := child.Start([]string{program, s.path("redis.conf")}, s.LogFile())
	if err != nil {
		return err
	}
	s.proc = p
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.await(ctx, p); err != nil {
		err = fmt.Errorf("start redis on port %d: %w; it said:\n%s", s.opts.Port, err, child.Tail(s.LogFile()))
		return errors.Join(err, s.end(func(p *child.Process) error { return p.Kill() }))
	}
	return nil
}

func (s *Server) await(ctx context.Context, p *child.Process) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("it ended: %w", p.Err())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Stop ends the server with SIGTERM, and removes its directory if Start made it.
// It may be called twice.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.end(func(p *child.Process) error { return p.Stop(stopGrace) })
	return errors.Join(err, s.removeDir())
}

func (s *Server) removeDir() error {
	if !s.ownsDir {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove directory of redis: %w", err)
	}
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }
