// Package kafka starts a real Apache Kafka for tests and measurements: one node
// or three, in KRaft mode, from Maven artifacts, on free loopback ports and with
// data directories of their own.
//
// It is no client, creates no topics, and never touches a broker that it did
// not start.
package kafka

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stormbell/stormbell/tools/certs"
	"github.com/stormbell/stormbell/tools/child"
)

const (
	startLimit   = 2 * time.Minute
	stopGrace    = 15 * time.Second
	portRetries  = 3
	portsPerNode = 3
)

// credential is what may stand in a JAAS line and in an argument without quoting.
var credential = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Options say what to start. The zero value is one node without a secured
// listener.
type Options struct {
	// Nodes is 1 (also for 0) or 3. Three nodes keep three copies, of which two
	// must be in sync for acks=all.
	Nodes int
	// Dir keeps data, configuration and logs; starting again on it continues
	// the same cluster. Empty: a temporary directory that Stop removes.
	Dir string
	// Port is the TCP port on 127.0.0.1 of the one node; 0 takes a free one.
	Port int
	// JVMFlags replace the default -Xmx512m -XX:TieredStopAtLevel=1, which
	// starts fast and uses little memory. Measurements want more.
	JVMFlags []string
	// Config adds or replaces lines of server.properties.
	Config map[string]string
	// TLS, and User with Password, secure a second listener: TLS, SASL (PLAIN,
	// SCRAM-SHA-256 and SCRAM-SHA-512), or SASL over TLS. The first one stays
	// as it is. Only letters, digits and "_.-" are allowed in the credentials.
	TLS            bool
	User, Password string
}

// A Cluster is one to three running brokers, numbered from 0. Its methods are
// safe for concurrent use.
type Cluster struct {
	opts    Options
	dir     string
	ownsDir bool
	lib     string
	id      string
	certs   certs.Files
	tls     *tls.Config
	nodes   []*node

	mu sync.Mutex // guards the nodes' processes
}

// Start fetches Kafka if need be, formats and starts the nodes, and returns when
// each of them answers and sees all others; ctx bounds the start, not the life.
// The caller must call Stop. On error nothing is left running and the message
// ends with the broker's last words.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	c := &Cluster{opts: opts, dir: opts.Dir}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	var err error
	if c.lib, err = Fetch(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.removeDir())
	}
	for range portRetries {
		if err = c.start(ctx); err == nil {
			return c, nil
		}
		if c.opts.Port != 0 || !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return nil, errors.Join(err, c.removeDir())
}

func (c *Cluster) check() error {
	if c.opts.Nodes == 0 {
		c.opts.Nodes = 1
	}
	if c.opts.Nodes != 1 && c.opts.Nodes != 3 {
		return fmt.Errorf("%d nodes: only 1 and 3 are possible", c.opts.Nodes)
	}
	if c.opts.Port != 0 && c.opts.Nodes != 1 {
		return fmt.Errorf("port %d for %d nodes: only one node can have it", c.opts.Port, c.opts.Nodes)
	}
	if (c.opts.User == "") != (c.opts.Password == "") {
		return errors.New("user and password must be set together")
	}
	if c.opts.User != "" && (!credential.MatchString(c.opts.User) || !credential.MatchString(c.opts.Password)) {
		return errors.New("user and password may hold letters, digits, '_', '.' and '-' only")
	}
	if missing := child.Missing("java"); len(missing) > 0 {
		return errors.New("java is not installed: run make setup")
	}
	return nil
}

func (c *Cluster) prepare() error {
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "stormbell-kafka-")
		if err != nil {
			return fmt.Errorf("make directory of kafka: %w", err)
		}
		c.dir, c.ownsDir = dir, true
	} else if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("make directory of kafka: %w", err)
	}
	var err error
	if c.id, err = clusterID(filepath.Join(c.dir, "cluster.id")); err != nil {
		return err
	}
	if !c.opts.TLS {
		return nil
	}
	if c.certs, err = certs.Write(c.dir, time.Now()); err != nil {
		return fmt.Errorf("make certificates of kafka: %w", err)
	}
	c.tls, err = certs.ClientConfig(c.certs)
	return err
}

// clusterID reads the id of the cluster that lives here already or makes one:
// 16 random bytes in URL-safe base64.
func clusterID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		return string(b), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read id of kafka cluster: %w", err)
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	raw[0] &= 0x7f           // an id must not begin with "-": it is an argument
	id := base64.RawURLEncoding.EncodeToString(raw[:])
	if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
		return "", fmt.Errorf("keep id of kafka cluster: %w", err)
	}
	return id, nil
}

// start gives each node ports, formats all at once and starts them.
func (c *Cluster) start(ctx context.Context) error {
	ports, err := child.FreePorts(ctx, portsPerNode*c.opts.Nodes)
	if err != nil {
		return err
	}
	if c.opts.Port != 0 {
		ports[0] = c.opts.Port
	}
	c.nodes = make([]*node, c.opts.Nodes)
	for i := range c.nodes {
		c.nodes[i] = newNode(c.dir, i, ports[i*portsPerNode:])
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		g.Go(func() error { return c.format(gctx, n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.run(ctx, c.nodes, len(c.nodes)); err != nil {
		return errors.Join(err, c.end(c.nodes, (*child.Process).Kill))
	}
	return nil
}

// run starts the nodes and waits for each; it is called with mu held.
func (c *Cluster) run(ctx context.Context, nodes []*node, brokers int) error {
	for _, n := range nodes {
		if err := c.launch(n); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		g.Go(func() error { return n.await(gctx, brokers) })
	}
	return g.Wait()
}

// end ends the nodes side by side; it is called with mu held.
func (c *Cluster) end(nodes []*node, how func(*child.Process) error) error {
	var g errgroup.Group
	for _, n := range nodes {
		if n.proc == nil {
			continue
		}
		g.Go(func() error {
			if err := how(n.proc); err != nil {
				return fmt.Errorf("end kafka node %d: %w", n.id, err)
			}
			n.proc = nil
			return nil
		})
	}
	return g.Wait()
}

// Brokers are host:port of each node's plain listener, running or not. They stay
// the same across Kill and Restart.
func (c *Cluster) Brokers() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.addr()
	}
	return addrs
}

// SecureBrokers are host:port of each node's secured listener; none if the
// options did not ask for one.
func (c *Cluster) SecureBrokers() []string {
	if c.opts.protocol() == "" {
		return nil
	}
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(n.secure))
	}
	return addrs
}

// TLSConfig trusts the certificate of the secured listener; it is nil without
// TLS. Clone it before changing it.
func (c *Cluster) TLSConfig() *tls.Config { return c.tls }

// CAFile is the PEM file of the authority that signed that certificate; it is
// empty without TLS.
func (c *Cluster) CAFile() string { return c.certs.CA }

// Dir is where the nodes keep their data; each node's log is node-N.log in it,
// N from 1.
func (c *Cluster) Dir() string { return c.dir }

// Pid is the process id of node i, 0 while it is not running.
func (c *Cluster) Pid(i int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[i].proc == nil {
		return 0
	}
	return c.nodes[i].proc.Pid()
}

// Kill ends node i with SIGKILL.
func (c *Cluster) Kill(i int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end(c.nodes[i:i+1], (*child.Process).Kill)
}

// Signal sends sig to node i: SIGSTOP and SIGCONT make a broker that hangs.
func (c *Cluster) Signal(i int, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[i].proc == nil {
		return fmt.Errorf("signal kafka node %d: it is not running", i+1)
	}
	return c.nodes[i].proc.Signal(sig)
}

// Restart starts the given nodes on the same ports and data, ending with SIGKILL
// those that still run, and returns when each of them answers and has joined
// the cluster. A majority must be running for that: after more than one node
// of three has been killed, restart them together.
func (c *Cluster) Restart(ctx context.Context, nodes ...int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	chosen := make([]*node, len(nodes))
	for k, i := range nodes {
		chosen[k] = c.nodes[i]
	}
	if err := c.end(chosen, (*child.Process).Kill); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return c.run(ctx, chosen, len(chosen))
}

// Replace ends node i with SIGKILL, forgets its disk, and starts an empty one
// under the same id and ports, as a new machine would be. It returns when that
// answers and has joined the cluster; see AwaitInSync for its data.
func (c *Cluster) Replace(ctx context.Context, i int) error {
	n := c.nodes[i]
	c.mu.Lock()
	err := c.end([]*node{n}, (*child.Process).Kill)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(n.data); err != nil {
		return fmt.Errorf("forget the disk of kafka node %d: %w", n.id, err)
	}
	if err := c.format(ctx, n); err != nil {
		return err
	}
	return c.Restart(ctx, i)
}

// Stop ends all nodes, with SIGTERM if their data is kept, and removes the
// directory if Start made it. It may be called twice.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	how := (*child.Process).Kill
	if !c.ownsDir {
		how = func(p *child.Process) error { return p.Stop(stopGrace) }
	}
	return errors.Join(c.end(c.nodes, how), c.removeDir())
}

func (c *Cluster) removeDir() error {
	if !c.ownsDir {
		return nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove directory of kafka: %w", err)
	}
	return nil
}
