package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/stormbell/stormbell/tools/child"
)

const (
	pollEvery  = 100 * time.Millisecond
	probeLimit = 2 * time.Second
)

// A node is one broker that is also a controller. Its ports stay the same for
// as long as the cluster lives.
type node struct {
	id                        int // from 1
	plain, controller, secure int
	data, conf, log           string
	proc                      *child.Process // nil while it is not running
}

func newNode(dir string, i int, ports []int) *node {
	name := fmt.Sprintf("node-%d", i+1)
	return &node{
		id: i + 1, plain: ports[0], controller: ports[1], secure: ports[2],
		data: filepath.Join(dir, name),
		conf: filepath.Join(dir, name+".properties"),
		log:  filepath.Join(dir, name+".log"),
	}
}

func (n *node) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.plain)) }

// format writes the node's configuration and makes its data directory known to
// Kafka; a directory that is already formatted is left alone.
func (c *Cluster) format(ctx context.Context, n *node) error {
	text, err := c.properties(n)
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure kafka: %w", err)
	}
	args := []string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", c.classpath(), "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", c.id, "-c", n.conf}
	if c.opts.User != "" {
		// A password in an argument is readable by others on the machine: this
		// one protects a test and nothing else.
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, c.opts.User, c.opts.Password))
		}
	}
	if out, err := exec.CommandContext(ctx, "java", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format storage of kafka: %w; it said:\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (c *Cluster) classpath() string { return filepath.Join(c.lib, "*") }

// launch starts the node's process; it does not wait until it answers.
func (c *Cluster) launch(n *node) error {
	flags := c.opts.JVMFlags
	if flags == nil {
		// A broker for tests: little memory, and no time spent on optimising.
		flags = []string{"-Xmx512m", "-XX:TieredStopAtLevel=1"}
	}
	argv := append([]string{"java"}, flags...)
	argv = append(argv, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", c.classpath(), "kafka.Kafka", n.conf)
	p, err := child.Start(argv, n.log)
	if err != nil {
		return err
	}
	n.proc = p
	return nil
}

// await returns when the node answers and sees at least brokers brokers, itself
// among them, and a controller.
func (n *node) await(ctx context.Context, brokers int) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := n.probe(ctx, brokers)
		if err == nil {
			return nil
		}
		select {
		case <-n.proc.Done():
			return fmt.Errorf("kafka node %d ended: %w; it said:\n%s", n.id, n.proc.Err(), child.Tail(n.log))
		case <-ctx.Done():
			return fmt.Errorf("kafka node %d is not ready: %w; it said:\n%s", n.id, errors.Join(ctx.Err(), err), child.Tail(n.log))
		case <-tick.C:
		}
	}
}

func (n *node) probe(ctx context.Context, brokers int) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	conn, err := kafkago.DialContext(ctx, "tcp", n.addr())
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is buffered
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
	}
	if _, err := conn.ApiVersions(); err != nil {
		return fmt.Errorf("api versions: %w", err)
	}
	list, err := conn.Brokers()
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	self := false
	for _, b := range list {
		self = self || b.ID == n.id
	}
	if !self || len(list) < brokers {
		return fmt.Errorf("it sees %d of %d brokers, itself: %t", len(list), brokers, self)
	}
	if _, err := conn.Controller(); err != nil {
		return fmt.Errorf("no controller yet: %w", err)
	}
	return nil
}
