package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/e2e/program"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/tools/child"
	"github.com/stormbell/stormbell/tools/kafka"
	"github.com/stormbell/stormbell/tools/redis"
)

const (
	partitions = 4
	stopGrace  = 15 * time.Second

	// trail is the source of the story's CloudTrail records: a trail is written
	// as files, and the day's are as old as the day is long.
	trail    = "trail"
	settings = `gateway:
  sources:
    - name: ` + trail + `
      format: cloudtrail
      product: aws
      service: cloudtrail
      lateness: 12h
`
	clusterSettings = `kafka:
  brokers: [%s]
topics:
  partitions: %d
  replication_factor: 1
redis:
  addrs: [%q]
seal:
  root_key_file: %q
egress:
  allow: [127.0.0.0/8]
  allow_http: true
`
)

// A teller prints what happens.
type teller func(format string, args ...any)

// A stage is a running Stormbell.
type stage struct {
	opts  Options
	dir   string
	url   string
	key   string
	rules int
	fleet program.Fleet
	// closers end what was started, the last first.
	closers []func() error
}

// close ends all that was started, by process id, and removes what it wrote.
func (s *stage) close() error {
	var err error
	for _, one := range slices.Backward(s.closers) {
		err = errors.Join(err, one())
	}
	s.closers = nil
	return err
}

// open makes the directory and starts everything in it. What was started is
// ended by close also where open fails.
func (s *stage) open(ctx context.Context, tell teller, env []string) error {
	dir, err := os.MkdirTemp("", "stormbell-demo-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	s.dir = dir
	s.closers = append(s.closers, func() error { return os.RemoveAll(dir) })
	ports, err := child.FreePorts(ctx, 1)
	if err != nil {
		return err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", ports[0])
	s.url, s.fleet.Partitions = "http://"+listen, partitions
	if s.opts.Cluster {
		err = s.cluster(ctx, tell, listen, env)
	} else {
		err = s.embedded(ctx, listen, env)
	}
	return err
}

// embedded is everything in one process.
func (s *stage) embedded(ctx context.Context, listen string, env []string) error {
	config, err := s.config(settings)
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	argv := []string{s.program("stormbell"), "up", "--data", data, "--listen", listen, "--admin", "127.0.0.1:0", "--config", config}
	if !s.opts.Shipped {
		argv = append(argv, "--no-default-rules", "--rules", s.opts.Rules)
	}
	up := s.add("up", argv, env)
	if err := up.Start(ctx); err != nil {
		return err
	}
	ok, rejected := up.Rules()
	if rejected > 0 {
		return fmt.Errorf("%d rules were rejected:\n%s", rejected, child.Tail(up.LogFile()))
	}
	s.rules = ok
	return s.readKey(filepath.Join(data, "api-key"))
}

// cluster is gateway, correlator and notifier on a real Kafka and a real Redis.
func (s *stage) cluster(ctx context.Context, tell teller, listen string, env []string) error {
	broker, store, err := s.servers(ctx, tell)
	if err != nil {
		return err
	}
	root := filepath.Join(s.dir, "root-key")
	if _, err := seal.CreateRoot(root); err != nil {
		return fmt.Errorf("make a root key: %w", err)
	}
	config, err := s.config(settings + fmt.Sprintf(clusterSettings, strings.Join(broker.Brokers(), ", "), partitions, store.Addr(), root))
	if err != nil {
		return err
	}
	for _, kind := range []string{"gateway", "correlator", "notifier"} {
		argv := []string{s.program(kind), "--config", config, "--admin", "127.0.0.1:0"}
		if kind == "gateway" {
			argv = append(argv, "--listen", listen)
		}
		if err := s.add(kind, argv, env).Launch(); err != nil {
			return err
		}
	}
	for _, p := range s.fleet.Processes {
		if err := p.AwaitReady(ctx, 0); err != nil {
			return err
		}
		tell("  %s, process %d", p.Name, p.Pid())
	}
	key := filepath.Join(s.dir, "api-key")
	if _, err := s.stormbell(ctx, "keys", "bootstrap", "--config", config, "--out", key); err != nil {
		return err
	}
	if err := s.readKey(key); err != nil {
		return err
	}
	_, err = s.stormbell(ctx, "rules", "push", s.opts.Rules)
	return err
}

// servers starts what a cluster runs on.
func (s *stage) servers(ctx context.Context, tell teller) (*kafka.Cluster, *redis.Server, error) {
	broker, err := kafka.Start(ctx, kafka.Options{Dir: filepath.Join(s.dir, "kafka")})
	if err != nil {
		return nil, nil, err
	}
	s.closers = append(s.closers, broker.Stop)
	tell("  Apache Kafka at %s", strings.Join(broker.Brokers(), ", "))
	store, err := redis.Start(ctx, redis.Options{Dir: filepath.Join(s.dir, "redis"), AppendOnly: true})
	if err != nil {
		return nil, nil, err
	}
	s.closers = append(s.closers, store.Stop)
	tell("  Redis at %s", store.Addr())
	return broker, store, nil
}

func (s *stage) program(name string) string { return filepath.Join(s.opts.Bin, name) }

func (s *stage) add(kind string, argv, env []string) *program.Process {
	p := program.New(kind, kind, argv, env, filepath.Join(s.dir, kind+".log"))
	s.fleet.Processes = append(s.fleet.Processes, p)
	s.closers = append(s.closers, func() error { return p.Stop(stopGrace) })
	return p
}

func (s *stage) config(text string) (string, error) {
	path := filepath.Join(s.dir, "stormbell.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write settings: %w", err)
	}
	return path, nil
}

func (s *stage) readKey(path string) error {
	key, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read API key: %w", err)
	}
	s.key = strings.TrimSpace(string(key))
	return nil
}

// stormbell runs the command line against the stage and returns what it
// printed. The key goes by the environment.
func (s *stage) stormbell(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.program("stormbell"), args...)
	cmd.Env = append(os.Environ(), "STORMBELL_API_KEY="+s.key, "STORMBELL_URL="+s.url)
	var out, diagnostics strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("stormbell %s: %w\n%s%s", args[0], err, out.String(), diagnostics.String())
	}
	return out.String(), nil
}

// lastWords are the ends of what the processes said, for a failure.
func (s *stage) lastWords() string {
	var b strings.Builder
	for _, p := range s.fleet.Processes {
		fmt.Fprintf(&b, "\nlast words of %s:\n%s\n", p.Name, child.Tail(p.LogFile()))
	}
	return b.String()
}
