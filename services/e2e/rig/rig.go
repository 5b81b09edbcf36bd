package rig

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/stormbell/stormbell/services/e2e/program"
	"github.com/stormbell/stormbell/services/internal/bus"
	"github.com/stormbell/stormbell/services/internal/seal"
	"github.com/stormbell/stormbell/tools/child"
	"github.com/stormbell/stormbell/tools/kafka"
	"github.com/stormbell/stormbell/tools/redis"
)

// RunnersEnv selects the ways to run, separated by commas.
const RunnersEnv = "STORMBELL_RUNNERS"

// Ways to run.
const (
	Embedded = "embedded"
	Cluster  = "cluster"
)

// Partitions of the topics that have several. More cost time at every
// rebalance and show no more.
const Partitions = 4

// A Runner makes deployments of one kind. A cluster's share a Kafka, each with
// topics of its own.
type Runner struct {
	Kind  string
	Kafka *kafka.Cluster // nil where embedded
}

// NewRunner returns the runner of a kind, or skips the test: where it was not
// selected, or where a cluster has no Java or no redis-server.
func NewRunner(t testing.TB, kind string) *Runner {
	t.Helper()
	Select(t, kind)
	r := &Runner{Kind: kind}
	if kind == Cluster {
		redis.Require(t)
		r.Kafka = kafka.ForTest(t)
	}
	return r
}

// Select skips the test where the way to run was not selected.
func Select(t testing.TB, kind string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs whole processes: not under -short")
	}
	if chosen := os.Getenv(RunnersEnv); chosen != "" && !slices.Contains(strings.Split(chosen, ","), kind) {
		t.Skipf("%s=%s leaves out %s", RunnersEnv, chosen, kind)
	}
}

// Options say what a deployment is like beyond the defaults.
type Options struct {
	// Rules is a directory of rules that are in force before Start returns.
	Rules string
	// Settings are lines of YAML per group, such as "gateway": "lateness: 5m".
	Settings map[string]string
	// Env is added to the environment of every process, NAME=value.
	Env []string
	// Services of a cluster; none is all of them. Copies of each; 0 is two.
	Services []string
	Copies   int
	// From is a cluster that this one is restored from: it takes its root key and
	// API key, and calls Restore with its settings before any service starts.
	From    *Deployment
	Restore func(config string)
	// Redis returns where a cluster finds the Redis at an address: what stands
	// between the two. nil is nothing.
	Redis func(addr string) string
}

// A Process is one of Stormbell's programs.
type Process = program.Process

// AwaitDrained returns when what was in the log at the call has been read by
// every stage in turn.
func (d *Deployment) AwaitDrained(ctx context.Context) error {
	return program.Fleet{Processes: d.Processes, Partitions: Partitions}.AwaitDrained(ctx)
}

// AwaitOwned returns when some process that lives reads each partition of every
// stage.
func (d *Deployment) AwaitOwned(ctx context.Context) error {
	return program.Fleet{Processes: d.Processes, Partitions: Partitions}.AwaitOwned(ctx)
}

// A Deployment is one running Stormbell. Its methods are safe for concurrent use
// unless they say otherwise.
type Deployment struct {
	Kind string
	// Dir holds settings, root key, logs and, embedded, the data.
	Dir string
	// Key is an API key with all scopes, URLs are the gateways.
	Key  string
	URLs []string
	// Processes in the order of their start.
	Processes []*Process
	// Kafka and Redis are nil where embedded.
	Kafka *kafka.Cluster
	Redis *redis.Server

	prefix  string
	config  string // the file
	brokers []string
	root    string
	t       testing.TB
}

// Start runs a deployment until the test ends. If the test fails, logs are kept
// and their ends reported.
func (r *Runner) Start(t testing.TB, opts Options) *Deployment {
	t.Helper()
	d := &Deployment{Kind: r.Kind, Dir: t.TempDir(), Kafka: r.Kafka, t: t}
	t.Cleanup(d.close)
	d.prefix = "e2e" + random() + "."
	if r.Kind == Embedded {
		d.startEmbedded(t, opts)
	} else {
		d.startCluster(t, opts)
	}
	return d
}

func random() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (d *Deployment) startEmbedded(t testing.TB, opts Options) {
	t.Helper()
	ports, err := child.FreePorts(t.Context(), 1)
	require.NoError(t, err)
	listen := fmt.Sprintf("127.0.0.1:%d", ports[0])
	settings := map[string]string{}
	merge(settings, opts.Settings)
	argv := []string{
		Program("stormbell"), "up", "--data", d.Data(), "--listen", listen, "--admin", "127.0.0.1:0",
		"--config", d.settings(t, settings), "--no-default-rules",
	}
	if opts.Rules != "" {
		argv = append(argv, "--rules", opts.Rules)
	}
	d.URLs = []string{"http://" + listen}
	p := d.add("up", "up", argv, opts.Env)
	require.NoError(t, p.Start(t.Context()))
	d.readKey(t, filepath.Join(d.Data(), "api-key"))
	if opts.Rules != "" {
		_, rejected := p.Rules()
		require.Zero(t, rejected, "rules were rejected:\n%s", child.Tail(p.LogFile()))
	}
}

func (d *Deployment) readKey(t testing.TB, path string) {
	t.Helper()
	key, err := os.ReadFile(path)
	require.NoError(t, err)
	d.Key = strings.TrimSpace(string(key))
}

// Data is the data directory of an embedded deployment.
func (d *Deployment) Data() string { return filepath.Join(d.Dir, "data") }

// clusterOf is how many of each service a cluster has.
const clusterOf = 2

func (d *Deployment) startCluster(t testing.TB, opts Options) {
	t.Helper()
	d.brokers = d.Kafka.Brokers()
	d.Redis = redis.ForTest(t, func(o *redis.Options) { o.AppendOnly, o.Fsync = true, "everysec" })
	redisAddr := d.Redis.Addr()
	if opts.Redis != nil {
		redisAddr = opts.Redis(redisAddr)
	}
	d.root = filepath.Join(d.Dir, "root-key")
	if opts.From != nil {
		d.root = opts.From.root
	} else {
		_, err := seal.CreateRoot(d.root)
		require.NoError(t, err)
	}
	settings := map[string]string{
		"kafka":  fmt.Sprintf("brokers: [%s]\ntopic_prefix: %s", strings.Join(d.brokers, ", "), d.prefix),
		"topics": fmt.Sprintf("partitions: %d\nreplication_factor: %d", Partitions, len(d.brokers)),
		"redis":  fmt.Sprintf("addrs: [%q]", redisAddr),
		"seal":   fmt.Sprintf("root_key_file: %q", d.root),
		"egress": "allow: [127.0.0.0/8]\nallow_http: true",
	}
	merge(settings, opts.Settings)
	config := d.settings(t, settings)
	d.config = config
	d.addServices(t, config, opts)
	if opts.Restore != nil {
		opts.Restore(config)
	}
	for _, p := range d.Processes {
		require.NoError(t, p.Launch())
	}
	for _, p := range d.Processes {
		require.NoError(t, p.AwaitReady(t.Context(), 0))
	}
	if opts.From != nil {
		d.Key = opts.From.Key
	} else {
		key := filepath.Join(d.Dir, "api-key")
		_, _, err := d.Stormbell(t.Context(), 0, "keys", "bootstrap", "--config", config, "--out", key)
		require.NoError(t, err)
		d.readKey(t, key)
	}
	if opts.Rules != "" {
		d.PushRules(t, opts.Rules)
	}
}

// addServices adds the processes of a cluster, not yet started.
func (d *Deployment) addServices(t testing.TB, config string, opts Options) {
	t.Helper()
	services, copies := opts.Services, opts.Copies
	if len(services) == 0 {
		services = []string{"gateway", "correlator", "notifier"}
	}
	if copies == 0 {
		copies = clusterOf
	}
	ports, err := child.FreePorts(t.Context(), copies)
	require.NoError(t, err)
	for _, kind := range services {
		for i := range copies {
			argv := []string{Program(kind), "--config", config, "--admin", "127.0.0.1:0"}
			if kind == "gateway" {
				listen := fmt.Sprintf("127.0.0.1:%d", ports[i])
				argv = append(argv, "--listen", listen)
				d.URLs = append(d.URLs, "http://"+listen)
			}
			d.add(fmt.Sprintf("%s-%d", kind, i), kind, argv, opts.Env)
		}
	}
}

// Join adds one more process of a service to a cluster, with more arguments, and
// starts it.
func (d *Deployment) Join(t testing.TB, kind, name string, args ...string) *Process {
	t.Helper()
	p := d.add(name, kind, append([]string{Program(kind), "--config", d.config, "--admin", "127.0.0.1:0"}, args...), nil)
	require.NoError(t, p.Start(t.Context()))
	return p
}

// JoinTLS adds a gateway that serves with a certificate and returns where.
func (d *Deployment) JoinTLS(t testing.TB, name, certFile, keyFile string) (p *Process, addr string) {
	t.Helper()
	ports, err := child.FreePorts(t.Context(), 1)
	require.NoError(t, err)
	addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	argv := []string{Program("gateway"), "--config", d.config, "--admin", "127.0.0.1:0", "--listen", addr}
	p = d.add(name, "gateway", argv, []string{"STORMBELL_GATEWAY_TLS_CERT_FILE=" + certFile, "STORMBELL_GATEWAY_TLS_KEY_FILE=" + keyFile})
	require.NoError(t, p.Start(t.Context()))
	return p, addr
}

// Config is the file of a cluster's settings.
func (d *Deployment) Config() string { return d.config }

// RootKey is the file of root keys.
func (d *Deployment) RootKey() string { return d.root }

// Tenant makes a tenant of a cluster and returns an API key of its own.
func (d *Deployment) Tenant(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(d.Dir, "key-"+name)
	_, _, err := d.Stormbell(t.Context(), 0, "keys", "bootstrap", "--config", d.config, "--tenant", name, "--out", path)
	require.NoError(t, err)
	key, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.TrimSpace(string(key))
}

// Topic is the full name of a topic of a cluster.
func (d *Deployment) Topic(topic string) string { return d.prefix + topic }

// merge adds lines to groups of settings.
func merge(settings, more map[string]string) {
	for group, lines := range more {
		settings[group] = strings.TrimPrefix(settings[group]+"\n"+lines, "\n")
	}
}

// settings writes the file of settings.
func (d *Deployment) settings(t testing.TB, groups map[string]string) string {
	t.Helper()
	var b strings.Builder
	for group, lines := range groups {
		fmt.Fprintf(&b, "%s:\n", group)
		for line := range strings.Lines(lines) {
			fmt.Fprintf(&b, "  %s\n", strings.TrimRight(line, "\n"))
		}
	}
	path := filepath.Join(d.Dir, "stormbell.yaml")
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o600))
	return path
}

func (d *Deployment) add(name, kind string, argv, env []string) *Process {
	p := program.New(name, kind, argv, env, filepath.Join(d.Dir, name+".log"))
	d.Processes = append(d.Processes, p)
	return p
}

// Stop ends all processes politely, so that their topics can be read whole.
func (d *Deployment) Stop(t testing.TB) {
	t.Helper()
	for _, p := range d.Processes {
		require.NoError(t, p.Stop(stopGrace))
	}
}

const stopGrace = 30 * time.Second

func (d *Deployment) close() {
	for _, p := range d.Processes {
		if err := p.Kill(); err != nil {
			d.t.Error(err)
		}
	}
	if !d.t.Failed() {
		return
	}
	kept, err := os.MkdirTemp("", "stormbell-e2e-logs-")
	if err != nil {
		return // the test has failed for another reason
	}
	for _, p := range d.Processes {
		d.t.Logf("last words of %s:\n%s", p.Name, child.Tail(p.LogFile()))
		if b, err := os.ReadFile(p.LogFile()); err == nil {
			_ = os.WriteFile(filepath.Join(kept, filepath.Base(p.LogFile())), b, 0o600)
		}
	}
	d.t.Logf("their whole logs: %s", kept)
}

// busConfig reaches the cluster's brokers, or another's.
func (d *Deployment) busConfig(brokers []string) bus.Config {
	cfg := bus.DefaultConfig()
	cfg.Brokers = brokers
	if d.Kind == Cluster {
		cfg.TopicPrefix = d.prefix
	}
	return cfg
}

// Secret is a random string that appears nowhere else.
func Secret() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Every polls ok until it holds, for what has no channel to wait on.
func Every(ctx context.Context, what string, ok func() bool) error {
	return program.Every(ctx, what, ok)
}
