// Package settings holds the settings of the gateway, so that a program that
// reads them need not link the gateway. What they may be is checked there.
package settings

import "time"

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

// Default returns the settings of a gateway on loopback.
func Default() Config {
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
