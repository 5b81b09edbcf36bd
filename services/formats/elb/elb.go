// Package elb reads the access logs of AWS load balancers: application,
// network and classic ones, and the connection log of the first.
package elb

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/stormbell/stormbell/services/formats/accesslog"
	"github.com/stormbell/stormbell/services/formats/eventtime"
)

// The log source that every line asserts.
const (
	Product = "aws"
	Service = "elb"
)

// A Record is one line.
type Record struct {
	// JSON is the event, with the field names of AWS's description in snake
	// case. A pair of host and port is two fields, as in client_ip and
	// client_port; a request also has its parts.
	JSON []byte
	// TimeMS is Unix milliseconds.
	TimeMS int64
}

// A layout is what a kind of line is made of. A name that ends in ":" is a
// host with a port, one that ends in "#" is text although it may look like a
// number.
type layout struct {
	kind string
	time int // its place
	// least is how many fields the oldest lines have.
	least int
	names string
}

func application() layout {
	return layout{"application", 1, 25, `type time elb client: target: request_processing_time target_processing_time
response_processing_time elb_status_code target_status_code received_bytes sent_bytes request user_agent ssl_cipher
ssl_protocol target_group_arn trace_id domain_name# chosen_cert_arn matched_rule_priority request_creation_time
actions_executed redirect_url error_reason target_port_list# target_status_code_list# classification
classification_reason conn_trace_id# transformed_host# transformed_uri request_transform_status`}
}

func network() layout {
	return layout{"network", 2, 16, `type version# time elb listener# client: destination: connection_time tls_handshake_time
received_bytes sent_bytes incoming_tls_alert chosen_cert_arn chosen_cert_serial# tls_cipher tls_protocol
tls_named_group domain_name# alpn_fe_protocol alpn_be_protocol alpn_client_preference_list tls_connection_creation_time`}
}

func classic() layout {
	return layout{"classic", 0, 12, `time elb client: backend: request_processing_time backend_processing_time
response_processing_time elb_status_code backend_status_code received_bytes sent_bytes request user_agent ssl_cipher
ssl_protocol`}
}

func connection() layout {
	return layout{"connection", 0, 12, `time client_ip client_port listener_port tls_protocol tls_cipher tls_handshake_latency
leaf_client_cert_subject leaf_client_cert_validity leaf_client_cert_serial_number# tls_verify_status conn_trace_id#`}
}

// kindOf tells lines apart by how they begin.
func kindOf(fields [][]byte) (layout, error) {
	switch string(fields[0]) {
	case "http", "https", "h2", "grpcs", "ws", "wss":
		return application(), nil
	case "tls":
		return network(), nil
	}
	if _, ok := timeOf(fields[0]); !ok {
		return layout{}, fmt.Errorf("a line of a load balancer's log begins with a type such as https or tls, or with a time, not with %.40q", fields[0])
	}
	if len(fields) > 2 {
		if _, ok := accesslog.Integer(fields[2]); ok {
			return connection(), nil
		}
	}
	return classic(), nil
}

// Parse reads a line.
func Parse(line []byte) (Record, error) {
	fields, err := accesslog.Split(line)
	if err != nil {
		return Record{}, err //nolint:wrapcheck // it says what is wrong with the line
	}
	l, err := kindOf(fields)
	if err != nil {
		return Record{}, err
	}
	if len(fields) < l.least {
		return Record{}, fmt.Errorf("%d fields: a line of an %s load balancer's log has at least %d", len(fields), l.kind, l.least)
	}
	var r Record
	var ok bool
	if r.TimeMS, ok = timeOf(fields[l.time]); !ok {
		return r, fmt.Errorf("field %d is no time such as 2018-07-02T22:23:00.186641Z: %.40q", l.time+1, fields[l.time])
	}
	o := accesslog.NewObject(2*len(line) + 1024)
	i := 0
	for name := range strings.FieldsSeq(l.names) {
		if i == len(fields) {
			break
		}
		add(o, name, fields[i], i == l.time)
		i++
	}
	if i < len(fields) {
		o.Texts("surplus", fields[i:])
	}
	r.JSON = o.JSON()
	return r, nil
}

func add(o *accesslog.Object, name string, v []byte, isTime bool) {
	switch {
	case isTime:
		o.Text(name, zoned(v))
	case name == "request":
		if bytes.Equal(bytes.TrimSpace(v), []byte("- - -")) {
			return // there was none: a TCP listener, or a client that sent nothing
		}
		o.Text(name, v)
		o.Request(v)
	case strings.HasSuffix(name, ":"):
		host, port := accesslog.HostPort(v)
		name = strings.TrimSuffix(name, ":")
		o.Text(name+"_ip", host)
		o.Value(name+"_port", port)
	case strings.HasSuffix(name, "#"):
		o.Text(strings.TrimSuffix(name, "#"), v)
	default:
		o.Value(name, v)
	}
}

// zoned adds the zone that network load balancers leave out: it is UTC.
func zoned(v []byte) []byte {
	if n := len(v); n > 0 && v[n-1] >= '0' && v[n-1] <= '9' && bytes.LastIndexByte(v, '+') < 0 {
		return append(bytes.Clone(v), 'Z')
	}
	return v
}

func timeOf(v []byte) (ms int64, ok bool) { return eventtime.RFC3339(zoned(v)) }
