package kafka

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// properties is the server.properties of node n.
func (c *Cluster) properties(n *node) (string, error) {
	voters := make([]string, len(c.nodes))
	for i, v := range c.nodes {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", v.id, v.controller)
	}
	// More than one copy only where there is more than one node.
	replicas, minISR := len(c.nodes), max(1, len(c.nodes)-1)
	p := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  fmt.Sprint(n.id),
		"controller.quorum.voters":                 strings.Join(voters, ","),
		"controller.listener.names":                "CONTROLLER",
		"listeners":                                fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", n.plain, n.controller),
		"advertised.listeners":                     fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", n.plain),
		"listener.security.protocol.map":           "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":               "PLAINTEXT",
		"log.dirs":                                 n.data,
		"default.replication.factor":               fmt.Sprint(replicas),
		"min.insync.replicas":                      fmt.Sprint(minISR),
		"offsets.topic.replication.factor":         fmt.Sprint(replicas),
		"offsets.topic.num.partitions":             "6",
		"transaction.state.log.replication.factor": fmt.Sprint(replicas),
		"transaction.state.log.min.isr":            fmt.Sprint(minISR),
		"group.initial.rebalance.delay.ms":         "0",
		"auto.create.topics.enable":                "false",
		// A killed broker is let in again only when its old session has ended:
		// by default after 9 s, which would be most of a test with faults.
		"broker.session.timeout.ms":    "4000",
		"broker.heartbeat.interval.ms": "500",
	}
	if err := c.secure(n, p); err != nil {
		return "", err
	}
	maps.Copy(p, c.opts.Config)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(p[k], "\n", "\\n"))
	}
	return b.String(), nil
}

// secure adds the second listener, if the options ask for one.
func (c *Cluster) secure(n *node, p map[string]string) error {
	protocol := c.opts.protocol()
	if protocol == "" {
		return nil
	}
	p["listeners"] += fmt.Sprintf(",SECURE://127.0.0.1:%d", n.secure)
	p["advertised.listeners"] += fmt.Sprintf(",SECURE://127.0.0.1:%d", n.secure)
	p["listener.security.protocol.map"] += ",SECURE:" + protocol
	const prefix = "listener.name.secure."
	if c.opts.TLS {
		chain, err := os.ReadFile(c.certs.Cert)
		if err != nil {
			return fmt.Errorf("configure kafka: %w", err)
		}
		key, err := os.ReadFile(c.certs.Key)
		if err != nil {
			return fmt.Errorf("configure kafka: %w", err)
		}
		p[prefix+"ssl.keystore.type"] = "PEM"
		p[prefix+"ssl.keystore.certificate.chain"] = string(chain)
		p[prefix+"ssl.keystore.key"] = string(key)
	}
	if c.opts.User != "" {
		const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
		p[prefix+"sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
		p[prefix+"scram-sha-256.sasl.jaas.config"] = scram
		p[prefix+"scram-sha-512.sasl.jaas.config"] = scram
		p[prefix+"plain.sasl.jaas.config"] = fmt.Sprintf(
			"org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=%q;", c.opts.User, c.opts.Password)
	}
	return nil
}

// protocol is Kafka's name for how the second listener is secured; empty means
// that there is none.
func (o Options) protocol() string {
	switch {
	case o.TLS && o.User != "":
		return "SASL_SSL"
	case o.TLS:
		return "SSL"
	case o.User != "":
		return "SASL_PLAINTEXT"
	default:
		return ""
	}
}
