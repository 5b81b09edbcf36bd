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
)

// Config says where the gateway listens and what it takes. All byte limits on
// bodies count bytes after decompression.
type Config struct {
	// Listen is the host and port of the API; port 0 takes a free one.
	Listen string `yaml:"listen" env:"LISTEN"`
	// TLS certifies the listener. Without it a listener beyond loopback needs
	// Insecure.
	TLS TLS `yaml:"tls" envPrefix:"TLS_"`
	// Insecure lets a listener beyond loopback go without TLS: only where
	// something in front of it encrypts.
	Insecure bool `yaml:"insecure" env:"INSECURE"`

	// MaxBodyBytes bounds one body, MaxInflightBytes all bodies in memory at
	// a time.
	MaxBodyBytes     int64 `yaml:"max_body_bytes" env:"MAX_BODY_BYTES"`
	MaxInflightBytes int64 `yaml:"max_inflight_bytes" env:"MAX_INFLIGHT_BYTES"`
	// MaxRecords bounds the records of one body.
	MaxRecords int `yaml:"max_records" env:"MAX_RECORDS"`
	// MaxRecordBytes bounds one record. Brokers take one megabyte by default.
	MaxRecordBytes int `yaml:"max_record_bytes" env:"MAX_RECORD_BYTES"`
	// MaxDepth bounds the nesting of one record.
	MaxDepth int `yaml:"max_depth" env:"MAX_DEPTH"`

	// EventsPerSecond and BytesPerSecond are the quota of a tenant that has
	// none of its own, per gateway; 0 is without limit.
	EventsPerSecond uint32 `yaml:"events_per_second" env:"EVENTS_PER_SECOND"`
	BytesPerSecond  uint64 `yaml:"bytes_per_second" env:"BYTES_PER_SECOND"`
	// TenantPartitions is how many partitions the requests of a tenant spread
	// over that has no figure of its own; 0 is half of them.
	TenantPartitions int `yaml:"tenant_partitions" env:"TENANT_PARTITIONS"`

	// Lateness is how old an event may be at its ingest before it counts as
	// late, where its source says nothing else.
	Lateness time.Duration `yaml:"lateness" env:"LATENESS"`
	// Sources are the sources that a request can name, besides the built-in
	// "agent", which takes host events. One of that name takes its place.
	Sources []Source `yaml:"sources"`

	// MaxConnections bounds open connections; further ones wait.
	MaxConnections int `yaml:"max_connections" env:"MAX_CONNECTIONS"`
	// MaxReaders bounds the requests that look back into the log at a time;
	// further ones are refused, so that they do not disturb those that write.
	MaxReaders int `yaml:"max_readers" env:"MAX_READERS"`
	// HeaderTimeout, BodyTimeout and IdleTimeout bound a connection's header,
	// the whole of a request with its answer, and the pause between requests.
	HeaderTimeout time.Duration `yaml:"header_timeout" env:"HEADER_TIMEOUT"`
	BodyTimeout   time.Duration `yaml:"body_timeout" env:"BODY_TIMEOUT"`
	IdleTimeout   time.Duration `yaml:"idle_timeout" env:"IDLE_TIMEOUT"`
	// ProduceTimeout bounds the wait for the broker's acknowledgement. It is at
	// most half of the watermark's margin of 60 s.
	ProduceTimeout time.Duration `yaml:"produce_timeout" env:"PRODUCE_TIMEOUT"`
	// Linger is how long a gateway that is told to stop still takes requests,
	// not ready, and tells each client to close its connection. What spreads
	// requests needs that time to turn to the others. 0 stops at once.
	Linger time.Duration `yaml:"linger" env:"LINGER"`
	// DrainTimeout bounds how long a stop then waits for requests under way.
	DrainTimeout time.Duration `yaml:"drain_timeout" env:"DRAIN_TIMEOUT"`
}

// TLS names certificate and key in PEM. Both files are read again when they
// change.
type TLS struct {
	CertFile string `yaml:"cert_file" env:"CERT_FILE"`
	KeyFile  string `yaml:"key_file" env:"KEY_FILE"`
}

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

// A Source describes where events come from. What it leaves empty is detected.
type Source struct {
	// Name is what requests and keys refer to.
	Name string `yaml:"name"`
	// Format is "cloudtrail", "agent", "json", or empty to tell CloudTrail from
	// other JSON by each record. "s3access", "elb" and "vpcflow" are lines of
	// text: S3 access logs, logs of load balancers, VPC flow logs.
	Format string `yaml:"format"`
	// Product, Service and Category are the log source of its JSON events. An
	// event's own members of these names count where they are empty.
	Product  string `yaml:"product"`
	Service  string `yaml:"service"`
	Category string `yaml:"category"`
	// Lateness takes the place of Config.Lateness; 0 keeps it, but for format
	// "s3access" (24h), "elb" and "vpcflow" (30m).
	Lateness time.Duration `yaml:"lateness"`
	// TimeFields are the members in which the event's time is looked up, with
	// dots between nested names; none keeps the usual ones.
	TimeFields []string `yaml:"time_fields"`
	// Fields are those of format "vpcflow" in their order, where no line ahead
	// of the others names them; none are those of version 2.
	Fields []string `yaml:"fields"`
}

// DefaultConfig returns the settings of a gateway on loopback.
func DefaultConfig() Config {
	return Config{
		Listen:           "127.0.0.1:8080",
		MaxBodyBytes:     32 << 20,
		MaxInflightBytes: 256 << 20,
		MaxRecords:       10_000,
		MaxRecordBytes:   900_000,
		MaxDepth:         64,
		Lateness:         10 * time.Minute,
		MaxConnections:   10_000,
		MaxReaders:       4,
		HeaderTimeout:    5 * time.Second,
		BodyTimeout:      60 * time.Second,
		IdleTimeout:      90 * time.Second,
		ProduceTimeout:   15 * time.Second,
		DrainTimeout:     20 * time.Second,
	}
}

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
