package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stormbell/stormbell/services/formats/eventtime"
	"github.com/stormbell/stormbell/services/formats/vpcflow"
	"github.com/stormbell/stormbell/services/gateway/settings"
)

// Config says where the gateway listens and what it takes.
type Config settings.Config

// TLS names certificate and key in PEM.
type TLS = settings.TLS

// A Source describes where events come from.
type Source = settings.Source

// DefaultConfig returns the settings of a gateway on loopback.
func DefaultConfig() Config { return Config(settings.Default()) }

// Formats that a Source can have.
const (
	FormatJSON       = "json"
	FormatCloudTrail = "cloudtrail"
	FormatAgent      = "agent"
	FormatS3Access   = "s3access"
	FormatELB        = "elb"
	FormatVPCFlow    = "vpcflow"
)

// SourceAgent is the built-in source of host events.
const SourceAgent = "agent"

const (
	maxRecordBytes    = 950_000
	maxDepth          = 1000
	maxProduceTimeout = 30 * time.Second
	maxReaders        = 1000
	maxLinger         = 5 * time.Minute
	maxLateness       = 30 * 24 * time.Hour
)

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("gateway: "+format, args...)) }
	if err := c.validateListener(); err != nil {
		bad("%w", err)
	}
	if c.MaxBodyBytes <= 0 || c.MaxInflightBytes < c.MaxBodyBytes {
		bad("max_inflight_bytes %d and max_body_bytes %d: both must be positive, and the first at least the second", c.MaxInflightBytes, c.MaxBodyBytes)
	}
	if c.MaxRecords <= 0 {
		bad("max_records %d: use 1 or more", c.MaxRecords)
	}
	if c.MaxRecordBytes <= 0 || c.MaxRecordBytes > maxRecordBytes {
		bad("max_record_bytes %d: use 1 to %d", c.MaxRecordBytes, maxRecordBytes)
	}
	if c.MaxDepth <= 0 || c.MaxDepth > maxDepth {
		bad("max_depth %d: use 1 to %d", c.MaxDepth, maxDepth)
	}
	if c.TenantPartitions < 0 {
		bad("tenant_partitions %d: use 0 or more", c.TenantPartitions)
	}
	if c.Lateness <= 0 || c.Lateness > maxLateness {
		bad("lateness %s: use more than 0, at most %s", c.Lateness, maxLateness)
	}
	if c.MaxConnections <= 0 {
		bad("max_connections %d: use 1 or more", c.MaxConnections)
	}
	if c.MaxReaders <= 0 || c.MaxReaders > maxReaders {
		bad("max_readers %d: use 1 to %d", c.MaxReaders, maxReaders)
	}
	for name, d := range map[string]time.Duration{
		"header_timeout": c.HeaderTimeout, "body_timeout": c.BodyTimeout, "idle_timeout": c.IdleTimeout,
		"produce_timeout": c.ProduceTimeout, "drain_timeout": c.DrainTimeout,
	} {
		if d <= 0 {
			bad("%s %s: use more than 0", name, d)
		}
	}
	if c.ProduceTimeout > maxProduceTimeout {
		bad("produce_timeout %s: use at most %s", c.ProduceTimeout, maxProduceTimeout)
	}
	if c.Linger < 0 || c.Linger > maxLinger {
		bad("linger %s: use 0 to %s", c.Linger, maxLinger)
	}
	if _, err := newSources(c); err != nil {
		bad("%w", err)
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (c Config) validateListener() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen %q: use HOST:PORT", c.Listen)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return errors.New("tls: set both cert_file and key_file, or neither")
	}
	if c.TLS.CertFile == "" && !c.Insecure && !loopback(host) {
		return fmt.Errorf("listen %q is reachable from other machines without TLS: set tls.cert_file and tls.key_file, listen on 127.0.0.1, or set insecure: true where something in front of it encrypts", c.Listen)
	}
	return nil
}

// loopback reports whether host is surely this machine alone. Names but
// localhost are not looked up.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// A source is a Source in the form that requests use.
type source struct {
	name                       string
	format                     string
	product, service, category string
	latenessMS                 int64
	timeFields                 []eventtime.Field
	dimensions                 dimensions
	layout                     *vpcflow.Layout // of format vpcflow
}

// dimensions are the members in which JSON events assert their log source.
type dimensions struct{ product, service, category eventtime.Field }

func usualDimensions() dimensions {
	return dimensions{eventtime.Field{"product"}, eventtime.Field{"service"}, eventtime.Field{"category"}}
}

// sources are the configured sources and the built-in one by name. The one without a name is that
// of requests that name none.
type sources map[string]*source

func newSources(c Config) (sources, error) {
	all := sources{"": {latenessMS: c.Lateness.Milliseconds(), timeFields: eventtime.DefaultFields(), dimensions: usualDimensions()}}
	for _, s := range c.Sources {
		switch {
		case !plainName(s.Name):
			return nil, fmt.Errorf("source %q: use 1 to 64 letters, digits, '-', '_' and '.' for its name", s.Name)
		case all[s.Name] != nil:
			return nil, fmt.Errorf("source %q: the name is used twice", s.Name)
		case s.Format != "" && s.Format != FormatJSON && s.Format != FormatCloudTrail && s.Format != FormatAgent && !isText(s.Format):
			return nil, fmt.Errorf("source %q: format %q: use %s, %s, %s, %s, %s, %s, or none to detect it", s.Name, s.Format,
				FormatCloudTrail, FormatAgent, FormatJSON, FormatS3Access, FormatELB, FormatVPCFlow)
		case s.Lateness < 0 || s.Lateness > maxLateness:
			return nil, fmt.Errorf("source %q: lateness %s: use 0 to %s", s.Name, s.Lateness, maxLateness)
		}
		layout, err := layoutOf(s)
		if err != nil {
			return nil, fmt.Errorf("source %q: %w", s.Name, err)
		}
		one := &source{
			layout: layout,
			name:   s.Name, format: s.Format,
			product: strings.ToLower(s.Product), service: strings.ToLower(s.Service), category: strings.ToLower(s.Category),
			latenessMS: cmp.Or(s.Lateness, usualLateness(s.Format), c.Lateness).Milliseconds(),
			timeFields: all[""].timeFields, dimensions: all[""].dimensions,
		}
		if len(s.TimeFields) > 0 {
			one.timeFields = nil
		}
		for _, f := range s.TimeFields {
			if f == "" {
				return nil, fmt.Errorf("source %q: empty time field", s.Name)
			}
			one.timeFields = append(one.timeFields, strings.Split(f, "."))
		}
		all[s.Name] = one
	}
	if all[SourceAgent] == nil {
		all[SourceAgent] = &source{name: SourceAgent, format: FormatAgent, latenessMS: c.Lateness.Milliseconds(), timeFields: all[""].timeFields}
	}
	return all, nil
}

// unknown says which names there are in place of one that is none.
func (s sources) unknown() string { return "known are " + list(s.names()) }

// names returns the names of the sources, sorted.
func (s sources) names() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func plainName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
